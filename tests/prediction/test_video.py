"""Videos: every frame is predicted, its overlay and its areas are written, and what is damaged leaves nothing."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers import refused

from segnet.commands.predict import main
from segnet.inference.predictor import Predictor
from segnet.prediction.areas import Area
from segnet.prediction.video import (
    AREA_COLUMNS,
    exact_rate,
    frame_rows,
    open_video,
    predict_video,
    read_frames,
    video_targets,
    write_video,
)
from segnet.system.errors import ExitCode, UserError


def ffmpeg(*arguments: str) -> None:
    """Run ffmpeg; the test is skipped where the package that brings it is missing."""
    package = pytest.importorskip("imageio_ffmpeg", reason="videos need imageio-ffmpeg")
    subprocess.run([package.get_ffmpeg_exe(), "-v", "error", "-y", *arguments], check=True)


def make_clip(path: Path, size: str = "32x24", rate: str = "30000/1001", more: Sequence[str] = ()) -> Path:
    """A clip of 12 frames, whose header stands before them."""
    source = f"testsrc=size={size}:rate={rate}"
    ffmpeg("-f", "lavfi", "-i", source, *more, "-frames:v", "12", "-c:v", "libx264", "-movflags", "+faststart", str(path))
    return path


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != ".lock"}


def test_frames_are_read_and_written_in_their_order_size_and_rate(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="videos need imageio-ffmpeg")
    colors = np.random.default_rng(0).integers(20, 235, (12, 3), dtype=np.uint8)
    with write_video(tmp_path / "a.mp4", Fraction(30000, 1001)) as writer:
        for color in colors:
            writer.write(np.broadcast_to(color, (24, 32, 3)))
    video = open_video(tmp_path / "a.mp4")
    assert (video.rate, video.frames, video.has_audio) == (Fraction(30000, 1001), 12, False)
    frames = list(read_frames(video))
    assert [frame.shape for frame in frames] == [(24, 32, 3)] * 12
    assert np.allclose([frame.mean(axis=(0, 1)) for frame in frames], colors, atol=4)


def test_a_clip_that_is_turned_is_read_upright(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4")
    ffmpeg("-display_rotation", "90", "-i", str(clip), "-c", "copy", str(tmp_path / "turned.mp4"))
    assert next(read_frames(open_video(tmp_path / "turned.mp4"))).shape == (32, 24, 3)


def test_frames_at_uneven_times_are_told_from_others(tmp_path: Path) -> None:
    uneven = ["-vf", r"select='lt(n\,5)+not(mod(n\,3))'", "-fps_mode", "vfr"]
    found = open_video(make_clip(tmp_path / "a.mp4", rate="10", more=uneven))
    assert (found.is_uneven, found.rate < 10) == (True, True)
    for number, rate in enumerate(("10", "30000/1001", "1/10", "50")):
        assert not open_video(make_clip(tmp_path / f"{number}.mp4", rate=rate)).is_uneven


@pytest.mark.parametrize("content", [b"<svg width='9' height='9'/>", b"ffconcat version 1.0\nfile 'a.mp4'\n"])
def test_what_ffmpeg_reads_and_is_no_video_is_refused(content: bytes, tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4")
    (tmp_path / "b.ts").write_bytes(content)
    with refused(ExitCode.DATA, "b.ts: not a whole, readable video (it is of another format)"):
        open_video(tmp_path / "b.ts")


def test_sound_alone_is_said(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=duration=0.1", "-f", "mp4", str(tmp_path / "a.mp4"))
    with refused(ExitCode.DATA, "a.mp4: not a whole, readable video (no pictures in it)"):
        open_video(tmp_path / "a.mp4")


def test_the_reason_of_a_broken_last_frame_has_no_addresses(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=0.5", "-c:v", "mpeg4", str(tmp_path / "a.avi"))
    content = (tmp_path / "a.avi").read_bytes()
    last = content.rfind(b"00dc", 0, content.rfind(b"idx1")) + 12
    (tmp_path / "a.avi").write_bytes(content[:last] + b"\xff" * 68 + content[last + 68 :])
    with pytest.raises(UserError) as caught:
        list(read_frames(open_video(tmp_path / "a.avi")))
    assert "a.avi: not a whole, readable video (after 4 frames: " in str(caught.value)
    assert "0x" not in str(caught.value)


def test_every_frame_of_a_clip_is_predicted(predictor: Predictor, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", "33x25", "10", ["-pix_fmt", "yuv444p"])
    targets = video_targets(clip, tmp_path, ["overlay", "areas"], overwrite=False)
    video = open_video(clip)
    predictions = list(predict_video(predictor, video, targets))
    for frame, prediction in zip(read_frames(video), predictions, strict=True):
        assert np.array_equal(prediction.mask, predictor.predict(frame).mask)
    overlays = list(read_frames(open_video(tmp_path / "a.overlay.mp4")))
    assert [overlay.shape for overlay in overlays] == [(26, 34, 3)] * 12  # a row and a column more
    light = [overlay[:25, :33] @ [0.2126, 0.7152, 0.0722] for overlay in (overlays[5], predictions[5].overlay())]  # not halved
    assert np.abs(light[0] - light[1]).mean() < 6 < np.abs(light[0] - light[1][:, ::-1]).mean()
    with (tmp_path / "a.areas.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == AREA_COLUMNS
    assert len(rows) == 12 * len(predictor.classes)
    for row in rows:
        mask = predictions[int(row["frame"])].mask
        assert int(row["pixels"]) == (mask == predictor.classes.names.index(row["class"])).sum()
        assert float(row["time"]) == int(row["frame"]) / 10


@pytest.mark.parametrize("fault", ["50%", "60%", "75%", "corrupt", "no video", "no sound track of pictures"])
def test_a_damaged_clip_is_one_line_and_leaves_nothing(fault: str, predictor: Predictor, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", "64x48", "30000/1001", ["-f", "lavfi", "-i", "sine=duration=0.4"])
    content = bytearray(clip.read_bytes())
    if fault.endswith("%"):
        content = content[: len(content) * int(fault[:2]) // 100]
    elif fault == "corrupt":
        content[len(content) // 2 : len(content) // 2 + 400] = bytes(range(200)) * 2
    elif fault == "no video":
        content = bytearray(b"no video" * 99)
    clip.write_bytes(content)
    if fault == "no sound track of pictures":
        ffmpeg("-f", "lavfi", "-i", "sine=duration=0.1", "-f", "mp4", str(clip))
    out = tmp_path / "out"
    out.mkdir()
    with refused(ExitCode.DATA, "a.mp4: not a whole, readable video (", "copy it again, or cut off what is damaged"):
        list(predict_video(predictor, open_video(clip), video_targets(clip, out, ["overlay", "areas"], overwrite=False)))
    assert files(out) == set()


def test_a_prediction_that_is_stopped_leaves_nothing(predictor: Predictor, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4")
    out = tmp_path / "out"
    out.mkdir()
    predictions = predict_video(predictor, open_video(clip), video_targets(clip, out, ["overlay", "areas"], overwrite=False))
    next(predictions)
    assert len(files(out)) == 2
    predictions.close()
    assert files(out) == set()


def test_the_command_says_what_it_leaves_out_and_adds(
    predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = ["-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac"]
    clip = make_clip(tmp_path / "a.mp4", "33x24", "10", [*sound, "-pix_fmt", "yuv444p"])
    arguments = [str(predictor.path), str(clip), "--out", str(tmp_path / "out"), "device=cpu"]
    assert main([*arguments, "--save", "overlay,areas"]) == ExitCode.DONE
    output = capsys.readouterr()
    assert "its sound is left out" in output.err
    assert "33×24 (width × height); its overlay has a black row or column more" in output.err
    assert "12 frames of" in output.out
    assert files(tmp_path / "out") == {"a.overlay.mp4", "a.areas.csv"}
    (tmp_path / "b.mp4").write_bytes(b"no video")
    both = [str(predictor.path), str(tmp_path / "b.mp4"), str(clip), "--out", str(tmp_path / "both"), "device=cpu"]
    assert main(both) == ExitCode.SOME_FAILED
    assert "b.mp4  not a whole, readable video" in capsys.readouterr().err
    assert files(tmp_path / "both") == {"a.overlay.mp4"}
    with refused(ExitCode.CONFIG, "a.overlay.mp4: exists already", "add --overwrite"):
        main(arguments)
    with refused(ExitCode.CONFIG, "--save json: not an output of a video", "choose from overlay, areas"):
        main([*arguments, "--save", "json"])
    with refused(ExitCode.CONFIG, "b.png: a picture or folder beside a video"):
        main([*arguments, "b.png"])
    with refused(ExitCode.CONFIG, "--rank: is for pictures"):
        main([*arguments, "--rank"])


def test_the_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with refused(ExitCode.ENVIRONMENT, "clip.mp4: videos need the package imageio-ffmpeg", "pip install imageio-ffmpeg"):
        open_video(tmp_path / "clip.mp4")


@pytest.mark.parametrize(
    ("printed", "rate"),
    [
        (25.0, Fraction(25)),
        (29.97, Fraction(30000, 1001)),
        (23.98, Fraction(24000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (12.5, Fraction(25, 2)),
        (1000.0, Fraction(1000)),
    ],
)
def test_a_printed_rate_is_the_exact_one(printed: float, rate: Fraction) -> None:
    assert exact_rate(printed) == rate


def test_the_rows_of_a_frame_have_its_number_and_time() -> None:
    areas = [Area("", "road, wet", 6, 0.75, 2, 4, 0.5), Area("", "car", 0, 0.0, 0, 0, float("nan"))]
    rows = frame_rows(3, Fraction(30000, 1001), areas)
    assert rows == ['3,0.100100,"road, wet",6,0.75,2,4,0.500000\n', "3,0.100100,car,0,0,0,0,\n"]
