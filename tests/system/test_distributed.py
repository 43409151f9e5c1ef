"""Ranks as the environment announces them, and an announcement that is not whole."""

import socket

import pytest
import torch
from helpers import refused

from segnet.system.devices import choose_device
from segnet.system.distributed import is_main, local_rank, process_group, rank, this_ranks_part, world_size
from segnet.system.errors import ExitCode, UserError

LAUNCHED = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture
def launched(monkeypatch):
    """Sets all that torchrun sets, with changes; None: not set."""

    def launch(**changes: str | None) -> None:
        for name, value in {**LAUNCHED, **changes}.items():
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)

    return launch


def test_a_gpu_that_a_rank_does_not_have_is_named(launched, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    launched(WORLD_SIZE="3", LOCAL_RANK="1")
    assert choose_device("auto") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="local rank 2: 2 GPUs here"):
        choose_device("cuda")


NONE = dict.fromkeys(LAUNCHED)


@pytest.mark.parametrize(
    "left",
    [
        {"WORLD_SIZE": "1"},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"WORLD_SIZE": "1", "RANK": "3", "LOCAL_RANK": "x"},
        {"WORLD_SIZE": ""},
        {"RANK": "5", "LOCAL_RANK": "2", "MASTER_ADDR": "gone"},
        {"MASTER_PORT": "none"},
    ],
)
def test_what_clusters_leave_in_the_environment_makes_no_ranks(launched, left):
    launched(**{**NONE, **left})
    assert (rank(), local_rank(), is_main()) == (0, 0, True)
    with process_group(torch.device("cpu")):
        assert world_size() == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"RANK": None}, "WORLD_SIZE=2: RANK not set"),
        ({"MASTER_ADDR": "", "MASTER_PORT": None}, "WORLD_SIZE=2: MASTER_ADDR, MASTER_PORT not set"),
        ({"RANK": "2"}, "RANK=2: expected 0 to 1 where WORLD_SIZE=2"),
        ({"RANK": "-1"}, "RANK=-1: expected 0 to 1"),
        ({"LOCAL_RANK": "first"}, "LOCAL_RANK=first: expected 0 to 1"),
        ({"MASTER_PORT": "99999"}, "MASTER_PORT=99999: expected 0 to 65535"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two: not a number of ranks"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0: not a number of ranks"),
        ({"WORLD_SIZE": "-4"}, "WORLD_SIZE=-4: not a number of ranks"),
    ],
)
def test_an_incomplete_launch_is_named_with_its_cure(launched, changes, named):
    launched(**changes)
    with refused(ExitCode.CONFIG, named, "torchrun", "unset WORLD_SIZE"), process_group(torch.device("cpu")):
        pass


def test_ranks_that_cannot_meet_are_named_with_the_place(launched):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        launched(RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(taken.getsockname()[1]))
        with refused(ExitCode.ENVIRONMENT, "cannot meet the other ranks at 127.0.0.1:"), process_group(torch.device("cpu")):
            pass


def test_a_machine_that_nobody_knows_is_named(launched):
    launched(MASTER_ADDR="nowhere.invalid")
    with refused(ExitCode.ENVIRONMENT, "cannot meet the other ranks at nowhere.invalid:"), process_group(torch.device("cpu")):
        pass


def test_alone_a_share_is_everything(monkeypatch):
    monkeypatch.setenv("RANK", "1")  # of something else than torchrun
    assert this_ranks_part([3, 1, 2]) == [3, 1, 2]
    assert rank() == 0
