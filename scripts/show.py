"""Show a resolved configuration, a network part by part, what its stages do to a picture, or what training sees.

examples:
  python scripts/show.py config configs/sample.yaml train.epochs=5
  python scripts/show.py model configs/camvid_segnet.yaml --size 360 480
  python scripts/show.py augment configs/sample.yaml augment.rotation=10 --out sheet.png

`stages` draws what each decoder stage makes of a picture, `comparison` val pictures with truth, prediction and uncertainty;
`template` prints configs/template.yaml, which has every key; `schema` prints the JSON schema of configuration files.
"""

import argparse
import sys
from pathlib import Path

from segnet.config.loading import class_warnings, config_schema, config_to_yaml, load_config
from segnet.config.sections import Config
from segnet.config.template import config_template
from segnet.data.dataset import SegmentationDataset, warn
from segnet.data.images import open_image, save_image
from segnet.data.sampler import ResumableSampler
from segnet.inference.loaded_model import load_model
from segnet.inference.predictor import Predictor
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.inspection import decoder_activations, summarize
from segnet.system.command_line import run_command
from segnet.system.errors import ExitCode, UserError
from segnet.system.streams import printing_is_the_result
from segnet.training.data import open_train_set
from segnet.visualization import activation_grid, comparison_row, contact_sheet, enlarge, grid, uncertainty_map


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    config = commands.add_parser("config", help="every key of a configuration, defaults and base files resolved")
    model = commands.add_parser("model", help="shapes, parameters, multiply-adds and winner bytes of a network")
    augment = commands.add_parser("augment", help="training pictures and masks as the network sees them, drawn into a file")
    for command in (config, model, augment):
        command.add_argument("config", type=Path, metavar="CONFIG")
        command.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    model.add_argument("--size", type=int, nargs=2, default=(360, 480), metavar=("H", "W"), help="of the picture (360 480)")
    augment.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    augment.add_argument("--count", type=int, default=12, metavar="N", help="pictures, the first of the run (12)")
    stages = commands.add_parser("stages", help="a picture on its way through the decoder, drawn into a file")
    stages.add_argument("source", type=Path, metavar="RUN|CHECKPOINT")
    stages.add_argument("picture", type=Path, metavar="PICTURE")
    stages.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    rows = commands.add_parser("comparison", help="picture, truth and prediction, drawn into a file")
    rows.add_argument("source", type=Path, metavar="RUN|CHECKPOINT")
    rows.add_argument("ids", nargs="+", metavar="ID", help="pictures of the val split")
    rows.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    commands.add_parser("schema", help="the JSON schema of configuration files")
    commands.add_parser("template", help="a configuration file with every key, its meaning, range and default")
    arguments = parser.parse_args()
    if arguments.command in ("schema", "template", "config", "model"):
        printing_is_the_result()
    if arguments.command == "schema":
        sys.stdout.write(config_schema())
    elif arguments.command == "template":
        sys.stdout.write(config_template())
    elif arguments.command == "config":
        sys.stdout.write(config_to_yaml(load_config(arguments.config, arguments.overrides)))
    elif arguments.command == "model":
        show_model(arguments.config, arguments.overrides, tuple(arguments.size))
    elif arguments.command == "augment":
        if arguments.count < 1:
            parser.error("--count is 1 or more")
        show_augmentation(load_config(arguments.config, arguments.overrides), arguments.count, arguments.out)
    elif arguments.command == "comparison":
        show_comparison(arguments.source, arguments.ids, arguments.out)
    else:
        image = open_image(arguments.picture)
        network = load_model(arguments.source).model
        if not isinstance(network, EncoderDecoder):
            raise UserError(ExitCode.CHECKPOINT, arguments.source, "an exported network hides its stages", "name a checkpoint")
        activations = decoder_activations(network, image[None])
        save_image(arguments.out, activation_grid(image, activations))
        print(f"written: {arguments.out}")


def show_model(path: Path, overrides: list[str], size: tuple[int, int]) -> None:
    """Print the table of a network."""
    config = load_config(path, overrides)
    parts = summarize(config.model, len(config.data.class_set), size)
    print(f"{'part':<12}{'output (C, h, w)':>18}{'parameters':>14}{'GMAC':>9}{'winner bytes':>14}")
    for part in parts:
        shape = "×".join(map(str, part.shape))
        winners = f"{part.winner_bytes:,}" if part.winner_bytes else ""
        print(f"{part.name:<12}{shape:>18}{part.parameters:>14,}{part.multiply_adds / 1e9:>9.2f}{winners:>14}")
    parameters, winner_bytes = sum(p.parameters for p in parts), sum(p.winner_bytes for p in parts)
    print(f"{'total':<30}{parameters:>14,}{sum(p.multiply_adds for p in parts) / 1e9:>9.1f}{winner_bytes:>14,}")


def show_augmentation(config: Config, count: int, out: Path) -> None:
    """Draw the first `count` samples that a run with `config` trains on."""
    dataset = open_train_set(config)
    sampler = ResumableSampler(len(dataset), count, seed=config.seed, start=0, total=1)
    samples = [dataset[key] for key in sampler.batch(0)]
    save_image(out, contact_sheet([(sample.image, sample.mask) for sample in samples], dataset.classes))
    print(f"{', '.join(sample.id for sample in samples)}\nwritten: {out}")


def show_comparison(source: Path, ids: list[str], out: Path) -> None:
    """Draw one column per picture: itself, its truth, its prediction, and how uncertain that is."""
    predictor = Predictor(source)
    data, classes = predictor.config.data, predictor.classes
    dataset = SegmentationDataset(Path(data.root), data.val_split, classes)
    warn(class_warnings(data))
    columns = []
    for name in ids:
        if name not in dataset.ids:
            remedy = f"choose e.g. {dataset.ids[0]}"
            raise UserError(ExitCode.CONFIG, name, f"not in the {data.val_split} split of {data.root}", remedy)
        sample = dataset.read(dataset.ids.index(name))
        prediction = predictor.predict(sample.image)
        cells = comparison_row(sample.image, sample.mask, prediction.mask, classes)
        columns.append([enlarge(cell, 2) for cell in (*cells, uncertainty_map(prediction.uncertainty))])
    save_image(out, grid(list(zip(*columns, strict=True)), gap=6))
    print(f"written: {out}")


if __name__ == "__main__":
    run_command(main)
