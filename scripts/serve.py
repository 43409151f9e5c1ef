"""Serve a page on which people try a network with pictures of their own, and answers for programs.

examples:
  python scripts/serve.py runs/sample
  python scripts/serve.py runs/camvid --port 8080 inference.flip=horizontal
  python scripts/serve.py runs/camvid --host 0.0.0.0 --max-pixels 2000000

Open the address that it prints. Ctrl-C ends it. Nothing that is sent is written to a file.
"""

import argparse
import sys

from segnet.inference.predictor import Predictor
from segnet.system.command_line import count_up_to, run_command
from segnet.system.devices import describe_device, warn_if_emulated
from segnet.system.processes import stop_signals_interrupt
from segnet.web.requests import is_loopback
from segnet.web.server import Limits, Server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = Limits()
    source_help = "a run folder (its best checkpoint) or a checkpoint; of several, A,B,C, the probabilities are averaged"
    parser.add_argument("source", metavar="RUN|CHECKPOINT", help=source_help)
    overrides_help = "overrides the configuration, e.g. inference.flip=horizontal"
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=overrides_help)
    host_help = "the address to listen at (default: 127.0.0.1, this machine alone); 0.0.0.0 is every address"
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help=host_help)
    parser.add_argument("--port", type=count_up_to(65535), default=8000, help="0 is a free one (default: 8000)")
    queue_help = f"pictures that may wait (default: {usual.waiting}); more are told to come again"
    parser.add_argument("--queue", type=count_up_to(10_000, least=1), default=usual.waiting, metavar="N", help=queue_help)
    bytes_help = f"the most bytes of a picture's file (default: {usual.bytes:,})"
    parser.add_argument("--max-bytes", type=count_up_to(1 << 30, least=1), default=usual.bytes, metavar="N", help=bytes_help)
    pixels_help = f"the most pixels of a picture (default: {usual.pixels:,})"
    parser.add_argument("--max-pixels", type=count_up_to(10**8, least=1), default=usual.pixels, metavar="N", help=pixels_help)
    arguments = parser.parse_intermixed_args()
    predictor = Predictor(arguments.source, arguments.overrides)
    limits = Limits(waiting=arguments.queue, bytes=arguments.max_bytes, pixels=arguments.max_pixels)
    with stop_signals_interrupt():
        server = Server(predictor, arguments.host, arguments.port, limits)
        print(f"serve {predictor.path} on {describe_device(predictor.device)} in {predictor.precision}", flush=True)
        warn_if_emulated(predictor.precision, "inference.precision")
        if not is_loopback(arguments.host):
            found = "whoever reaches this machine can use the network; there is no password"
            print(f"warning: --host {arguments.host}: {found}", file=sys.stderr)
        print(f"open {server.listener.url}", flush=True)
        server.serve()


if __name__ == "__main__":
    run_command(main)
