"""A network that starts from an earlier run: what is taken, what is new, what is left, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from helpers import CLASSES, refused, same

from segnet.config.loading import override_config
from segnet.config.sections import Config
from segnet.layers.deconvolution import flipped
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.initialization import build_model
from segnet.models.pretrained import kernels_of_bands
from segnet.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from segnet.runs.transfer import Transfer, take_weights
from segnet.system.errors import ExitCode
from segnet.training.loop import train

ENCODER = ["encoder.0.0", "encoder.1.0"]


def started(
    config: Config, run: Path, *changes: str, in_channels: int = 3, rgb: tuple[int, ...] = ()
) -> tuple[EncoderDecoder, Transfer]:
    """The network of `config` with `changes`, other random weights and those of `run` taken, and what was taken."""
    config = override_config(config, [f"model.weights={run}", *changes])
    torch.manual_seed(1)
    classes = config.data.class_set.names
    model = build_model(config.model, len(classes), in_channels)
    transfer = take_weights(model, config.model, classes, rgb)
    assert transfer is not None
    return model, transfer


@pytest.fixture
def weights(tiny_run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(tiny_run / "best.pt").weights


@pytest.mark.parametrize("decoder", ["he", "mirrored"])
def test_the_same_network_is_taken_whole(
    decoder: str, tiny_config: Config, tiny_run: Path, weights: dict[str, torch.Tensor]
) -> None:
    model, transfer = started(tiny_config, tiny_run, f"model.decoder_weights={decoder}")
    assert same(model.state_dict(), weights)
    assert [*transfer.taken] == [*ENCODER, "decoder.0.0", "decoder.1.0", "head"]
    assert (transfer.new, transfer.left) == ({}, {})
    assert transfer.path == tiny_run / "best.pt"
    assert transfer.sha256 == hashlib.sha256((tiny_run / "best.pt").read_bytes()).hexdigest()
    assert transfer.table().splitlines()[1:] == [
        "  taken  encoder: 2 layers",
        "  taken  decoder: 2 layers",
        "  taken  head: 1 layer",
    ]


def test_rows_of_the_head_are_taken_by_the_names_of_the_classes(
    tiny_config: Config, tiny_run: Path, weights: dict[str, torch.Tensor]
) -> None:
    assert CLASSES == ("ground", "box", "disc")
    model, transfer = started(tiny_config, tiny_run, "data.classes=[disc, star, ground, box]")
    for part in ("weight", "bias"):
        own = model.state_dict()[f"head.{part}"]
        assert torch.equal(own[[2, 3, 0]], weights[f"head.{part}"])
    assert transfer.taken["head"] == "the rows of disc, ground, box; new: star"
    model, transfer = started(tiny_config, tiny_run, "data.classes=[a, b, c]")
    assert transfer.new == {"head": "no class has the same name there"}
    assert transfer.left == {"head": "it does not fit"}
    assert not torch.equal(model.head.weight, weights["head.weight"])


@pytest.mark.parametrize(
    ("channels", "rgb", "expected"),
    [
        (1, (), "its kernels for R, G, B are summed for the one band"),
        (5, (), "the mean of its kernels for R, G, B goes to all 5 bands, times 3/5"),
        (3, (3, 2, 1), "its kernels for R, G, B go to bands 3, 2, 1"),
    ],
)
def test_a_first_layer_for_colours_becomes_one_for_the_bands(
    channels: int, rgb: tuple[int, ...], expected: str, tiny_config: Config, tiny_run: Path, weights: dict[str, torch.Tensor]
) -> None:
    model, transfer = started(tiny_config, tiny_run, in_channels=channels, rgb=rgb)
    assert transfer.taken["encoder.0.0"] == expected
    assert f"  taken  encoder.0.0: {expected}" in transfer.table().splitlines()
    assert torch.equal(
        model.encoder[0][0].conv.weight,  # type: ignore[index]
        kernels_of_bands(weights["encoder.0.0.conv.weight"], channels, rgb),
    )
    assert torch.equal(model.encoder[1][0].conv.weight, weights["encoder.1.0.conv.weight"])  # type: ignore[index]


def test_another_order_of_the_colours_is_that_of_the_kernels_too(tiny_config: Config, tmp_path: Path) -> None:
    there = override_config(tiny_config, ["data.rgb=[3, 2, 1]"])
    weights = build_model(there.model, 3).state_dict()
    save_checkpoint(tmp_path / "there.pt", Checkpoint(there, step=0, score=None, weights=dict(weights)))
    kernels = weights["encoder.0.0.conv.weight"]
    for rgb, expected in (
        ((3, 2, 1), kernels),
        ((), kernels.flip(1)),
        ((1, 2, 3), kernels.flip(1)),
        ((2, 1, 3), kernels[:, [1, 2, 0]]),
    ):
        model, _ = started(tiny_config, tmp_path / "there.pt", rgb=rgb)
        assert torch.equal(model.encoder[0][0].conv.weight, expected)  # type: ignore[index]


def test_a_first_layer_for_other_bands_is_taken_for_as_many_and_else_new(tiny_config: Config, tmp_path: Path) -> None:
    there = override_config(tiny_config, ["data.channels=4"])
    weights = build_model(there.model, 3, 4).state_dict()
    save_checkpoint(tmp_path / "there.pt", Checkpoint(there, step=0, score=None, weights=dict(weights)))
    model, transfer = started(tiny_config, tmp_path / "there.pt", in_channels=4)
    assert torch.equal(model.encoder[0][0].conv.weight, weights["encoder.0.0.conv.weight"])  # type: ignore[index]
    model, transfer = started(tiny_config, tmp_path / "there.pt")
    assert transfer.new == {"encoder.0.0": "conv.weight is (4, 3, 3, 3) here, (4, 4, 3, 3) there"}
    assert "  new    encoder.0.0: conv.weight is (4, 3, 3, 3) here, (4, 4, 3, 3) there" in transfer.table().splitlines()


def test_another_decoder_is_new_and_the_old_one_is_left(tiny_config: Config, tiny_run: Path) -> None:
    changes = ["model.decoder=[{widths: [8, 4]}, {widths: [5, 4]}]"]
    _, transfer = started(tiny_config, tiny_run, *changes)
    assert [*transfer.taken] == [*ENCODER, "head"]
    assert [*transfer.new] == ["decoder.0.0", "decoder.0.1", "decoder.1.0", "decoder.1.1"]
    assert transfer.left == {"decoder.0.0": "it does not fit", "decoder.1.0": "it does not fit"}


def test_fewer_stages_take_the_decoder_stages_of_the_same_resolution(
    tiny_config: Config, tiny_run: Path, weights: dict[str, torch.Tensor]
) -> None:
    model, transfer = started(tiny_config, tiny_run, "model.encoder=[{widths: [4]}]", "model.decoder=[{widths: [4]}]")
    assert torch.equal(model.decoder[0][0].conv.weight, weights["decoder.1.0.conv.weight"])  # type: ignore[index]
    assert [*transfer.taken] == ["encoder.0.0", "decoder.0.0", "head"]
    assert transfer.left == {"encoder.1.0": "no such layer here", "decoder.0.0": "no such layer here"}


def test_a_decoder_of_the_other_operation_is_converted(
    tiny_config: Config, tiny_run: Path, weights: dict[str, torch.Tensor]
) -> None:
    model, transfer = started(tiny_config, tiny_run, "model.decoder_operation=convolution")
    assert torch.equal(model.decoder[0][0].conv.weight, flipped(weights["decoder.0.0.conv.weight"]))  # type: ignore[index]
    assert not transfer.new


def test_the_normalisation_of_the_input_is_that_of_the_configuration(tiny_config: Config, tiny_run: Path) -> None:
    model, _ = started(tiny_config, tiny_run, "model.normalization.mean=[1, 2, 3]")
    assert model.normalize.mean.flatten().tolist() == [1, 2, 3]


def test_a_new_decoder_mirrors_the_encoder_that_was_taken(tiny_config: Config, tmp_path: Path) -> None:
    """Stage 0, which has two layers there, is new; stage 1 fits and is taken, not mirrored."""
    there = override_config(tiny_config, ["model.decoder=[{widths: [8, 4]}, {widths: [4]}]"])
    torch.manual_seed(0)
    weights = build_model(there.model, 3).state_dict()
    save_checkpoint(tmp_path / "there.pt", Checkpoint(there, step=0, score=None, weights=dict(weights)))
    model, transfer = started(tiny_config, tmp_path / "there.pt", "model.decoder_weights=mirrored")
    assert [*transfer.new] == ["decoder.0.0"]
    assert torch.equal(model.decoder[0][0].conv.weight, weights["encoder.1.0.conv.weight"])  # type: ignore[index]
    assert torch.equal(model.decoder[1][0].conv.weight, weights["decoder.1.0.conv.weight"])  # type: ignore[index]


def test_without_weights_nothing_is_read(tiny_config: Config, model: EncoderDecoder) -> None:
    assert take_weights(model, tiny_config.model, CLASSES) is None


def test_what_does_not_fit_at_all_is_refused(tiny_config: Config, tiny_run: Path, tmp_path: Path) -> None:
    widths = ["model.encoder=[{widths: [5]}, {widths: [7]}]", "model.decoder=[{widths: [5]}, {widths: [6]}]"]
    with refused(
        ExitCode.CHECKPOINT, "no layer of it fits", "'encoder.0.0': conv.weight is (5, 3, 3, 3) here, (4, 3, 3, 3) there"
    ):
        started(tiny_config, tiny_run, *widths)
    with refused(ExitCode.CHECKPOINT, "no best.pt in this folder"):
        started(tiny_config, tmp_path)
    (tmp_path / "vgg.pt").write_bytes(b"no checkpoint")
    with refused(ExitCode.CHECKPOINT, "vgg.pt: not a readable checkpoint of this program"):
        started(tiny_config, tmp_path / "vgg.pt")
    with refused(ExitCode.CONFIG, "weights and encoder_weights both name the encoder's first weights; set one of them to null"):
        started(tiny_config, tiny_run, "model.encoder_weights=vgg16")


def test_a_run_says_and_records_where_it_started_and_resumes_without_the_source(
    tiny_config: Config, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also that the encoder, frozen, is still that of the source at the end."""
    changes = [f"model.weights={tiny_run}", "data.classes=[ground, box, ball]", "optim.encoder_lr_factor=0", "train.epochs=1"]
    config = override_config(tiny_config, changes)
    source = load_checkpoint(tiny_run / "best.pt")
    train(override_config(config, ["train.max_minutes=1e-9"]), tmp_path / "new")
    said = capsys.readouterr()
    assert "taken  head: the rows of ground, box; new: ball" in said.out
    assert "random weights" not in said.err
    record = json.loads((tmp_path / "new" / "environment.json").read_text())["weights"]
    assert record["sha256"] == hashlib.sha256((tiny_run / "best.pt").read_bytes()).hexdigest()
    assert (record["path"], record["step"], [*record["taken"]][-1]) == (str(tiny_run / "best.pt"), source.step, "head")
    (tiny_run / "best.pt").unlink()
    train(config, tmp_path / "new", resume=True)
    assert "taken" not in capsys.readouterr().out
    assert "weights" in json.loads((tmp_path / "new" / "environment.json").read_text())
    ended = load_checkpoint(tmp_path / "new" / "last.pt")
    assert ended.config.model.weights == str(tiny_run)
    encoders = [{k: v for k, v in c.weights.items() if k.startswith("encoder.")} for c in (source, ended)]
    assert same(*encoders)
