"""The answers of the authorization endpoints, independent of web frameworks.

Clients choose what is signed, so the form of every field is checked first, and malformed requests are never signed.
Source: Pusher Channels, "Authorizing users" and "Authenticating users".
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar
from urllib.parse import parse_qsl

import msgspec

from smartlink.broadcasting.authorization import ChannelRules, Decision, Member
from smartlink.broadcasting.config import BroadcastSettings
from smartlink.broadcasting.encryption import ChannelEncryption
from smartlink.broadcasting.errors import BroadcastConfigError
from smartlink.broadcasting.multipart import form_fields
from smartlink.broadcasting.payloads import encode_payload
from smartlink.broadcasting.steps import Steps, settle, settle_sync
from smartlink.protocol.names import ChannelKind, is_valid_channel, is_valid_socket_id, kind_of
from smartlink.protocol.signing import sign_channel, sign_user

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_CHANNELS_AT_ONCE",
    "AuthRequest",
    "AuthResponse",
    "ChannelAuthorizer",
    "FormBody",
    "RequestRefused",
]

MAX_BODY_BYTES = 64 * 1024
MAX_CHANNELS_AT_ONCE = 100
MAX_FIELDS = 2 * MAX_CHANNELS_AT_ONCE

_log = logging.getLogger("smartlink.broadcasting")
_CLOSED = Decision(False, "encrypted channels need BROADCAST_ENCRYPTION_MASTER_KEY")

User = TypeVar("User")
Known = TypeVar("Known")
Guard = Callable[[], Any]


class RequestRefused(Exception):
    """Raised by an application's own checks to answer with another status and message, such as 419 or 503."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


class FormBody(bytes):
    """A form that the framework has already parsed, urlencoded again."""


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """A request: `path` ends in `auth` or `user-auth`; `read` returns the body or an awaitable of it."""

    method: str
    path: str
    read: Callable[[], bytes | Awaitable[bytes]]
    content_type: str = ""
    query: str = ""


@dataclass(frozen=True, slots=True)
class AuthResponse:
    """A JSON response, which must not be cached."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_headers(self) -> dict[str, str]:
        """All headers, with names in lower case."""
        own = {"content-type": "application/json", "content-length": str(len(self.body)), "cache-control": "no-store"}
        return own | dict(self.headers)


class ChannelAuthorizer(Generic[User]):
    """Signs subscriptions that `rules` allow, and sign-ins.

    `member_of` returns a user's `Member`. With `name_user_on_private`, signatures for private channels include
    `channel_data` with the user's id, which clients ignore and the server uses to count and end connections. Without
    `encryption`, encrypted channels are denied. `can_expire`: the service ends subscriptions when a rule's `Grant`
    does, as only SmartLink's own server can; otherwise such a rule raises BroadcastConfigError.

    `auth` with `socket_id` and `channel_name` answers 200 `{"auth"}`, with `channel_data` and `shared_secret` on
    channels that need them. With up to 100 names as `channels` (JSON) or `channel_name[]` (form) it answers for each:
    200 `{"channels": {name: {"status": 200, "data": {"auth"}}}}`. `user-auth` answers 200 `{"auth", "user_data"}`.
    Bodies are urlencoded or multipart forms, or JSON. Without `socket_id` nothing is signed: 200 without `auth`.
    Otherwise: 400 for an unreadable body; 401; 403; 404; 405; 413 above 64 KiB; 415; 422 for a malformed `socket_id`.

    Raises BroadcastConfigError for an empty key or secret, which anyone could sign with.
    """

    def __init__(
        self,
        rules: ChannelRules,
        *,
        key: str,
        secret: str,
        member_of: Callable[[User], Member],
        name_user_on_private: bool = True,
        encryption: ChannelEncryption | None = None,
        can_expire: bool = True,
    ) -> None:
        if not key or not secret:
            raise BroadcastConfigError("ChannelAuthorizer needs the app's key and secret; one of them is empty")
        self.rules = rules
        self._key = key
        self._secret = secret
        self._member_of = member_of
        self._name_user_on_private = name_user_on_private
        self._encryption = encryption
        self._can_expire = can_expire

    @classmethod
    def from_settings(
        cls,
        rules: ChannelRules,
        member_of: Callable[[Known], Member],
        settings: BroadcastSettings | None = None,
        *,
        name_user_on_private: bool = True,
    ) -> ChannelAuthorizer[Known]:
        """Return an authorizer that signs for the configured service, or for our own server with other drivers.

        Raises BroadcastConfigError for a missing key.
        """
        settings = settings or BroadcastSettings()
        key, secret = settings.signing_key()
        # Not as `Self`: whose users they are, pyright does not know of the class here.
        kind: Any = cls
        made: ChannelAuthorizer[Known] = kind(
            rules,
            key=key,
            secret=secret,
            member_of=member_of,
            name_user_on_private=name_user_on_private,
            encryption=ChannelEncryption.from_settings(settings),
            can_expire=settings.driver not in ("pusher", "ably"),
        )
        return made

    async def decide(self, user: User, channel: str) -> Decision:
        """Return whether `user` would get a signature for `channel`. Raises what rules raise."""
        if self._is_closed(channel):
            return _CLOSED
        return await self.rules.decide(user, channel)

    async def answer(self, request: AuthRequest, guards: Mapping[str, Guard]) -> AuthResponse:
        """Answer a request. `guards` are functions by name that return the user or None; they may be async.

        The first guard is for rules without guards. Guards may raise `RequestRefused`. Raises what rules raise.
        """
        return await settle(self._answering(request, guards))

    def answer_sync(self, request: AuthRequest, guards: Mapping[str, Guard]) -> AuthResponse:
        """Answer like `answer`, synchronously."""
        return settle_sync(self._answering(request, guards))

    def _answering(self, request: AuthRequest, guards: Mapping[str, Guard]) -> Steps[AuthResponse]:
        try:
            said = yield from self._handling(request, guards)
        except RequestRefused as refused:
            return AuthResponse(refused.status, msgspec.json.encode({"message": refused.message}), refused.headers)
        return AuthResponse(200, msgspec.json.encode(said))

    def _handling(self, request: AuthRequest, guards: Mapping[str, Guard]) -> Steps[Mapping[str, object]]:
        endpoint = request.path.rstrip("/").rpartition("/")[2]
        if endpoint not in ("auth", "user-auth"):
            raise RequestRefused(404, "Not found.")
        if request.method not in ("GET", "POST"):
            raise RequestRefused(405, "Use POST.", {"allow": "GET, POST"})
        users = _Users[User](guards)
        user = yield from users.first()
        if user is None:
            raise RequestRefused(401, "Unauthenticated.")
        if request.method == "GET":
            fields = _Fields.of_form(request.query)
        else:
            body = yield request.read()
            fields = _Fields.of_body(request.content_type, body)
        socket_id = fields.socket_id()
        if endpoint == "user-auth":
            return self._sign_in(user, socket_id)
        if (names := fields.channel_names()) is not None:
            return (yield from self._authorize_all(users, socket_id, names))
        return (yield from self._authorize(users, socket_id, fields.channel_name()))

    def _authorize_all(
        self, users: _Users[User], socket_id: str | None, channels: Sequence[str]
    ) -> Steps[Mapping[str, object]]:
        answers: dict[str, object] = {}
        for channel in dict.fromkeys(channels):
            try:
                data = yield from self._authorize(users, socket_id, channel)
            except RequestRefused as refused:
                answers[channel] = {"status": refused.status, "data": {"message": refused.message}}
            else:
                answers[channel] = {"status": 200, "data": data}
        return {"channels": answers}

    def _authorize(self, users: _Users[User], socket_id: str | None, channel: str) -> Steps[Mapping[str, object]]:
        decision = _CLOSED if self._is_closed(channel) else (yield from self.rules.deciding(users.of, channel))
        if not decision.allowed:
            _log.debug("%s is denied: %s", channel, decision.why)
            raise RequestRefused(403, "You may not subscribe to this channel.")
        if socket_id is None:
            return {}
        channel_data = self._channel_data(channel, decision)
        answer = {"auth": sign_channel(self._key, self._secret, socket_id, channel, channel_data)}
        if channel_data is not None:
            answer["channel_data"] = channel_data
        if kind_of(channel) is ChannelKind.ENCRYPTED and self._encryption is not None:
            answer["shared_secret"] = self._encryption.shared_secret(channel)
        return answer

    def _is_closed(self, channel: str) -> bool:
        """Return whether `channel` is encrypted and there is no key: it is denied then."""
        return self._encryption is None and is_valid_channel(channel) and kind_of(channel) is ChannelKind.ENCRYPTED

    def _channel_data(self, channel: str, decision: Decision) -> str | None:
        said: dict[str, object] = {}
        if kind_of(channel) is ChannelKind.PRESENCE:
            member = decision.member or self._member(decision.user)
            said = {"user_id": member.id, "user_info": member.info if decision.info is None else decision.info}
        elif self._name_user_on_private:
            said = {"user_id": (decision.member or self._member(decision.user)).id}
        if decision.expires_at is not None:
            if not self._can_expire:
                raise BroadcastConfigError(
                    f"the rule of {decision.rule} returned a Grant that expires, but this service keeps subscriptions "
                    "until they are left: only a SmartLink server ends them (BROADCAST_DRIVER=reverb)"
                )
            said["expires_at"] = round(decision.expires_at, 3)
        return encode_payload(said).decode() if said else None

    def _member(self, user: User) -> Member:
        member: object = self._member_of(user)
        if not isinstance(member, Member):
            raise TypeError(f"member_of gave {type(member).__name__}; give a Member, such as Member(user.id)")
        return member

    def _sign_in(self, user: User, socket_id: str | None) -> Mapping[str, object]:
        if socket_id is None:
            return {}
        member = self._member(user)
        user_data = encode_payload({"id": member.id, "user_info": member.info}).decode()
        return {"auth": sign_user(self._key, self._secret, socket_id, user_data), "user_data": user_data}


class _Users(Generic[User]):
    """The users of guards, each of which is called at most once."""

    def __init__(self, guards: Mapping[str, Guard]) -> None:
        self._guards = guards
        self._known: dict[str, User | None] = {}

    def of(self, names: Sequence[str]) -> Steps[User | None]:
        """Return the user of the first of the guards `names` that knows one; without names, of the first guard."""
        for name in names or tuple(self._guards)[:1]:
            if name not in self._guards:
                raise BroadcastConfigError(f"a rule names the guard {name!r}; known are {', '.join(self._guards)}")
            if name not in self._known:
                self._known[name] = yield self._guards[name]()
            if (user := self._known[name]) is not None:
                return user
        return None

    def first(self) -> Steps[User | None]:
        """Return the user of the first guard that knows one."""
        return (yield from self.of(tuple(self._guards)))


class _Fields:
    """The fields of a request: single values, and the list of channels."""

    def __init__(self, values: Mapping[str, object], names: Sequence[object] | None) -> None:
        self._values = values
        self._names = names

    @classmethod
    def of_body(cls, content_type: str, body: bytes) -> Self:
        if len(body) > MAX_BODY_BYTES:
            raise RequestRefused(413, f"The body is larger than {MAX_BODY_BYTES} bytes.")
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "application/json":
            return cls.of_json(body)
        if kind == "multipart/form-data" and not isinstance(body, FormBody):
            try:
                return cls.of_pairs(form_fields(content_type, body, MAX_FIELDS))
            except ValueError:
                raise RequestRefused(400, f"The body is not a UTF-8 form of at most {MAX_FIELDS} fields.") from None
        if kind not in ("", "application/x-www-form-urlencoded", "multipart/form-data"):
            raise RequestRefused(415, "Send application/x-www-form-urlencoded, multipart/form-data or JSON.")
        return cls.of_form(body.decode("latin-1"))

    @classmethod
    def of_json(cls, body: bytes) -> Self:
        try:
            fields = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise RequestRefused(400, "The body is not valid JSON.") from None
        if not isinstance(fields, dict):
            raise RequestRefused(400, "The body must be a JSON object.")
        if "channels" not in fields:
            return cls(fields, None)
        channels = fields["channels"]
        return cls(fields, channels if isinstance(channels, list) else ())

    @classmethod
    def of_form(cls, text: str) -> Self:
        try:
            text.encode("ascii")
            pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
        except ValueError:
            raise RequestRefused(400, f"The fields are not a UTF-8 form of at most {MAX_FIELDS} fields.") from None
        return cls.of_pairs(pairs)

    @classmethod
    def of_pairs(cls, pairs: Sequence[tuple[str, str]]) -> Self:
        """Collect pairs. A repeated field becomes a list, and so is never a valid socket id or channel."""
        values: dict[str, object] = {}
        names: list[object] = []
        for raw_name, value in pairs:
            name, bracket, _ = raw_name.partition("[")
            if bracket and name in ("channel_name", "channels"):
                names.append(value)
            else:
                values[name] = [value] if bracket or name in values else value
        return cls(values, names or None)

    def socket_id(self) -> str | None:
        if "socket_id" not in self._values:
            return None
        socket_id = self._values["socket_id"]
        if not isinstance(socket_id, str) or not is_valid_socket_id(socket_id):
            raise RequestRefused(422, "The socket_id is malformed; it looks like 123.456.")
        return socket_id

    def channel_names(self) -> Sequence[str] | None:
        """Return the names of a request for several channels, or None. Malformed names are answered with 403."""
        if self._names is None:
            return None
        if "channel_name" in self._values:
            raise RequestRefused(422, "Send either channel_name or channels, not both.")
        names = [name for name in self._names if isinstance(name, str)]
        if not names or len(names) < len(self._names) or len(names) > MAX_CHANNELS_AT_ONCE:
            raise RequestRefused(422, f"The channels must be a list of 1 to {MAX_CHANNELS_AT_ONCE} names.")
        return names

    def channel_name(self) -> str:
        channel = self._values.get("channel_name")
        if not isinstance(channel, str) or not is_valid_channel(channel):
            raise RequestRefused(403, "You may not subscribe to this channel.")
        return channel
