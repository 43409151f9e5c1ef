"""Running a script: argument types, error lines, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable

from segnet.system.errors import ExitCode, UserError, printable
from segnet.system.processes import kill_children
from segnet.system.streams import OUTPUT, print_safely, printing_is_the_result
from segnet.system.terminal import styled


def count_up_to(most: int, *, least: int = 0) -> Callable[[str], int]:
    """An argparse `type` for whole numbers from `least` to `most`."""

    def count(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text}: expected {least} to {most}")
        return int(text)

    return count


_FULL = {errno.ENOSPC, errno.EDQUOT}
_ENVIRONMENT_ERRORS = _FULL | {errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE}
_ENVIRONMENT_ERRORS |= {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}  # of a path


def run_command(command: Callable[[], ExitCode | None]) -> None:
    """Run the body of a script, kill the processes it started, and end this one with its exit code.

    UserError, and OSError from the environment, are printed as lines that begin with "error: ". Any other exception is a bug and
    keeps its traceback.
    """
    print_safely()
    os.environ.setdefault("TQDM_DYNAMIC_NCOLS", "1")  # progress bars follow a terminal that becomes narrower
    try:
        code = _code_of(command)
        sys.stdout.flush()
    except UserError as error:
        for line in str(error).splitlines():
            print(styled("error:", "red", sys.stderr), line, file=sys.stderr)
        code = error.code
    except OSError as error:
        if error.filename != OUTPUT and error.errno not in _ENVIRONMENT_ERRORS:
            raise
        code = ExitCode.ENVIRONMENT
        if error.filename == OUTPUT and error.errno == errno.EPIPE:  # the reader has ended, e.g. `head`
            code = 128 + signal.SIGPIPE
        else:
            remedy = (
                " – free some space, then give the command again" if error.errno in _FULL and error.filename != OUTPUT else ""
            )
            line = printable(f"{error.filename or 'system'}: {error.strerror}{remedy}")
            print(styled("error:", "red", sys.stderr), line, file=sys.stderr)
    except KeyboardInterrupt:
        kill_children()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(128 + signal.SIGINT)  # an orderly exit would wait for threads of pools whose processes are dead
    finally:
        kill_children()
    sys.exit(int(code))


def _code_of(command: Callable[[], ExitCode | None]) -> int:
    """The exit code of `command`, also where argparse ends it after --help."""
    try:
        if {"-h", "--help"} & set(sys.argv):
            printing_is_the_result()
        return command() or ExitCode.DONE
    except SystemExit as end:
        if end.code:
            raise
        printing_is_the_result()  # argparse ignores that it could not write
        return ExitCode.DONE
