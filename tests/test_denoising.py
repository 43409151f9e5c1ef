"""The second task from end to end: training, resuming, scores, reports, restored pictures, exported networks."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_same_run, folder_bytes, read_metrics, refused
from noisy_sets import denoise_config_for, write_clean_pictures, write_noisy_pictures
from PIL import Image

from segnet.config.loading import config_to_yaml, load_config, override_config
from segnet.config.sections import Config
from segnet.data.loader import build_loader
from segnet.evaluation.restoration_report import restored_pictures, worst_and_best_restored
from segnet.evaluation.scoring import count_split
from segnet.evaluation.writers import Scored, build_writer
from segnet.export import export_model
from segnet.inference.exported import Metadata, Runtime
from segnet.inference.loaded_model import load_model
from segnet.inference.predictor import Predictor
from segnet.metrics.psnr import psnr, squared_error, to_8_bits
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.initialization import build_model
from segnet.prediction.inputs import plan_jobs
from segnet.prediction.pipeline import predict_jobs
from segnet.runs.checkpoint import Checkpoint, save_checkpoint
from segnet.runs.transfer import take_weights
from segnet.system.errors import ExitCode, UserError
from segnet.tasks.choice import build_task
from segnet.tasks.denoising_score import RestoredEvaluation
from segnet.training.loop import train
from segnet.training.overfitting import overfit_one_batch


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clean_pictures(tmp_path_factory.mktemp("waves") / "data")


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps, scored at two strengths of noise."""
    folder = tmp_path_factory.mktemp("runs") / "waves"
    train(denoise_config_for(root, "noise.scored=[15, 25]"), folder)
    return folder


def evaluate(run: Path, *overrides: str) -> tuple[RestoredEvaluation, Config]:
    model, _, config, *_ = load_model(run, ["device=cpu", *overrides])
    task = build_task(config)
    dataset = task.open_split("val")
    counts = task.evaluation_counts(dataset)
    count_split(model, build_loader(dataset, workers=0), config.inference, task.answers, counts)
    return counts.evaluation(), config


def test_a_run_logs_psnr_and_ssim_and_resumes_to_the_bit(root: Path, run: Path, tmp_path: Path) -> None:
    scored = [row for row in read_metrics(run) if row["val_psnr"]]
    assert len(scored) == 2
    assert 10 < float(scored[-1]["val_psnr"]) < 40
    assert 0 < float(scored[-1]["val_ssim"]) < 1
    config = denoise_config_for(root, "noise.scored=[15, 25]")
    stopped = tmp_path / "stopped"
    train(override_config(config, ["train.max_minutes=1e-9"]), stopped)
    assert int(read_metrics(stopped)[-1]["step"]) < 6
    train(config, stopped, resume=True)
    assert_same_run(run, stopped)
    with refused(ExitCode.CHECKPOINT, "was trained with another noise.sigma (25.0, now 30.0)"):
        train(override_config(config, ["noise.sigma=30"]), stopped, resume=True)


def test_the_score_is_that_of_its_definition(root: Path, run: Path) -> None:
    evaluation, config = evaluate(run)
    predictor = Predictor(run, ["device=cpu"])
    assert [picture.id for picture in evaluation.pictures] == [f"val_{n} σ{sigma}" for sigma in (15, 25) for n in range(3)]
    for picture in evaluation.pictures:
        clean = np.array(Image.open(root / "images" / f"{picture.id.split()[0]}.png"))
        noise = np.random.RandomState(0).normal(0, picture.level, (*clean.shape, 1))[..., 0]
        noisy = torch.from_numpy((clean + noise).astype(np.float32))
        restored = to_8_bits(predictor.answer(noisy[None, None]).image[0])
        assert picture.psnr == pytest.approx(psnr(squared_error(restored, torch.from_numpy(clean)[None]), clean.size), abs=1e-9)
        assert picture.noisy_psnr == pytest.approx(20 * math.log10(255 / np.sqrt((noise**2).mean())), abs=1e-4)
    measures = {measure.name: measure.value for measure in evaluation.measures()}
    assert measures["psnr"] == pytest.approx(np.mean([picture.psnr for picture in evaluation.pictures]))
    assert build_writer(config, 2000).table(evaluation).splitlines()[1].split()[:4] == ["gaussian", "σ", "15", "noisy"]


def test_the_files_and_the_page_of_an_evaluation(run: Path, tmp_path: Path) -> None:
    evaluation, config = evaluate(run)
    writer = build_writer(config, 2000)
    writer.save(tmp_path, evaluation, split="val", conditions={})
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert document["task"] == "denoise"
    assert [level["level"] for level in document["levels"]] == [15, 25]
    assert document["levels"][1]["psnr"] == evaluation.of_level(25).measures()[0].value
    with (tmp_path / "pictures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["psnr"]) for row in rows] == [picture.psnr for picture in evaluation.pictures]
    model = load_model(run).model
    dataset = build_task(config).open_split("val")
    seen = writer.watch(build_task(config).evaluation_counts(dataset), 2)
    scored = Scored(model, dataset, config.inference, seen, 2, run / "metrics.csv")
    writer.report(tmp_path / "report.html", evaluation, scored, title="waves", facts={"device": "cpu"})
    page = (tmp_path / "report.html").read_text()
    assert page.count('data-layer="noisy"') == page.count('data-layer="restored"') == 2
    worst, best = worst_and_best_restored(evaluation.pictures, 2)
    assert worst[0].psnr == min(picture.psnr for picture in evaluation.pictures if picture.level == 25)
    assert best[0].psnr == max(picture.psnr for picture in evaluation.pictures if picture.level == 25)
    shown = next(restored_pictures(model, scored.dataset, worst, config.inference))
    assert psnr(squared_error(shown.restored, shown.clean), shown.clean.numel()) == pytest.approx(worst[0].psnr)
    assert "$picture_rows" not in page


def test_a_network_that_makes_pictures_worse_is_warned_of(root: Path, tmp_path: Path) -> None:
    write_noisy_pictures(root, folder="recorded")
    config = denoise_config_for(root, "noise.folder=recorded", "model.output=image")
    torch.manual_seed(0)
    weights = build_model(config.model, 1, 1).state_dict()
    save_checkpoint(tmp_path / "best.pt", Checkpoint(config, step=0, score=None, weights=dict(weights)))
    evaluation, _ = evaluate(tmp_path)
    assert {picture.level for picture in evaluation.pictures} == {0}
    assert "nearer to the clean ones than the restored ones" in evaluation.warnings()[0]
    assert "swapped" in evaluation.warnings()[0]


@pytest.mark.parametrize("output", ["residual", "image"])
def test_the_network_gives_an_image(output: str, root: Path) -> None:
    config = denoise_config_for(root, f"model.output={output}")
    model = build_model(config.model, 1, 1).eval()
    image = torch.rand(2, 1, 9, 13) * 255
    with torch.no_grad():
        values = model.head(model.decoder[1](model.upsampling[1](*_before_last_stage(model, image))))
        expected = (
            image - values * model.normalize.std if output == "residual" else values * model.normalize.std + model.normalize.mean
        )
        assert torch.allclose(model(image), expected, atol=1e-3)


def _before_last_stage(model: EncoderDecoder, image: torch.Tensor) -> tuple[torch.Tensor, object]:
    x, pooled = model.normalize(image), []
    for stage, pool in zip(model.encoder, model.pooling, strict=True):
        x, winners = pool(stage(x))
        pooled.append(winners)
    return model.decoder[0](model.upsampling[0](x, pooled[1])), pooled[0]


def test_restored_files_are_those_of_the_predictor_and_valid_ones_are_kept(run: Path, root: Path, tmp_path: Path) -> None:
    predictor = Predictor(run, ["device=cpu"])
    jobs = plan_jobs([str(root / "images")], tmp_path)
    results = list(predict_jobs(predictor, jobs, tmp_path, save=["restored"]))
    assert not any(result.failure or result.skipped for result in results)
    written = Image.open(tmp_path / "val_0.png")
    assert written.mode == "L"
    expected = predictor.restore(root / "images" / "val_0.png")
    assert np.array_equal(np.array(written), expected.restored[..., 0])
    before = folder_bytes(tmp_path)
    assert all(result.skipped for result in predict_jobs(predictor, jobs, tmp_path, save=["restored"]))
    assert folder_bytes(tmp_path) == before
    with refused(ExitCode.CONFIG, "a network for task denoise", "call restore"):
        predictor.predict(root / "images" / "val_0.png")


def test_windows_restore_as_the_whole_picture_does(run: Path) -> None:
    image = torch.randint(0, 256, (1, 1, 150, 170), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = Predictor(run, ["device=cpu"]).answer(image).image
    windows = Predictor(run, ["device=cpu", "inference.window=96"]).answer(image).image
    assert (windows - whole).abs().max() < 1e-3


def test_an_exported_network_restores_the_same(run: Path, tmp_path: Path) -> None:
    model, _, config, _, step, score = load_model(run)
    assert isinstance(model, EncoderDecoder)
    done = export_model(model, Metadata(config, step, score), tmp_path / "waves.pt2")
    assert done.difference is not None
    assert done.difference < 1e-4
    runtime = Runtime(lambda image: model(torch.from_numpy(image)).detach().numpy(), config, bytes(32))
    assert (runtime.num_classes, runtime.in_channels) == (1, 1)
    agree = build_task(config).answers.agree
    image = torch.full((1, 1, 4, 4), 100.0)
    assert agree(image, image + 2).all()
    assert not agree(image, image + 3).any()


def test_one_batch_can_be_learnt(root: Path) -> None:
    widths = "[{widths: [16]}, {widths: [16]}]"
    changes = [f"model.encoder={widths}", f"model.decoder={widths}", "optim.lr=0.01"]
    measure, learnt = overfit_one_batch(denoise_config_for(root, *changes), 60)
    assert (measure.name, learnt) == ("psnr", True)
    assert not overfit_one_batch(denoise_config_for(root, "model.output=image"), 1)[1]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("noise.sigma=0", "noise.sigma: found 0, should be greater than 0"),
        ("noise.sigma=300", "noise.sigma: found 300, should be less than or equal to 255"),
        ("noise.sigma=[-1, 10]", "noise.sigma.0: found -1, should be greater than or equal to 0"),
        ("noise.sigma=[50, 10]", "sigma: 50.0 is above 10.0; write the smaller first"),
        ("noise.quality=0", "noise.quality"),
        ("noise.kind=salt", "noise.kind"),
        ("model.output=logits", "model.output: logits are for classes; write residual, or image"),
        ("loss.kind=cross_entropy", "loss.kind: cross_entropy is for classes; write mse or l1"),
        ("loss.class_weights=enet", "loss.class_weights: for classes, of which task denoise has none; leave out"),
        ("loss={label_smoothing: 0.1, weight_power: 0.5}", "loss.weight_power, loss.label_smoothing: for classes"),
        ("data.scale=train", "data.scale: task denoise takes picture, for 8 bits, or dtype"),
        ("augment.copy_paste=0.5", "data.balance and augment.copy_paste need masks; leave them out"),
        ("data.classes=voc", "data.classes: task denoise has none"),
        ("task=segmentation", "data.classes: none are for task denoise; name the classes"),
    ],
)
def test_what_does_not_fit_the_task_is_refused_in_one_line(change: str, found: str, root: Path) -> None:
    with pytest.raises(UserError) as caught:
        denoise_config_for(root, change)
    assert caught.value.code == ExitCode.CONFIG
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_of_noise_that_contradict_each_other_are_refused(root: Path) -> None:
    for changes, found in (
        (["noise.folder=noisy", "noise.target=noisy"], "target: noisy needs noise that is drawn"),
        (["noise.folder=noisy", "noise.scored=[25]"], "scored: recorded noise has no strength"),
        (["noise.kind=jpeg", "noise.target=noisy"], "target: noisy needs noise whose mean is the image"),
        (["noise.kind=jpeg", "noise.scored=[0.5]"], "scored: a quality is 1 to 100"),
    ):
        with refused(ExitCode.CONFIG, found):
            denoise_config_for(root, *changes)


def test_a_network_starts_from_an_earlier_one_with_its_head(root: Path, run: Path) -> None:
    config = denoise_config_for(root, f"model.weights={run}", "noise.sigma=50")
    model, earlier = build_model(config.model, 1, 1), load_model(run).model
    take_weights(model, config.model, config.data.class_set.names)
    assert all(torch.equal(value, earlier.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_configuration_file_needs_no_classes(root: Path, tmp_path: Path) -> None:
    config = denoise_config_for(root)
    text = config_to_yaml(config).replace("  classes: none\n", "")
    assert "classes" not in text
    (tmp_path / "waves.yaml").write_text(text)
    (root / "classes.yaml").write_text("names: [ground, wave]\n")  # of masks that this task does not read
    assert load_config(tmp_path / "waves.yaml") == config
    (root / "classes.yaml").unlink()


def test_pictures_of_16_bits_are_refused_by_name_unless_their_range_is_scaled(run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "deep.png"
    Image.fromarray(np.full((16, 16), 1000, np.uint16)).save(picture)
    with refused(ExitCode.DATA, "deep.png: more than 8 bits a band", "write data.scale=dtype"):
        Predictor(run, ["device=cpu"]).restore(picture)
    root = write_clean_pictures(tmp_path / "data")
    picture.rename(root / "images" / "train_3.png")
    with refused(ExitCode.DATA, "train_3.png: more than 8 bits a band"):
        build_task(denoise_config_for(root)).open_split("train", training=True).read(3)
    deep = build_task(denoise_config_for(root, "data.scale=dtype")).open_split("train", training=True)
    assert torch.allclose(deep.read(3).image, torch.full((1, 16, 16), 1000 / 257))


def test_a_network_of_one_band_restores_the_bands_of_a_colour_picture_one_by_one(run: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    pictures = {"colour.png": values, "grey.png": values[..., 0], "grey_rgb.png": values[..., [0, 0, 0]]}
    (tmp_path / "in").mkdir()
    for name, array in pictures.items():
        Image.fromarray(array).save(tmp_path / "in" / name)
    predictor = Predictor(run, ["device=cpu"])
    jobs = plan_jobs([str(tmp_path / "in")], tmp_path / "out")
    assert not any(result.failure for result in predict_jobs(predictor, jobs, tmp_path / "out", save=["restored"]))
    restored = {name: np.array(Image.open(tmp_path / "out" / name)) for name in pictures}
    each = [predictor.restore(values[..., band]).restored[..., 0] for band in range(3)]
    assert np.array_equal(restored["colour.png"], np.stack(each, axis=-1))
    assert np.array_equal(restored["grey.png"], each[0])
    assert np.array_equal(restored["grey_rgb.png"], each[0]), "grey that is stored as RGB has one band"
    opened = predictor.restore(Image.fromarray(values))
    assert np.array_equal(opened.restored, restored["colour.png"])
    assert np.array_equal(opened.image, values)
