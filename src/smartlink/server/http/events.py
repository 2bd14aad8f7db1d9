"""`POST events` and `POST batch_events`: publishing."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from smartlink.protocol import encoding
from smartlink.protocol.names import (
    MAX_CHANNEL_LENGTH,
    ChannelKind,
    is_reserved_event,
    is_valid_channel,
    is_valid_event_name,
    is_valid_socket_id,
    kind_of,
)
from smartlink.server.apps.base import App
from smartlink.server.node import Node
from smartlink.server.requests import HttpError, Request, Response

__all__ = ["channel_info", "parse_info", "publish", "publish_batch"]

MAX_CHANNELS = 100
MAX_BATCH = 10
_ATTRIBUTES = frozenset({"user_count", "subscription_count"})


class _Event(msgspec.Struct):
    name: str
    data: str | msgspec.Raw
    channel: str | None = None
    channels: Annotated[list[str], msgspec.Meta(max_length=MAX_CHANNELS)] | None = None
    socket_id: str | None = None
    info: str | None = None


class _Batch(msgspec.Struct):
    batch: list[_Event]


_event_decoder = msgspec.json.Decoder(_Event)
_batch_decoder = msgspec.json.Decoder(_Batch)
_EMPTY = Response()


async def publish(node: Node, app: App, request: Request) -> Response:
    """One event to up to 100 channels."""
    event = _decode(_event_decoder, request.body)
    channels = event.channels if event.channels is not None else [event.channel] if event.channel else []
    if not channels:
        raise HttpError(400, "channels (or channel) must name at least one channel")
    data = _check(app, event, channels)
    attributes = parse_info(event.info)
    infos: dict[str, dict[str, Any]] = {}
    for channel in dict.fromkeys(channels):
        _check_attributes(channel, attributes)
    for channel in dict.fromkeys(channels):
        await node.publish(app, channel, encoding.event(event.name, channel, data), event.socket_id)
        if attributes:
            infos[channel] = await channel_info(node, app, channel, attributes)
    return Response(msgspec.json.encode({"channels": infos})) if attributes else _EMPTY


async def publish_batch(node: Node, app: App, request: Request) -> Response:
    """Up to ten events, each on one channel: all are published, in order, or none."""
    events = _decode(_batch_decoder, request.body).batch
    if not events:
        raise HttpError(400, "batch is empty")
    if len(events) > MAX_BATCH:
        raise HttpError(400, f"batch has {len(events)} events, more than {MAX_BATCH}")
    checked: list[tuple[_Event, str, str, frozenset[str]]] = []
    for event in events:
        if event.channel is None:
            raise HttpError(400, "each event of a batch names one channel")
        data = _check(app, event, [event.channel])
        attributes = parse_info(event.info)
        _check_attributes(event.channel, attributes)
        checked.append((event, event.channel, data, attributes))
    infos: list[dict[str, Any]] = []
    for event, channel, data, attributes in checked:
        await node.publish(app, channel, encoding.event(event.name, channel, data), event.socket_id)
        infos.append(await channel_info(node, app, channel, attributes))
    return Response(msgspec.json.encode({"batch": infos})) if any(infos) else _EMPTY


def parse_info(info: str | None) -> frozenset[str]:
    """The attributes a caller asks for. Raises HttpError 400 for one that does not exist."""
    if not info:
        return frozenset()
    attributes = frozenset(part.strip() for part in info.split(","))
    if unknown := attributes - _ATTRIBUTES:
        raise HttpError(400, f"info knows user_count and subscription_count, not {', '.join(sorted(unknown))[:60]!r}")
    return attributes


async def channel_info(node: Node, app: App, channel: str, attributes: frozenset[str]) -> dict[str, Any]:
    """The attributes asked for, of the whole cluster."""
    if not attributes:
        return {}
    count = await node.roster.count(app.id, channel)
    info: dict[str, Any] = {}
    if "user_count" in attributes:
        info["user_count"] = count.users
    if "subscription_count" in attributes:
        info["subscription_count"] = count.subscriptions
    return info


def _check_attributes(channel: str, attributes: frozenset[str]) -> None:
    if "user_count" in attributes and kind_of(channel) is not ChannelKind.PRESENCE:
        raise HttpError(400, f"user_count is known on presence channels only, and {channel!r} is none")


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
        raise HttpError(400, f"The body is not what is expected here: {str(error)[:200]}") from None


def _check(app: App, event: _Event, channels: list[str]) -> str:
    """Check one event; returns its data as text. Raises HttpError 400 or 413."""
    if not is_valid_event_name(event.name):
        raise HttpError(400, "name must have 1 to 200 characters, none of them a control character")
    if is_reserved_event(event.name):
        raise HttpError(400, "names that begin with pusher: or pusher_internal: are the server's own")
    for channel in channels:
        if not is_valid_channel(channel):
            raise HttpError(
                400, f"{channel[:40]!r} is not a channel: 1 to {MAX_CHANNEL_LENGTH} of A-Z a-z 0-9 _ - = @ , . ;"
            )
    if event.socket_id is not None and not is_valid_socket_id(event.socket_id):
        raise HttpError(400, "socket_id must have the form digits.digits")
    if not isinstance(event.data, str):
        raise HttpError(400, "data must be a text: encode objects as JSON first")
    size = len(event.data) if event.data.isascii() else len(event.data.encode())
    if size > app.max_event_bytes:
        raise HttpError(413, f"data is {size} bytes, more than the {app.max_event_bytes} this application may send")
    return event.data
