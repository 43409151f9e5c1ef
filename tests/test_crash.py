"""Kill it anywhere: what is resumed ends with the bits of a run that was never killed, and no checkpoint is ever lost.

`make test` runs a sample of all this; `make crash-test` runs it whole (SEGNET_CRASH_TRIALS scales it: 10 or 200 random kills).
No trial is repeated when it fails, and the last test prints how many there were.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from crash import (
    BUG,
    CHECKPOINTS,
    MISTAKES,
    Disk,
    ForkServer,
    Operation,
    Outcome,
    Trial,
    copy_run,
    damaged,
    first_step_printed,
    flip,
    load_record,
    newest_valid,
    temporaries,
)
from helpers import ROOT, assert_same_run, folder_bytes, group_lives, same, start_training, steps_logged, tiny_config_for

from segnet.config.loading import config_to_yaml, override_config
from segnet.config.sections import Config
from segnet.runs.checkpoint import load_checkpoint
from segnet.system.errors import ExitCode, UserError

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


@pytest.fixture(scope="module")
def lab(_tiny_data_once, tmp_path_factory):
    with ForkServer() as server:
        lab = Lab(server, tmp_path_factory.mktemp("crash"), tiny_config_for(_tiny_data_once))
        lab.run(lab.folder / "warm", SHORT)
        yield lab


def assert_sound(run: Path, at_least: int, what: str) -> None:
    """Nothing is damaged, and the newest checkpoint is not older than one interval (0: there need be none)."""
    assert damaged(run) == [], f"{what}: {damaged(run)}"
    newest = newest_valid(run)
    assert not at_least or (newest is not None and newest >= at_least), f"{what}: newest is {newest}, {at_least} was saved"


def saves_before(run: Path) -> int:
    """The step of the last save that was over when the last row of metrics.csv was written."""
    return max(0, steps_logged(run) - 1) // SAVE_EVERY * SAVE_EVERY


# ---- random kills ---------------------------------------------------------------------------------------------------


def test_two_undisturbed_runs_are_the_same(lab, tmp_path):
    assert lab.run(tmp_path / "run", LONG).status == 0
    assert_same_run(lab.reference(LONG), tmp_path / "run")
    assert steps_logged(tmp_path / "run") == 24


def kill_and_finish(lab: Lab, run: Path, delays: list[float], what: str) -> None:
    for number, delay in enumerate(delays):
        outcome = lab.run(run, LONG, resume=number > 0, signal_after=delay)
        assert outcome.status in (0, -signal.SIGKILL), f"{what}, kill {number}: {outcome.output}"
        lab.count("random kills", outcome.status != 0)
        assert_sound(run, saves_before(run), f"{what}, kill {number} after {delay:.3f} s")
    lab.finish(run, LONG, what)


def test_killed_at_random(lab, tmp_path):
    duration = lab.run(tmp_path / "whole", LONG).seconds
    for trial in range(TRIALS):
        dice = random.Random(trial)
        delays = [dice.uniform(0, duration) for _ in range(3 if trial % 5 == 4 else 1)]
        kill_and_finish(lab, tmp_path / str(trial), delays, f"trial {trial}")
        shutil.rmtree(tmp_path / str(trial))


def test_killed_twenty_times_in_one_run(lab, tmp_path):
    duration = lab.run(tmp_path / "whole", LONG).seconds
    dice = random.Random(20)
    kill_and_finish(lab, tmp_path / "run", [dice.uniform(0.1, 0.4) * duration for _ in range(20)], "twenty kills")


def test_killed_with_workers(lab, tmp_path):
    changes = [*LONG, "data.workers=2"]
    duration = lab.run(tmp_path / "whole", changes).seconds
    for trial in range(1 + TRIALS // 20):
        run, what = tmp_path / str(trial), f"trial {trial}"
        outcome = lab.run(run, changes, signal_after=random.Random(trial).uniform(0, duration))
        lab.count("random kills", outcome.status != 0)
        assert_sound(run, saves_before(run), what)
        lab.finish(run, LONG, what)


# ---- every operation on a file --------------------------------------------------------------------------------------


def deaths(operations: list[Operation]) -> list[tuple[int, bool]]:
    """Where to die: instead of each operation, and in the middle of each write."""
    numbered = list(enumerate(operations, 1))
    return sorted([(n, False) for n, _ in numbered] + [(n, True) for n, o in numbered if o.kind == "write" and o.data])


def sampled(operations: list[Operation], count: int) -> list[tuple[int, bool]]:
    """All deaths in the whole suite, else about `count`, evenly spread, and the one between the renamings of the second save."""
    cases = deaths(operations)
    if WHOLE:
        return cases
    renamings = [(n, False) for n, o in enumerate(operations, 1) if o.kind == "rename" and o.target == "last.pt"]
    return sorted({*cases[1 :: max(1, len(cases) // count)], *renamings[:2]})


def saved_by(operations: list[Operation]) -> int:
    """The step of the last save whose renaming is among `operations`."""
    return SAVE_EVERY * sum(operation.kind == "rename" and operation.target == "last.pt" for operation in operations)


def test_killed_at_every_operation_on_a_file(lab, tmp_path):
    operations = lab.operations(SHORT)
    assert saved_by(operations) == 12, list(map(str, operations))
    for number, half in sampled(operations, 10):
        what = f"operation {number} of {len(operations)}, {operations[number - 1]}{', half' * half}"
        run = tmp_path / "run"
        outcome = lab.run(run, SHORT, kill_at=number, half=half)
        assert outcome.status == -signal.SIGKILL, f"{what}: {outcome.output}"
        assert_sound(run, saved_by(operations[: number - 1]), what)
        lab.finish(run, SHORT, what)
        shutil.rmtree(run)
        lab.count("operations died at")


def test_killed_at_every_operation_of_a_resumed_run(lab, tmp_path):
    """Also where the newest checkpoint was found damaged: it must not push the last valid one away."""
    stopped = stop_at(lab, tmp_path / "stopped", SHORT, "rename", "last.pt", 2)
    (stopped / "last.pt").write_bytes(flip((stopped / "last.pt").read_bytes(), 80_000))
    recorded = copy_run(stopped, tmp_path / "recorded")
    lab.finish(recorded, SHORT, "newest damaged", record=str(tmp_path / "operations"))
    operations, lost = load_record(tmp_path / "operations"), []
    for number, half in sampled(operations, 4):
        what = f"newest damaged, operation {number}, {operations[number - 1]}{', half' * half}"
        run = copy_run(stopped, tmp_path / "run")
        outcome = lab.run(run, SHORT, resume=True, kill_at=number, half=half)
        assert outcome.status == -signal.SIGKILL, f"{what}: {outcome.output}"
        if newest_valid(run) is None:
            lost.append(what)
        else:
            lab.finish(run, SHORT, what)
        shutil.rmtree(run)
        lab.count("operations died at")
    assert lost == [], "every checkpoint is lost"


def stop_at(lab: Lab, run: Path, changes: list[str], kind: str, name: str, occurrence: int, **options: object) -> Path:
    """A run that was killed just after its n-th such operation."""
    hits = [n for n, o in enumerate(lab.operations(changes), 1) if o.kind == kind and name == (o.target or o.name)]
    outcome = lab.run(run, changes, kill_at=hits[occurrence - 1] + 1, **options)
    assert outcome.status == -signal.SIGKILL, outcome.output
    return run


@pytest.mark.skipif(not WHOLE or shutil.which("strace") is None, reason="needs strace, and minutes: make crash-test")
def test_killed_at_system_calls(lab, tmp_path):
    """The same from outside, with the real script: SIGKILL on entering the n-th such call of any thread."""
    config = tmp_path / "config.yaml"
    config.write_text(config_to_yaml(override_config(lab.config, SHORT)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for calls, numbers in {"fsync": range(1, 22, 2), "?rename,?renameat": range(1, 10), "?unlink,?unlinkat": range(1, 3)}.items():
        for number in numbers:
            run, what = tmp_path / f"{calls}{number}", f"{calls} {number}"
            inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={number}"]
            script = [sys.executable, str(ROOT / "scripts" / "train.py"), str(config), "--run", str(run)]
            command = ["strace", "-f", "-qq", "-o", str(tmp_path / "calls"), *inject, *script]
            ended = subprocess.run(command, env=environment, capture_output=True, timeout=120, text=True)
            killed = "killed by SIGKILL" in (tmp_path / "calls").read_text()
            assert killed or ended.returncode == 0, f"{what}: {ended.stdout}{ended.stderr}"
            assert_sound(run, saves_before(run), what)
            lab.finish(run, SHORT, what)
            lab.count("system calls died at", killed)


# ---- a power cut ----------------------------------------------------------------------------------------------------


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


def test_a_power_cut_loses_no_save(lab, tmp_path):
    folders = check_power_cuts(lab.operations(SHORT), tmp_path)
    lab.count("folders after a power cut", len(folders))
    for what in random.Random(0).sample(sorted(folders), min(len(folders), 100 if WHOLE else 4)):
        run = tmp_path / "run"
        run.mkdir()
        for name, content in folders[what].items():
            (run / name.replace("PID", "4711")).write_bytes(content)
        lab.finish(run, SHORT, what)
        shutil.rmtree(run)
        lab.count("folders resumed after a power cut")


def test_the_run_folder_itself_survives_a_power_cut(lab):
    """The name of a new folder is safe only once its parent is synced; before the first save ends."""
    operations = list(map(str, lab.operations(SHORT)))
    assert "mkdir ." in operations
    first_save = next(n for n, text in enumerate(operations) if text.startswith("rename") and text.endswith(" last.pt"))
    assert "fsync .." in operations[:first_save]


# ---- damage ---------------------------------------------------------------------------------------------------------


def test_no_damaged_checkpoint_is_loaded(lab):
    run = lab.reference(SHORT)
    before = folder_bytes(run)
    flips, truncations = (500, 100) if WHOLE else (60, 20)
    outcome = lab.run(run / "last.pt", SHORT, damage=(flips, truncations))
    lab.count("bit flips", flips)
    lab.count("truncations", truncations)
    assert outcome.status == 0, outcome.output
    assert folder_bytes(run) == before


def test_resume_goes_back_to_the_newest_valid_checkpoint_or_refuses(lab, tmp_path):
    stopped = stop_at(lab, tmp_path / "stopped", SHORT, "rename", "last.pt", 2)
    names = list(CHECKPOINTS)
    for trial in range(2 + TRIALS // 20):
        dice = random.Random(trial)
        one, all_ = copy_run(stopped, tmp_path / f"one{trial}"), copy_run(stopped, tmp_path / f"all{trial}")
        for run, bad in ((one, names[:1]), (all_, names)):
            for name in bad:
                data = (run / name).read_bytes()
                size = len(data)
                (run / name).write_bytes(dice.choice([data[: dice.randrange(size)], data[: size // 4] + bytes(size - size // 4)]))
        before = folder_bytes(all_)
        outcome = lab.run(all_, SHORT, resume=True)
        assert outcome.status == ExitCode.CHECKPOINT, f"all damaged, trial {trial}: {outcome.output}"
        after = {name: data for name, data in folder_bytes(all_).items() if name in before}
        assert after == before, f"all damaged, trial {trial}: the folder was changed"
        outcome = lab.finish(one, SHORT, f"newest damaged, trial {trial}")
        assert str(one / "last.pt") in outcome.output, f"trial {trial}: the damaged checkpoint is not named"


# ---- the schedule ---------------------------------------------------------------------------------------------------


def learnt(run: Path) -> dict[str, object]:
    """What no schedule may change."""
    last = load_checkpoint(run / "last.pt")
    assert last.training is not None
    return {"step": last.step, "weights": last.weights, **{key: last.training[key] for key in ("optimizer", "ema", "scaler")}}


def test_workers_intervals_and_interruptions_change_nothing(lab, tmp_path):
    expected = learnt(lab.reference(LONG))
    for trial in range(max(3, TRIALS // 5)):
        dice = random.Random(trial)
        changes = [f"data.workers={(0, 2, 4)[trial % 3]}", f"train.log_every_steps={dice.randint(1, 9)}"]
        changes += [f"train.{key}_every_epochs={dice.uniform(0.3, 5):.2f}" for key in ("eval", "save")]
        run, stops = tmp_path / str(trial), 0
        what, output = f"trial {trial}, {' '.join(changes)}", ""
        for number in range(1 + dice.randrange(5)):
            term = {"signal": dice.choice([signal.SIGTERM, signal.SIGINT]), "to_group": dice.random() < 0.5}
            outcome = lab.run(run, [*LONG, *changes], resume=number > 0, signal_after=dice.uniform(0.2, 1), **term)
            output += outcome.output
            assert outcome.status in (0, 143, 130, -term["signal"]), f"{what}: {outcome.status}: {output}"
            stops += outcome.status in (143, 130)
        outcome = lab.run(run, [*LONG, *changes], resume=True)
        assert outcome.status == 0, f"{what}: {output}{outcome.output}"
        assert same(learnt(run), expected), f"{what}: something else was learnt: {output}"
        lab.count("schedules")
        lab.count("interruptions by signals", stops)


# ---- signals, to the real script ------------------------------------------------------------------------------------


def stop(process: subprocess.Popen[bytes], number: int, delay: float, *, to_group: bool) -> tuple[float, str]:
    """Send a signal so many seconds after training began. Returns the seconds until the end, and what was printed."""
    assert process.stdout is not None
    line = b" "
    while line and b"parameters," not in line:
        line = process.stdout.readline()
    time.sleep(delay)
    sent = time.monotonic()
    (os.killpg if to_group else os.kill)(process.pid, number)
    output = process.communicate(timeout=60)[0].decode()
    return time.monotonic() - sent, output


def test_stop_signals_end_the_script_soon_and_leave_no_process(lab, tmp_path):
    """SIGTERM and SIGINT, to the process alone or to its group, at random moments of steps, saves and evaluations."""
    config = tmp_path / "config.yaml"
    config.write_text(config_to_yaml(override_config(lab.config, [*LONG, "data.workers=2"])))

    def one(trial: int) -> tuple[str, Path, int, float, str]:
        dice, run = random.Random(trial), tmp_path / str(trial)
        number, to_group, delay = (signal.SIGTERM, signal.SIGINT)[trial % 2], dice.random() < 0.5, dice.uniform(0.05, 1.2)
        process = start_training(config, run)
        seconds, output = stop(process, number, delay, to_group=to_group)
        what = f"trial {trial}: {number.name} to {'the group' if to_group else 'one'} after {delay:.2f} s"
        assert process.returncode in (128 + number, -number, 0), f"{what}: {process.returncode}: {output}"
        assert not group_lives(process.pid), f"{what}: a process is left"
        return what, run, process.returncode, seconds, output

    longest = 0.0
    with ThreadPoolExecutor(2) as pool:
        for what, run, status, seconds, output in pool.map(one, range(max(2, TRIALS // 10))):
            done = newest_valid(run) == steps_logged(run) == 24  # a signal that comes then finds nobody to save anything
            assert status > 0 or done, f"{what}: {status}: {output}"
            assert seconds < 30, f"{what}: took {seconds:.1f} s"
            assert_sound(run, saves_before(run), what)
            lab.finish(run, LONG, f"{what}, stopped with {status}")
            lab.count("scripts stopped by signals", status > 0)
            longest = max(longest, seconds)
    lab.counts["longest stop, ms"] = round(1000 * longest)


def test_a_signal_while_workers_start_is_no_lost_worker(lab, tmp_path):
    """They ignore stop signals from their first moment on: half a second passes here before they would say so themselves."""
    changes = [*LONG, "data.workers=2"]
    term = {"signal": signal.SIGTERM, "to_group": True, "signal_once": "parameters,", "signal_after": 0.25}
    outcome = lab.run(tmp_path / "run", changes, mistake="workers start slowly", **term)
    assert outcome.status == 143, outcome.output
    lab.finish(tmp_path / "run", LONG, "stopped while workers start")


# ---- mistakes on purpose --------------------------------------------------------------------------------------------

LOSSES = ["no fsync of files", "no fsync of the folder", "fsync after the rename"]
OF_RESUMING = list(MISTAKES)[:11]


class Stopped(NamedTuple):
    run: Path
    changes: list[str]


@pytest.fixture(scope="module")
def stopped(lab):
    """A run that was killed after step 21 was logged, one step after a save, and whose last score is not its best."""
    for seed in range(20):
        changes = [*LONG, f"seed={seed}"]
        if load_checkpoint(lab.reference(changes) / "best.pt").step <= 20:
            break
    else:
        pytest.fail("each of 20 runs has its best score at its end: a best score that is lost would not be seen")
    run = stop_at(lab, lab.folder / "stopped", changes, "fsync", "metrics.csv", 7 + 5)
    assert (newest_valid(run), steps_logged(run)) == (20, 21)
    return Stopped(run, changes)


def test_the_run_without_a_mistake_is_not_noticed(lab, stopped, tmp_path):
    lab.finish(copy_run(stopped.run, tmp_path / "run"), stopped.changes, "no mistake")


@pytest.mark.parametrize("mistake", OF_RESUMING)
def test_a_part_that_is_not_restored_is_noticed(lab, stopped, tmp_path, mistake):
    with pytest.raises(AssertionError, match=r"differ|restarted"):
        lab.finish(copy_run(stopped.run, tmp_path / "run"), stopped.changes, mistake, mistake=mistake)
    lab.count("mistakes noticed")


@pytest.mark.parametrize("mistake", [name for name in MISTAKES if " of its process" in name or "process's" in name])
def test_randomness_that_is_a_state_is_noticed(lab, tmp_path, mistake):
    reference = lab.reference(LONG, mistake)
    run = stop_at(lab, tmp_path / "run", LONG, "fsync", "metrics.csv", 12, mistake=mistake)
    assert lab.run(run, LONG, resume=True, mistake=mistake).status == 0
    with pytest.raises(AssertionError, match="differ"):
        assert_same_run(reference, run)
    lab.count("mistakes noticed")


def kill_in_the_second_save(lab: Lab, run: Path, mistake: str) -> None:
    operations = lab.operations(SHORT)
    first = next(n for n, o in enumerate(operations, 1) if o.kind == "rename" and o.target == "last.pt")
    writes = [n for n, o in enumerate(operations, 1) if n > first and o.kind == "write" and "last.pt" in o.name]
    assert lab.run(run, SHORT, kill_at=writes[2], half=True, mistake=mistake).status == -signal.SIGKILL


def kill_often(lab: Lab, folder: Path, mistake: str) -> None:
    for number in range(8, len(lab.operations(SHORT)), 8):  # the mistake has fewer operations, where exactly does not matter
        lab.run(folder / str(number), SHORT, kill_at=number, half=True, mistake=mistake)
        assert_sound(folder / str(number), saves_before(folder / str(number)), f"operation {number}")


def test_checkpoints_written_in_place_are_noticed(lab, tmp_path):
    with pytest.raises(AssertionError, match=r"\.pt: |was saved"):
        kill_often(lab, tmp_path, "checkpoints are written in place")
    lab.count("mistakes noticed")


def test_temporaries_that_stay_are_noticed(lab, tmp_path):
    kill_in_the_second_save(lab, tmp_path / "run", "")
    assert temporaries(tmp_path / "run") != []
    with pytest.raises(AssertionError, match="left behind"):
        lab.finish(tmp_path / "run", SHORT, "", mistake="temporaries stay")
    lab.count("mistakes noticed")


def test_digests_that_are_not_looked_at_are_noticed(lab):
    outcome = lab.run(lab.reference(SHORT) / "last.pt", SHORT, damage=(100, 0), mistake="digests are not looked at")
    assert "loaded: bit" in outcome.output
    lab.count("mistakes noticed")


@pytest.mark.parametrize("mistake", LOSSES)
def test_an_order_that_is_not_durable_is_noticed(lab, tmp_path, mistake):
    operations = lab.operations(SHORT)
    wrong = list(operations)
    if mistake == "no fsync of files":
        wrong = [o for o in operations if o.kind != "fsync" or o.name == "."]
    elif mistake == "no fsync of the folder":
        wrong = [o for o in operations if str(o) != "fsync ."]
    else:
        for n, o in enumerate(operations):
            if o.target == "last.pt":
                synced = max(m for m in range(n) if operations[m].kind == "fsync" and operations[m].name == o.name)
                wrong[synced], wrong[n] = o, Operation("fsync", "last.pt")
    with pytest.raises(AssertionError, match=r"was saved|damaged"):
        check_power_cuts(wrong, tmp_path)
    lab.count("mistakes noticed")


# ---- how many -------------------------------------------------------------------------------------------------------


def test_count(lab, capsys):
    with capsys.disabled():
        print(f"\ncrash suite ({TRIALS} trials): " + ", ".join(f"{number} {what}" for what, number in sorted(lab.counts.items())))
