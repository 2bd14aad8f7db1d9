"""Public test helpers: a broadcaster that keeps what it is given, and says what was sent.

broadcaster = FakeBroadcaster()
await place_order(broadcaster)

broadcaster.assert_broadcast(OrderShipped, on=PrivateChannel("orders.1"), to_others=True)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from smartlink.broadcasting.broadcaster import Broadcaster
from smartlink.broadcasting.channels import Channel
from smartlink.broadcasting.envelope import Envelope
from smartlink.broadcasting.errors import BroadcastFailed, BroadcastUnavailable
from smartlink.broadcasting.events import BroadcastEvent

__all__ = ["FakeBroadcaster", "FakeDriver"]

Payload = Mapping[str, Any]


class FakeDriver:
    """Keeps envelopes in the order they were sent. `fails_with`, when set, is raised instead."""

    name = "fake"

    def __init__(self) -> None:
        self.sent: list[Envelope] = []
        self.idempotency_keys: list[str | None] = []
        self.fails_with: BroadcastFailed | None = None
        self._closed = False

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        """Keep the envelopes. Raises what `fails_with` says; BroadcastUnavailable once closed."""
        if self._closed:
            raise BroadcastUnavailable("the driver has been closed")
        if self.fails_with is not None:
            raise self.fails_with
        self.sent.extend(envelopes)
        self.idempotency_keys.append(idempotency_key)

    async def aclose(self) -> None:
        """Refuse from now on, as a real driver does."""
        self._closed = True


class FakeBroadcaster(Broadcaster):
    """A broadcaster whose driver is a `FakeDriver`: nothing leaves the process, everything is packed for real.

    Events count as broadcast when they reach the driver, so one that is recorded and rolled back does not.
    """

    def __init__(self, namespace: str = "App\\Events\\", max_data_bytes: int = 10_240) -> None:
        self.fake_driver = FakeDriver()
        super().__init__(self.fake_driver, namespace, max_data_bytes)
        self._classes: dict[tuple[str, str], set[type[BroadcastEvent]]] = {}
        self._to_others: set[tuple[str, str, str | None]] = set()

    @property
    def sent(self) -> tuple[Envelope, ...]:
        """Every envelope sent, in order."""
        return tuple(self.fake_driver.sent)

    def pack(
        self,
        event: BroadcastEvent,
        *,
        socket_id: str | None = None,
        to_others: bool = False,
        to_other_users: str | int | None = None,
    ) -> tuple[Envelope, ...]:
        """As `Broadcaster.pack`; also remembers of which class the envelopes are."""
        envelopes = super().pack(event, socket_id=socket_id, to_others=to_others, to_other_users=to_other_users)
        for envelope in envelopes:
            self._classes.setdefault((envelope.channel, envelope.name), set()).add(type(event))
            if to_others or envelope.socket_id is not None:
                self._to_others.add((envelope.channel, envelope.name, envelope.socket_id))
        return envelopes

    def assert_broadcast(
        self,
        event: type[BroadcastEvent],
        *,
        on: Channel | str | None = None,
        to_others: bool | None = None,
        times: int | None = None,
        where: Callable[[Payload], bool] | None = None,
    ) -> None:
        """Raise AssertionError, naming what was sent, unless `event` was broadcast.

        `on` is a channel or its wire name; `to_others` asks that the sender's socket was, or was not, to be left
        out; `where` is given the payload as clients hear it; `times` counts envelopes, one for each channel.
        """
        found = [
            envelope
            for envelope in self.sent
            if self._is_of(event, envelope)
            and (on is None or envelope.channel == str(on))
            and (to_others is None or self._was_to_others(envelope) is to_others)
            and (where is None or where(msgspec.json.decode(envelope.payload)))
        ]
        if (times is None and not found) or (times is not None and len(found) != times):
            wanted = f"{event.__name__}{f' on {on}' if on is not None else ''}"
            expected = "at least once" if times is None else f"{times} times"
            raise AssertionError(f"expected {wanted} {expected}, found {len(found)}; sent: {self._listing()}")

    def assert_nothing_broadcast(self) -> None:
        """Raise AssertionError, naming what was sent, if anything was."""
        if self.sent:
            raise AssertionError(f"expected no broadcast; sent: {self._listing()}")

    def _is_of(self, event: type[BroadcastEvent], envelope: Envelope) -> bool:
        classes = self._classes.get((envelope.channel, envelope.name), set())
        return any(issubclass(each, event) for each in classes)

    def _was_to_others(self, envelope: Envelope) -> bool:
        return (envelope.channel, envelope.name, envelope.socket_id) in self._to_others

    def _listing(self) -> str:
        return ", ".join(f"{envelope.name} on {envelope.channel}" for envelope in self.sent) or "nothing"
