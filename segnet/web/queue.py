"""The queue before the network: one picture is computed at a time, the others wait in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from segnet.web.answers import Answer

_PATIENCE = 5.0  # seconds that a layer of the network may take after it is to stop


class Cancelled(Exception):
    """Nobody waits for this picture any more."""


class QueueFull(Exception):
    """As many pictures wait as may."""


class Place(NamedTuple):
    """Where a picture is."""

    state: str  # "waiting", "computing", or "unknown": it has not come yet, or is answered
    before: int = 0  # pictures that come first, the one that is computed among them


class Job:
    """A picture in the queue."""

    def __init__(self, ticket: str, name: str, work: Callable[[], Answer]) -> None:
        self.ticket = ticket  # under which its place is asked for; may be empty
        self.name = name  # of the picture
        self.work: Callable[[], Answer] | None = work  # None once it is done, which frees what it holds
        self.done = threading.Event()
        self.cancelled = False
        self.answer: Answer | None = None
        self.error: BaseException | None = None

    def result(self) -> Answer:
        """The answer, once it is done. Raises what the work raised, and Cancelled."""
        if self.error is not None:
            raise self.error
        assert self.answer is not None
        return self.answer


class PictureQueue:
    """Computes one job after another, in a thread of its own, until it is closed.

    At most `limit` jobs wait. While answers of more than `unsent_limit` bytes are not collected, no other is computed.
    """

    def __init__(self, limit: int, unsent_limit: int) -> None:
        self.answered = 0  # jobs
        self._limit, self._unsent_limit = limit, unsent_limit
        self._waiting = deque[Job]()
        self._current: Job | None = None
        self._unsent = 0  # bytes
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    def join(self, job: Job) -> None:
        """Put a job at the end. Raises QueueFull."""
        with self._changed:
            if self._closed or len(self._waiting) >= self._limit:
                raise QueueFull
            self._waiting.append(job)
            self._changed.notify_all()

    @property
    def is_full(self) -> bool:
        """Whether `join` would raise."""
        return self._closed or len(self._waiting) >= self._limit

    @property
    def length(self) -> int:
        """The number of jobs that wait or are computed."""
        with self._changed:
            return len(self._waiting) + (self._current is not None)

    def place(self, ticket: str) -> Place:
        """Where the job with this ticket is."""
        with self._changed:
            if self._current is not None and self._current.ticket == ticket:
                return Place("computing")
            for number, job in enumerate(self._waiting):
                if job.ticket == ticket:
                    return Place("waiting", number + (self._current is not None))
        return Place("unknown")

    def cancel(self, ticket: str) -> bool:
        """Let the job with this ticket end with Cancelled. False where there is none."""
        with self._changed:
            found = [job for job in (self._current, *self._waiting) if job is not None and job.ticket == ticket]
        for job in found:
            self.drop(job)
        return bool(found)

    def drop(self, job: Job) -> None:
        """Let a job end with Cancelled, now where it waits, else before the next layer of the network."""
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
                self._finish(job, error=Cancelled())

    def stop_if_cancelled(self) -> None:
        """Raise Cancelled where nobody waits for the job that is computed: the network calls it between its layers."""
        if self._current is not None and self._current.cancelled and threading.current_thread() is self._thread:
            raise Cancelled

    def collected(self, job: Job) -> None:
        """The answer of a job has been sent, or is not wanted any more."""
        with self._changed:
            if job.answer is not None:
                self._unsent -= len(job.answer.content)
                job.answer = None
            self._changed.notify_all()

    def close(self) -> None:
        """Let all jobs end with Cancelled, and wait until the network stands still."""
        with self._changed:
            self._closed = True
            jobs = [job for job in (self._current, *self._waiting) if job is not None]
            self._changed.notify_all()
        for job in jobs:
            self.drop(job)
        self._thread.join(timeout=_PATIENCE)

    def _run(self) -> None:
        while job := self._next():
            answer, error = None, None
            try:
                assert job.work is not None
                answer = job.work()
            except BaseException as raised:  # the thread that waits for the job raises it
                error = raised
            with self._changed:
                self._current = None
                self._finish(job, answer, error)

    def _next(self) -> Job | None:
        """The first job, as soon as there is one; None when the queue is closed."""
        with self._changed:
            while not self._closed and (not self._waiting or self._unsent > self._unsent_limit):
                self._changed.wait()
            if self._closed:
                return None
            self._current = self._waiting.popleft()
            return self._current

    def _finish(self, job: Job, answer: Answer | None = None, error: BaseException | None = None) -> None:
        job.work = None
        job.answer, job.error = answer, error
        if answer is not None:
            self.answered += 1
            self._unsent += len(answer.content)
        job.done.set()
