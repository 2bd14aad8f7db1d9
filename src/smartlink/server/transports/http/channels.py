"""The three `GET channels` calls and `GET connections`."""

from __future__ import annotations

import asyncio
import math

import msgspec

from smartlink.protocol.names import ChannelKind, is_cache, is_internal, is_valid_channel, kind_of
from smartlink.server.apps.base import App
from smartlink.server.core.node import Node
from smartlink.server.net.requests import HttpError, HttpResponse
from smartlink.server.transports.http.events import COUNTS, channel_info, parse_info

__all__ = ["connections", "list_channels", "list_events", "list_users", "show_channel"]

MAX_POSITION = (1 << 53) - 1
DEFAULT_EVENTS, MAX_EVENTS = 100, 1_000
AT_ONCE = 2_000
"""Channels listed before the loop serves others."""


def _json(value: object) -> HttpResponse:
    return HttpResponse(msgspec.json.encode(value))


async def list_channels(node: Node, app: App, parameters: dict[str, str]) -> HttpResponse:
    """Occupied channels by prefix, with counts if requested, or if the application lists them."""
    prefix = parameters.get("filter_by_prefix", "")
    attributes = parse_info(parameters.get("info"))
    if "user_count" in attributes and not prefix.startswith("presence-") and not app.lists_counts:
        raise HttpError(400, "user_count needs filter_by_prefix=presence-: only presence channels have users")
    counts = await node.presence.channels(app.id, prefix)
    channels: dict[str, dict[str, int]] = {}
    for number, (name, count) in enumerate(counts.items(), 1):
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
        if is_internal(name):
            continue
        info = channels[name] = {}
        if app.lists_counts:
            info |= {"occupied": True, "subscription_count": count.subscriptions}
        if "user_count" in attributes and kind_of(name) is ChannelKind.PRESENCE:
            info["user_count"] = count.users
        if "subscription_count" in attributes:
            info["subscription_count"] = count.subscriptions
    return _json({"channels": channels})


async def show_channel(node: Node, app: App, channel: str, parameters: dict[str, str]) -> HttpResponse:
    """One channel: whether it is occupied, and the requested attributes; `cache` is null if nothing is stored."""
    _check(channel)
    attributes = parse_info(parameters.get("info"), COUNTS | {"cache"})
    if app.lists_counts:
        attributes = (attributes | COUNTS) - (frozenset() if is_cache(channel) else {"cache"})
    elif "user_count" in attributes and kind_of(channel) is not ChannelKind.PRESENCE:
        raise HttpError(400, f"user_count is available on presence channels only, and {channel!r} is not one")
    if "cache" in attributes and not is_cache(channel):
        raise HttpError(400, f"Only cache channels keep their last event, and {channel!r} is not one")
    count = await node.presence.count(app.id, channel)
    shown: dict[str, object] = {"occupied": count.subscriptions > 0}
    shown |= await channel_info(node, app, channel, attributes)
    if "cache" in attributes:
        entry = await node.history.latest(app.id, channel)
        shown["cache"] = None if entry is None else {"data": _data_of(entry.frame), "ttl": math.ceil(entry.ttl_s)}
    return _json(shown)


async def list_users(node: Node, app: App, channel: str, parameters: dict[str, str]) -> HttpResponse:
    """The users on a presence channel, each once, with their user_info if `with_user_info=1`."""
    _check(channel)
    if kind_of(channel) is not ChannelKind.PRESENCE:
        raise HttpError(400, f"Only presence channels have users, and {channel!r} is not one")
    with_info = parameters.get("with_user_info", "0")
    if with_info not in ("0", "1"):
        raise HttpError(400, "with_user_info must be 1 or 0")
    members = await node.presence.members(app.id, channel)
    if with_info == "0":
        return _json({"users": [{"id": member.user_id} for member in members]})
    users = [{"id": member.user_id, "user_info": msgspec.Raw(member.user_info)} for member in members]
    return _json({"users": users})


async def list_events(node: Node, app: App, channel: str, parameters: dict[str, str]) -> HttpResponse:
    """The channel's kept events after a position, oldest first: `{"events": [{position, name, data}], "complete"}`.

    `complete` is false if events between the position and the first listed are, or may be, no longer kept. Raises
    HttpError 400, BrokerUnavailable.
    """
    _check(channel)
    after = _number(parameters, "after", 0, MAX_POSITION)
    limit = _number(parameters, "limit", 1, MAX_EVENTS) or DEFAULT_EVENTS
    kept, is_complete = await node.history_of(app, channel, after)
    events = []
    for publication in kept[:limit]:
        fields = msgspec.json.decode(publication.frame)
        events.append({"position": publication.position, "name": fields["event"], "data": fields["data"]})
    return _json({"events": events, "complete": is_complete})


def _number(parameters: dict[str, str], name: str, low: int, high: int) -> int | None:
    """A whole number from the query. Raises HttpError 400."""
    text = parameters.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
        raise HttpError(400, f"{name} must be a whole number from {low} to {high}")
    return int(text)


async def connections(node: Node, app: App) -> HttpResponse:
    """The app's number of connections."""
    return _json({"connections": await node.count_connections(app)})


def _data_of(frame: bytes) -> object:
    return msgspec.json.decode(frame)["data"]


def _check(channel: str) -> None:
    if not is_valid_channel(channel):
        raise HttpError(400, f"{channel[:40]!r} is not a channel name")
