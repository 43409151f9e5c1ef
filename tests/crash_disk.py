"""A model of what a power cut leaves of the operations that a `Watch` recorded."""

from __future__ import annotations

from collections.abc import Iterator

from crash_files import Operation


class _Content:
    """An inode: what a process reads from it, and what is on the platter for sure."""

    def __init__(self) -> None:
        self.data, self.durable = b"", b""


class Disk:
    """A run folder on a disk that keeps only what was synced, plus any part of the rest.

    Contents are safe after fsync of the file, names (created, renamed, removed) after fsync of the folder. What is not safe
    may be there or not: names up to any moment or all but one change; contents wholly, half, as zeros or not at all.
    """

    def __init__(self) -> None:
        self.names: dict[str, _Content] = {}
        self.durable_names: dict[str, _Content] = {}
        self.pending: list[tuple[str, str, _Content | None]] = []  # changes of names: (removed, added, content)

    def apply(self, operation: Operation) -> None:
        kind, name, target, data = operation
        if kind in ("create", "append"):
            if name not in self.names:
                self._change("", name, _Content())
            elif kind == "create":
                self.names[name].data = b""
        elif kind == "write":
            self.names[name].data += data
        elif kind == "fsync" and name == ".":
            self.durable_names, self.pending = dict(self.names), []
        elif kind == "fsync" and name != "..":
            self.names[name].durable = self.names[name].data
        elif kind == "rename":
            self._change(name, target, self.names[name])
        elif kind == "link":
            self._change("", target, self.names[name])
        elif kind == "unlink":
            self._change(name, "", None)
        else:
            assert kind in ("mkdir", "fsync", "failed"), f"Disk does not know {operation}"

    def _change(self, removed: str, added: str, content: _Content | None) -> None:
        self.pending.append((removed, added, content))
        _rename(self.names, *self.pending[-1])

    def after_a_power_cut(self) -> Iterator[dict[str, bytes]]:
        """Every folder that may be found."""
        count = len(self.pending)
        histories = [self.pending[:length] for length in range(count + 1)]
        histories += [self.pending[:gone] + self.pending[gone + 1 :] for gone in range(count - 1)]
        for history in histories:
            names = dict(self.durable_names)
            for change in history:
                _rename(names, *change)
            for left in (_all, _nothing, _half, _zeros):
                yield {name: left(content) for name, content in names.items()}


def _rename(names: dict[str, _Content], removed: str, added: str, content: _Content | None) -> None:
    names.pop(removed, None)
    if content is not None:
        names[added] = content


def _all(content: _Content) -> bytes:
    return content.data


def _nothing(content: _Content) -> bytes:
    return content.durable


def _half(content: _Content) -> bytes:
    return content.data[: (len(content.durable) + len(content.data)) // 2]


def _zeros(content: _Content) -> bytes:
    return content.durable + bytes(max(0, len(content.data) - len(content.durable)))
