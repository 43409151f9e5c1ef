"""The lab, which all tests of the folder share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_lab import SHORT, Lab
from crash_trials import ForkServer
from helpers import tiny_config_for


@pytest.fixture(scope="session")
def lab(_tiny_data_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A server of trials that is warm, and the runs to compare with, made once."""
    with ForkServer() as server:
        lab = Lab(server, tmp_path_factory.mktemp("crash"), tiny_config_for(_tiny_data_once))
        lab.run(lab.folder / "warm", SHORT)
        yield lab
