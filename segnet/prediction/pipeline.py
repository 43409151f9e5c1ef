"""Pictures by the folder: where their outputs go, and predicting one while others are read and written."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from segnet.data.images import open_image, pixel_count
from segnet.inference.answers import WINDOW
from segnet.inference.exported import Runtime
from segnet.inference.predictor import Prediction, Predictor
from segnet.prediction.existing import digest_of_picture, settings_digest
from segnet.prediction.inputs import Job, check_targets, real_path
from segnet.prediction.manifest import Manifest, Record
from segnet.prediction.outputs import WRITERS, Predicted
from segnet.prediction.summary import Result
from segnet.system.digests import sha256_of
from segnet.system.distributed import agreed, is_main, require_same_on_all_ranks, this_ranks_part
from segnet.system.errors import ExitCode, UserError
from segnet.system.files import lock_folder, longest_name, make_folder, short_name

MEMORY = 1 << 30  # bytes, about, of pictures that are read and not yet written
MAX_AHEAD = 16  # pictures, however small
MAX_JPEG = 65_500  # pixels a side that libjpeg writes


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
            work = FolderPrediction(predictor, out, save, overwrite=overwrite)
            work.check(jobs)
            if is_main():
                make_folder(out)
                held.enter_context(lock_folder(out))
                work.prepare(jobs)
        require_same_on_all_ranks(digest_of_picture(jobs), "pictures to predict")
        yield from _overlapped(work, this_ranks_part(list(jobs)))


def _overlapped(work: FolderPrediction, jobs: Sequence[Job]) -> Generator[Result, None, None]:
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


class FolderPrediction:
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
        check_targets([path for job in jobs for path in self.targets(job)], {real_path(job.picture) for job in jobs})
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
        if moved and not (record.done and job.picture.is_file() and record.input == sha256_of(job.picture)):
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
        return os.path.relpath(real_path(path.parent) / path.name, real_path(self.out))

    # ---- reading, in a thread

    def has_room(self, flying: Sequence[_Reading | _Writing], pixels: int) -> bool:
        """Whether a picture of so many pixels may be read: always one, then as many as there is memory for."""
        in_flight = sum(item.pixels for item in flying)
        return not flying or (len(flying) < MAX_AHEAD + 2 * self.lanes and in_flight + pixels <= self.max_pixels)

    def read(self, job: Job) -> _Picture | None:
        self._require_names(job)
        pixel_count(job.picture)  # refuses what is no plain file before it is hashed
        digest = sha256_of(job.picture)  # of what is there before it is decoded: what changes meanwhile is predicted again
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
