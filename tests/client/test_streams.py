"""Streams are bounded, and nothing leaves them in silence."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from smartlink.client import Event, Gap, Stream
from smartlink.client.streams import as_it_is


def a_stream(buffer: int = 2, **options: Any) -> Stream[Any]:
    return Stream("chat", buffer, options.get("convert", as_it_is), options.get("on_gap"))


async def everything(stream: Stream[Any]) -> list[Any]:
    stream.end()
    return [item async for item in stream]


async def test_the_oldest_go_first_and_are_counted() -> None:
    stream = a_stream()
    for number in range(5):
        stream.put(number)

    assert await everything(stream) == [Gap("chat", "overflow", 3), 3, 4]


async def test_a_gap_that_is_dropped_is_still_a_gap() -> None:
    counted, uncounted = a_stream(), a_stream()
    for stream, gap in ((counted, Gap("chat", "undecryptable", 4)), (uncounted, Gap("chat", "unknown"))):
        for item in (gap, 1, 2):
            stream.put(item)

    assert await everything(counted) == [Gap("chat", "overflow", 4), 1, 2]
    assert await everything(uncounted) == [Gap("chat", "overflow", None), 1, 2]


async def test_a_batch_has_what_waits_and_ends_empty() -> None:
    stream = a_stream(10)
    for number in range(3):
        stream.put(number)

    assert await stream.batch() == [0, 1, 2]
    with pytest.raises(TimeoutError):
        await stream.batch(0.001)
    stream.put(3)
    stream.end()
    assert (await stream.batch(), await stream.batch()) == ([3], [])


async def test_gaps_taken_out_are_in_no_batch_and_keep_their_place() -> None:
    seen: list[Any] = []
    stream = a_stream(10, on_gap=seen.append)
    for item in (1, Gap("chat", "gap"), 2):
        stream.put(item)

    assert await stream.batch() == [1]
    assert seen == []
    assert await stream.batch() == [2]
    assert seen == [Gap("chat", "gap")]


async def test_an_error_comes_behind_what_had_arrived_and_stays() -> None:
    stream = a_stream()
    stream.put(1)
    stream.end(LookupError("over"))
    stream.put(2)

    assert await stream.get() == 1
    for _ in range(2):
        with pytest.raises(LookupError):
            await stream.get()


async def test_a_cancelled_wait_loses_nothing_and_a_second_reader_is_refused() -> None:
    stream = a_stream()
    waiting = asyncio.create_task(stream.get())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one reader"):
        await stream.get()
    waiting.cancel()
    await asyncio.wait([waiting])
    stream.put(1)

    assert await stream.get() == 1
    with pytest.raises(ValueError, match="at least one"):
        a_stream(0)


def test_an_event_reads_its_data_when_it_is_asked() -> None:
    assert Event("e", "c", '{"n": 1}').data == {"n": 1}
    assert Event("e", "c", "no json").data == "no json"
    assert (Event("e", "c", {"n": 1}).data, Event("e", "c", {"n": 1}).text) == ({"n": 1}, '{"n":1}')
    assert Event("e", "c", "1") == Event("e", "c", "1") != Event("e", "c", "2")
    assert Event("e", "c", "1") != "e"
