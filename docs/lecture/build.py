"""Run lecture.ipynb from top to bottom, and write its outputs, its drawings and its page again.

    python docs/lecture/build.py

Change the notebook, with Jupyter or with an editor, then run this. The page is README.md; a code cell with the tag "hide-input",
which makes a drawing, is left out of it.
"""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NOTEBOOK = HERE / "lecture.ipynb"
PAGE = HERE / "README.md"
NOTE = "<!-- Made from lecture.ipynb by `python docs/lecture/build.py`: change the notebook. -->"


def read_notebook() -> list[dict[str, Any]]:
    """The cells of the notebook."""
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def run_cells(cells: list[dict[str, Any]]) -> list[str]:
    """What each code cell prints, run in order. The drawings are written into the working folder."""
    names: dict[str, Any] = {"__name__": "lecture"}
    printed = []
    sys.path.insert(0, str(HERE))  # of drawing.py, as in Jupyter
    try:
        for number, cell in enumerate(cells):
            if cell["cell_type"] == "code":
                output = io.StringIO()
                with redirect_stdout(output):
                    exec(compile("".join(cell["source"]), f"cell {number} of {NOTEBOOK.name}", "exec"), names)
                printed.append(output.getvalue())
    finally:
        sys.path.remove(str(HERE))
    return printed


def stored_output(cell: dict[str, Any]) -> str:
    """What the notebook says that a code cell prints."""
    return "".join("".join(output["text"]) for output in cell["outputs"])


def page(cells: list[dict[str, Any]]) -> str:
    """The cells and their stored outputs as Markdown."""
    parts = [NOTE]
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif "hide-input" not in cell["metadata"].get("tags", ()):
            parts.append(f"```python\n{source}\n```")
            if output := stored_output(cell):
                parts.append(f"```text\n{output.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    os.chdir(HERE)
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code_cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for count, (cell, text) in enumerate(zip(code_cells, run_cells(notebook["cells"]), strict=True), start=1):
        cell["execution_count"] = count
        stream = {"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}
        cell["outputs"] = [stream] if text else []
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(notebook["cells"]), encoding="utf-8")
    print(f"written: {NOTEBOOK.name}, {PAGE.name} and the drawings in {HERE}")


if __name__ == "__main__":
    main()
