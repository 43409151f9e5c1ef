"""Workers, intervals and interruptions change nothing of what is learnt."""

import random
import signal
from pathlib import Path

from crash_lab import LONG, TRIALS
from helpers import same

from segnet.runs.checkpoint import load_checkpoint


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
