"""Serve a page on which people try a network: `python scripts/serve.py --help`."""

from segnet.commands.serve import main
from segnet.system.command_line import run_command

if __name__ == "__main__":
    run_command(main)
