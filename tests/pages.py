"""What the pages and the comments of recipes tell people to type: commands of a shell, and examples of Python."""

from __future__ import annotations

import re

from helpers import ROOT, recipes

PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")), *sorted(ROOT.glob("docs/*.md"))]
}
RECIPES = {str(path.relative_to(ROOT)): path.read_text() for path in recipes() if path.parent.name != "model"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:segnet [a-z]+ \S|torchrun |make |sbatch |ogr2ogr |pip install |python \S+\.py \S)[^`]*)`")


def blocks(page: str, *languages: str) -> list[str]:
    """The blocks of a page in these languages; "" is a block without one."""
    return [text for language, text in FENCE.findall(page) if language in languages]


def commands_of(name: str) -> list[str]:
    """The command lines of a page, or of a recipe's comments: those in its blocks, then those that only sentences have."""
    if name in RECIPES:
        found = re.findall(r"^# +(segnet .*)$|: (segnet .*)$", RECIPES[name], re.MULTILINE)
        return list(dict.fromkeys(first or second for first, second in found))
    page = PAGES[name]
    lines = [line for block in blocks(page, "", "bash") for line in lines_of(block)]
    inline = dict.fromkeys(" ".join(text.split()) for text in INLINE.findall(FENCE.sub("", page)))
    return [*lines, *(text for text in inline if text not in lines)]


def lines_of(block: str) -> list[str]:
    """The command lines of a block, without comments; a script that starts with `#!` is one."""
    if block.startswith("#!"):
        return [block]
    joined = re.sub(r"(?<=\\)\n|(?<=\|)\n", " ", block).replace("\\ ", " ")
    lines = [re.sub(r"(^|\s+)# .*$", "", line).strip() for line in joined.splitlines()]
    return [re.sub(r" {2,}", " ", line) for line in lines if line]
