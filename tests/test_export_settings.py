"""An exported file and its run give one answer: what the graph does not compute is in the file, and the command says so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exported_networks import trained
from helpers import ROOT, refused, write_picture

from segnet.commands.export import main
from segnet.config.sections import Config, InferenceConfig
from segnet.export import export_model, settings_beside
from segnet.inference.exported import Metadata
from segnet.inference.predictor import Predictor
from segnet.runs.checkpoint import Checkpoint, save_checkpoint
from segnet.system.errors import ExitCode

SETTINGS = ["inference.flip=horizontal", "inference.temperature=1.5", "inference.min_region=9", "inference.fill_holes=4"]


def example() -> str:
    """The onnxruntime example of the docs."""
    block = re.search(r"^```python\n(.*?)^```$", (ROOT / "docs" / "export.md").read_text(), re.DOTALL | re.MULTILINE)
    assert block
    return block[1]


def save_run(folder: Path, config: Config) -> Path:
    """A run folder whose network has batch statistics of its own."""
    folder.mkdir()
    weights = dict(trained(config.model).state_dict())
    save_checkpoint(folder / "best.pt", Checkpoint(config, step=3, score=0.25, weights=weights))
    return folder


def test_a_file_has_the_answer_of_its_run(
    tmp_path: Path, tiny_config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    run = save_run(tmp_path / "run", tiny_config)
    picture = write_picture(tmp_path / "street.jpg", (45, 38))
    monkeypatch.chdir(tmp_path)
    main([str(run), "--out", "mine.onnx", *SETTINGS])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"not in the graph: {' '.join(SETTINGS)} – the commands evaluate and predict apply them, other programs must"
    of_run, of_file = Predictor(run, SETTINGS).predict(picture), Predictor("mine.onnx").predict(picture)
    plain = Predictor(run).predict(picture)
    assert np.array_equal(of_file.mask, of_run.mask)
    assert not np.array_equal(of_file.mask, plain.mask)
    assert np.allclose(of_file.confidence, of_run.confidence, atol=1e-4)
    assert not np.allclose(of_file.confidence, plain.confidence, atol=1e-2)

    before_cleanup = Predictor("mine.onnx", ["inference.min_region=0", "inference.fill_holes=0"]).predict(picture)
    found: dict[str, Callable[[], object] | np.ndarray] = {}
    exec(example(), found)
    assert np.array_equal(found["mask"], before_cleanup.mask)


def test_the_example_refuses_what_it_does_not_do() -> None:
    assert 'assert inference["scales"] == [1.0]' in example()


def test_the_settings_beside_a_graph_are_those_that_change_an_answer() -> None:
    assert settings_beside(InferenceConfig()) == []
    assert settings_beside(InferenceConfig(window=512, precision="float32")) == []
    changed = InferenceConfig(scales=(0.5, 1.0), flip="dihedral", min_region=3)
    assert settings_beside(changed) == ["inference.scales=[0.5, 1.0]", "inference.flip=dihedral", "inference.min_region=3"]


def test_dropout_samples_are_refused(tmp_path: Path, tiny_config: Config) -> None:
    config = tiny_config.model_copy(update={"inference": InferenceConfig(dropout_samples=8)})
    with refused(ExitCode.CONFIG, "inference.dropout_samples: 8, but an exported network has no dropout – add"):
        export_model(trained(config.model), Metadata(config, 7, None), tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--out", "a.onnx", "--runtime", "a.tgz"], "--runtime is for a page"),
        (["--out", "page", "--int8", "."], "--int8 is for OpenVINO"),
    ],
)
def test_options_of_other_formats_are_refused(options: list[str], found: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["run", *options])
    assert end.value.code == 2
    assert found in capsys.readouterr().err
