"""A run folder has one run, and its newest intact checkpoint is found."""

import errno
import fcntl

import pytest
from helpers import folder_bytes, refused

from segnet.models.initialization import build_model
from segnet.runs.checkpoint import Checkpoint, save_checkpoint
from segnet.runs.folder import hold_run_folder, newest_checkpoint
from segnet.system.errors import ExitCode


@pytest.fixture
def two_checkpoints(tiny_config, tmp_path):
    """A folder with last.pt at step 6 and previous.pt at step 3."""
    weights = build_model(tiny_config.model, 3).state_dict()
    for name, step in (("last.pt", 6), ("previous.pt", 3)):
        save_checkpoint(tmp_path / name, Checkpoint(tiny_config, step, None, weights))
    return tmp_path


def damage(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_newest_is_found_by_content(two_checkpoints):
    path, checkpoint = newest_checkpoint(two_checkpoints)
    assert (path.name, checkpoint.step) == ("last.pt", 6)
    last, previous = two_checkpoints / "last.pt", two_checkpoints / "previous.pt"
    exchanged = last.read_bytes(), previous.read_bytes()  # names and times say nothing
    previous.write_bytes(exchanged[0])
    last.write_bytes(exchanged[1])
    path, checkpoint = newest_checkpoint(two_checkpoints)
    assert (path.name, checkpoint.step) == ("previous.pt", 6)


def test_a_damaged_one_is_said_and_passed_over(two_checkpoints, capsys):
    damage(two_checkpoints / "last.pt")
    path, checkpoint = newest_checkpoint(two_checkpoints)
    assert (path.name, checkpoint.step) == ("previous.pt", 3)
    assert "last.pt: damaged: its content does not match its digest; going on from previous.pt" in capsys.readouterr().err


def test_all_damaged_is_an_error_and_never_a_new_start(two_checkpoints):
    for name in ("last.pt", "previous.pt"):
        damage(two_checkpoints / name)
    with refused(ExitCode.CHECKPOINT, "last.pt: damaged", "previous.pt: damaged", "--run"):
        newest_checkpoint(two_checkpoints)


def test_between_the_two_renames_of_a_save_the_previous_one_counts(two_checkpoints):
    (two_checkpoints / "last.pt").unlink()
    assert newest_checkpoint(two_checkpoints)[1].step == 3
    (two_checkpoints / "previous.pt").unlink()
    assert newest_checkpoint(two_checkpoints) is None


@pytest.mark.parametrize("name", ["last.pt", "previous.pt", "metrics.csv"])
def test_a_folder_with_a_run_is_refused_and_untouched(tmp_path, name):
    (tmp_path / name).touch()
    before = folder_bytes(tmp_path)
    with refused(ExitCode.CONFIG, "holds a run already"), hold_run_folder(tmp_path, resume=False):
        pass
    assert folder_bytes(tmp_path) == before


def test_what_a_killed_save_left_goes_and_foreign_files_stay(tmp_path):
    for name in (".last.pt.123.tmp", "notes.txt"):
        (tmp_path / name).touch()
    with hold_run_folder(tmp_path, resume=True):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", ".lock"}


def test_without_locks_what_another_may_be_writing_stays(tmp_path, monkeypatch, capsys):
    def no_locks(*_) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    (tmp_path / ".last.pt.123.tmp").write_bytes(b"half")
    with hold_run_folder(tmp_path, resume=False):
        assert (tmp_path / ".last.pt.123.tmp").exists()
    assert capsys.readouterr().err.count("has no locks") == 1
