"""Prepare, check, convert or divide a data set: `python scripts/prepare_data.py --help`."""

from segnet.commands.prepare import main
from segnet.system.command_line import run_command

if __name__ == "__main__":
    run_command(main)
