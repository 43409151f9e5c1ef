"""Exported files compute what the network does, or are not kept."""

import errno
import json
import sys

import pytest
import torch
from exported_networks import FORMATS, NETWORKS, SIZES, config_of, noise, trained
from helpers import folder_bytes, refused, write_picture

from segnet import export
from segnet.export import export_model, largest_difference
from segnet.inference.exported import Metadata, load_exported
from segnet.models.folding import fold
from segnet.runs.checkpoint import Checkpoint, save_checkpoint
from segnet.system.errors import ExitCode

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("package", FORMATS)
def test_any_batch_and_size_gives_the_logits_of_the_network(exported, package, name):
    model, path = exported(package, name)
    run = load_exported(path).model
    for size in SIZES:
        for batch in (1, 3):
            image = noise(batch, size)
            with torch.no_grad():
                expected = model(image)
            torch.testing.assert_close(run(image), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_a_file_may_have_any_name_that_fits(tmp_path):
    config = config_of("bilinear")
    path = tmp_path / f"{'x' * 251}.pt2"
    export_model(trained(config.model), Metadata(config, 7, 0.5), path)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["deconvolution", "neck", "strided"])
def test_a_program_of_torch_gives_them_too(tiny_config, tmp_path, name):
    model = trained(NETWORKS[name])
    export_model(model, Metadata(tiny_config, 7, None), tmp_path / "a.pt2")
    extra = {export.METADATA_FILE: ""}
    program = torch.export.load(tmp_path / "a.pt2", extra_files=extra).module(check_guards=False)
    assert Metadata.from_json(extra[export.METADATA_FILE], tmp_path) == Metadata(tiny_config, 7, None)
    for batch, size in [(1, (4, 5)), (3, (9, 7)), (1, (33, 47)), (3, (16, 24))]:
        image = noise(batch, size).float()
        with torch.no_grad():
            expected = model(image)
        torch.testing.assert_close(program(image), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_the_graph_compares_codes_and_scatters_nothing(exported):
    import onnx

    _, path = exported("onnxruntime")
    graph = onnx.load(path).graph
    operations = {node.op_type for node in graph.node}
    assert "Conv" in operations
    assert not operations & {"ScatterND", "ScatterElements", "ConvTranspose", "BatchNormalization", "MaxUnpool", "If"}
    shape = [axis.dim_param or axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", 3, "height", "width"]


@pytest.fixture
def pictures(tmp_path):
    return [write_picture(tmp_path / "pictures" / f"{index}.png", (40, 51), index) for index in range(3)]


def test_int8_computes_in_bytes_and_says_how_many_pixels_agree(tiny_config, tmp_path, pictures, monkeypatch):
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    monkeypatch.setattr(export, "AGREEMENT", 0.8)  # of noise; where -inf is calibrated too it is half
    model = trained(tiny_config.model)
    report = export_model(model, Metadata(tiny_config, 7, None), tmp_path / "a.xml", pictures)
    assert 0.8 <= report.agreement < 1
    assert report.difference is None
    assert 'type="FakeQuantize"' in (tmp_path / "a.xml").read_text()
    loaded = load_exported(tmp_path / "a.xml")
    assert loaded.metadata.quantized
    assert loaded.model(noise(3, (33, 47))).shape == (3, 3, 33, 47)

    monkeypatch.setattr(export, "AGREEMENT", 1.1)
    before = folder_bytes(tmp_path)
    with refused(ExitCode.CHECKPOINT, "a.xml: in int8", "change their answer; nothing was written"):
        export_model(model, Metadata(tiny_config, 7, None), tmp_path / "a.xml", pictures)
    assert folder_bytes(tmp_path) == before


def test_int8_is_openvinos(tiny_config, tmp_path, pictures):
    with refused(ExitCode.CONFIG, "int8 is for OpenVINO – name a file that ends in .xml"):
        export_model(trained(tiny_config.model), Metadata(tiny_config, 7, None), tmp_path / "a.onnx", pictures)


@pytest.fixture
def run(tiny_run, tiny_config):
    """A run folder with batch statistics of its own."""
    weights = dict(trained(tiny_config.model).state_dict())
    save_checkpoint(tiny_run / "best.pt", Checkpoint(tiny_config, step=3, score=0.25, weights=weights))
    return tiny_run


def test_predict_and_evaluate_take_the_file_like_the_checkpoint(run_script, run, tiny_data, tmp_path):
    pytest.importorskip("openvino")
    path = tmp_path / "network.xml"
    done = run_script("export", run, "--out", path)
    assert done.returncode == 0, done.stderr
    assert f"written: {path}" in done.stdout
    scores = []
    for source, out in ((run, tmp_path / "a"), (path, tmp_path / "b")):
        found = run_script("predict", source, tiny_data / "JPEGImages", "--out", out / "masks", "--save", "mask")
        assert found.returncode == 0, found.stderr
        found = run_script("evaluate", source, "--out", out / "scores", "device=cpu")
        assert found.returncode == 0, found.stderr
        scores.append(json.loads((out / "scores" / "metrics.json").read_text())["miou"])
    a, b = (folder_bytes(tmp_path / out / "masks") for out in "ab")
    masks = [{name: data for name, data in folder.items() if name.endswith(".png")} for folder in (a, b)]
    assert len(masks[0]) == 9
    assert masks[0] == masks[1]
    assert scores[0] == scores[1]
    again = run_script("predict", path, tiny_data / "JPEGImages", "--out", tmp_path / "b" / "masks")
    assert "9 were there already" in again.stdout


def test_mistakes_of_the_command(run_script, run, tmp_path):
    for arguments, code, message in [
        ([run, "--out", tmp_path / "a.tflite"], 2, "a.tflite: ends in '.tflite' – name a file that ends in .onnx, .xml, .pt2"),
        ([tmp_path, "--out", tmp_path / "a.onnx"], 4, "no best.pt"),
        ([run, "--out", tmp_path / "a.xml", "--int8", tmp_path / "none"], 3, "none: no such file"),
    ]:
        found = run_script("export", *arguments)
        assert (found.returncode, len(found.stderr.splitlines())) == (code, 1), found.stderr
        assert message in found.stderr


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "openvino", "nncf"])
def test_a_package_that_is_absent_is_named(tiny_config, tmp_path, pictures, monkeypatch, package):
    if package != "openvino":
        pytest.importorskip("openvino")
    monkeypatch.setitem(sys.modules, package, None)
    before = folder_bytes(tmp_path)
    with refused(ExitCode.ENVIRONMENT, f"the package {package} is not installed here – pip install {package}"):
        export_model(trained(tiny_config.model), Metadata(tiny_config, 7, None), tmp_path / "a.xml", pictures)
    assert folder_bytes(tmp_path) == before


def test_a_network_that_differs_is_not_kept(tiny_config, tmp_path, monkeypatch):
    trace, before = export.trace, folder_bytes(tmp_path)

    def wrong(model):
        other = fold(model)
        other.head.weight.data *= 1.01
        return trace(other)

    monkeypatch.setattr(export, "trace", wrong)
    with refused(ExitCode.CHECKPOINT, "a.onnx: differs from the network by", "nothing was written"):
        export_model(trained(tiny_config.model), Metadata(tiny_config, 7, None), tmp_path / "a.onnx")
    assert folder_bytes(tmp_path) == before


def test_differences_are_looked_for_in_the_last_row_and_in_larger_batches(tiny_config):
    model = fold(trained(tiny_config.model))

    def last_row(image):
        logits = model(image)
        if image.shape[-2] % 2:
            logits[..., -1, :] = 0
        return logits

    assert largest_difference(model, model) == 0
    assert largest_difference(model, last_row) > 0.05
    assert largest_difference(model, lambda image: model(image[:1]).expand(len(image), -1, -1, -1)) > 0.05
    assert largest_difference(model, lambda image: model(image) * float("nan")) == float("inf")
    assert largest_difference(model, lambda image: model(image)[..., 1:]) == float("inf")


def test_a_full_disk_leaves_nothing(tiny_config, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.xml").write_text("what was there")
    before = folder_bytes(tmp_path)
    monkeypatch.setattr("segnet.system.files.sync_to_disk", full)
    with refused(ExitCode.ENVIRONMENT, "a.xml: cannot be written: No space left on device – free some space"):
        export_model(trained(tiny_config.model), Metadata(tiny_config, 7, None), tmp_path / "a.xml")
    assert folder_bytes(tmp_path) == before
