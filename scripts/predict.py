"""Predict masks, or restore pictures: `python scripts/predict.py --help`."""

from segnet.commands.predict import main
from segnet.system.command_line import run_command

if __name__ == "__main__":
    run_command(main)
