"""Write a trained network as a file for other programs: ONNX, OpenVINO (.xml with .bin) or a torch.export program (.pt2).

examples:
  python scripts/export.py runs/sample --out sample.onnx
  python scripts/export.py runs/camvid --out camvid.xml --int8 data/camvid/JPEGImages
  python scripts/export.py runs/camvid/last.pt --out camvid.pt2

Its input is float32 (B, C, H, W) in 0..255, of any size; its output float32 logits (B, K, H, W). The file is kept only if it
computes what the network does. evaluate.py and predict.py take an .onnx or .xml file in the place of a checkpoint.
"""

import argparse
import sys
from pathlib import Path

from segnet.data.images import pixel_count
from segnet.data.listing import left_out_warning
from segnet.export import export_model
from segnet.inference.exported import Metadata
from segnet.inference.loaded_model import load_model
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.prediction.inputs import passed_over, pictures_of
from segnet.system.command_line import run_command
from segnet.system.errors import ExitCode, UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="RUN|CHECKPOINT", help="a run folder (its best checkpoint) or a checkpoint")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="ends in .onnx, .xml or .pt2")
    parser.add_argument("--int8", metavar="PICTURES", help="compute in int8, calibrated on a picture, a folder or a quoted glob")
    parser.add_argument("--calibrate", type=int, default=100, metavar="N", help="the number of pictures to calibrate on (100)")
    arguments = parser.parse_args()
    if arguments.calibrate < 1:
        parser.error("--calibrate is 1 or more")
    found = [picture for picture, _ in pictures_of(arguments.int8)] if arguments.int8 is not None else []
    if arguments.int8 is not None and (left := passed_over([arguments.int8], arguments.out)):
        print(f"warning: {left_out_warning(left)}", file=sys.stderr)
    pictures = found[:: max(1, len(found) // arguments.calibrate)][: arguments.calibrate]
    for picture in pictures:
        pixel_count(picture)  # raises an error for a damaged picture, before the work begins
    model, _, config, checkpoint, step, score = load_model(arguments.source)
    if not isinstance(model, EncoderDecoder):
        raise UserError(ExitCode.CHECKPOINT, checkpoint, "exported already", "name a run folder or a checkpoint")
    print(f"export {checkpoint} on CPU", flush=True)
    report = export_model(model, Metadata(config, step, score), arguments.out, pictures)
    if report.difference is not None:
        print(f"same output on odd and even sizes, up to {report.difference:.1e} of the largest")
    if report.agreement is not None:
        print(f"int8 from {len(pictures)} pictures: {report.agreement:.2%} of their pixels keep their answer")
    print("written:", *report.files)


if __name__ == "__main__":
    run_command(main)
