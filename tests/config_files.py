"""Configuration files that stand on the sample's, for the tests of `segnet.config`."""

from __future__ import annotations

from pathlib import Path

from helpers import ROOT

from segnet.config.loading import load_config

BASE = ROOT / "configs" / "sample.yaml"
SAMPLE_CONFIG = load_config(BASE)


def write_config(folder: Path, text: str | bytes, name: str = "try.yaml") -> Path:
    """A configuration file that stands on the sample's, unless it names a base of its own."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.replace("BASE", f"base: {BASE}").encode())
    return path


def data_folder(folder: Path, text: str) -> Path:
    """A configuration without classes, of a data folder whose classes.yaml holds `text`."""
    (folder / "leaves").mkdir(exist_ok=True)
    (folder / "leaves" / "classes.yaml").write_text(text)
    data = f"data: {{root: {folder / 'leaves'}}}\n"
    return write_config(folder, f"base: {ROOT / 'configs' / 'model' / 'segnet_small.yaml'}\n{data}")
