"""Checkpoints come back as they were, or not at all."""

import errno
import hashlib
import os
import pickle
import random
import re
import zipfile

import pytest
import torch
from helpers import folder_bytes, refused

from segnet.models.initialization import build_model
from segnet.runs.checkpoint import FORMAT, Checkpoint, find_checkpoint, load_checkpoint, load_weights, save_checkpoint
from segnet.system import files
from segnet.system.errors import ExitCode, UserError


def test_an_optimizer_state_that_is_not_finite_is_not_saved(tiny_config, tmp_path):
    weights = build_model(tiny_config.model, 3).state_dict()
    training = {"optimizer": {"state": {0: {"momentum_buffer": torch.tensor([float("inf")])}}}}
    with refused(ExitCode.NUMERIC, "training.optimizer.state.0.momentum_buffer"):
        save_checkpoint(tmp_path / "last.pt", Checkpoint(tiny_config, 1, None, weights, training))
    assert not (tmp_path / "last.pt").exists()


def refusal(function, *arguments) -> UserError:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    return caught.value


def test_round_trip_is_exact(tiny_config, tmp_path):
    model = build_model(tiny_config.model, 3)
    training = {"optimizer": {"state": {0: {"momentum": torch.randn(3)}}}, "best_score": 0.1, "list": [1, None, "ä"]}
    save_checkpoint(tmp_path / "a.pt", Checkpoint(tiny_config, 7, 0.25, model.state_dict(), training))
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert (loaded.config, loaded.step, loaded.score) == (tiny_config, 7, 0.25)
    assert all(torch.equal(loaded.weights[name], value) for name, value in model.state_dict().items())
    assert loaded.training is not None
    assert torch.equal(loaded.training["optimizer"]["state"][0]["momentum"], training["optimizer"]["state"][0]["momentum"])
    assert loaded.training["list"] == training["list"]


def test_flipped_bits_are_never_loaded(tiny_run):
    """Not one: the digest is over every byte of the file."""
    path = tiny_run / "best.pt"
    load_checkpoint(path)
    original, dice = path.read_bytes(), random.Random(0)
    for _ in range(150):
        place, bit = dice.randrange(len(original)), 1 << dice.randrange(8)
        path.write_bytes(original[:place] + bytes([original[place] ^ bit]) + original[place + 1 :])
        assert refusal(load_checkpoint, path).code == ExitCode.CHECKPOINT, f"bit {bit} of byte {place}"


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(tiny_run, share):
    path = tiny_run / "best.pt"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "no digest at its end" in str(refusal(load_checkpoint, path))


def test_a_changed_weight_is_noticed_by_the_digest(tiny_run):
    path = tiny_run / "best.pt"
    intact = path.read_bytes()
    payload = torch.load(path, weights_only=True)
    payload["weights"]["head.bias"][0] += 1e-6
    torch.save(payload, path)
    path.write_bytes(path.read_bytes() + intact[-72:])
    assert "does not match its digest" in str(refusal(load_checkpoint, path))


def write_payload(path, payload, dump=torch.save) -> None:
    """What is no checkpoint, with the digest that it would have: as a hostile hand would write it."""
    dump(payload, path)
    content = path.read_bytes()
    path.write_bytes(content + b"\nsha256 " + hashlib.sha256(content).hexdigest().encode())


def test_what_was_there_before_is_kept(tiny_config, tmp_path):
    weights = build_model(tiny_config.model, 3).state_dict()
    for step in (1, 2, 3):
        save_checkpoint(tmp_path / "a.pt", Checkpoint(tiny_config, step, None, weights), keep=tmp_path / "b.pt")
    assert [load_checkpoint(tmp_path / name).step for name in ("a.pt", "b.pt")] == [3, 2]


def test_a_full_disk_says_what_it_takes_and_spares_the_old_file(tiny_config, tiny_run, monkeypatch):
    before = folder_bytes(tiny_run)

    def full(file) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync_to_disk", full)
    weights = build_model(tiny_config.model, 3).state_dict()
    error = refusal(save_checkpoint, tiny_run / "best.pt", Checkpoint(tiny_config, 1, None, weights))
    assert error.code == ExitCode.ENVIRONMENT
    assert re.search(r"best\.pt: the disk is full: a checkpoint needs 0\.0 MB, [\d.]+ MB are free – free some space", str(error))
    assert folder_bytes(tiny_run) == before


def test_compressed_entries_are_refused_before_they_are_expanded(tiny_run, monkeypatch):
    """Torch would expand them: a few kilobytes become as many gigabytes as they like."""
    path = tiny_run / "best.pt"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tiny_run / "small.pt", "w", zipfile.ZIP_DEFLATED) as small:
        for entry in archive.infolist():
            small.writestr(entry.filename, archive.read(entry))
    content = (tiny_run / "small.pt").read_bytes()
    path.write_bytes(content + b"\nsha256 " + hashlib.sha256(content).hexdigest().encode())
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was expanded"))
    assert "compressed" in str(refusal(load_checkpoint, path))


class Bomb:
    """Unpickled freely, it makes a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("dump", [torch.save, pickle.dump], ids=["torch", "pickle"])
def test_a_hostile_pickle_runs_nothing(tmp_path, dump):
    proof = tmp_path / "proof"

    def write(payload, path) -> None:
        with path.open("wb") as file:
            dump(payload, file)

    write_payload(tmp_path / "bomb.pt", Bomb(str(proof)), write)
    assert refusal(load_checkpoint, tmp_path / "bomb.pt").code == ExitCode.CHECKPOINT
    assert not proof.exists()
    load_freely = torch.load if dump is torch.save else pickle.load
    with (tmp_path / "bomb.pt").open("rb") as file:
        load_freely(file, **({"weights_only": False} if dump is torch.save else {}))
    assert proof.exists(), "the bomb is a dud, and this test proves nothing"


def test_foreign_files_are_named(tmp_path, tiny_run):
    write_payload(tmp_path / "foreign.pt", {"state_dict": {}})
    assert "not a checkpoint of this program" in str(refusal(load_checkpoint, tmp_path / "foreign.pt"))
    (tmp_path / "page.pt").write_text("<html>")
    assert "no digest at its end" in str(refusal(load_checkpoint, tmp_path / "page.pt"))
    assert "no such file" in str(refusal(load_checkpoint, tmp_path / "none.pt"))
    payload = torch.load(tiny_run / "best.pt", weights_only=True)
    write_payload(tmp_path / "newer.pt", {**payload, "format": 99})
    assert "format 99" in str(refusal(load_checkpoint, tmp_path / "newer.pt"))


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tiny_config, tmp_path):
    weights = build_model(tiny_config.model, 3).state_dict()
    weights["head.bias"] = torch.tensor([0.0, float("nan"), 0.0])
    error = refusal(save_checkpoint, tmp_path / "a.pt", Checkpoint(tiny_config, 1, None, weights))
    assert error.code == ExitCode.NUMERIC
    assert list(tmp_path.glob("*.pt")) == []


def test_run_folder_without_a_best_checkpoint_says_what_to_do(tmp_path):
    assert "name a run folder" in str(refusal(find_checkpoint, tmp_path))
    (tmp_path / "last.pt").touch()
    assert "name last.pt" in str(refusal(find_checkpoint, tmp_path))


def test_weights_of_another_network_are_named(tiny_config, tmp_path):
    model = build_model(tiny_config.model, 3)
    other = build_model(tiny_config.model, 5).state_dict()
    message = str(refusal(load_weights, model, other, tmp_path))
    assert "'head.weight': found (5, 4, 3, 3) float32, expected (3, 4, 3, 3) float32" in message
    missing = {k: v for k, v in model.state_dict().items() if k != "head.bias"}
    assert "'head.bias': found nothing" in str(refusal(load_weights, model, missing, tmp_path))


@pytest.mark.parametrize(
    "content",
    [{}, [], {"config": 1}, {"config": torch.float32}, {"weights": [1]}, {"weights": {"a": torch.zeros(1).to_sparse()}}],
)
def test_a_malformed_content_is_refused(tmp_path, content):
    write_payload(tmp_path / "a.pt", {"format": FORMAT, **content} if isinstance(content, dict) else content)
    assert refusal(load_checkpoint, tmp_path / "a.pt").code == ExitCode.CHECKPOINT


def test_a_weight_that_is_no_tensor_is_refused(tmp_path, tiny_run):
    payload = torch.load(tiny_run / "best.pt", weights_only=True)
    write_payload(tmp_path / "a.pt", {**payload, "weights": {**payload["weights"], "head.bias": [1, 2, 3]}})
    assert "a weight is not a tensor" in str(refusal(load_checkpoint, tmp_path / "a.pt"))


def test_another_type_of_number_is_named(tiny_config, tmp_path):
    model = build_model(tiny_config.model, 3)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    assert "found (1, 3, 1, 1) float16" in str(refusal(load_weights, model, halves, tmp_path))
