"""The user of a client: signed in on each connection, with events of its own and others that it watches."""

from __future__ import annotations

import asyncio
from typing import Any

from smartlink.client.channels import Readable
from smartlink.client.errors import ClientClosed
from smartlink.client.frames import fields_of
from smartlink.client.messages import Gap, Watched
from smartlink.client.streams import DEFAULT_BUFFER, Fan, Stream, as_it_is
from smartlink.client.subscriptions import Subscription

__all__ = ["SignIn", "User"]


class SignIn:
    """The state of a sign-in over all connections. Its client tells it what happens."""

    def __init__(self) -> None:
        self.is_wanted = False
        self.user_id: str | None = None
        self.subscription: Subscription | None = None
        """To the channel that is the user's alone."""
        self.online: set[str] = set()
        self._error: BaseException | None = None
        self._is_over = False
        self._watching = Fan()
        self._settled = asyncio.Event()

    async def ready(self) -> None:
        """Wait until signed in. Raises what prevented it."""
        await self._settled.wait()
        if self._error is not None:
            raise self._error
        if self._is_over:
            raise ClientClosed("the client was closed")

    def wanted(self) -> None:
        """Begin, or begin anew after an error."""
        self.is_wanted = True
        if self._error is not None and not self._is_over:
            self._error = None
            self._settled.clear()

    def succeeded(self, user_id: str, subscription: Subscription) -> None:
        """Note that the server accepted it."""
        self.user_id, self.subscription = user_id, subscription
        self._settled.set()

    def lost(self) -> None:
        """Note that the connection has ended."""
        if self._error is None and not self._is_over:
            self._settled.clear()

    def failed(self, error: BaseException) -> None:
        """Note that it was refused."""
        self.is_wanted, self._error = False, error
        self._settled.set()

    def end(self, error: BaseException | None) -> None:
        """End it with the client."""
        self._is_over, self._error = True, error or self._error
        for stream in self._watching:
            stream.end(error)
        self._settled.set()

    def watch(self, buffer: int) -> Stream[Watched | Gap]:
        """Open a stream of watched users."""
        stream: Stream[Watched | Gap] = Stream("watchlist", buffer, as_it_is, None)
        self._watching.add(stream)
        if self._is_over:
            stream.end(self._error)
        return stream

    def heard(self, data: Any) -> None:
        """Note what `watchlist_events` tells."""
        events = fields_of(data).get("events")
        for event in events if isinstance(events, list) else ():
            user_ids = event.get("user_ids") if isinstance(event, dict) else None
            for user_id in user_ids if isinstance(user_ids, list) else ():
                self._note(str(user_id), is_online=event.get("name") == "online")

    def _note(self, user_id: str, *, is_online: bool) -> None:
        if is_online == (user_id in self.online):
            return  # Said again after a reconnect.
        (self.online.add if is_online else self.online.discard)(user_id)
        self._watching.put(Watched(user_id, is_online))


class User(Readable):
    """The signed-in user, from `Client.sign_in`. Its `events` are those that are sent to this user alone."""

    def __init__(self, _subscription: Subscription, sign_in: SignIn) -> None:
        """Clients make them."""
        super().__init__(_subscription)
        self._sign_in = sign_in

    @property
    def id(self) -> str:
        """The user's id, as text."""
        return self._sign_in.user_id or ""

    @property
    def online(self) -> frozenset[str]:
        """The watched users that are online, by id."""
        return frozenset(self._sign_in.online)

    def watchlist(self, buffer: int = DEFAULT_BUFFER) -> Stream[Watched | Gap]:
        """Open a stream of watched users that come online or go offline from now on."""
        return self._sign_in.watch(buffer)
