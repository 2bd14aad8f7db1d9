"""`POST channels/{channel}/revoke` and `POST users/{id}/revoke`: take back the right to be on channels."""

from __future__ import annotations

from typing import Any

from smartlink.protocol.messages import parse
from smartlink.protocol.names import MAX_USER_ID_LENGTH, is_valid_channel, is_valid_socket_id, is_valid_user_id, kind_of
from smartlink.server.apps.base import App
from smartlink.server.core.grants import Revocation
from smartlink.server.core.node import Node
from smartlink.server.net.requests import HttpError, HttpResponse

__all__ = ["revoke_channel", "revoke_user"]

MAX_REASON_LENGTH = 200
_NO_USER_ID = f"The user id must have 1 to {MAX_USER_ID_LENGTH} characters and no control characters"


async def revoke_channel(node: Node, app: App, channel: str, body: bytes) -> HttpResponse:
    """End subscriptions to one channel, on all nodes; signatures made for them so far become void.

    The body is `{"user_id": …}`, `{"socket_id": …}` or `{"all": true}`, and optionally `"reason"`, which the clients
    get. Raises HttpError 400.
    """
    if not is_valid_channel(channel) or not kind_of(channel).needs_authorization:
        raise HttpError(400, f"Only private and presence channels can be revoked, and {channel[:40]!r} is not one")
    fields = _fields(body)
    named = [name for name in ("user_id", "socket_id", "all") if name in fields]
    if len(named) != 1 or fields[named[0]] is None or fields.get("all", True) is not True:
        raise HttpError(400, 'The body must name one of {"user_id": …}, {"socket_id": …} and {"all": true}')
    await node.revoke(app, Revocation(channel, _user_id(fields), _socket_id(fields), **_reason(fields)))
    return HttpResponse()


async def revoke_user(node: Node, app: App, user_id: str, body: bytes) -> HttpResponse:
    """End a user's subscriptions to all private and presence channels, on all nodes; their connections stay.

    The body may be `{"reason": …}`. Raises HttpError 400.
    """
    if not is_valid_user_id(user_id):
        raise HttpError(400, _NO_USER_ID)
    await node.revoke(app, Revocation(user_id=user_id, **_reason(_fields(body or b"{}"))))
    return HttpResponse()


def _fields(body: bytes) -> dict[str, Any]:
    fields = parse(body)
    if not isinstance(fields, dict):
        raise HttpError(400, "The body must be a JSON object")
    return fields


def _user_id(fields: dict[str, Any]) -> str | None:
    user_id: str | int | None = fields.get("user_id")
    if isinstance(user_id, int) and not isinstance(user_id, bool):
        user_id = str(user_id)
    if user_id is None or (isinstance(user_id, str) and is_valid_user_id(user_id)):
        return user_id
    raise HttpError(400, _NO_USER_ID)


def _socket_id(fields: dict[str, Any]) -> str | None:
    socket_id: str | None = fields.get("socket_id")
    if socket_id is None or is_valid_socket_id(socket_id):
        return socket_id
    raise HttpError(400, "socket_id must have the form digits.digits")


def _reason(fields: dict[str, Any]) -> dict[str, str]:
    reason = fields.get("reason")
    if reason is None:
        return {}
    if not isinstance(reason, str) or not 0 < len(reason) <= MAX_REASON_LENGTH:
        raise HttpError(400, f"reason must be a string of 1 to {MAX_REASON_LENGTH} characters")
    return {"reason": reason}
