"""Fixtures of the tests of the page and its server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from web_servers import RunningServer, tiny_predictor

from segnet.inference.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A tiny untrained network."""
    return tiny_predictor(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def running(predictor: Predictor) -> Iterator[RunningServer]:
    """A server with the usual limits."""
    with RunningServer(predictor) as server:
        yield server
