"""Train a network from a YAML file: `python scripts/train.py --help`."""

from segnet.commands.train import main
from segnet.system.command_line import run_command

if __name__ == "__main__":
    run_command(main)
