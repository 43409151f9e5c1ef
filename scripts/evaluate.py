"""Score a trained network on a split: `python scripts/evaluate.py --help`."""

from segnet.commands.evaluate import main
from segnet.system.command_line import run_command

if __name__ == "__main__":
    run_command(main)
