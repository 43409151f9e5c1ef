"""HTML fragments that several parts of a report use."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from importlib import resources
from string import Template

from segnet.classes import Color


def part(name: str) -> str:
    return resources.files("segnet.evaluation").joinpath(name).read_text("utf-8")


def page(name: str, parts: Mapping[str, str]) -> str:
    """A whole report: the file `name` between report_start.html and report_end.html, with `parts` put into their places."""
    return "".join(Template(part(each)).substitute(parts) for each in ("report_start.html", name, "report_end.html"))


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
