"""The run folder: held by one training at a time, and resumed from its newest intact checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segnet.runs.checkpoint import LAST, PREVIOUS, Checkpoint, load_checkpoint
from segnet.system.distributed import is_main
from segnet.system.errors import UserError, config_error
from segnet.system.files import lock_folder, make_folder, remove_stale_temporaries


@contextmanager
def hold_run_folder(run: Path, *, resume: bool) -> Iterator[None]:
    """Make the folder, lock it during the body, and delete the temporary files that a killed run left.

    Raises UserError (config) when it holds a run and `resume` is off, (environment) when another run is writing there.
    """
    _require_new_or_resumed(run, resume)
    make_folder(run)
    with lock_folder(run) as held:
        _require_new_or_resumed(run, resume)  # again: another run may have begun before the lock
        if held:  # without a lock they may belong to a run that is writing now
            remove_stale_temporaries(run)
        yield


def _require_new_or_resumed(run: Path, resume: bool) -> None:
    if not resume and any((run / name).exists() for name in (LAST, PREVIOUS, "metrics.csv")):
        raise config_error(run, "holds a run already", "add --resume to continue it, or choose another --run")


def newest_checkpoint(run: Path) -> tuple[Path, Checkpoint] | None:
    """The intact one of LAST and PREVIOUS with more steps, and its path; None when neither exists.

    Prints a warning when one is damaged. Raises UserError (checkpoint) when none is intact, so that no run starts anew
    unasked.
    """
    intact: list[tuple[Path, Checkpoint]] = []
    damaged: list[UserError] = []
    for path in (run / LAST, run / PREVIOUS):
        if path.exists():
            try:
                intact.append((path, load_checkpoint(path)))
            except UserError as error:
                damaged.append(error)
    if damaged and not intact:
        first, *others = damaged
        remedy = "restore it from a copy, or start anew in another --run"
        raise UserError(first.code, first.path, first.found, remedy, also=tuple(others))
    for one in damaged if is_main() else ():
        print(f"warning: {one.path}: {one.found}; going on from {intact[0][0].name}", file=sys.stderr)
    return max(intact, key=lambda found: found[1].step, default=None)
