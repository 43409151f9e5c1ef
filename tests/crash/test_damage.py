"""No damaged checkpoint is loaded; --resume goes back to the newest valid one, or refuses."""

import random

from crash_lab import SHORT, TRIALS, WHOLE, stop_at
from crash_runs import CHECKPOINTS, copy_run
from helpers import folder_bytes

from segnet.system.errors import ExitCode


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
