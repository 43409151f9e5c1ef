"""A network that is loaded predicts as the saved one, with the settings that the call changes."""

import pytest
import torch

from segnet.inference.loaded_model import load_model
from segnet.models.initialization import build_model
from segnet.runs.checkpoint import Checkpoint, save_checkpoint
from segnet.system.errors import ExitCode, UserError


def test_the_loaded_network_predicts_as_the_saved_one(tiny_config, tmp_path):
    torch.manual_seed(0)
    model = build_model(tiny_config.model, 3).eval()
    save_checkpoint(tmp_path / "best.pt", Checkpoint(tiny_config, 1, None, model.state_dict()))
    image = torch.randint(0, 256, (1, 3, 17, 19), dtype=torch.uint8)
    for path in (tmp_path, tmp_path / "best.pt", str(tmp_path)):
        loaded = load_model(path)
        assert torch.equal(loaded.model(image), model(image))
        assert loaded.classes == tiny_config.data.class_set
        assert (loaded.path, loaded.step, loaded.score) == (tmp_path / "best.pt", 1, None)


def test_overrides_change_how_it_predicts_and_the_training_device_is_forgotten(tiny_config, tmp_path):
    torch.manual_seed(0)
    model = build_model(tiny_config.model, 3).eval()
    on_gpu = tiny_config.model_copy(update={"device": "cuda"})
    save_checkpoint(tmp_path / "best.pt", Checkpoint(on_gpu, 1, None, model.state_dict()))
    loaded = load_model(tmp_path, ["model.decoder_operation=convolution", "inference.flip=horizontal"])
    assert loaded.config.device == "auto"
    assert loaded.config.inference.flip == "horizontal"
    image = torch.randint(0, 256, (1, 3, 17, 19), dtype=torch.uint8)
    assert torch.equal(loaded.model(image), model(image))
    with pytest.raises(UserError, match=r"inference\.flips: unknown key"):
        load_model(tmp_path, ["inference.flips=true"])


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        ("[ground, box]", "2 classes (ground, box) in place of 3 (ground, box, disc)"),
        ("[ground, disc, box]", "class 1 is 'disc', not 'box'"),
    ],
)
def test_a_network_keeps_number_and_order_of_its_classes(classes, found, tiny_run):
    with pytest.raises(UserError) as caught:
        load_model(tiny_run / "best.pt", [f"data.classes={classes}"])
    error = caught.value
    assert (error.code, error.path) == (ExitCode.CONFIG, str(tiny_run / "best.pt"))
    assert error.found.endswith(found)
    assert load_model(tiny_run, ["data.classes=[earth, crate, plate]"]).classes.names == ("earth", "crate", "plate")
