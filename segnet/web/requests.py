"""What a request may ask for: its size, its host, its body, the name of its picture. None of it names a file of this machine."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from email.message import Message
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

_LONGEST_NAME = 255  # characters of a picture's name
_TICKET = re.compile(r"[0-9A-Za-z_-]{1,64}")


class Limits(NamedTuple):
    """What the server takes."""

    waiting: int = 32  # pictures in the queue
    bytes: int = 32 << 20  # of a picture's file
    pixels: int = 25_000_000  # of a picture
    memory: int = 256 << 20  # bytes of all uploads at a time, and of all answers
    head_seconds: float = 10.0  # to send the head of a request; a connection without one is closed
    body_seconds: float = 60.0  # to send a picture, and to take an answer


class Refusal(Exception):
    """A request that is not answered as it asks, with the status of HTTP and one line that says why."""

    def __init__(self, status: HTTPStatus, line: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(line)
        self.status = status
        self.line = line
        self.headers = headers or {}


def read_address(target: str) -> tuple[str, dict[str, str]]:
    """The path and the parameters, each once, of the address in the first line of a request. Raises Refusal."""
    try:
        address = urlsplit(target)
        return address.path, dict(parse_qsl(address.query, keep_blank_values=True, max_num_fields=20))
    except ValueError:
        raise Refusal(HTTPStatus.BAD_REQUEST, "no address, or one with too many parameters") from None


def host_name(authority: str) -> str:
    """The name or address in "name:port", in lower case, without brackets; empty where there is none."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").lower()
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    """Whether a host's name is an address of IPv4 or IPv6."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def require_own_host(headers: Message, names: frozenset[str]) -> None:
    """Raise Refusal for a request that a page of another site may have made.

    The Host must be an address, or one of `names`: a page whose own name was made to point here ("DNS rebinding") has neither.
    Where there is an Origin, it must be this Host.
    """
    host = headers.get("Host", "")
    name = host_name(host)
    if name not in names and not is_address(name):
        raise Refusal(HTTPStatus.MISDIRECTED_REQUEST, f"Host '{host[:60]}' is not this server – open it by its address")
    origin = headers.get("Origin")
    if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
        raise Refusal(HTTPStatus.FORBIDDEN, "a page of another site may not ask this server")


def body_length(headers: Message, most: int) -> int:
    """The bytes of a request's body. Raises Refusal where they are not announced, and for more than `most`."""
    if headers.get("Transfer-Encoding") is not None or headers.get("Content-Length") is None:
        raise Refusal(HTTPStatus.LENGTH_REQUIRED, "the length of the body is missing – send Content-Length, not chunks")
    text = headers["Content-Length"].strip()
    if not (text.isascii() and text.isdecimal()):
        raise Refusal(HTTPStatus.BAD_REQUEST, f"Content-Length '{text[:40]}' is not a number")
    length = int(text[:20])
    if not length:
        raise Refusal(HTTPStatus.BAD_REQUEST, "no picture – send the bytes of its file as the body")
    if length > most:
        found = f"the picture has more bytes than the {most:,} that are taken"
        raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{found} – make it smaller, or start the server with --max-bytes")
    return length


class Upload(NamedTuple):
    """A picture that was sent."""

    name: str  # empty: it was sent without one
    content: bytes


def picture_of(content: bytes, content_type: str) -> Upload:
    """The picture of a body: the first file of a form (multipart/form-data), else the body. Raises Refusal for a bad form."""
    if not content_type.lower().startswith("multipart/form-data"):
        return Upload("", content)
    boundary = re.search(r'boundary="?([^";,\s]{1,200})"?', content_type, re.IGNORECASE)
    if boundary is None:
        raise Refusal(HTTPStatus.BAD_REQUEST, "a form without a boundary – send it as curl -F picture=@FILE does")
    mark = b"\r\n--" + boundary[1].encode("latin-1")
    start = 0 if content.startswith(mark[2:]) else content.find(mark)
    while start >= 0:
        head = content.find(b"\r\n\r\n", start)
        end = content.find(mark, head + 4)
        if head < 0 or end < 0:
            break
        if found := re.search(rb'\bfilename="([^"\r\n]*)"', content[start:head]):
            return Upload(found[1].decode("utf-8", "replace"), content[head + 4 : end])
        start = end
    raise Refusal(HTTPStatus.BAD_REQUEST, "a form without a whole file – send it as curl -F picture=@FILE does")


def clean_name(name: str) -> str:
    """The last part of a path in either spelling, printable and of at most 255 characters; "picture" where nothing is left."""
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(c for c in last if c.isprintable()).strip()
    return kept[-_LONGEST_NAME:] if kept.strip(".") else "picture"


def require_ticket(text: str) -> str:
    """The ticket of a request. Raises Refusal for one of other characters than letters, digits, - and _."""
    if not _TICKET.fullmatch(text):
        raise Refusal(HTTPStatus.BAD_REQUEST, "a ticket has 1 to 64 letters and digits")
    return text


def choose_format(wanted: str | None, accept: str, formats: list[str]) -> str:
    """The format of the answer: `wanted` by name, else by the Accept header, else the first of `formats`. Raises Refusal."""
    if wanted is None:
        return "json" if "application/json" in accept and "json" in formats else formats[0]
    if wanted not in formats:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"format '{wanted[:40]}' – choose from {', '.join(formats)}")
    return wanted


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is reached from this machine alone."""
    return host.lower() == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)
