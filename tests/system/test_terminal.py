"""Colours and bars are for terminals alone; everything else gets plain lines."""

import io

import pytest
from tqdm import tqdm

from segnet.system.command_line import run_command
from segnet.system.errors import config_error
from segnet.system.terminal import print_above_bars, redraws, styled


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_a_terminal_gets_colours_and_a_file_none():
    assert styled("error:", "red", Terminal()) == "\x1b[1;31merror:\x1b[0m"
    assert styled("error:", "red", io.StringIO()) == "error:"
    assert redraws(Terminal())
    assert not redraws(io.StringIO())


@pytest.mark.parametrize(("name", "value", "bars"), [("NO_COLOR", "1", True), ("TERM", "dumb", False), ("TERM", None, False)])
def test_no_color_and_simple_terminals_are_obeyed(monkeypatch, name, value, bars):
    monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    assert styled("best", "bold", Terminal()) == "best"
    assert redraws(Terminal()) == bars


def test_an_empty_no_color_does_not_count(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "")
    assert styled("best", "bold", Terminal()) != "best"


@pytest.mark.parametrize(
    ("stream", "line"), [(Terminal, "\x1b[1;31merror:\x1b[0m a: b – c\n"), (io.StringIO, "error: a: b – c\n")]
)
def test_the_word_error_is_red_on_a_terminal(monkeypatch, stream, line):
    shown = stream()
    monkeypatch.setattr("sys.stderr", shown)

    def fail() -> None:
        raise config_error("a", "b", "c")

    with pytest.raises(SystemExit):
        run_command(fail)
    assert shown.getvalue() == line


def test_a_warning_does_not_stand_behind_a_bar():
    shown = Terminal()
    with tqdm(total=4, file=shown, ncols=40, mininterval=0) as bar:
        bar.update()
        print_above_bars("warning: something", shown)
        bar.update()
    before, _, after = shown.getvalue().partition("warning: something\n")
    assert before.endswith("\r")  # the bar was wiped away
    assert after.startswith("\r")
