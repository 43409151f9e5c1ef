"""Stop signals end the real script soon, leave no process, and lose nothing."""

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from crash_lab import LONG, TRIALS, assert_sound, saves_before
from crash_runs import newest_valid
from helpers import group_lives, start_training, steps_logged
from script_server import ScriptProcess

from segnet.config.loading import config_to_yaml, override_config


def stop(process: ScriptProcess, number: int, delay: float, *, to_group: bool) -> tuple[float, str]:
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
