"""The queue: order, places, bounds."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from web_servers import WAIT

from segnet.web.answers import Answer
from segnet.web.queue import Cancelled, Job, PictureQueue, Place, QueueFull


def answer_of(size: int) -> Callable[[], Answer]:
    return lambda: Answer(bytes(size), "text/plain", (1, 1), 0.0)


def test_jobs_are_done_one_after_the_other_in_their_order():
    queue, busy, order = PictureQueue(100, 10**6), threading.Lock(), list[int]()

    def work(number: int) -> Answer:
        assert busy.acquire(blocking=False)
        order.append(number)
        busy.release()
        return answer_of(1)()

    jobs = [Job("", "", lambda number=number: work(number)) for number in range(50)]
    for job in jobs:
        queue.join(job)
    assert all(job.done.wait(WAIT) for job in jobs)
    queue.close()
    assert order == list(range(50))
    assert queue.answered == 50


def test_places_count_down_and_a_full_queue_refuses():
    queue, gate = PictureQueue(2, 10**6), threading.Event()
    begun = threading.Event()
    first = Job("a", "", lambda: (begun.set(), gate.wait(WAIT), answer_of(1)())[-1])
    queue.join(first)
    assert begun.wait(WAIT)
    others = [Job(ticket, "", answer_of(1)) for ticket in "bc"]
    for job in others:
        queue.join(job)
    assert [queue.place(ticket) for ticket in "abcd"] == [
        Place("computing"),
        Place("waiting", 1),
        Place("waiting", 2),
        Place("unknown"),
    ]
    assert (queue.length, queue.is_full) == (3, True)
    with pytest.raises(QueueFull):
        queue.join(Job("d", "", answer_of(1)))
    assert queue.cancel("b")
    with pytest.raises(Cancelled):
        others[0].result()
    assert queue.place("c") == Place("waiting", 1)
    gate.set()
    assert others[1].done.wait(WAIT)
    queue.close()


def test_answers_that_nobody_takes_stop_the_network():
    queue = PictureQueue(10, unsent_limit=100)
    jobs = [Job(str(number), "", answer_of(60)) for number in range(4)]
    for job in jobs:
        queue.join(job)
    assert jobs[1].done.wait(WAIT)
    assert not jobs[2].done.wait(0.1)  # 120 bytes are not taken
    queue.collected(jobs[0])
    assert jobs[2].done.wait(WAIT)
    queue.collected(jobs[0])  # counted once
    assert not jobs[3].done.wait(0.1)
    queue.close()
    with pytest.raises(Cancelled):
        jobs[3].result()


def test_a_closed_queue_takes_nothing():
    queue = PictureQueue(10, 100)
    queue.close()
    assert queue.is_full
    with pytest.raises(QueueFull):
        queue.join(Job("", "", answer_of(1)))


def test_what_the_work_raises_is_raised_to_who_waits():
    def fail() -> Answer:
        raise KeyError("a")

    queue = PictureQueue(10, 100)
    failing, next_one = Job("", "", fail), Job("", "", answer_of(1))
    queue.join(failing)
    queue.join(next_one)
    assert next_one.done.wait(WAIT)
    with pytest.raises(KeyError):
        failing.result()
    assert next_one.result().content == b"\0"
    queue.close()
