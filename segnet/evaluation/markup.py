"""HTML fragments that several parts of a report use."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from string import Template

from segnet.classes import Color


def part(name: str) -> str:
    return resources.files("segnet.evaluation").joinpath(name).read_text("utf-8")


def page(name: str, parts: Mapping[str, str]) -> str:
    """A whole report: the file `name` between report_start.html and report_end.html, with `parts` put into their places."""
    return "".join(Template(part(each)).substitute(parts) for each in ("report_start.html", name, "report_end.html"))


def viewer(layers: Sequence[str], *, shown: tuple[str, str], strips: str, legend: str, gallery: str) -> str:
    """The section of a report with the viewer, whose left and right begin with the layers `shown`, and the gallery of figures."""
    left, right = ("".join(_option(layer, layer == chosen) for layer in layers) for chosen in shown)
    return Template(part("report_pictures.html")).substitute(
        left=left, right=right, strips=strips, legend=legend, gallery=gallery
    )


def _option(layer: str, selected: bool) -> str:
    return f'<option value="{layer}"{" selected" if selected else ""}>{layer}</option>'


def figure(
    layers: Mapping[str, bytes],
    words: Mapping[str, str],
    *,
    size: tuple[int, int],
    name: str,
    scores: str,
    more: str,
    anchor: str = "",
) -> str:
    """One picture as an item of a list: all its layers, the first of which opens the viewer, and its scores.

    `layers` are WebP files of (height, width) `size`, `words` say what each shows; `name` is escaped already.
    `anchor` is the id of the item.
    """
    height, width = size
    tags = []
    for layer, content in layers.items():
        source = f"data:image/webp;base64,{base64.b64encode(content).decode()}"
        tags.append(f'<img data-layer="{layer}" alt="{words[layer]}" width="{width}" height="{height}" src="{source}">')
    caption = f'<bdi>{name}</bdi> <span>{scores}<span class="more">{more}</span></span>'
    opener = f'<button type="button" disabled>{tags[0]}</button>'
    item = f'<li id="{anchor}">' if anchor else "<li>"
    return f'{item}<figure><div class="layers">{opener}{"".join(tags[1:])}</div><figcaption>{caption}</figcaption></figure></li>'


def text_of(value: str) -> str:
    """`value` escaped for an element or a quoted attribute; a character that UTF-8 lacks becomes a question mark."""
    return html.escape(value.encode("utf-8", "replace").decode())


def percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}"


def with_unit(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}\u202f%"


def css_color(color: Color) -> str:
    return f"rgb({color[0]} {color[1]} {color[2]})"


def swatch(background: str) -> str:
    return f'<i class="swatch" style="background:{background}"></i>'
