"""Packs events into envelopes, and sends envelopes through a driver."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from smartlink.broadcasting.anonymous import AnonymousBroadcast
from smartlink.broadcasting.channels import Channel, PresenceChannel, PrivateChannel
from smartlink.broadcasting.config import BroadcastSettings
from smartlink.broadcasting.drivers.base import Driver, leaves_out_users, reports_receipts
from smartlink.broadcasting.drivers.connections import ConnectionRegistry
from smartlink.broadcasting.encryption import ChannelEncryption, sealed_bytes
from smartlink.broadcasting.envelope import Delivery, Envelope
from smartlink.broadcasting.errors import (
    BroadcastConfigError,
    BroadcastError,
    InvalidChannel,
    InvalidEventName,
    PayloadTooLarge,
    UnserialisablePayload,
)
from smartlink.broadcasting.events import AnonymousEvent, BroadcastEvent, class_name, own_name
from smartlink.broadcasting.manager import DriverManager
from smartlink.broadcasting.payloads import encode_payload
from smartlink.broadcasting.revocation import Revocation, revocation
from smartlink.broadcasting.socket_id import current_socket_id
from smartlink.protocol.names import ChannelKind, is_reserved_event, is_valid_event_name, is_valid_socket_id

__all__ = ["EVENT_ID_BYTES", "Broadcaster"]

EVENT_ID_BYTES = len('"eventId":9223372036854775807,')
"""Bytes kept free in a durable payload for the id that the outbox adds."""

_log = logging.getLogger("smartlink.broadcasting")

Returned = TypeVar("Returned")

Report = Callable[[BroadcastEvent, BroadcastError], None]
Watch = Callable[[BroadcastEvent, Sequence[Envelope], bool], None]


class Broadcaster:
    """Packs events and sends them through `driver`, or through the connections that an event names.

    `namespace` is prepended to the class name of events without a name of their own; it may be empty.
    `max_data_bytes` is the service's limit per event, in bytes of UTF-8. `find_driver` returns the driver of a named
    connection. `encryption` seals payloads for encrypted channels. `report` is called with failures of events that
    set `broadcast_rescue`; by default it logs a line. `Broadcaster.from_settings` builds all of this from settings.
    """

    def __init__(
        self,
        driver: Driver,
        namespace: str = "App\\Events\\",
        max_data_bytes: int = 10_240,
        *,
        find_driver: Callable[[str], Driver] | None = None,
        encryption: ChannelEncryption | None = None,
        report: Report | None = None,
    ) -> None:
        self._connections = ConnectionRegistry(driver, find_driver, None if encryption is None else encryption.seal)
        self._namespace = namespace
        self._max_data_bytes = max_data_bytes
        self._encryption = encryption
        self._report = report or _logged
        self._manager: DriverManager | None = None
        self._watch: Watch | None = None

    @classmethod
    def from_settings(
        cls,
        settings: BroadcastSettings | None = None,
        *,
        manager: DriverManager | None = None,
        report: Report | None = None,
    ) -> Self:
        """Build a broadcaster from `settings`, by default from the environment and `.env`.

        Pass a `manager` to add your own drivers; closing the broadcaster closes it. Raises BroadcastConfigError if the
        driver is unknown or lacks a setting, and if the master key is invalid.
        """
        settings = settings or BroadcastSettings()
        manager = manager or DriverManager(settings)
        broadcaster = cls(
            manager.driver(),
            settings.namespace,
            settings.max_data_bytes,
            find_driver=manager.driver,
            encryption=ChannelEncryption.from_settings(settings),
            report=report,
        )
        broadcaster._manager = manager
        return broadcaster

    @property
    def driver(self) -> Driver:
        """The driver that seals envelopes and routes each to its connection; an outbox's relay sends through it too."""
        return self._connections

    @property
    def encryption(self) -> ChannelEncryption | None:
        """Encrypts payloads for encrypted channels, or None; pass it to `ChannelAuthorizer` too."""
        return self._encryption

    def pack(
        self,
        event: BroadcastEvent,
        *,
        socket_id: str | None = None,
        to_others: bool = False,
        to_other_users: str | int | None = None,
        receipts: bool | None = None,
    ) -> tuple[Envelope, ...]:
        """Return one envelope for each connection and channel of `event`; none if `broadcast_when()` returns False.

        `socket_id` is the socket to exclude; `to_others` takes it from the current request (see `SocketIdMiddleware`).
        `to_other_users` is the id of a user whose sockets are all excluded. Only SmartLink's own server can do that:
        the protocol can exclude one socket, not a user. `receipts` overrides the event's `broadcast_receipts`: with it,
        SmartLink's server reports by webhook which users have received the event (see `EventDelivered`). Durable
        payloads leave room for the `eventId` that the outbox adds.

        Raises InvalidChannel, InvalidEventName, UnserialisablePayload, and PayloadTooLarge with both sizes;
        BroadcastConfigError for a connection that is unknown, or cannot exclude users or report receipts, for receipts
        of a live event, and for an encrypted channel without a master key; ValueError for an invalid `socket_id` or
        delivery; TypeError if `event` is not a BroadcastEvent, or has async methods.
        """
        return self._pack(event, socket_id, to_others, to_other_users, EVENT_ID_BYTES, receipts)

    def pack_to_send(
        self,
        event: BroadcastEvent,
        *,
        socket_id: str | None = None,
        to_others: bool = False,
        to_other_users: str | int | None = None,
    ) -> tuple[Envelope, ...]:
        """Pack like `pack`, but leave no room for an `eventId`: for envelopes that are not recorded.

        Also raises BroadcastConfigError for an event with `broadcast_receipts`: without a record it has no id.
        """
        return self._pack(event, socket_id, to_others, to_other_users, 0, None)

    def _pack(
        self,
        event: BroadcastEvent,
        socket_id: str | None,
        to_others: bool,
        to_other_users: str | int | None,
        event_id_bytes: int,
        receipts: bool | None,
    ) -> tuple[Envelope, ...]:
        if not isinstance(event, BroadcastEvent):
            raise TypeError(f"{event!r:.80} is not an event: subclass BroadcastEvent, or start with on(channel)")
        if not _refuse_async(event, "broadcast_when", event.broadcast_when()):
            return ()
        channels = _channels(event)
        name = self.wire_name(event)
        if to_others and socket_id is None:
            socket_id = current_socket_id()
        if socket_id is not None and not is_valid_socket_id(socket_id):
            raise ValueError(f"not a socket id: {socket_id!r:.60}; it has the form digits.digits")
        except_user = None if to_other_users is None else str(to_other_users)
        delivery = Delivery(event.delivery)
        receipts = event.broadcast_receipts if receipts is None else receipts
        if receipts and (delivery is Delivery.LIVE or not event_id_bytes):
            raise BroadcastConfigError(
                f"{type(event).__name__} asks for receipts, which name an event by its id in the outbox: announce it, "
                "as a durable event, instead of sending it now"
            )
        envelopes: list[Envelope] = []
        for connection in dict.fromkeys(_connections(event)) or (None,):
            driver = self._connections.driver(connection)
            if except_user is not None and not leaves_out_users(driver):
                raise BroadcastConfigError(
                    f"{driver.name} cannot exclude all sockets of a user: its service supports to_others() only; "
                    "use the reverb driver with a SmartLink server, or have clients ignore their own events"
                )
            if receipts and not reports_receipts(driver):
                raise BroadcastConfigError(
                    f"the driver {driver.name} does not support receipts: only a SmartLink server reports them; use "
                    "the driver reverb"
                )
            payload = self._payload(
                event, name, delivery, connection or self._connections.name, channels, event_id_bytes
            )
            envelopes += (
                Envelope(
                    str(channel),
                    name,
                    payload,
                    socket_id,
                    delivery,
                    event.broadcast_queue,
                    connection=connection,
                    except_user=except_user,
                    receipts=receipts,
                )
                for channel in channels
            )
        if self._watch is not None:
            self._watch(event, envelopes, to_others or socket_id is not None)
        return tuple(envelopes)

    async def send(
        self,
        event: BroadcastEvent,
        *,
        socket_id: str | None = None,
        to_others: bool = False,
        to_other_users: str | int | None = None,
    ) -> None:
        """Pack and send now, bypassing any outbox. Raises what `pack` raises, and BroadcastFailed.

        If the event sets `broadcast_rescue`, a BroadcastError is reported instead of raised.
        """
        try:
            packed = self.pack_to_send(event, socket_id=socket_id, to_others=to_others, to_other_users=to_other_users)
            await self.send_envelopes(packed)
        except BroadcastError as error:
            self.rescue(event, error)

    async def send_envelopes(self, envelopes: Sequence[Envelope]) -> None:
        """Send packed envelopes now, in order. Raises BroadcastFailed."""
        if envelopes:
            await self._connections.send(envelopes)

    async def revoke(
        self,
        subject: str | int | Channel,
        /,
        channel: Channel | str | None = None,
        *,
        everyone: bool = False,
        reason: str | None = None,
        via: str | None = None,
    ) -> None:
        """Take channels away at once, on all nodes; the connections stay. Also voids signatures made before.

        `revoke(7, PrivateChannel("orders.1"))` takes a channel from a user, by id; `revoke(7)` all private and presence
        channels; `revoke(PrivateChannel("orders.1"), everyone=True)` a channel from everyone. Clients get
        `pusher:subscription_error` with the status 403 and `reason`, and leave. On a new connection they may subscribe
        again if a rule lets them, so commit what the rule reads first, then revoke. `via` names a connection other than
        the default one.

        Raises BroadcastConfigError for a driver that does not support it: only SmartLink's own server does, over the
        driver `reverb`. Raises BroadcastFailed if the service cannot be reached, so that you can repeat it;
        InvalidChannel, ValueError and TypeError for arguments.
        """
        await self.send_revocation(revocation(subject, channel, everyone=everyone, reason=reason), via)

    async def send_revocation(self, revoked: Revocation, via: str | None = None) -> None:
        """Carry out a revocation. Raises BroadcastFailed, and BroadcastConfigError as `revoke` does."""
        await self._connections.revoke(revoked, via)

    def rescue(self, event: BroadcastEvent, error: BroadcastError) -> None:
        """Report `error` if the event sets `broadcast_rescue`; raise it otherwise."""
        if not event.broadcast_rescue:
            raise error
        self._report(event, error)

    def on(self, *channels: Channel) -> AnonymousBroadcast[Coroutine[Any, Any, None]]:
        """Start an event without a class: `await broadcaster.on(Channel("news")).as_("news.out").send()`."""
        return AnonymousBroadcast(self.send, AnonymousEvent(channels))

    def private(self, name: str) -> AnonymousBroadcast[Coroutine[Any, Any, None]]:
        """Same as `on(PrivateChannel(name))`."""
        return self.on(PrivateChannel(name))

    def presence(self, name: str) -> AnonymousBroadcast[Coroutine[Any, Any, None]]:
        """Same as `on(PresenceChannel(name))`."""
        return self.on(PresenceChannel(name))

    def wire_name(self, event: BroadcastEvent) -> str:
        """Return the event's name on the wire. Raises InvalidEventName."""
        own = own_name(event)
        wire_name = self._namespace + class_name(event) if own is None else own
        if not is_valid_event_name(wire_name) or is_reserved_event(wire_name):
            raise InvalidEventName(
                f"{type(event).__name__} would be sent as {wire_name[:80]!r}: an event name has 1 to 200 "
                "characters, none of them control characters, and does not start with pusher: or pusher_internal:"
            )
        return wire_name

    @contextmanager
    def driven_by(self, driver: Driver, watch: Watch | None = None) -> Iterator[None]:
        """Send everything through `driver` within the block, unsealed, whichever connections events name.

        This includes relays that use this broadcaster's `driver`. `watch` is called with each packed event, its
        envelopes, and whether it excludes the sender. For tests.
        """
        before, self._watch = self._watch, watch
        try:
            with self._connections.replaced_by(driver):
                yield
        finally:
            self._watch = before

    async def aclose(self) -> None:
        """Close the drivers if `from_settings` built this broadcaster; drivers passed in belong to the caller."""
        if self._manager is not None:
            await self._manager.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _payload(
        self,
        event: BroadcastEvent,
        name: str,
        delivery: Delivery,
        connection: str,
        channels: Sequence[Channel],
        event_id_bytes: int,
    ) -> str:
        fields = _refuse_async(event, "broadcast_with", event.broadcast_with_for(connection))
        encoded = encode_payload(fields)
        size, measured = len(encoded), name
        if delivery is Delivery.DURABLE:
            if "eventId" in fields:
                raise UnserialisablePayload(
                    f"payload.eventId of {name}: the outbox sets eventId on durable events; use another name"
                )
            if event_id_bytes:
                size, measured = size + event_id_bytes, f"{name} with its eventId"
        if any(channel.kind is ChannelKind.ENCRYPTED for channel in channels):
            if not self._connections.can_seal:
                raise BroadcastConfigError(
                    f"{name} is for an encrypted channel, but no key is configured: set "
                    "BROADCAST_ENCRYPTION_MASTER_KEY (32 random bytes in base64); it is never sent unencrypted"
                )
            size = sealed_bytes(size)
        if size > self._max_data_bytes:
            raise PayloadTooLarge(measured, size, self._max_data_bytes)
        return encoded.decode()


def _channels(event: BroadcastEvent) -> tuple[Channel, ...]:
    on: object = _refuse_async(event, "broadcast_on", event.broadcast_on())
    channels: dict[str, Channel] = {}
    for channel in on if isinstance(on, Sequence) and not isinstance(on, str) else (on,):
        if not isinstance(channel, Channel):
            raise InvalidChannel(
                f"{type(event).__name__}.broadcast_on() returned {channel!r}; return a Channel, PrivateChannel or "
                "PresenceChannel, or a list of them"
            )
        filled = channel.filled_by(event)
        channels[str(filled)] = filled
    return tuple(channels.values())


def _connections(event: BroadcastEvent) -> Sequence[str]:
    named = event.broadcast_connections
    return (named,) if isinstance(named, str) else named


def _refuse_async(event: BroadcastEvent, method: str, returned: Returned) -> Returned:
    if inspect.iscoroutine(returned):
        returned.close()
        raise TypeError(
            f"{type(event).__name__}.{method}() is async, but events are packed without waiting: "
            "make it a plain method, and load what it needs before you create the event"
        )
    return returned


def _logged(event: BroadcastEvent, error: BroadcastError) -> None:
    _log.error("broadcast of %s failed: %s: %s", type(event).__name__, type(error).__name__, error)
