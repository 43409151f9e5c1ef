"""HTML fragments that several parts of a report use."""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from string import Template

from segnet.classes import Color

_PAGE = 9_400_000  # bytes of a page, without the captions of its pictures
_LEAST_ROOM = 1_000_000  # bytes for all pictures, also where the rest of the page is long


def part(name: str) -> str:
    """The text of a file of this folder."""
    return resources.files("segnet.evaluation").joinpath(name).read_text("utf-8")


class Page:
    """A report that is put together: `parts` are the texts for the places of its template, by their names there."""

    def __init__(self, template: str, title: str, facts: Mapping[str, str]) -> None:
        script = part("report.js")
        rows = (f'<tr><th scope="row">{text_of(key)}</th><td>{text_of(value)}</td></tr>' for key, value in facts.items())
        self.template = template
        self.parts = {
            "title": text_of(title),
            "style": part("base.css") + part("report.css"),
            "script": script,
            # By this digest the page's content security policy knows its own script.
            "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            "fact_rows": "\n".join(rows),
        }

    def room_for_pictures(self) -> int:
        """The bytes that all pictures together may take, beside the parts."""
        used = sum(len(text.encode()) for text in self.parts.values())
        return max(_LEAST_ROOM, (_PAGE - used) * 3 // 4)  # base64 makes four bytes of three

    def text(self, sections: Mapping[str, str], optional: Mapping[str, str]) -> str:
        """The HTML: the template between report_start.html and report_end.html, with the parts in their places.

        The navigation links to `sections`, names by their anchors, without those whose text in `optional` is empty.
        """
        there = {anchor: name for anchor, name in sections.items() if optional.get(anchor, "there")}
        links = "\n".join(f'<a href="#{anchor}">{name}</a>' for anchor, name in there.items())
        files = ("report_start.html", self.template, "report_end.html")
        return "".join(Template(part(file)).substitute(self.parts, navigation=links) for file in files)


def tiles(values: Mapping[str, str]) -> str:
    """The items of the list of tiles, by their labels."""
    return "\n".join(f"<div><dt>{heading(label)}</dt><dd>{value}</dd></div>" for label, value in values.items())


def heading(title: str) -> str:
    """`title` with a capital at its beginning, except for an abbreviation such as mIoU."""
    return title if title[1:2].isupper() else title[0].upper() + title[1:]


def viewer(layers: Sequence[str], *, shown: tuple[str, str], legend: str, gallery: str, note: str = "") -> str:
    """The section of a report with the viewer, whose left and right begin with the layers `shown`, and the gallery of figures.

    `note` goes on after the sentence that names the layers.
    """
    left, right = ("".join(_option(layer, layer == chosen) for layer in layers) for chosen in shown)
    strips = f"Of each picture, from left to right: {', '.join(layers)}.{note}"
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
    """A share in percent with one decimal; a dash for NaN."""
    return "–" if math.isnan(share) else f"{100 * share:.1f}"


def with_unit(share: float) -> str:
    """As `percent`, with the sign."""
    return "–" if math.isnan(share) else f"{100 * share:.1f}\u202f%"


def css_color(color: Color) -> str:
    """The colour as a value of CSS."""
    return f"rgb({color[0]} {color[1]} {color[2]})"


def swatch(background: str) -> str:
    """A small field of a colour, given as `css_color` gives it."""
    return f'<i class="swatch" style="background:{background}"></i>'
