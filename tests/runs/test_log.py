"""metrics.csv goes on where the checkpoint stood, whatever people or a full disk did to it."""

import errno

import pytest
from helpers import read_metrics

from segnet.runs import log as run_log
from segnet.runs.log import RunLog, read_log

MEASURES = ("miou", "global_accuracy", "mean_accuracy")


def test_rows_beyond_the_checkpoint_are_cut_on_resume(tmp_path):
    log = RunLog(tmp_path, MEASURES, step=0, rows=0)
    for step in (1, 2, 3):
        log.write(step, {"loss": 0.5})
    assert log.rows == 3
    log.close()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("3,1.0,0.")  # cut off by a kill
    again = RunLog(tmp_path, MEASURES, step=2, rows=2)
    again.write(3, {"epoch": 1.0, "val_miou": 0.25}, on_board_only=1.0)
    again.close()
    assert [row["step"] for row in read_metrics(tmp_path)] == ["1", "2", "3"]
    assert (read_metrics(tmp_path)[2]["loss"], read_metrics(tmp_path)[2]["val_miou"]) == ("", "0.25")


@pytest.mark.parametrize(("last", "minutes"), [("2,1.0,,,0.5,0.5,0.5,7.25", 7.25), ("2,1.0,,,0.5", 0), ("2,,,,,,,long", 0)])
def test_minutes_go_on_where_they_stood(tmp_path, last, minutes):
    (tmp_path / "metrics.csv").write_text(
        f"step,epoch,learning_rate,loss,val_miou,val_global_accuracy,val_mean_accuracy,minutes\n{last}\n3,1.0,,,0.5,0.5,0.5,99.0\n"
    )
    log = RunLog(tmp_path, MEASURES, step=2, rows=1)
    log.write(3, {"loss": 0.5})
    log.close()
    assert minutes <= float(read_metrics(tmp_path)[1]["minutes"]) < minutes + 5


def test_a_full_disk_costs_rows_and_one_warning(tmp_path, monkeypatch, capsys):
    log = RunLog(tmp_path, MEASURES, step=0, rows=0)
    log.write(1, {"loss": 0.5})
    real = run_log.sync_to_disk

    def full(file) -> None:
        file.flush()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_log, "sync_to_disk", full)
    log.write(2, {"loss": 0.5})
    log.write(3, {"loss": 0.5})
    monkeypatch.setattr(run_log, "sync_to_disk", real)
    log.write(4, {"loss": 0.5})
    log.close()
    assert [row["step"] for row in read_metrics(tmp_path)] == ["1", "4"]
    assert log.rows == 2
    assert capsys.readouterr().err.count("warning") == 1


def test_tensorboard_that_cannot_write_is_one_warning(tmp_path, capsys):
    log = RunLog(tmp_path, MEASURES, step=0, rows=0)

    class Full:
        def scalars(self, *_) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    log.observers.active["tensorboard"] = Full()
    for step in (1, 2):
        log.write(step, {"loss": 0.5})
    log.close()
    assert len(read_metrics(tmp_path)) == 2
    assert capsys.readouterr().err.count("No space left on device; training goes on") == 1


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
    log = RunLog(tmp_path, MEASURES, step=0, rows=0)
    for step in (2, 4, 6):
        log.write(step, {"epoch": step / 10, "loss": 1 / step})
    log.close()
    path = tmp_path / "metrics.csv"
    rows = path.read_bytes().splitlines()[1:]
    path.write_bytes(EDITS[edit](path.read_bytes()))
    log = RunLog(tmp_path, MEASURES, step=6, rows=3)
    log.write(8, {"epoch": 0.8, "loss": 0.125})
    log.close()
    assert [row.get("step") for row in read_log(path)] == [2, 4, 6, 8]
    if edit not in ("half a line", "a short row"):
        assert path.read_bytes().splitlines()[1:4] == rows


def test_the_rows_of_a_version_that_measured_less_are_kept(tmp_path, capsys):
    log = RunLog(tmp_path, ("miou",), step=0, rows=0)
    log.write(2, {"epoch": 0.5, "loss": 0.25})
    log.write(4, {"epoch": 1.0, "val_miou": 0.75})
    log.close()
    minutes = [row["minutes"] for row in read_log(tmp_path / "metrics.csv")]
    log = RunLog(tmp_path, ("dice", "miou"), step=4, rows=2)
    log.write(6, {"epoch": 1.5, "val_dice": 0.5})
    log.close()
    first, second, third = read_log(tmp_path / "metrics.csv")
    assert first == {"step": 2, "epoch": 0.5, "loss": 0.25, "minutes": minutes[0]}
    assert second == {"step": 4, "epoch": 1.0, "val_miou": 0.75, "minutes": minutes[1]}
    assert (third["step"], third["val_dice"]) == (6, 0.5)
    assert not capsys.readouterr().err


def test_names_of_classes_may_hold_commas_and_join_the_log_of_an_older_version(tmp_path, capsys):
    RunLog(tmp_path, ("miou",), step=0, rows=0).write(2, {"epoch": 0.5, "val_miou": 0.25})
    measures = ("loss", "miou", "iou_box, red", 'iou_5" disc')
    for step, rows in ((2, 1), (4, 2)):
        log = RunLog(tmp_path, measures, step=step, rows=rows)
        assert log.rows == rows
        log.write(step + 2, {"val_miou": 0.5, "val_iou_box, red": 0.75, 'val_iou_5" disc': 0.125})
        log.close()
    first, *others = read_log(tmp_path / "metrics.csv")
    assert (first["step"], first["val_miou"], "val_iou_box, red" in first) == (2, 0.25, False)
    assert [(row["step"], row["val_iou_box, red"], row['val_iou_5" disc']) for row in others] == [
        (4, 0.75, 0.125),
        (6, 0.75, 0.125),
    ]
    assert not capsys.readouterr().err


@pytest.mark.parametrize("heading", [b"step;epoch;loss", b"loss,step,epoch", b"", "Schritt,größe".encode("latin-1")])
def test_a_log_with_other_columns_is_moved_aside_with_a_warning(tmp_path, capsys, heading):
    path = tmp_path / "metrics.csv"
    content = heading + b"\n2;0,5;0,1\n"
    path.write_bytes(content)
    log = RunLog(tmp_path, MEASURES, step=2, rows=1)
    log.write(4, {"epoch": 0.4, "loss": 0.25})
    log.close()
    assert (tmp_path / "metrics.csv.edited").read_bytes() == content
    assert [row["step"] for row in read_log(path)] == [4]
    assert capsys.readouterr().err.count("not the columns of a log") == 1
