"""What stands in a run folder beside the networks: the newest intact checkpoint, the log, what it ran on."""

import csv
import errno
import fcntl
import json

import pytest
import torch
from helpers import folder_bytes, refused

from segnet import run_folder
from segnet.checkpoint import Checkpoint, save_checkpoint
from segnet.errors import ExitCode
from segnet.models import build_model
from segnet.run_folder import RunLog, hold_run_folder, newest_checkpoint, read_log, record_environment

CPU = torch.device("cpu")
PRECISION = {"train": "float32", "inference": "bfloat16"}


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


def rows(run) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_rows_beyond_the_checkpoint_are_cut_on_resume(tmp_path):
    log = RunLog(tmp_path, step=0, rows=0)
    for step in (1, 2, 3):
        log.write(step, {"loss": 0.5})
    assert log.rows == 3
    log.close()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("3,1.0,0.")  # cut off by a kill
    again = RunLog(tmp_path, step=2, rows=2)
    again.write(3, {"epoch": 1.0, "val_miou": 0.25}, on_board_only=1.0)
    again.close()
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2", "3"]
    assert (rows(tmp_path)[2]["loss"], rows(tmp_path)[2]["val_miou"]) == ("", "0.25")


@pytest.mark.parametrize(("last", "minutes"), [("2,1.0,,,0.5,0.5,0.5,7.25", 7.25), ("2,1.0,,,0.5", 0), ("2,,,,,,,long", 0)])
def test_minutes_go_on_where_they_stood(tmp_path, last, minutes):
    (tmp_path / "metrics.csv").write_text(f"{','.join(RunLog.COLUMNS)}\n{last}\n3,1.0,,,0.5,0.5,0.5,99.0\n")
    log = RunLog(tmp_path, step=2, rows=1)
    log.write(3, {"loss": 0.5})
    log.close()
    assert minutes <= float(rows(tmp_path)[1]["minutes"]) < minutes + 5


def test_a_full_disk_costs_rows_and_one_warning(tmp_path, monkeypatch, capsys):
    log = RunLog(tmp_path, step=0, rows=0)
    log.write(1, {"loss": 0.5})
    real = run_folder.sync_to_disk

    def full(file) -> None:
        file.flush()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_folder, "sync_to_disk", full)
    log.write(2, {"loss": 0.5})
    log.write(3, {"loss": 0.5})
    monkeypatch.setattr(run_folder, "sync_to_disk", real)
    log.write(4, {"loss": 0.5})
    log.close()
    assert [row["step"] for row in rows(tmp_path)] == ["1", "4"]
    assert log.rows == 2
    assert capsys.readouterr().err.count("warning") == 1


def test_tensorboard_that_cannot_write_is_one_warning(tmp_path, capsys):
    log = RunLog(tmp_path, step=0, rows=0)

    class Full:
        def add_scalar(self, *_) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    log.board = Full()
    for step in (1, 2):
        log.write(step, {"loss": 0.5})
    log.close()
    assert len(rows(tmp_path)) == 2
    assert capsys.readouterr().err.count("No space left on device; training goes on") == 1


def test_the_environment_keeps_its_beginning_and_each_resumption(tmp_path, monkeypatch, capsys):
    path = tmp_path / "environment.json"
    record_environment(path, CPU, precision=PRECISION, resumed_at=None)
    begun = json.loads(path.read_text())
    assert {"command", "commit", "device", "ranks", "python", "torch"} <= begun.keys()
    assert begun["precision"] == PRECISION
    path.write_text("\ufeff" + path.read_text())  # as some editors save it
    monkeypatch.setattr(torch, "__version__", "9.9")
    record_environment(path, CPU, precision=PRECISION, resumed_at=7)
    record = json.loads(path.read_text())
    assert {**record, "resumed": []} == begun
    assert [(entry["step"], entry["torch"]) for entry in record["resumed"]] == [(7, "9.9")]
    assert f"the run began with torch {begun['torch']}" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "{", ""])
def test_a_lost_environment_begins_again(tmp_path, content):
    path = tmp_path / "environment.json"
    if content is not None:
        path.write_text(content)
    record_environment(path, CPU, precision=PRECISION, resumed_at=3)
    assert json.loads(path.read_text())["resumed"] == []


EDITS = {
    "blank lines": lambda text: text + b"\n\n",
    "blank lines between": lambda text: text.replace(b"\n", b"\n\n"),
    "CRLF": lambda text: text.replace(b"\n", b"\r\n"),
    "BOM": lambda text: b"\xef\xbb\xbf" + text,
    "Latin-1": lambda text: text + "später".encode("latin-1"),
    "NUL": lambda text: text + b"\0\0\n",
    "half a line": lambda text: text[:-5],
    "a short row": lambda text: text.replace(b"4,0.4", b"4"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_log_that_people_edited_goes_on(tmp_path, edit):
    log = RunLog(tmp_path, step=0, rows=0)
    for step in (2, 4, 6):
        log.write(step, {"epoch": step / 10, "loss": 1 / step})
    log.close()
    path = tmp_path / "metrics.csv"
    rows = path.read_bytes().splitlines()[1:]
    path.write_bytes(EDITS[edit](path.read_bytes()))
    log = RunLog(tmp_path, step=6, rows=3)
    log.write(8, {"epoch": 0.8, "loss": 0.125})
    log.close()
    assert [row.get("step") for row in read_log(path)] == [2, 4, 6, 8]
    if edit not in ("half a line", "a short row"):
        assert path.read_bytes().splitlines()[1:4] == rows


@pytest.mark.parametrize("heading", [b"step;epoch;loss", b"loss,step,epoch", b"", "Schritt,größe".encode("latin-1")])
def test_a_log_with_other_columns_is_moved_aside_with_a_warning(tmp_path, capsys, heading):
    path = tmp_path / "metrics.csv"
    content = heading + b"\n2;0,5;0,1\n"
    path.write_bytes(content)
    log = RunLog(tmp_path, step=2, rows=1)
    log.write(4, {"epoch": 0.4, "loss": 0.25})
    log.close()
    assert (tmp_path / "metrics.csv.edited").read_bytes() == content
    assert [row["step"] for row in read_log(path)] == [4]
    assert capsys.readouterr().err.count("not the columns of a log") == 1


@pytest.mark.parametrize("content", ["[]", "7", '{"device": "x"}', '{"resumed": 3}', "\x00"])
def test_an_environment_that_people_edited_begins_again(tmp_path, content):
    path = tmp_path / "environment.json"
    path.write_text(content)
    record_environment(path, CPU, precision=PRECISION, resumed_at=3)
    assert json.loads(path.read_text())["resumed"] == []


@pytest.mark.parametrize(
    "git",
    [
        None,
        "",  # no program
        "#!/bin/sh\necho fatal: detected dubious ownership >&2\nexit 128\n",
        "#!/bin/sh\nprintf half\nexit 1\n",
        "#!/bin/sh\nexec /bin/sleep 60\n",
        "#!/bin/sh\nprintf '\\377'\n",
    ],
    ids=["missing", "not a program", "refusing", "failing", "hanging", "not UTF-8"],
)
def test_no_commit_stops_no_run(git, tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    if git is not None:
        (programs / "git").write_text(git)
        (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(run_folder, "_SECONDS_FOR_GIT", 0.5 if git and "sleep" in git else 60, raising=False)
    record_environment(tmp_path / "environment.json", torch.device("cpu"), precision={}, resumed_at=None)
    commit = json.loads((tmp_path / "environment.json").read_text())["commit"]
    assert commit == ("\ufffd" if git and "377" in git else "unknown")
