"""The model card of a run: a page that says what its network is, what it was trained on, how good it is, and what nobody knows.

After Mitchell et al. 2019, "Model Cards for Model Reporting". It follows from the files of the run folder alone and holds no
times, so that equal runs have equal cards.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import torch
import yaml

from segnet.config.loading import flat_config
from segnet.config.sections import Config, ModelConfig, Section
from segnet.config.yaml_files import Dumper
from segnet.evaluation.temperature import FILE as TEMPERATURE
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.runs.checkpoint import BEST, load_checkpoint
from segnet.system.errors import UserError, first_line, printable
from segnet.system.files import read_json_object, write_text
from segnet.tasks.choice import build_task
from segnet.tasks.denoising_score import MEASURES
from segnet.tasks.segmentation_score import Evaluation, EvaluationCounts

CARD = "model_card.md"
Document = dict[str, Any]


class Facts(NamedTuple):
    """What the files of a run folder say."""

    run: Path
    config: Config
    step: int  # of the best checkpoint
    score: float | None
    environment: Document
    evaluations: dict[str, Document]  # metrics.json of each split
    temperatures: dict[str, Document]


def renew_model_card(run: Path) -> None:
    """Write model_card.md into a run folder that has a best checkpoint. Where that fails, a warning is printed."""
    if not (run / BEST).is_file():
        return
    try:
        write_text(run / CARD, model_card(read_facts(run)))
    except (OSError, UserError) as error:
        _warn(run, getattr(error, "strerror", None) or first_line(error))
    except (AttributeError, LookupError, TypeError, ValueError):
        _warn(run, "environment.json or evaluation/ hold what this program does not write; evaluate again")


def _warn(run: Path, reason: str) -> None:
    print(f"warning: {printable(f'{run / CARD}: {reason}')}; the run has no new model card", file=sys.stderr)


def renew_model_card_of(evaluation: Path) -> None:
    """`renew_model_card` where an evaluation was written into a run folder, as RUN/evaluation/<split>."""
    if evaluation.parent.name == "evaluation":
        renew_model_card(evaluation.parent.parent)


def read_facts(run: Path) -> Facts:
    """What the files of a run folder say; those that are missing or not of this program are left out.

    Raises UserError (checkpoint) for a damaged best checkpoint.
    """
    best = load_checkpoint(run / BEST)
    folders = sorted(path.parent for path in (run / "evaluation").glob("*/metrics.json"))
    evaluations = {folder.name: content for folder in folders if (content := read_json_object(folder / "metrics.json"))}
    kept = {path.parent.name: read_json_object(path) for path in sorted((run / "evaluation").glob(f"*/{TEMPERATURE}"))}
    temperatures = {name: content for name, content in kept.items() if "temperature" in content}
    environment = read_json_object(run / "environment.json")
    return Facts(run, best.config, best.step, best.score, environment, evaluations, temperatures)


def model_card(facts: Facts) -> str:
    """The page, in Markdown."""
    parts = (_heading, _network, _data, _recipe, _scores, _confidence, _limits, _commands)
    return "\n\n".join("\n".join(part(facts)) for part in parts) + "\n"


def _heading(facts: Facts) -> Iterator[str]:
    task = build_task(facts.config)
    yield f"# Model card: {_cell(facts.run.resolve().name)}"
    yield ""
    if facts.config.task == "denoise":
        yield f"A network that removes noise from pictures of {task.channels} channels."
    else:
        yield f"A network that gives each pixel of a picture one of {task.channels} classes (semantic segmentation)."


def _network(facts: Facts) -> Iterator[str]:
    model, channels = facts.config.model, facts.config.data.channels
    outputs = build_task(facts.config).channels
    with torch.device("meta"):
        network = EncoderDecoder(model, outputs, channels)
    yield "## Network"
    yield ""
    yield from _table(
        ("", ""),
        [
            ("encoder", _stages(model, "encoder")),
            ("decoder", f"{_stages(model, 'decoder')}; upsampling: {model.upsampling}; skips: {model.skips}"),
            ("input", f"{channels} channels, any height and width"),
            ("output", f"{model.output}, {outputs} channels, at the height and width of the input"),
            ("parameters", f"{sum(parameter.numel() for parameter in network.parameters()):,}"),
            ("first weights", _cell(model.weights or model.encoder_weights or "random")),
        ],
    )


def _stages(model: ModelConfig, part: str) -> str:
    stages = model.encoder if part == "encoder" else model.decoder
    return f"{len(stages)} stages of " + " / ".join("-".join(map(str, stage.widths)) for stage in stages) + " channels"


def _data(facts: Facts) -> Iterator[str]:
    data, recorded = facts.config.data, facts.environment.get("data", {})
    sizes = recorded.get("pictures", {}) if isinstance(recorded, dict) else {}
    yield "## Data"
    yield ""
    rows = [("data folder", _cell(data.root))]
    rows += [(f"pictures of {split}", f"{sizes.get(split, 'not recorded')}") for split in (data.train_split, data.val_split)]
    rows += [("digest of all pictures and masks", str(recorded.get("digest", "not recorded")))]
    if facts.config.task == "denoise":
        rows += [("noise", facts.config.noise.kind)]
    else:
        rows += [("classes", ", ".join(map(_cell, data.class_set.names)))]
    yield from _table(("", ""), rows)


def _recipe(facts: Facts) -> Iterator[str]:
    parts = ("augment", "noise", "loss", "optim", "train", "inference")
    usual = {name: type(getattr(facts.config, name))() for name in parts}
    changed = {
        key: value
        for key, value in flat_config(facts.config).items()
        if key in ("seed", "train.epochs", "optim.lr") or _is_changed(facts.config, usual, key)
    }
    yield "## Training"
    yield ""
    yield f"The best checkpoint is that of step {facts.step}. These settings differ from the defaults; `config.yaml` has all:"
    yield ""
    yield "```yaml"
    yield yaml.dump(changed, Dumper=Dumper, sort_keys=False, default_flow_style=None, width=110).rstrip()
    yield "```"
    yield ""
    names = ("commit", "device", "ranks", "python", "torch", "torchvision")
    rows = [(name, str(facts.environment[name])) for name in names if name in facts.environment]
    rows += [(f"precision of {use}", value) for use, value in sorted(_dict(facts.environment.get("precision")).items())]
    yield from _table(("trained with", ""), rows)


def _is_changed(config: Config, usual: Mapping[str, Section], key: str) -> bool:
    """Whether a key of the sections in `usual` has another value than there."""
    section, _, name = key.partition(".")
    return section in usual and getattr(getattr(config, section), name) != getattr(usual[section], name)


def _scores(facts: Facts) -> Iterator[str]:
    yield "## Scores"
    yield ""
    best = build_task(facts.config).best.name
    if facts.score is not None:
        value = f"{100 * facts.score:.2f}" if facts.config.task == "segmentation" else f"{facts.score:.2f} dB"
        yield f"During training, on {facts.config.data.val_split}: {_title(best)} {value} at step {facts.step}."
    if not facts.evaluations:
        yield "It has not been evaluated since: `segnet evaluate` adds the scores to this page."
    for split, metrics in facts.evaluations.items():
        yield ""
        yield from _evaluation(facts, split, metrics)


def _evaluation(facts: Facts, split: str, metrics: Document) -> Iterator[str]:
    intervals = _dict(metrics.get("intervals"))
    yield f"### {split}: {metrics.get('pictures', '?')} pictures"
    yield ""
    if conditions := _dict(metrics.get("conditions")):
        yield "; ".join(f"{name}: {value}" for name, value in conditions.items()) + "."
        yield ""
    share = facts.config.task == "segmentation"
    values = {key: value for key, value in metrics.items() if isinstance(value, float)}
    rows: list[tuple[str, ...]]
    rows = [(_title(key), _number(value, key, share), _range(intervals.get(key))) for key, value in values.items()]
    yield from _table(("measure", "percent" if share else "mean", "95 % interval")[: 3 if intervals else 2], rows)
    if share:
        yield ""
        total = metrics.get("pixels") or 1
        columns = [measure.name for measure in _nothing_scored().class_measures()]
        rows = [
            (
                _cell(row["name"]),
                *(_percent(row.get(key)) for key in columns),
                _percent(row.get("pixels", 0) / total),
                _range(row.get("iou_interval")),
            )
            for row in metrics.get("classes", [])
        ]
        headings = ("class", *map(_title, columns), "share of pixels", "95 % interval of the IoU")
        yield from _table(headings if intervals else headings[:-1], rows)
    elif metrics.get("levels"):
        yield ""
        keys = ("psnr", "ssim", "noisy_psnr", "noisy_ssim")
        rows = [
            (f"{row['noise']} {row['level']:g}", *(_number(row.get(key), key, False) for key in keys))
            for row in metrics["levels"]
        ]
        yield from _table(("noise", *map(_title, keys)), rows)
    if intervals:
        yield ""
        yield f"Intervals: {intervals['of']}. Pictures of one scene or video make them too narrow."


def _confidence(facts: Facts) -> Iterator[str]:
    yield "## Confidence"
    yield ""
    if facts.config.task == "denoise":
        yield "The network gives no confidence."
        return
    for split, fit in facts.temperatures.items():
        yield (
            f"Fitted on {split}: `inference.temperature={fit['temperature']:.4g}` makes the expected calibration error "
            f"{_percent(fit.get('error_after'))} % instead of {_percent(fit.get('error_before'))} %."
        )
    if not facts.temperatures:
        yield (
            "Not calibrated: a confidence of 0.8 need not be right for 80 % of its pixels. `segnet evaluate --calibrate` fits a "
            "temperature."
        )


def _limits(facts: Facts) -> Iterator[str]:
    data = facts.config.data
    yield "## Limits"
    yield ""
    yield f"- The checkpoint was chosen by its score on {data.val_split}, which is therefore a little too good."
    if not set(facts.evaluations) - {data.train_split, data.val_split}:
        yield "- It was scored on no split that had no part in training and choice."
    for split, metrics in facts.evaluations.items():
        rows = [row for row in metrics.get("classes", []) if isinstance(row, dict)]
        absent = [_cell(row["name"]) for row in rows if row.get("iou") is None]
        if absent:
            yield f"- Not measured, because {split} has no pixel of it: {', '.join(absent)}."
        weak = [_cell(row["name"]) for row in rows if (iou := row.get("iou")) is not None and iou < 0.5]
        if weak:
            yield f"- IoU below 50 % on {split}: {', '.join(weak)}."
    yield "- Pictures of other cameras, places, seasons or resolutions than those of the data folder were not measured."
    if facts.config.task == "denoise":
        yield "- Noise of other kinds or strengths than in the tables above was not measured."
    else:
        yield "- Ignored pixels are not scored. What is none of the classes is given one all the same."
    yield "- It was measured on the device and in the precision above alone."


def _commands(facts: Facts) -> Iterator[str]:
    run, split = facts.run.as_posix(), facts.config.data.val_split
    saved = "restored" if facts.config.task == "denoise" else "mask,overlay"
    yield "## Commands"
    yield ""
    yield "```bash"
    yield f"segnet train {quote(f'{run}/config.yaml')} --run {quote(f'{run}_again')}"
    yield f"segnet evaluate {quote(run)} --split {quote(split)}"
    yield f"segnet predict {quote(run)} PICTURES --out predictions --save {saved}"
    yield "```"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heading)} |"
    yield "|" + "---|" * len(heading)
    for row in rows:
        yield f"| {' | '.join(row[: len(heading)])} |"


def _title(key: str) -> str:
    """The title of a measure by its name in metrics.json."""
    titles = {name: title for name, title, _ in MEASURES}
    titles |= {measure.name: measure.title for measure in _nothing_scored().measures()}
    titles |= {column.name: column.title for column in _nothing_scored().class_measures()}
    return titles.get(key, key.replace("_", " "))


@cache
def _nothing_scored() -> Evaluation:
    """An evaluation of no picture: the names and titles of all measures."""
    return EvaluationCounts((), 1).evaluation()


def _number(value: float | None, key: str, is_share: bool) -> str:
    if is_share or value is None:
        return _percent(value)
    return f"{value:.4f}" if "ssim" in key else f"{value:.2f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"


def _range(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def _cell(text: object) -> str:
    """A text from elsewhere, such as a name, in one cell of a table or in a sentence: nothing in it is Markdown or HTML."""
    return re.sub(r"[\\`*\[\]<&|]", r"\\\g<0>", printable(str(text)))


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
