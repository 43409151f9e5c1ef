"""Continue a run from a checkpoint, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segnet.config.loading import flat_config
from segnet.config.sections import Config, DataConfig
from segnet.data.colors import ARITHMETIC
from segnet.data.dataset import SplitDataset, content_digests
from segnet.runs.checkpoint import BEST, Checkpoint, load_checkpoint, load_weights
from segnet.system.digests import derive_seed
from segnet.system.distributed import is_main, say
from segnet.system.errors import UserError, checkpoint_error
from segnet.training.step import TrainState


class RunPictures(NamedTuple):
    """The pictures of both splits of a run, by name and by content, to notice when they change."""

    ids: list[str]
    names: int  # a digest of both lists
    content: Tensor  # (N,) int64: a digest of each picture and its mask

    @classmethod
    def of(cls, train_set: SplitDataset, val_set: SplitDataset) -> RunPictures:
        """Those of two splits, all of whose files it reads. Raises UserError (data) for one that cannot be read."""
        content = torch.cat([content_digests(train_set), content_digests(val_set)])
        return cls([*train_set.ids, *val_set.ids], derive_seed(*train_set.ids, "/", *val_set.ids), content)

    @property
    def digest(self) -> int:
        """A 63-bit digest of all names and contents."""
        return derive_seed(self.names, *self.content.tolist())

    def record(self, data: DataConfig, train_pictures: int) -> dict[str, object]:
        """The number of pictures of each split, the first `train_pictures` being those to train on, and the digest of all."""
        counts = {data.train_split: train_pictures, data.val_split: len(self.ids) - train_pictures}
        return {"pictures": counts, "digest": f"{self.digest:016x}"}


def restore(state: TrainState, path: Path, checkpoint: Checkpoint, config: Config, pictures: RunPictures) -> None:
    """Set `state` to that of a checkpoint. Raises UserError (checkpoint) when its configuration or data are others."""
    training = checkpoint.training
    if training is None:
        raise checkpoint_error(path, "holds no training state", "resume from a last.pt")
    changed = _changed_keys(checkpoint.config, config)
    if changed:
        found = f"was trained with another {', '.join(changed)}"
        remedy = f"resume with the same configuration, on which the schedule depends, or {start_from(path.parent)}"
        raise checkpoint_error(path, found, remedy)
    if training["names"] != pictures.names:
        found = f"was trained with another list of pictures than the splits in {config.data.root} hold now"
        raise checkpoint_error(path, found, "restore the lists, or choose another --run")
    others = [pictures.ids[index] for index in (training["content"] != pictures.content).nonzero().flatten().tolist()]
    if others:
        found = f"{len(others)} pictures or masks in {config.data.root} have changed since: {', '.join(others[:10])}"
        raise checkpoint_error(path, found, "restore them, or choose another --run")
    if training.get("colors") != ARITHMETIC and config.augment.contrast:
        change = "with an earlier arithmetic of augment.contrast; a few pictures differ by one level of 255"
        say(f"note: {path}: its run began {change}")
    try:
        _restore_values(state, checkpoint, training, path)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
        raise checkpoint_error(path, "holds no usable training state", "resume from another last.pt") from None


def training_values(state: TrainState, rows: int, pictures: RunPictures, inference_precision: str) -> dict[str, Any]:
    """The training part of a checkpoint: the values that `restore` and `_restore_values` read."""
    return {
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "ema": {"updates": state.ema.n_averaged, "model": state.model.state_dict()} if state.ema else None,
        "best_score": state.best_score,
        "best_step": state.best_step,
        "scored_step": state.scored_step,
        "loss_sum": state.loss_sum,
        "loss_steps": state.loss_steps,
        "rows": rows,
        "names": pictures.names,
        "colors": ARITHMETIC,
        "content": pictures.content,
        "inference_precision": inference_precision,
    }


def _restore_values(state: TrainState, checkpoint: Checkpoint, training: dict[str, Any], path: Path) -> None:
    """Copy the values of `training_values` and the weights into `state`, whatever error a wrong type or shape raises."""
    if state.ema:
        load_weights(state.ema.module, checkpoint.weights, path)
        load_weights(state.model, training["ema"]["model"], path)
        state.ema.n_averaged.copy_(training["ema"]["updates"])
    else:
        load_weights(state.model, checkpoint.weights, path)
    state.optimizer.load_state_dict(training["optimizer"])
    state.scaler.load_state_dict(training["scaler"])
    state.step, state.scored_step, state.rows = checkpoint.step, training["scored_step"], training["rows"]
    if _intact(path.with_name(BEST)):
        state.best_score, state.best_step = training["best_score"], training.get("best_step", state.scored_step)
    else:
        state.best_step = state.step  # from which train.patience counts
    state.loss_sum.copy_(training["loss_sum"] if is_main() else torch.zeros(()))
    state.loss_steps = training["loss_steps"]


def _intact(best: Path) -> bool:
    """True when the best checkpoint can be read; otherwise the next validation writes a new one."""
    try:
        load_checkpoint(best)
    except UserError as error:
        if best.exists():
            say(f"warning: {error.path}: {error.found}; the best network from here on takes its place")
        return False
    return True


def start_from(run: Path) -> str:
    """The advice for continuing with another configuration: a new run that starts from the weights of this one."""
    return f"start another --run from its weights: model.weights={run}"


_FREE_TO_CHANGE = {  # keys that do not affect the weights
    "device",
    "data.root",
    "data.workers",
    "data.worker_timeout",
    "data.cache",
    "data.cache_folder",
    "data.colors",
    "train.recompute",
    "train.patience",
    "train.max_minutes",
    "train.observers",
    "train.log_every_steps",
    "train.eval_every_epochs",
    "train.save_every_epochs",
}


def _changed_keys(old: Config, new: Config) -> list[str]:
    """The keys that differ and affect the weights, each with its old and its new value."""
    before, after = flat_config(old), flat_config(new)
    changed = [key for key in after if before.get(key) != after[key] and key not in _FREE_TO_CHANGE]
    return [f"{key} ({before.get(key)}, now {after[key]})" for key in changed]
