"""Write a trained network as a file for other programs: ONNX, OpenVINO (.xml with .bin) or a torch.export program (.pt2).

examples:
  segnet export runs/sample --out sample.onnx
  segnet export runs/camvid --out camvid.xml --int8 data/camvid/JPEGImages
  segnet export runs/camvid/last.pt --out camvid.pt2

Its input is float32 (B, C, H, W) in 0..255, of any size; its output float32 logits (B, K, H, W). The file is kept only if it
computes what the network does. evaluate and predict take an .onnx or .xml file in the place of a checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from segnet.commands.parsers import command_parser


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = command_parser("export", __doc__)
    parser.add_argument("source", type=Path, metavar="RUN|CHECKPOINT", help="a run folder (its best checkpoint) or a checkpoint")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="ends in .onnx, .xml or .pt2")
    parser.add_argument("--int8", metavar="PICTURES", help="compute in int8, calibrated on a picture, a folder or a quoted glob")
    parser.add_argument("--calibrate", type=int, default=100, metavar="N", help="the number of pictures to calibrate on (100)")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Export, and compare what the file computes with the network."""
    parser = build_parser()
    given = parser.parse_args(arguments)
    if given.calibrate < 1:
        parser.error("--calibrate is 1 or more")
    from segnet.data.images import pixel_count
    from segnet.data.listing import left_out_warning
    from segnet.export import export_model
    from segnet.inference.exported import Metadata
    from segnet.inference.loaded_model import load_model
    from segnet.models.encoder_decoder import EncoderDecoder
    from segnet.prediction.inputs import passed_over, pictures_of
    from segnet.system.errors import ExitCode, UserError

    found = [picture for picture, _ in pictures_of(given.int8)] if given.int8 is not None else []
    if given.int8 is not None and (left := passed_over([given.int8], given.out)):
        print(f"warning: {left_out_warning(left)}", file=sys.stderr)
    pictures = found[:: max(1, len(found) // given.calibrate)][: given.calibrate]
    for picture in pictures:
        pixel_count(picture)  # raises an error for a damaged picture, before the work begins
    model, _, config, checkpoint, step, score = load_model(given.source)
    if not isinstance(model, EncoderDecoder):
        raise UserError(ExitCode.CHECKPOINT, checkpoint, "exported already", "name a run folder or a checkpoint")
    print(f"export {checkpoint} on CPU", flush=True)
    report = export_model(model, Metadata(config, step, score), given.out, pictures)
    if report.difference is not None:
        print(f"same output on odd and even sizes, up to {report.difference:.1e} of the largest")
    if report.agreement is not None:
        print(f"int8 from {len(pictures)} pictures: {report.agreement:.2%} of their pixels keep their answer")
    print("written:", *report.files)
