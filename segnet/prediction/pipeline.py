"""Prediction of many pictures: reading, the network and writing run at the same time."""

from __future__ import annotations

import errno
import os
import shutil
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from segnet.data.georeference import Georeference, world_file
from segnet.data.images import pixel_count
from segnet.data.scaling import Raster
from segnet.inference.answers import WINDOW
from segnet.inference.exported import Runtime
from segnet.inference.predictor import Prediction, Predictor, Restoration
from segnet.prediction.existing import ExistingOutputs, input_digest, jobs_digest, settings_digest
from segnet.prediction.inputs import Job, require_free_targets
from segnet.prediction.outputs import (
    PLAIN,
    NamedPrediction,
    NamedRestoration,
    Options,
    bytes_per_pixel,
    find_output,
    georeference_for,
    need_probabilities,
    output_path,
    require_size,
    require_writable,
)
from segnet.prediction.summary import Result
from segnet.system.devices import memory_is_full
from segnet.system.distributed import agreed, is_main, require_same_on_all_ranks, this_ranks_part
from segnet.system.errors import UserError, data_error, environment_error
from segnet.system.files import atomic_write, lock_folder, longest_name, make_folder

MEMORY = 1 << 30  # bytes, about, of pictures that are read and not yet written
MAX_AHEAD = 16  # pictures, however small


def predict_jobs(
    predictor: Predictor,
    jobs: Sequence[Job],
    out: Path,
    *,
    save: Sequence[str],
    options: Options = PLAIN,
    overwrite: bool = False,
) -> Generator[Result, None, None]:
    """The results of this rank's part of `jobs`, in order, each after its outputs of the kinds `save` are below `out`.

    Threads read the next pictures and write the last outputs while the network runs in the calling thread. A picture that
    cannot be read or written is a result with a failure; the others go on. Outputs that are valid already are skipped,
    unless `overwrite`. `options` change what outputs hold.
    Raises UserError before the first picture: (config) when an output exists that was made otherwise and `overwrite` is off,
    when two outputs have one name, an output would replace an input, or a file stands in the place of a folder;
    (environment) when another command writes into `out`. Raises UserError (environment) when the disk is full. However it
    ends, every output is whole or absent.
    """
    with _held_outputs(settings_digest(predictor, options), jobs, out, save, overwrite=overwrite) as existing:
        work = FolderPrediction(predictor, existing, options, overwrite=overwrite)
        headers = map(_read_header, this_ranks_part(list(jobs)))
        following = next(headers, None)
        ahead, behind = deque[_Reading](), deque[_Writing]()
        with _threads(min(4, os.cpu_count() or 1)) as readers, _threads(max(2, work.lanes)) as writers:
            while following or ahead or behind:
                while following and work.has_room([*ahead, *behind], following.pixels):
                    ahead.append(_Reading(following.job, following.pixels, readers.submit(work.read, following)))
                    following = next(headers, None)
                if ahead:
                    behind.append(work.predict(ahead.popleft(), writers))
                else:
                    yield behind.popleft().result.result()  # waits for the oldest; then there is room again
                while behind and behind[0].result.done():
                    yield behind.popleft().result.result()


@contextmanager
def _held_outputs(
    settings: str, jobs: Sequence[Job], out: Path, save: Sequence[str], *, overwrite: bool
) -> Iterator[ExistingOutputs]:
    """The outputs in `out`, checked and prepared for `jobs`; the folder is locked during the body. Raises as `predict_jobs`."""
    with ExitStack() as held:
        with agreed():
            existing = ExistingOutputs(out, list(dict.fromkeys(save)), settings)
            require_free_targets(jobs, [path for job in jobs for path in existing.targets(job)])
            if not overwrite:
                existing.require_replaceable(jobs)
            if is_main():
                make_folder(out)
                held.enter_context(lock_folder(out))
                existing.prepare(jobs)
        require_same_on_all_ranks(jobs_digest(jobs), "pictures to predict")
        yield existing


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads that use one core each; after the body, running calls finish and waiting calls are cancelled."""
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class _Header(NamedTuple):
    """The size of a job's picture, or the error that its header raises; then `pixels` is 0."""

    job: Job
    pixels: int
    error: Exception | None = None


class _Image(NamedTuple):
    """A picture that was read."""

    raster: Raster
    digest: str  # from `input_digest`
    georeference: Georeference | None  # None: no output takes it, or there is none


class _Reading(NamedTuple):
    """A picture on its way to the network."""

    job: Job
    pixels: int
    image: Future[_Image | None]  # None: its outputs are valid already


class _Writing(NamedTuple):
    """A picture on its way from the network to its outputs."""

    pixels: int  # 0 when nothing is in memory
    result: Future[Result]


class FolderPrediction:
    """The three steps of each job – read, predict, write – and the memory that they may take together."""

    def __init__(self, predictor: Predictor, existing: ExistingOutputs, options: Options, *, overwrite: bool) -> None:
        self.predictor = predictor
        self.existing = existing
        self.options = options
        self.kinds = existing.kinds
        self.keep_probabilities = need_probabilities(self.kinds)
        self.overwrite = overwrite
        self.max_pixels = MEMORY // bytes_per_pixel(self.kinds, len(predictor.classes), predictor.bands_read)
        self.lanes = _lanes(predictor)

    def has_room(self, in_flight: Sequence[_Reading | _Writing], pixels: int) -> bool:
        """True when a picture of `pixels` may be read beside those `in_flight`; one picture alone always may."""
        if not in_flight:
            return True
        total = sum(item.pixels for item in in_flight) + pixels
        return len(in_flight) < MAX_AHEAD + 2 * self.lanes and total <= self.max_pixels

    def read(self, header: _Header) -> _Image | None:
        """The image of a job; None when its outputs are valid already. Runs in a reader thread.

        Raises UserError (data) for a picture that cannot be read or whose outputs cannot be written.
        """
        job = header.job
        if header.error is not None:
            raise header.error
        self._require_short_names(job)
        content = job.picture.read_bytes()
        digest = input_digest(job.picture, content)
        if not self.overwrite and self.existing.are_valid(job, digest):
            return None
        raster = self.predictor.read(job.picture, content)
        require_size(self.kinds, job.picture, max(raster.image.shape[1:]))
        require_writable(self.kinds, job.picture, raster)
        georeference = georeference_for(self.kinds, job.picture, content, world_file(job.picture))
        return _Image(raster, digest, georeference)

    def _require_short_names(self, job: Job) -> None:
        """Raise UserError (data) when the name of an output is longer than the file system of the folder allows."""
        limit = longest_name(self.existing.out)
        for kind, target in zip((*self.kinds, "world file"), self.existing.targets(job), strict=False):
            length = len(os.fsencode(target.name))
            if length > limit:
                found = f"the name of its {kind} would have {length} bytes; {limit} fit"
                raise data_error(job.picture, found, "shorten the picture's name")

    def predict(self, reading: _Reading, writers: ThreadPoolExecutor) -> _Writing:
        """The writing of a picture, begun when its prediction is there.

        The prediction is made in this thread on all cores. A small picture is predicted on one core, in the thread that
        then writes it: `lanes` of them together have no more pixels, and need no more memory, than one window.
        """
        job, pixels = reading.job, reading.pixels
        try:
            image = reading.image.result()
            if image is None:
                return _Writing(0, _finished(Result(job, skipped=True)))
            if self.lanes > 1 and pixels * self.lanes <= WINDOW**2:
                return _Writing(pixels, writers.submit(self._predict_and_write, job, image))
            prediction = self._prediction(image)
        except Exception as error:
            return _Writing(0, _finished(_failed(error, job)))
        return _Writing(pixels, writers.submit(self.write, job, image, prediction))

    def _prediction(self, image: _Image) -> Prediction | Restoration:
        return self.predictor.predict_or_restore(image.raster, probabilities=self.keep_probabilities)

    def _predict_and_write(self, job: Job, image: _Image) -> Result:
        try:
            prediction = self._prediction(image)
        except Exception as error:
            return _failed(error, job)
        return self.write(job, image, prediction)

    def write(self, job: Job, image: _Image, prediction: Prediction | Restoration) -> Result:
        """Write the outputs of a job. Runs in a writer thread. Raises UserError (environment) when the disk is full."""
        try:
            make_folder(job.output.parent)
            record = self.existing.announce(job, image.digest)
            named: NamedPrediction | NamedRestoration
            if isinstance(prediction, Restoration):
                named = NamedRestoration(record.picture, prediction, image.georeference, image.raster.nodata)
            else:
                named = NamedPrediction(record.picture, prediction, self.predictor.classes, self.options, image.georeference)
            for kind in self.kinds:
                with atomic_write(output_path(job.output, kind)) as file:
                    find_output(kind).write(file, named)
            world, world_target = world_file(job.picture), self.existing.world_target(job)
            if world and world_target:
                with atomic_write(world_target) as file:
                    file.write(world.read_bytes())
            self.existing.finish(record)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                out = self.existing.out
                found = f"{error.strerror}, {shutil.disk_usage(out).free / 1e6:,.1f} MB free"
                remedy = "free space, then give the same command again: it goes on here"
                raise environment_error(out, found, remedy) from None
            return _failed(error, job)
        return Result(job)


def _read_header(job: Job) -> _Header:
    try:
        return _Header(job, pixel_count(job.picture))
    except (UserError, OSError) as error:
        return _Header(job, 0, error)


def _finished(result: Result) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_result(result)
    return future


def _failed(error: Exception, job: Job) -> Result:
    """The result of a job that ended with `error`. Raises `error` again when it is a bug: no fault of picture or machine."""
    if isinstance(error, UserError):
        return Result(job, error)
    found, remedy = "not enough memory for it", "make it smaller"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename and Path(error.filename) != job.picture else ""
        found, remedy = f"{where}{error.strerror or error}", "mend that, then repeat the command"
    elif not memory_is_full(error):
        raise error
    return Result(job, environment_error(job.picture, found, remedy))


def _lanes(predictor: Predictor) -> int:
    """The number of small pictures that are predicted at the same time: one per core, where torch computes on the CPU.

    Convolutions of small pictures gain little from more than one core. With dropout it is 1: the samples draw from one
    random generator, in order.
    """
    inference = predictor.config.inference
    elsewhere = predictor.device.type != "cpu" or isinstance(predictor.model, Runtime)
    return 1 if elsewhere or inference.dropout_samples or inference.compile else torch.get_num_threads()
