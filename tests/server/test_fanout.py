"""Fan-out against a naive model: each subscriber gets each frame once, in order, and no one else does."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartlink.server.core import fanout
from smartlink.server.core.fanout import MAX_LIVE_BACKLOG_BYTES, FanOut, Subscribers
from smartlink.server.runtime.metrics import Metrics


class FakeSubscriber:
    """A subscriber over a real socket pair; `written` are frames it got while set aside."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.aside = False
        self.backlog = 0
        self.channel: Subscribers | None = None

    @property
    def descriptor(self) -> int:
        return -1 if self.aside else self.ours.fileno()

    def write(self, data: bytes) -> None:
        os.write(self.ours.fileno(), data)

    def fell_behind(self, rest: bytes) -> None:
        raise AssertionError("these sockets never fill")

    def vanished(self) -> None:
        raise AssertionError("these sockets never break")

    def got(self) -> bytes:
        try:
            return self.theirs.recv(1 << 20)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


FRAMES = re.compile(rb"<[^>]*>")


def without_live(frames: bytes) -> bytes:
    return re.sub(rb"<live [0-9]+>", b"", frames)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(0, 7)),
        st.tuples(st.just("leave"), st.integers(0, 7)),
        st.tuples(st.just("aside"), st.integers(0, 7)),
        st.tuples(st.just("back"), st.integers(0, 7)),
        st.tuples(st.just("publish"), st.integers(-1, 7)),
        st.tuples(st.just("publish live"), st.integers(-1, 7)),
        st.tuples(st.just("pile up"), st.integers(0, 7)),
        st.tuples(st.just("turn"), st.just(0)),
        st.tuples(st.just("end of a rest"), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(ACTIONS)
def test_every_subscriber_gets_exactly_the_frames_published_while_subscribed(actions: list[tuple[str, int]]) -> None:
    turns: list[Callable[[], object]] = []
    rests: list[Callable[[], object]] = []
    subscribers = [FakeSubscriber() for _ in range(8)]
    expected = [b""] * 8
    got = [b""] * 8
    channel = Subscribers()
    metrics = Metrics()
    fan = FanOut(turns.append, lambda _, *later: rests.append(partial(*later)), lambda _: None, metrics)
    slice_before, fanout.SLICE = fanout.SLICE, 3
    rest_before, fanout.MIN_REST_S = fanout.MIN_REST_S, 0.0
    number = 0
    here: set[int] = set()
    try:
        for action, who in actions:
            if action == "join" and who not in here:
                here.add(who)
                channel.add(subscribers[who])
            elif action == "leave" and who in here:
                here.discard(who)
                channel.remove(subscribers[who], subscribers[who].descriptor)
                got[who] += subscribers[who].got()
                # What was on its way when it left may be lost, but only from the end, and nothing comes after.
                assert without_live(expected[who]).startswith(without_live(got[who]))
                expected[who] = got[who]
                subscribers[who].aside = False
            elif action == "aside" and who in here and not subscribers[who].aside:
                descriptor = subscribers[who].descriptor
                subscribers[who].aside = True
                channel.set_aside(subscribers[who], descriptor)
            elif action == "back" and who in here and subscribers[who].aside:
                subscribers[who].aside = False
                channel.attach(subscribers[who])
            elif action == "publish":
                number += 1
                frame = b"<%d>" % number
                left_out = who if who in here else -1
                fan.publish(channel, frame, *(subscribers[who] for who in (left_out,) if who >= 0))
                for index in here - {left_out}:
                    expected[index] += frame
            elif action == "publish live":
                number += 1
                frame = b"<live %d>" % number
                left_out = who if who in here else -1
                fan.publish(channel, frame, *(subscribers[who] for who in (left_out,) if who >= 0), is_live=True)
                for index in here - {left_out}:
                    expected[index] += frame
            elif action == "pile up":
                subscribers[who].backlog ^= MAX_LIVE_BACKLOG_BYTES + 1
            elif action == "turn" and turns:
                turns.pop(0)()
            elif action == "end of a rest" and rests:
                rests.pop(0)()
        while turns or rests:
            (turns or rests).pop(0)()
        for index, subscriber in enumerate(subscribers):
            got[index] += subscriber.got()
        assert [without_live(frames) for frames in got] == [without_live(frames) for frames in expected]
        # Live frames are left out, in whole, for those only who had much waiting, and each is counted (for some who left since, too).
        missing = sum(frames.count(b"<live") for frames in expected) - sum(frames.count(b"<live") for frames in got)
        assert missing <= metrics.live_dropped
        for index, frames in enumerate(got):
            ours, every = FRAMES.findall(frames), iter(FRAMES.findall(expected[index]))
            assert all(frame in every for frame in ours)
        assert not channel.is_under_way
        assert len(channel) == len(here)
    finally:
        fanout.SLICE, fanout.MIN_REST_S = slice_before, rest_before
        for subscriber in subscribers:
            subscriber.close()


def test_a_channel_rests_after_a_batch_of_several_frames_and_joins_what_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fanout, "MIN_REST_S", 0.0)
    turns: list[Callable[[], object]] = []
    rests: list[Callable[[], object]] = []
    fan = FanOut(turns.append, lambda _, *later: rests.append(partial(*later)), lambda _: None, Metrics())
    channel, subscriber = Subscribers(), FakeSubscriber()
    channel.add(subscriber)

    def turn() -> None:
        while turns:
            turns.pop(0)()

    try:
        fan.publish(channel, b"<1>")
        turn()
        assert (subscriber.got(), rests) == (b"<1>", [])
        for frame in (b"<2>", b"<3>"):
            fan.publish(channel, frame)
        turn()
        assert (subscriber.got(), len(rests)) == (b"<2><3>", 1)
        for frame in (b"<4>", b"<5>"):
            fan.publish(channel, frame)
        turn()
        assert subscriber.got() == b""
        rests.pop()()
        turn()
        assert subscriber.got() == b"<4><5>"
        rests.pop()()
        fan.publish(channel, b"<6>")
        turn()
        assert (subscriber.got(), rests) == (b"<6>", [])
    finally:
        subscriber.close()
