"""Write a trained network as a file for other programs: `python scripts/export.py --help`."""

from segnet.commands.export import main
from segnet.system.command_line import run_command

if __name__ == "__main__":
    run_command(main)
