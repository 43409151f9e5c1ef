"""Serve a page on which people try a network with pictures of their own, and answers for programs.

examples:
  segnet serve runs/sample
  segnet serve runs/camvid --port 8080 inference.flip=horizontal
  segnet serve runs/camvid --host 0.0.0.0 --max-pixels 2000000

Open the address that it prints. Ctrl-C ends it. Nothing that is sent is written to a file.
"""

from __future__ import annotations

import argparse
import sys

from segnet.commands.parsers import add_overrides, command_parser, parse
from segnet.system.command_line import count_up_to
from segnet.web.requests import Limits, is_loopback


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = command_parser("serve", __doc__)
    usual = Limits()
    source_help = "a run folder (its best checkpoint) or a checkpoint; of several, A,B,C, the probabilities are averaged"
    parser.add_argument("source", metavar="RUN|CHECKPOINT", help=source_help)
    add_overrides(parser, "inference.flip=horizontal")
    host_help = "the address to listen at (default: 127.0.0.1, only this machine can connect); 0.0.0.0: every address of it"
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help=host_help)
    parser.add_argument(
        "--port", type=count_up_to(65535), default=8000, help="port to listen at; 0 takes a free one (default: 8000)"
    )
    queue_help = f"pictures that may wait (default: {usual.waiting}); further ones are answered with status 503"
    parser.add_argument("--queue", type=count_up_to(10_000, least=1), default=usual.waiting, metavar="N", help=queue_help)
    bytes_help = f"largest size of a picture's file, bytes (default: {usual.bytes:,})"
    parser.add_argument("--max-bytes", type=count_up_to(1 << 30, least=1), default=usual.bytes, metavar="N", help=bytes_help)
    pixels_help = f"largest number of pixels of a picture (default: {usual.pixels:,})"
    parser.add_argument("--max-pixels", type=count_up_to(10**8, least=1), default=usual.pixels, metavar="N", help=pixels_help)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Serve until a signal comes."""
    given = parse(build_parser(), arguments)
    from segnet.commands.sources import networks_of
    from segnet.inference.predictor import Predictor
    from segnet.system.devices import describe_device, warn_if_emulated
    from segnet.system.processes import stop_signals_interrupt
    from segnet.web.server import Server

    predictor = Predictor(networks_of(given.source), given.overrides)
    limits = Limits(waiting=given.queue, bytes=given.max_bytes, pixels=given.max_pixels)
    with stop_signals_interrupt():
        server = Server(predictor, given.host, given.port, limits)
        print(f"serve {predictor.path} on {describe_device(predictor.device)} in {predictor.precision}", flush=True)
        warn_if_emulated(predictor.precision, "inference.precision")
        if not is_loopback(given.host):
            found = "whoever reaches this machine can use the network; there is no password"
            print(f"warning: --host {given.host}: {found}", file=sys.stderr)
        print(f"open {server.listener.url}", flush=True)
        server.serve()
