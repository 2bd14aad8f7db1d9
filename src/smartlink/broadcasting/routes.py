"""The ASGI app behind Echo: `POST …/auth` lets a socket onto a channel, `POST …/user-auth` signs a user in.

Mount it at `/broadcasting`. What it signs is chosen by strangers, so the form of every part is checked before
anything else is looked at, and whatever is malformed gets its error without a signature.
Source: Pusher Channels, "Authorizing users" and "Authenticating users".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar
from urllib.parse import parse_qsl

import msgspec

from smartlink.broadcasting.authorization import ChannelRules, Decision, Member
from smartlink.broadcasting.payloads import encode_payload
from smartlink.broadcasting.socket_id import Message, Receive, Scope, Send
from smartlink.protocol.names import ChannelKind, is_valid_channel, is_valid_socket_id, kind_of
from smartlink.protocol.signing import sign_channel, sign_user

__all__ = ["BroadcastingAuth", "RequestRefused"]

MAX_BODY_BYTES = 64 * 1024

User = TypeVar("User")


class RequestRefused(Exception):
    """Raised by `authenticate` to answer with a status and message of its own, such as 419 or 503."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


class _ClientGone(Exception):
    """The client went away while its body was read; there is nobody to answer."""


class BroadcastingAuth(Generic[User]):
    """Signs subscriptions and sign-ins for users that `authenticate` knows and `rules` let in.

    `authenticate` gets the ASGI scope and gives the user, or None for 401; it may raise `RequestRefused`.
    `member_of` says who a user is on the wire. With `name_user_on_private`, private authorisations also carry
    `channel_data` with the user's id: clients ignore it, the server counts and ends connections by it.

    Answers: 200; 400 for an unreadable body; 401; 403; 404; 405; 413 above 64 KiB; 415; 422 for a malformed
    `socket_id`. Without any `socket_id` the answer is 200 and has no `auth`.
    """

    def __init__(
        self,
        rules: ChannelRules,
        *,
        key: str,
        secret: str,
        authenticate: Callable[[Scope], Awaitable[User | None]],
        member_of: Callable[[User], Member],
        name_user_on_private: bool = True,
    ) -> None:
        self._rules = rules
        self._key = key
        self._secret = secret
        self._authenticate = authenticate
        self._member_of = member_of
        self._name_user_on_private = name_user_on_private

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"BroadcastingAuth answers HTTP, not {scope['type']}")
        try:
            answer = await self._answer(scope, receive)
        except RequestRefused as refused:
            await _respond(send, refused.status, {"message": refused.message}, refused.headers)
        except _ClientGone:
            return
        else:
            await _respond(send, 200, answer, {})

    async def _answer(self, scope: Scope, receive: Receive) -> dict[str, str]:
        endpoint = scope["path"].rstrip("/").rpartition("/")[2]
        if endpoint not in ("auth", "user-auth"):
            raise RequestRefused(404, "Not found.")
        if scope["method"] != "POST":
            raise RequestRefused(405, "Use POST.", {"allow": "POST"})
        user = await self._authenticate(scope)
        if user is None:
            raise RequestRefused(401, "Unauthenticated.")
        fields = _fields(scope, await _read_body(scope, receive))
        socket_id = _socket_id(fields)
        if endpoint == "auth":
            return await self._authorize(user, socket_id, _channel_name(fields))
        return self._sign_in(user, socket_id)

    async def _authorize(self, user: User, socket_id: str | None, channel: str) -> dict[str, str]:
        decision = await self._rules.decide(user, channel)
        if not decision.allowed:
            raise RequestRefused(403, "You may not subscribe to this channel.")
        if socket_id is None:
            return {}
        channel_data = self._channel_data(user, channel, decision)
        answer = {"auth": sign_channel(self._key, self._secret, socket_id, channel, channel_data)}
        if channel_data is not None:
            answer["channel_data"] = channel_data
        return answer

    def _channel_data(self, user: User, channel: str, decision: Decision) -> str | None:
        if kind_of(channel) is ChannelKind.PRESENCE:
            member = decision.member or self._member_of(user)
            info = member.info if decision.info is None else decision.info
            return encode_payload({"user_id": member.id, "user_info": info}).decode()
        if not self._name_user_on_private:
            return None
        return encode_payload({"user_id": (decision.member or self._member_of(user)).id}).decode()

    def _sign_in(self, user: User, socket_id: str | None) -> dict[str, str]:
        if socket_id is None:
            return {}
        member = self._member_of(user)
        user_data = encode_payload({"id": member.id, "user_info": member.info}).decode()
        return {"auth": sign_user(self._key, self._secret, socket_id, user_data), "user_data": user_data}


def _socket_id(fields: Mapping[str, object]) -> str | None:
    if "socket_id" not in fields:
        return None
    socket_id = fields["socket_id"]
    if not isinstance(socket_id, str) or not is_valid_socket_id(socket_id):
        raise RequestRefused(422, "The socket_id is malformed; it has the form digits.digits.")
    return socket_id


def _channel_name(fields: Mapping[str, object]) -> str:
    channel = fields.get("channel_name")
    if not isinstance(channel, str) or not is_valid_channel(channel):
        raise RequestRefused(403, "You may not subscribe to this channel.")
    return channel


def _fields(scope: Scope, body: bytes) -> Mapping[str, object]:
    content_type = _header(scope, b"content-type").partition(";")[0].strip().lower()
    if content_type == "application/json":
        return _json_fields(body)
    if content_type in ("", "application/x-www-form-urlencoded"):
        return _form_fields(body)
    raise RequestRefused(415, "Send application/x-www-form-urlencoded or application/json.")


def _json_fields(body: bytes) -> Mapping[str, object]:
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RequestRefused(400, "The body is not JSON.") from None
    if not isinstance(fields, dict):
        raise RequestRefused(400, "The body is not a JSON object.")
    return fields


def _form_fields(body: bytes) -> Mapping[str, object]:
    """A form's fields; one that comes twice, or as `name[]`, is a list, and so never a socket id or a channel."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise RequestRefused(400, "The body is not a form in UTF-8 of at most 100 fields.") from None
    fields: dict[str, object] = {}
    for raw_name, value in pairs:
        name, bracket, _ = raw_name.partition("[")
        fields[name] = [value] if bracket or name in fields else value
    return fields


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    declared = _header(scope, b"content-length")
    if declared.isascii() and declared.isdigit() and (len(declared) > 9 or int(declared) > MAX_BODY_BYTES):
        raise RequestRefused(413, f"The body is larger than {MAX_BODY_BYTES} bytes.", {"connection": "close"})
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise RequestRefused(413, f"The body is larger than {MAX_BODY_BYTES} bytes.", {"connection": "close"})
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _header(scope: Scope, name: bytes) -> str:
    values: list[bytes] = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if values else ""


async def _respond(send: Send, status: int, answer: Mapping[str, str], headers: Mapping[str, str]) -> None:
    body = msgspec.json.encode(answer)
    raw_headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *((name.encode(), value.encode()) for name, value in headers.items()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": raw_headers})
    await send({"type": "http.response.body", "body": body})
