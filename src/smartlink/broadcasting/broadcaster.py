"""From an event to envelopes, and from envelopes to a driver."""

from __future__ import annotations

from collections.abc import Sequence

from smartlink.broadcasting.channels import Channel
from smartlink.broadcasting.drivers.base import Driver
from smartlink.broadcasting.envelope import Envelope, Promise
from smartlink.broadcasting.errors import (
    BroadcastConfigError,
    InvalidChannel,
    InvalidEventName,
    PayloadTooLarge,
    UnserialisablePayload,
)
from smartlink.broadcasting.events import BroadcastEvent, has_own_name
from smartlink.broadcasting.payloads import encode_payload
from smartlink.broadcasting.socket_id import current_socket_id
from smartlink.protocol.names import ChannelKind, is_reserved_event, is_valid_event_name, is_valid_socket_id

__all__ = ["EVENT_ID_BYTES", "Broadcaster"]

EVENT_ID_BYTES = len('"eventId":9223372036854775807,')
"""What a durable payload leaves free for the id that the outbox adds."""


class Broadcaster:
    """Packs events and sends them through one driver.

    `namespace` stands before the class name of events that chose no name of their own; empty for none.
    `max_data_bytes` is what the service takes per event, in bytes of UTF-8.
    """

    def __init__(self, driver: Driver, namespace: str = "App\\Events\\", max_data_bytes: int = 10_240) -> None:
        self._driver = driver
        self._namespace = namespace
        self._max_data_bytes = max_data_bytes

    @property
    def driver(self) -> Driver:
        """Where envelopes go; the relay of an outbox sends through the same one."""
        return self._driver

    def pack(
        self, event: BroadcastEvent, *, socket_id: str | None = None, to_others: bool = False
    ) -> tuple[Envelope, ...]:
        """One envelope for each channel of `event`; none when `broadcast_when()` says no.

        `socket_id` is the socket to leave out; `to_others` takes it from the current request (see
        `SocketIdMiddleware`). Raises InvalidChannel, InvalidEventName, UnserialisablePayload and, with both
        sizes, PayloadTooLarge; ValueError for a `socket_id` that is none.
        """
        if not event.broadcast_when():
            return ()
        channels = _wire_names(event)
        name = self.wire_name(event)
        payload = self._payload(event, name)
        if to_others and socket_id is None:
            socket_id = current_socket_id()
        if socket_id is not None and not is_valid_socket_id(socket_id):
            raise ValueError(f"not a socket id: {socket_id[:40]!r}; it has the form digits.digits")
        queue = event.broadcast_queue
        return tuple(Envelope(channel, name, payload, socket_id, event.promise, queue) for channel in channels)

    async def send(self, event: BroadcastEvent, *, socket_id: str | None = None, to_others: bool = False) -> None:
        """Pack and send now, past any outbox. Raises what `pack` raises, and BroadcastFailed."""
        await self.send_envelopes(self.pack(event, socket_id=socket_id, to_others=to_others))

    async def send_envelopes(self, envelopes: Sequence[Envelope]) -> None:
        """Send what is packed, now and in order. Raises BroadcastFailed."""
        if envelopes:
            await self._driver.send(envelopes)

    def wire_name(self, event: BroadcastEvent) -> str:
        """The event's name as clients hear it. Raises InvalidEventName."""
        name = event.broadcast_as()
        wire_name = str(name) if has_own_name(event) else self._namespace + name
        if not is_valid_event_name(wire_name) or is_reserved_event(wire_name):
            raise InvalidEventName(
                f"{type(event).__name__} would be sent as {wire_name[:80]!r}: an event name has 1 to 200 "
                "characters, none of them control characters, and does not start with pusher: or pusher_internal:"
            )
        return wire_name

    def _payload(self, event: BroadcastEvent, name: str) -> str:
        fields = event.broadcast_with()
        encoded = encode_payload(fields)
        size = len(encoded)
        if event.promise is Promise.DURABLE:
            if "eventId" in fields:
                raise UnserialisablePayload(
                    f"payload.eventId of {name}: the outbox gives durable events their eventId; use another name"
                )
            size += EVENT_ID_BYTES
        if size > self._max_data_bytes:
            raise PayloadTooLarge(name, size, self._max_data_bytes)
        return encoded.decode()


def _wire_names(event: BroadcastEvent) -> tuple[str, ...]:
    on: object = event.broadcast_on()
    channels = on if isinstance(on, Sequence) and not isinstance(on, str) else (on,)
    for channel in channels:
        if not isinstance(channel, Channel):
            raise InvalidChannel(
                f"{type(event).__name__}.broadcast_on() gave {channel!r}; give a Channel, PrivateChannel or "
                "PresenceChannel, or a list of them"
            )
        if channel.kind is ChannelKind.ENCRYPTED:
            raise BroadcastConfigError(
                f"{channel}: there is no key to encrypt the payload with, and it is not sent in the clear; "
                "use a PrivateChannel"
            )
    return tuple(dict.fromkeys(str(channel) for channel in channels))
