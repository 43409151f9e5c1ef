"""A user's mistake is one line and an exit code; a bug keeps its traceback."""

from __future__ import annotations

import errno
import os
import pickle
import sys
from collections.abc import Callable

import pytest

from segnet.errors import ExitCode, UserError, run_command

MISTAKE = UserError(ExitCode.DATA, "a.png", "not a picture", "name a picture")


def test_an_empty_name_is_seen() -> None:
    assert str(UserError(ExitCode.CONFIG, "", "not KEY=VALUE", "write it")) == "'': not KEY=VALUE – write it"


def test_exit_codes_are_the_published_ones() -> None:
    assert [code.value for code in ExitCode] == [0, 2, 3, 4, 5, 6, 7, 8]


def test_the_text_is_where_what_and_how_to_mend_it() -> None:
    assert str(MISTAKE) == "a.png: not a picture – name a picture"
    assert str(UserError(ExitCode.DATA, "a.png", "not a picture")) == "a.png: not a picture"


def test_further_mistakes_have_lines_of_their_own() -> None:
    error = UserError(ExitCode.DATA, "b.png", "missing", also=(MISTAKE, MISTAKE))
    assert str(error).splitlines() == ["b.png: missing", str(MISTAKE), str(MISTAKE)]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("two\nlines", "two\\nlines"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("nul\0", "nul\\x00"),
        ("line\u2028separator", "line\\u2028separator"),
        ("right\u202eleft", "right\\u202eleft"),
        ("not utf-8 \udcff", "not utf-8 \\udcff"),
        ("größe 😀", "größe 😀"),
    ],
)
def test_a_name_cannot_steer_the_terminal_or_forge_a_line(name: str, shown: str) -> None:
    assert str(UserError(ExitCode.DATA, name, name, name)) == f"{shown}: {shown} – {shown}"


def test_it_crosses_processes_whole() -> None:
    error = pickle.loads(pickle.dumps(UserError(ExitCode.DATA, "b.png", "missing", "restore it", also=(MISTAKE,))))
    assert (error.code, str(error)) == (ExitCode.DATA, f"b.png: missing – restore it\n{MISTAKE}")


def end_of(command: Callable[[], ExitCode | None]) -> int:
    """The exit code that the process would have."""
    with pytest.raises(SystemExit) as caught:
        run_command(command)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def failing(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def test_a_command_that_works_ends_with_its_code() -> None:
    assert end_of(lambda: None) == 0
    assert end_of(lambda: ExitCode.DONE) == 0
    assert end_of(lambda: ExitCode.SOME_FAILED) == 7


def test_ctrl_c_ends_at_once_with_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "_exit", sys.exit)
    assert end_of(failing(KeyboardInterrupt())) == 130


@pytest.mark.parametrize("code", [code for code in ExitCode if code])
def test_a_mistake_is_one_line_on_stderr_and_its_code(code: ExitCode, capsys: pytest.CaptureFixture[str]) -> None:
    assert end_of(failing(UserError(code, "a.png", "bad\nname", also=(MISTAKE,)))) == code
    assert capsys.readouterr() == ("", f"error: a.png: bad\\nname\nerror: {MISTAKE}\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_what_the_system_refuses_is_said_without_a_traceback(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert end_of(failing(OSError(number, os.strerror(number), "/full/disk"))) == ExitCode.ENVIRONMENT
    assert capsys.readouterr().err == f"error: /full/disk: {os.strerror(number)}\n"


@pytest.mark.parametrize("bug", [ZeroDivisionError(), OSError(errno.EBADF, "bad descriptor"), RuntimeError(), AssertionError()])
def test_a_bug_keeps_its_traceback(bug: Exception) -> None:
    with pytest.raises(type(bug)):
        run_command(failing(bug))
