"""The turns of channels: which worker may announce joins and leaves, and which of them wait.

A join or leave that lets its worker announce something (first or last of a user, or of a channel) takes the channel's
turn. Until the worker has settled it, or `TURN_S` have passed, joins and leaves of other workers on that channel wait:
otherwise a `member_removed` could overtake the `member_added` of a return.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["TURN_S", "ChannelTurns", "TurnTaker"]

TURN_S = 2.0
"""Longest time that a turn holds others back."""

Operation = TypeVar("Operation")
Key = tuple[str, str]


class TurnTaker:
    """What `ChannelTurns` keeps of one worker."""

    def __init__(self) -> None:
        self.turns: dict[int, Key] = {}
        """Turns that it has not settled, oldest first."""
        self.last_turn = 0
        self.held = 0
        """Its operations that wait."""


Worker = TypeVar("Worker", bound=TurnTaker)


class ChannelTurns(Generic[Worker, Operation]):
    """Runs the operations on each channel, holding back those of workers whose turn it is not.

    `run(worker, operation)` carries one out; it may call `take`.
    """

    def __init__(self, run: Callable[[Worker, Operation], None], now: Callable[[], float]) -> None:
        self._run = run
        self._now = now
        self._current: dict[Key, tuple[Worker, int, float]] = {}
        """By channel: whose turn it is, its number, and since when."""
        self._held: dict[Key, deque[tuple[Worker, Operation]]] = {}

    def submit(self, worker: Worker, key: Key, operation: Operation) -> None:
        """Run an operation on a channel, now or when it is the worker's turn; in order of submission."""
        current = self._current.get(key)
        if key in self._held or (current is not None and current[0] is not worker):
            self._held.setdefault(key, deque()).append((worker, operation))
            worker.held += 1
        else:
            self._run(worker, operation)

    def take(self, worker: Worker, key: Key) -> int:
        """Give the worker the channel's turn. Returns its number, for `settle`."""
        worker.last_turn += 1
        worker.turns[worker.last_turn] = key
        self._current[key] = (worker, worker.last_turn, self._now())
        return worker.last_turn

    def settle(self, worker: Worker, number: int) -> None:
        """End the worker's turns up to this number."""
        self._end(worker, list(itertools.takewhile(lambda turn: turn <= number, worker.turns)))

    def settle_all(self, worker: Worker) -> None:
        """End all turns of a worker that is gone."""
        self._end(worker, list(worker.turns))

    def expire(self, now: float) -> None:
        """End turns that were not settled within `TURN_S`."""
        for key in [key for key, (_, _, since) in self._current.items() if now - since > TURN_S]:
            del self._current[key]
            self._go_on(key)

    def _end(self, worker: Worker, numbers: list[int]) -> None:
        for number in numbers:
            key = worker.turns.pop(number)
            current = self._current.get(key)
            if current is not None and current[0] is worker and current[1] == number:
                del self._current[key]
                self._go_on(key)

    def _go_on(self, key: Key) -> None:
        """Run what was held back, until another worker has the turn."""
        held = self._held.get(key)
        if held is None:
            return
        while held:
            worker, operation = held[0]
            current = self._current.get(key)
            if current is not None and current[0] is not worker:
                return
            held.popleft()
            worker.held -= 1
            self._run(worker, operation)
        del self._held[key]
