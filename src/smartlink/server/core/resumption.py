"""Sessions of clients that come back: what each has handled for certain, and what to send it again.

A client names its session in the path it connects to. Per channel the session holds the position up to which the page
has handled everything. It moves by barriers: a `pusher:ping` is written behind frames, and its `pusher:pong` says that
the page has handled them. Fan-out does nothing for it: a barrier covers the batches that a channel has finished.

What a session holds is saved when it subscribes (on more than `SAVED_AT_ONCE` channels, with the positions), within
seconds of a confirmed barrier, and when its socket ends; only then if the store asks for the sessions of open sockets.
Whichever node the client comes back to takes it over there; of a killed node's sessions it finds positions that are a
little old, and sends some frames twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from smartlink.protocol import encoding
from smartlink.server.cluster.brokers.base import Broker, BrokerUnavailable, Publication
from smartlink.server.cluster.sessions.base import SessionStore
from smartlink.server.core.client_sessions import (
    NONE,
    ClientSession,
    Report,
    Resumed,
    SessionContent,
    SessionToken,
    decode,
    encode,
    report_of,
)
from smartlink.server.core.conflation import last_of_each_name
from smartlink.server.core.hub import Connection, Hub
from smartlink.server.net.framing import text_frame
from smartlink.server.runtime.eager import EagerTasks, yield_now_and_then
from smartlink.server.runtime.metrics import Metrics

if TYPE_CHECKING:
    from smartlink.server.core.fanout import Subscribers

__all__ = ["Resumption"]

BARRIER_S = 2.0
"""Shortest time between two barriers of a session."""
SAVE_S = 5.0
SAVED_AT_ONCE = 50
"""A session with more channels is not saved at each subscription, but like its confirmed positions."""
MAX_REPORTS = 1_000
"""Events per channel to be reported that clients may not have confirmed yet."""

_PING: Final = text_frame(encoding.PING)
_Key = tuple[str, str]
"""An app id, and a channel or the name of a session."""

_NO_FOLLOWERS: Final[dict[ClientSession, int]] = {}
"""Never written to."""


class Resumption:
    """The sessions of the connections of this node."""

    def __init__(
        self,
        hub: Hub,
        broker: Broker,
        store: SessionStore,
        tasks: EagerTasks,
        metrics: Metrics,
        ttl_s: float,
        report: Callable[[Connection, str, str], None],
        broadcast: Callable[[Subscribers, bytes], None],
    ) -> None:
        """`report(connection, channel, event_id)` is called when a client has handled an event to be reported.
        `broadcast(subscribers, frame)` sends a frame, encoded for the wire, to all.
        """
        self._broadcast = broadcast
        self._report = report
        self._hub = hub
        self._broker = broker
        self._store = store
        self._saves_open = not store.ask_for_open(self.give_up)
        """Whether sessions are saved while their sockets are open."""
        self._tasks = tasks
        self._metrics = metrics
        self._ttl_s = ttl_s
        self._sessions: dict[str, dict[str, ClientSession]] = {}
        """By app id and name."""
        self._followers: dict[_Key, dict[ClientSession, int]] = {}
        """By channel, the sessions on it and up to which position each has handled everything."""
        self._reports: dict[_Key, deque[Report]] = {}
        """By channel, the last events to be reported."""
        self._active: set[_Key] = set()
        """Channels with followers on which something was published that no barrier covers."""
        self._owing: set[ClientSession] = set()
        """Sessions with due positions."""
        self._unsaved: set[ClientSession] = set()
        self._urgent: list[ClientSession] = []
        """To be saved in this turn of the loop."""
        self._timer: asyncio.TimerHandle | None = None
        self._retained_at = 0.0
        self._is_stopped = False

    def __len__(self) -> int:
        return sum(map(len, self._sessions.values()))

    def positions(self, session: ClientSession) -> dict[str, int]:
        """Return the confirmed position on each channel that the session is on."""
        app_id, found = session.connection.app.id, {}
        for channel in session.connection.session.channels:
            position = self._followers.get((app_id, channel), _NO_FOLLOWERS).get(session)
            if position is not None:
                found[channel] = position
        return found

    async def begin(self, connection: Connection, token: SessionToken) -> None:
        """Give an open connection its session, taking it over from an earlier socket, wherever that is.

        The earlier socket goes on without it.
        """
        app_id = connection.app.id
        name = blake2b(f"{app_id}\n{token.token}".encode(), digest_size=16).hexdigest()
        session = ClientSession(name, connection, claims_to_be_known=not token.is_fresh)
        connection.client_session = session
        of_app = self._sessions.setdefault(app_id, {})
        former = of_app.get(name)
        if former is not None:
            self._take_from(former, session)
        of_app[name] = session
        self._schedule()
        try:
            stored = await self._store.take(app_id, name, connection.session.socket_id)
        except BrokerUnavailable:
            # Perhaps it was: better load anew than miss something.
            session.claims_to_be_known, session.is_loaded = not session.is_loaded, True
            return
        if stored is not None and not session.is_loaded:
            content = decode(stored)
            session.former, session.sockets, session.is_known = content.channels, content.sockets, True
            session.is_partial = content.is_partial
        session.is_loaded = True
        if connection.client_session is not session and stored is not None:
            # It ended meanwhile, and saved nothing. If another has taken the session, this saves nothing either.
            await self._put_back(session, stored)
        if session.is_known:
            connection.session.tickets = {channel: kept.signed_for for channel, kept in session.former.items()}

    async def ticket_holds(self, connection: Connection, channel: str, about: Sequence[str]) -> bool:
        """Whether the signature for a session's former socket is still good. `about`: as in `follow`."""
        session = connection.client_session
        former = None if session is None else session.former.get(channel)
        if session is None or former is None:
            return False
        if former.is_of_another(channel, about):
            return False
        try:
            marks = await self._store.marks(connection.app.id, [*about, *former.own_subjects(channel)])
        except BrokerUnavailable:
            return False  # The application decides anew.
        return {mark for mark in marks if mark} <= set(former.marks)

    async def follow(
        self, connection: Connection, channel: str, about: Sequence[str], *, is_conflated: bool = False
    ) -> Resumed | None:
        """Keep the channel's events from now on, and read what the session missed; None without a session.

        Call it when this node receives the channel, and `joined` once the connection is on it. `about` names what may
        have been revoked meanwhile: then the session forgets the channel. With `is_conflated`, only the last missed
        event of each name is sent again.
        """
        session = connection.client_session
        if session is None:
            return None
        app_id, former = connection.app.id, session.former.get(channel)
        replayed = None
        try:
            asked = [*about, *former.own_subjects(channel)] if former is not None and about else about
            found = await self._store.marks(app_id, asked) if asked else ()
            marks, known = [mark for mark in found if mark], set() if former is None else set(former.marks)
            if former is not None and any(mark and mark not in known for mark in found[: len(about)]):
                former = None
                session.former.pop(channel, None)
            if marks or channel in session.marks:
                session.marks = session.marks | {channel: marks}
            now = await self._broker.retain(app_id, channel, 1.5 * self._ttl_s)
            # What was revoked about the former socket or its user, or was another user's, is a gap.
            if former is not None and set(marks) <= known and not former.is_of_another(channel, about):
                replayed = await self._broker.replay(app_id, channel, former.position)
        except BrokerUnavailable:
            now = 0  # A position before all others: what it misses from here on is a gap.
        is_new = not session.is_partial if session.is_known else not session.claims_to_be_known
        if former is None and is_new:
            return Resumed(now, now, ())
        if replayed is not None and sum(len(each.frame) for each in replayed) > connection.room:
            replayed = None  # Sending it all would end the connection, and so again on the next one.
        if former is None or replayed is None:
            reason = "unknown" if former is None else "gap"
            self._metrics.sessions_failed[reason] += 1
            return Resumed(now, now, (encoding.resume_failed(channel, reason),))
        owed = [each for each in replayed if not session.is_left_out(each.except_socket, channel)]
        reports = [report for each in owed if (report := report_of(each)) is not None]
        if is_conflated:
            owed = last_of_each_name(owed)
        self._metrics.sessions_resumed += 1
        self._metrics.frames_replayed += len(owed)
        last = replayed[-1].position if replayed else former.position
        frames = [encoding.resume_success(channel, len(owed)), *(each.frame for each in owed)]
        return Resumed(former.position, last, frames, is_complete=True, reports=reports)

    def joined(self, connection: Connection, channel: str, resumed: Resumed) -> None:
        """Note that the connection is on a channel and was sent what `resumed` says."""
        session = connection.client_session
        if session is None:
            return
        former = session.former.pop(channel, None)
        self._followers.setdefault((connection.app.id, channel), {})[session] = resumed.position
        tickets = connection.session.tickets
        if former is not None and tickets and tickets.get(channel) == former.signed_for:
            session.signed_for = session.signed_for | {channel: former.signed_for}
        if former is not None and former.user_id:
            session.users = session.users | {channel: former.user_id}
        if resumed.reports:
            session.replayed = session.replayed | {channel: resumed.reports}
        if resumed.last > resumed.position:
            session.owe(channel, resumed.last)
            self._owing.add(session)
        if not self._saves_open:
            return
        if len(connection.session.channels) + len(session.former) > SAVED_AT_ONCE:
            self._unsaved.add(session)
            return
        if not self._urgent:
            asyncio.get_running_loop().call_soon(self._save_urgent)
        self._urgent.append(session)

    def left(self, connection: Connection, channel: str) -> None:
        """Note that the client has left a channel; coming back is a new beginning."""
        session = connection.client_session
        if session is not None and self._unfollow(connection.app.id, channel, session):
            session.signed_for.pop(channel, None)
            session.marks.pop(channel, None)
            session.users.pop(channel, None)
            session.replayed.pop(channel, None)
            session.due.pop(channel, None)
            self._changed(session)

    async def revoke(self, app_id: str, subject: str) -> None:
        """Void what sessions hold about a subject (`grants`), wherever they are. Raises BrokerUnavailable."""
        await self._store.revoke(app_id, subject, 4 * self._ttl_s)

    def arrived(self, publication: Publication) -> None:
        """Note an event with a position, which may have to be reported."""
        key = (publication.app_id, publication.channel)
        if (report := report_of(publication)) is not None and key in self._followers:
            self._reports.setdefault(key, deque(maxlen=MAX_REPORTS)).append(report)

    def published(self, app_id: str, channel: str, subscribers: Subscribers, position: int) -> None:
        """Note that the events up to a position are on their way to the subscribers here."""
        subscribers.position = max(position, subscribers.position)
        if (app_id, channel) in self._followers:
            self._active.add((app_id, channel))

    def pinged(self, session: ClientSession) -> None:
        """Note a ping that only asks whether the peer lives: its answer confirms nothing."""
        session.expect_pong(0.0, NONE)

    def answered(self, session: ClientSession) -> None:
        """Confirm what the oldest unanswered ping covers."""
        if not session.barriers:
            return
        (sent_at, covered), *_ = session.barriers
        session.barriers = session.barriers[1:]
        if covered:
            self._metrics.confirm.observe(asyncio.get_running_loop().time() - sent_at)
        for channel, position in covered.items():
            followers = self._followers.get((session.connection.app.id, channel), _NO_FOLLOWERS)
            before = followers.get(session, position)
            if before < position:
                followers[session] = position
                self._changed(session)
                self._report_handled(session, channel, before, position)

    def ended(self, connection: Connection) -> None:
        """Hand over the session of a connection that has ended."""
        session, connection.client_session = connection.client_session, None
        if session is None:
            return
        app_id = connection.app.id
        if self._release(app_id, session):
            self._tasks.run(self._save(session, self._ttl_s))
        self._forget(session)

    def give_up(self, app_id: str, name: str) -> bytes | None:
        """Return what an open session holds, if it is here: its client has another socket, on another node."""
        session = self._sessions.get(app_id, {}).get(name)
        if session is None or not session.is_loaded:
            return None
        content = encode(self._content(session))
        self._go_on_without(session)
        return content

    def stop(self) -> None:
        """Stop barriers."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # One session

    def _report_handled(self, session: ClientSession, channel: str, after: int, until: int) -> None:
        """Report the events that a client has now handled."""
        replayed = session.replayed.pop(channel, ())
        for report in (*replayed, *self._reports.get((session.connection.app.id, channel), ())):
            if after < report.position <= until and not session.is_left_out(report.except_socket, channel):
                self._report(session.connection, channel, report.event_id)

    def _changed(self, session: ClientSession) -> None:
        if self._saves_open:
            self._unsaved.add(session)

    def _go_on_without(self, session: ClientSession) -> None:
        """Let a session's socket here go on without it."""
        connection = session.connection
        connection.client_session = None
        self._release(connection.app.id, session)
        self._forget(session)

    def _take_from(self, former: ClientSession, session: ClientSession) -> None:
        if former.is_loaded:
            content = self._content(former)
            session.former, session.sockets, session.is_known = content.channels, content.sockets, True
            session.is_loaded, session.is_partial = True, former.is_partial
        former.connection.client_session = None
        self._forget(former)

    def _forget(self, session: ClientSession) -> None:
        for channel in session.connection.session.channels:
            self._unfollow(session.connection.app.id, channel, session)
        self._owing.discard(session)
        self._unsaved.discard(session)

    def _release(self, app_id: str, session: ClientSession) -> bool:
        """Forget that a session is here. Returns whether it was."""
        of_app = self._sessions.get(app_id, {})
        if of_app.get(session.name) is not session:
            return False
        del of_app[session.name]
        if not of_app:
            del self._sessions[app_id]
        return True

    def _content(self, session: ClientSession) -> SessionContent:
        """What a session holds now, to be stored."""
        return session.content(self.positions(session))

    def _unfollow(self, app_id: str, channel: str, session: ClientSession) -> bool:
        """Take a session off a channel. Returns whether it was on it."""
        followers = self._followers.get((app_id, channel))
        if followers is None or followers.pop(session, None) is None:
            return False
        if not followers:
            del self._followers[app_id, channel]
            self._reports.pop((app_id, channel), None)
            self._active.discard((app_id, channel))
        return True

    # In the background

    def _schedule(self) -> None:
        if self._timer is None and self._sessions:
            self._timer = asyncio.get_running_loop().call_later(BARRIER_S, self._tick)

    def _tick(self) -> None:
        self._tasks.run(self._round())

    async def _round(self) -> None:
        try:
            await self._confirm_and_save()
        finally:
            self._timer = None
            if not self._is_stopped:
                self._schedule()

    async def _confirm_and_save(self) -> None:
        """Send barriers and save, in pieces: the loop has other work between them."""
        self._collect()
        await self._send_barriers()
        now = asyncio.get_running_loop().time()
        due = [each for each in self._unsaved if now - each.saved_at >= SAVE_S]
        if now - self._retained_at >= self._ttl_s / 2:
            self._retained_at = now
            self._tasks.run(self._retain())
            if self._saves_open:
                everybody = [each for of_app in self._sessions.values() for each in of_app.values()]
                due += [each for each in everybody if now - each.saved_at >= self._ttl_s]
        for number, session in enumerate(due, 1):
            if session.connection.client_session is session:
                self._save_now(session)
            await yield_now_and_then(number)

    def _collect(self) -> None:
        """Find the positions that have been written to sessions' sockets, and send the cheap barriers.

        A channel with none but sessions gets one barrier for all, which goes out with its next batch.
        """
        pinged: set[ClientSession] = set()
        for key in tuple(self._active):
            app_id, channel = key
            subscribers, followers = self._hub.channel(app_id, channel), self._followers.get(key, _NO_FOLLOWERS)
            if subscribers is None:
                self._active.discard(key)
                continue
            if len(followers) == len(subscribers) and pinged.isdisjoint(followers):
                self._active.discard(key)
                pinged.update(followers)
                self._ping_all(channel, subscribers, followers)
                continue
            written = subscribers.written_position
            if written == subscribers.position:
                self._active.discard(key)
            for session, position in self._followers.get(key, _NO_FOLLOWERS).items():
                if position < written:
                    session.owe(channel, written)
                    self._owing.add(session)

    def _ping_all(self, channel: str, subscribers: Subscribers, followers: Collection[ClientSession]) -> None:
        now, covered = asyncio.get_running_loop().time(), {channel: subscribers.position}
        shared = ((now, covered),)
        self._broadcast(subscribers, _PING)
        self._metrics.barriers += len(followers)
        for session in tuple(followers):
            due, session.due = session.due, NONE
            if due:
                self._owing.discard(session)
                session.expect_pong(now, due | covered)
            elif session.barriers:
                session.expect_pong(now, covered)
            else:
                session.barriers = shared

    async def _send_barriers(self) -> None:
        now = asyncio.get_running_loop().time()
        for number, session in enumerate(tuple(self._owing), 1):
            if session in self._owing and not session.barriers:
                self._owing.discard(session)
                due, session.due = session.due, NONE
                session.barriers = ((now, due),)
                self._metrics.barriers += 1
                session.connection.write(_PING)
            await yield_now_and_then(number)

    async def _retain(self) -> None:
        for app_id, channel in tuple(self._followers):
            try:
                await self._broker.retain(app_id, channel, 1.5 * self._ttl_s)
            except BrokerUnavailable:
                return  # What is not kept meanwhile is a gap for those that come back.

    def _save_urgent(self) -> None:
        urgent, self._urgent = self._urgent, []
        for session in dict.fromkeys(urgent):
            if session.connection.client_session is session:
                self._save_now(session)

    def _save_now(self, session: ClientSession) -> None:
        self._unsaved.discard(session)
        session.saved_at = asyncio.get_running_loop().time()
        self._tasks.run(self._save(session, 3 * self._ttl_s))

    async def _put_back(self, session: ClientSession, content: bytes) -> None:
        connection = session.connection
        with contextlib.suppress(BrokerUnavailable):  # Then it is kept as long as one that was just taken.
            await self._store.save(connection.app.id, session.name, connection.session.socket_id, content, self._ttl_s)

    async def _save(self, session: ClientSession, ttl_s: float) -> None:
        if not session.is_loaded:
            return  # It would overwrite what it has not read.
        connection = session.connection
        app_id, owner = connection.app.id, connection.session.socket_id
        try:
            is_saved = await self._store.save(app_id, session.name, owner, encode(self._content(session)), ttl_s)
        except BrokerUnavailable:
            if connection.client_session is session:
                self._unsaved.add(session)
            return
        if not is_saved and connection.client_session is session:
            # Its client has another socket, on another node.
            self._go_on_without(session)
