"""The files of a page folder: what they hold, what is replaced, and what is refused."""

from __future__ import annotations

import base64
import errno
import json
import re
from pathlib import Path

import pytest
from exported_networks import config_of, trained
from helpers import folder_bytes, refused

from segnet.commands.export import main
from segnet.config.loading import override_config
from segnet.export import ExportResult
from segnet.inference.answers import choose_windows
from segnet.inference.exported import Metadata
from segnet.runs.checkpoint import Checkpoint, save_checkpoint
from segnet.system.errors import ExitCode, UserError
from segnet.web import folder as folder_file
from segnet.web.folder import PART, Exported, export_page, write_page
from segnet.web.onnxruntime_web import BrowserRuntime
from segnet.web.page import page_part

RUNTIME = BrowserRuntime(b"var ort", b"export default 1", b"\0asm")
NETWORK = bytes(range(256)) * 50_000  # 12.8 MB: two files


def exported(*overrides: str, title: str = "toys") -> Exported:
    config = override_config(config_of("deconvolution"), overrides)
    return Exported(NETWORK, config, config.data.class_set, title)


def parts_of(text: str) -> list[tuple[str, bytes]]:
    """What a file hands to `addPart`."""
    calls = re.findall(r'^addPart\("(\w+)", "([\w+/=]+)"\);$', text, re.MULTILINE)
    assert text == "".join(f'addPart("{name}", "{content}");\n' for name, content in calls)
    return [(name, base64.b64decode(content)) for name, content in calls]


def told(index: Path) -> dict[str, object]:
    """What the page knows of its network."""
    line = re.search(r"^(?:<script>)?.*const folder = (.*);$", index.read_text(), re.MULTILINE)
    assert line
    return json.loads(line[1])


def test_the_files_hold_the_network_and_what_runs_it(tmp_path: Path) -> None:
    index = write_page(exported("inference.scales=[0.5, 1.0]", "inference.min_region=7"), tmp_path / "page", RUNTIME)
    assert index == tmp_path / "page" / "index.html"
    names = ["files/runtime.js", "files/network-01.js", "files/network-02.js"]
    found = folder_bytes(tmp_path / "page")
    assert sorted(found) == sorted(["index.html", *names])
    first, *network = [parts_of(found[name].decode("ascii")) for name in names]
    code = "\n".join(["var ort", page_part("clean_up.js"), page_part("worker.js")]).encode()
    assert first == [("code", code), ("glue", RUNTIME.glue), ("wasm", RUNTIME.wasm)]
    assert network == [[("network", NETWORK[:PART])], [("network", NETWORK[PART:])]]
    content = told(index)
    assert content["files"] == names
    assert content["settings"] == {
        "task": "segmentation",
        "channels": 3,
        "scales": [0.5, 1.0],
        "flip": "none",
        "temperature": 1.0,
        "clean_up": {"min_region": 7, "fill_holes": 0},
        "largest": {"side": 1536**2, "pixels": 1536**2},
    }
    assert [name["name"] for name in content["about"]["classes"]] == ["ground", "box", "disc"]
    assert str(tmp_path) not in index.read_text()


def test_the_largest_picture_is_the_largest_that_python_predicts_whole() -> None:
    model = trained(config_of("deconvolution").model)
    for overrides in ([], ["inference.window=64"]):
        one = exported(*overrides)
        largest = folder_file.settings_of(one.config)["largest"]
        side = min(largest["side"], int(largest["pixels"] ** 0.5))
        assert choose_windows(model, (side, side), one.config.inference).size >= side
        assert choose_windows(model, (side + 4, side + 4), one.config.inference).size < side + 4


@pytest.mark.parametrize("scripts", [("browser.js", "files.js", "page.js"), ("clean_up.js", "worker.js")])
def test_scripts_that_run_as_one_have_no_name_in_common(scripts: tuple[str, ...]) -> None:
    declared = re.compile(r"^(?:async )?(?:function|const|let|class) (\w+)", re.MULTILINE)
    names = [name for script in scripts for name in declared.findall(page_part(script))]
    assert sorted(names) == sorted(set(names))


def test_no_text_ends_the_script(tmp_path: Path) -> None:
    title = "</script><script>alert(1)</script>"
    index = write_page(exported(title=title), tmp_path / "page", RUNTIME)
    assert index.read_text().count("<script>") == 1
    assert told(index)["about"]["title"] == title


def test_a_page_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "page"
    write_page(exported(), out, RUNTIME)
    (out / "files" / "network-99.js").write_text("of a larger network")
    write_page(exported(title="again"), out, RUNTIME)
    assert told(out / "index.html")["about"]["title"] == "again"
    assert not (out / "files" / "network-99.js").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["page"]
    (out / "notes.txt").write_text("mine")
    other = tmp_path / "site"
    (other / "files").mkdir(parents=True)
    (other / "index.html").write_text("a site")
    before = folder_bytes(tmp_path)
    for taken in (out, other, out / "notes.txt"):
        with refused(ExitCode.CONFIG, f"{taken.name}: is there already, and is not a page of this program – name another"):
            write_page(exported(), taken, RUNTIME)
    assert folder_bytes(tmp_path) == before


@pytest.mark.parametrize("changes", [["data.channels=4", "data.rgb=[1, 2, 3]"], ["data.scale=dtype"]])
def test_bands_that_browsers_do_not_read_are_refused(tmp_path: Path, changes: list[str]) -> None:
    with refused(ExitCode.CONFIG, "data.channels: the network sees", "– export an .onnx file, or use"):
        write_page(exported(*changes), tmp_path / "page", RUNTIME)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_page(exported(), tmp_path / "page", RUNTIME)
    before = folder_bytes(tmp_path)

    rename = Path.rename

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_at_the_end(path: Path, target: Path) -> Path:
        return full() if path.name == target.name else rename(path, target)  # the new page is called as the old one

    for name, fails in [("write_text", full), ("rename", full_at_the_end)]:
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, fails)
            with refused(ExitCode.ENVIRONMENT, "page: cannot be written: No space left on device – free some space"):
                write_page(exported(title="new"), tmp_path / "page", RUNTIME)
        assert folder_bytes(tmp_path) == before


def test_a_network_that_is_not_exported_is_a_fault_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export_model(model: object, metadata: object, path: Path) -> ExportResult:
        raise UserError(ExitCode.CHECKPOINT, path, "differs from the network")

    monkeypatch.setattr(folder_file, "export_model", export_model)
    config = config_of("deconvolution")
    with refused(ExitCode.CHECKPOINT, f"{tmp_path / 'page'}: differs from the network"):
        metadata = Metadata(config, 7, None)
        export_page(trained(config.model), metadata, config.data.class_set, tmp_path / "page", RUNTIME, title="toys")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_a_page_and_says_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of("deconvolution")
    (tmp_path / "toys").mkdir()
    weights = dict(trained(config.model).state_dict())
    save_checkpoint(tmp_path / "toys" / "best.pt", Checkpoint(config, step=3, score=0.25, weights=weights))
    (tmp_path / "dist").mkdir()
    for name, content in zip(
        ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"), RUNTIME, strict=True
    ):
        (tmp_path / "dist" / name).write_bytes(content)

    def export_model(model: object, metadata: object, path: Path) -> ExportResult:
        path.write_bytes(NETWORK)
        return ExportResult((path,), 1e-7, None)

    monkeypatch.setattr(folder_file, "export_model", export_model)  # the graph itself is tested elsewhere
    where = ["--out", f"{tmp_path}/page/", "--runtime", str(tmp_path / "dist")]
    main([str(tmp_path / "toys"), "inference.flip=horizontal", *where])
    index = tmp_path / "page" / "index.html"
    assert capsys.readouterr().out.splitlines()[-2:] == [f"written: {index}", f"open {index.as_uri()} in a browser"]
    assert told(index)["about"]["title"] == "toys"
    assert told(index)["settings"]["flip"] == "horizontal"
