"""The ends of subscriptions: authorizations that expire, and those that the application takes back."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count

import msgspec

from smartlink.protocol.names import kind_of
from smartlink.protocol.session import EXPIRED, PresenceMember
from smartlink.server.cluster.brokers.base import Control
from smartlink.server.core.hub import Connection, Hub
from smartlink.server.core.revocations import Revocations, Verdict
from smartlink.server.runtime.eager import EagerTasks, yield_now_and_then

__all__ = ["Grants", "Revocation", "names_another", "subjects", "user_of"]

MIN_TIDIED = 1_000
LONGEST_WAIT_S = 60.0
"""Expiries are in the time of day: look again now and then, for when the clock is set."""


class Revocation(msgspec.Struct, frozen=True):
    """Whom the application takes a channel from: one user, one socket, or all. Without a channel, a user's channels."""

    channel: str | None = None
    user_id: str | None = None
    socket_id: str | None = None
    reason: str = "Access revoked"

    @property
    def subject(self) -> str:
        """What signatures are void about."""
        if self.channel is None:
            return f"user\n{self.user_id}"
        if self.socket_id is not None:
            return f"socket\n{self.channel}\n{self.socket_id}"
        return f"channel\n{self.channel}\n{self.user_id}" if self.user_id is not None else f"channel\n{self.channel}"

    def control(self, app_id: str) -> Control:
        """Encode for all nodes."""
        return Control(app_id, "revoke", self.channel or "", msgspec.json.encode(self).decode())


_decode = msgspec.json.Decoder(Revocation).decode


def user_of(connection: Connection, channel: str, member: PresenceMember | None) -> str | None:
    """The user as whom a connection is, or wants to be, on a channel."""
    session = connection.session
    if member is not None:
        return member.user_id
    return session.named.get(channel) or (None if session.user is None else session.user.id)


def subjects(channel: str, user_id: str | None, socket_id: str) -> list[str]:
    """What a revocation that concerns this subscription may be about."""
    found = [Revocation(channel).subject, Revocation(channel, socket_id=socket_id).subject]
    if user_id is not None:
        found += [Revocation(channel, user_id).subject, Revocation(user_id=user_id).subject]
    return found


def names_another(channel: str, user_id: str, about: Sequence[str]) -> bool:
    """Whether `about`, as `subjects` returns it, names a user, and another than this one."""
    return len(about) > len(subjects(channel, None, "")) and Revocation(channel, user_id).subject not in about


class Grants:
    """Ends subscriptions on this node. `expel(connection, channel, kind, message, status)` carries it out."""

    def __init__(
        self,
        hub: Hub,
        revocations: Revocations,
        tasks: EagerTasks,
        expel: Callable[[Connection, str, str, str, int], None],
    ) -> None:
        self._tasks = tasks
        self._hub = hub
        self._revocations = revocations
        self._expel = expel
        self._due: list[tuple[float, int, Connection, str]] = []
        """A heap."""
        self._until: dict[Connection, dict[str, int]] = {}
        """The numbers of the entries that hold now: others in the heap are outdated."""
        self._tidied_at = MIN_TIDIED
        """How many entries the heap has when outdated ones are dropped."""
        self._serial = count()
        self._timer: asyncio.TimerHandle | None = None

    @staticmethod
    def subjects(connection: Connection, channel: str, member: PresenceMember | None) -> list[str]:
        """What a revocation that concerns this subscription may be about; nothing on public channels."""
        if connection.client_session is None or not kind_of(channel).needs_authorization:
            return []
        return subjects(channel, user_of(connection, channel, member), connection.session.socket_id)

    def expire(self, connection: Connection, channel: str, at: float | None) -> None:
        """End the subscription at this Unix time; never for None."""
        if at is None:
            self.left(connection, channel)
            return
        number = next(self._serial)
        self._until.setdefault(connection, {})[channel] = number
        heapq.heappush(self._due, (at, number, connection, channel))
        if len(self._due) > self._tidied_at:
            self._tidy()
        if self._due[0][0] == at:
            self._wait()

    def _tidy(self) -> None:
        """Drop the entries of subscriptions that have ended: they would keep their connections until the expiry."""
        self._due = [each for each in self._due if self._until.get(each[2], {}).get(each[3]) == each[1]]
        heapq.heapify(self._due)
        self._tidied_at = max(MIN_TIDIED, 2 * len(self._due))

    def left(self, connection: Connection, channel: str) -> None:
        """Forget the expiry of a subscription that has ended."""
        if (until := self._until.get(connection)) is not None:
            until.pop(channel, None)
            if not until:
                del self._until[connection]

    def gone(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._until.pop(connection, None)

    def revoke(self, control: Control) -> None:
        """Take channels from those on this node that a control names, and void their signatures."""
        revocation = _decode(control.data)
        app_id = control.app_id
        oldest = self._hub.oldest(app_id)
        began_at = None if oldest is None else oldest.began_at
        self._revocations.revoke(app_id, revocation.subject, Verdict.VOID, began_at)
        self._tasks.run(self._expel_all(list(self._concerned(app_id, revocation)), revocation.reason))

    async def _expel_all(self, concerned: list[tuple[Connection, str]], reason: str) -> None:
        for number, (connection, channel) in enumerate(concerned, 1):
            self._expel(connection, channel, "Revoked", reason, 403)
            await yield_now_and_then(number)

    def stop(self) -> None:
        """Cancel what is scheduled."""
        if self._timer is not None:
            self._timer.cancel()

    def _concerned(self, app_id: str, revocation: Revocation) -> Iterator[tuple[Connection, str]]:
        channel, user_id = revocation.channel, revocation.user_id
        if revocation.socket_id is not None:
            connection = self._hub.connection(app_id, revocation.socket_id)
            found = [] if connection is None else [connection]
        elif user_id is not None:
            found = self._hub.of_user(app_id, user_id)
        else:
            found = self._hub.on_channel(app_id, channel or "")
        for connection in found:
            joined = connection.session.channels
            for name in tuple(joined) if channel is None else (channel,):
                if name not in joined or not kind_of(name).needs_authorization:
                    continue
                if user_id is None or user_of(connection, name, joined[name]) == user_id:
                    yield connection, name

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wait_s = min(max(self._due[0][0] - time.time(), 0.0), LONGEST_WAIT_S)
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._end_due)

    def _end_due(self) -> None:
        self._timer = None
        now = time.time()
        while self._due and self._due[0][0] <= now:
            _, number, connection, channel = heapq.heappop(self._due)
            if self._until.get(connection, {}).get(channel) == number:
                self._expel(connection, channel, "Expired", EXPIRED, 401)
        if self._due:
            self._wait()
