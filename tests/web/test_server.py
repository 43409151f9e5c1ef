"""The server: answers equal to predict.py's, and what it says to requests that are wrong, slow, hostile or too many."""

from __future__ import annotations

import http.client
import io
import json
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from geotiffs import write_geotiff
from helpers import png_chunk, refused
from PIL import Image
from predictions import ANYWHERE, run_jobs
from web_servers import WAIT, RunningServer, picture_file, status_of

from segnet.prediction.outputs import find_output
from segnet.system.errors import ExitCode
from segnet.web.server import Server

GOOD = picture_file()
FORMATS = [kind for kind in ANYWHERE if kind != "ranking"]


def test_answers_are_the_files_of_predict_also_to_clients_at_the_same_time(running, predictor, tmp_path):
    for number in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.png").write_bytes(picture_file((20 + number, 31), seed=number))
    assert not [result.failure for result in run_jobs(predictor, tmp_path / "in", tmp_path / "out", FORMATS) if result.failure]
    asked = [(number, kind) for kind in FORMATS for number in range(3)]

    def ask(number, kind):
        return running.ask(f"/predict?format={kind}&name={number}.png", (tmp_path / "in" / f"{number}.png").read_bytes())

    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(ask, *zip(*asked, strict=True)))
    for (number, kind), reply in zip(asked, replies, strict=True):
        assert reply.status == 200, reply.text
        written = (tmp_path / "out" / f"{number}{find_output(kind).suffix}").read_bytes()
        assert reply.content == written.replace(b"../in/", b""), kind  # the folder of the picture in tables and JSON


def test_a_geotiff_keeps_its_place(running, predictor, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    content = write_geotiff(tmp_path / "place.tif", pixels).read_bytes()
    kinds = ["polygons", "areas", "geotiff"]
    assert [result.failure for result in run_jobs(predictor, tmp_path / "place.tif", tmp_path / "out", kinds)] == [None]
    for kind in kinds:
        written = (tmp_path / "out" / f"place{find_output(kind).suffix}").read_bytes()
        reply = running.ask(f"/predict?format={kind}&name=place.tif", content)
        assert reply.content == written.replace(b"../place.tif", b"place.tif"), kind
    assert "has no georeference" in running.ask("/predict?format=geotiff", GOOD).text


def test_the_accept_header_chooses_between_mask_and_json(running):
    mask, table = running.ask("/predict", GOOD), running.ask("/predict?name=a.png", GOOD, Accept="application/json")
    assert mask.headers["Content-Type"] == "image/png"
    assert Image.open(io.BytesIO(mask.content)).mode == "P"
    assert float(mask.headers["X-Seconds"]) > 0
    assert (table.json["picture"], table.json["height"], table.json["width"]) == ("a.png", 24, 32)


def test_a_form_is_read_as_the_body_is(running):
    form = b'--xy\r\nContent-Disposition: form-data; name="picture"; filename="../../a b.png"\r\n\r\n' + GOOD + b"\r\n--xy--\r\n"
    reply = running.ask("/predict?format=json", form, Content_Type="multipart/form-data; boundary=xy")
    assert reply.json == {**running.ask("/predict?format=json", GOOD).json, "picture": "a b.png"}


def planes_of(content: bytes) -> dict[str, np.ndarray]:
    [length] = struct.unpack("<I", content[:4])
    head, place, planes = json.loads(content[4 : 4 + length]), 4 + length, {}
    for name, bands in head["planes"]:
        size = head["height"] * head["width"] * bands
        planes[name] = np.frombuffer(content[place : place + size], np.uint8).reshape(head["height"], head["width"], bands)
        place += size
    assert place == len(content)
    return planes


def test_planes_are_those_of_the_prediction(running, predictor):
    prediction = predictor.predict(Image.open(io.BytesIO(GOOD)))
    planes = planes_of(running.ask("/predict?format=planes&picture=1", GOOD).content)
    assert list(planes) == ["mask", "confidence", "uncertainty", "image"]
    assert np.array_equal(planes["mask"][..., 0], prediction.mask)
    assert np.array_equal(planes["image"], prediction.image)
    assert np.array_equal(planes["confidence"][..., 0], np.rint(prediction.confidence * np.float32(255)))
    assert "image" not in planes_of(running.ask("/predict?format=planes", GOOD).content)


def huge_png(width: int, height: int) -> bytes:
    """A PNG of few bytes that announces many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + pixels + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"no picture at all", 422, "not a readable picture (unknown format) – expected JPEG"),
        (b"\0", 422, "not a readable picture"),
        (GOOD[: len(GOOD) // 2], 422, "not a readable picture"),
        (picture_file(kind="JPEG")[:300], 422, "not a readable picture"),
        (GOOD[:30], 422, "not a readable picture"),
        (huge_png(6000, 5000), 413, "6000×5000, more than 25,000,000 pixels – make it smaller, or use the command predict"),
        (huge_png(60_000, 50_000), 422, "more than 100,000,000 pixels"),
        (huge_png(100, 100), 422, "not a readable picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422, "unknown format"),
        (b"", 400, "no picture – send the bytes of its file as the body"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(running, body, status, words):
    reply = running.ask("/predict", body)
    assert reply.status == status
    assert words in reply.text
    assert reply.text.count("\n") == 1
    assert running.ask("/predict", GOOD).status == 200


def raw(line: str, *headers: str, body: bytes = b"", host: str = "localhost") -> bytes:
    """A request as it goes over the wire, after which the connection is closed."""
    named = [f"Host: {host}"] if host else []
    return "\r\n".join([f"{line} HTTP/1.1", *named, "Connection: close", *headers, "\r\n"]).encode("latin-1") + body


THREE = "Content-Length: 3"


@pytest.mark.parametrize(
    ("request_bytes", "status", "words"),
    [
        (raw("POST /predict"), 411, "send Content-Length"),
        (raw("POST /predict", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 411, "not chunks"),
        (raw("POST /predict", "Content-Length: -5"), 400, "not a number"),
        (raw("POST /predict", "Content-Length: 1e3"), 400, "not a number"),
        (raw("POST /predict", f"Content-Length: {'9' * 5000}"), 413, "--max-bytes"),
        (raw("POST /predict", "Content-Length: 33554433", body=bytes(20_000_000)), 413, "33,554,432"),
        (raw("POST /predict?format=exe", THREE, body=b"abc"), 400, "choose from mask"),
        (raw("POST /predict?ticket=../x", THREE, body=b"abc"), 400, "ticket"),
        (raw(f"POST /predict?{'a=1&' * 50}", THREE, body=b"abc"), 400, "too many parameters"),
        (raw("POST /predict", THREE, "Content-Type: multipart/form-data", body=b"abc"), 400, "without a boundary"),
        (raw("POST /predict", THREE, "Content-Type: multipart/form-data; boundary=x", body=b"abc"), 400, "without a whole file"),
        (raw("PUT /predict"), 405, "/predict is for POST, not PUT"),
        (raw("GET /predict"), 405, "for POST"),
        (raw("POST /health", THREE, body=b"abc"), 405, "for GET"),
        (raw("BREW /predict"), 501, "Unsupported method"),
        (raw("GET /../../etc/passwd"), 404, "nothing here"),
        (raw("GET /%2e%2e/%2e%2e/etc/passwd"), 404, "nothing here"),
        (raw("GET //etc/passwd"), 404, "nothing here"),
        (raw("GET http://[/health"), 400, "no address"),
        (raw("GET /health", host="attacker.example:8000"), 421, "not this server"),
        (raw("GET /health", host=""), 421, "not this server"),
        (raw("GET /health", host="[::1"), 421, "not this server"),
        (raw("POST /predict", THREE, "Origin: http://attacker.example", body=b"abc"), 403, "another site"),
        (raw("POST /predict", THREE, "Origin: null", body=b"abc"), 403, "another site"),
        (raw("POST /predict", THREE, "Origin: http://[", body=b"abc"), 403, "another site"),
        (raw(f"GET /{'a' * 70_000}"), 414, "URI"),
        (raw("GET /health", *["A: b"] * 200), 431, "headers"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 \r\n\r\n", 400, "Bad request"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
def test_requests_that_are_no_good_are_told_so(running, request_bytes, status, words):
    answer = running.send_raw(request_bytes)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert words in body.decode()
    assert b"nosniff" in head
    assert running.ask("/health").json["status"] == "ok"


def test_every_response_has_the_headers_that_keep_other_sites_out(running):
    for reply in (running.ask("/"), running.ask("/about"), running.ask("/predict", GOOD), running.ask("/none")):
        assert "frame-ancestors 'none'" in reply.headers["Content-Security-Policy"]
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert not [name for name in reply.headers if name.lower().startswith("access-control")]


def test_one_connection_may_ask_many_things(running):
    connection = http.client.HTTPConnection(*running.address, timeout=WAIT)
    for method, path, body in (
        ("GET", "/health", None),
        ("POST", "/predict", GOOD),
        ("HEAD", "/", None),
        ("GET", "/about", None),
    ):
        connection.request(method, path, body)
        response = connection.getresponse()
        assert (response.status, response.will_close) == (200, False)
        content = response.read()
        assert bool(content) == (method != "HEAD")
    connection.close()


def test_about_and_health(running):
    about = running.ask("/about").json
    assert (about["task"], [own["name"] for own in about["classes"]]) == ("segmentation", ["ground", "box", "disc"])
    assert about["limits"]["pixels"] == 25_000_000
    before = running.ask("/health").json["answered"]
    running.ask("/predict", GOOD)
    assert running.ask("/health").json == {"status": "ok", "in_queue": 0, "answered": before + 1}


def test_pictures_wait_in_their_order_and_too_many_are_told_to_come_again(predictor):
    with RunningServer(predictor, waiting=2) as running:
        running.gate.clear()
        connections = []
        for number, ticket in enumerate("abc"):
            connections.append(running.upload(GOOD, f"/predict?ticket={ticket}"))
            running.wait_for_place(ticket, "waiting" if number else "computing", number)
        assert running.ask("/queue?ticket=c").json == {"state": "waiting", "before": 2}
        assert running.ask("/queue?ticket=z").json == {"state": "unknown", "before": 0}
        full = running.ask("/predict", GOOD)
        assert (full.status, full.headers["Retry-After"]) == (503, "2")
        asked_first = (
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert running.send_raw(asked_first).startswith(b"HTTP/1.1 503")  # before the body is sent
        running.gate.set()
        assert [status_of(connection) for connection in connections] == [200] * 3
        assert running.ask("/predict", GOOD).status == 200


@pytest.mark.parametrize("way", ["leave", "cancel"])
def test_who_leaves_or_cancels_does_not_keep_the_others_waiting(predictor, way):
    with RunningServer(predictor) as running:
        running.gate.clear()
        connections = []
        for number, ticket in enumerate("abcd"):
            connections.append(running.upload(GOOD, f"/predict?ticket={ticket}"))
            running.wait_for_place(ticket, "waiting" if number else "computing", number)
        for number in (2, 0):  # one that waits, and the one that is computed
            if way == "leave":
                connections[number].close()
            else:
                assert running.ask(f"/cancel?ticket={'abcd'[number]}", b"").json == {"cancelled": True}
                assert status_of(connections[number]) == 409
        running.wait_for_place("d", "waiting", 1)
        assert running.ask("/cancel?ticket=a", b"").json == {"cancelled": False}
        running.gate.set()
        assert [status_of(connections[number]) for number in (1, 3)] == [200, 200]
        assert running.server.queue.answered == 2


def test_the_network_stops_between_two_layers(predictor, running):
    """A picture that is not wanted any more is not computed to its end."""
    layers = [module for module in predictor.model.modules() if not list(module.children())]
    reached, leave = [], threading.Event()

    def slow(module: torch.nn.Module, _: object) -> None:
        reached.append(module)
        leave.wait(WAIT)

    hook = layers[0].register_forward_pre_hook(slow)
    connection = running.upload(GOOD, "/predict?ticket=slow")
    while not reached:
        time.sleep(0.005)
    later = layers[-1].register_forward_pre_hook(lambda module, _: reached.append(module))
    assert running.ask("/cancel?ticket=slow", b"").json == {"cancelled": True}
    leave.set()
    assert status_of(connection) == 409
    assert reached == [layers[0]]
    hook.remove()
    later.remove()


def test_slow_clients_are_cut_off(predictor):
    with RunningServer(predictor, head_seconds=0.5, body_seconds=0.5) as running:
        assert running.send_raw(b"") == b""
        assert running.send_raw(b"GET /health HTTP/1.1\r\nHost: localh").startswith(b"HTTP/1.1 408 ")
        slow = running.send_raw(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\nabc")
        assert slow.startswith(b"HTTP/1.1 408 ")
        assert b"did not come within 0.5 s" in slow


def test_who_does_not_take_the_answer_is_cut_off(predictor):
    with RunningServer(predictor, body_seconds=2.0) as running:
        large = picture_file((700, 900))
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(running.address)
            head = f"POST /predict?format=probabilities HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(large)}\r\n\r\n"
            connection.sendall(head.encode() + large)
            deadline = time.monotonic() + WAIT
            while running.server.queue.answered == 0 or threading.active_count() > before_upload_threads(running):
                assert time.monotonic() < deadline
                time.sleep(0.05)


def before_upload_threads(running: RunningServer) -> int:
    """The threads of this process without those of connections."""
    names = [thread.name for thread in threading.enumerate()]
    return len([name for name in names if "process_request_thread" not in name])


def test_a_client_that_ends_too_early_is_told_so_and_harms_nobody(running):
    with socket.create_connection(running.address, timeout=WAIT) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\nabc")
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"the body ends after 3 of 5,000 bytes" in answer
    assert running.ask("/predict", GOOD).status == 200


def test_uploads_have_a_bound_together(predictor):
    with RunningServer(predictor, memory=3000, bytes=3000) as running:
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2900\r\n\r\n"
        with socket.create_connection(running.address, timeout=WAIT) as first:
            first.sendall(head + b"abc")
            deadline = time.monotonic() + WAIT
            while running.ask("/predict", GOOD).status != 503:
                assert time.monotonic() < deadline
        while running.ask("/predict", GOOD).status != 200:
            assert time.monotonic() < deadline


def test_answers_that_were_sent_make_room_for_others(predictor):
    with RunningServer(predictor, memory=1000) as running:
        replies = [running.ask("/predict?format=planes", GOOD) for _ in range(4)]
    assert [(reply.status, len(reply.content) > 1000) for reply in replies] == [(200, True)] * 4


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (RuntimeError("a fault"), 500, "a fault of this program"),
        (MemoryError(), 503, "memory is full – send a smaller picture"),
    ],
)
def test_a_fault_of_the_network_ends_one_picture(running, predictor, capsys, error, status, words):
    def fail(*_: object) -> None:
        raise error

    hook = predictor.model.register_forward_pre_hook(fail)
    reply = running.ask("/predict?name=a.png", GOOD)
    hook.remove()
    assert (reply.status, reply.text.count("\n")) == (status, 1)
    assert words in reply.text
    assert ("RuntimeError: a fault" in capsys.readouterr().err) == (status == 500)
    assert running.ask("/predict", GOOD).status == 200


def test_refusals_are_json_where_json_is_asked_for(running):
    reply = running.ask("/predict?name=%00a%0Ab.png", b"abc", Accept="application/json")
    assert reply.json["error"].startswith("ab.png: not a readable picture")


def test_stopping_does_not_wait_for_the_network(predictor):
    with RunningServer(predictor) as running:
        running.gate.clear()
        connections = [running.upload(GOOD, "/predict?ticket=a")]
        running.wait_for_place("a", "computing")
        connections.append(running.upload(GOOD, "/predict?ticket=b"))
        running.wait_for_place("b", "waiting", 1)
        running.server.stop()
        assert {status_of(connection) for connection in connections} == {409}


def test_more_connections_than_threads_are_turned_away(predictor):
    with RunningServer(predictor) as running:
        running.server.listener._free = threading.BoundedSemaphore(1)
        with socket.create_connection(running.address, timeout=WAIT):
            deadline = time.monotonic() + WAIT
            while running.server.listener._free._value:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            assert running.send_raw(b"").startswith(b"HTTP/1.1 503")


def test_a_port_that_is_taken_is_one_line(predictor, running):
    port = running.address[1]
    with refused(ExitCode.ENVIRONMENT, f"--port {port}: taken by another program – give another one"):
        Server(predictor, "127.0.0.1", port)
    with refused(ExitCode.CONFIG, "--host 203.0.113.1: no address of this machine"):
        Server(predictor, "203.0.113.1", 0)
