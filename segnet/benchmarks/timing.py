"""Time several ways of doing the same work, in turn, in one process."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segnet.system.devices import choose_precision

Report = dict[str, Any]  # of a JSON document


class Way(NamedTuple):
    """One way of doing the work."""

    name: str
    precision: str  # of its convolutions
    run: Callable[[], object]
    facts: Report  # what is known of it beside its speed


class Spread(NamedTuple):
    """What the middle half of the rounds found."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Spread:
        return cls(*statistics.quantiles(rounds, n=4, method="inclusive")) if len(rounds) > 1 else cls(*3 * tuple(rounds))


def calling(function: Callable[..., object], *arguments: object) -> Callable[[], object]:
    return lambda: function(*arguments)


def compare_ways(ways: list[Way], flops: int, rounds: int, image: Tensor) -> Report:
    """Let all take turns, `rounds` times after two that do not count, print a table, and return its numbers."""
    device = image.device
    slow = {way.precision for way in ways if choose_precision(way.precision, device).emulated}
    precisions = sorted({way.precision for way in ways} - slow)  # a large convolution that is emulated takes a minute
    peaks = [peak for precision in precisions for peak in _peak_convolutions(precision, device)]
    gpu, batch = device.type == "cuda", len(image)
    calls = 5 if gpu else 1  # of a GPU's rounds, so that it does not wait for the first launch alone
    seconds: dict[str, list[float]] = {way.name: [] for way in (*ways, *peaks)}
    memory: dict[str, int | None] = {way.name: _peak_bytes(way, device) if gpu else None for way in ways}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    for number in range(rounds + 2):
        turn = number % len(ways)
        for way in (*ways[turn:], *ways[:turn], *peaks):
            seconds[way.name].append(_seconds(way.run, calls, device))
    counted = {name: found[2:] for name, found in seconds.items()}
    rates: dict[str, list[float]] = {}  # of the fastest convolution in each round
    for precision in precisions:
        found = [[peak.facts["flops"] / time for time in counted[peak.name]] for peak in peaks if peak.precision == precision]
        rates[precision] = [max(round_) for round_ in zip(*found, strict=True)]
    report: Report = {}
    for way in ways:
        mine, plain, peak = counted[way.name], counted[ways[0].name], rates.get(way.precision, rates["float32"])
        median = statistics.median(mine)
        report[way.name] = {
            "precision": way.precision,
            "emulated": way.precision in slow,
            "seconds": Spread.of(mine)._asdict(),
            "times_plain": Spread.of([a / b for a, b in zip(plain, mine, strict=True)])._asdict(),
            "pictures_per_second": batch / median,
            "gflop_per_second": flops / median / 1e9,
            "share_of_peak": Spread.of([flops / a / b for a, b in zip(mine, peak, strict=True)])._asdict(),
            "peak_bytes": memory[way.name],
            **way.facts,
        }
    return {
        "size": list(image.shape[-2:]),
        "batch": batch,
        "rounds": rounds,
        "load": load,
        "gflop_per_picture": flops / batch / 1e9,
        "peak_gflop_per_second": {precision: max(rate) / 1e9 for precision, rate in rates.items()},
        "ways": report,
    }


def _seconds(run: Callable[[], object], calls: int, device: torch.device) -> float:
    """What one call takes, on the device's own clock."""
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
    """How much more GPU memory a call has in use at most than what stands before it."""
    way.run()
    gc.collect()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    way.run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_convolutions(precision: str, device: torch.device) -> list[Way]:
    """Large 3×3 convolutions, forward: the fastest of them in a round is the machine's peak."""
    batch = 64 if device.type == "cuda" else 1
    dtype = getattr(torch, precision)
    ways = []
    for channels, side in ((128, 128), (256, 96), (512, 48)):
        x = torch.rand(batch, channels, side, side, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        kernel = torch.rand(channels, channels, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        run = torch.inference_mode()(calling(F.conv2d, x, kernel, None, 1, 1))
        flops = 2 * batch * channels**2 * 9 * side**2
        ways.append(Way(f"{precision} {channels} channels", precision, run, {"flops": flops}))
    return ways


def print_table(document: Report) -> None:
    """The ways of a benchmark's document, a line each."""
    rates = ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in document["peak_gflop_per_second"].items())
    print(f"{document['gflop_per_picture']:.1f} GFLOP a picture; fastest 3×3 convolutions here: {rates}")
    titles = f"{'seconds':>9}{'× plain':>9}{'quartiles':>12}{'pictures/s':>12}{'GFLOP/s':>9}{'of peak':>9}"
    print(f"{'pictures at once: ' + str(document['batch']):<28}{titles}{'saved MB':>10}{'peak MB':>9}{'error':>9}")
    for name, way in document["ways"].items():
        times, error = way["times_plain"], max(way.get("relative_error", {}).values(), default=0.0)
        quartiles = f"{times['low']:.2f}–{times['high']:.2f}"
        saved, peak = (f"{way[key] / 1e6:.0f}" if way.get(key) is not None else "–" for key in ("saved_bytes", "peak_bytes"))
        speeds = f"{way['seconds']['median']:>9.4f}{times['median']:>9.2f}{quartiles:>12}{way['pictures_per_second']:>12.2f}"
        rate = f"{way['gflop_per_second']:>9.0f}{way['share_of_peak']['median']:>9.0%}"
        print(f"{name + ' (emulated)' * way['emulated']:<28}{speeds}{rate}{saved:>10}{peak:>9}{error:>9.1e}")
    if all(way["precision"] == "float32" for way in document["ways"].values()):
        print("bfloat16 is left out: this device emulates it, several times slower than float32 (--emulated measures it)")
