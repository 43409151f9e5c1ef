"""Compare two evaluations of one split: `python scripts/compare.py --help`."""

from segnet.commands.compare import main
from segnet.system.command_line import run_command

if __name__ == "__main__":
    run_command(main)
