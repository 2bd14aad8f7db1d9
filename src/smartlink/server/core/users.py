"""Who is signed in, over all nodes, and who watches whom.

A signed-in connection joins the internal channel `#user-{id}` of the presence store: its first and last connection are
the moments when the user comes online and goes offline. From then on the connection receives `#server-to-user-{id}`
without subscribing. Both moments are announced to watchers on the internal channel `#watch-{id}`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from smartlink.protocol import encoding
from smartlink.protocol.errors import Code
from smartlink.protocol.names import signed_in_channel, signed_in_user, user_channel
from smartlink.protocol.session import SignedInUser
from smartlink.server.apps.base import App
from smartlink.server.cluster.brokers.base import Publication
from smartlink.server.cluster.presence.base import Change, PresenceStore
from smartlink.server.core.corrections import Corrections
from smartlink.server.core.hub import Connection, Hub
from smartlink.server.core.listening import Arriving, Listening
from smartlink.server.core.newcomers import Newcomers
from smartlink.server.core.rechecker import Rechecker
from smartlink.server.core.revocations import Revocations, Verdict
from smartlink.server.net.framing import text_frame
from smartlink.server.runtime.eager import EagerTasks
from smartlink.server.webhooks.base import OutgoingEvent, WebhookSink

__all__ = ["SignedInUsers"]

_WATCH = "#watch-"

Announce = Callable[[Publication], Awaitable[None]]


class SignedInUsers:
    """Signs connections in and out, and notifies watchers and webhooks.

    `announce` publishes, on this node at least; `deliver` sends to clients of this node alone; `is_connected` says
    whether other nodes can be reached. `revocations` are checked before and after every wait.
    """

    def __init__(
        self,
        hub: Hub,
        presence: PresenceStore,
        listening: Listening,
        announce: Announce,
        deliver: Callable[[Publication], None],
        is_connected: Callable[[], bool],
        tasks: EagerTasks,
        revocations: Revocations,
        newcomers: Newcomers,
        corrections: Corrections,
        webhooks: WebhookSink,
    ) -> None:
        self._hub = hub
        self._presence = presence
        self._listening = listening
        self._announce = announce
        self._deliver = deliver
        self._is_connected = is_connected
        self._tasks = tasks
        self._revocations = revocations
        self._newcomers = newcomers
        self._corrections = corrections
        self._webhooks = webhooks
        self._rechecks: Rechecker[tuple[bool, int]] = Rechecker(self._recheck)
        """By user: whether the last announcement to watchers here said online, and its version."""

    async def sign_in(self, connection: Connection, user: SignedInUser) -> None:
        """Sign a connection in, or end it when its user has too many connections or was ended meanwhile."""
        app, session = connection.app, connection.session
        if self._end_void(connection, user.id):
            return
        channel = user_channel(user.id)
        arriving = self._listening.expect(app.id, channel, session.socket_id)
        try:
            await self._listening.begin(app.id, channel)
            arrival = await self._presence.join(app.id, signed_in_channel(user.id), session.socket_id, None)
        finally:
            self._listening.arrived(app.id, channel, arriving)
        most = app.max_connections_per_user
        if not self._end_void(connection, user.id) and most is not None and arrival.subscriptions > most:
            connection.close(Code.OVER_CAPACITY, f"The user has reached the limit of {most} connections")
        if not connection.is_open:
            await self._listening.end(app.id, channel)
            if arrival.is_first_on_channel:
                await self._notify(app, user.id, "online", arrival.version)
            await self.sign_out(app, session.socket_id, user.id)
            return
        success = session.signed_in(user)
        self._hub.sign_in(connection, user.id)
        frames = [success.frame]
        if connection.client_session is not None and channel in connection.client_session.former:
            # It will subscribe again, and is owed older events first.
            await self._listening.end(app.id, channel)
        else:
            self._hub.watch(connection, (channel,))
            frames += [each.frame for each in arriving.frames]
        connection.write(b"".join(map(text_frame, frames)))
        if arriving.is_swamped:
            connection.close(Code.OVER_CAPACITY, f"More events arrived on {channel} at once than can be buffered")
        if not connection.is_open:
            return
        if arrival.is_first_on_channel:
            await self._notify(app, user.id, "online", arrival.version)
        if user.watchlist_fault is not None:
            connection.write(text_frame(session.watchlist_fault(user.watchlist_fault).frame))
        if user.watchlist and connection.is_open:
            await self._watch(connection, user.watchlist)

    def subscribed(self, connection: Connection, channel: str) -> None:
        """Let a connection that joins its user's own channel receive it from here on, subscribed or not."""
        user = connection.session.user
        if user is not None and channel == user_channel(user.id) and not self._hub.receives(connection, channel):
            self._hub.watch(connection, (channel,))

    def _end_void(self, connection: Connection, user_id: str) -> bool:
        """End the connection when signatures naming the user are void on it. Returns whether they are."""
        verdict = self._revocations.verdict(connection.app.id, user_id, connection.began_at)
        if verdict is Verdict.VOID:
            connection.close(Code.UNAUTHORIZED, "This user's connections were ended: reconnect and sign in again")
        elif verdict is Verdict.STALE:
            connection.close(Code.RECONNECT, "Reconnect and sign in again")
        return verdict is not Verdict.VALID

    async def sign_out(self, app: App, socket_id: str, user_id: str) -> None:
        """Note that a connection of the user has ended; the user goes offline with the last one."""
        departure = await self._presence.leave(app.id, signed_in_channel(user_id), socket_id)
        if departure.is_last_on_channel:
            await self._notify(app, user_id, "offline", departure.version)

    async def took_place(self, app: App, change: Change) -> None:
        """Announce a change that another node left behind, when it concerns a signed-in user."""
        if (user_id := signed_in_user(change.channel)) is not None:
            if change.is_occupied:
                await self._notify(app, user_id, "online", change.version)
            if change.is_vacated:
                await self._notify(app, user_id, "offline", change.version)

    def note(self, app_id: str, user_id: str, version: int, *, is_online: bool) -> None:
        """Note what a node, perhaps this one, announced to watchers."""
        self._rechecks.note((app_id, user_id), (is_online, version))

    def stop(self) -> None:
        """Cancel what is scheduled."""
        self._rechecks.stop()

    def _recheck(self, key: tuple[str, str], last: tuple[bool, int]) -> None:
        self._tasks.run(self._reconcile(*key, *last))

    async def _reconcile(self, app_id: str, user_id: str, was_online: bool, version: int) -> None:
        state = await self._presence.state(app_id, signed_in_channel(user_id))
        is_online = state.subscriptions > 0
        # What is noted during the query gets its own recheck.
        is_last_word = (app_id, user_id) not in self._rechecks
        if is_last_word and is_online is not was_online and self._is_connected():
            frame = encoding.watchlist_events({"online" if is_online else "offline": [user_id]})
            self._deliver(Publication(app_id, _WATCH + user_id, frame, version=version))
            self._corrections.note(app_id, _WATCH + user_id, {user_id: version}, state.version)

    async def _notify(self, app: App, user_id: str, what: str, version: int) -> None:
        self._webhooks.emit(app, OutgoingEvent(f"user_{what}", signed_in_channel(user_id), user_id))
        frame = encoding.watchlist_events({what: [user_id]})
        await self._announce(Publication(app.id, _WATCH + user_id, frame, version=version))

    async def _watch(self, connection: Connection, user_ids: tuple[str, ...]) -> None:
        """Send a connection who of these users is online, then every change."""
        app_id = connection.app.id
        channels = tuple(_WATCH + user_id for user_id in user_ids)
        pending: list[tuple[str, Arriving]] = []
        states: dict[str, list[str]] = {"online": [], "offline": []}
        versions: dict[str, int] = {}
        try:
            for channel in channels:
                arriving = self._listening.expect(app_id, channel, connection.session.socket_id)
                pending.append((channel, arriving))
                await self._listening.begin(app_id, channel)
            for user_id in user_ids:
                state = await self._presence.state(app_id, signed_in_channel(user_id))
                states["online" if state.subscriptions else "offline"].append(user_id)
                versions[_WATCH + user_id] = state.version
        finally:
            for channel, arriving in pending:
                self._listening.arrived(app_id, channel, arriving)
        if connection.is_open:
            self._hub.watch(connection, channels)
            # Frames without a version are sent again: the last one about each user holds.
            frames = [encoding.watchlist_events(states)]
            for channel, arriving in pending:
                version = versions[channel]
                self._newcomers.note(app_id, channel, version, connection)
                frames += [each.frame for each in arriving.frames if not 0 < each.version <= version]
            connection.write(b"".join(map(text_frame, frames)))
        else:
            for channel in channels:
                await self._listening.end(app_id, channel)
