"""Bounded queues between the connection and its readers.

The connection never waits for a reader. A stream that is full drops its oldest event, and its reader is told at that
place: a `Gap` with the reason `overflow`, and how many are missing.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Self, TypeVar

from smartlink.client.errors import InvalidPayload
from smartlink.client.messages import Gap

__all__ = ["DEFAULT_BUFFER", "Fan", "Stream", "as_it_is"]

DEFAULT_BUFFER = 1_000

T = TypeVar("T")


def as_it_is(item: Any) -> Any:
    """Convert nothing."""
    return item


class Stream(Generic[T]):
    """What arrives, in order, from the moment the stream was opened: `async for item in stream`.

    The iteration ends when the client is closed or the channel is left, and raises the error that ended the
    subscription, after what had arrived before. One reader at a time. A stream that nobody refers to any more is
    discarded.
    """

    def __init__(self, _channel: str, buffer: int, convert: Callable[[Any], T], on_gap: Callable[[Gap], object] | None):
        """`convert` turns what was put into what is read; `on_gap` takes the gaps out of the stream."""
        if buffer < 1:
            raise ValueError(f"a stream's buffer holds at least one event, not {buffer}")
        self._channel = _channel
        self._buffer = buffer
        self._convert = convert
        self._on_gap = on_gap
        self._items: deque[Any] = deque()
        self._dropped = 0
        self._is_uncounted = False
        """Among what was dropped is a gap of unknown size."""
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False
        self._error: BaseException | None = None

    # Written by the connection

    def put(self, item: Any) -> None:
        """Add an item; never waits."""
        if self._is_closed:
            return
        if len(self._items) >= self._buffer:
            self._drop()
        self._items.append(item)
        self._wake()

    def _drop(self) -> None:
        oldest = self._items.popleft()
        if isinstance(oldest, Gap):
            self._dropped += oldest.missed or 1
            self._is_uncounted = self._is_uncounted or oldest.missed is None
        else:
            self._dropped += 1

    def put_all(self, items: Iterable[Any], dropped: int) -> None:
        """Take over what waited elsewhere, where `dropped` before it were lost."""
        self._dropped += dropped
        for item in items:
            self.put(item)
        if dropped:
            self._wake()

    def take_all(self) -> tuple[list[Any], int]:
        """Give up what waits, as it was put, and how many before it were lost."""
        items, dropped = list(self._items), self._dropped
        self._items.clear()
        self._dropped = 0
        return items, dropped

    def end(self, error: BaseException | None = None) -> None:
        """End the stream behind what waits; `error` is raised to its reader."""
        if not self._is_closed:
            self._is_closed, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Read by the application

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while True:
            while self._dropped or self._items:
                item = self._next()
                if not (isinstance(item, Gap) and self._on_gap is not None):
                    return self._convert(item)
                self._on_gap(item)
            if self._error is not None:
                raise self._error
            if self._is_closed:
                raise StopAsyncIteration
            await self._wait()

    async def get(self, timeout_s: float | None = None) -> T:
        """Return the next item. Raises TimeoutError, and StopAsyncIteration at the end."""
        async with asyncio.timeout(timeout_s):
            return await self.__anext__()

    async def batch(self, timeout_s: float | None = None) -> list[T]:
        """Wait for at least one item and return all that wait; empty at the end. Raises TimeoutError.

        If one of several does not fit its class, those before it are returned, and the next call raises.
        """
        try:
            found = [await self.get(timeout_s)]
        except StopAsyncIteration:
            return []
        while self._items and not self._dropped:
            item = self._items[0]
            if isinstance(item, Gap) and self._on_gap is not None:
                break
            try:
                found.append(self._convert(item))
            except InvalidPayload:
                break  # It stays, and the next call raises.
            self._items.popleft()
        return found

    def close(self) -> None:
        """Stop receiving, and forget what waits."""
        self._items.clear()
        self._dropped = 0
        self.end()

    def _next(self) -> Any:
        if self._dropped:
            missed = None if self._is_uncounted else self._dropped
            self._dropped, self._is_uncounted = 0, False
            return Gap(self._channel, "overflow", missed)
        return self._items.popleft()

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("a stream has one reader at a time: open another stream")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class Fan:
    """The open streams of one thing, each for as long as somebody refers to it."""

    def __init__(self) -> None:
        self._references: tuple[weakref.ref[Stream[Any]], ...] = ()

    def add(self, stream: Stream[Any]) -> None:
        """Let `stream` have what comes from now on."""
        self._references = (*self._references, weakref.ref(stream, self._discard))

    def put(self, item: Any) -> None:
        """Give an item to every stream."""
        for reference in self._references:
            if (stream := reference()) is not None:
                stream.put(item)

    def __iter__(self) -> Iterator[Stream[Any]]:
        return iter([stream for reference in self._references if (stream := reference()) is not None])

    def _discard(self, gone: weakref.ref[Stream[Any]]) -> None:
        self._references = tuple(each for each in self._references if each is not gone)
