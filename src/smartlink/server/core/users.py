"""Who is signed in, over all nodes, and who watches whom.

A signed-in connection stands on the roster's internal channel `#user-{id}`: first and last there are when the user
comes online and goes offline. It hears `#server-to-user-{id}` from then on, subscribed or not. Watchers hear the
internal channel `#sweeper-{id}`, on which that is told.
"""

from __future__ import annotations

import asyncio
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
from smartlink.server.core.revocations import Revocations, Verdict
from smartlink.server.net.framing import text_frame
from smartlink.server.runtime.eager import EagerTasks
from smartlink.server.webhooks.base import OutgoingEvent, WebhookSink

__all__ = ["SignedInUsers"]

_WATCH = "#watch-"

LOOK_S = 0.5
"""How long after watchers were told of a user it is looked whether that is how it ended."""

Announce = Callable[[Publication], Awaitable[None]]


class SignedInUsers:
    """Signs connections in and out and tells watchers, and webhooks.

    `announce` publishes, on this node at least; `deliver` tells those on this node alone; `is_connected` says whether
    other nodes can be reached. What `revocations` says of a signature is asked before and after waiting.
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
        self._roster = presence
        self._listening = listening
        self._announce = announce
        self._deliver = deliver
        self._is_whole = is_connected
        self._tasks = tasks
        self._revocations = revocations
        self._newcomers = newcomers
        self._corrections = corrections
        self._webhooks = webhooks
        self._told: dict[tuple[str, str], tuple[bool, int]] = {}
        """Of users who came or went a moment ago, whether watchers here heard last that they are online, and the
        number of that change."""
        self._looks: dict[tuple[str, str], asyncio.TimerHandle] = {}

    async def sign_in(self, connection: Connection, user: SignedInUser) -> None:
        """Make a connection this user's and tell it so, or end it: the user has too many, or was ended meanwhile."""
        app, session = connection.app, connection.session
        if self._end_void(connection, user.id):
            return
        channel = user_channel(user.id)
        arriving = self._listening.expect(app.id, channel, session.socket_id)
        try:
            await self._listening.begin(app.id, channel)
            arrival = await self._roster.join(app.id, signed_in_channel(user.id), session.socket_id, None)
        finally:
            self._listening.arrived(app.id, channel, arriving)
        most = app.max_connections_per_user
        if not self._end_void(connection, user.id) and most is not None and arrival.subscriptions > most:
            connection.close(Code.OVER_CAPACITY, f"The user has reached the limit of {most} connections")
        if not connection.is_open:
            await self._listening.end(app.id, channel)
            if arrival.is_first_on_channel:
                await self._tell(app, user.id, "online", arrival.version)
            await self.sign_out(app, session.socket_id, user.id)
            return
        success = session.signed_in(user)
        self._hub.sign_in(connection, user.id)
        self._hub.sweeper(connection, (channel,))
        connection.write(b"".join(map(text_frame, [success.frame, *(frame for frame, _ in arriving.told)])))
        if arriving.is_swamped:
            connection.close(Code.OVER_CAPACITY, f"More came on {channel} at once than can be buffered")
        if not connection.is_open:
            return
        if arrival.is_first_on_channel:
            await self._tell(app, user.id, "online", arrival.version)
        if user.watchlist_fault is not None:
            connection.write(text_frame(session.watchlist_fault(user.watchlist_fault).frame))
        if user.watchlist and connection.is_open:
            await self._sweeper(connection, user.watchlist)

    def _end_void(self, connection: Connection, user_id: str) -> bool:
        """Whether what names the user is void on this connection; then it is ended."""
        verdict = self._revocations.verdict(connection.app.id, user_id, connection.began_at)
        if verdict is Verdict.VOID:
            connection.close(Code.UNAUTHORIZED, "This user's connections were ended: reconnect and sign in again")
        elif verdict is Verdict.STALE:
            connection.close(Code.RECONNECT, "Reconnect and sign in again")
        return verdict is not Verdict.VALID

    async def sign_out(self, app: App, socket_id: str, user_id: str) -> None:
        """The connection is gone, and with it, perhaps, the user."""
        departure = await self._roster.leave(app.id, signed_in_channel(user_id), socket_id)
        if departure.is_last_on_channel:
            await self._tell(app, user_id, "offline", departure.version)

    async def took_place(self, app: App, change: Change) -> None:
        """Tell what another node left behind, if it is about a user."""
        if (user_id := signed_in_user(change.channel)) is not None:
            if change.is_occupied:
                await self._tell(app, user_id, "online", change.version)
            if change.is_vacated:
                await self._tell(app, user_id, "offline", change.version)

    def heard(self, app_id: str, user_id: str, version: int, *, is_online: bool) -> None:
        """Watchers here were told so by a node. What two tell at once may be heard in the wrong order."""
        key = (app_id, user_id)
        self._told[key] = (is_online, version)
        if key not in self._looks:
            self._looks[key] = asyncio.get_running_loop().call_later(LOOK_S, self._look, key)

    def stop(self) -> None:
        for look in self._looks.values():
            look.cancel()
        self._looks.clear()
        self._told.clear()

    def _look(self, key: tuple[str, str]) -> None:
        del self._looks[key]
        self._tasks.run(self._put_right(*key, *self._told.pop(key)))

    async def _put_right(self, app_id: str, user_id: str, was_told_online: bool, told: int) -> None:
        state = await self._roster.state(app_id, signed_in_channel(user_id))
        is_online = state.subscriptions > 0
        # What was heard meanwhile is looked at by itself.
        is_last_word = (app_id, user_id) not in self._told
        if is_last_word and is_online is not was_told_online and self._is_whole():
            frame = encoding.watchlist_events({"online" if is_online else "offline": [user_id]})
            self._deliver(Publication(app_id, _WATCH + user_id, frame, version=told))
            self._corrections.note(app_id, _WATCH + user_id, {user_id: told}, state.version)

    async def _tell(self, app: App, user_id: str, what: str, version: int) -> None:
        self._webhooks.tell(app, OutgoingEvent(f"user_{what}", signed_in_channel(user_id), user_id))
        frame = encoding.watchlist_events({what: [user_id]})
        await self._announce(Publication(app.id, _WATCH + user_id, frame, version=version))

    async def _sweeper(self, connection: Connection, user_ids: tuple[str, ...]) -> None:
        """Tell who of these is here, then each coming and going."""
        app_id = connection.app.id
        channels = tuple(_WATCH + user_id for user_id in user_ids)
        on_their_way: list[tuple[str, Arriving]] = []
        states: dict[str, list[str]] = {"online": [], "offline": []}
        versions: dict[str, int] = {}
        try:
            for channel in channels:
                arriving = self._listening.expect(app_id, channel, connection.session.socket_id)
                on_their_way.append((channel, arriving))
                await self._listening.begin(app_id, channel)
            for user_id in user_ids:
                state = await self._roster.state(app_id, signed_in_channel(user_id))
                states["online" if state.subscriptions else "offline"].append(user_id)
                versions[_WATCH + user_id] = state.version
        finally:
            for channel, arriving in on_their_way:
                self._listening.arrived(app_id, channel, arriving)
        if connection.is_open:
            self._hub.sweeper(connection, channels)
            # What came meanwhile and has no number comes again: the last word about each user is the true one.
            frames = [encoding.watchlist_events(states)]
            for channel, arriving in on_their_way:
                version = versions[channel]
                self._newcomers.told(app_id, channel, version, connection)
                frames += [frame for frame, number in arriving.told if not 0 < number <= version]
            connection.write(b"".join(map(text_frame, frames)))
        else:
            for channel in channels:
                await self._listening.end(app_id, channel)
