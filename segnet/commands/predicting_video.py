"""The work of `commands.predict` for videos."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from segnet.inference.predictor import Predictor
from segnet.prediction.summary import failure_table
from segnet.prediction.video import Video, is_video, open_video, predict_video, video_targets
from segnet.system.devices import describe_device, warn_if_emulated
from segnet.system.errors import ExitCode, UserError, config_error, data_error
from segnet.system.files import lock_folder, make_folder


def predict_videos(
    predictor: Predictor, inputs: Sequence[str], arguments: argparse.Namespace, named: list[str] | None
) -> ExitCode:
    """Predict each frame of the videos `inputs`; `named` are the kinds of output, None: overlay.

    A video that cannot be read does not stop the others. Raises UserError before the first one for a mistake in the arguments,
    and where the only one cannot be read.
    """
    _require_videos_alone(inputs, arguments)
    if predictor.config.task != "segmentation":
        remedy = "restore its frames as pictures: ffmpeg -i VIDEO frames/%06d.png"
        raise config_error(inputs[0], f"a video, and the network is for task {predictor.config.task}", remedy)
    if predictor.config.data.channels not in (1, 3):
        raise data_error(
            inputs[0], f"a video in colour, where data.channels is {predictor.config.data.channels}", "give pictures"
        )
    out = Path(arguments.out)
    kinds = list(dict.fromkeys(named or ["overlay"]))
    targets = {text: video_targets(Path(text), out, kinds, overwrite=arguments.overwrite) for text in inputs}
    paths = [path for each in targets.values() for path in each.values()]
    if len(set(paths)) < len(paths):
        raise config_error(arguments.out, "two videos would have outputs of one name", "predict them into two folders")
    noun = "video" if len(inputs) == 1 else "videos"
    print(f"predict {len(inputs)} {noun} on {describe_device(predictor.device)} in {predictor.precision}", flush=True)
    warn_if_emulated(predictor.precision, "inference.precision")
    make_folder(out)
    failures = list[UserError]()
    with lock_folder(out):
        for text in inputs:
            try:
                frames = _predict(predictor, open_video(Path(text)), targets[text])
            except UserError as error:
                if error.code != ExitCode.DATA or len(inputs) == 1:
                    raise
                failures.append(error)
                continue
            written = ", ".join(map(str, targets[text].values()))
            print(f"{frames:,} frames of {text}: {written}", flush=True)
    sys.stderr.write(failure_table(failures))
    return ExitCode.SOME_FAILED if failures else ExitCode.DONE


def _predict(predictor: Predictor, video: Video, targets: dict[str, Path]) -> int:
    """The number of frames, all of which are predicted and written."""
    if video.has_audio and "overlay" in targets:
        print(f"note: {video.path}: its sound is left out", file=sys.stderr)
    if video.is_uneven:
        mean = f"{float(video.rate):.6g} a second"
        found = f"its frames come at uneven times; the outputs have them at the mean rate, {mean}"
        print(f"note: {video.path}: {found}", file=sys.stderr)
    count, size = 0, (0, 0)
    predictions = predict_video(predictor, video, targets)
    with closing(predictions), tqdm(predictions, video.path.name, video.frames or None, unit="frame", disable=None) as progress:
        for prediction in progress:
            count += 1
            height, width = prediction.mask.shape
            if "overlay" in targets and (height, width) != size and (height % 2 or width % 2):
                found = (
                    f"{width}×{height} (width × height); its overlay has a black row or column more, since H.264 needs even sides"
                )
                progress.write(f"note: {video.path}: {found}", file=sys.stderr)
            size = (height, width)
    return count


def _require_videos_alone(inputs: Sequence[str], arguments: argparse.Namespace) -> None:
    """Raise UserError (config) for pictures beside videos, and for options that are for pictures."""
    for text in inputs:
        if not is_video(text):
            raise config_error(text, "a picture or folder beside a video", "give them to two commands")
    options = ("--polygons", arguments.polygons), ("--rank", arguments.rank), ("--below", arguments.below)
    for option, given in (*options, ("--pixel-size", arguments.pixel_size), ("--keep-suffix", arguments.keep_suffix)):
        if given:
            raise config_error(option, "is for pictures, not for videos", "leave it out")
