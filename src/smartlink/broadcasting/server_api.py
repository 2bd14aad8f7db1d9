"""The realtime server's HTTP API as methods: who is on which channel, past events, and ending what users may do.

async with ServerApi.from_settings() as api:
    for name, channel in (await api.channels("presence-", info=["user_count"])).items():
        print(name, channel.user_count)

`SyncServerApi` is the same without an event loop. Works with SmartLink's server, and as far as they go with Pusher,
Laravel Reverb and Soketi.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Collection, Coroutine, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import msgspec

from smartlink.broadcasting.broadcaster import Broadcaster
from smartlink.broadcasting.channels import Channel, channel_of
from smartlink.broadcasting.config import BroadcastSettings
from smartlink.broadcasting.drivers.pusher import PusherDriver
from smartlink.broadcasting.encryption import ChannelEncryption
from smartlink.broadcasting.errors import BroadcastConfigError, BroadcastUnavailable
from smartlink.broadcasting.manager import DriverManager
from smartlink.broadcasting.revocation import revocation
from smartlink.protocol.names import MAX_USER_ID_LENGTH, is_valid_user_id

__all__ = ["CachedEvent", "ChannelState", "ChannelUser", "History", "PastEvent", "ServerApi", "SyncServerApi"]

MAX_ANSWER_BYTES = 64 * 1024 * 1024

Count = Literal["user_count", "subscription_count"]
Detail = Literal["user_count", "subscription_count", "cache"]
T = TypeVar("T")


class CachedEvent(msgspec.Struct, frozen=True):
    """The event that a cache channel keeps: `data` as it was published, `ttl` in seconds."""

    data: Any
    ttl: int


class ChannelState(msgspec.Struct, frozen=True):
    """A channel. What was not asked for is None; `occupied` is whether anyone is subscribed."""

    occupied: bool = True
    user_count: int | None = None
    subscription_count: int | None = None
    cache: CachedEvent | None = None


class ChannelUser(msgspec.Struct, frozen=True):
    """A user on a presence channel. `user_info` is None if it was not asked for."""

    id: str
    user_info: Any = None


class PastEvent(msgspec.Struct, frozen=True):
    """A kept event: `data` as it was published, usually JSON as text. Positions rise, not by one."""

    position: int
    name: str
    data: Any


class History(msgspec.Struct, frozen=True):
    """Kept events, oldest first. `complete`: none are missing between `after` and the first."""

    events: tuple[PastEvent, ...]
    complete: bool


class _Channels(msgspec.Struct):
    channels: dict[str, ChannelState] | list[ChannelState]
    """Servers in PHP write an empty object as a list."""


class _Users(msgspec.Struct):
    users: tuple[ChannelUser, ...]


class _Connections(msgspec.Struct):
    connections: int


class _Changed(msgspec.Struct):
    channels: tuple[str, ...] = ()


class ServerApi:
    """Calls the HTTP API of one application's server, through its driver.

    Channels are given as `Channel` objects or by their full names, users by id. Every method raises
    BroadcastUnavailable if the server gives no usable answer, and BroadcastRefused if it refuses the call. May be used
    in several event loops; `aclose` closes the connections of the current one.
    """

    def __init__(self, driver: PusherDriver, *, encryption: ChannelEncryption | None = None) -> None:
        self._driver = driver
        self._broadcaster = Broadcaster(driver, namespace="", encryption=encryption)

    @classmethod
    def from_settings(cls, settings: BroadcastSettings | None = None, *, connection: str | None = None) -> Self:
        """Return the API of the server that `settings` publish to, or that `connection` names.

        Raises BroadcastConfigError if that driver speaks no such API, is unknown or lacks a setting.
        """
        settings = settings or BroadcastSettings()
        driver = DriverManager(settings).driver(connection)
        if not isinstance(driver, PusherDriver):
            raise BroadcastConfigError(
                f"the driver {driver.name} has no such API: name the connection that has, as in "
                'ServerApi.from_settings(connection="reverb")'
            )
        return cls(driver, encryption=ChannelEncryption.from_settings(settings))

    async def channels(self, prefix: str = "", *, info: Collection[Count] = ()) -> dict[str, ChannelState]:
        """Return the occupied channels whose full names begin with `prefix`.

        `user_count` is for presence channels: it needs a prefix that begins with `presence-`.
        """
        params = {"filter_by_prefix": prefix} if prefix else {}
        found = _decoded(_Channels, await self._get("/channels", params, info)).channels
        return found if isinstance(found, dict) else {}

    async def channel(self, channel: Channel | str, *, info: Collection[Detail] = ()) -> ChannelState:
        """Return the state of one channel."""
        return _decoded(ChannelState, await self._get(_path(channel), {}, info))

    async def members(self, channel: Channel | str, *, with_user_info: bool = False) -> tuple[ChannelUser, ...]:
        """Return the users on a presence channel, each once. `with_user_info` needs SmartLink's server."""
        params = {"with_user_info": "1"} if with_user_info else {}
        return _decoded(_Users, await self._get(f"{_path(channel)}/users", params)).users

    async def history(self, channel: Channel | str, *, after: int | None = None, limit: int = 100) -> History:
        """Return kept events after a position, at most `limit` (1 to 1,000). Go on with the last event's position.

        Without `after`, begins with the oldest, and `complete` is False. Needs SmartLink's server.
        """
        params = {"limit": str(limit)} | ({} if after is None else {"after": str(after)})
        return _decoded(History, await self._get(f"{_path(channel)}/events", params))

    async def connections(self) -> int:
        """Return the application's number of connections. Reverb and SmartLink only."""
        return _decoded(_Connections, await self._get("/connections", {})).connections

    async def publish(
        self,
        channels: Channel | str | Collection[Channel | str],
        name: str,
        payload: Mapping[str, object],
        *,
        socket_id: str | None = None,
    ) -> None:
        """Send an event without a class, at most once; `name` is sent unchanged. Sealed on encrypted channels.

        `Broadcaster` sends events with a class. Raises what `Broadcaster.send` raises.
        """
        each = [channels] if isinstance(channels, Channel | str) else channels
        on = [channel_of(channel) if isinstance(channel, str) else channel for channel in each]
        event = self._broadcaster.on(*on).as_(name).with_(payload).event
        await self._broadcaster.send(event, socket_id=socket_id)

    async def terminate(self, user_id: str | int) -> None:
        """End all connections of a signed-in user, without return."""
        await self._driver.call(f"{_user_path(user_id)}/terminate_connections", {})

    async def reconnect(self, user_id: str | int) -> None:
        """End all connections of a signed-in user; clients come back. Needs SmartLink's server."""
        await self._driver.call(f"{_user_path(user_id)}/force_reconnect", {})

    async def revoke(
        self,
        subject: str | int | Channel,
        /,
        channel: Channel | str | None = None,
        *,
        everyone: bool = False,
        reason: str | None = None,
    ) -> None:
        """End subscriptions as `Broadcaster.revoke` does. Needs SmartLink's server."""
        await self._driver.revoke(revocation(subject, channel, everyone=everyone, reason=reason))

    async def update_user_info(
        self, user_id: str | int, user_info: object, channels: Collection[Channel | str] | None = None
    ) -> tuple[str, ...]:
        """Change a present member's `user_info` on presence channels, and return those the user is on.

        Without `channels` it is changed on all of them, and none are returned. Needs SmartLink's server.
        """
        body: dict[str, object] = {"user_info": user_info}
        if channels is not None:
            body["channels"] = [str(channel) for channel in channels]
        return _decoded(_Changed, await self._driver.call(f"{_user_path(user_id)}/info", body)).channels

    async def aclose(self) -> None:
        """Close the connections; later calls raise BroadcastUnavailable."""
        await self._driver.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _get(self, endpoint: str, params: dict[str, str], info: Collection[str] = ()) -> bytes:
        asked = params | ({"info": ",".join(info)} if info else {})
        return await self._driver.read(endpoint, asked, max_bytes=MAX_ANSWER_BYTES)


class SyncServerApi:
    """`ServerApi` for code without an event loop. Threads take turns; a forked child opens connections of its own.

    Methods, arguments and errors are those of `ServerApi`; within a running event loop they raise RuntimeError.
    """

    def __init__(self, api: ServerApi) -> None:
        """`api` is used by nothing else."""
        self._api = api
        self._lock = threading.Lock()
        self._runner: asyncio.Runner | None = None
        self._pid = 0

    @classmethod
    def from_settings(cls, settings: BroadcastSettings | None = None, *, connection: str | None = None) -> Self:
        """Return the API as `ServerApi.from_settings` does."""
        return cls(ServerApi.from_settings(settings, connection=connection))

    def channels(self, prefix: str = "", *, info: Collection[Count] = ()) -> dict[str, ChannelState]:
        """As `ServerApi.channels`."""
        return self._run(self._api.channels(prefix, info=info))

    def channel(self, channel: Channel | str, *, info: Collection[Detail] = ()) -> ChannelState:
        """As `ServerApi.channel`."""
        return self._run(self._api.channel(channel, info=info))

    def members(self, channel: Channel | str, *, with_user_info: bool = False) -> tuple[ChannelUser, ...]:
        """As `ServerApi.members`."""
        return self._run(self._api.members(channel, with_user_info=with_user_info))

    def history(self, channel: Channel | str, *, after: int | None = None, limit: int = 100) -> History:
        """As `ServerApi.history`."""
        return self._run(self._api.history(channel, after=after, limit=limit))

    def connections(self) -> int:
        """As `ServerApi.connections`."""
        return self._run(self._api.connections())

    def publish(
        self,
        channels: Channel | str | Collection[Channel | str],
        name: str,
        payload: Mapping[str, object],
        *,
        socket_id: str | None = None,
    ) -> None:
        """As `ServerApi.publish`."""
        self._run(self._api.publish(channels, name, payload, socket_id=socket_id))

    def terminate(self, user_id: str | int) -> None:
        """As `ServerApi.terminate`."""
        self._run(self._api.terminate(user_id))

    def reconnect(self, user_id: str | int) -> None:
        """As `ServerApi.reconnect`."""
        self._run(self._api.reconnect(user_id))

    def revoke(
        self,
        subject: str | int | Channel,
        /,
        channel: Channel | str | None = None,
        *,
        everyone: bool = False,
        reason: str | None = None,
    ) -> None:
        """As `ServerApi.revoke`."""
        self._run(self._api.revoke(subject, channel, everyone=everyone, reason=reason))

    def update_user_info(
        self, user_id: str | int, user_info: object, channels: Collection[Channel | str] | None = None
    ) -> tuple[str, ...]:
        """As `ServerApi.update_user_info`."""
        return self._run(self._api.update_user_info(user_id, user_info, channels))

    def close(self) -> None:
        """Close the connections; later calls raise BroadcastUnavailable."""
        self._run(self._api.aclose())
        with self._lock:
            if self._runner is not None:
                self._runner.close()
                self._runner = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            call.close()
            raise RuntimeError("SyncServerApi blocks, and must not be used within an event loop: use ServerApi")
        with self._lock:
            if self._runner is None or self._pid != os.getpid():
                self._runner, self._pid = asyncio.Runner(), os.getpid()
            return self._runner.run(call)


def _path(channel: Channel | str) -> str:
    of = channel_of(channel) if isinstance(channel, str) else channel
    return f"/channels/{quote(str(of), safe='')}"


def _user_path(user_id: str | int) -> str:
    given: object = user_id
    if isinstance(given, bool) or not isinstance(given, str | int) or not is_valid_user_id(str(given)):
        raise ValueError(
            f"not a user id: {user_id!r:.60}; it has 1 to {MAX_USER_ID_LENGTH} characters, none of control"
        )
    return f"/users/{quote(str(given), safe='')}"


def _decoded(kind: type[T], text: bytes) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        quoted = repr(text[:200].decode("utf-8", "replace"))
        raise BroadcastUnavailable(f"not an answer of this API ({error}): {quoted}", answered=True) from None
