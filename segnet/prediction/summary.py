"""The result of a prediction over many images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from segnet.prediction.inputs import Job
from segnet.system.distributed import gather_texts
from segnet.system.errors import ExitCode, UserError, printable


class Result(NamedTuple):
    """The end of a job: written, failed or skipped."""

    job: Job
    failure: UserError | None = None
    skipped: bool = False  # its outputs were valid already


class Summary(NamedTuple):
    """The results of all pictures, on all ranks."""

    written: int  # pictures
    skipped: int  # pictures
    failures: tuple[UserError, ...]  # one per picture, sorted by path


def summarize(results: Iterable[Result]) -> Summary:
    """The summary of the results of all ranks, the same on every rank. Consumes this rank's `results` first."""
    own: dict[str, Any] = {"written": 0, "skipped": 0, "failures": []}
    for result in results:
        if result.failure:
            error = result.failure
            own["failures"].append([int(error.code), error.path, error.found, error.remedy])
        elif result.skipped:
            own["skipped"] += 1
        else:
            own["written"] += 1
    ranks = [json.loads(text) for text in gather_texts(json.dumps(own))]
    errors = [UserError(ExitCode(code), *rest) for each in ranks for code, *rest in each["failures"]]
    written = sum(each["written"] for each in ranks)
    skipped = sum(each["skipped"] for each in ranks)
    return Summary(written, skipped, tuple(sorted(errors, key=lambda error: error.path)))


def failure_table(failures: Sequence[UserError]) -> str:
    """A table with a line per failed picture: its path, what was found, the cure. Empty when there are no failures."""
    if not failures:
        return ""
    rows = [("picture", "what", "cure"), *(tuple(map(printable, (e.path, e.found, e.remedy))) for e in failures)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}".rstrip() for row in rows]
    return "\n".join([f"{len(failures)} failed:", *lines, ""])
