"""What is said on one connection: frames to subscriptions, and subscriptions to frames.

Frames are handled in order and without waiting, so that nothing overtakes. What has to ask the application runs beside
that, in tasks that end with the connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from smartlink.background import ended
from smartlink.backoff import Backoff
from smartlink.client import frames
from smartlink.client.authorization import Authorization, Authorizer
from smartlink.client.errors import (
    AuthorizationDenied,
    AuthorizationUnavailable,
    SignInFailed,
    SubscriptionFailed,
)
from smartlink.client.frames import Frame, fields_of
from smartlink.client.link import Link, LinkEnded
from smartlink.client.messages import Event
from smartlink.client.reconnecting import End
from smartlink.client.sessions import ClientSession, Ticket
from smartlink.client.subscriptions import Subscription, failed
from smartlink.client.users import SignIn
from smartlink.protocol.errors import Code
from smartlink.protocol.names import ChannelKind, is_internal, user_channel

__all__ = ["Conversation", "ServerError", "Shared"]

AT_ONCE = 50
"""Subscriptions that wait for the application or the server at the same time."""
FRAMES_PER_TURN = 64
"""After so many frames in a row the loop gets a turn, so that readers keep up."""
ASK_AGAIN_S = 10.0
"""Shortest time between two requests for the secret of one encrypted channel."""
MAX_SEALED = 1_000
FIRST_S, LAST_S = 0.5, 30.0

log = logging.getLogger("smartlink.client")


@dataclass(frozen=True, slots=True)
class ServerError:
    """A `pusher:error` that ended nothing: `code` is 4301 for a refused client event, 4302 for a watchlist, or None."""

    message: str
    code: int | None = None
    channel: str | None = None


@dataclass(slots=True)
class Shared:
    """What outlives a connection."""

    authorizer: Authorizer
    session: ClientSession
    namespace: str
    on_error: Callable[[ServerError], object] | None = None
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    sign_in: SignIn = field(default_factory=SignIn)


class Conversation:
    """One connection, for as long as it lasts."""

    def __init__(self, shared: Shared, link: Link) -> None:
        self._shared = shared
        self._link = link
        self._tasks: set[asyncio.Task[None]] = set()
        self._crash: BaseException | None = None
        self._window = asyncio.Semaphore(AT_ONCE)
        self._answers: dict[str, asyncio.Future[SubscriptionFailed | None]] = {}
        """Subscriptions without an answer, oldest first."""
        self._subscribed: set[str] = set()
        """Channels that were subscribed on this connection at some time."""
        self._signed_in = asyncio.Event()
        self._is_asked = False
        """A ping is on its way whose answer comes behind what a resume tells."""
        self._handlers: dict[str, Callable[[Frame], str | None]] = {
            "pusher:ping": lambda _: frames.PONG,
            "pusher:pong": self._on_pong,
            "pusher:error": self._on_error,
            "pusher:subscription_error": self._on_refusal,
            "pusher:signin_success": self._on_sign_in,
            "pusher_internal:subscription_succeeded": self._on_success,
            "pusher_internal:watchlist_events": self._on_watchlist,
        }

    @property
    def socket_id(self) -> str:
        """The connection's id."""
        return self._link.socket_id

    async def run(self) -> End:
        """Subscribe to everything, and handle frames until the connection has ended."""
        self._start(self._link.watch())
        if self._shared.sign_in.is_wanted:
            self.sign_in()
        for subscription in tuple(self._shared.subscriptions.values()):
            self.subscribe(subscription)
        try:
            return await self._read()
        finally:
            await ended(*self._tasks)
            for subscription in self._shared.subscriptions.values():
                subscription.lost()
            self._shared.sign_in.lost()

    def subscribe(self, subscription: Subscription) -> None:
        """Begin to subscribe; the user's own channel waits for the sign-in."""
        if is_internal(subscription.name) and not self._signed_in.is_set():
            return
        self._start(self._subscribe(subscription))

    def sign_in(self) -> None:
        """Begin to sign in."""
        self._start(self._sign_in())

    async def send(self, text: str) -> None:
        """Write a frame. Raises LinkEnded."""
        await self._link.send(text)

    async def _read(self) -> End:
        count = 0
        try:
            while self._crash is None:
                frame = frames.decode(await self._link.receive())
                reply = None if frame is None else self._handle(frame)
                if reply is not None:
                    await self._link.send(reply)
                count += 1
                if not count % FRAMES_PER_TURN:
                    await asyncio.sleep(0)
        except LinkEnded as over:
            if self._crash is None:
                return over.end
        raise self._crash

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, LinkEnded):
            self._crash = error
            self._link.abort()

    # Frames

    def _handle(self, frame: Frame) -> str | None:
        """Act on a frame; return what to answer."""
        handle = self._handlers.get(frame.event)
        if handle is not None:
            return handle(frame)
        subscription = None if frame.channel is None else self._shared.subscriptions.get(frame.channel)
        if subscription is None or not (subscription.is_subscribed or is_internal(subscription.name)):
            return None
        if frame.event.startswith("pusher"):
            self._about_channel(frame, subscription)
            return None
        if subscription.awaits_resume:
            subscription.awaits_resume = False
            subscription.gap("unknown")
        if self._shared.session.is_double(frame):
            return None
        user_id = None if frame.user_id is None else str(frame.user_id)
        event = Event(frame.event, subscription.name, frame.data, user_id)
        if subscription.kind is ChannelKind.ENCRYPTED:
            self._receive_sealed(subscription, event)
        else:
            subscription.receive(event)
        return None

    def _about_channel(self, frame: Frame, subscription: Subscription) -> None:
        event = frame.event
        if event == "pusher_internal:member_added":
            subscription.member_added(frame.data)
        elif event == "pusher_internal:member_removed":
            subscription.member_removed(frame.data)
        elif event == "pusher_internal:subscription_count":
            count = fields_of(frame.data).get("subscription_count")
            subscription.subscription_count = count if isinstance(count, int) else None
        elif event == "pusher:resume_success":
            count = fields_of(frame.data).get("replayed")
            self._shared.session.replays(subscription.name, count if isinstance(count, int) else 0)
            subscription.awaits_resume = False
        elif event == "pusher:resume_failed" and subscription.awaits_resume:
            subscription.awaits_resume = False
            subscription.gap(str(fields_of(frame.data).get("reason", "unknown")))
        elif event == "pusher:member_updated":
            subscription.member_updated(frame.data)
        if not event.startswith("pusher_internal:"):
            subscription.receive(Event(event, subscription.name, frame.data))

    def _on_success(self, frame: Frame) -> str | None:
        self._answer(frame.channel or "", None)
        subscription = self._shared.subscriptions.get(frame.channel or "")
        if subscription is None or subscription.is_over:
            return None
        was_subscribed, is_here_again = subscription.was_subscribed, subscription.name in self._subscribed
        is_second = subscription.is_subscribed
        subscription.joined(frame.data)
        self._subscribed.add(subscription.name)
        if not was_subscribed or is_second or is_internal(subscription.name):
            return None
        if is_here_again or not self._shared.session.is_kept:
            subscription.gap("expired" if is_here_again else "reconnected")
            return None
        # What was missed is told right behind this, or not at all: the answer to a ping settles it.
        subscription.awaits_resume = True
        if self._is_asked:
            return None
        self._is_asked = True
        return frames.PING

    def _on_pong(self, _: Frame) -> None:
        self._is_asked = False
        for subscription in self._shared.subscriptions.values():
            if subscription.awaits_resume:
                subscription.awaits_resume = False
                subscription.gap("unknown")

    def _on_refusal(self, frame: Frame) -> None:
        error = failed(frame.channel or "", fields_of(frame.data))
        subscription = self._shared.subscriptions.get(error.channel)
        if subscription is None or not subscription.is_subscribed:
            self._answer(error.channel, error)
            return
        subscription.lost()
        subscription.ticket = None
        if error.kind == "Expired":
            self.subscribe(subscription)
        else:
            self._give_up(subscription, error)

    def _on_error(self, frame: Frame) -> None:
        self._link.note_fault(frame)
        fields = fields_of(frame.data)
        code, message = fields.get("code"), str(fields.get("message", ""))
        code = code if isinstance(code, int) else None
        channel = frame.channel
        if channel is None and code == Code.UNAUTHORIZED and self._answers:
            # Reverb refuses subscriptions so, and names no channel: it answers in order.
            channel = next(iter(self._answers))
        if channel is not None and channel in self._answers:
            kind = "AuthError" if code == Code.UNAUTHORIZED else "LimitReached"
            self._answer(channel, SubscriptionFailed(channel, kind, message, code))
            return
        log.warning("the server reports an error: %s (%s)", message[:200], code)
        if self._shared.on_error is not None:
            self._shared.on_error(ServerError(message, code, channel))

    def _on_sign_in(self, frame: Frame) -> None:
        user_id = fields_of(fields_of(frame.data).get("user_data")).get("id")
        if not isinstance(user_id, str | int):
            return
        sign_in, name = self._shared.sign_in, user_channel(str(user_id))
        if sign_in.subscription is not None and sign_in.subscription.name != name:
            former = self._shared.subscriptions.pop(sign_in.subscription.name)
            former.end(SignInFailed(f"the application now signs the client in as {user_id}"))
        subscription = self._shared.subscriptions.setdefault(name, Subscription(name, self._shared.namespace))
        self._signed_in.set()
        sign_in.succeeded(str(user_id), subscription)
        self.subscribe(subscription)

    def _on_watchlist(self, frame: Frame) -> None:
        self._shared.sign_in.heard(frame.data)

    def _answer(self, channel: str, answer: SubscriptionFailed | None) -> None:
        waiting = self._answers.pop(channel, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    # Subscribing

    async def _subscribe(self, subscription: Subscription) -> None:
        pauses = Backoff(FIRST_S, LAST_S)
        while not subscription.is_over and not subscription.is_subscribed:
            async with self._window:
                if await self._tries(subscription):
                    return
            await asyncio.sleep(pauses.next_s())

    async def _tries(self, subscription: Subscription) -> bool:
        """Try once; return whether it is settled, one way or the other."""
        held = subscription.ticket
        is_old = held is not None and held.holds(self.socket_id) and self._shared.session.is_kept
        try:
            authorization = held.authorization if is_old and held is not None else await self._authorize(subscription)
        except AuthorizationDenied as denied:
            self._give_up(subscription, SubscriptionFailed(subscription.name, "Denied", denied.reason, denied.status))
            return True
        except (AuthorizationUnavailable, OSError, TimeoutError) as error:
            log.warning("%s cannot be authorized now: %s", subscription.name, error)
            return False
        except Exception as error:
            if not subscription.was_subscribed:
                self._give_up(subscription, error)
                return True
            log.warning("%s cannot be authorized now", subscription.name, exc_info=error)
            return False
        if subscription.is_over:
            return True
        if is_old and held is not None:
            held.socket_id = self.socket_id
        refusal = await self._ask(subscription.name, authorization)
        if refusal is None:
            return True
        subscription.ticket = None
        if is_old:
            return await self._tries(subscription)  # with a new authorization
        if subscription.was_subscribed and refusal.kind == "LimitReached":
            return False
        self._give_up(subscription, refusal)
        return True

    async def _authorize(self, subscription: Subscription) -> Authorization | None:
        if not subscription.kind.needs_authorization:
            return None
        authorization = await self._shared.authorizer.channel(self.socket_id, subscription.name)
        subscription.authorized(authorization)
        subscription.ticket = Ticket(authorization, self.socket_id)
        if subscription.kind is ChannelKind.PRESENCE and authorization.channel_data is None:
            if self._shared.sign_in.is_wanted:
                await self._signed_in.wait()  # It says who the member is.
            subscription.my_id = self._shared.sign_in.user_id
        return authorization

    async def _ask(self, channel: str, authorization: Authorization | None) -> SubscriptionFailed | None:
        """Send a subscription and wait for the answer; None for success."""
        self._answer(channel, None)  # An earlier one, of a channel that was left meanwhile.
        answer: asyncio.Future[SubscriptionFailed | None] = asyncio.get_running_loop().create_future()
        self._answers[channel] = answer
        if authorization is None:
            text = frames.subscribe(channel)
        else:
            text = frames.subscribe(channel, authorization.auth, authorization.channel_data)
        await self._link.send(text)
        return await answer

    def _give_up(self, subscription: Subscription, error: BaseException) -> None:
        if self._shared.subscriptions.get(subscription.name) is subscription:
            del self._shared.subscriptions[subscription.name]
        subscription.end(error)

    # Signing in

    async def _sign_in(self) -> None:
        pauses, sign_in = Backoff(FIRST_S, LAST_S), self._shared.sign_in
        while sign_in.is_wanted:
            try:
                authorization = await self._shared.authorizer.user(self.socket_id)
            except AuthorizationDenied as denied:
                self._refuse_user(SignInFailed(denied.reason))
                return
            except (AuthorizationUnavailable, OSError, TimeoutError) as error:
                log.warning("the user cannot be signed in now: %s", error)
            except Exception as error:
                if sign_in.user_id is None:
                    self._refuse_user(error)
                    return
                log.warning("the user cannot be signed in now", exc_info=error)
            else:
                await self._link.send(frames.sign_in(authorization.auth, authorization.user_data))
                return
            await asyncio.sleep(pauses.next_s())

    def _refuse_user(self, error: BaseException) -> None:
        sign_in = self._shared.sign_in
        if sign_in.subscription is not None:
            self._give_up(sign_in.subscription, error)
        self._signed_in.set()
        sign_in.failed(error)

    # Encrypted channels

    def _receive_sealed(self, subscription: Subscription, event: Event) -> None:
        """Pass on what the channel's secret opens; if it does not, ask for a new one, and keep the order meanwhile."""
        if subscription.sealed:
            subscription.sealed.append(event)
            if len(subscription.sealed) > MAX_SEALED:
                del subscription.sealed[0]
                subscription.gap("undecryptable", 1)
        elif not subscription.receive_sealed(event):
            now = asyncio.get_running_loop().time()
            if subscription.asked_at and now - subscription.asked_at < ASK_AGAIN_S:
                subscription.gap("undecryptable", 1)
                return
            subscription.asked_at = now
            subscription.sealed.append(event)
            self._start(self._renew_secret(subscription))

    async def _renew_secret(self, subscription: Subscription) -> None:
        try:
            subscription.authorized(await self._shared.authorizer.channel(self.socket_id, subscription.name))
        except Exception as error:
            log.warning("no new secret for %s", subscription.name, exc_info=error)
        finally:
            sealed, subscription.sealed = subscription.sealed, []
            for event in sealed:
                if not subscription.receive_sealed(event):
                    subscription.gap("undecryptable", 1)
