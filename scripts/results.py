"""Train recipes with several seeds and write the table of results: `python scripts/results.py --help`."""

from segnet.commands.results import main
from segnet.system.command_line import run_command

if __name__ == "__main__":
    run_command(main)
