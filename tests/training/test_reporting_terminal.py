"""What a training draws on a terminal: lines above the bar, whole ones, and a bar that fits."""

import io
import re

from segnet.training.loop import train


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(text: str) -> list[str]:
    """The lines that stay on a screen: what follows the last carriage return in each, without styles and moves of the cursor."""
    return [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line.rpartition("\r")[2]) for line in text.split("\n")]


def test_each_line_is_whole_and_the_bar_fits_into_80_columns(tiny_config, tmp_path, monkeypatch):
    screen = Terminal()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", screen)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    train(tiny_config, tmp_path / "run")
    lines = lines_of(screen.getvalue())
    assert "999 parameters, 6 train and 3 val pictures, 6 steps" in lines
    assert len([line for line in lines if re.match(r"step \d  epoch \d\.00  val mIoU \d", line)]) == 2
    assert "\x1b[1mmIoU" in screen.getvalue()  # the best so far
    bars = [part for part in re.split(r"[\r\n]", screen.getvalue()) if "%|" in part]
    assert any("pictures/s, data" in bar for bar in bars)  # not cut off
    assert max(map(len, bars)) <= 80
    left = [re.search(r"<(\?|\d\d:\d\d)[],]", bar) for bar in bars]
    assert all(left)
    assert {"?"} < {found[1] for found in left if found}


def test_a_simple_terminal_gets_lines(tiny_config, tmp_path, monkeypatch):
    screen = Terminal()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", screen)
    monkeypatch.setenv("TERM", "dumb")
    train(tiny_config, tmp_path / "run")
    assert "\r" not in screen.getvalue()
    assert "\x1b" not in screen.getvalue()
    assert sum(line.startswith("step 1/6 ") for line in screen.getvalue().split("\n")) == 1
