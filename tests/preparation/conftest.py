"""Fixtures of the preparation tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from public_archives import FILES, allow, pack

from segnet.preparation.public_sets import PUBLIC_SETS


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Small archives of the public sets, with their counts and checksums in the table in place of the real ones."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no test here loses power
    (tmp_path / "archives").mkdir()
    paths = {}
    for name, public in PUBLIC_SETS.items():
        paths[name] = pack(tmp_path / "archives" / public.archive.name, FILES[name]())
        allow(monkeypatch, name, paths[name])
    return paths
