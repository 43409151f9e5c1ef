"""Connections of clients that may be many, slow or gone: how many there are, and until when each must have said what it says."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import socketserver
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from typing import Any

from segnet.system.errors import config_error, environment_error

_MANY = 400  # connections at a time
_TOO_MANY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Listener(ThreadingHTTPServer):
    """Gives each connection a thread, up to a number of them."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # connections that the system holds until they are accepted

    def __init__(self, address: tuple[str, int], handler: Callable[..., Any]) -> None:
        """Listen at (host, port); port 0 is a free one.

        Raises UserError (environment) for a port that is taken or not allowed, (config) for a host that is not of this machine.
        """
        self._deadlines: dict[socket.socket, tuple[float, int]] = {}  # the time, and how the connection is shut down then
        self._open = set[socket.socket]()  # connections that have a thread
        self._lock = threading.Condition()
        self._free = threading.BoundedSemaphore(_MANY)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        with _explained(*address):
            super().__init__(address, handler)

    @property
    def url(self) -> str:
        """The address to open in a browser."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def server_bind(self) -> None:
        """Bind, without the question for the machine's full name that the base class asks of the network."""
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the thread of a connection, or refuse it where there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.send(_TOO_MANY)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection to its end."""
        with self._lock:
            self._open.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()
            with self._lock:
                self._open.discard(request)
                self._deadlines.pop(request, None)
                self._lock.notify_all()

    def end_connections(self, seconds: float) -> None:
        """Let every connection end after the response that it is at, and wait for that, at most so many seconds."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
            self._lock.wait_for(lambda: not self._open, timeout=seconds)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the traceback of a fault of this program; a client that leaves is none."""
        if not isinstance(sys.exc_info()[1], OSError):
            traceback.print_exc()

    def set_deadline(self, connection: socket.socket, seconds: float, how: int = socket.SHUT_RD) -> None:
        """Shut a connection down after so many seconds, for reading or as `how` says: the thread that waits for it goes on."""
        with self._lock:
            self._deadlines[connection] = time.monotonic() + seconds, how

    def clear_deadline(self, connection: socket.socket) -> bool:
        """Give a connection time without end. False where it has been shut down."""
        with self._lock:
            return self._deadlines.pop(connection, None) is not None

    def service_actions(self) -> None:
        """Shut down the connections whose deadline has passed; `serve_forever` calls this at least twice a second."""
        with self._lock:
            now = time.monotonic()
            overdue = [(connection, how) for connection, (deadline, how) in self._deadlines.items() if deadline < now]
            for connection, how in overdue:
                del self._deadlines[connection]
                with contextlib.suppress(OSError):
                    connection.shutdown(how)


def has_left(connection: socket.socket) -> bool:
    """Whether the client has closed its end of a connection."""
    try:
        readable = select.select([connection], [], [], 0)[0]
        return bool(readable) and not connection.recv(1, socket.MSG_PEEK)
    except (OSError, ValueError):  # reset, or closed here
        return True


@contextlib.contextmanager
def _explained(host: str, port: int) -> Iterator[None]:
    """Turns the errors of listening into UserError."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise environment_error(
                f"--port {port}", "taken by another program", "give another one, or 0 for a free one"
            ) from None
        if error.errno == errno.EACCES:
            raise environment_error(f"--port {port}", "not allowed for this user", "give one above 1023") from None
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise config_error(f"--host {host}", "no address of this machine", "give 127.0.0.1, or 0.0.0.0 for all") from None
        raise
