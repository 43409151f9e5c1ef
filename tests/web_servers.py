"""A server in this process, and clients that behave well or badly."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from helpers import CLASSES, tiny_config_for
from PIL import Image

from segnet.config.sections import Config
from segnet.inference.predictor import Predictor
from segnet.models.initialization import build_model
from segnet.runs.checkpoint import Checkpoint, save_checkpoint
from segnet.web.requests import Limits
from segnet.web.server import Server

WAIT = 60.0  # seconds after which a test fails where nothing comes


def save_network(folder: Path, config: Config, channels: int) -> Path:
    """`folder`, made a run with an untrained network of `config`."""
    torch.manual_seed(0)
    weights = build_model(config.model, channels, config.data.channels).state_dict()
    save_checkpoint(folder / "best.pt", Checkpoint(config, step=0, score=None, weights=dict(weights)))
    return folder


def tiny_predictor(folder: Path) -> Predictor:
    """The untrained network of `tiny_config_for`, from a run in `folder`."""
    return Predictor(save_network(folder, tiny_config_for(folder / "nowhere"), len(CLASSES)))


def picture_file(size: tuple[int, int] = (24, 32), seed: int = 0, kind: str = "PNG") -> bytes:
    """A picture of noise as the bytes of a file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


class Reply(NamedTuple):
    """A response."""

    status: int
    headers: http.client.HTTPMessage
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class RunningServer:
    """A server in a thread of this process. While `gate` is not set, the network stands still before its first layer."""

    def __init__(self, predictor: Predictor, **limits: Any) -> None:
        self.server = Server(predictor, "127.0.0.1", 0, Limits(**limits))
        self.url = self.server.listener.url
        self.address = self.server.listener.server_address[:2]
        self.gate = threading.Event()
        self.gate.set()
        self._hook = predictor.model.register_forward_pre_hook(lambda *_: self._wait_at_gate())
        self._thread = threading.Thread(target=self.server.serve, daemon=True)

    def _wait_at_gate(self) -> None:
        while not self.gate.wait(0.005):
            self.server.queue.stop_if_cancelled()

    def __enter__(self) -> RunningServer:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.gate.set()
        self.server.stop()
        self._thread.join(WAIT)
        assert not self._thread.is_alive()
        self._hook.remove()

    def ask(self, path: str, body: bytes | None = None, method: str | None = None, **headers: str) -> Reply:
        """The response to a request of its own connection; underscores in the names of headers are hyphens."""
        connection = http.client.HTTPConnection(*self.address, timeout=WAIT)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, named)
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def send_raw(self, content: bytes) -> bytes:
        """All that the server says to these bytes, until it closes the connection."""
        with socket.create_connection(self.address, timeout=WAIT) as connection:
            connection.sendall(content)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def upload(self, content: bytes, path: str = "/predict") -> socket.socket:
        """A connection over which a whole picture has been sent; its answer is not read."""
        connection = socket.create_connection(self.address, timeout=WAIT)
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
        )
        return connection

    def wait_for_place(self, ticket: str, state: str, before: int = 0) -> None:
        """Wait until the picture with this ticket is there in the queue."""
        deadline = time.monotonic() + WAIT
        while self.server.queue.place(ticket) != (state, before):
            assert time.monotonic() < deadline, self.server.queue.place(ticket)
            time.sleep(0.005)


def status_of(connection: socket.socket) -> int:
    """The status of the response that comes over a connection, which is then closed."""
    with connection, connection.makefile("rb") as file:
        return int(file.readline().split()[1])
