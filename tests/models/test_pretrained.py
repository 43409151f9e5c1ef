"""VGG16's weights arrive where they belong, or nothing is copied and the reason is said."""

import hashlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT, model_config, refused
from torch import Tensor, nn
from torchvision.models import Weights, WeightsEnum, vgg16, vgg16_bn

from segnet.config.sections import Config, EncoderStageConfig, ModelConfig
from segnet.models import pretrained
from segnet.models.initialization import build_model
from segnet.runs.checkpoint import Checkpoint, save_checkpoint
from segnet.system.errors import ExitCode, UserError

VGG16_WEIGHTS = ROOT.parent / "shared" / "weights" / "vgg16_features_fp16.pt"
NARROW = ModelConfig.model_validate_json(
    """{"encoder": [{"widths": [4, 5]}, {"widths": [6]}], "decoder": [{"widths": [5]}, {"widths": [4]}],
    "neck": [{"width": 9, "kernel_size": 3}, {"width": 9, "kernel_size": 1},
             {"operation": "deconvolution", "width": 6, "kernel_size": 3}]}"""
)


@pytest.fixture(scope="module")
def segnet_config() -> ModelConfig:
    return model_config("segnet")


@pytest.mark.parametrize("network", [vgg16, vgg16_bn])
def test_torchvisions_vgg_is_copied_by_name(tmp_path, segnet_config, network):
    torch.manual_seed(1)
    vgg = network(weights=None).features.eval()
    for module in vgg:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
    torch.save({f"features.{key}": value for key, value in vgg.state_dict().items()}, tmp_path / "vgg.pt")
    model = build_model(segnet_config.model_copy(update={"encoder_weights": str(tmp_path / "vgg.pt")}), 2).eval()
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    x = ours = model.normalize(image)
    x = vgg(x)
    for stage in model.encoder:
        for layers in stage:
            ours = layers.conv(ours) if network is vgg16 else layers.norm(layers.conv(ours))
            ours = ours.relu()
        ours = F.max_pool2d(ours, 2)
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-5)


@pytest.fixture
def weights_server(tmp_path):
    """A folder served over HTTP on this machine, its address, and a switch to turn the server off."""
    (tmp_path / "served").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "served")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path / "served", f"http://127.0.0.1:{server.server_port}", server.shutdown
    server.shutdown()
    server.server_close()


def test_weights_are_downloaded_once_and_their_checksum_verified(tmp_path, monkeypatch, weights_server):
    served, address, turn_off = weights_server
    shapes = {"0": (4, 3, 3, 3), "2": (5, 4, 3, 3), "5": (6, 5, 3, 3)}  # where VGG's rule puts the layers of NARROW
    weights = {f"features.{place}.weight": torch.randn(shape) for place, shape in shapes.items()}
    weights |= {f"features.{place}.bias": torch.randn(shape[0]) for place, shape in shapes.items()}
    torch.save(weights, served / "vgg.pth")
    digest = hashlib.sha256((served / "vgg.pth").read_bytes()).hexdigest()[:8]
    (served / "vgg.pth").rename(served / f"vgg-{digest}.pth")
    (served / "vgg-00000000.pth").write_bytes((served / f"vgg-{digest}.pth").read_bytes())

    class Local(WeightsEnum):
        GOOD = Weights(url=f"{address}/vgg-{digest}.pth", transforms=None, meta={})
        DAMAGED = Weights(url=f"{address}/vgg-00000000.pth", transforms=None, meta={})

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    config = NARROW.model_copy(update={"encoder_weights": "vgg16"})
    monkeypatch.setitem(pretrained._DOWNLOADS, "vgg16", Local.DAMAGED)
    with pytest.raises(UserError, match="invalid hash value"):
        build_model(config, 2)
    monkeypatch.setitem(pretrained._DOWNLOADS, "vgg16", Local.GOOD)
    assert torch.equal(build_model(config, 2).encoder[1][0].conv.bias, weights["features.5.bias"])
    turn_off()
    assert torch.equal(build_model(config, 2).encoder[1][0].conv.bias, weights["features.5.bias"])


@pytest.mark.skipif(not VGG16_WEIGHTS.exists(), reason="the real VGG16 weights are not on this machine")
def test_real_weights_fill_every_convolution_of_the_encoder(segnet_config):
    weights = torch.load(VGG16_WEIGHTS, weights_only=True)
    model = build_model(segnet_config.model_copy(update={"encoder_weights": str(VGG16_WEIGHTS)}), 2)
    convolutions = [m for stage in model.encoder for m in stage.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 13
    for convolution, place in zip(convolutions, (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), strict=True):
        assert torch.equal(convolution.weight, weights[f"features.{place}.weight"].float())


def test_weights_that_do_not_fit_are_named(tmp_path, segnet_config):
    config = segnet_config.model_copy(update={"encoder_weights": str(tmp_path / "vgg.pt")})
    for content, complaint in (
        ({"features.0.weight": torch.zeros(64, 3, 5, 5)}, r"'features.0.weight' is \(64, 3, 5, 5\)"),
        ({"features.0.weight": torch.zeros(64, 3, 3, 3)}, "no 'features.0.bias'"),
        ([1, 2], "not a table of tensors"),
    ):
        torch.save(content, tmp_path / "vgg.pt")
        with pytest.raises(UserError, match=complaint) as caught:
            build_model(config, 2)
        assert caught.value.code == ExitCode.CHECKPOINT
    (tmp_path / "vgg.pt").write_bytes(b"<html>")
    with pytest.raises(UserError, match="cannot be read"):
        build_model(config, 2)


def learnt_run(folder: Path, config: Config) -> dict[str, Tensor]:
    """A run folder whose best.pt holds NARROW's network with weights and statistics of its own, which are returned."""
    torch.manual_seed(5)
    weights = {
        name: torch.rand_like(value) if value.is_floating_point() else value + 3
        for name, value in build_model(NARROW, 3).state_dict().items()
    }
    folder.mkdir()
    checkpoint = Checkpoint(config.model_copy(update={"model": NARROW}), 1, None, weights)
    save_checkpoint(folder / "best.pt", checkpoint)
    return weights


def test_a_run_gives_its_encoder_and_neck_to_another_number_of_classes(tmp_path, tiny_config):
    weights = learnt_run(tmp_path / "run", tiny_config)
    for source in (tmp_path / "run", tmp_path / "run" / "best.pt"):
        state = build_model(NARROW.model_copy(update={"encoder_weights": str(source)}), 7).state_dict()
        ours = {name for name in state if torch.equal(state[name], weights[name]) and name.startswith(("encoder.", "neck."))}
        assert ours == {name for name in weights if name.startswith(("encoder.", "neck."))}
        assert not torch.equal(state["decoder.0.0.conv.weight"], weights["decoder.0.0.conv.weight"])


def test_what_is_no_start_for_an_encoder_is_said(tmp_path, tiny_config):
    learnt_run(tmp_path / "run", tiny_config)
    damaged = bytearray((tmp_path / "run" / "best.pt").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.pt").write_bytes(damaged)
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "x.onnx").write_bytes(b"\x08\x08\x12\x07pytorch" + bytes(50))
    (tmp_path / "empty").mkdir()
    torch.save({"state_dict": {"conv1.weight": torch.zeros(2)}, "epoch": 3}, tmp_path / "resnet.pt")
    torch.save({"epoch": 3, "net": {}}, tmp_path / "other.pt")
    for name, found in (
        ("damaged.pt", "damaged.pt: damaged: its content does not match its digest"),
        ("text.pt", "text.pt: cannot be read: it is no table of tensors that torch.save wrote"),
        ("x.onnx", "x.onnx: cannot be read: it is no table of tensors that torch.save wrote"),
        ("empty", "empty/best.pt: no such file"),
        ("resnet.pt", "resnet.pt: no 'features.0.weight' in it, its first tensor is 'conv1.weight'"),
        ("other.pt", "other.pt: not a table of tensors but of 'epoch', 'net'"),
    ):
        with refused(ExitCode.CHECKPOINT, found):
            build_model(NARROW.model_copy(update={"encoder_weights": str(tmp_path / name)}), 2)
    with refused(
        ExitCode.CHECKPOINT, "~/vgg.pt: no such file: ~ and $NAME are not expanded", "a file with such weights, or a run"
    ):
        build_model(NARROW.model_copy(update={"encoder_weights": "~/vgg.pt"}), 2)
    wider = NARROW.model_copy(
        update={"encoder": (EncoderStageConfig(widths=(4, 4)), *NARROW.encoder[1:]), "encoder_weights": str(tmp_path / "run")}
    )
    with refused(ExitCode.CHECKPOINT, "'encoder.0.1.conv.weight' is (5, 4, 3, 3), the encoder's is (4, 4, 3, 3)"):
        build_model(wider.model_copy(update={"upsampling": "bilinear"}), 2)
    bare = NARROW.model_copy(update={"batch_norm": False, "encoder_weights": str(tmp_path / "run")})
    with refused(ExitCode.CHECKPOINT, "its layers have batch normalisation, those of this network have none"):
        build_model(bare, 2)


def test_fully_connected_layers_become_the_necks_convolutions(tmp_path):
    """DeconvNet: fc6 over a 3×3 map is a 3×3 convolution with the same numbers, fc7 a 1×1 convolution."""
    torch.manual_seed(0)
    fc6, fc7 = nn.Linear(6 * 3 * 3, 9), nn.Linear(9, 9)
    start = build_model(NARROW, 2)
    weights = {name: torch.zeros_like(value) for name, value in pretrained._encoder_names(start.encoder, with_norm=False)}
    for place, layer in ((0, fc6), (3, fc7)):
        weights |= {f"classifier.{place}.weight": layer.weight.detach(), f"classifier.{place}.bias": layer.bias.detach()}
    torch.save(weights, tmp_path / "vgg.pt")
    model = build_model(NARROW.model_copy(update={"encoder_weights": str(tmp_path / "vgg.pt")}), 2)
    x = torch.randn(2, 6, 3, 3)
    first, second = (model.neck.get_submodule(name).conv for name in "01")
    torch.testing.assert_close(first(x).flatten(1), fc6(x.flatten(1)))
    torch.testing.assert_close(second(x[:, :1].expand(-1, 9, -1, -1))[..., 0, 0], fc7(x[:, :1, 0, 0].expand(-1, 9)))

    weights["classifier.0.weight"] = torch.zeros(9, 6 * 7 * 7)
    torch.save(weights, tmp_path / "vgg.pt")
    with pytest.raises(UserError, match=r"'classifier\.0\.weight' is \(9, 294\), the encoder's is \(9, 6, 3, 3\)"):
        build_model(NARROW.model_copy(update={"encoder_weights": str(tmp_path / "vgg.pt")}), 2)
