"""Operations on the files of a run folder: counted, recorded, deadly."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple


class Operation(NamedTuple):
    """What a process did to a file; names are relative to the run folder, and the process id in them is PID."""

    kind: str  # create append write truncate fsync rename link unlink mkdir failed
    name: str
    target: str = ""  # of a rename or link
    data: bytes = b""

    def __str__(self) -> str:
        return " ".join(part for part in (self.kind, self.name, self.target) if part)


def load_record(path: Path) -> list[Operation]:
    """What a trial recorded."""
    return [Operation(*values) for values in pickle.loads(path.read_bytes())]


class Watch:
    """Sees what the main thread does to the files of a run folder – not to tensorboard/, which nothing is resumed from."""

    def __init__(self, run: Path, *, kill_at: int, half: bool, recording: bool) -> None:
        self.run, self.kill_at, self.half, self.recording = os.path.realpath(run), kill_at, half, recording
        self.count = 0
        self.operations: list[Operation] = []

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Python's own ways to a file lead through this object."""
        changed: list[tuple[object, str, Any]] = []

        def patch(owner: object, name: str, function: Callable[..., Any]) -> None:
            changed.append((owner, name, getattr(owner, name)))
            setattr(owner, name, function)

        self.real_open, self.real_os_open = builtins.open, os.open
        patch(builtins, "open", self._open)
        patch(io, "open", self._open)
        patch(os, "open", self._os_open)
        patch(os, "write", self._through("write", os.write))
        for kind, names in {
            "fsync": ("fsync", "fdatasync"),
            "rename": ("rename", "replace"),
            "link": ("link",),
            "unlink": ("unlink", "remove"),
            "mkdir": ("mkdir",),
            "truncate": ("truncate", "ftruncate"),
        }.items():
            for name in names:
                patch(os, name, self._through(kind, getattr(os, name)))
        try:
            yield
        finally:
            for owner, name, value in reversed(changed):
                setattr(owner, name, value)

    def note(self, kind: str, file: Any, perform: Callable[[], Any], *, target: Any = None, data: bytes = b"") -> Any:
        """Do it, unless this is the operation to die at."""
        name = self._name(file)
        if name is None or threading.current_thread() is not threading.main_thread():
            return perform()
        self.count += 1
        if self.count == self.kill_at:
            if not (self.half and kind == "write"):
                os.kill(os.getpid(), signal.SIGKILL)
            return None  # the writer writes half of it, and dies
        try:
            result = perform()
        except OSError:  # e.g. a folder that is there already: an operation like any other
            self.operations.append(Operation("failed", name))
            raise
        if self.recording:
            self.operations.append(Operation(kind, name, "" if target is None else self._name(target) or str(target), data))
        return result

    def _name(self, file: Any) -> str | None:
        """The name below the run folder, ".." for the folder that it is in, None for what is no business of ours."""
        path = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else os.path.abspath(os.fsdecode(file))
        name = os.path.relpath(path, self.run)
        if name.startswith("../") or name.split("/")[0] == "tensorboard":
            return None
        return re.sub(r"\.\d+\.tmp$", ".PID.tmp", name)

    def _through(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(file: Any, *arguments: Any, **options: Any) -> Any:
            target = arguments[0] if kind in ("rename", "link") else None
            data = bytes(arguments[0]) if kind == "write" else b""
            done = self.note(kind, file, lambda: function(file, *arguments, **options), target=target, data=data)
            if done is None and kind == "write":
                function(file, data[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return watched

    def _os_open(self, file: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if not flags & (os.O_WRONLY | os.O_RDWR):
            return self.real_os_open(file, flags, *arguments, **options)
        kind = "append" if flags & os.O_APPEND or not flags & os.O_TRUNC else "create"
        return self.note(kind, file, lambda: self.real_os_open(file, flags, *arguments, **options))

    def _open(self, file: Any, mode: str = "r", buffering: int = -1, *texts: Any, **text: Any) -> Any:
        if not set(mode) & set("wax+") or isinstance(file, int) or self._name(file) is None:
            return self.real_open(file, mode, buffering, *texts, **text)
        assert "+" not in mode, f"Watch does not know mode {mode}"
        watch = self

        class Watched(io.FileIO):
            def write(self, data: Any) -> int:
                data = bytes(data)
                done = watch.note("write", self.fileno(), lambda: super(Watched, self).write(data), data=data)
                if done is None:
                    super().write(data[: len(data) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                return done

        kind, raw_mode = "append" if "a" in mode else "create", mode.strip("bt")
        raw = self.note(kind, file, lambda: Watched(file, raw_mode))
        if "b" in mode:
            return raw if buffering == 0 else io.BufferedWriter(raw)
        return io.TextIOWrapper(io.BufferedWriter(raw), *texts, **text)
