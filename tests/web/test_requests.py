"""Hosts, forms and names of requests."""

from __future__ import annotations

from email.message import Message

import pytest

from segnet.web.requests import Refusal, clean_name, host_name, is_loopback, picture_of, require_own_host

FORM = "multipart/form-data; boundary=xy"


@pytest.mark.parametrize(
    ("host", "origin", "passes"),
    [
        ("127.0.0.1:8000", None, True),
        ("localhost", "http://localhost", True),
        ("[::1]:8000", "http://[::1]:8000", True),
        ("192.168.1.7:8000", "http://192.168.1.7:8000", True),
        ("BOX:80", "http://box:80", True),
        ("127.0.0.1:8000", "http://127.0.0.1:9000", False),
        ("127.0.0.1.attacker.example", None, False),
        ("localhost.attacker.example", None, False),
        ("attacker.example@127.0.0.1@attacker.example", None, False),
        ("localhost:x@attacker.example", None, False),
    ],
)
def test_hosts_and_origins(host, origin, passes):
    headers = Message()
    headers["Host"] = host
    if origin:
        headers["Origin"] = origin
    if passes:
        require_own_host(headers, frozenset({"localhost", "box"}))
    else:
        with pytest.raises(Refusal):
            require_own_host(headers, frozenset({"localhost", "box"}))


def test_host_names():
    assert [host_name(text) for text in ("A.b:80", "[::1]:80", "", "[", "a:b:c")] == ["a.b", "::1", "", "", "a"]
    assert [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "box")] == [True] * 3 + [False] * 2


def part(content: bytes, disposition: str = 'form-data; name="picture"; filename="a.png"') -> bytes:
    return b"--xy\r\nContent-Disposition: " + disposition.encode() + b"\r\n\r\n" + content + b"\r\n"


FIELD = part(b"7", 'form-data; name="size"')


@pytest.mark.parametrize("content", [b"abc", b"", b"\r\n", b"\r\n--x\r\n", bytes(range(256)) * 3])
def test_the_first_file_of_a_form_is_the_picture(content):
    form = FIELD + part(content) + part(b"second") + b"--xy--\r\n"
    assert picture_of(form, FORM) == ("a.png", content)
    assert picture_of(b"a preamble\r\n" + form, 'Multipart/Form-Data; charset=utf-8; Boundary="xy"') == ("a.png", content)
    assert picture_of(form, "image/png") == ("", form)


@pytest.mark.parametrize(
    "form", [b"", b"--xy--", part(b"7", 'form-data; name="size"') + b"--xy--", part(b"abc"), b"--xy\r\n\r\n"]
)
def test_a_form_without_a_whole_file_is_refused(form):
    with pytest.raises(Refusal, match="a form without a whole file"):
        picture_of(form, FORM)


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("street.jpg", "street.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\pictures\\a b.png", "a b.png"),
        ("/", "picture"),
        ("..", "picture"),
        ("", "picture"),
        ("a\0\n\x1b[31mb.png", "a[31mb.png"),
        ("ü" * 300 + ".png", "ü" * 251 + ".png"),
    ],
)
def test_names_are_those_of_files_without_folders(name, cleaned):
    assert clean_name(name) == cleaned
