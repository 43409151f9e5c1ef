"""A command of a page, in a fork: `page_program.py PYTHON segnet …` or `page_program.py PYTHON SCRIPT …`.

PYTHON is what the command calls to start another.
"""

import os
import runpy
import sys

from segnet.__main__ import start

if __name__ == "__main__":
    _, sys.executable, program, *words = sys.argv
    sys.argv = [program, *words]
    sys.path[0] = os.path.dirname(sys.executable if program == "segnet" else program)
    if program == "segnet":
        start()
    else:
        runpy.run_path(program, run_name="__main__")
