"""A user's mistake in words: where, what, and how to mend it."""

from __future__ import annotations

import pickle

import pytest

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
