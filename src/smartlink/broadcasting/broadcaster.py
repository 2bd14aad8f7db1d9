"""From an event to envelopes, and from envelopes to a driver."""

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
from smartlink.broadcasting.drivers.base import Driver, leaves_out_users
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
from smartlink.broadcasting.socket_id import current_socket_id
from smartlink.protocol.names import ChannelKind, is_reserved_event, is_valid_event_name, is_valid_socket_id

__all__ = ["EVENT_ID_BYTES", "Broadcaster"]

EVENT_ID_BYTES = len('"eventId":9223372036854775807,')
"""What a durable payload leaves free for the id that the outbox adds."""

_log = logging.getLogger("smartlink.broadcasting")

Said = TypeVar("Said")

Report = Callable[[BroadcastEvent, BroadcastError], None]
Watch = Callable[[BroadcastEvent, Sequence[Envelope], bool], None]


class Broadcaster:
    """Packs events and sends them through one driver, or through others that an event names.

    `namespace` stands before the class name of events that chose no name of their own; empty for none.
    `max_data_bytes` is what the service takes per event, in bytes of UTF-8. `find_driver` gives the drivers that
    events name; `encryption` seals what goes to encrypted channels; `report` hears of failures that an event asked
    to be rescued from, by default as one line in the log. `Broadcaster.from_settings` puts all of it together.
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
        """A broadcaster as `settings` describe it, by default those of the environment and `.env`.

        Give a `manager` to have drivers of your own; it is closed with the broadcaster. Raises BroadcastConfigError
        for a driver that is unknown or lacks a setting, and for a master key that is none.
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
        """Where envelopes go, sealed and sorted by connection; the relay of an outbox sends through the same one."""
        return self._connections

    @property
    def encryption(self) -> ChannelEncryption | None:
        """What seals encrypted channels; give it to the channel authorisation too."""
        return self._encryption

    def pack(
        self,
        event: BroadcastEvent,
        *,
        socket_id: str | None = None,
        to_others: bool = False,
        to_other_users: str | int | None = None,
    ) -> tuple[Envelope, ...]:
        """One envelope for each connection and channel of `event`; none when `broadcast_when()` says no.

        `socket_id` is the socket to leave out; `to_others` takes it from the current request (see
        `SocketIdMiddleware`). `to_other_users` is the id of a user whose sockets are all left out, which only our own
        server can do: the protocol knows one socket, no user. Raises InvalidChannel, InvalidEventName,
        UnserialisablePayload and, with both sizes, PayloadTooLarge; BroadcastConfigError for a connection that is
        unknown or cannot leave out users, and for an encrypted channel without a master key; ValueError for a
        `socket_id` or delivery that is none; TypeError for what is no event, and for one with async methods.

        Durable payloads leave room for the `eventId` that the outbox adds.
        """
        return self._pack(event, socket_id, to_others, to_other_users, EVENT_ID_BYTES)

    def pack_to_send(
        self,
        event: BroadcastEvent,
        *,
        socket_id: str | None = None,
        to_others: bool = False,
        to_other_users: str | int | None = None,
    ) -> tuple[Envelope, ...]:
        """As `pack`, for envelopes that are not recorded: no room is left for an `eventId`."""
        return self._pack(event, socket_id, to_others, to_other_users, 0)

    def _pack(
        self,
        event: BroadcastEvent,
        socket_id: str | None,
        to_others: bool,
        to_other_users: str | int | None,
        event_id_bytes: int,
    ) -> tuple[Envelope, ...]:
        if not isinstance(event, BroadcastEvent):
            raise TypeError(f"{event!r:.80} is no event: make a class of BroadcastEvent, or begin with on(channel)")
        if not _said_at_once(event, "broadcast_when", event.broadcast_when()):
            return ()
        channels = _channels(event)
        name = self.wire_name(event)
        if to_others and socket_id is None:
            socket_id = current_socket_id()
        if socket_id is not None and not is_valid_socket_id(socket_id):
            raise ValueError(f"not a socket id: {socket_id!r:.60}; it has the form digits.digits")
        except_user = None if to_other_users is None else str(to_other_users)
        delivery = Delivery(event.delivery)
        envelopes: list[Envelope] = []
        for connection in dict.fromkeys(_connections(event)) or (None,):
            driver = self._connections.driver(connection)
            if except_user is not None and not leaves_out_users(driver):
                raise BroadcastConfigError(
                    f"{driver.name} cannot leave out all sockets of a user: its service knows to_others() only; "
                    "use the reverb driver with a SmartLink server, or let clients drop what names themselves"
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
        """Pack and send now, past any outbox. Raises what `pack` raises, and BroadcastFailed.

        An event with `broadcast_rescue` raises no BroadcastError: it is reported.
        """
        try:
            packed = self.pack_to_send(event, socket_id=socket_id, to_others=to_others, to_other_users=to_other_users)
            await self.send_envelopes(packed)
        except BroadcastError as error:
            self.rescue(event, error)

    async def send_envelopes(self, envelopes: Sequence[Envelope]) -> None:
        """Send what is packed, now and in order. Raises BroadcastFailed."""
        if envelopes:
            await self._connections.send(envelopes)

    def rescue(self, event: BroadcastEvent, error: BroadcastError) -> None:
        """Report `error` if the event asks for that; raise it otherwise."""
        if not event.broadcast_rescue:
            raise error
        self._report(event, error)

    def on(self, *channels: Channel) -> AnonymousBroadcast[Coroutine[Any, Any, None]]:
        """Begin an event without a class: `await broadcaster.on(Channel("news")).as_("news.out").send()`."""
        return AnonymousBroadcast(self.send, AnonymousEvent(channels))

    def private(self, name: str) -> AnonymousBroadcast[Coroutine[Any, Any, None]]:
        """As `on(PrivateChannel(name))`."""
        return self.on(PrivateChannel(name))

    def presence(self, name: str) -> AnonymousBroadcast[Coroutine[Any, Any, None]]:
        """As `on(PresenceChannel(name))`."""
        return self.on(PresenceChannel(name))

    def wire_name(self, event: BroadcastEvent) -> str:
        """The event's name as clients hear it. Raises InvalidEventName."""
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
        """For as long as the block lasts, send everything through `driver`, unsealed, whatever events name; so does a
        relay that was given this broadcaster's `driver`.

        `watch` is told of each event packed, its envelopes, and whether it is for others only. For tests.
        """
        before, self._watch = self._watch, watch
        try:
            with self._connections.replaced_by(driver):
                yield
        finally:
            self._watch = before

    async def aclose(self) -> None:
        """Close the drivers, if this broadcaster was made from settings; those handed in are their owner's."""
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
        fields = _said_at_once(event, "broadcast_with", event.broadcast_with_for(connection))
        encoded = encode_payload(fields)
        size, measured = len(encoded), name
        if delivery is Delivery.DURABLE:
            if "eventId" in fields:
                raise UnserialisablePayload(
                    f"payload.eventId of {name}: the outbox gives durable events their eventId; use another name"
                )
            if event_id_bytes:
                size, measured = size + event_id_bytes, f"{name} with its eventId"
        if any(channel.kind is ChannelKind.ENCRYPTED for channel in channels):
            if not self._connections.can_seal:
                raise BroadcastConfigError(
                    f"{name} goes to an encrypted channel, and there is no key to encrypt it with: set "
                    "BROADCAST_ENCRYPTION_MASTER_KEY (32 random bytes in base64); it is never sent in the clear"
                )
            size = sealed_bytes(size)
        if size > self._max_data_bytes:
            raise PayloadTooLarge(measured, size, self._max_data_bytes)
        return encoded.decode()


def _channels(event: BroadcastEvent) -> tuple[Channel, ...]:
    on: object = _said_at_once(event, "broadcast_on", event.broadcast_on())
    channels: dict[str, Channel] = {}
    for channel in on if isinstance(on, Sequence) and not isinstance(on, str) else (on,):
        if not isinstance(channel, Channel):
            raise InvalidChannel(
                f"{type(event).__name__}.broadcast_on() gave {channel!r}; give a Channel, PrivateChannel or "
                "PresenceChannel, or a list of them"
            )
        filled = channel.filled_by(event)
        channels[str(filled)] = filled
    return tuple(channels.values())


def _connections(event: BroadcastEvent) -> Sequence[str]:
    named = event.broadcast_connections
    return (named,) if isinstance(named, str) else named


def _said_at_once(event: BroadcastEvent, method: str, said: Said) -> Said:
    if inspect.iscoroutine(said):
        said.close()
        raise TypeError(
            f"{type(event).__name__}.{method}() is async, and packing an event waits for nothing: "
            "make it a plain method, and load what it needs before the event is made"
        )
    return said


def _logged(event: BroadcastEvent, error: BroadcastError) -> None:
    _log.error("broadcast of %s given up: %s: %s", type(event).__name__, type(error).__name__, error)
