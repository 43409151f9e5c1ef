"""Tell what this machine offers to the program: versions, device, precision, optional packages, and what will be slow and why.

examples:
  segnet doctor
  segnet doctor --json
  segnet doctor > doctor.txt

Nothing is changed, and nothing is sent. The compiled kernel is tried, which compiles it once.
"""

from __future__ import annotations

import argparse
import json

from segnet.commands.parsers import command_parser, parse


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = command_parser("doctor", __doc__)
    parser.add_argument("--json", action="store_true", help="print the same as one JSON document")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Print the facts of this machine."""
    given = parse(build_parser(), arguments)
    from segnet.commands.examining import as_text, examine
    from segnet.system.streams import printing_is_the_result

    printing_is_the_result()
    facts = examine()
    print(json.dumps(facts._asdict(), indent=1, ensure_ascii=False) if given.json else as_text(facts))
