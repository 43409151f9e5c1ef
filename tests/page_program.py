"""A command of a page, in a fork: `page_program.py PYTHON segnet …` or `page_program.py PYTHON SCRIPT …`.

PYTHON is what the command calls to start another. The process ends without taking torch apart, which would take longer than most
commands of the pages.
"""

from __future__ import annotations

import atexit
import os
import runpy
import sys
import threading

from segnet.__main__ import start


def run(name: str) -> int:
    """The exit status of `segnet` or a script. Raises what the program raises, SystemExit with a text too."""
    try:
        if name == "segnet":
            start()
        else:
            runpy.run_path(name, run_name="__main__")
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        return end.code or 0
    return 0


if __name__ == "__main__":
    _, sys.executable, program, *words = sys.argv
    sys.argv = [program, *words]
    sys.path[0] = os.path.dirname(sys.executable if program == "segnet" else program)
    status = run(program)
    threading._shutdown()  # as at the end of every process: waits for threads, and ends those of pools
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
