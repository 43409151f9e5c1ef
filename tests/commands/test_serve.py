"""The command that serves a page: what it prints, and its mistakes."""

from __future__ import annotations

import http.client
import re
import socket
import threading

import pytest
from helpers import refused
from web_servers import WAIT

from segnet.commands.serve import main
from segnet.system.errors import ExitCode
from segnet.web import server as server_module
from segnet.web.server import Server


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_it_serves_where_it_says(tiny_run, capsys, monkeypatch, host):
    started = list[Server]()
    answers = list[int]()

    def ask_and_stop(own: Server) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", own.listener.server_address[1], timeout=WAIT)
        try:
            connection.request("GET", "/health")
            answers.append(connection.getresponse().status)
        finally:
            own.stop()

    class Watched(Server):
        def serve(self) -> None:
            started.append(self)
            threading.Thread(target=ask_and_stop, args=[self]).start()
            super().serve()

    monkeypatch.setattr(server_module, "Server", Watched)
    main([str(tiny_run), "inference.flip=horizontal", "--port", "0", "--host", host, "--queue", "3", "device=cpu"])
    printed = capsys.readouterr()
    assert answers == [200]
    assert printed.out.startswith(f"serve {tiny_run / 'best.pt'} on CPU")
    assert re.search(rf"\nopen http://{re.escape(host)}:\d+/\n", printed.out)
    assert ("there is no password" in printed.err) == (host == "0.0.0.0")
    assert started[0].limits.waiting == 3
    assert started[0].predictor.config.inference.flip == "horizontal"


def test_mistakes_are_one_line(tiny_run, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with refused(ExitCode.ENVIRONMENT, f"--port {port}: taken by another program"):
            main([str(tiny_run), "--port", str(port)])
    with refused(ExitCode.CONFIG, "--host nowhere.invalid: no address of this machine"):
        main([str(tiny_run), "--port", "0", "--host", "nowhere.invalid"])
    with refused(ExitCode.CHECKPOINT, "no best.pt"):
        main([str(tmp_path)])
    with refused(ExitCode.CONFIG, "street.jpg"):
        main([str(tiny_run), "street.jpg"])
