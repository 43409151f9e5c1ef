"""Exported files say all that a checkpoint says, and are refused when they are not whole."""

import subprocess
import sys

import pytest
import torch
from exported_networks import FORMATS, config_of, noise
from helpers import refused, write_picture

from segnet.inference import exported as exported_files
from segnet.inference.answers import predict_maps
from segnet.inference.exported import Metadata, load_exported, seal
from segnet.inference.loaded_model import load_model
from segnet.models.folding import fold
from segnet.models.initialization import build_model
from segnet.system.errors import ExitCode

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


@pytest.mark.parametrize("package", FORMATS)
def test_all_that_a_checkpoint_knows_travels_in_the_file(exported, package):
    _, path = exported(package)
    expected = config_of("deconvolution")
    assert load_exported(path).metadata == Metadata(expected, 7, 0.5)
    loaded = load_model(path, ["inference.flip=horizontal"])
    assert loaded.classes == expected.data.class_set
    assert loaded.config.inference.flip == "horizontal"
    original = build_model(expected.model, 3)
    assert (loaded.model.field_of_view, loaded.model.total_stride) == (original.field_of_view, original.total_stride)
    assert fold(loaded.model) is loaded.model


@pytest.mark.parametrize("package", FORMATS)
def test_inference_sees_no_difference(exported, package):
    """With windows, scales and flips."""
    model, path = exported(package)
    loaded = load_model(path, ["inference={window: 32, scales: [1.0, 0.7], flip: horizontal}"])
    found, expected = (predict_maps(m, noise(1, (70, 51)), loaded.config.inference) for m in (loaded.model, model))
    torch.testing.assert_close(found.confidence, expected.confidence, rtol=0, atol=1e-4)
    assert (found.mask != expected.mask).float().mean() < 1e-3


def test_dropout_and_another_network_are_refused(exported):
    _, path = exported("onnxruntime", "dropout")
    loaded = load_model(path, ["inference.dropout_samples=3"])
    with refused(ExitCode.CONFIG, "an exported network has no dropout"):
        predict_maps(loaded.model, noise(1, (8, 8)), loaded.config.inference)
    with refused(ExitCode.CONFIG, "cannot be changed"):
        load_model(path, ["model.decoder_relu=false"])
    with refused(ExitCode.CONFIG, "runs on the CPU"):
        load_model(path, ["device=cuda"])


SIGNALLED = """
import faulthandler, gc, signal, sys
from pathlib import Path
from segnet.inference.exported import load_exported
faulthandler.enable()
first, second = (load_exported(Path(sys.argv[1]), precision) for precision in ("float32", "bfloat16"))
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
signal.raise_signal(signal.SIGUSR1)
"""


def test_a_signal_after_networks_have_gone_is_handled(exported):
    """OpenVINO's plugin for CPUs changes the stack on which handlers run, and takes it back when it goes."""
    _, path = exported("openvino")
    done = subprocess.run([sys.executable, "-c", SIGNALLED, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.parametrize("package", FORMATS)
def test_what_runs_a_file_is_named_when_it_is_absent(exported, monkeypatch, package):
    _, path = exported(package)
    monkeypatch.setitem(sys.modules, package, None)
    with refused(ExitCode.ENVIRONMENT, path.name, f"pip install {package}"):
        load_exported(path)


@pytest.mark.parametrize("package", FORMATS)
def test_no_bit_of_a_file_changes_unnoticed(exported, tmp_path, package):
    _, original = exported(package)
    files = [original] if package == "onnxruntime" else [original, original.with_suffix(".bin")]
    for file in files:
        content = file.read_bytes()
        flipped = (_flip(content, 0.1), _flip(content, 0.9))
        for damaged in (content[:-1], content[: len(content) // 2], b"", content + b"\n", *flipped):
            for other in files:
                (tmp_path / other.name).write_bytes(damaged if other is file else other.read_bytes())
            with refused(ExitCode.CHECKPOINT, original.name):
                load_model(tmp_path / original.name)


def _flip(content, where):
    changed = bytearray(content)
    changed[int(where * len(content))] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("content", [b"", b"x", b"<?xml version='1.0'?><net/>", b"\x08\x08"])
def test_files_of_other_programs_are_refused(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.with_suffix(".bin").touch()
    path.write_bytes(content)
    with refused(ExitCode.CHECKPOINT, "not a file that python scripts/export.py wrote"):
        load_model(path)
    path.write_bytes(seal(suffix, content))  # as someone who knows how
    with refused(ExitCode.CHECKPOINT, "cannot read it"):
        load_model(path)


def test_a_pt2_file_is_not_even_opened(run_script, tmp_path):
    path = write_picture(tmp_path / "a.pt2")
    found = run_script("predict", path, path, "--out", tmp_path / "masks")
    assert found.returncode == 4
    assert found.stderr.startswith(f"error: {path}: a .pt2 file may hold code that runs when it is read – use the checkpoint")
    assert len(found.stderr.splitlines()) == 1


def test_the_name_of_the_runtime_is_known_for_every_suffix_that_runs():
    assert set(exported_files.PACKAGES) == set(exported_files._SEALS) == {*exported_files.SUFFIXES} - {".pt2"}
