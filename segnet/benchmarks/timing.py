"""The time that several ways of doing the same work take, in turn, in one process."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segnet.system.devices import choose_precision

Facts = dict[str, Any]  # a part of a JSON document


class Way(NamedTuple):
    """One way of doing the work."""

    name: str
    precision: str  # of its convolutions
    run: Callable[[], object]
    facts: Facts  # what is known of it apart from its speed


class Spread(NamedTuple):
    """The quartiles of a value that was measured in several rounds."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The quartiles of one value or more."""
        if len(values) == 1:
            return cls(low=values[0], median=values[0], high=values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


def compare_ways(ways: list[Way], flops: int, rounds: int, image: Tensor) -> Facts:
    """The speed of each way of `flops` on a batch of images, beside that of the first way, as a JSON document.

    All take turns in `rounds` rounds, after two that are not counted. Large convolutions take turns with them: the fastest in a
    round has the peak rate of its precision.
    """
    device = image.device
    slow = {way.precision for way in ways if choose_precision(way.precision, device).emulated}
    precisions = sorted({way.precision for way in ways} - slow)  # an emulated large convolution takes a minute
    peaks = [peak for precision in precisions for peak in _peak_convolutions(precision, device)]
    memory = {way.name: _peak_bytes(way, device) if device.type == "cuda" else None for way in ways}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    seconds = _seconds_of_rounds(ways, peaks, rounds, device)
    peak_rates = {
        precision: _fastest_rates([peak for peak in peaks if peak.precision == precision], seconds) for precision in precisions
    }
    facts: Facts = {}
    for way in ways:
        peak = peak_rates.get(way.precision, peak_rates["float32"])
        facts[way.name] = {
            "precision": way.precision,
            "emulated": way.precision in slow,
            **_speed(seconds[way.name], seconds[ways[0].name], peak, flops, len(image)),
            "peak_bytes": memory[way.name],
            **way.facts,
        }
    return {
        "size": list(image.shape[-2:]),
        "batch": len(image),
        "rounds": rounds,
        "load": load,
        "gflop_per_picture": flops / len(image) / 1e9,
        "peak_gflop_per_second": {precision: max(rates) / 1e9 for precision, rates in peak_rates.items()},
        "ways": facts,
    }


def _seconds_of_rounds(ways: list[Way], peaks: list[Way], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """The seconds of a call in each counted round, by the name of the way."""
    calls = 5 if device.type == "cuda" else 1  # a single call of a GPU would measure its first launch
    seconds: dict[str, list[float]] = {way.name: [] for way in (*ways, *peaks)}
    for number in range(rounds + 2):
        turn = number % len(ways)
        for way in (*ways[turn:], *ways[:turn], *peaks):
            seconds[way.name].append(_seconds(way.run, calls, device))
    return {name: values[2:] for name, values in seconds.items()}


def _fastest_rates(peaks: list[Way], seconds: dict[str, list[float]]) -> list[float]:
    """FLOP/s of the fastest of `peaks` in each round."""
    rates = [[peak.facts["flops"] / taken for taken in seconds[peak.name]] for peak in peaks]
    return [max(rates_of_round) for rates_of_round in zip(*rates, strict=True)]


def _speed(seconds: list[float], plain: list[float], peak: list[float], flops: int, batch: int) -> Facts:
    """The speed of a way: `seconds` of its calls, of the plain way's and FLOP/s of the peak in the same rounds."""
    median = statistics.median(seconds)
    return {
        "seconds": Spread.of(seconds)._asdict(),
        "times_plain": Spread.of([theirs / ours for theirs, ours in zip(plain, seconds, strict=True)])._asdict(),
        "pictures_per_second": batch / median,
        "gflop_per_second": flops / median / 1e9,
        "share_of_peak": Spread.of([flops / ours / rate for ours, rate in zip(seconds, peak, strict=True)])._asdict(),
    }


def _seconds(run: Callable[[], object], calls: int, device: torch.device) -> float:
    """The seconds of one of so many calls, on the device's own clock."""
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - started) / calls
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    for _ in range(calls):
        run()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000 / calls


def _peak_bytes(way: Way, device: torch.device) -> int:
    """The largest GPU memory in use during a call, minus that before it, in bytes."""
    way.run()
    gc.collect()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    way.run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_convolutions(precision: str, device: torch.device) -> list[Way]:
    """Forward passes of large 3×3 convolutions."""
    batch = 64 if device.type == "cuda" else 1
    dtype = getattr(torch, precision)
    ways = []
    for channels, side in ((128, 128), (256, 96), (512, 48)):
        x = torch.rand(batch, channels, side, side, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        kernel = torch.rand(channels, channels, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        run = torch.inference_mode()(partial(F.conv2d, x, kernel, padding=1))
        flops = 2 * batch * channels**2 * 9 * side**2
        ways.append(Way(f"{precision} {channels} channels", precision, run, {"flops": flops}))
    return ways


def print_table(document: Facts) -> None:
    """Print a benchmark's document as a table, a line for each way."""
    rates = ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in document["peak_gflop_per_second"].items())
    print(f"{document['gflop_per_picture']:.1f} GFLOP a picture; fastest 3×3 convolutions here: {rates}")
    titles = f"{'seconds':>9}{'× plain':>9}{'quartiles':>12}{'pictures/s':>12}{'GFLOP/s':>9}{'of peak':>9}"
    print(f"{'pictures at once: ' + str(document['batch']):<28}{titles}{'saved MB':>10}{'peak MB':>9}{'error':>9}")
    for name, way in document["ways"].items():
        times = way["times_plain"]
        error = max(way.get("relative_error", {}).values(), default=0.0)
        quartiles = f"{times['low']:.2f}–{times['high']:.2f}"
        saved, peak = (f"{way[key] / 1e6:.0f}" if way.get(key) is not None else "–" for key in ("saved_bytes", "peak_bytes"))
        speeds = f"{way['seconds']['median']:>9.4f}{times['median']:>9.2f}{quartiles:>12}{way['pictures_per_second']:>12.2f}"
        rate = f"{way['gflop_per_second']:>9.0f}{way['share_of_peak']['median']:>9.0%}"
        label = f"{name} (emulated)" if way["emulated"] else name
        print(f"{label:<28}{speeds}{rate}{saved:>10}{peak:>9}{error:>9.1e}")
    if all(way["precision"] == "float32" for way in document["ways"].values()):
        print("bfloat16 is left out: this device emulates it, several times slower than float32 (--emulated measures it)")
