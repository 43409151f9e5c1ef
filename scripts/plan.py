"""Write a configuration for a data set and this machine: `python scripts/plan.py --help`."""

from segnet.commands.plan import main
from segnet.system.command_line import run_command

if __name__ == "__main__":
    run_command(main)
