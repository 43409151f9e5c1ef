"""Show a resolved configuration, or the JSON schema that editors complete and check YAML from.

examples:
  python scripts/show.py config configs/sample.yaml
  python scripts/show.py config configs/voc_segnet.yaml train.epochs=5 model.head_kernel_size=1
  python scripts/show.py schema > configs/schema.json
"""

import argparse
import sys
from pathlib import Path

from segnet.config import config_schema, config_to_yaml, load_config
from segnet.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    config = commands.add_parser("config", help="every key of a configuration, defaults and base files resolved")
    config.add_argument("config", type=Path, metavar="CONFIG")
    config.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    commands.add_parser("schema", help="the JSON schema of configuration files")
    arguments = parser.parse_args()
    if arguments.command == "schema":
        sys.stdout.write(config_schema())
    else:
        sys.stdout.write(config_to_yaml(load_config(arguments.config, arguments.overrides)))


if __name__ == "__main__":
    run_command(main)
