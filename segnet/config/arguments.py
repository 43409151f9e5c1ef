"""The arguments of a command: which of them are paths, and which override the configuration."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Sequence

from segnet.config.sections import Config
from segnet.system.errors import config_error


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The paths and the overrides among the arguments of a command; KEY=VALUE is an override where KEY begins with a known key.

    Raises UserError (config) for an override that is also the name of files, and for one with a misspelled key and no such file.
    """
    paths: list[str] = []
    overrides: list[str] = []
    known = list(Config.model_fields)
    for text in arguments:
        key, separator, _ = text.partition("=")
        section, dot, rest = key.partition(".")
        there = bool(separator) and (os.path.lexists(text) or bool(glob.glob(text, recursive=True)))
        if section in known and there:
            remedy = f"write ./{text} for the files, or go elsewhere for the key"
            raise config_error(text, "sets a key, and is the name of files", remedy)
        close = difflib.get_close_matches(section, known, n=1) if separator and not there else []
        if close and section not in known:
            found = f"no such file, and no key begins with '{section}'"
            raise config_error(text, found, f"did you mean {close[0]}{dot}{rest}=…?")
        (overrides if separator and section in known else paths).append(text)
    return paths, overrides
