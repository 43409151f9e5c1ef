"""Imports only go down: from a module to one of a lower layer."""

import ast
from pathlib import Path

LAYERS = (
    ("errors", "classes", "layers", "memory", "processes", "rle", "windows"),
    ("distributed", "files", "yaml_tree", "metrics", "losses", "scenes"),
    ("boundaries", "calibration", "comparison", "config", "devices", "downloads"),
    ("cache", "images", "manifest", "pretrained", "transforms", "visualization"),
    ("listing", "split_forms"),
    ("datasets", "models", "reference", "conversion"),
    ("runtime",),
    ("inference", "checkpoint", "preparation", "checking"),
    ("evaluation", "prediction", "run_folder", "stopping"),
    ("training", "outputs", "report", "export"),
    ("jobs", "benchmarks"),
)
PACKAGE = Path(__file__).parent.parent / "segnet"


def imported_modules(path: Path) -> set[str]:
    """The modules of this package that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "segnet":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("segnet."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("segnet.")}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path.name}: relative import"
    return found


def test_every_module_has_a_layer_and_imports_only_lower_ones():
    layer_of = {name: number for number, names in enumerate(LAYERS) for name in names}
    modules = {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    assert modules.keys() == layer_of.keys()
    for name, path in modules.items():
        upward = {other for other in imported_modules(path) if layer_of[other] >= layer_of[name]}
        assert not upward, f"{name} (layer {layer_of[name]}) imports {upward}"


def test_no_module_does_work_when_imported():
    """Nothing but definitions, constants and imports at the top level."""
    for path in PACKAGE.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            assert not isinstance(node, ast.For | ast.While | ast.With | ast.Try), f"{path.name}, line {node.lineno}"


def test_nothing_is_unpickled_or_evaluated():
    """The only way to read a checkpoint is torch.load(weights_only=True)."""
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "pickle.load", "pickle.loads", "yaml.load"}, f"{path.name}, line {node.lineno}"
            if called == "torch.load":
                assert any(k.arg == "weights_only" and k.value.value is True for k in node.keywords), path.name
