"""The ranks that torchrun starts, and what they exchange. A process alone is rank 0 of 1, and all functions work there too."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store, default_pg_timeout

from segnet.system.errors import ExitCode, UserError, config_error, data_error, environment_error, first_line
from segnet.system.terminal import print_above_bars

Value = TypeVar("Value")


@contextmanager
def process_group(device: torch.device, *, patience: timedelta | None = None) -> Iterator[None]:
    """Join the ranks that torchrun started while the body runs, with gloo for CPU tensors and NCCL for GPU tensors.

    Ranks wait at most `patience` for each other; by default half an hour for CPU tensors and ten minutes for GPU tensors. The
    death of a rank is noticed at once where they exchange CPU tensors, as in every step of a training. Where it is noticed in
    an exchange of GPU tensors, NCCL may not let go of it: then torchrun ends the rank.

    Raises UserError: (worker lost) instead of the library's own error when another rank is lost; (environment) when the ranks
    cannot meet; (config) when the environment variables of torchrun name several ranks and are incomplete or contradictory.
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
        found = f"another rank was lost ({first_line(error, 120)})"
        remedy = "see its own message, then start again (a training with --resume)"
        raise UserError(ExitCode.WORKER_LOST, f"rank {rank()}", found, remedy) from None
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


class _Launched(NamedTuple):
    """The place of this process among those that torchrun started."""

    rank: int
    ranks: int  # number of ranks
    local_rank: int  # number among the ranks of this machine


def _launched() -> _Launched:
    """The place of this process, read from the environment variables that torchrun sets.

    With WORLD_SIZE unset or 1 the other variables are ignored: clusters and notebooks leave some of them set.
    Raises UserError (config) where WORLD_SIZE is not a positive number, or is 2 or more and another variable is missing or
    out of range.
    """
    given = {name: os.environ.get(name, "") for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")}
    remedy = "start with torchrun, which sets them all; for one process: unset WORLD_SIZE"
    count = int(given["WORLD_SIZE"] or "1") if given["WORLD_SIZE"].strip().isdecimal() or not given["WORLD_SIZE"] else 0
    if count < 1:
        raise config_error(f"WORLD_SIZE={given['WORLD_SIZE']}", "not a number of ranks", remedy)
    if count == 1:
        return _Launched(0, 1, 0)
    missing = [name for name, value in given.items() if not value and name != "LOCAL_RANK"]
    if missing:
        raise config_error(f"WORLD_SIZE={count}", f"{', '.join(missing)} not set in the environment", remedy)
    for name, end in (("RANK", count), ("LOCAL_RANK", count), ("MASTER_PORT", 65536)):
        value = given[name] or "0"
        if not value.isdecimal() or int(value) >= end:
            raise config_error(f"{name}={value}", f"expected 0 to {end - 1} where WORLD_SIZE={count}", remedy)
    return _Launched(int(given["RANK"]), count, int(given["LOCAL_RANK"] or "0"))


def _join(backend: str, patience: timedelta | None) -> None:
    """Connect to the other ranks. Raises UserError (environment) when that fails."""
    try:
        socket.getaddrinfo(os.environ["MASTER_ADDR"], None)  # torch would retry an unknown name for half an hour
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            here, store = _launched(), _store_of_attempt(patience)
            dist.init_process_group(backend, timeout=patience, store=store, rank=here.rank, world_size=here.ranks)
        else:
            dist.init_process_group(backend, timeout=patience)
    except (RuntimeError, ValueError, OSError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        found = f"cannot meet the other ranks at {place} ({first_line(error, 120)})"
        remedy = "see whether the port is free and the name of the machine is known, or give torchrun another --rdzv-endpoint"
        raise environment_error(f"rank {rank()}", found, remedy) from None


def _store_of_attempt(patience: timedelta | None) -> Store:
    """The store of torchrun in which ranks find each other, for this attempt alone.

    torchrun keeps it when it starts ranks again, and then it still holds the addresses of those that were there before.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(host, port, is_master=False, timeout=patience or default_pg_timeout)  # type: ignore[attr-defined]
    return PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def rank() -> int:
    """The number of this process among all ranks, 0 when it is alone; known before `process_group`."""
    return dist.get_rank() if dist.is_initialized() else _launched().rank


def local_rank() -> int:
    """The number of this process among the ranks of this machine, 0 when it is alone."""
    return _launched().local_rank


def restarted() -> bool:
    """True in a rank that torchrun started again after a failure (its --max-restarts)."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") not in ("", "0")


def world_size() -> int:
    """The number of ranks; 1 outside `process_group`."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """True on rank 0, which prints and writes files."""
    return rank() == 0


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The elementwise sum of every rank's `tensor`; with one rank, `tensor` itself."""
    if world_size() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def max_over_ranks(value: int) -> int:
    """The largest `value` of all ranks."""
    return max(gather(value))


def gather(value: int) -> list[int]:
    """Every rank's `value`, in the order of the ranks."""
    if world_size() == 1:
        return [value]
    values = [torch.empty(1, dtype=torch.int64) for _ in range(world_size())]
    dist.all_gather(values, torch.tensor([value], dtype=torch.int64))
    return [int(found) for found in values]


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
    """Make the body fail on every rank where it raises UserError or OSError on one of them.

    The first of the ranks that failed raises its own error; all others raise SystemExit with its exit code.
    """
    if world_size() == 1:
        yield
        return
    error: UserError | OSError | None = None
    try:
        yield
    except (UserError, OSError) as raised:
        error = raised
    code = ExitCode.ENVIRONMENT if error else ExitCode.DONE
    codes = gather(error.code if isinstance(error, UserError) else code)
    first = next((number for number, code in enumerate(codes) if code), None)
    if first is not None:
        raise error if error and first == rank() else SystemExit(codes[first])


def require_same_on_all_ranks(value: int, what: str) -> None:
    """Raises UserError (data) on the first rank whose `value` differs from rank 0's, and SystemExit on the others.

    `what` says in the message what `value` stands for.
    """
    values = gather(value)
    other = next((number for number, theirs in enumerate(values) if theirs != values[0]), None)
    if other == rank():
        raise data_error(f"rank {other}", f"has other {what} than rank 0", "give all ranks the same files")
    if other is not None:
        raise SystemExit(ExitCode.DATA)


def this_ranks_part(values: list[Value]) -> list[Value]:
    """This rank's part of `values`. Every value is on exactly one rank; nothing is padded."""
    return values[rank() :: world_size()]


def share_buffers(model: nn.Module) -> None:
    """Copy rank 0's buffers, such as batch statistics, to every rank."""
    if world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def say(text: str) -> None:
    """Print `text` on rank 0, above its progress bars."""
    if is_main():
        print_above_bars(text, sys.stdout)
