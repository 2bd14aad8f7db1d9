"""Who lets this client listen: an application's endpoint, its secret, or a coroutine of one's own."""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from smartlink.client.encryption import shared_secret
from smartlink.client.errors import AuthorizationDenied, AuthorizationUnavailable
from smartlink.protocol.names import ChannelKind, kind_of
from smartlink.protocol.signing import sign_channel, sign_user

if TYPE_CHECKING:
    import httpx2

__all__ = ["Authorization", "Authorizer", "Endpoint", "Own", "Secret", "UserAuthorization"]

MAX_QUOTED = 200
TIMEOUT_S = 10.0
T = TypeVar("T")
_AGAIN = frozenset({408, 425, 429})

Headers = Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class Authorization:
    """A signed subscription: `auth` is `key:hex`, `channel_data` the JSON text that was signed with it.

    `shared_secret` opens an encrypted channel's events; 32 bytes in base64.
    """

    auth: str
    channel_data: str | None = None
    shared_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class UserAuthorization:
    """A signed sign-in: `auth` is `key:hex` over the JSON text `user_data`, which has the user's `id`."""

    auth: str
    user_data: str


class Authorizer(Protocol):
    """Signs what a client asks for.

    Both methods raise AuthorizationDenied for no, and AuthorizationUnavailable, OSError or TimeoutError if the answer
    cannot be had now: then the client asks again, with growing pauses.
    """

    async def channel(self, socket_id: str, channel: str) -> Authorization:
        """Authorize a socket for a private, presence or encrypted channel, given by its full name."""

    async def user(self, socket_id: str) -> UserAuthorization:
        """Sign the user in on a socket."""

    async def aclose(self) -> None:
        """Release connections."""


class Secret:
    """Signs with the application's secret: for servers and tools, never in what is given to users.

    `user_id` is who the client is, on presence channels, for sign-in, and for SmartLink's server on private ones;
    `user_info` is what other members see; `watchlist` are ids of users whose coming and going is told after sign-in.
    `encryption_master_key` (32 bytes in base64) opens encrypted channels.
    """

    def __init__(
        self,
        key: str,
        secret: str,
        *,
        user_id: str | None = None,
        user_info: Mapping[str, Any] | None = None,
        watchlist: tuple[str, ...] = (),
        encryption_master_key: str | None = None,
    ) -> None:
        self._key = key
        self._secret = secret
        self._user_id = user_id
        self._user_info = dict(user_info or {})
        self._watchlist = list(watchlist)
        self._master_key = encryption_master_key

    async def channel(self, socket_id: str, channel: str) -> Authorization:
        """Sign a subscription. Raises AuthorizationDenied without what the channel needs."""
        kind = kind_of(channel)
        opens = None
        if kind is ChannelKind.ENCRYPTED:
            if self._master_key is None:
                raise AuthorizationDenied("an encrypted channel needs encryption_master_key")
            opens = shared_secret(self._master_key, channel)
        data = None
        if self._user_id is not None and kind is not ChannelKind.ENCRYPTED:
            member: dict[str, Any] = {"user_id": self._user_id}
            if kind is ChannelKind.PRESENCE:
                member["user_info"] = self._user_info
            data = msgspec.json.encode(member).decode()
        elif kind is ChannelKind.PRESENCE:
            raise AuthorizationDenied("a presence channel needs user_id")
        return Authorization(sign_channel(self._key, self._secret, socket_id, channel, data), data, opens)

    async def user(self, socket_id: str) -> UserAuthorization:
        """Sign the user in. Raises AuthorizationDenied without a user_id."""
        if self._user_id is None:
            raise AuthorizationDenied("signing in needs user_id")
        user: dict[str, Any] = {"id": self._user_id, "user_info": self._user_info}
        if self._watchlist:
            user["watchlist"] = self._watchlist
        data = msgspec.json.encode(user).decode()
        return UserAuthorization(sign_user(self._key, self._secret, socket_id, data), data)

    async def aclose(self) -> None:
        """Nothing is held."""


class Endpoint:
    """Asks an application's endpoints, as pusher-js does: a POST of a form with `socket_id` and `channel_name`.

    `url` is that for channels, `user_url` that for sign-in. `headers` are sent along; a function or coroutine function
    returns them anew for each call, as for a token that expires. `params` are added to the form. `proxy` is the
    address of an HTTP proxy; the environment's are used by default (`proxy=None`: none). 401, 403 and other 4xx deny;
    408, 425, 429, 5xx and no answer within `timeout_s` seconds mean that it is asked again.
    """

    def __init__(
        self,
        url: str,
        user_url: str | None = None,
        *,
        headers: Headers | None = None,
        params: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        tls: ssl.SSLContext | None = None,
        proxy: str | bool | None = True,
    ) -> None:
        self._url = url
        self._user_url = user_url
        self._headers = headers
        self._params = dict(params or {})
        self._timeout_s = timeout_s
        self._tls = tls
        self._proxy = proxy
        self._client: httpx2.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def channel(self, socket_id: str, channel: str) -> Authorization:
        """Ask for one channel. Raises AuthorizationDenied, AuthorizationUnavailable."""
        return _as(Authorization, await self._ask(self._url, {"socket_id": socket_id, "channel_name": channel}))

    async def user(self, socket_id: str) -> UserAuthorization:
        """Ask for a sign-in. Raises AuthorizationDenied, AuthorizationUnavailable."""
        if self._user_url is None:
            raise AuthorizationDenied("signing in needs Endpoint(url, user_url)")
        return _as(UserAuthorization, await self._ask(self._user_url, {"socket_id": socket_id}))

    async def aclose(self) -> None:
        """Close the connections to the endpoint."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    async def _ask(self, url: str, form: dict[str, str]) -> bytes:
        import httpx2

        headers = self._headers() if callable(self._headers) else self._headers or {}
        given = await headers if inspect.isawaitable(headers) else headers
        try:
            answer = await self._opened().post(url, data=self._params | form, headers=dict(given))
        except httpx2.TransportError as error:
            raise AuthorizationUnavailable(f"{url} cannot be asked: {str(error) or type(error).__name__}") from error
        status = answer.status_code
        if status == 200:
            return answer.content
        said = f"{url} answered {status}: {answer.text[:MAX_QUOTED]!r}"
        if status >= 500 or status in _AGAIN:
            raise AuthorizationUnavailable(said)
        raise AuthorizationDenied(said, status)

    def _opened(self) -> httpx2.AsyncClient:
        """The client of the running loop: one that belonged to another cannot be used any more."""
        import httpx2

        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._loop = loop
            self._client = httpx2.AsyncClient(
                timeout=self._timeout_s,
                verify=self._tls or httpx2.create_ssl_context(),
                trust_env=self._proxy is True,
                proxy=self._proxy if isinstance(self._proxy, str) else None,
                headers={"accept": "application/json"},
            )
        return self._client


OwnChannel = Callable[[str, str], Awaitable["Authorization | Mapping[str, Any]"]]
OwnUser = Callable[[str], Awaitable["UserAuthorization | Mapping[str, Any]"]]


class Own:
    """Asks coroutines of one's own: `channel(socket_id, channel)` and `user(socket_id)`.

    They return an Authorization and a UserAuthorization, or mappings with their fields, as endpoints answer.
    """

    def __init__(self, channel: OwnChannel | None = None, user: OwnUser | None = None) -> None:
        self._channel = channel
        self._user = user

    async def channel(self, socket_id: str, channel: str) -> Authorization:
        """Ask for one channel. Raises AuthorizationDenied, and what the coroutine raises."""
        if self._channel is None:
            raise AuthorizationDenied(f"{channel} needs authorization: give the client auth=Endpoint(...)")
        answer = await self._channel(socket_id, channel)
        return answer if isinstance(answer, Authorization) else _as(Authorization, dict(answer))

    async def user(self, socket_id: str) -> UserAuthorization:
        """Ask for a sign-in. Raises AuthorizationDenied, and what the coroutine raises."""
        if self._user is None:
            raise AuthorizationDenied("signing in needs auth=Endpoint(url, user_url), Own(user=...) or Secret(...)")
        answer = await self._user(socket_id)
        return answer if isinstance(answer, UserAuthorization) else _as(UserAuthorization, dict(answer))

    async def aclose(self) -> None:
        """Nothing is held."""


def _as(kind: type[T], answer: bytes | dict[str, Any]) -> T:
    try:
        return msgspec.json.decode(answer, type=kind) if isinstance(answer, bytes) else msgspec.convert(answer, kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeError) as error:
        shown = answer[:MAX_QUOTED] if isinstance(answer, bytes) else sorted(answer)
        raise AuthorizationDenied(f"not an authorization ({error}): {shown!r}") from error
