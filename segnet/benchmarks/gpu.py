"""The first hour with a GPU: what cannot be known without one, measured part by part into one JSON document.

Each part also runs on a CPU, and says what it left out there.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple, get_args

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from segnet.benchmarks.data import benchmark_data, workers_needed
from segnet.benchmarks.network import benchmark_inference, benchmark_training
from segnet.benchmarks.timing import Facts
from segnet.config.loading import override_config
from segnet.config.sections import Config, Recompute
from segnet.data.loader import build_loader
from segnet.data.sampler import ResumableSampler
from segnet.inference.answers import predict_maps, prepare_to_predict
from segnet.models.initialization import build_model
from segnet.system.devices import choose_device, peak_memory, use_deterministic_algorithms
from segnet.system.errors import config_error, first_line
from segnet.tasks.choice import build_task
from segnet.training.data import open_train_set
from segnet.training.precision import resolve_precisions
from segnet.training.step import TrainState, build_state, to_device, train_step

_WARM_UP = 3  # steps before those that are profiled
_PROFILED = 10  # steps
_COMPARED = 5  # steps of deterministic training
_STEP = "training step"  # the name of a step in a profile


class Plan(NamedTuple):
    """The sizes of the measurements."""

    tests: Path  # the folder of this project's tests
    steps: int = 100  # of which the losses on CPU and GPU are compared
    rounds: int = 5  # of the measurements of speed
    megapixels: float = 12.0  # of the large picture
    gigabytes: float = 2.0  # of GPU memory for the large picture


def run_tests(config: Config, plan: Plan) -> Facts:
    """The outcome of the tests that need a GPU, run by pytest in a process of its own."""
    if choose_device(config.device).type == "cpu":
        return {"summary": "left out: the tests that are marked gpu would skip themselves"}
    if not plan.tests.is_dir():
        return {"summary": f"left out: no tests in {plan.tests}"}
    return pytest_outcome(plan.tests)


def pytest_outcome(folder: Path) -> Facts:
    """The last line, the names of failures and the last lines of output of pytest on the tests in `folder` marked gpu.

    A file that cannot be imported, for lack of a package that only tests need, is named and does not stop the others.
    """
    options = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "-rfE", "--continue-on-collection-errors"]
    command = [sys.executable, "-m", "pytest", *options, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=folder.parent)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"]
    failed = [line.split()[1] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    return {"summary": lines[-1].strip("= "), "failed": failed, "exit_code": done.returncode, "output": lines[-60:]}


def profile_steps(config: Config, _: Plan) -> Facts:
    """The time, the waits for the device and the slowest kernels of ten training steps between two log lines, with the loader."""
    device = choose_device(config.device)
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    steps = _train_steps(config, _WARM_UP + _PROFILED)
    for _step in range(_WARM_UP):
        next(steps)
    _wait(device)
    with warnings.catch_warnings(record=True) as caught, profile(activities=activities) as profiled:
        warnings.simplefilter("always")
        started = time.perf_counter()
        with _sync_warnings(on_gpu):
            for _step in range(_PROFILED):
                with record_function(_STEP):
                    next(steps)
        launched = time.perf_counter() - started
        _wait(device)
        seconds = time.perf_counter() - started
    steps.close()
    waits = [str(warning.message) for warning in caught if "called a synchronizing" in str(warning.message)]
    spans = [event.time_range for event in profiled.events() if event.name == _STEP]
    calls = [event.name for event in profiled.events() if "Synchronize" in event.name and _within(event.time_range.start, spans)]
    slowest = sorted(
        profiled.key_averages(), key=lambda row: -(row.self_device_time_total if on_gpu else row.self_cpu_time_total)
    )
    waited = f"{len(calls)} synchronisations, {len(waits)} warnings of torch about them"
    return {
        "summary": f"{1000 * seconds / _PROFILED:.1f} ms a step, {waited if on_gpu else 'no device to wait for'}",
        "seconds_per_step": seconds / _PROFILED,
        "seconds_per_step_of_the_host": launched / _PROFILED,
        "synchronisations": len(calls) if on_gpu else None,
        "torch_warnings": sorted(set(waits)),
        "slowest": [
            {"name": row.key, "calls": row.count, "self_ms": (row.self_device_time_total or row.self_cpu_time_total) / 1000}
            for row in slowest[:20]
        ],
    }


def repeat_deterministically(config: Config, _: Plan) -> Facts:
    """Whether deterministic training gives the same bits twice, for each choice of `train.recompute`."""
    equal: dict[str, bool] = {}
    use_deterministic_algorithms(True)
    try:
        for recompute in get_args(Recompute):
            changed = override_config(config, ["train.compile=false", f"train.recompute={recompute}"])
            first, second = (_weights_digest(changed, _COMPARED) for _ in range(2))
            equal[recompute] = first == second
    finally:
        use_deterministic_algorithms(False)
    different = ", ".join(name for name, same in equal.items() if not same)
    summary = f"other bits with {different}" if different else f"the same bits twice after {_COMPARED} steps in each mode"
    return {"summary": summary, "equal": equal}


def measure_training(config: Config, plan: Plan) -> Facts:
    """The speed of a training step beside the plain network, with and without compilation."""
    return _measure_speed(config, plan, benchmark_training)


def measure_inference(config: Config, plan: Plan) -> Facts:
    """The speed of a forward pass beside the plain network, with and without compilation."""
    return _measure_speed(config, plan, benchmark_inference)


def _measure_speed(config: Config, plan: Plan, benchmark: Callable[..., Facts]) -> Facts:
    on_gpu = choose_device(config.device).type == "cuda"
    found = benchmark(override_config(config, ["train.accumulate=1"]), rounds=plan.rounds, compiled=on_gpu)
    best = max(found["ways"], key=lambda name: found["ways"][name]["pictures_per_second"])
    rate, times = found["ways"][best]["pictures_per_second"], found["ways"][best]["times_plain"]["median"]
    left_out = "" if on_gpu else "; compilation left out, which takes minutes on a CPU"
    return {"summary": f"{best}: {rate:.1f} pictures/s, {times:.2f} × plain{left_out}", **found}


def compare_losses(config: Config, plan: Plan) -> Facts:
    """The losses of the same small float32 steps on the CPU and on the GPU: their ratios, and the curves themselves."""
    size = [min(most, side) for most, side in zip((96, 128), config.augment.crop_size, strict=True)]
    small = ["train.precision=float32", "train.compile=false", "train.accumulate=1", f"augment.crop_size={size}"]
    config = override_config(config, [*small, f"train.batch_size={min(2, config.train.batch_size)}"])
    devices = ["cpu", "cuda"] if choose_device(config.device).type == "cuda" else ["cpu"]
    curves = {device: _losses(override_config(config, [f"device={device}"]), plan.steps) for device in devices}
    cpu, other = curves["cpu"], curves[devices[-1]]
    tenth = max(1, plan.steps // 10)
    first, last = other[0] / cpu[0], sum(other[-tenth:]) / sum(cpu[-tenth:])
    compared = f"GPU/CPU {first:.5f} in step 1, {last:.3f} over the last {tenth}" if len(devices) > 1 else "GPU left out"
    return {"summary": f"{cpu[0]:.3f} to {cpu[-1]:.3f} in {plan.steps} steps; {compared}", "losses": curves}


def measure_loader(config: Config, plan: Plan) -> Facts:
    """Pictures per second and core, and the workers that a GPU needs which takes 550 pictures per second."""
    threads = torch.get_num_threads()
    try:
        found = benchmark_data(config, 64, plan.rounds)
    finally:
        torch.set_num_threads(threads)
    name = "from cache for a GPU"
    needed = workers_needed(found["per_core"], 550)
    rate, workers = found["per_core"][name]["median"], needed["workers_needed"][name]
    return {"summary": f"{rate:.0f} pictures/s per core {name}; {workers} workers for 550/s", **found, "gpu": needed}


def predict_large_picture(config: Config, plan: Plan) -> Facts:
    """The peak memory and the time of predicting a picture of `plan.megapixels` in `plan.gigabytes` of GPU memory."""
    device = choose_device(config.device)
    height = round((plan.megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(plan.megapixels * 1e6 / height)
    task = build_task(config)
    network = build_model(config.model, task.channels, config.data.channels).to(device).eval()
    model = prepare_to_predict(network, config.inference)
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, network.in_channels, height, width), dtype=torch.uint8, generator=generator)
    with _memory_limit(device, plan.gigabytes):
        started = time.perf_counter()
        mask = predict_maps(model, image, config.inference).mask
        seconds = time.perf_counter() - started
        peak = peak_memory(device)
    limit = f"of {plan.gigabytes:g} GB" if device.type == "cuda" else "of this process; the limit is left out"
    return {
        "summary": f"{height}×{width} in {seconds:.1f} s with {peak:.2f} GB {limit}",
        "size": list(mask.shape[-2:]),
        "seconds": seconds,
        "peak_gigabytes": peak,
    }


PARTS: Mapping[str, Callable[[Config, Plan], Facts]] = {
    "tests": run_tests,
    "profile": profile_steps,
    "deterministic": repeat_deterministically,
    "losses": compare_losses,
    "training": measure_training,
    "inference": measure_inference,
    "loader": measure_loader,
    "large-picture": predict_large_picture,
}


def run_parts(
    config: Config, plan: Plan, parts: Sequence[str], *, minutes: float, done: Facts, save: Callable[[Facts], None]
) -> list[str]:
    """Measure `parts` into `done`, a fact for each, calling `save(done)` after each of them; the parts that were not begun.

    After `minutes` the running part is given up, and no further one begins. A part that fails leaves its traceback under
    "error" instead of numbers.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for deterministic steps; read when CUDA starts
    config, _ = resolve_precisions(config, choose_device(config.device), None)
    end = time.monotonic() + 60 * minutes
    for number, name in enumerate(parts):
        started = time.monotonic()
        if started >= end:
            return list(parts[number:])
        torch.manual_seed(0)
        try:
            with _time_limit(end - started):
                facts = PARTS[name](config, plan)
        except Exception as error:
            facts = {"summary": f"failed: {first_line(error, 200)}", "error": traceback.format_exc()}
        done[name] = {"taken_seconds": round(time.monotonic() - started, 1), **facts}
        print(f"{name:<14}{done[name]['taken_seconds']:>7.1f} s  {done[name]['summary']}", flush=True)
        save(done)
    return []


def earlier_parts(path: Path, conditions: Facts) -> Facts:
    """The parts that an earlier run wrote to `path`; none where there is no such file.

    Raises UserError (config) for another file, and for one that was measured under other `conditions`.
    """
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text("utf-8"))
        parts = dict(document["parts"])
    except (OSError, ValueError, LookupError, TypeError):
        raise config_error(path, "is not a document of `segnet benchmark gpu`", "name another --json") from None
    changed = [key for key in conditions if document.get(key) != conditions[key]]
    if changed:
        raise config_error(path, f"was measured with another {', '.join(changed)}", "name another --json, or remove it")
    return parts


def unfinished_parts(done: Facts) -> list[str]:
    """The parts that `done` does not hold, or holds as failed."""
    return [name for name in PARTS if name not in done or "error" in done[name]]


def as_markdown(document: Facts) -> str:
    """The document of `segnet benchmark gpu` as a page: a table of the parts, and one of the speeds."""
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    lines = [
        f"# {document['device']}",
        "",
        f"`{document['config']}`; {versions}",
        "",
        "| part | seconds | result |",
        "|---|---|---|",
    ]
    parts = document["parts"]
    lines += [f"| {name} | {part['taken_seconds']} | {part['summary'].replace('|', '/')} |" for name, part in parts.items()]
    speeds = {name: parts[name]["ways"] for name in ("training", "inference") if "ways" in parts.get(name, {})}
    if speeds:
        lines += ["", "| work | way | pictures/s | × plain (quartiles) | peak MB |", "|---|---|---|---|---|"]
    for name, ways in speeds.items():
        for way, facts in ways.items():
            times = facts["times_plain"]
            peak = "–" if facts["peak_bytes"] is None else f"{facts['peak_bytes'] / 1e6:.0f}"
            ratio = f"{times['median']:.2f} ({times['low']:.2f}–{times['high']:.2f})"
            lines.append(f"| {name} | {way} | {facts['pictures_per_second']:.1f} | {ratio} | {peak} |")
    return "\n".join(lines) + "\n"


def _train_steps(config: Config, count: int) -> Generator[TrainState, None, None]:
    """The state after each of the first `count` steps of a run on `config.device`, with its loader, from random weights."""
    device = choose_device(config.device)
    task = build_task(config)
    dataset = open_train_set(config, task)
    if config.data.cache == "disk":
        dataset.keep_decoded(Path(config.data.cache_folder) if config.data.cache_folder else None)
    state = build_state(config, task.channels, device, pretrained=False)
    criterion = task.build_criterion(dataset, device)
    sampler = ResumableSampler(len(dataset), config.train.batch_size, seed=config.seed, start=0, total=count)
    for batch in build_loader(dataset, sampler, workers=config.data.workers, for_gpu=device.type == "cuda"):
        train_step(state, to_device(batch, device), criterion, lr=config.optim.lr, config=config)
        yield state


def _losses(config: Config, count: int) -> list[float]:
    """The loss of each of the first `count` steps."""
    sums = torch.stack([state.loss_sum.clone() for state in _train_steps(config, count)]).cpu()
    return torch.diff(sums, prepend=torch.zeros(1)).tolist()


def _weights_digest(config: Config, count: int) -> str:
    """A digest of all weights and statistics after `count` steps."""
    *_, state = _train_steps(config, count)
    content = hashlib.blake2b()
    for tensor in state.model.state_dict().values():
        content.update(_bytes(tensor))
    return content.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()


def _wait(device: torch.device) -> None:
    """Wait until a GPU has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _within(moment: float, spans: Sequence[torch.autograd.profiler_util.Interval]) -> bool:
    return any(span.start <= moment <= span.end for span in spans)


@contextmanager
def _sync_warnings(on: bool) -> Iterator[None]:
    """A context in which torch warns of its own operations that wait for the GPU, where `on`."""
    if not on:
        yield
        return
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextmanager
def _memory_limit(device: torch.device, gigabytes: float) -> Iterator[None]:
    """A context in which this process gets at most so much memory of a GPU; the peak counts from here on."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    whole = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / whole), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the body after so many seconds."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("the time is up; measure this part alone with more --minutes")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
