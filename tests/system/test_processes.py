"""Stop signals are heard, unless whoever started the process ignored them."""

import os
import signal
import time

import pytest

from segnet.system.processes import STOP_SIGNALS, heard_stop_signals, stop_signals, stop_signals_blocked, stop_signals_interrupt

UNLIMITED = [number for number in STOP_SIGNALS if number not in (signal.SIGINT, signal.SIGTERM)]


@pytest.fixture(autouse=True)
def heard():
    """None of them is ignored, as whoever started the tests may do."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in UNLIMITED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(params=UNLIMITED)
def ignored(request):
    """A signal that is ignored, as nohup does with SIGHUP."""
    before = signal.signal(request.param, signal.SIG_IGN)
    yield request.param
    signal.signal(request.param, before)


def test_an_ignored_signal_stays_ignored(ignored):
    assert ignored not in heard_stop_signals()
    received: list[int] = []
    with stop_signals(received):
        signal.raise_signal(ignored)
    with stop_signals_interrupt():
        signal.raise_signal(ignored)
    assert not received
    assert signal.getsignal(ignored) == signal.SIG_IGN


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_is_noted_and_the_second_interrupts(number, capsys):
    before, received = signal.getsignal(number), list[int]()
    with stop_signals(received):
        signal.raise_signal(number)
        assert received == [number]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(number) == before
    assert capsys.readouterr().err.count("stopping after this step") == 1


@pytest.mark.parametrize("number", [number for number in STOP_SIGNALS if number != signal.SIGINT])
def test_an_interrupted_command_ends_with_the_number(number):
    with pytest.raises(SystemExit) as leaving, stop_signals_interrupt():
        signal.raise_signal(number)
    assert leaving.value.code == 128 + number


@pytest.mark.parametrize("first", UNLIMITED)
def test_a_warning_may_come_again_and_before_the_stop(first):
    received: list[int] = []
    with stop_signals(received):
        for number in (first, first, signal.SIGTERM):
            signal.raise_signal(number)
    assert received == [first, first, signal.SIGTERM]


def test_what_is_started_meanwhile_hears_none_of_them():
    with stop_signals_blocked():
        child = os.fork()
        if not child:
            time.sleep(0.2)
            os._exit(7)
    for number in STOP_SIGNALS:
        os.kill(child, number)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
