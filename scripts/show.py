"""Show a configuration, a network or augmented samples: `python scripts/show.py --help`."""

from segnet.commands.show import main
from segnet.system.command_line import run_command

if __name__ == "__main__":
    run_command(main)
