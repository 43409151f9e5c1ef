"""Print a configuration or the parts of a network; draw training samples, activations, or answers beside the truth.

examples:
  segnet show config configs/sample.yaml train.epochs=5
  segnet show model configs/camvid_segnet.yaml --size 360 480
  segnet show augment configs/sample.yaml augment.rotation=10 --out sheet.png

`model` prints a row for each part of the network. Its column "index bytes" is the memory of the pooling indices for one image:
one byte for each window, the place of its maximum. `comparison` draws pictures of the val split, each in a row: image, truth,
prediction and uncertainty; the scores of two runs are compared by `segnet compare`. `template` prints configs/template.yaml,
which has every key; `keys` prints the same as a page, docs/configuration.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from segnet.commands.parsers import add_overrides, command_parser, complete_configs, parse
from segnet.system.command_line import count_up_to
from segnet.system.errors import checkpoint_error, config_error
from segnet.system.streams import printing_is_the_result

_LONGEST = 320  # pixels of a drawn side, to which smaller pictures are enlarged by a whole number


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = command_parser("show", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    config = commands.add_parser(
        "config", help="print every key of a configuration with its value, from the file, its base files and the defaults"
    )
    config.set_defaults(run=show_config)
    model = commands.add_parser(
        "model", help="print output shape, parameters, multiply-adds and bytes of pooling indices of each part of a network"
    )
    model.set_defaults(run=show_model)
    augment = commands.add_parser("augment", help="draw training images and masks after augmentation into a file")
    augment.set_defaults(run=show_augmentation)
    for command in (config, model, augment):
        complete_configs(
            command.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file, or a name such as sample")
        )
        add_overrides(command)
    size_help = "of the image, in pixels (default: 360 480)"
    side = count_up_to(100_000, least=1)
    model.add_argument("--size", type=side, nargs=2, default=(360, 480), metavar=("H", "W"), help=size_help)
    count_help = "pictures, from the first one of the run on (default: 12)"
    augment.add_argument("--count", type=count_up_to(10_000, least=1), default=12, metavar="N", help=count_help)

    stages = commands.add_parser("stages", help="draw the activations of each decoder stage for a picture into a file")
    stages.set_defaults(run=show_stages)
    source_help = "a run folder (its best checkpoint) or a checkpoint"
    stages.add_argument("source", type=Path, metavar="RUN|CHECKPOINT", help=source_help)
    stages.add_argument("picture", type=Path, metavar="PICTURE", help="the picture that the network sees")
    rows = commands.add_parser(
        "comparison", help="draw pictures of the val split with truth, prediction and uncertainty into a file"
    )
    rows.set_defaults(run=show_comparison)
    rows.add_argument("source", type=Path, metavar="RUN|CHECKPOINT", help=source_help)
    rows.add_argument("ids", nargs="+", metavar="ID", help="id of a picture in the val split")
    for command in (augment, stages, rows):
        command.add_argument("--out", type=Path, required=True, metavar="FILE.png", help="the PNG to write")

    commands.add_parser("schema", help="print the JSON schema of configuration files").set_defaults(run=show_schema)
    template = commands.add_parser("template", help="print a configuration file with every key, its meaning, range and default")
    template.set_defaults(run=show_template)
    commands.add_parser("keys", help="print the page of all keys, docs/configuration.md").set_defaults(run=show_keys)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Print or draw what was asked for."""
    given = parse(build_parser(), arguments)
    given.run(given)


def show_template(_: argparse.Namespace) -> None:
    """Print configs/template.yaml."""
    from segnet.config.template import config_template

    printing_is_the_result()
    sys.stdout.write(config_template())


def show_keys(_: argparse.Namespace) -> None:
    """Print docs/configuration.md."""
    from segnet.config.key_page import configuration_page

    printing_is_the_result()
    sys.stdout.write(configuration_page())


def show_schema(given: argparse.Namespace) -> None:
    """Print the JSON schema of configuration files."""
    from segnet.config.loading import config_schema

    printing_is_the_result()
    sys.stdout.write(config_schema())


def show_config(given: argparse.Namespace) -> None:
    """Print a configuration as YAML, with every key."""
    from segnet.classes import merge_text
    from segnet.config.advice import zoom_warnings
    from segnet.config.loading import config_to_yaml, load_config
    from segnet.data.dataset import warn

    printing_is_the_result()
    config = load_config(given.config, given.overrides)
    sys.stdout.write(config_to_yaml(config))
    warn(zoom_warnings(config))
    if merged := merge_text(config.data.class_set):
        sys.stdout.write(f"# classes of the network: {', '.join(config.data.class_set.names)} ({merged})\n")


def show_model(given: argparse.Namespace) -> None:
    """Print the table of a network: one row per part."""
    from segnet.config.loading import load_config
    from segnet.models.inspection import summarize
    from segnet.tasks.choice import build_task

    printing_is_the_result()
    config = load_config(given.config, given.overrides)
    parts = summarize(config.model, build_task(config).channels, tuple(given.size), config.data.channels)
    print(f"{'part':<12}{'output (C, h, w)':>18}{'parameters':>14}{'GMAC':>9}{'index bytes':>14}")
    for part in parts:
        shape = "×".join(map(str, part.shape))
        winners = f"{part.winner_bytes:,}" if part.winner_bytes else ""
        print(f"{part.name:<12}{shape:>18}{part.parameters:>14,}{part.multiply_adds / 1e9:>9.2f}{winners:>14}")
    parameters = sum(part.parameters for part in parts)
    winner_bytes = sum(part.winner_bytes for part in parts)
    print(f"{'total':<30}{parameters:>14,}{sum(part.multiply_adds for part in parts) / 1e9:>9.1f}{winner_bytes:>14,}")


def show_augmentation(given: argparse.Namespace) -> None:
    """Draw the first samples that a run with this configuration trains on."""
    from segnet.config.loading import load_config
    from segnet.data.images import save_image
    from segnet.data.sampler import ResumableSampler
    from segnet.tasks.choice import build_task
    from segnet.training.data import open_train_set, resolve_scale

    config = load_config(given.config, given.overrides)
    dataset = open_train_set(config, build_task(config))
    task = build_task(resolve_scale(config, dataset))
    sampler = ResumableSampler(len(dataset), given.count, seed=config.seed, start=0, total=1)
    samples = [dataset[key] for key in sampler.batch(0)]
    save_image(given.out, task.draw_samples(samples))
    print(f"{', '.join(sample.id for sample in samples)}\nwritten: {given.out}")


def show_stages(given: argparse.Namespace) -> None:
    """Draw a picture and the activations of each decoder stage."""
    from segnet.data.images import open_image, save_image
    from segnet.inference.loaded_model import load_model
    from segnet.models.encoder_decoder import EncoderDecoder
    from segnet.models.inspection import decoder_activations
    from segnet.visualization import activation_grid, preview

    loaded = load_model(given.source)
    network = loaded.model
    image = open_image(given.picture, bands=loaded.config.data.bands)
    if not isinstance(network, EncoderDecoder):
        raise checkpoint_error(given.source, "an exported network hides its stages", "name a checkpoint")
    save_image(given.out, activation_grid(preview(image, loaded.config.data.bands), decoder_activations(network, image[None])))
    print(f"written: {given.out}")


def show_comparison(given: argparse.Namespace) -> None:
    """Draw one row per picture: the image, its truth, the answer and its uncertainty; of denoising the difference."""
    from segnet.config.data_folder import class_warnings
    from segnet.data.dataset import warn
    from segnet.data.images import save_image
    from segnet.inference.predictor import Predictor
    from segnet.visualization import enlarge, grid

    predictor = Predictor(given.source)
    data = predictor.config.data
    task = predictor.task
    dataset = task.open_split(data.val_split)
    warn(class_warnings(data))
    rows = []
    for name in given.ids:
        if name not in dataset.ids:
            remedy = f"choose e.g. {dataset.ids[0]}"
            raise config_error(name, f"not in the {data.val_split} split of {data.root}", remedy)
        sample = dataset.read(dataset.ids.index(name))
        answer = predictor.answer(sample.image[None])
        cells = (*task.draw(sample, answer), task.draw_doubt(sample, answer))
        rows.append([enlarge(cell, max(1, _LONGEST // max(cell.shape))) for cell in cells])
    save_image(given.out, grid(rows, gap=6))
    print(f"written: {given.out}")
