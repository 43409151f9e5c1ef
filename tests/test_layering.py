"""The docstring of `segnet` lists every file, files import only files that stand before them, and the tests mirror them."""

import ast
import re
from pathlib import Path

from helpers import ROOT

PACKAGE = ROOT / "segnet"
FILES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in PACKAGE.rglob("*.py") if path.stem != "__init__"}


def tree() -> str:
    """The list in the docstring, one line or more for each folder or file."""
    docstring = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text()))
    assert docstring
    return docstring.split("\n\n")[2]


def listed_files() -> list[str]:
    """Every file of the list, in its order: "classes", "system/errors", …"""
    names = []
    for entry in re.split(r"\n(?=\w)", tree()):
        name, text = entry.split(maxsplit=1)
        files = text.rpartition(": ")[2].split("·") if name.endswith("/") else [""]
        names += [name + file.strip() for file in files]
    return names


def imported_files(path: Path) -> set[str]:
    """The files of this package that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "segnet" for alias in node.names), f"{path}: import segnet"
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            if (node.module or "").split(".")[0] == "segnet":
                found.add("/".join((node.module or "").split(".")[1:]))
    return found


def test_the_list_names_every_file_once():
    listed = listed_files()
    assert len(listed) == len(set(listed))
    unlisted, gone = set(FILES) - set(listed), set(listed) - set(FILES)
    assert not unlisted | gone, f"the list in segnet/__init__.py lacks {sorted(unlisted)} and names {sorted(gone)}"


def test_the_readme_prints_the_list():
    printed = tree() in (ROOT / "docs" / "architecture.md").read_text()
    assert printed, "docs/architecture.md has another list than segnet/__init__.py"


def test_a_file_imports_only_files_before_it():
    order = {name: number for number, name in enumerate(listed_files())}
    for name, path in FILES.items():
        for other in imported_files(path):
            assert other in FILES, f"{name} imports {other}: name the file, not its folder"
            after = order.get(other, -1) < order.get(name, len(order))  # those that are not listed are the first test's
            assert after, f"{name} imports {other}, which stands after it in the list of segnet/__init__.py"


def test_a_folder_has_no_third_level_and_a_subject_with_one_file_is_a_file():
    for folder in {path.parent for path in FILES.values()} - {PACKAGE}:
        assert folder.parent == PACKAGE
        assert len(list(folder.glob("*.py"))) >= 4, f"{folder.name}: fewer than three files"


def test_no_private_name_crosses_a_file():
    for name, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("segnet"):
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                assert not private, f"{name} imports {private}"


def test_no_file_does_work_when_imported():
    """Nothing but definitions, constants and imports at the top level."""
    for path in FILES.values():
        for node in ast.parse(path.read_text()).body:
            assert not isinstance(node, ast.For | ast.While | ast.With | ast.Try), f"{path.name}, line {node.lineno}"


def test_nothing_is_unpickled_or_evaluated():
    """The only way to read a checkpoint is torch.load(weights_only=True)."""
    for path in FILES.values():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "pickle.load", "pickle.loads", "yaml.load"}, f"{path.name}, line {node.lineno}"
            if called == "torch.load":
                assert any(k.arg == "weights_only" and k.value.value is True for k in node.keywords), path.name


def test_the_tests_of_a_file_are_called_after_it():
    """tests/FOLDER/test_FILE.py, or test_FILE_part.py where they are many; tests of several folders stand above these."""
    for folder in {path.parent for path in FILES.values()} - {PACKAGE}:
        files = [f"test_{path.stem}" for path in folder.glob("*.py")]
        files += ["test_boundaries"] if folder.name == "metrics" else []  # of boundary_f1 and boundary_iou, on the same masks
        for path in (ROOT / "tests" / folder.name).glob("test_*.py"):
            assert path.stem in files or path.stem.startswith(tuple(f"{name}_" for name in files)), path


def test_no_test_imports_from_another_and_none_has_headings():
    """What several files of tests share is a fixture in a conftest.py, or stands in a file that is no test."""
    for path in (ROOT / "tests").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"^\s*(from|import) (\w+\.)*(test_\w+|conftest)\b", text, re.MULTILINE), path
        assert not re.search(r"^# ?[-=]{3}", text, re.MULTILINE), f"{path}: make it several files"
