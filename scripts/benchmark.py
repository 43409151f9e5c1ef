"""Measure the speed of a configuration: `python scripts/benchmark.py --help`."""

from segnet.commands.benchmark import main
from segnet.system.command_line import run_command

if __name__ == "__main__":
    run_command(main)
