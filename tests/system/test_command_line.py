"""A user's mistake is one line and an exit code; a bug keeps its traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

import pytest

from segnet.system.command_line import run_command
from segnet.system.errors import ExitCode, UserError

MISTAKE = UserError(ExitCode.DATA, "a.png", "not a picture", "name a picture")


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
    remedy = " – free some space, then give the command again" if number in (errno.ENOSPC, errno.EDQUOT) else ""
    assert capsys.readouterr().err == f"error: /full/disk: {os.strerror(number)}{remedy}\n"


@pytest.mark.parametrize("bug", [ZeroDivisionError(), OSError(errno.EBADF, "bad descriptor"), RuntimeError(), AssertionError()])
def test_a_bug_keeps_its_traceback(bug: Exception) -> None:
    with pytest.raises(type(bug)):
        run_command(failing(bug))
