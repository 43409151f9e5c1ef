"""The server: the page, and answers to pictures that programs send. It reads and writes no file for a request."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from segnet.data.images import picture_size
from segnet.inference.predictor import Predictor
from segnet.system.devices import memory_is_full
from segnet.system.errors import UserError, printable
from segnet.web.answers import Question, answer, describe, formats_of
from segnet.web.connections import Listener, has_left
from segnet.web.page import build_page, page_part
from segnet.web.queue import Cancelled, Job, PictureQueue, QueueFull
from segnet.web.requests import (
    Limits,
    Refusal,
    body_length,
    choose_format,
    clean_name,
    picture_of,
    read_address,
    require_own_host,
    require_ticket,
)

_CHUNK = 1 << 20  # bytes that are read at a time
_LOOK = 0.25  # seconds between two looks whether a client that waits is still there
_LINGER = 2.0  # seconds for which a body that is not wanted is still read
_LAST_WORDS = 1.0  # seconds in which responses are sent before the server ends
_RETRY = {"Retry-After": "2"}  # seconds
_ROUTES = {
    "/": "GET",
    "/about": "GET",
    "/health": "GET",
    "/queue": "GET",
    "/predict": "POST",
    "/cancel": "POST",
}


class Server:
    """A network, the queue before it, and its page, at an address of this machine."""

    def __init__(self, predictor: Predictor, host: str, port: int, limits: Limits | None = None) -> None:
        """Raises UserError as `Listener`."""
        self.predictor = predictor
        self.limits = limits or Limits()
        self.page = build_page(page_part("server.js"))
        self.about = describe(predictor)
        self.formats = formats_of(predictor.config.task)
        self.own_names = frozenset({"localhost", socket.gethostname().lower(), host.lower()})
        self.listener = Listener((host, port), partial(_Handler, self))
        self.queue = PictureQueue(self.limits.waiting, self.limits.memory)
        self.one_header = threading.Lock()  # a header may take megabytes to read: one at a time
        self._uploaded = 0  # bytes in memory
        self._lock = threading.Lock()
        layers = [predictor.model] if predictor.config.inference.compile else predictor.model.modules()
        self._hooks = [layer.register_forward_pre_hook(lambda *_: self.queue.stop_if_cancelled()) for layer in layers]

    def serve(self) -> None:
        """Answer requests until `stop`, or an exception in this thread, such as KeyboardInterrupt. Then cancel what waits."""
        try:
            self.listener.serve_forever()
        finally:
            self.listener.server_close()
            self.queue.close()
            self.listener.end_connections(_LAST_WORDS)
            for hook in self._hooks:
                hook.remove()

    def stop(self) -> None:
        """Let `serve`, which runs in another thread, end."""
        self.listener.shutdown()

    @contextlib.contextmanager
    def room_for(self, count: int) -> Iterator[None]:
        """Count the bytes of an upload while the body runs. Raises QueueFull where all uploads have too many."""
        with self._lock:
            if self._uploaded + count > max(self.limits.memory, self.limits.bytes):
                raise QueueFull
            self._uploaded += count
        try:
            yield
        finally:
            with self._lock:
                self._uploaded -= count


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # what is no request is answered with a head, too
    server_version, sys_version = "SegNet", ""
    disable_nagle_algorithm = True  # head and body of a response are two packets

    def __init__(self, site: Server, *of_connection: Any) -> None:
        self.site = site
        self.listener = site.listener
        self.has_unread_body = False
        self.query = dict[str, str]()  # the parameters of the address
        super().__init__(*of_connection)

    def setup(self) -> None:
        super().setup()
        self.listener.set_deadline(self.connection, self.site.limits.head_seconds)

    def parse_request(self) -> bool:
        """Read the head of a request; False where it is refused."""
        if not super().parse_request():
            return False
        if not self.listener.clear_deadline(self.connection):
            self.send_error(HTTPStatus.REQUEST_TIMEOUT, "the head of the request did not come in time")
            return False
        self.has_unread_body = self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers
        return True

    def handle_expect_100(self) -> bool:
        """Ask for the body only where it will be read; what is refused is refused when the request is answered."""
        with contextlib.suppress(Refusal, QueueFull):
            self._admit()
            return super().handle_expect_100()
        return True

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _other(self) -> None:
        self._answer(self.command)

    do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _other

    def _answer(self, method: str) -> None:
        """Call the function of the path, and send in one line why there is no answer."""
        try:
            require_own_host(self.headers, self.site.own_names)
            path, self.query = read_address(self.path)
            if path not in _ROUTES:
                raise Refusal(HTTPStatus.NOT_FOUND, f"nothing here – there are {', '.join(_ROUTES)}")
            if method != _ROUTES[path]:
                allowed = {"Allow": _ROUTES[path]}
                raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} is for {_ROUTES[path]}, not {self.command}", allowed)
            functions: dict[str, Callable[[], None]] = {
                "/": self._page,
                "/about": self._about,
                "/health": self._health,
                "/queue": self._place,
                "/predict": self._predict,
                "/cancel": self._cancel,
            }
            functions[path]()
        except ConnectionError:
            raise
        except Exception as error:
            self._refuse(_refusal_of(error))
        self.listener.set_deadline(self.connection, self.site.limits.head_seconds)  # for the next request

    def _page(self) -> None:
        self._send(self.site.page.html.encode(), "text/html; charset=utf-8")

    def _about(self) -> None:
        limits = {"bytes": self.site.limits.bytes, "pixels": self.site.limits.pixels}
        self._send_json({**self.site.about, "limits": limits})

    def _health(self) -> None:
        self._send_json({"status": "ok", "in_queue": self.site.queue.length, "answered": self.site.queue.answered})

    def _place(self) -> None:
        self._send_json(self.site.queue.place(self._ticket())._asdict())

    def _cancel(self) -> None:
        self._send_json({"cancelled": self.site.queue.cancel(self._ticket())})

    def _predict(self) -> None:
        """Send the answer for the picture in the body, when its turn has come."""
        length = self._admit()
        job: Job | None = None
        try:
            with self.site.room_for(length):
                job = self._job_of(self._read_body(length))
                self.site.queue.join(job)
                while not job.done.wait(_LOOK):
                    if has_left(self.connection):
                        self.site.queue.drop(job)
            found = job.result()
            print(f"{printable(job.name)}: {found.size[1]}×{found.size[0]} in {found.seconds:.2f} s\n", end="", flush=True)
            self._send(found.content, found.content_type, {"X-Seconds": f"{found.seconds:.4f}"})
        finally:
            if job is not None:
                self.site.queue.collected(job)

    def _admit(self) -> int:
        """The length of the body of a request that may send it. Raises Refusal and QueueFull."""
        length = body_length(self.headers, self.site.limits.bytes)
        if self.site.queue.is_full:
            raise QueueFull
        return length

    def _read_body(self, length: int) -> bytes:
        """The body. Raises Refusal where it ends early or takes too long."""
        seconds = self.site.limits.body_seconds
        self.listener.set_deadline(self.connection, seconds)
        chunks = list[bytes]()
        left = length
        while left and (chunk := self.rfile.read1(min(_CHUNK, left))):
            chunks.append(chunk)
            left -= len(chunk)
        in_time = self.listener.clear_deadline(self.connection)
        if left and not in_time:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, f"the picture did not come within {seconds:g} s")
        if left:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"the body ends after {length - left:,} of {length:,} bytes")
        self.has_unread_body = False
        return b"".join(chunks)

    def _job_of(self, body: bytes) -> Job:
        """What the network is asked to do. Raises Refusal, and UserError (data), for what it cannot."""
        wanted = choose_format(self.query.get("format"), self.headers.get("Accept", ""), self.site.formats)
        ticket = self._ticket() if "ticket" in self.query else ""
        upload = picture_of(body, self.headers.get("Content-Type", ""))
        name = clean_name(self.query.get("name") or upload.name)
        with self.site.one_header:
            height, width = picture_size(Path(name), upload.content)
        if height * width > self.site.limits.pixels:
            found = f"{printable(name)}: {width}×{height}, more than {self.site.limits.pixels:,} pixels"
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{found} – make it smaller, or use the command predict")
        question = Question(name, upload.content, wanted, with_image=self.query.get("picture") == "1")
        return Job(ticket, name, partial(answer, self.site.predictor, question))

    def _ticket(self) -> str:
        return require_ticket(self.query.get("ticket", ""))

    def _refuse(self, refusal: Refusal) -> None:
        """Send the line of a refusal: as JSON where JSON is asked for, else as text."""
        if "application/json" in self._accepted():
            content, content_type = json.dumps({"error": refusal.line}), "application/json"
        else:
            content, content_type = f"{refusal.line}\n", "text/plain; charset=utf-8"
        self._send(content.encode(), content_type, refusal.headers, refusal.status)
        if self.has_unread_body:
            self._linger()

    def _accepted(self) -> str:
        """The Accept header; empty also where the head of the request could not be read."""
        headers = getattr(self, "headers", None)
        return headers.get("Accept", "") if headers else ""

    def _linger(self) -> None:
        """Read on for a moment: a client that still sends would see the connection reset in place of the refusal."""
        self.connection.shutdown(socket.SHUT_WR)
        self.listener.set_deadline(self.connection, _LINGER)
        while self.rfile.read1(_CHUNK):
            pass

    def _send_json(self, content: Mapping[str, object]) -> None:
        self._send(json.dumps(content).encode(), "application/json")

    def _send(
        self,
        content: bytes,
        content_type: str,
        headers: Mapping[str, str] | None = None,
        status: HTTPStatus = HTTPStatus.OK,
    ) -> None:
        """Send a response. No other site may frame it, embed it, or guess its type, and no cache keeps it."""
        self.close_connection |= self.has_unread_body
        fixed = {
            "Content-Type": content_type,
            "Content-Length": str(len(content)),
            "Content-Security-Policy": f"{self.site.page.policy}; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        if self.close_connection:
            fixed["Connection"] = "close"
        self.send_response(status)
        for name, value in {**fixed, **(headers or {})}.items():
            self.send_header(name, value)
        self.listener.set_deadline(self.connection, self.site.limits.body_seconds, socket.SHUT_RDWR)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.listener.clear_deadline(self.connection)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what the base class cannot read as a request."""
        self.close_connection = True
        self._refuse(Refusal(HTTPStatus(code), message or HTTPStatus(code).phrase))

    def log_message(self, format: str, *values: Any) -> None:
        """Requests are not printed; pictures are, when they are answered."""


def _refusal_of(error: Exception) -> Refusal:
    """What is said where a request ends with this exception; the traceback of a fault of this program is printed."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, UserError):
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
    if isinstance(error, QueueFull):
        return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many pictures wait – try again in two seconds", _RETRY)
    if isinstance(error, Cancelled):
        return Refusal(HTTPStatus.CONFLICT, "cancelled")
    if memory_is_full(error):
        return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "memory is full – send a smaller picture", _RETRY)
    traceback.print_exception(error)
    return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of this program – its traceback is where the server was started")
