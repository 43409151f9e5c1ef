"""Trials and what must hold after each: it is resumed to the bits of a run that was never killed, and no checkpoint is lost.

`make test` runs a sample of all this; `make crash-test` runs it whole (SEGNET_CRASH_TRIALS scales it: 10 or 200 random kills).
No trial is repeated when it fails, and the last test of the folder prints how many there were.
"""

import os
import signal
from pathlib import Path

from crash_disk import Disk
from crash_files import Operation, load_record
from crash_runs import CHECKPOINTS, damaged, first_step_printed, newest_valid, temporaries
from crash_trials import BUG, ForkServer, Outcome, Trial
from helpers import assert_same_run, steps_logged

from segnet.config.loading import override_config
from segnet.config.sections import Config
from segnet.runs.checkpoint import load_checkpoint
from segnet.system.errors import UserError

TRIALS = int(os.environ.get("SEGNET_CRASH_TRIALS", "10"))
WHOLE = TRIALS >= 200

SAVE_EVERY = 4  # steps
BUSY = ["train.save_every_epochs=1.34", "train.eval_every_epochs=1.34", "train.log_every_steps=3", "train.ema_decay=0.9"]
BUSY += ["model.encoder=[{widths: [4]}, {widths: [8], dropout: 0.5}]"]  # 3 steps per epoch: it saves and scores every 4
LONG, SHORT = [*BUSY, "train.epochs=8"], [*BUSY, "train.epochs=4"]  # 24 and 12 steps


class Lab:
    """Runs trials, and keeps the runs that they are compared with."""

    def __init__(self, server: ForkServer, folder: Path, config: Config) -> None:
        self.server, self.folder, self.config = server, folder, config
        self.counts: dict[str, int] = {}
        self._references: dict[str, Path] = {}

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def run(self, run: Path, changes: list[str], **options: object) -> Outcome:
        config = override_config(self.config, changes)
        outcome = self.server.run(Trial(config.model_dump_json(), str(run), **options))
        assert outcome.status != BUG, f"{run}, {options}: {outcome.output}"
        self.count("processes")
        return outcome

    def reference(self, changes: list[str], mistake: str = "") -> Path:
        """A run that nothing disturbed."""
        key = " ".join([*changes, mistake])
        if key not in self._references:
            run = self.folder / f"reference{len(self._references)}"
            outcome = self.run(run, changes, mistake=mistake, record=str(run) + ".operations")
            assert outcome.status == 0, outcome.output
            self._references[key] = run
        return self._references[key]

    def operations(self, changes: list[str]) -> list[Operation]:
        """What the reference did to its files."""
        return load_record(Path(f"{self.reference(changes)}.operations"))

    def finish(self, run: Path, changes: list[str], what: str, **options: object) -> Outcome:
        """Resume `run` to its end, and compare it with the reference."""
        step = newest_valid(run)
        outcome = self.run(run, changes, resume=True, **options)
        assert outcome.status == 0, f"{what}: {outcome.output}"
        if step:
            first = first_step_printed(outcome.output)
            assert "starting at step 0" not in outcome.output, f"{what}: restarted in spite of a checkpoint at step {step}"
            assert first is None or first > step, f"{what}: went on before step {step}: {outcome.output}"
        assert_same_run(self.reference(changes), run, what)
        assert temporaries(run) == [], f"{what}: left behind"
        return outcome


def assert_sound(run: Path, at_least: int, what: str) -> None:
    """Nothing is damaged, and the newest checkpoint is not older than one interval (0: there need be none)."""
    assert damaged(run) == [], f"{what}: {damaged(run)}"
    newest = newest_valid(run)
    assert not at_least or (newest is not None and newest >= at_least), f"{what}: newest is {newest}, {at_least} was saved"


def saves_before(run: Path) -> int:
    """The step of the last save that was over when the last row of metrics.csv was written."""
    return max(0, steps_logged(run) - 1) // SAVE_EVERY * SAVE_EVERY


def stop_at(lab: Lab, run: Path, changes: list[str], kind: str, name: str, occurrence: int, **options: object) -> Path:
    """A run that was killed just after its n-th such operation."""
    hits = [n for n, o in enumerate(lab.operations(changes), 1) if o.kind == kind and name == (o.target or o.name)]
    outcome = lab.run(run, changes, kill_at=hits[occurrence - 1] + 1, **options)
    assert outcome.status == -signal.SIGKILL, outcome.output
    return run


def check_power_cuts(operations: list[Operation], tmp_path: Path) -> dict[str, dict[str, bytes]]:
    """After every operation, whatever the disk lost: no checkpoint is damaged, none that was saved is lost.

    Returns the different folders that may be found, by where the power went.
    """
    disk, saved, renamed = Disk(), 0, 0
    found: dict[int, tuple[str, dict[str, bytes]]] = {}
    steps: dict[bytes, int] = {}

    def step(content: bytes) -> int:
        if content not in steps:
            (tmp_path / "last.pt").write_bytes(content)
            try:
                steps[content] = load_checkpoint(tmp_path / "last.pt").step
            except UserError:
                steps[content] = -1
        return steps[content]

    for number, operation in enumerate(operations, 1):
        if not {operation.name, operation.target} & {".", *CHECKPOINTS}:
            saved = renamed  # it went on to something else, so the save is over
        disk.apply(operation)
        if operation.kind == "rename" and operation.target == "last.pt":
            renamed += SAVE_EVERY
        for folder in disk.after_a_power_cut():
            what = f"power cut after operation {number}, {operation}"
            valid = {name: step(content) for name, content in folder.items() if name.endswith(".pt")}
            assert -1 not in valid.values(), f"{what}: damaged: {valid}"
            newest = max((valid[name] for name in CHECKPOINTS if name in valid), default=0)
            assert newest >= saved, f"{what}: newest is {newest}, {saved} was saved"
            found.setdefault(hash(tuple(sorted(folder.items()))), (what, folder))
    return {f"{what} ({number})": folder for number, (what, folder) in enumerate(found.values())}
