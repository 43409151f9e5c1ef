"""predictions.jsonl: the record of the outputs in a folder and of what they were made from. Lines are only ever appended."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from segnet.system.errors import ExitCode, UserError
from segnet.system.files import make_folder, sync_descriptor

NAME = "predictions.jsonl"
_LONGEST = 1 << 20  # bytes; a longer line is not a record
_TABLE = "of all pictures"  # in place of settings, for a file that is made of the outputs of all pictures


class Record(NamedTuple):
    """The outputs of one picture. It is added before the first of them is written, and again as `done` after the last.

    The first addition marks what a killed command leaves as written by this program. Paths are relative to the folder of
    the manifest.
    """

    picture: str
    outputs: tuple[str, ...]
    input: str  # SHA-256 of the bytes of the picture and of its world file
    settings: str  # digest of everything else that the outputs depend on
    done: bool = False


class Manifest:
    """The records of a folder."""

    def __init__(self, folder: Path) -> None:
        """Read the records in `folder`. Raises UserError (environment) when the manifest is not a plain file."""
        self.path = folder / NAME
        self.records: dict[str, Record] = {}  # the last record of each output
        self.unreadable = 0  # lines that are not records
        if os.path.lexists(self.path):
            if self.path.is_symlink() or not self.path.is_file():
                raise UserError(ExitCode.ENVIRONMENT, self.path, "not a plain file", "move it away, or choose another --out")
            for line in _lines(self.path):
                record = _parse(line)
                self.records |= dict.fromkeys(record.outputs, record) if record else {}
                cut_off = not line.endswith(b"\n") and len(line) < _LONGEST  # the last line, when a command was killed
                self.unreadable += record is None and not cut_off

    def prepare(self) -> None:
        """Make folder and file where they are missing, and end a last line that was cut off. For one rank alone."""
        make_folder(self.path.parent)
        self._append(b"" if not self.path.exists() or _ends_whole(self.path) else b"\n")

    def add(self, record: Record) -> None:
        """Append `record` in one write, so that lines of several processes do not mix. One that is not done is then on disk."""
        self._append(json.dumps(record._asdict()).encode() + b"\n", durable=not record.done)

    def _append(self, line: bytes, *, durable: bool = True) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            if os.write(file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            if durable:
                sync_descriptor(file)
        finally:
            os.close(file)


def require_own_table(folder: Path, name: str) -> None:
    """Raise UserError (config) where `folder` has a file `name` that is not a table of all pictures of this program."""
    record = Manifest(folder).records.get(name)
    if os.path.lexists(folder / name) and (record is None or record.settings != _TABLE):
        found = "exists already and is not of this program" if record is None else f"is an output for {record.picture}"
        raise UserError(ExitCode.CONFIG, folder / name, found, "move it away, or choose another --out")


def announce_table(folder: Path, name: str) -> None:
    """Add the record of a table of all pictures, which is about to be written and may be replaced later."""
    manifest = Manifest(folder)
    if name not in manifest.records:
        manifest.add(Record("", (name,), "", _TABLE))


def done_outputs(folder: Path, suffix: str) -> list[Path]:
    """The whole outputs in `folder` whose names end with `suffix`, by the records of its manifest, sorted."""
    records = Manifest(folder).records.items()
    names = sorted(name for name, record in records if record.done and name.endswith(suffix))
    return [folder / name for name in names if (folder / name).is_file()]


def picture_name(folder: Path, output: Path, suffix: str, picture: str) -> str:
    """The name of a picture in the files about all pictures of a folder: its path in its input folder.

    It is that of its `output`, whose `suffix` is replaced by that of the `picture`, which --keep-suffix leaves there.
    """
    name, own = output.relative_to(folder).as_posix().removesuffix(suffix), Path(picture)
    return name if Path(name).name == own.name else name + own.suffix


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(_LONGEST):
            yield line


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read(1) in (b"", b"\n")


def _parse(line: bytes) -> Record | None:
    """The record of a line; None for a line that this program did not write."""
    try:
        record = Record(**json.loads(line))
        texts = (record.picture, record.input, record.settings, *record.outputs)
    except (ValueError, TypeError, RecursionError):
        return None
    whole = isinstance(record.outputs, list) and isinstance(record.done, bool) and all(isinstance(text, str) for text in texts)
    return record._replace(outputs=tuple(record.outputs)) if whole else None
