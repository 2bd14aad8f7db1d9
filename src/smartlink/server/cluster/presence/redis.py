"""Who is on a channel, over all nodes, in Redis.

Each node knows its own sockets and tells Redis what matters to others: per channel, its number of connections and its
users. A node holds a lease that it renews every second; when it expires, one other node removes its entries.

While Redis is unreachable, a node records its changes and answers from local data. When Redis returns, it reconciles
its entries channel by channel (`_sync`): users who joined meanwhile are announced at once, those who left after some
seconds, if no other node has them by then. A node that was presumed dead, or finds Redis empty, takes a new id, so that
cleaning up after the old one cannot affect its new entries.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from smartlink.background import ended
from smartlink.protocol.names import is_counted
from smartlink.protocol.session import PresenceMember
from smartlink.server.cluster.presence.base import Arrival, Change, ChannelCount, ChannelState, Departure, OnChange
from smartlink.server.cluster.presence.dead import AT_ONCE, DeadNodes, channels_of, each
from smartlink.server.cluster.presence.lua import (
    AUDIT,
    BEAT,
    CHANGE,
    COUNT,
    COUNT_MISSED,
    JOIN,
    LEAVE,
    REMOVE,
    SETTLE,
    STATE,
    STATE_MISSED,
    SYNC,
)
from smartlink.server.cluster.presence.memory import MemoryPresence
from smartlink.server.cluster.presence.places import ConnectionCounts
from smartlink.server.cluster.redis.commands import RedisCommands, RedisUnavailable
from smartlink.server.cluster.redis.naming import Names

__all__ = ["RedisPresence"]

BEAT_EVERY_S = 1.0
LEASE_MS = 6_000
STALL_MS = 2_500
"""If no node was heard for this long, Redis was unreachable, not every node."""
SETTLE_S = 3.0
"""How long an unannounced leave waits for other nodes that may still be reconnecting."""
AUDITED_PER_TURN = 100
START_S = 5.0
STOP_S = 3.0

_ALL_GRACES_S = 1e9
"""Longer than any grace."""
_NUMBERED = ("presence-", "#user-")
_Key = tuple[str, str]
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Missed:
    """Changes of a channel that Redis does not know."""

    was_on: bool
    """Whether this node was on the channel when Redis was last updated."""
    joined: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)

    def join(self, user_id: str) -> None:
        if user_id in self.left:
            self.left.discard(user_id)
        else:
            self.joined.add(user_id)

    def leave(self, user_id: str) -> None:
        if user_id in self.joined:
            self.joined.discard(user_id)
        else:
            self.left.add(user_id)


class RedisPresence:
    """A `PresenceStore` over Redis. See the module."""

    def __init__(self, commands: RedisCommands, names: Names) -> None:
        self._commands = commands
        self._names = names
        self._local = MemoryPresence()
        self._node_id = secrets.token_hex(8)
        self._former_id = ""
        """This node's previous id, while entries of it may be left."""
        self._is_new = True
        self._is_joined = False
        self._dirty: dict[_Key, _Missed] = {}
        self._unsettled: list[tuple[float, _Key, list[Any], bool, int]] = []
        self._graces: dict[tuple[str, str, str], int] = {}
        """By app id, channel and user: how many seconds a member stays if this node dies."""
        self._dead = DeadNodes(commands, names, self._remove, LEASE_MS / 1_000)
        self._audit: list[_Key] = []
        self._places = ConnectionCounts(commands, names, lambda: self._node_id if self._is_joined else None)
        self._on_change: OnChange | None = None
        self._beat_now = asyncio.Event()
        self._work_now = asyncio.Event()
        self._in_touch = asyncio.Event()
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        commands.on_loss.append(self._on_loss)
        commands.on_return.append(self._on_return)

    async def start(self, on_change: OnChange) -> None:
        """Start. Raises RedisRefused if Redis rejects our credentials. If Redis is unreachable, retries in the
        background.
        """
        await self._commands.open()
        self._on_change = on_change
        start = self._commands.background.start
        self._tasks = (
            start("renewing this node's lease in Redis", self._live()),
            start("reconciling presence in Redis", self._maintain()),
        )
        if self._commands.is_available:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(START_S):
                    await self._in_touch.wait()

    async def stop(self) -> None:
        if self._on_change is None:
            return
        await ended(*self._tasks)
        with contextlib.suppress(RedisUnavailable, TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._remove_self()
        self._on_change = None
        self._on_loss()
        await self._local.stop()
        await self._commands.close()

    # The port

    async def join(
        self, app_id: str, channel: str, socket_id: str, member: PresenceMember | None, grace_s: int = 0
    ) -> Arrival:
        local = await self._local.join(app_id, channel, socket_id, member)
        if member is not None and grace_s:
            self._graces[app_id, channel, member.user_id] = grace_s
        arrival = replace(local, version=0)
        key = (app_id, channel)
        user = member if member is not None and arrival.is_first_of_user else None

        def missed() -> None:
            entry = self._dirty.setdefault(key, _Missed(was_on=not arrival.is_first_on_channel))
            if user is not None:
                entry.join(user.user_id)

        if self._is_offline(key):
            missed()
            return arrival if member is None else replace(arrival, members=(await self.state(*key)).members)
        if arrival.is_first_on_channel:
            self._index("SADD", key)
        try:
            first_on_channel, first_of_user, total, known, version, members = await self._commands.run(
                JOIN,
                self._keys(key),
                _is_numbered(channel),
                self._node_id,
                arrival.subscriptions,
                user.user_id if user is not None else "",
                _entry(user) if user is not None else b"",
                int(member is not None),
                member.user_id if member is not None else "",
                grace_s if member is not None else 0,
                lost=missed,
            )
        except RedisUnavailable:
            return arrival
        is_number = arrival.is_number
        if user is not None and (known == 1) is not user.is_number:
            is_number = known == 1
            self._local.update_member(app_id, channel, replace(user, is_number=is_number))
        return Arrival(
            arrival.is_first_on_channel and first_on_channel == 1,
            user is not None and first_of_user == 1,
            total,
            is_number,
            version,
            _members(members),
        )

    async def leave(self, app_id: str, channel: str, socket_id: str) -> Departure:
        before, _ = self._local.here(app_id, channel)
        key = (app_id, channel)
        user_id = self._local.user_of(app_id, channel, socket_id)
        departure = replace(await self._local.leave(app_id, channel, socket_id), version=0)
        if departure.subscriptions == before:
            return Departure(False, False, (await self.count(app_id, channel)).subscriptions)
        user = user_id if departure.is_last_of_user and user_id is not None else ""
        if user:
            self._graces.pop((app_id, channel, user), None)

        def missed() -> None:
            entry = self._dirty.setdefault(key, _Missed(was_on=True))
            if user:
                entry.leave(user)

        if self._is_offline(key):
            missed()
            return departure
        try:
            last_on_channel, last_of_user, total, version = await self._commands.run(
                LEAVE,
                self._keys(key),
                _is_numbered(channel),
                self._node_id,
                departure.subscriptions,
                user,
                lost=missed,
            )
        except RedisUnavailable:
            return departure
        self._forget_if_empty(key)
        return Departure(
            departure.is_last_on_channel and last_on_channel == 1,
            bool(user) and last_of_user == 1,
            total,
            version,
        )

    async def members(self, app_id: str, channel: str) -> Sequence[PresenceMember]:
        return list((await self.state(app_id, channel)).members)

    async def state(self, app_id: str, channel: str) -> ChannelState:
        key = (app_id, channel)
        if self._is_joined:
            with contextlib.suppress(RedisUnavailable):
                if key in self._dirty:
                    return await self._unwritten_state(key)
                version, total, reply = await self._commands.run(STATE, self._keys(key), _is_numbered(channel))
                if key not in self._dirty:
                    return ChannelState(version, total, _members(reply))
                return await self._unwritten_state(key)
        return ChannelState(0, *self._local.here(*key))

    async def _unwritten_state(self, key: _Key) -> ChannelState:
        """The state, including changes that this node could not write yet."""
        missed = self._dirty.get(key)
        left = () if missed is None else missed.left
        _, elsewhere, reply = await self._commands.run(STATE_MISSED, self._keys(key), 0, self._node_id, *left)
        members = _members(reply)
        listed = {member.user_id for member in members}
        count, here = self._local.here(*key)
        return ChannelState(0, elsewhere + count, members + tuple(each for each in here if each.user_id not in listed))

    async def change(self, app_id: str, channel: str, user_id: str, user_info: bytes) -> PresenceMember | None:
        key = (app_id, channel)
        if self._is_offline(key):
            return await self._local.change(app_id, channel, user_id, user_info)
        try:
            reply = await self._commands.run(CHANGE, self._keys(key), user_id, user_info)
        except RedisUnavailable:
            return await self._local.change(app_id, channel, user_id, user_info)
        if not reply:
            return None
        self.note(app_id, channel, user_id, user_info)
        return _member(user_id.encode(), reply[0])

    def note(self, app_id: str, channel: str, user_id: str, user_info: bytes) -> None:
        for member in self._local.here(app_id, channel)[1]:
            if member.user_id == user_id:
                self._local.update_member(app_id, channel, replace(member, user_info=user_info))

    async def count(self, app_id: str, channel: str) -> ChannelCount:
        if self._is_joined:
            with contextlib.suppress(RedisUnavailable):
                return ChannelCount(*await self._count((app_id, channel)))
        return await self._local.count(app_id, channel)

    def _count(self, key: _Key) -> Coroutine[Any, Any, list[int]]:
        missed = self._dirty.get(key)
        if missed is None:
            return self._commands.run(COUNT, self._keys(key), 0)
        here, joined, left = self._local.here(*key)[0], missed.joined, missed.left
        return self._commands.run(COUNT_MISSED, self._keys(key), 0, self._node_id, here, len(joined), *joined, *left)

    async def channels(self, app_id: str, prefix: str = "") -> dict[str, ChannelCount]:
        if self._is_joined:
            with contextlib.suppress(RedisUnavailable):
                return await self._channels_of_all(app_id, prefix)
        return await self._local.channels(app_id, prefix)

    def report_connections(self, app_id: str, connections: int) -> None:
        self._places.count(app_id, connections)

    def connections_elsewhere(self, app_id: str) -> int:
        return self._places.elsewhere(app_id)

    async def count_elsewhere(self, app_id: str) -> int:
        return await self._places.ask_elsewhere(app_id)

    async def take_place(self, app_id: str, here: int, most: int) -> bool:
        return await self._places.take(app_id, here, most)

    async def nodes(self) -> int:
        return self._places.nodes if self._is_joined else 1

    # Names

    def _keys(self, key: _Key, node_id: str = "", former_id: str = "") -> list[str]:
        of_channel = self._names.of_channel
        mine = of_channel("m", *key)
        keys = [of_channel("c", *key), f"{mine}:{node_id or self._node_id}"]
        keys += [of_channel(kind, *key) for kind in "hoitn"]
        if former_id:
            keys.append(f"{mine}:{former_id}")
        return keys

    def _index(self, verb: str, key: _Key) -> None:
        index = self._names.channels_of_node(self._node_id)
        self._commands.send(index, verb, index, self._names.entry(*key))

    def _forget_if_empty(self, key: _Key) -> None:
        if not self._local.here(*key)[0]:
            self._index("SREM", key)

    def _is_offline(self, key: _Key) -> bool:
        return not self._is_joined or key in self._dirty

    # The lease

    def _on_loss(self) -> None:
        self._is_joined = False
        self._in_touch.clear()

    def _on_return(self) -> None:
        self._on_loss()
        self._beat_now.set()

    async def _live(self) -> None:
        while True:
            try:
                await self._beat()
            except RedisUnavailable:
                pass  # already logged by the commands; entries are reconciled when Redis returns
            except Exception:  # the boundary: a bug must not let this node's lease expire
                log.exception("internal error")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_EVERY_S):
                    await self._beat_now.wait()
            self._beat_now.clear()

    async def _beat(self) -> None:
        reply = await self._send_beat()
        is_anew = reply[0] == 0
        if is_anew:
            self._rebuild()
            reply = await self._send_beat()
        self._is_new = False
        self._dead.add(node.decode() for node in reply[1])
        self._places.on_reports(reply[2], self._node_id)
        was_with_others, self._is_joined = self._is_joined, self._commands.is_available
        if not was_with_others or is_anew:
            self._places.publish_all()
        self._in_touch.set()
        self._work_now.set()

    async def _send_beat(self) -> Any:
        keys = [self._names.of_nodes(kind) for kind in ("alive", "claimed", "connections", "last")]
        report = self._places.report()
        return await self._commands.run(BEAT, keys, self._node_id, LEASE_MS, STALL_MS, report, int(self._is_new))

    def _rebuild(self) -> None:
        """Redis has lost this node's entries: enter everything again under a new id."""
        log.warning("this node's entries are missing in redis, writing them again")
        self._former_id, self._node_id = self._node_id, secrets.token_hex(8)
        self._is_new = True
        for key in self._local.occupied():
            self._dirty.setdefault(key, _Missed(was_on=True))

    # Maintenance

    async def _maintain(self) -> None:
        while True:
            await self._work_now.wait()
            self._work_now.clear()
            for chore in (self._reconcile, self._dead.clear_up, self._settle, self._audit_some):
                try:
                    await chore()
                except RedisUnavailable:
                    pass  # the rest is done later; a channel that fails must not stop the other steps
                except Exception:  # the boundary: a bug must not end the maintenance
                    log.exception("internal error")

    async def _reconcile(self) -> None:
        while self._dirty and self._is_joined:
            keys = list(self._dirty)[:AT_ONCE]
            await each(self._sync(key) for key in keys)
        if not self._dirty:
            self._former_id = ""

    async def _sync(self, key: _Key) -> None:
        """Reconcile this node's entries on one channel."""
        missed = self._dirty.pop(key, None)
        if missed is None:
            return
        former_id = self._former_id
        count, members = self._local.here(*key)
        arguments: list[Any] = [
            _is_numbered(key[1]),
            self._node_id,
            former_id,
            count,
            int(missed.was_on),
            len(members),
            len(missed.left),
        ]
        for member in members:
            grace_s = self._graces.get((*key, member.user_id), 0)
            arguments += (member.user_id, _entry(member), int(member.user_id in missed.joined), grace_s)
        arguments += missed.left

        def lost() -> None:
            later = self._dirty.get(key)
            if later is not None:
                for user_id in later.joined:
                    missed.join(user_id)
                for user_id in later.left:
                    missed.leave(user_id)
            self._dirty[key] = missed

        if count:
            self._index("SADD", key)
        keys = self._keys(key, former_id=former_id)
        occupied, vacated, added, gone, changed, version = await self._commands.run(SYNC, keys, *arguments, lost=lost)
        if not count:
            self._forget_if_empty(key)
        if added or occupied or (changed and is_counted(key[1])):
            ids = {user_id.decode() for user_id in added}
            arrived = tuple(member for member in members if member.user_id in ids)
            self._announce(Change(*key, added=arrived, is_occupied=occupied == 1, version=version))
        if gone or vacated:
            self._unsettled.append((time.monotonic() + SETTLE_S, key, gone, vacated == 1, version))

    async def _remove(self, key: _Key, node_id: str, waited_s: float) -> int:
        """Remove a node's entries from a channel. Returns in how many seconds the last that stay are to be removed."""
        arguments = (_is_numbered(key[1]), node_id, f"{waited_s:.1f}")
        vacated, fewer, version, wait_s, *users = await self._commands.run(REMOVE, self._keys(key, node_id), *arguments)
        self._announce_gone(key, users, vacated == 1, version, fewer == 1 and is_counted(key[1]))
        left: int = wait_s
        return left

    async def _settle(self) -> None:
        now = time.monotonic()
        due = [entry for entry in self._unsettled if entry[0] <= now]
        self._unsettled = [entry for entry in self._unsettled if entry[0] > now]
        await each(self._settle_one(*entry) for entry in due)

    async def _settle_one(self, due: float, key: _Key, users: list[Any], is_vacated: bool, version: int) -> None:
        def lost() -> None:
            self._unsettled.append((due, key, users, is_vacated, version))

        vacated, *gone = await self._commands.run(SETTLE, self._keys(key), 0, int(is_vacated), *users, lost=lost)
        self._announce_gone(key, gone, vacated == 1, version)

    async def _audit_some(self) -> None:
        """Compare some channels with Redis in turn: it may have lost part of its data."""
        if not self._audit:
            self._audit = self._local.occupied()
        some, self._audit = self._audit[:AUDITED_PER_TURN], self._audit[AUDITED_PER_TURN:]
        await each(self._audit_one(key) for key in some)

    async def _audit_one(self, key: _Key) -> None:
        count, members = self._local.here(*key)
        if self._is_offline(key) or not count:
            return
        self._index("SADD", key)
        if not await self._commands.run(AUDIT, self._keys(key), 0, self._node_id, count, len(members)):
            self._dirty.setdefault(key, _Missed(was_on=True))

    async def _remove_self(self) -> None:
        """Remove all entries of this node."""
        if self._is_joined:
            keys = [*self._local.occupied(), *self._dirty]
            for start in range(0, len(keys), AT_ONCE):
                await each(self._remove_own(key) for key in keys[start : start + AT_ONCE])
            for kind, verb in (("alive", "ZREM"), ("connections", "HDEL")):
                name = self._names.of_nodes(kind)
                await self._commands.ask(name, verb, name, self._node_id)
            index = self._names.channels_of_node(self._node_id)
            await self._commands.ask(index, "DEL", index)

    async def _remove_own(self, key: _Key) -> None:
        await self._remove(key, self._node_id, _ALL_GRACES_S)

    # Reading and announcing

    async def _channels_of_all(self, app_id: str, prefix: str) -> dict[str, ChannelCount]:
        alive = self._names.of_nodes("alive")
        found: dict[str, ChannelCount] = {}
        for node_id in await self._commands.ask(alive, "ZRANGE", alive, 0, -1):
            async for keys in channels_of(self._commands, self._names, node_id.decode()):
                names = [name for app, name in keys if app == app_id and name.startswith(prefix) and name not in found]
                counts = await asyncio.gather(*(self.count(app_id, name) for name in names))
                found.update((name, count) for name, count in zip(names, counts, strict=True) if count.subscriptions)
        return found

    def _announce_gone(
        self, key: _Key, users: list[Any], is_vacated: bool, version: int, are_fewer: bool = False
    ) -> None:
        """In `users`, each id is followed by whether it is a number."""
        if users or is_vacated or are_fewer:
            removed = tuple(
                PresenceMember(user_id.decode(errors="replace"), is_number=is_number == 1)
                for user_id, is_number in zip(users[::2], users[1::2], strict=True)
            )
            self._announce(Change(*key, removed=removed, is_vacated=is_vacated, version=version))

    def _announce(self, change: Change) -> None:
        if self._on_change is not None:
            self._on_change(change)


def _is_numbered(channel: str) -> int:
    """Whether joins and leaves are numbered: on presence and user channels."""
    return int(channel.startswith(_NUMBERED))


def _entry(member: PresenceMember) -> bytes:
    """A member as stored in Redis. JSON tolerates the leading space, so older nodes can read it."""
    return b" " + member.user_info if member.is_number else member.user_info


def _member(user_id: bytes, entry: bytes) -> PresenceMember:
    info = entry.removeprefix(b" ")
    return PresenceMember(user_id.decode(errors="replace"), info, info != entry)


def _members(reply: list[bytes]) -> tuple[PresenceMember, ...]:
    return tuple(_member(reply[at], reply[at + 1]) for at in range(0, len(reply), 2))
