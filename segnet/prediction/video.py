"""Prediction of videos, frame by frame: a video of overlays, and the areas of the classes in each frame.

ffmpeg, which the package imageio-ffmpeg brings, decodes and encodes in processes of their own. Frames pass through pipes: no more
than a few are in memory.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segnet.inference.predictor import Prediction, Predictor
from segnet.prediction.areas import Area, picture_areas
from segnet.system.errors import UserError, config_error, data_error, environment_error
from segnet.system.files import atomic_write, csv_text

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts", ".mts")
OUTPUTS = {"overlay": ".overlay.mp4", "areas": ".areas.csv"}  # what is written of a video, and its suffix
_FORMATS = "mov,matroska,avi,mpeg,mpegvideo,mpegts,asf"  # of ffmpeg, which reads others too: lists of files, pictures, SVG
_SAME_RATE = 0.02  # the share by which two rates that headers print may differ and be one
AREA_COLUMNS = ("frame", "time", "class", *Area._fields[2:])
_QUALITY = 18  # CRF of x264: hardly distinguishable from the frames

Frame = NDArray[np.uint8]


class Video(NamedTuple):
    """What the header of a video says."""

    path: Path
    rate: Fraction  # frames a second
    frames: int  # about, from its duration; 0: unknown
    has_audio: bool
    is_uneven: bool = False  # its frames do not follow one another at the rate, which is their mean


def is_video(name: str) -> bool:
    """Whether a name ends as those of videos do."""
    return name.lower().endswith(SUFFIXES)


def open_video(path: Path) -> Video:
    """What the header of a video says.

    Raises UserError: (environment) without the package imageio-ffmpeg, (data) where the file is missing or is no video.
    """
    exe = _ffmpeg(path)
    if not path.is_file():
        raise data_error(path, "no such file", "name an existing video")
    command = [exe, "-hide_banner", *_source(path)]  # without an output it ends after the header
    header = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).stderr.decode(errors="replace")
    if "Input #" in header and "Video: " not in header:
        raise _unreadable(path, "no pictures in it")
    rate = re.search(r"Stream #.*: Video: .*?([\d.]+)(k?) (?:fps|tbr)", header)
    if not rate or not float(rate[1]):
        raise _unreadable(path, "no frame rate in its header" if "Video: " in header else _reason(header))
    often = re.search(r"Stream #.*: Video: .*?([\d.]+) fps, ([\d.]+) tbr", header)  # the mean, and the rate that all times fit
    times = float(often[2]) / float(often[1]) if often else 1.0
    is_uneven = min(abs(times - 1), abs(times - 2)) > _SAME_RATE  # 2: of fields
    per_second = float(rate[1]) * (1000 if rate[2] else 1)
    duration = re.search(r"Duration: (\d+):(\d+):([\d.]+)", header)
    seconds = 3600 * int(duration[1]) + 60 * int(duration[2]) + float(duration[3]) if duration else 0.0
    return Video(path, exact_rate(per_second), round(per_second * seconds), "Audio: " in header, is_uneven)


def exact_rate(rate: float) -> Fraction:
    """Frames a second as a fraction: 29.97, as headers print it, is 30000/1001."""
    nearest = round(rate * 1.001)
    if nearest and rate != round(rate) and abs(nearest / 1.001 - rate) < 0.006:
        return Fraction(nearest * 1000, 1001)
    return Fraction(rate).limit_denominator(1000)


def read_frames(video: Video) -> Generator[Frame, None, None]:
    """Each frame of a video, (H, W, 3) RGB, upright. Raises UserError (data) where it is damaged or not whole."""
    exe = _ffmpeg(video.path)
    source = ["-v", "error", "-xerror", *_source(video.path), "-map", "0:v:0", "-fps_mode", "passthrough"]
    command = [exe, *source, "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"]
    with tempfile.TemporaryFile() as messages, _process(command, messages, stdin=subprocess.DEVNULL) as decoder:
        assert decoder.stdout
        count = 0
        while (frame := _read_ppm(decoder.stdout)) is not None:
            count += 1
            yield frame
        decoder.wait()
        messages.seek(0)
        text = messages.read().decode(errors="replace")
        if decoder.returncode or text.strip() or not count:
            where = f"after {count:,} frames" if count else "no frame"
            raise _unreadable(video.path, f"{where}: {_reason(text)}")


def _source(path: Path) -> list[str]:
    """The arguments that name a file, whatever its name looks like and its content refers to."""
    return ["-protocol_whitelist", "file", "-format_whitelist", _FORMATS, "-i", f"file:{path}"]


def _read_ppm(pipe: IO[bytes]) -> Frame | None:
    """A frame as ffmpeg writes a PPM: three lines, then the values. None at the end, also within a frame."""
    if pipe.readline() != b"P6\n":
        return None
    width, height = map(int, pipe.readline().split())
    pipe.readline()  # 255
    content = pipe.read(3 * width * height)
    if len(content) < 3 * width * height:
        return None
    return np.frombuffer(content, np.uint8).reshape(height, width, 3)


@contextmanager
def write_video(path: Path, rate: Fraction) -> Iterator[FrameWriter]:
    """A writer of frames to an H.264 MP4, which appears under `path` complete when the body ends, or not at all.

    Raises UserError (environment) where ffmpeg fails.
    """
    with atomic_write(path) as file, tempfile.TemporaryFile() as messages:
        writer = FrameWriter(Path(file.name), rate, messages, _ffmpeg(path))
        try:
            yield writer
            writer.finish()
        except BrokenPipeError:
            messages.seek(0)
            reason = _reason(messages.read().decode(errors="replace"))
            raise environment_error(path, f"ffmpeg could not write it: {reason}", "mend that, and repeat") from None
        finally:
            writer.stop()


class FrameWriter:
    """An encoder, which starts with the first frame. Frames of odd height or width get a black row or column: H.264 needs it."""

    def __init__(self, path: Path, rate: Fraction, messages: IO[bytes], exe: str) -> None:
        self.path = path
        self.rate = rate
        self.messages = messages
        self.exe = exe
        self.encoder: subprocess.Popen[bytes] | None = None

    def write(self, frame: Frame) -> None:
        """Append a frame (H, W, 3) RGB, of the size of the first one."""
        if self.encoder is None:
            self.encoder = self._start(frame.shape[0], frame.shape[1])
        assert self.encoder.stdin
        self.encoder.stdin.write(np.ascontiguousarray(frame).data)

    def _start(self, height: int, width: int) -> subprocess.Popen[bytes]:
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(self.rate), "-i", "-"]
        filters = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2,scale=out_color_matrix=bt709,format=yuv420p"]
        colors = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]  # players do not have to guess
        coding = ["-c:v", "libx264", "-crf", str(_QUALITY), "-movflags", "+faststart", "-f", "mp4"]
        command = [self.exe, "-v", "error", "-y", *source, *filters, *colors, *coding, str(self.path)]
        return _popen(command, self.messages, stdin=subprocess.PIPE)

    def finish(self) -> None:
        """Wait until the file is whole. Raises BrokenPipeError where the encoder failed."""
        if self.encoder:
            assert self.encoder.stdin
            self.encoder.stdin.close()
            if self.encoder.wait():
                raise BrokenPipeError

    def stop(self) -> None:
        """End the encoder, if it still runs."""
        if self.encoder:
            _stop(self.encoder)


def predict_video(predictor: Predictor, video: Video, targets: dict[str, Path]) -> Generator[Prediction, None, None]:
    """The prediction of each frame, after it was added to the `targets`, the files by their kinds of `OUTPUTS`.

    The files appear after the last frame, each whole; none does where the generator ends before or raises. The time of a frame
    is its number divided by the frame rate. Raises UserError as `read_frames` and `write_video`.
    """
    with ExitStack() as held:  # what is entered last ends first: the table appears after the video, which may fail
        table = held.enter_context(_write_table(targets["areas"])) if "areas" in targets else None
        overlays = held.enter_context(write_video(targets["overlay"], video.rate)) if "overlay" in targets else None
        for number, frame in enumerate(held.enter_context(closing(read_frames(video)))):
            prediction = predictor.predict(Image.fromarray(frame))
            if overlays:
                overlays.write(prediction.overlay())
            if table:
                areas = picture_areas("", prediction.mask, prediction.confidence, predictor.classes)
                table.writelines(frame_rows(number, video.rate, areas))
            yield prediction


@contextmanager
def _write_table(path: Path) -> Iterator[IO[str]]:
    """A CSV file with `AREA_COLUMNS`, to which rows are appended; it appears when the body ends."""
    with atomic_write(path) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        try:
            text.write(csv_text([AREA_COLUMNS]))
            yield text
        finally:
            text.detach()  # else it would close the file with itself


def frame_rows(number: int, rate: Fraction, areas: Sequence[Area]) -> list[str]:
    """The rows of a frame, one for each class."""
    time = f"{float(number / rate):.6f}"
    values = [(number, time, area.name, area.pixels, f"{area.share:.8g}", area.parts, area.largest_part) for area in areas]
    means = ["" if np.isnan(area.mean_probability) else f"{area.mean_probability:.6f}" for area in areas]
    return [csv_text([(*row, mean)]) for row, mean in zip(values, means, strict=True)]


def video_targets(video: Path, out: Path, kinds: Sequence[str], *, overwrite: bool) -> dict[str, Path]:
    """The files of a video by their kinds.

    Raises UserError (config) for another kind, and where a file exists already, unless `overwrite`.
    """
    if odd := [kind for kind in kinds if kind not in OUTPUTS]:
        raise config_error(f"--save {odd[0]}", "not an output of a video", f"choose from {', '.join(OUTPUTS)}")
    targets = {kind: out / f"{video.stem}{OUTPUTS[kind]}" for kind in kinds}
    for path in targets.values():
        if os.path.lexists(path) and not overwrite:
            raise config_error(path, "exists already", "add --overwrite, or choose another --out")
    return targets


@contextmanager
def _process(command: list[str], messages: IO[bytes], *, stdin: int) -> Iterator[subprocess.Popen[bytes]]:
    process = _popen(command, messages, stdin=stdin)
    try:
        yield process
    finally:
        _stop(process)


def _popen(command: list[str], messages: IO[bytes], *, stdin: int) -> subprocess.Popen[bytes]:
    """A process of its own session, so that Ctrl-C ends this program first, which then ends it."""
    return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=messages, start_new_session=True)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with suppress(BrokenPipeError):
                pipe.close()
    process.wait()


def _ffmpeg(path: Path) -> str:
    """The program ffmpeg. Raises UserError (environment) without the package that brings it."""
    try:
        return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except (ImportError, RuntimeError):  # RuntimeError: the package without the program
        found = "videos need the package imageio-ffmpeg, which is not installed here"
        raise environment_error(path, found, "pip install imageio-ffmpeg") from None


def _unreadable(path: Path, reason: str) -> UserError:
    return data_error(path, f"not a whole, readable video ({reason})", "copy it again, or cut off what is damaged")


def _reason(messages: str) -> str:
    """The first fault that ffmpeg names, without the addresses of its parts."""
    lines = [re.sub(r"^(\[[^]]* @ 0x[0-9a-f]+\] )+", "", line.strip()) for line in messages.splitlines()]
    if any("not on whitelist" in line for line in lines):
        return "it is of another format"
    faults = [line for line in lines if re.search("error|invalid|missing|no |not |partial|corrupt", line, re.IGNORECASE)]
    useful = [line for line in faults if "meta information" not in line and "configuration:" not in line]
    return useful[0] if useful else "it ends too early"
