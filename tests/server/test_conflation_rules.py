"""Conflation against a naive model, and its bounds, with a clock that the test sets."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from kit.realtime import APP_ID, an_app
from smartlink.protocol import encoding
from smartlink.protocol.session import Session, SessionRules
from smartlink.server.apps.base import App
from smartlink.server.apps.policies import ChannelPolicy, PolicyTable
from smartlink.server.apps.static import StaticApps
from smartlink.server.cluster.brokers.base import Publication
from smartlink.server.core.conflation import (
    MAX_LATE,
    MAX_NAMES,
    MAX_WAITING_BYTES,
    Conflated,
    Conflation,
    Waiting,
    last_of_each_name,
)
from smartlink.server.core.fanout import FanOut, Subscribers
from smartlink.server.core.hub import Connection, Hub
from smartlink.server.runtime.metrics import Metrics

PERIOD_S = 0.25


class FakeClock:
    """Timers that go off when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._timers: list[tuple[float, int, list[Callable[[], object]]]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        todo = [callback]
        heapq.heappush(self._timers, (when, next(self._numbers), todo))
        return cast("asyncio.TimerHandle", type("Handle", (), {"cancel": lambda _: todo.clear()})())

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            when, _, todo = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            for callback in todo:
                callback()
        self.now = until

    @property
    def timers(self) -> int:
        return sum(bool(todo) for _, _, todo in self._timers)


class FakeConnection:
    """A connection that fan-out writes to. `got` is what it was sent, and when."""

    descriptor = -1
    backlog = 0
    client_session = None
    is_open = True

    def __init__(self, app: App, clock: FakeClock, number: int) -> None:
        self.app = app
        self.session = Session(f"1.{number}", SessionRules(app.key, app.secret))
        self.got: list[tuple[float, str, int]] = []
        """Time, name and number of each event."""
        self._clock = clock

    def write(self, data: bytes) -> None:
        for part in data.split(b'{"event":"')[1:]:
            name, number = part.split(b'"')[0].decode(), int(part.split(b'"data":"')[1].split(b'"')[0].strip())
            self.got.append((self._clock.now, name, number))


class World:
    """One conflated channel of one process."""

    def __init__(self) -> None:
        app = an_app(channels=(ChannelPolicy("prices", conflate_ms=int(PERIOD_S * 1_000)),))
        self.clock, self.hub, self.metrics = FakeClock(), Hub(), Metrics()
        self.connections = [FakeConnection(app, self.clock, number) for number in range(5)]
        self.due: list[Callable[[], None]] = []
        self.fanout = FanOut(
            self.due.append, lambda _, *later: self.due.append(partial(*later)), lambda _: None, self.metrics
        )
        self.sent: list[Waiting] = []
        policies = PolicyTable(StaticApps([app]))
        self.conflation = Conflation(self.hub, policies, self.metrics, self._send, self.clock)
        self.join(0)

    def _send(self, subscribers: Subscribers, waiting: Waiting) -> None:
        self.sent.append(waiting)
        frames = cast("dict[Any, bytes]", waiting.instead)
        self.fanout.publish(subscribers, waiting.publication.frame, is_live=waiting.is_live, instead=frames)
        self.turn()

    def turn(self) -> None:
        while self.due:
            self.due.pop(0)()

    @property
    def channel(self) -> Conflated:
        subscribers = self.hub.channel(APP_ID, "prices")
        assert subscribers is not None
        assert subscribers.conflated is not None
        return subscribers.conflated

    def join(self, number: int) -> None:
        connection = cast("Connection", self.connections[number])
        connection.session.channels["prices"] = None
        self.hub.join(connection, "prices")
        self.conflation.joined(connection, "prices")

    def leave(self, number: int) -> None:
        connection = cast("Connection", self.connections[number])
        del connection.session.channels["prices"]
        self.hub.leave(connection, "prices", None, -1)

    def is_on(self, number: int) -> bool:
        return "prices" in self.connections[number].session.channels

    def publish(
        self, name: str, number: int, *left_out: int, position: int = 0, is_live: bool = False, size: int = 0
    ) -> None:
        frame = encoding.event(name, "prices", str(number).ljust(size))
        who = [cast("Connection", self.connections[each]) for each in left_out if self.is_on(each)]
        self.channel.publish(Publication(APP_ID, "prices", frame, is_live=is_live, position=position), who)


def events(world: World, number: int = 0) -> list[tuple[str, int]]:
    return [(name, value) for _, name, value in world.connections[number].got]


def test_the_first_event_goes_out_at_once_and_the_last_of_each_period_at_its_end() -> None:
    world = World()
    for number in range(1, 11):
        world.publish("price", number)
        world.clock.advance(0.1)
    world.clock.advance(PERIOD_S)

    assert [(round(at - 1_000, 6), number) for at, _, number in world.connections[0].got] == [
        (0.0, 1), (0.25, 3), (0.5, 5), (0.75, 8), (1.0, 10),
    ]  # fmt: skip
    assert world.metrics.conflated == 5
    world.publish("price", 11)
    assert events(world)[-1] == ("price", 11)


def test_events_of_other_names_go_out_at_once_unless_they_would_overtake() -> None:
    world = World()
    world.publish("a", 1)
    world.publish("b", 2)
    assert events(world) == [("a", 1), ("b", 2)]
    world.publish("a", 3)
    world.publish("c", 4)
    assert len(events(world)) == 2
    world.clock.advance(PERIOD_S)
    assert events(world)[2:] == [("a", 3), ("c", 4)]


def test_who_is_left_out_gets_the_last_event_that_was_for_them() -> None:
    world = World()
    world.join(1)
    for number, left_out in enumerate(([], [0], [1], [0]), 1):
        world.publish("cursor", number, *left_out)
    world.clock.advance(PERIOD_S)
    assert events(world, 0) == [("cursor", 1), ("cursor", 3)]
    assert events(world, 1) == [("cursor", 1), ("cursor", 4)]


def test_a_newcomer_gets_nothing_published_before_and_one_that_left_nothing_more() -> None:
    world = World()
    world.join(1)
    world.publish("price", 1)
    world.publish("price", 2)
    world.join(2)
    world.leave(1)
    world.clock.advance(PERIOD_S)
    assert events(world, 0) == [("price", 1), ("price", 2)]
    assert events(world, 1) == [("price", 1)]
    assert events(world, 2) == []


def test_a_live_event_that_replaces_a_durable_one_counts_as_durable_with_its_position() -> None:
    world = World()
    world.publish("price", 1, position=1)
    world.publish("price", 2, position=2)
    world.publish("price", 3, is_live=True)
    world.publish("typing", 4, is_live=True)
    world.clock.advance(PERIOD_S)
    assert [(each.position, each.is_live) for each in world.sent] == [(1, False), (2, False), (0, True)]


def test_what_waits_is_bounded_in_bytes_in_names_and_in_newcomers() -> None:
    world = World()
    world.publish("e", 0)
    world.publish("e", 1, size=MAX_WAITING_BYTES)
    assert events(world) == [("e", 0), ("e", 1)]
    for number in range(MAX_NAMES + 1):
        world.publish("e", number)
        world.publish(f"e{number}", number)
    assert len(events(world)) > MAX_NAMES
    assert len(world.channel._waiting) <= MAX_NAMES
    assert len(world.channel._sent_at) <= MAX_NAMES

    world.clock.advance(PERIOD_S)
    world.publish("e", 0)
    for number in range(100):
        world.publish("e", number)
        world.publish(f"e{number}", number)
    before = len(world.sent)
    for _ in range(MAX_LATE // 100 + 1):
        world.join(1)
        world.leave(1)
    assert len(world.sent) == before + 101


def test_no_timer_is_left_when_nothing_waits_the_channel_is_empty_or_the_server_stops() -> None:
    world = World()
    world.publish("price", 1)
    assert world.clock.timers == 0
    world.publish("price", 2)
    assert world.clock.timers == 1
    world.clock.advance(PERIOD_S)
    assert world.clock.timers == 0

    world.publish("price", 3)
    world.leave(0)
    world.clock.advance(PERIOD_S)
    assert events(world)[-1] == ("price", 2)
    assert not world.conflation.waiting

    world.join(0)
    world.publish("price", 4)
    world.publish("price", 5)
    world.conflation.stop()
    assert world.clock.timers == 0
    assert not world.conflation.waiting


def test_the_last_of_each_name_is_kept_in_order() -> None:
    frames = [encoding.event(name, "c", str(number)) for number, name in enumerate("abcab")]
    kept = last_of_each_name([Publication("1", "c", frame) for frame in frames])
    assert [each.frame for each in kept] == [frames[2], frames[3], frames[4]]


def test_names_that_contain_the_ends_of_names_are_told_apart() -> None:
    names = ["a", 'a","channel":"x', "a\\", '"', "a\\\"'"]
    assert len({encoding.name_of(encoding.event(name, "c", "")) for name in names}) == len(names)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from("abc"), st.sets(st.integers(0, 4), max_size=2)),
        st.tuples(st.just("move"), st.integers(1, 4), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([0.01, 0.1, PERIOD_S, 0.3]), st.none()),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(ACTIONS)
def test_each_subscriber_gets_the_last_event_of_each_name_in_order_and_not_too_often(actions: Any) -> None:
    world = World()
    meant: dict[tuple[int, str], list[int]] = {}
    """By connection and name: the events for it since it came."""
    for number, (action, what, more) in enumerate(actions):
        if action == "publish":
            for each in range(5):
                if world.is_on(each) and each not in more:
                    meant.setdefault((each, what), []).append(number)
            world.publish(what, number, *more)
        elif action == "wait":
            world.clock.advance(what)
        elif more and not world.is_on(what):
            world.join(what)
            meant = {key: numbers for key, numbers in meant.items() if key[0] != what}
            world.connections[what].got.clear()
        elif not more and world.is_on(what):
            world.leave(what)
    world.clock.advance(2 * PERIOD_S)

    assert world.clock.timers == 0
    for each in range(5):
        for name in "abc":
            got = [(at, number) for at, its_name, number in world.connections[each].got if its_name == name]
            numbers = [number for _, number in got]
            wanted = meant.get((each, name), [])
            assert numbers == sorted(set(numbers))
            assert set(numbers) <= set(wanted)
            if world.is_on(each) and wanted:
                assert numbers[-1] == wanted[-1]
            assert all(later - at >= PERIOD_S - 1e-6 for (at, _), (later, _) in itertools.pairwise(got))
    positions = [int(each.publication.frame.split(b'"data":"')[1].split(b'"')[0]) for each in world.sent]
    assert positions == sorted(positions)
