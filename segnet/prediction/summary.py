"""The result of a prediction over many images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from segnet.prediction.inputs import Job
from segnet.system.distributed import gather_texts
from segnet.system.errors import ExitCode, UserError, printable


class Result(NamedTuple):
    """How a job ended: written, failed or, when its outputs were there already, skipped."""

    job: Job
    failure: UserError | None = None
    skipped: bool = False


class Summary(NamedTuple):
    """How many pictures were written and skipped, and why the others failed."""

    written: int
    skipped: int
    failures: tuple[UserError, ...]


def summarize(results: Iterable[Result]) -> Summary:
    """The summary of all ranks' results, the same on each of them."""
    written = skipped = 0
    failures = []
    for _, failure, was_there in results:
        written += not failure and not was_there
        skipped += was_there
        if failure:
            failures.append([int(failure.code), failure.path, failure.found, failure.remedy])
    texts = [json.loads(text) for text in gather_texts(json.dumps([written, skipped, failures]))]
    errors = [UserError(ExitCode(code), *rest) for _, _, failed in texts for code, *rest in failed]
    ordered = tuple(sorted(errors, key=lambda error: error.path))
    return Summary(sum(text[0] for text in texts), sum(text[1] for text in texts), ordered)


def failure_table(failures: Sequence[UserError]) -> str:
    """One line per failed picture – which, what is wrong, the cure – under a heading; nothing when there are none."""
    if not failures:
        return ""
    rows = [("picture", "what", "cure"), *(tuple(map(printable, (e.path, e.found, e.remedy))) for e in failures)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}".rstrip() for row in rows]
    return "\n".join([f"{len(failures)} failed:", *lines, ""])
