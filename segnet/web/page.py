"""The page on which people try a network in their browser: one HTML file without any other.

`page.js` is its user interface; which `backend` computes, a script given to `build_page` says.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from string import Template
from typing import NamedTuple

from segnet.evaluation.markup import part


class Page(NamedTuple):
    """A page and what it may load."""

    html: str
    policy: str  # its Content-Security-Policy, which stands in the page, too


def build_page(backend: str, *, scripts: str = "", connections: str = "'self'") -> Page:
    """The page whose script `backend` defines the object `backend` that page.js describes.

    Only its own script and style run. `scripts` are further sources of the policy's script-src, and `connections` those of its
    connect-src.
    """
    script = "\n".join([backend, page_part("files.js"), page_part("page.js")])
    style = part("base.css") + page_part("page.css")
    rules = {
        "default-src": "'none'",
        "script-src": f"{_digest(script)} {scripts}".strip(),
        "style-src": _digest(style),
        "img-src": "data: blob:",
        "connect-src": connections,
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    policy = "; ".join(f"{name} {sources}" for name, sources in rules.items())
    return Page(Template(page_part("page.html")).substitute(policy=policy, style=style, script=script), policy)


def page_part(name: str) -> str:
    """The text of a file of this folder."""
    return resources.files("segnet.web").joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    """The source of a policy that allows exactly this inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
