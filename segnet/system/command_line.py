"""How a script runs: its arguments, its exit code, its last error line."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable

from segnet.system.errors import ExitCode, UserError
from segnet.system.processes import kill_children
from segnet.system.streams import OUTPUT, print_safely, printing_is_the_result


def count_up_to(most: int, *, least: int = 0) -> Callable[[str], int]:
    """The `type` of a command-line option that is a whole number from `least` to `most`."""

    def count(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text}: expected {least} to {most}")
        return int(text)

    return count


_ENVIRONMENT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE}
_ENVIRONMENT_ERRORS |= {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}  # an output path that cannot be made
_ENVIRONMENT_ERRORS |= {errno.ENAMETOOLONG, errno.ELOOP}


def run_command(command: Callable[[], ExitCode | None]) -> None:
    """Run a script's body and end the process, and those it started, with its exit code; a bug keeps its traceback."""
    print_safely()
    try:
        code = _code_of(command)
        sys.stdout.flush()
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        code = error.code
    except OSError as error:
        if error.filename != OUTPUT and error.errno not in _ENVIRONMENT_ERRORS:
            raise
        code = ExitCode.ENVIRONMENT
        if error.filename == OUTPUT and error.errno == errno.EPIPE:  # who read it has seen enough, e.g. `head`
            code = 128 + signal.SIGPIPE
        else:
            print(f"error: {error.filename or 'system'}: {error.strerror}", file=sys.stderr)
    except KeyboardInterrupt:
        kill_children()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(128 + signal.SIGINT)  # an orderly exit would wait for the threads of pools whose processes are gone
    finally:
        kill_children()
    sys.exit(int(code))


def _code_of(command: Callable[[], ExitCode | None]) -> int:
    """The exit code with which `command` returns, or ends after --help."""
    try:
        if {"-h", "--help"} & set(sys.argv):
            printing_is_the_result()
        return command() or ExitCode.DONE
    except SystemExit as end:
        if end.code:
            raise
        printing_is_the_result()  # argparse hides that it could not write
        return ExitCode.DONE
