"""Small SVG drawings of cells, arrows and labels, readable on light and on dark pages. The notebook draws with it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

SIDE = 44  # of a cell, in pixels
STEP = 48  # from the centre of a cell to that of its neighbour in a grid
Point = tuple[float, float]

FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"
LIGHT = {"paper": "#ffffff", "ink": "#1f2328", "muted": "#59636e", "edge": "#8c959f", "over": "#ffffff"}
LIGHT |= {"a": "#0b69c7", "b": "#b35900", "c": "#0f7b46", "d": "#8a3fb8"}
DARK = {"paper": "#161b22", "ink": "#e6edf3", "muted": "#9da7b3", "edge": "#6e7781", "over": "#10151b"}
DARK |= {"a": "#6cb6ff", "b": "#f0a04b", "c": "#57c98a", "d": "#d2a8ff"}


class Drawing:
    """A drawing on its own paper. All places are centres, in pixels from the left and from the top.

    Kinds of a cell: "a", "b", "c" and "d" are four colours; with "!" behind it the cell is filled. "zero" is dashed, "" is plain.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        """`title` is what a screen reader says."""
        self.size = width, height
        self.title = title
        self.shapes: list[str] = []

    def cell(self, place: Point, text: object = "", kind: str = "", *, width: float = SIDE) -> Point:
        """A box with a text in it. Returns its place."""
        x, y = place
        color, filled = kind.rstrip("!") or "plain", kind.endswith("!")
        box = f'x="{x - width / 2:g}" y="{y - SIDE / 2:g}" width="{width:g}" height="{SIDE}" rx="6"'
        self.shapes.append(f'<rect class="cell {color}{" filled" if filled else ""}" {box}/>')
        if str(text):
            look = "over" if filled else "muted" if color == "zero" else ""
            self.text(place, text, look or ("long" if len(str(text)) > 3 and width == SIDE else ""))
        return place

    def row(
        self, place: Point, texts: Sequence[object], kinds: Sequence[str] = (), *, step: float = STEP, width: float = SIDE
    ) -> list[Point]:
        """Cells from left to right, the first at `place`; those without a kind are plain. Returns their places."""
        kinds = [*kinds, *[""] * (len(texts) - len(kinds))]
        places = [(place[0] + step * index, place[1]) for index in range(len(texts))]
        return [self.cell(*cell, width=width) for cell in zip(places, texts, kinds, strict=True)]

    def grid(self, place: Point, rows: Sequence[Sequence[object]], kinds: Sequence[Sequence[str]] = ()) -> list[list[Point]]:
        """Cells row by row, the first at `place`. Returns their places."""
        kinds = kinds if len(kinds) else [()] * len(rows)
        places = [(place[0], place[1] + STEP * index) for index in range(len(rows))]
        return [self.row(*line) for line in zip(places, rows, kinds, strict=True)]

    def map(self, place: Point, shades: Sequence[Sequence[float]], kind: str = "a", *, side: int = 20) -> None:
        """A map of small cells, its top left corner at `place`; shades are 0 pale .. 1 full colour."""
        boxes: dict[str, str] = {}
        for row, line in enumerate(shades):
            for column, shade in enumerate(line):
                opacity = f"{0.06 + 0.9 * shade:.2f}"
                corner = f"M{place[0] + side * column:g} {place[1] + side * row:g}"
                boxes[opacity] = boxes.get(opacity, "") + f"{corner}h{side}v{side}h-{side}z"
        for opacity, path in boxes.items():
            self.shapes.append(f'<path class="pixel {kind}" fill-opacity="{opacity}" d="{path}"/>')

    def block(self, place: Point, width: float, height: float, kind: str = "a") -> None:
        """A box of any size without a text."""
        box = f'x="{place[0] - width / 2:g}" y="{place[1] - height / 2:g}" width="{width:g}" height="{height:g}" rx="4"'
        self.shapes.append(f'<rect class="cell {kind}" {box}/>')

    def text(self, place: Point, text: object, kind: str = "", *, anchor: str = "middle") -> None:
        """A text; kinds: "" · "muted" · "small" · "bold" · a colour; `anchor` is start, middle or end."""
        look = f' class="{kind}"' if kind else ""
        side = "" if anchor == "middle" else f' text-anchor="{anchor}"'
        self.shapes.append(f'<text{look}{side} x="{place[0]:g}" y="{place[1] + 5.5:g}">{html.escape(str(text))}</text>')

    def arrow(self, start: Point, end: Point, kind: str = "plain", text: str = "") -> None:
        """An arrow from below the cell at `start` to above the cell at `end`, with a text in its middle.

        It ends a little to the left or right of the middle where it comes from there.
        """
        aside = min(max(0.16 * (start[0] - end[0]), -16), 16)
        (x1, y1), (x2, y2) = (start[0], start[1] + SIDE / 2 + 3), (end[0] + aside, end[1] - SIDE / 2 - 5)
        self.line((x1, y1), (x2, y2), kind, head=True)
        if text:
            middle = (x1 + x2) / 2, (y1 + y2) / 2
            self.shapes.append(f'<circle class="paper" cx="{middle[0]:g}" cy="{middle[1]:g}" r="11"/>')
            self.text(middle, text, kind)

    def line(self, start: Point, end: Point, kind: str = "plain", *, head: bool = False) -> None:
        """A line; with `head` it ends in an arrow head."""
        ends = f'x1="{start[0]:g}" y1="{start[1]:g}" x2="{end[0]:g}" y2="{end[1]:g}"'
        marker = f' marker-end="url(#{kind})"' if head else ""
        self.shapes.append(f'<line class="line {kind}" {ends}{marker}/>')

    def frame(self, place: Point, width: float, height: float, kind: str = "a") -> None:
        """A thick outline around cells."""
        box = f'x="{place[0] - width / 2:g}" y="{place[1] - height / 2:g}" width="{width:g}" height="{height:g}" rx="9"'
        self.shapes.append(f'<rect class="frame {kind}" {box}/>')

    def save(self, name: str) -> None:
        """Write the drawing into the working folder, which is that of the notebook."""
        width, height = self.size
        box = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        used = [kind for kind in ("plain", "a", "b", "c", "d") if any(f"url(#{kind})" in shape for shape in self.shapes)]
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img">',
            f"<title>{html.escape(self.title)}</title>",
            f"<style>{_shapes()}{_colors(LIGHT)}@media (prefers-color-scheme:dark){{{_colors(DARK)}}}</style>",
            *(f"<defs>{''.join(map(_head, used))}</defs>" for _ in used[:1]),
            f'<rect class="paper" width="{width}" height="{height}" rx="10"/>',
            *self.shapes,
            "</svg>\n",
        ]
        Path(name).write_text("\n".join(lines), encoding="utf-8")


def _head(kind: str) -> str:
    """The arrow head of a kind of line."""
    place = 'viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7" orient="auto"'
    return f'<marker id="{kind}" {place}><path class="head {kind}" d="M0 1L9 5L0 9z"/></marker>'


def _shapes() -> str:
    """The rules for sizes and lines."""
    return (
        f"text{{font:16px {FONT};text-anchor:middle}}.small,.muted,.long{{font-size:14px}}.bold{{font-weight:600}}"
        "[text-anchor=start]{text-anchor:start}[text-anchor=end]{text-anchor:end}"
        ".cell{stroke-width:1.5}.zero{stroke-dasharray:3 3}.line{stroke-width:1.8}.frame{fill:none;stroke-width:2.5}"
    )


def _colors(colors: dict[str, str]) -> str:
    """The rules for one colour scheme."""
    ink, muted, edge, paper = colors["ink"], colors["muted"], colors["edge"], colors["paper"]
    rules = [
        f"text{{fill:{ink}}}.muted,.small{{fill:{muted}}}.over{{fill:{colors['over']};font-weight:600}}.paper{{fill:{paper}}}",
        f".plain,.zero{{fill:none;stroke:{edge}}}.line.plain{{stroke:{edge}}}.head.plain{{fill:{edge};stroke:none}}",
    ]
    for kind in "abcd":
        color = colors[kind]
        rules.append(f".cell.{kind}{{fill:{color};fill-opacity:.14;stroke:{color}}}.line.{kind},.frame.{kind}{{stroke:{color}}}")
        rules.append(f".pixel.{kind}{{fill:{color};stroke:{color};stroke-opacity:.35}}")
        rules.append(
            f".cell.{kind}.filled{{fill-opacity:1}}text.{kind},.head.{kind}{{fill:{color}}}text.{kind}{{font-weight:600}}"
        )
    return "".join(rules)
