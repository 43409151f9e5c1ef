"""The command `segnet`: its list of commands, its versions, and names that it does not know."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from helpers import refused

from segnet.__main__ import COMMANDS, OTHER_WORDS, help_text, main
from segnet.system.errors import ExitCode
from segnet.system.version import VERSION

WITHOUT_TORCH = r"""
import contextlib, io, re, sys
from segnet.__main__ import COMMANDS
for name, command in COMMANDS.items():
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        command(["--help"])
    assert len(re.findall(rf"\n  segnet {name}\b", text.getvalue())) == 3, text.getvalue()
    assert "torch" not in sys.modules and "numpy" not in sys.modules, name
"""


def test_every_help_has_three_examples_and_imports_no_torch() -> None:
    subprocess.run([sys.executable, "-c", "import sys; sys.argv = ['segnet']" + WITHOUT_TORCH], check=True)


def test_the_list_has_a_short_line_for_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) is None
    lines = help_text().splitlines()
    assert [name for name in COMMANDS if not any(line.startswith(f"  {name} ") for line in lines)] == []
    assert max(map(len, lines)) <= 80
    assert main([]) == ExitCode.CONFIG
    assert capsys.readouterr().out == 2 * help_text()


def test_the_version_names_that_of_torch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) is None
    assert f"segnet {VERSION}" in (text := capsys.readouterr().out)
    assert ", torch 2." in text


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("trian", "did you mean train?"), ("fit", "did you mean train?"), ("xyz", "segnet --help lists them"), ("", "'': no such")],
)
def test_an_unknown_command_is_one_line(name: str, remedy: str) -> None:
    with refused(ExitCode.CONFIG, "no such command", remedy):
        main([name])
    assert set(OTHER_WORDS.values()) <= set(COMMANDS)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"]])
def test_what_only_prints_ends_with_141_where_nobody_reads(arguments: list[str]) -> None:
    command = "segnet.__main__ import start; import sys; sys.argv[:] = ['segnet', *sys.argv[1:]]; start()"
    with subprocess.Popen([sys.executable, "-c", f"from {command}", *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.close()
        assert process.wait() == 128 + signal.SIGPIPE
