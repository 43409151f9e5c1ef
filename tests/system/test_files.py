"""Files are whole or absent, in a durable order; a run folder has one owner; names stay in their folder."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import refused
from hypothesis import given
from hypothesis import strategies as st

from segnet.system import files
from segnet.system.errors import ExitCode
from segnet.system.files import (
    atomic_write,
    is_safe_name,
    lock_folder,
    longest_name,
    make_folder,
    remove_stale_temporaries,
    short_name,
    write_text,
)


def test_a_folder_is_not_made_under_a_name_that_was_meant_to_be_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("~", "~/runs/a", "$HOME/runs", "runs/${HOME}"):
        with refused(ExitCode.CONFIG, f"{name}: no such folder: ~ and $NAME are not expanded, write ", "/home"):
            make_folder(Path(name))
    assert list(tmp_path.iterdir()) == []
    make_folder(tmp_path / "~")
    make_folder(Path("~"))  # which is there
    make_folder(Path("$nothing"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["$nothing", "~"]


def test_a_file_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"old", b"new and longer", b""):
        with atomic_write(path) as file:
            before = path.read_bytes() if path.exists() else None
            file.write(content)
            file.flush()
            assert (path.read_bytes() if path.exists() else None) == before
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["file"]


def write_half(path: Path, error: type[BaseException]) -> None:
    with atomic_write(path) as file:
        file.write(b"half")
        raise error


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error):
        write_half(path, error)
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"old", ["file"])


def test_a_folder_in_the_place_of_a_file_is_named_itself(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError) as caught, atomic_write(tmp_path / "file"):
        pass
    assert caught.value.filename == str(tmp_path / "file")


def test_write_and_sync_come_before_the_rename_and_the_folder_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order that survives a power cut; watched on the real calls."""
    events: list[str] = []
    sync, replace = os.fsync, os.replace

    def watched_sync(descriptor: int) -> None:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        events.append(f"sync {name} {os.fstat(descriptor).st_size if name.endswith('.tmp') else ''}".strip())
        sync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        assert source.parent == target.parent
        events.append(f"rename to {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_sync)
    monkeypatch.setattr(os, "replace", watched_replace)
    write_text(tmp_path / "file", "12345")
    assert events == [f"sync .file.{os.getpid()}.tmp 5", "rename to file", f"sync {tmp_path.name}"]


def test_a_link_is_replaced_and_never_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link").symlink_to("precious")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "link").is_symlink()


def test_text_is_utf_8(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "größe 😀\n")
    assert (tmp_path / "file").read_bytes() == "größe 😀\n".encode()


@pytest.mark.parametrize("name", ["x" * 255, "x" * 251 + ".png", "\u7530" * 84 + ".pt", "a\n" * 120, "dot.", "space "])
def test_whatever_name_fits_is_written(name: str, tmp_path: Path) -> None:
    with atomic_write(tmp_path / name) as file:
        (temporary,) = os.listdir(tmp_path)
        file.write(b"new")
    assert len(os.fsencode(temporary)) < 143  # the shortest limit there is
    assert os.listdir(tmp_path) == [name]
    (tmp_path / temporary).touch()
    remove_stale_temporaries(tmp_path)
    assert os.listdir(tmp_path) == [name]


def test_a_short_name_tells_long_ones_apart() -> None:
    assert short_name("last.pt") == "last.pt"
    assert short_name("x" * 250) != short_name("x" * 251)


def test_only_the_leftovers_of_atomic_writes_are_removed(tmp_path: Path) -> None:
    for name in (".best.pt.123.tmp", "mine.tmp", ".hidden", "best.pt"):
        (tmp_path / name).touch()
    remove_stale_temporaries(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "best.pt", "mine.tmp"]


OTHER_PROCESS = """
import importlib.util, sys
spec = importlib.util.find_spec("segnet")
sys.modules["segnet"] = importlib.util.module_from_spec(spec)  # without torch, which takes seconds to import
from pathlib import Path
from segnet.system.errors import UserError
from segnet.system.files import lock_folder
try:
    with lock_folder(Path(sys.argv[1])):
        print("mine", flush=True)
        sys.stdin.read()
except UserError as error:
    print(error.code.name, error)
"""


def start_other_process(folder: Path) -> subprocess.Popen[str]:
    """A process that takes the folder's lock and holds it until it is told to end."""
    command = [sys.executable, "-c", OTHER_PROCESS, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_folder_has_one_owner_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    owner = start_other_process(tmp_path)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "mine\n"
    with refused(ExitCode.ENVIRONMENT, str(tmp_path), "another command is writing to this folder"), lock_folder(tmp_path):
        pass
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    with lock_folder(tmp_path):
        said = start_other_process(tmp_path).communicate("")[0]
        assert said.startswith("ENVIRONMENT ")
    assert start_other_process(tmp_path).communicate("")[0] == "mine\n"


@pytest.mark.parametrize("name", ["2007_000032", "a/b", "with space", "größe", "a.b", "..a", "a..b"])
def test_names_that_stay(name: str) -> None:
    assert is_safe_name(name)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "..", "../a", "a/../../b", "a/..", "a\nb", "a\0b", "\x1b[0m", "a\udcff"])
def test_names_that_do_not(name: str) -> None:
    assert not is_safe_name(name)


@given(st.text("ab./\\ \n\0", max_size=8))
def test_a_safe_name_is_below_its_folder(name: str) -> None:
    if is_safe_name(name):
        joined = os.path.normpath(os.path.join("/data/root", name))
        assert (joined + "/").startswith("/data/root/")


def failing(number: int, *, only_folders: bool = False) -> Callable[..., None]:
    """A call of the system that fails as `number` says, at least for descriptors of folders."""

    def call(descriptor: object, *_: object) -> None:
        if not only_folders or (isinstance(descriptor, int) and stat.S_ISDIR(os.fstat(descriptor).st_mode)):
            raise OSError(number, os.strerror(number))

    return call


@pytest.fixture
def _not_yet_warned() -> None:
    files._warn_once.cache_clear()


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_said_once(number: int, wait: bool, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(fcntl, "lockf", failing(number))
    for _ in range(2):
        with lock_folder(tmp_path, wait=wait) as held:
            assert not held
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path}: two commands are not kept apart in this folder")


def test_a_lock_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lock_folder(tmp_path) as held:
        assert held
    monkeypatch.setattr(fcntl, "lockf", failing(errno.EIO))
    with pytest.raises(OSError, match="error"), lock_folder(tmp_path):
        pass


@pytest.mark.usefixtures("_not_yet_warned")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF, errno.ENOSYS])
def test_a_folder_that_cannot_be_synced_is_said_once(number: int, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(os, "fsync", failing(number, only_folders=True))
    for name in ("a", "b"):
        make_folder(tmp_path / name)
        write_text(tmp_path / name / "file", name)
        assert (tmp_path / name / "file").read_text() == name
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: a power cut may lose the newest files: their folder cannot be synced")


@pytest.mark.usefixtures("_not_yet_warned")
def test_a_file_that_cannot_be_synced_is_said_once(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    for text in ("one", "two"):
        write_text(tmp_path / "file", text)
        assert (tmp_path / "file").read_text() == text
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(set(lines)) == 2  # the file's and the folder's


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("only_folders", [False, True])
def test_a_sync_that_fails_is_an_error(number: int, only_folders: bool, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(number, only_folders=only_folders))
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        write_text(tmp_path / "file", "text")
    assert only_folders or caught.value.filename == str(tmp_path / "file")  # fsync's error itself names none


def test_a_file_system_that_tells_no_longest_name_takes_the_usual_ones(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "pathconf", lambda *_: -1)
    assert longest_name(tmp_path) == 255


@pytest.mark.parametrize(("kind", "found"), [("file", "a file, not a folder"), ("link", "a link to a folder that is not there")])
def test_a_folder_where_something_else_is_gets_one_line(kind: str, found: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.touch()
    else:
        place.symlink_to(tmp_path / "nowhere")
    for folder in (place, place / "below"):
        with refused(ExitCode.ENVIRONMENT, f"{place}: {found} – name another folder, or move it away"):
            make_folder(folder)
    place.unlink()
    (tmp_path / "there").mkdir()
    place.symlink_to(tmp_path / "there")
    make_folder(place / "below")
    assert (tmp_path / "there" / "below").is_dir()
