"""Events without a class, built by chained calls.

await broadcaster.private("orders.7").as_("order.shipped").with_({"order": 7}).to_others().send()
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

from smartlink.broadcasting.channels import Channel
from smartlink.broadcasting.events import AnonymousEvent, BroadcastEvent

__all__ = ["AnonymousBroadcast"]

Sent = TypeVar("Sent", covariant=True)


class Sender(Protocol[Sent]):
    """`send` of a synchronous or asynchronous broadcaster."""

    def __call__(
        self,
        event: BroadcastEvent,
        /,
        *,
        socket_id: str | None = None,
        to_others: bool = False,
        to_other_users: str | int | None = None,
    ) -> Sent: ...


@dataclass(frozen=True, slots=True)
class AnonymousBroadcast(Generic[Sent]):
    """An event under construction. Each method returns a new object; nothing is sent before `send`.

    `event` is the event built so far: record it in a transaction instead if it must not be lost.
    """

    _sender: Sender[Sent] = field(repr=False)
    event: AnonymousEvent
    _to_others: bool = False
    _to_other_users: str | int | None = None

    def on(self, *channels: Channel) -> AnonymousBroadcast[Sent]:
        """Add channels."""
        return self._changed(channels=(*self.event.channels, *channels))

    def as_(self, name: str | enum.Enum) -> AnonymousBroadcast[Sent]:
        """Set the name, which is sent unchanged. The default is `AnonymousEvent`."""
        return self._changed(name=name)

    def with_(self, payload: Mapping[str, object]) -> AnonymousBroadcast[Sent]:
        """Set the payload."""
        return self._changed(payload=payload)

    def via(self, *connections: str) -> AnonymousBroadcast[Sent]:
        """Send through these connections, by name, instead of the default one."""
        return self._changed(broadcast_connections=connections)

    def to_others(self) -> AnonymousBroadcast[Sent]:
        """Exclude the socket of the current request."""
        return replace(self, _to_others=True)

    def to_other_users(self, user_id: str | int) -> AnonymousBroadcast[Sent]:
        """Exclude all sockets of a user; see `Broadcaster.pack`."""
        return replace(self, _to_other_users=user_id)

    def receipts(self) -> AnonymousBroadcast[Sent]:
        """Have receipts reported when `event` is announced; `send` then raises, see `Broadcaster.pack`."""
        return self._changed(broadcast_receipts=True)

    def rescue(self) -> AnonymousBroadcast[Sent]:
        """Report a failure instead of raising it."""
        return self._changed(broadcast_rescue=True)

    def send(self) -> Sent:
        """Send the event now; await the result if the broadcaster is asynchronous. Raises what its `send` raises."""
        return self._sender(self.event, to_others=self._to_others, to_other_users=self._to_other_users)

    def _changed(self, **parts: object) -> AnonymousBroadcast[Sent]:
        return replace(self, event=replace(self.event, **parts))  # type: ignore[arg-type]
