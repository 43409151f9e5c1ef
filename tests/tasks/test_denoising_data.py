"""The samples of denoising: functions of seed, epoch and id in training, and always the same where they are scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refused
from noisy_sets import denoise_config_for, write_clean_pictures, write_noisy_pictures
from PIL import Image

from segnet.data.images import open_image
from segnet.data.sampler import SampleKey
from segnet.system.errors import ExitCode
from segnet.tasks.choice import build_task
from segnet.tasks.denoising_data import NoisyPatches, ScoredPictures
from segnet.training.data import open_train_set


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_clean_pictures(tmp_path / "waves")


def train_set_of(root: Path, *changes: str) -> NoisyPatches:
    config = denoise_config_for(root, *changes)
    dataset = open_train_set(config, build_task(config))
    assert isinstance(dataset, NoisyPatches)
    return dataset


def test_a_sample_of_training_is_a_function_of_seed_epoch_and_id(root: Path) -> None:
    first, again, other = train_set_of(root), train_set_of(root), train_set_of(root, "seed=1")
    again[SampleKey(5, 3)]  # other samples before it change nothing
    sample, same = first[SampleKey(2, 1)], again[SampleKey(2, 1)]
    assert torch.equal(sample.image, same.image)
    assert torch.equal(sample.truth, same.truth)
    for one in (first[SampleKey(3, 1)], first[SampleKey(2, 2)], other[SampleKey(2, 1)]):
        assert not torch.equal(one.image - one.truth, sample.image - sample.truth)
    noise = torch.stack([(one.image - one.truth) for one in (first[SampleKey(epoch, 0)] for epoch in range(40))])
    assert noise.std().item() == pytest.approx(25, rel=0.05)
    assert sample.truth.shape == (1, 16, 16)
    assert (sample.truth == sample.truth.round()).all()


def test_pixels_beyond_the_picture_are_not_scored(root: Path) -> None:
    sample = train_set_of(root, "augment.crop_size=[40, 40]")[SampleKey(0, 0)]
    assert int(sample.truth.isnan().sum()) == 40 * 40 - 24 * 32
    assert sample.image.isfinite().all()


def test_noisy_targets_have_noise_of_their_own(root: Path) -> None:
    clean, noisy = train_set_of(root), train_set_of(root, "noise.target=noisy")
    key = SampleKey(0, 0)
    assert torch.equal(noisy[key].image, clean[key].image)
    noises = torch.stack([noisy[key].image - clean[key].truth, noisy[key].truth - clean[key].truth]).flatten(1)
    assert noises.std(dim=1).tolist() == pytest.approx([25, 25], rel=0.15)
    assert abs(torch.corrcoef(noises)[0, 1]) < 0.2


def test_a_scored_picture_has_the_noise_of_seed_0_at_each_strength(root: Path) -> None:
    config = denoise_config_for(root, "noise.scored=[15, 50]")
    dataset = build_task(config).open_split("val")
    assert isinstance(dataset, ScoredPictures)
    assert dataset.ids == [f"val_{number} σ{sigma}" for sigma in (15, 50) for number in range(3)]
    clean = open_image(root / "images" / "val_1.png", bands=config.data.bands)
    noise = torch.from_numpy(np.random.RandomState(0).normal(0, 50, (24, 32)))
    sample = dataset.read(4)
    assert torch.equal(sample.truth, clean)
    assert (sample.image[0] - clean[0] - noise).abs().max() < 1e-4
    assert [dataset.level_of(row) for row in range(6)] == [15] * 3 + [50] * 3


def test_decoded_pictures_are_those_of_the_files(root: Path) -> None:
    write_noisy_pictures(root)
    for changes in ([], ["noise.folder=noisy"]):
        plain, decoded = train_set_of(root, *changes), train_set_of(root, *changes)
        decoded.keep_decoded()
        assert decoded.decoded
        for key in (SampleKey(0, 0), SampleKey(1, 5)):
            assert torch.equal(plain[key].image, decoded[key].image)
            assert torch.equal(plain[key].truth, decoded[key].truth)


def test_recorded_pairs_are_cut_at_the_same_place(root: Path) -> None:
    write_noisy_pictures(root, sigma=4)
    sample = train_set_of(root, "noise.folder=noisy", "augment.scale=[0.7, 1.4]", "augment.rotation=20")[SampleKey(0, 2)]
    inside = ~sample.truth.isnan()
    assert 0 < (sample.image - sample.truth)[inside].std() < 8
    scored = build_task(denoise_config_for(root, "noise.folder=noisy")).open_split("val").read(0)
    noisy = np.asarray(Image.open(root / "noisy" / "val_0.png"))
    assert torch.equal(scored.image[0], torch.from_numpy(noisy.astype(np.float32)))


def test_faults_of_pairs_are_named(root: Path) -> None:
    with refused(ExitCode.DATA, "noisy: noise.folder: no such folder", "name the folder of the noisy pictures"):
        train_set_of(root, "noise.folder=noisy")
    write_noisy_pictures(root)
    Image.fromarray(np.zeros((24, 31), np.uint8)).save(root / "noisy" / "train_0.png")
    with refused(ExitCode.DATA, "train_0.png: noisy picture 31×24, clean picture 32×24 (width × height)", "pixel for pixel"):
        train_set_of(root, "noise.folder=noisy")[SampleKey(0, 0)]
    (root / "noisy" / "train_2.png").unlink()
    with refused(ExitCode.DATA, "noisy/train_2: no noisy picture of this name", "remove its id from the split"):
        train_set_of(root, "noise.folder=noisy")
    (root / "noisy" / "train_2.png").symlink_to("/etc/hostname")
    with refused(ExitCode.DATA, "train_2.png: lies outside of the data folder"):
        train_set_of(root, "noise.folder=noisy")


def test_a_picture_of_train_in_val_is_refused(root: Path) -> None:
    (root / "val.txt").write_text("val_0\ntrain_1\n")
    with refused(ExitCode.DATA, "1 pictures are in train as well: train_1"):
        build_task(denoise_config_for(root)).open_split("val")
