"""What a command says at its end, and its exit code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import write_picture
from predictions import RunInFork, output_bytes

from segnet.system.errors import ExitCode


def test_the_command_writes_the_good_ones_and_ends_with_seven(run_in_fork: RunInFork, tiny_run: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad\n.png").write_text("no picture")
    fork = run_in_fork(tiny_run, tmp_path / "in", "--out", tmp_path / "out")
    assert fork.wait() == ExitCode.SOME_FAILED
    _, heading, columns, row, summary = fork.text().splitlines()
    assert (heading, columns.split()) == ("1 failed:", ["picture", "what", "cure"])
    assert row.split("  ") == [
        f"{tmp_path}/in/bad\\n.png",
        "not a readable picture (unknown format)",
        "expected JPEG, PNG, BMP, TIFF, WEBP, PPM, GIF",
    ]
    assert summary.startswith("1 of 2 pictures written")
    assert set(output_bytes(tmp_path / "out")) == {"good.png"}


@pytest.mark.parametrize("inputs", [["none.png"], ["empty.png"], ["none.png", "none.png"]])
def test_a_picture_named_alone_that_fails_is_the_mistake_of_the_command(
    inputs: list[str], run_in_fork: RunInFork, tiny_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.png").touch()
    fork = run_in_fork(tiny_run, *(tmp_path / name for name in inputs), "--out", tmp_path / "out")
    assert fork.wait() == ExitCode.DATA
    assert fork.text().splitlines()[-1].startswith(f"error: {tmp_path}/{inputs[0]}: no")


def test_the_summary_is_a_line_with_the_speed(run_in_fork: RunInFork, tiny_run: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.png")
    write_picture(tmp_path / "in" / "b.png")
    assert run_in_fork(tiny_run, tmp_path / "in" / "a.png", "--out", tmp_path / "out").wait() == 0
    fork = run_in_fork(tiny_run, tmp_path / "in", "--out", tmp_path / "out")
    assert fork.wait() == 0
    first, last = fork.text().splitlines()
    assert first.startswith("predict 2 pictures on CPU")
    assert re.fullmatch(rf"1 of 2 pictures written to {tmp_path}/out, [\d.]+ pictures/s; 1 were there already", last)
