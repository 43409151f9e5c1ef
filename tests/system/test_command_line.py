"""A user's mistake is one line and an exit code; a bug keeps its traceback; a lost output does not stop a command."""

from __future__ import annotations

import errno
import os
import pickle
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT

from segnet.system.command_line import run_command
from segnet.system.errors import ExitCode, UserError

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


PRELUDE = """
import importlib.util, sys, types
spec = importlib.util.find_spec("segnet")
sys.modules["segnet"] = importlib.util.module_from_spec(spec)  # without torch, which takes seconds to import
sys.modules["segnet.system.distributed"] = types.SimpleNamespace(is_main=lambda: True)
from segnet.system.command_line import run_command
from segnet.system.streams import printing_is_the_result
"""
WORK = f"""{PRELUDE}
import contextlib, os

def main():
    for number in range(2000):
        print("line", number)
    sys.stdout.flush()
    print("message", file=sys.stderr)
    with open(sys.argv[1], "w") as file:
        with contextlib.suppress(OSError):
            os.write(1, b"stray")
        file.write("whole")

run_command(main)
"""
SHOW = WORK.replace("def main():", "def main():\n    printing_is_the_result()")


def shell(script: str, redirections: str, path: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """`script` in a process of its own, with the shell's redirections.

    Its file 9 is a pipe that nobody reads.
    """
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    command = ["bash", "-c", f'exec "$0" -c "$1" "$2" 9>&{writing} {redirections}', sys.executable, script, str(path)]
    try:
        return subprocess.run(
            command, env=environment, pass_fds=[writing], capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        os.close(writing)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("redirections", "messages"),
    [
        (">/dev/full", ["warning: standard output: No space left on device; the work goes on without it", "message"]),
        (">&9", ["warning: standard output: Broken pipe; the work goes on without it", "message"]),
        (">/dev/full 2>&1", []),
        (">&-", ["message"]),
        ("<&- >&- 2>&-", []),
    ],
)
def test_work_goes_on_without_its_output(tmp_path: Path, redirections: str, messages: list[str], unbuffered: str) -> None:
    found = shell(WORK, redirections, tmp_path / "result", PYTHONUNBUFFERED=unbuffered)
    assert (found.returncode, found.stderr.splitlines()) == (0, messages)
    assert (tmp_path / "result").read_text() == "whole"  # and nothing that was meant for a closed stream


def test_work_goes_on_without_its_messages(tmp_path: Path) -> None:
    found = shell(WORK, "2>/dev/full", tmp_path / "result")
    assert found.returncode == 0
    assert "warning: standard error: No space left on device; the work goes on without it" in found.stdout
    assert (tmp_path / "result").read_text() == "whole"


def test_work_goes_on_when_its_terminal_is_gone(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"import sys\nsys.stdin.readline()\n{WORK}", str(tmp_path / "result")]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.close(ours)
    process.communicate(b"\n", timeout=60)
    assert process.returncode == 0
    assert (tmp_path / "result").read_text() == "whole"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("redirections", "code", "message"),
    [
        (">&9", 141, ""),
        (">/dev/full", 5, "error: standard output: No space left on device\n"),
        (">&-", 5, "error: standard output: Bad file descriptor\n"),
    ],
)
def test_a_command_that_only_prints_fails_with_its_output(
    tmp_path: Path, redirections: str, code: int, message: str, unbuffered: str
) -> None:
    found = shell(SHOW, redirections, tmp_path / "result", PYTHONUNBUFFERED=unbuffered)
    assert (found.returncode, found.stderr) == (code, message)


def test_help_that_nobody_can_read_is_a_failure(tmp_path: Path) -> None:
    script = f"{PRELUDE}\nimport argparse\nrun_command(lambda: argparse.ArgumentParser().parse_args(['-h']))"
    found = shell(script, ">/dev/full", tmp_path)
    assert (found.returncode, found.stderr.splitlines()[-1]) == (5, "error: standard output: No space left on device")


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", r"a - b 3x4 gr\xf6\xdfe l\udce9 \U0001f600"),
        ("latin-1", r"a - b 3×4 größe l\udce9 \U0001f600"),
        ("utf-8:strict", r"a – b 3×4 größe l\udce9 😀"),
    ],
)
def test_every_text_is_printable_in_every_encoding(tmp_path: Path, encoding: str, shown: str) -> None:
    script = f"{PRELUDE}\nrun_command(lambda: print('a \u2013 b 3\xd7\x34 gr\xf6\xdfe l\\udce9 \U0001f600'))"
    path = tmp_path / "shown"
    found = shell(script, f">'{path}'", path, PYTHONIOENCODING=encoding)
    assert (found.returncode, found.stderr) == (0, "")
    assert path.read_text(encoding=encoding.split(":")[0]) == shown + "\n"
