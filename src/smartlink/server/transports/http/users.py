"""`POST users/{id}/…`: ends a user's connections, and changes their user_info."""

from __future__ import annotations

from typing import Any

import msgspec

from smartlink.protocol.messages import parse
from smartlink.protocol.names import ChannelKind, is_valid_channel, kind_of
from smartlink.server.apps.base import App
from smartlink.server.cluster.brokers.base import BrokerUnavailable, Control
from smartlink.server.core.node import Node
from smartlink.server.net.requests import HttpError, HttpResponse

__all__ = ["change_info", "reconnect", "terminate"]


async def terminate(node: Node, app: App, user_id: str) -> HttpResponse:
    """End all connections of a user, on all nodes; signatures for older connections become void."""
    _check_user(user_id)
    await node.terminate_user(app, user_id)
    return HttpResponse()


async def reconnect(node: Node, app: App, user_id: str) -> HttpResponse:
    """Like `terminate`, but clients are told to reconnect and authorize again."""
    _check_user(user_id)
    await node.reconnect_user(app, user_id)
    return HttpResponse()


async def change_info(node: Node, app: App, user_id: str, body: bytes) -> HttpResponse:
    """Replace a member's `user_info` for as long as they stay.

    The body is `{"user_info": …, "channels": ["presence-…"]}`. The response names those of the channels that the user
    is on. Without `channels` it applies to all the user's channels, and the response is empty.
    """
    _check_user(user_id)
    fields = parse(body)
    if not isinstance(fields, dict) or "user_info" not in fields:
        raise HttpError(400, 'The body must be {"user_info": …, "channels": […]}; channels is optional')
    info = fields["user_info"]
    user_info = b"{}" if info is None else msgspec.json.encode(info)
    if len(user_info) > app.max_user_info_bytes:
        raise HttpError(413, f"user_info is {len(user_info)} bytes, more than {app.max_user_info_bytes}")
    if not node.is_connected:
        raise BrokerUnavailable("Other nodes are unreachable")
    if "channels" not in fields:
        await node.tell(Control(app.id, "change_info", user_id, user_info.decode()))
        return HttpResponse()
    channels = _presence_channels(app, fields["channels"])
    there = [channel for channel in channels if await node.infos.change(app.id, channel, user_id, user_info)]
    return HttpResponse(msgspec.json.encode({"channels": there}))


def _presence_channels(app: App, channels: Any) -> list[str]:
    if not isinstance(channels, list) or not 0 < len(channels) <= app.max_event_channels:
        raise HttpError(400, f"channels must name 1 to {app.max_event_channels} presence channels")
    for channel in channels:
        if not is_valid_channel(channel) or kind_of(channel) is not ChannelKind.PRESENCE:
            raise HttpError(400, f"Only presence channels have members, and {str(channel)[:40]!r} is not one")
    return list(dict.fromkeys(channels))


def _check_user(user_id: str) -> None:
    if not user_id or len(user_id) > 200:
        raise HttpError(400, "The user id must have 1 to 200 characters")
