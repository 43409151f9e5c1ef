"""One batch can be learnt by heart, and one of a single class proves nothing."""

import pytest
import torch
from helpers import folder_bytes

from segnet.config.loading import override_config
from segnet.data.mask_files import save_mask
from segnet.system.errors import ExitCode, UserError
from segnet.training.overfitting import overfit_one_batch


def test_one_batch_can_be_learnt_and_nothing_is_written(tiny_config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = folder_bytes(tmp_path)
    widths = "[{widths: [16]}, {widths: [16]}]"
    changes = [f"model.encoder={widths}", f"model.decoder={widths}", "optim.name=adamw", "optim.lr=0.01"]
    learnt, is_learnt = overfit_one_batch(override_config(tiny_config, changes), 150)
    assert (learnt.name, is_learnt) == ("miou", True)
    assert learnt.value > 0.9
    other, is_learnt = overfit_one_batch(tiny_config, 1)
    assert other.value < 0.5
    assert not is_learnt
    assert folder_bytes(tmp_path) == before
    assert "step 150/150  loss" in capsys.readouterr().out


@pytest.mark.parametrize(("label", "found"), [(2, "show one class alone"), (255, "show no class alone")])
def test_a_batch_of_one_class_proves_nothing(label, found, tiny_config, tiny_data, tiny_classes):
    for index in range(5):
        save_mask(tiny_data / "SegmentationClass" / f"train_{index}.png", torch.full((32, 32), label), tiny_classes)
    outcomes = list[str]()
    for seed in range(9):  # one of them begins with the sixth picture
        try:
            overfit_one_batch(override_config(tiny_config, ["train.batch_size=1", f"seed={seed}"]), 1)
            outcomes.append("learnt")
        except UserError as error:
            outcomes.append(f"{error.code} {error.found}")
    assert "learnt" in outcomes
    assert any(outcome.startswith(f"{ExitCode.DATA} ") and found in outcome for outcome in outcomes)
