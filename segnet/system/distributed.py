"""Several processes, one training: the ranks that torchrun starts. Alone, a process is rank 0 of 1 and all this does nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from segnet.system.errors import ExitCode, UserError

Value = TypeVar("Value")


@contextmanager
def process_group(device: torch.device, *, patience: timedelta | None = None) -> Iterator[None]:
    """Join the ranks that torchrun started, for the body: gloo for the host's values, NCCL for a GPU's.

    Ranks wait `patience` for each other, torch's half hour by default; one that dies is noticed at once.

    Raises UserError: (worker lost) in place of the network's own error when another rank is lost, (environment) when the ranks
    cannot meet, (config) for variables of the environment that name several ranks and are incomplete or contradict each other.
    """
    if dist.is_initialized() or _launched().ranks == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    _join("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", patience)
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        found = f"another rank was lost ({str(error).splitlines()[0][:120]})"
        remedy = "see its own message, then start again (a training with --resume)"
        raise UserError(ExitCode.WORKER_LOST, f"rank {rank()}", found, remedy) from None
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


class _Launched(NamedTuple):
    """What torchrun says of this process in its environment."""

    rank: int
    ranks: int  # how many there are
    local_rank: int  # among those of this machine


def _launched() -> _Launched:
    """Which rank this process is, of how many. One process alone, unless WORLD_SIZE is 2 or more.

    Clusters and notebooks leave some of these variables behind. Raises UserError (config) where WORLD_SIZE is no count, or names
    several ranks and the other variables are missing or do not fit.
    """
    given = {name: os.environ.get(name, "") for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")}
    remedy = "start with torchrun, which sets them all; for one process: unset WORLD_SIZE"
    count = int(given["WORLD_SIZE"] or "1") if given["WORLD_SIZE"].strip().isdecimal() or not given["WORLD_SIZE"] else 0
    if count < 1:
        raise UserError(ExitCode.CONFIG, f"WORLD_SIZE={given['WORLD_SIZE']}", "not a number of ranks", remedy)
    if count == 1:
        return _Launched(0, 1, 0)
    missing = [name for name, value in given.items() if not value and name != "LOCAL_RANK"]
    if missing:
        raise UserError(ExitCode.CONFIG, f"WORLD_SIZE={count}", f"{', '.join(missing)} not set in the environment", remedy)
    for name, end in (("RANK", count), ("LOCAL_RANK", count), ("MASTER_PORT", 65536)):
        value = given[name] or "0"
        if not value.isdecimal() or int(value) >= end:
            raise UserError(ExitCode.CONFIG, f"{name}={value}", f"expected 0 to {end - 1} where WORLD_SIZE={count}", remedy)
    return _Launched(int(given["RANK"]), count, int(given["LOCAL_RANK"] or "0"))


def _join(backend: str, patience: timedelta | None) -> None:
    """Meet the other ranks. Raises UserError (environment) when that fails."""
    try:
        socket.getaddrinfo(os.environ["MASTER_ADDR"], None)  # torch would ask for an unknown name for half an hour
        dist.init_process_group(backend, timeout=patience)
    except (RuntimeError, ValueError, OSError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        found = f"cannot meet the other ranks at {place} ({(str(error).splitlines() or [''])[0][:120]})"
        remedy = "see whether the port is free and the name of the machine is known, or give torchrun another --rdzv-endpoint"
        raise UserError(ExitCode.ENVIRONMENT, f"rank {rank()}", found, remedy) from None


def rank() -> int:
    """Which of the ranks that torchrun started this process is; known before it joins them."""
    return dist.get_rank() if dist.is_initialized() else _launched().rank


def local_rank() -> int:
    """Which of the ranks on this machine this process is, 0 when it is alone."""
    return _launched().local_rank


def world_size() -> int:
    """How many ranks have joined; 1 outside `process_group`."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is rank 0, the one that prints and writes."""
    return rank() == 0


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The elementwise sum of every rank's `tensor`; alone, the tensor itself."""
    if world_size() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def max_over_ranks(value: int) -> int:
    """The largest of every rank's `value`."""
    return max(gather(value))


def gather(value: int) -> list[int]:
    """Every rank's `value`, in the order of the ranks."""
    if world_size() == 1:
        return [value]
    values = torch.zeros(world_size(), dtype=torch.int64)
    dist.all_gather_into_tensor(values, torch.tensor([value], dtype=torch.int64))
    return values.tolist()


def gather_texts(text: str) -> list[str]:
    """Every rank's `text`, in the order of the ranks."""
    if world_size() == 1:
        return [text]
    content = torch.frombuffer(bytearray(text.encode("utf-8", "surrogatepass")), dtype=torch.uint8)
    lengths = gather(len(content))
    texts = [torch.empty(max(lengths), dtype=torch.uint8) for _ in lengths]
    dist.all_gather(texts, F.pad(content, (0, max(lengths) - len(content))))
    return [bytes(found[:length].tolist()).decode("utf-8", "surrogatepass") for found, length in zip(texts, lengths, strict=True)]


@contextmanager
def agreed() -> Iterator[None]:
    """The body succeeds on every rank or on none: where one raises UserError or OSError, all leave with its exit code.

    Only the first of the ranks that failed raises its error; the others raise SystemExit and stay silent.
    """
    if world_size() == 1:
        yield
        return
    error: UserError | OSError | None = None
    try:
        yield
    except (UserError, OSError) as raised:
        error = raised
    codes = gather(error.code if isinstance(error, UserError) else ExitCode.ENVIRONMENT if error else ExitCode.DONE)
    first = next((number for number, code in enumerate(codes) if code), None)
    if first is not None:
        raise error if error and first == rank() else SystemExit(codes[first])


def refuse_difference(value: int, what: str) -> None:
    """Raises UserError (data) on the first rank whose `value` is not that of rank 0, and SystemExit on the others."""
    values = gather(value)
    other = next((number for number, theirs in enumerate(values) if theirs != values[0]), None)
    if other == rank():
        raise UserError(ExitCode.DATA, f"rank {other}", f"has other {what} than rank 0", "give all ranks the same files")
    if other is not None:
        raise SystemExit(ExitCode.DATA)


def this_ranks_part(values: list[Value]) -> list[Value]:
    """This rank's part of `values`: every value on exactly one rank, nothing padded."""
    return values[rank() :: world_size()]


def share_buffers(model: nn.Module) -> None:
    """Give every rank the buffers of rank 0, e.g. batch statistics before an evaluation that the ranks divide among them."""
    if world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def say(text: str) -> None:
    if is_main():
        print(text, flush=True)
