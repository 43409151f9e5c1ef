"""The names that arguments offer are those of the tables that give them their meaning."""

from __future__ import annotations

from typing import get_args

from segnet.benchmarks.gpu import PARTS
from segnet.commands import choices, import_labels
from segnet.importing.recognition import FORMATS as LABEL_FORMATS
from segnet.importing.recognition import NAMES
from segnet.importing.source import Overlap
from segnet.importing.writing import Unlabelled
from segnet.prediction.outputs import OUTPUTS, RESTORED_OUTPUTS
from segnet.preparation.public_sets import PUBLIC_SETS
from segnet.vectors.formats import FORMATS


def test_the_names_are_those_of_the_tables() -> None:
    assert tuple(OUTPUTS) == choices.OUTPUTS
    assert tuple(RESTORED_OUTPUTS) == choices.RESTORED_OUTPUTS
    assert tuple(FORMATS) == choices.POLYGON_FORMATS
    assert choices.LABEL_FORMATS == NAMES
    assert get_args(Overlap) == choices.OVERLAPS
    assert get_args(Unlabelled) == choices.UNLABELLED
    assert tuple(PARTS) == choices.GPU_PARTS
    assert tuple(PUBLIC_SETS) == tuple(choices.PUBLIC_SETS)


def test_the_help_of_import_names_every_format() -> None:
    text = " ".join((import_labels.__doc__ or "").split())
    assert [known.title for known in LABEL_FORMATS.values() if known.title not in text] == []
