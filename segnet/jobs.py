"""Pictures by the folder: where their outputs go, and predicting one while others are read and written."""

from __future__ import annotations

import errno
import glob
import hashlib
import itertools
import json
import os
import shutil
import sys
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from segnet.distributed import agreed, gather_texts, is_main, refuse_difference, share
from segnet.errors import ExitCode, UserError, printable
from segnet.files import lock_folder, longest_name, make_folder, short_name
from segnet.images import SUFFIXES, open_image, pixel_count
from segnet.inference import WINDOW
from segnet.listing import LeftOut, is_hidden, left_out, left_out_warning, list_pictures
from segnet.manifest import NAME, Manifest, Record
from segnet.outputs import WRITERS, Predicted
from segnet.prediction import Prediction, Predictor
from segnet.runtime import Runtime

VERSION = 1  # of the outputs: raised when the same picture and weights give others
MEMORY = 1 << 30  # bytes, about, of pictures that are read and not yet written
MAX_AHEAD = 16  # pictures, however small
MAX_JPEG = 65_500  # pixels a side that libjpeg writes


class Job(NamedTuple):
    """A picture and where its outputs go: the output path still lacks its suffix."""

    picture: Path
    output: Path


class Result(NamedTuple):
    """How a job ended: written, failed or, when its outputs were there already, skipped."""

    job: Job
    failure: UserError | None = None
    skipped: bool = False


# ---------------------------------------------------------------------------------------------------------------------
# Which pictures, and where to
# ---------------------------------------------------------------------------------------------------------------------


def plan_jobs(inputs: Sequence[str], out: Path) -> list[Job]:
    """One job per picture: OUT / its path below its input folder, without the suffix.

    An input is a picture, a folder (searched recursively, see `list_pictures`) or a glob pattern, whose input folder is the
    part without a wildcard. Pictures below OUT, where OUT lies inside the input folder, and those that a manifest in OUT or
    in the input folder lists are outputs of an earlier call, not inputs.
    Raises UserError (data) when an input gives no picture, (config) when there is none or two pictures would share an output.
    """
    if not inputs:
        raise UserError(ExitCode.CONFIG, "INPUT", "no picture is named", "name a picture, a folder or a quoted glob")
    jobs: dict[Path, Job] = {}
    found = [_pictures_and_manifests(text) for text in inputs]
    folders = {out, *(path.parent for _, manifests in found for path in manifests)}
    own = {_real(folder) / name for folder in folders for name in Manifest(folder).records}
    for text, (pictures, _) in zip(inputs, found, strict=True):
        for picture, relative in pictures:
            if _is_below(picture, out, text) or _real(picture) in own:
                continue
            job = Job(picture, out / relative.with_suffix(""))
            clash = jobs.setdefault(job.output, job)
            if _real(clash.picture) != _real(picture):
                remedy = "predict them into two folders"
                raise UserError(ExitCode.CONFIG, picture, f"would overwrite the mask of {clash.picture}", remedy)
    if not jobs:
        message = "only outputs of an earlier call"
        raise UserError(ExitCode.DATA, ", ".join(inputs), message, "name the folder of the pictures")
    return list(jobs.values())


def passed_over(inputs: Sequence[str], out: Path) -> list[LeftOut]:
    """What looks like a picture in the input folders and is left out by `plan_jobs`."""
    found = [(left, text) for text in inputs if os.path.isdir(text) for left in left_out(list_pictures(Path(text)))]
    return list(dict.fromkeys(left for left, text in found if not _is_below(left.path, out, text)))


def _is_below(path: Path, out: Path, text: str) -> bool:
    """Whether `path`, of the input `text`, lies in a folder of outputs inside that input folder."""
    return _real(Path(text)) in _real(out).parents and _real(out) in _real(path).parents


def _real(path: Path) -> Path:
    """`path` with every link followed; one that leads to itself stays, where `Path.resolve` would raise."""
    return Path(os.path.realpath(path))


def pictures_of(text: str) -> list[tuple[Path, Path]]:
    """(picture, its path below the input folder) for one command-line input, sorted. Raises UserError as `plan_jobs` does."""
    return _pictures_and_manifests(text)[0]


def _pictures_and_manifests(text: str) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """What `pictures_of` says, and where outputs of earlier calls are listed."""
    if not text:
        raise UserError(ExitCode.CONFIG, "INPUT", "an empty name", "name a picture, a folder or a glob; . is this folder")
    path, expected = Path(text), f"expected files ending in {', '.join(sorted(SUFFIXES))}"
    if os.path.isdir(path):
        listing = list_pictures(path)
        if not listing.pictures:
            more = f"; {left_out_warning(left).found} left out" if (left := left_out(listing)) else ""
            raise UserError(ExitCode.DATA, text, f"no pictures here{more}", expected)
        return [(p, p.relative_to(path)) for p in listing.pictures], [p for p in listing.others if p.name == NAME]
    if os.path.exists(path) or not glob.has_magic(text):
        return [(path, Path(path.name))], []
    folder = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
    matches = [(p, p.relative_to(folder)) for p in _matches(text)]
    if not matches:
        raise UserError(ExitCode.DATA, text, "no pictures here", expected)
    return matches, []


def _matches(text: str) -> list[Path]:
    """The files of a glob pattern, sorted: each once, under its shortest path, since links may lead in circles.

    What is hidden is left alone unless the pattern names it.
    """
    named, shortest = Path(text).parts, dict[tuple[str, str], Path]()
    for path in sorted(map(Path, glob.glob(text, recursive=True)), key=lambda path: (len(path.parts), path)):
        hidden = [part for part in path.parts if not part.startswith(".") and is_hidden(part) and part not in named]
        if path.is_file() and not hidden:
            shortest.setdefault((os.path.realpath(path.parent), path.name), path)
    return sorted(shortest.values())


def _check_targets(targets: Sequence[Path], inputs: set[Path]) -> None:
    for target in targets:
        if _real(target) in inputs:
            raise UserError(ExitCode.CONFIG, target, "the output would replace an input picture", "choose another --out")
    for target, count in Counter(targets).items():
        if count > 1:
            raise UserError(ExitCode.CONFIG, target, "two outputs would have this name", "predict them into two folders")
    for folder in {target.parent for target in targets}:
        nearest = next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))
        if not nearest.is_dir():
            raise UserError(ExitCode.CONFIG, nearest, "a file where a folder has to be", "choose another --out")


# ---------------------------------------------------------------------------------------------------------------------
# Reading, predicting and writing at once
# ---------------------------------------------------------------------------------------------------------------------


def predict_jobs(
    predictor: Predictor, jobs: Sequence[Job], out: Path, *, save: Sequence[str], overwrite: bool = False
) -> Generator[Result, None, None]:
    """Predict and write this rank's share of `jobs`, whose outputs are all below `out`; the results come in order.

    Threads read the pictures ahead and write the outputs behind while the network runs in this one. A bad picture does
    not stop the others. What `out`'s manifest says was made from the same bytes and weights is skipped, unless `overwrite`.
    Raises UserError (config), before the first picture, when an output exists that was not made so and `overwrite` is off,
    when two outputs would have one name, an output would replace an input, or a file stands where a folder has to be;
    (environment) when the disk is full or another command writes into `out`. However it ends, every file is whole.
    """
    with ExitStack() as held:
        with agreed():
            work = _Work(predictor, out, save, overwrite=overwrite)
            work.check(jobs)
            if is_main():
                make_folder(out)
                held.enter_context(lock_folder(out))
                work.prepare(jobs)
        refuse_difference(_digest_of(jobs), "pictures to predict")
        yield from _overlapped(work, share(list(jobs)))


def _overlapped(work: _Work, jobs: Sequence[Job]) -> Generator[Result, None, None]:
    """The results of `jobs`: while the network predicts, others are read and written."""
    measured = ((job, _pixels(job.picture)) for job in jobs)
    following, ahead, behind = next(measured, None), deque[_Reading](), deque[_Writing]()
    with _threads(min(4, os.cpu_count() or 1)) as readers, _threads(max(2, work.lanes)) as writers:
        while following or ahead or behind:
            while following and work.has_room([*ahead, *behind], following[1]):
                ahead.append(_Reading(*following, readers.submit(work.read, following[0])))
                following = next(measured, None)
            if ahead:
                behind.append(work.predict(writers, ahead.popleft()))
            while behind and (behind[0].result.done() or not ahead):
                yield behind.popleft().result.result()
                if not ahead:
                    break  # there is room again


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that, once the body is left, finish what they are at and begin nothing more. Each computes on one core."""
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class _Picture(NamedTuple):
    image: Tensor  # (3, H, W) uint8
    digest: str  # SHA-256 of the file


class _Reading(NamedTuple):
    job: Job
    pixels: int
    picture: Future[_Picture | None]  # None: its outputs are there already


class _Writing(NamedTuple):
    pixels: int
    result: Future[Result]


class _Work:
    """What is to be done to every picture of one call, and in which thread."""

    def __init__(self, predictor: Predictor, out: Path, save: Sequence[str], *, overwrite: bool) -> None:
        self.predictor, self.out, self.overwrite = predictor, out, overwrite
        self.kinds = list(dict.fromkeys(save))
        self.manifest = Manifest(out)
        self.settings = settings_digest(predictor)
        per_pixel = 24 + 4 * len(predictor.classes) * ("probabilities" in self.kinds)  # bytes: picture, mask, maps
        self.max_pixels = MEMORY // per_pixel
        self.lanes = _lanes(predictor)

    # ---- before the first picture

    def check(self, jobs: Sequence[Job]) -> None:
        """Raise UserError (config) where an output has no place, or its place is taken. Nothing is written."""
        _check_targets([path for job in jobs for path in self.targets(job)], {_real(job.picture) for job in jobs})
        if self.overwrite:
            return
        there = [(job, path) for job in jobs for path in self.targets(job) if os.path.exists(path)]
        taken = [(path, why) for job, path in there if (why := self._taken(job, path))]
        if taken:
            path, why = taken[0]
            found = f"exists already{why}" + (f", and {len(taken) - 1} more" if len(taken) > 1 else "")
            raise UserError(ExitCode.CONFIG, path, found, "add --overwrite, or choose another --out")

    def _taken(self, job: Job, target: Path) -> str:
        """Why the existing `target` must not be replaced; nothing where it is this job's."""
        record = self.manifest.records.get(self.name_of(target))
        if record is None:
            return " and is not of this program"
        if record.settings != self.settings:
            return ", made with other weights or settings"
        moved = record.picture != self.name_of(job.picture)
        if moved and not (record.done and job.picture.is_file() and record.input == _sha256(job.picture)):
            return f", made from {record.picture}"
        return ""

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Make the folder, and delete what a killed call left of the same outputs."""
        if self.manifest.unreadable:
            print(f"{self.manifest.path}: {self.manifest.unreadable} lines are none of this program's – ignored", file=sys.stderr)
        self.manifest.prepare()
        names = {self.out: {self.manifest.path.name}}
        for target in (path for job in jobs for path in self.targets(job)):
            names.setdefault(target.parent, set()).add(target.name)
        for folder, own in names.items():
            beginnings = own | {short_name(name) for name in own}  # earlier versions wrote long names as they are
            for temporary in folder.glob(".*.[0-9]*.tmp"):
                if temporary.name[1:].rsplit(".", 2)[0] in beginnings:
                    temporary.unlink(missing_ok=True)

    # ---- names

    def targets(self, job: Job) -> list[Path]:
        return [job.output.with_name(job.output.name + WRITERS[kind][0]) for kind in self.kinds]

    def name_of(self, path: Path) -> str:
        """How manifest and JSON name a file: from the folder of all outputs, so that both may be moved together."""
        return os.path.relpath(_real(path.parent) / path.name, _real(self.out))

    # ---- reading, in a thread

    def has_room(self, flying: Sequence[_Reading | _Writing], pixels: int) -> bool:
        """Whether a picture of so many pixels may be read: always one, then as many as there is memory for."""
        in_flight = sum(item.pixels for item in flying)
        return not flying or (len(flying) < MAX_AHEAD + 2 * self.lanes and in_flight + pixels <= self.max_pixels)

    def read(self, job: Job) -> _Picture | None:
        self._require_names(job)
        pixel_count(job.picture)  # refuses what is no plain file before it is hashed
        digest = _sha256(job.picture)  # of what is there before it is decoded: what changes meanwhile is predicted again
        if not self.overwrite and self._is_done(job, digest):
            return None
        image = open_image(job.picture)
        if "overlay" in self.kinds and max(image.shape) > MAX_JPEG:
            found = f"{max(image.shape):,} pixels long; the JPEG of an overlay ends at {MAX_JPEG:,}"
            raise UserError(ExitCode.DATA, job.picture, found, "predict it without overlay")
        return _Picture(image, digest)

    def _require_names(self, job: Job) -> None:
        """Raise UserError (data) where the file system has no name so long as that of an output."""
        limit = longest_name(self.out)
        for kind, target in zip(self.kinds, self.targets(job), strict=True):
            length = len(os.fsencode(target.name))
            if length > limit:
                found = f"the name of its {kind} would have {length} bytes; {limit} fit"
                raise UserError(ExitCode.DATA, job.picture, found, "shorten the picture's name")

    def _is_done(self, job: Job, digest: str) -> bool:
        records = [self.manifest.records.get(self.name_of(path)) for path in self.targets(job) if os.path.exists(path)]
        made_so = (digest, self.settings, True)
        return sum(record is not None and record[2:] == made_so for record in records) == len(self.kinds)

    # ---- the network, in this thread with all cores, or on one core in the thread that then writes

    def predict(self, writers: ThreadPoolExecutor, reading: _Reading) -> _Writing:
        try:
            picture = reading.picture.result()
        except Exception as error:
            return _Writing(0, _ended(_failed(error, reading.job)))
        if picture is None:
            return _Writing(0, _ended(Result(reading.job, skipped=True)))
        if reading.pixels * self.lanes <= WINDOW**2 and self.lanes > 1:  # together no more than a window, nor its memory
            return _Writing(reading.pixels, writers.submit(self._predict_and_write, reading.job, picture))
        try:
            prediction = self._predict(picture)
        except Exception as error:
            return _Writing(0, _ended(_failed(error, reading.job)))
        return _Writing(reading.pixels, writers.submit(self._write, reading.job, picture.digest, prediction))

    def _predict(self, picture: _Picture) -> Prediction:
        return self.predictor.predict(picture.image, probabilities="probabilities" in self.kinds)

    def _predict_and_write(self, job: Job, picture: _Picture) -> Result:
        try:
            prediction = self._predict(picture)
        except Exception as error:
            return _failed(error, job)
        return self._write(job, picture.digest, prediction)

    # ---- writing, in a thread

    def _write(self, job: Job, digest: str, prediction: Prediction) -> Result:
        targets, name = self.targets(job), self.name_of(job.picture)
        record = Record(name, tuple(map(self.name_of, targets)), digest, self.settings)
        try:
            make_folder(job.output.parent)
            self.manifest.add(record)
            self._remove_outdated(job, record)
            for kind, target in zip(self.kinds, targets, strict=True):
                WRITERS[kind][1](target, Predicted(name, prediction, self.predictor.classes))
            self.manifest.add(record._replace(done=True))
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                found = f"{error.strerror}, {shutil.disk_usage(self.out).free / 1e6:,.1f} MB free"
                remedy = "free space, then give the same command again: it goes on here"
                raise UserError(ExitCode.ENVIRONMENT, self.out, found, remedy) from None
            return _failed(error, job)
        return Result(job)

    def _remove_outdated(self, job: Job, record: Record) -> None:
        """Delete this picture's outputs of other kinds that were made from other bytes or weights."""
        for kind, (suffix, _) in WRITERS.items():
            path = job.output.with_name(job.output.name + suffix)
            known = self.manifest.records.get(self.name_of(path)) if kind not in self.kinds else None
            if known and known[2:4] != record[2:4]:
                path.unlink(missing_ok=True)


def settings_digest(predictor: Predictor) -> str:
    """32 hexadecimal digits that depend on all that an output depends on, but for the picture: weights, network, classes,
    how to infer, version."""
    config = predictor.config
    content = hashlib.blake2b(digest_size=16)
    for part in (VERSION, config.model.model_dump_json(), config.inference.model_dump_json(), predictor.classes):
        content.update(f"{part}\0".encode())
    for name, weight in sorted(predictor.model.state_dict().items()):
        content.update(f"{name} {weight.dtype} {tuple(weight.shape)}\0".encode())
        content.update(weight.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return content.hexdigest()


def _digest_of(jobs: Sequence[Job]) -> int:
    """A number that other lists of pictures do not have."""
    content = "\0".join(f"{job.picture}\0{job.output}" for job in jobs).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(content, digest_size=7).digest())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pixels(picture: Path) -> int:
    """Height × width from the header; 0 for a picture that will be refused."""
    try:
        return pixel_count(picture)
    except (UserError, OSError):
        return 0


def _ended(result: Result) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_result(result)
    return future


def _failed(error: Exception, job: Job) -> Result:
    """What to tell of a picture that could not be predicted or written. Raises a bug again."""
    if isinstance(error, UserError):
        return Result(job, error)
    found, remedy = "not enough memory for it", "make it smaller"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename and Path(error.filename) != job.picture else ""
        found, remedy = f"{where}{error.strerror or error}", "mend that, then repeat the command"
    elif not isinstance(error, MemoryError | torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
        raise error
    return Result(job, UserError(ExitCode.ENVIRONMENT, job.picture, found, remedy))


def _lanes(predictor: Predictor) -> int:
    """How many small pictures are predicted at a time: one per core, where the network computes on the cores of torch.

    Convolutions of small pictures gain little from more than one core. Dropout draws from one generator, in order.
    """
    inference, elsewhere = predictor.config.inference, predictor.device.type != "cpu" or isinstance(predictor.model, Runtime)
    return 1 if elsewhere or inference.dropout_samples or inference.compile else torch.get_num_threads()


# ---------------------------------------------------------------------------------------------------------------------
# What has become of them
# ---------------------------------------------------------------------------------------------------------------------


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
