"""Write a trained network for other programs: ONNX, OpenVINO (.xml with .bin), a torch.export program (.pt2), or a page.

examples:
  segnet export runs/sample --out sample.onnx
  segnet export runs/camvid --out camvid.xml --int8 data/camvid/JPEGImages
  segnet export runs/camvid --out page/ --runtime onnxruntime-web-1.30.0.tgz

The input of a file is float32 (B, C, H, W) in 0..255, of any size; its output float32 logits (B, K, H, W). The file is kept
only if it computes what the network does. evaluate and predict take an .onnx or .xml file in the place of a checkpoint.

A page is a folder: open its index.html, without a server, and the network answers pictures in the browser. It needs
onnxruntime-web, which `npm pack onnxruntime-web` writes into a .tgz for --runtime.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from segnet.commands.parsers import command_parser, parse
from segnet.system.command_line import count_up_to


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = command_parser("export", __doc__)
    parser.add_argument("source", type=Path, metavar="RUN|CHECKPOINT", help="a run folder (its best checkpoint) or a checkpoint")
    overrides_help = "overrides the configuration that the file keeps, e.g. inference.flip=none"
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE", help=overrides_help)
    out_help = "file that ends in .onnx, .xml or .pt2; a name without an ending: the folder of a page"
    parser.add_argument("--out", type=Path, required=True, metavar="FILE|PAGE/", help=out_help)
    runtime_help = "needed for a page: the .tgz of onnxruntime-web, or its folder in node_modules"
    parser.add_argument("--runtime", type=Path, metavar="PACKAGE", help=runtime_help)
    parser.add_argument(
        "--int8",
        metavar="PICTURES",
        help="for .xml: compute in int8, calibrated on PICTURES: a picture, a folder or a quoted glob",
    )
    parser.add_argument(
        "--calibrate",
        type=count_up_to(1_000_000, least=1),
        default=100,
        metavar="N",
        help="number of pictures to calibrate int8 on (default: 100)",
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Export, and compare what the file computes with the network."""
    parser = build_parser()
    given = parse(parser, arguments, mixed=True)
    is_page = not given.out.suffix
    if given.runtime is not None and not is_page:
        parser.error("--runtime is for a page: let --out be a folder")
    if given.int8 is not None and is_page:
        parser.error("--int8 is for OpenVINO: let --out end in .xml")
    from segnet.data.images import pixel_count
    from segnet.data.listing import left_out_warning
    from segnet.export import export_model, settings_beside
    from segnet.inference.exported import Metadata
    from segnet.inference.loaded_model import load_model
    from segnet.models.encoder_decoder import EncoderDecoder
    from segnet.prediction.inputs import passed_over, pictures_of
    from segnet.system.errors import checkpoint_error
    from segnet.web.folder import export_page
    from segnet.web.onnxruntime_web import read_browser_runtime

    found = [picture for picture, _ in pictures_of(given.int8)] if given.int8 is not None else []
    if given.int8 is not None and (left := passed_over([given.int8], given.out)):
        print(f"warning: {left_out_warning(left)}", file=sys.stderr)
    pictures = found[:: max(1, len(found) // given.calibrate)][: given.calibrate]
    for picture in pictures:
        pixel_count(picture)  # raises an error for a damaged picture, before the work begins
    runtime = read_browser_runtime(given.runtime) if is_page else None
    model, classes, config, checkpoint, step, score = load_model(given.source, given.overrides)
    if not isinstance(model, EncoderDecoder):
        raise checkpoint_error(checkpoint, "exported already", "name a run folder or a checkpoint")
    print(f"export {checkpoint} on CPU", flush=True)
    metadata = Metadata(config, step, score)
    if runtime:
        report = export_page(model, metadata, classes, given.out, runtime, title=checkpoint.resolve().parent.name)
    else:
        report = export_model(model, metadata, given.out, pictures)
    if report.difference is not None:
        print(f"same output on odd and even sizes, up to {report.difference:.1e} of the largest")
    if report.agreement is not None:
        print(f"int8 from {len(pictures)} pictures: {report.agreement:.2%} of their pixels keep their answer")
    print("written:", *report.files)
    if runtime:
        print(f"open {report.files[0].resolve().as_uri()} in a browser")
    elif beside := settings_beside(config.inference):
        print("not in the graph:", *beside, "– the commands evaluate and predict apply them, other programs must")
