"""One client: its messages go to the session, and the session's effects go to node and socket.

The transport (WebSocket or HTTP fallback) passes whole messages to `receive_text`; answers leave through the `Link` as
WebSocket frames, the server's only form of outgoing message.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

from smartlink.protocol import encoding
from smartlink.protocol.errors import Code
from smartlink.protocol.messages import SubscribeMessage, UnsubscribeMessage, decode
from smartlink.protocol.names import ChannelKind, kind_of
from smartlink.protocol.session import (
    Answered,
    Close,
    Effect,
    Join,
    Leave,
    PresenceMember,
    Send,
    Session,
    SignIn,
    Whisper,
)
from smartlink.server.apps.base import App
from smartlink.server.core.client_rates import ClientRates
from smartlink.server.core.client_sessions import ClientSession, SessionToken
from smartlink.server.core.node import Node
from smartlink.server.net.framing import PING, WireFault, close_frame, control_frame, text_frame
from smartlink.server.net.link import Link, PlainLink
from smartlink.server.net.tap import redact
from smartlink.server.runtime.limits import AddressCount
from smartlink.server.runtime.pace import Pace
from smartlink.server.runtime.sweeper import Sweeper

__all__ = ["ClientConnection", "ClientSettings"]

MAX_WAITING_FRAMES = 256
LINGER_S = 2.0
SLOW_LINGER_S = 15.0
STALLED_S = 8.0
"""Longest time in which a connection reads nothing before it is cut."""

_USUAL_ENDS = frozenset({1000, 1001, Code.RECONNECT})
_PONG = b'{"event":"pusher:pong","data":{}}'
"""As pusher-js writes it: the one message that clients with a session send all the time."""
_HEARTBEAT = control_frame(PING) + text_frame(encoding.PING)


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Shared by all client connections of a server."""

    node: Node
    sweeper: Sweeper
    max_backlog_bytes: int
    pace: Pace = field(default_factory=Pace)
    addresses: AddressCount = field(default_factory=AddressCount)


class ClientConnection:
    """A client's connection, from its greeting to its end.

    A transport derives from it, calls `note_activity` whenever the peer shows that it is alive and `receive_text` for
    each whole message, and raises or handles WireFault as its framing requires. `close` removes the connection from
    every index at once; later input has no effect, and the link stays only so that the peer can read the reason.
    """

    __slots__ = (
        "_address",
        "_behind_since",
        "_deadline",
        "_drained",
        "_is_busy",
        "_is_greeted",
        "_is_turn_over",
        "_leaving",
        "_link",
        "_preface",
        "_rates",
        "_shared",
        "_token",
        "_waiting",
        "app",
        "began_at",
        "client",
        "client_session",
        "heard_at",
        "is_open",
        "pinged_at",
        "session",
        "since",
    )

    def __init__(
        self, link: Link, app: App, session: Session, shared: ClientSettings, token: SessionToken | None = None
    ) -> None:
        """`token` names the session that the client may resume."""
        self._token = token
        self.client_session: ClientSession | None = None
        self._link = link
        self._shared = shared
        self.app = app
        self.session = session
        session.client_events_on = shared.node.policies.client_events_of(app.id)
        self.is_open = True
        self.began_at = 0
        self.since = time.time()
        self.client = ""
        """Name and version of the client library, as it says."""
        self.heard_at = shared.sweeper.now()
        self.pinged_at = 0.0
        """When an unanswered ping was sent, or 0."""
        self._rates: ClientRates | None = None
        self._address: str | None = None
        self._leaving: dict[str, PresenceMember] | None = None
        """Presence channels left in this turn of the loop, and the member: announced at the end of the turn."""
        self._is_busy = self._is_greeted = self._is_turn_over = False
        self._preface = b""
        """What goes before the greeting."""
        self._waiting: deque[bytes] | None = None
        self._behind_since = 0.0
        self._drained: asyncio.Future[None] | None = None
        """Set when nothing is held back for the peer any more, or the connection has ended."""
        timeout_s = app.authorization_timeout_s
        self._deadline = 0.0 if timeout_s is None else self.heard_at + timeout_s
        """While open: until when it must be authorized, 0 once it is. After that: when lingering ends."""

    def start(self, address: str, client: str = "", answer: bytes = b"") -> None:
        """Greet the client at `address`, which names its library `client`. The transport is open.

        `answer` is written first: in one write with the greeting, unless that has to wait.
        """
        self._address, self.client = address, client
        self._shared.addresses.take(self.app.id, address)
        self._preface = answer
        self._run(self._greet())
        self._write_preface()

    def _write_preface(self) -> None:
        preface, self._preface = self._preface, b""
        if preface:
            self._link.write(preface)

    async def _greet(self) -> None:
        node = self._shared.node
        if not await node.take_place(self.app):
            full = f"The application has reached its limit of {self.app.max_connections} connections"
            node.refuse(Code.OVER_CAPACITY.name.lower(), full, self.app.id, self._address or "")
            self.close(Code.OVER_CAPACITY, full)
        elif not self.is_open:
            node.give_place_back(self.app)
        elif (why := node.ending_of(self.app)) is not None:
            # The app changed during the wait, and this connection was not yet among those to end.
            node.give_place_back(self.app)
            self.close(*why)
        else:
            self._is_greeted = True
            node.connect(self)
            if self._token is not None:
                token, self._token = self._token, None
                await node.resumption.begin(self, token)
            preface, self._preface = self._preface, b""
            self.write(preface + text_frame(self.session.opened().frame))

    # Called by the transport

    def note_activity(self) -> None:
        """Note a sign of life from the peer."""
        self.heard_at = self._shared.sweeper.now()
        self.pinged_at = 0.0

    def receive_text(self, message: bytes) -> None:
        """Act on one whole message of the peer, in order; after the end it has no effect.

        Raises WireFault when it is not UTF-8.
        """
        if not self.is_open:
            return
        try:
            message.decode()
        except UnicodeDecodeError:
            raise WireFault(Code.INVALID_TEXT, "Text must be UTF-8") from None
        metrics = self._shared.node.metrics
        metrics.messages_received += 1
        of_app = metrics.app(self.app.id)
        of_app.messages_received += 1
        of_app.bytes_received += len(message)
        feed = self._shared.node.feed
        if feed.taps and self.session.socket_id in feed.taps:
            feed.note(
                "received", self.app.id, socket_id=self.session.socket_id, frame=redact(message.decode()).encode()
            )
        if self._leaving:
            self._depart_before(message)
        if self._is_busy:
            # An operation of this connection waits for an engine: keep the order of the client's messages.
            if self._waiting is None:
                self._waiting = deque()
                self._link.pause()
            self._waiting.append(message)
            if len(self._waiting) > MAX_WAITING_FRAMES:
                self.close(Code.OVER_CAPACITY, "More requests at once than can be buffered")
            return
        self._act_on(message)

    def on_bytes(self, data: bytes) -> None:
        """Ignore bytes of the link; transports that read frames from it override this."""

    def on_closed(self, descriptor: int) -> None:
        self._leave(descriptor, is_lost=True)
        self._shared.sweeper.discard(self)

    def on_backlog(self, descriptor: int) -> None:
        if self.is_open and not self._behind_since:
            self._shared.node.metrics.app(self.app.id).behind += 1
        self._behind_since = self._shared.sweeper.now()
        if self.is_open and descriptor >= 0:
            self._shared.node.hub.set_aside(self, descriptor)

    def on_drained(self) -> None:
        if self.is_open and self._behind_since:
            self._shared.node.metrics.app(self.app.id).behind -= 1
        self._behind_since = 0.0
        if self.is_open and self.descriptor >= 0:
            self._shared.node.hub.bring_back(self)
        self._tell_drained()

    def _tell_drained(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.set_result(None)

    def _read_on(self) -> None:
        """Read on: no message of the peer waits for an engine any more."""
        self._link.resume()

    # Called by fan-out and hub

    @property
    def descriptor(self) -> int:
        return self._link.descriptor

    @property
    def backlog(self) -> int:
        return self._link.buffered

    @property
    def room(self) -> int:
        return self._shared.max_backlog_bytes - self._link.buffered

    @property
    def address(self) -> str:
        return self._address or ""

    @property
    def authorize_within_s(self) -> float | None:
        """Seconds until it ends unless it is authorized; None if it need not be, or is."""
        return max(0.0, round(self._deadline - self._shared.sweeper.now(), 1)) if self._deadline else None

    @property
    def waiting_messages(self) -> int:
        """Messages of the peer that wait for an engine."""
        return 0 if self._waiting is None else len(self._waiting)

    def write(self, data: bytes) -> None:
        if not self.is_open:
            return
        self._link.write(data)
        self._shared.node.metrics.bytes_sent += len(data)
        if self._link.buffered > self._shared.max_backlog_bytes:
            self._cut("Too slow: too much is waiting for this connection")

    def fell_behind(self, rest: bytes) -> None:
        assert isinstance(self._link, PlainLink)  # noqa: S101 — only those have a descriptor
        self._link.hold(rest)

    def vanished(self) -> None:
        self._link.abort()

    def close(self, code: int, reason: str, *, linger_s: float = LINGER_S) -> None:
        if not self.is_open:
            return
        farewell = close_frame(code, reason)
        if code >= Code.TLS_ONLY:
            farewell = text_frame(encoding.error(reason, code)) + farewell
        self._write_preface()
        self._link.write(farewell)
        # After other codes the client does not come back.
        self._leave(self.descriptor, linger_s, code, reason, is_lost=code >= Code.OVER_CAPACITY)
        self._link.finish()

    def sweep(self, now: float) -> None:
        """Called each second: ping a silent peer, cut one that is dead or does not read."""
        if not self.is_open:
            if now >= self._deadline:
                self._link.abort()
            return
        if self._behind_since and now - self._behind_since > STALLED_S:
            self._cut("Too slow: the client read nothing for several seconds")
            return
        if self._deadline and now >= self._deadline:
            reason = f"Neither signed in nor on a private channel within {self.app.authorization_timeout_s} s"
            self.close(Code.UNAUTHORIZED, reason)
            return
        interval = self.app.ping_interval_s
        if self.pinged_at:
            if now - self.pinged_at >= interval:
                self.close(Code.NO_PONG, "No pong: the client did not answer a ping")
        elif now - self.heard_at >= interval:
            self.pinged_at = now
            if self.client_session is not None:
                self._shared.node.resumption.pinged(self.client_session)
            self.write(_HEARTBEAT)

    def _act_on(self, message: bytes) -> None:
        rate = self.app.message_rate
        if rate is not None and not self._limited().may_send(rate, self._shared.sweeper.now()):
            self._shared.node.metrics.app(self.app.id).limit("message")
            if self.app.ends_on_rate_limit:
                self.close(Code.OVER_CAPACITY, "Too many messages")
            else:
                self._say(_ignored(message))
            return
        if message == _PONG:
            self._answered()
            return
        for effect in self.session.receive(message):
            self._carry_out(effect)

    # Effects

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self._say(effect.frame)
        elif isinstance(effect, Whisper):
            self._whisper(effect)
        elif isinstance(effect, Join):
            if self._may_join(effect.channel):
                self._run(self._join(effect))
        elif isinstance(effect, Leave):
            if effect.member is not None:
                self._leave_later(effect.channel, effect.member)
            else:
                self._run(self._shared.node.unsubscribe(self, effect.channel, None, self.descriptor))
        elif isinstance(effect, SignIn):
            self._run(self._sign_in(effect))
        elif isinstance(effect, Answered):
            self._answered()
        elif isinstance(effect, Close):
            self.close(effect.code, effect.reason)

    def _answered(self) -> None:
        if self.client_session is not None:
            self._shared.node.resumption.answered(self.client_session)

    def _say(self, frame: bytes) -> None:
        feed, session = self._shared.node.feed, self.session
        if frame.startswith(encoding.REFUSALS):
            channel, why = encoding.refusal_in(frame)
            user_id, socket_id = session.user_id, session.socket_id
            feed.problem("refused", self.app.id, why, channel=channel, user_id=user_id, socket_id=socket_id)
        if feed.taps and session.socket_id in feed.taps:
            feed.note("sent", self.app.id, socket_id=session.socket_id, frame=frame)
        self.write(text_frame(frame))

    async def _join(self, effect: Join) -> None:
        channel, member = effect.channel, effect.member
        while self._behind_since and self.client_session is not None and channel in self.client_session.former:
            # One channel's missed events at a time, or all together are too much for a client that reads fast enough.
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        left = None if self._leaving is None else self._leaving.get(channel)
        if self._leaving is not None and left is not None and member is not None:
            if (member.user_id, member.user_info) == (left.user_id, left.user_info):
                member = left
            else:
                del self._leaving[channel]
                await self._shared.node.depart(self, channel, left)
        await self._shared.node.subscribe(
            self, channel, member, expires_at=effect.expires_at, is_by_ticket=effect.is_by_ticket
        )
        if (
            self._deadline
            and self.is_open
            and channel in self.session.channels
            and kind_of(channel).needs_authorization
        ):
            self._deadline = 0.0

    def _leave_later(self, channel: str, member: PresenceMember) -> None:
        """Stop receiving a presence channel at once, and leave it at the end of this turn of the loop.

        When the client subscribes again as the same member by then, nothing is announced.
        """
        self._shared.node.hub.leave(self, channel, member, self.descriptor)
        self._shared.node.resumption.left(self, channel)
        if self._leaving is None:
            self._leaving = {}
            asyncio.get_running_loop().call_soon(self._end_turn)
        self._leaving[channel] = member

    def _end_turn(self) -> None:
        if self._is_busy:
            self._is_turn_over = True
        else:
            self._depart()

    def _depart_before(self, message: bytes) -> None:
        """Announce pending leaves before any message but subscribe and unsubscribe: the client may rely on that."""
        if (
            self._leaving
            and not self._is_busy
            and not isinstance(decode(message), SubscribeMessage | UnsubscribeMessage)
        ):
            self._depart()

    def _depart(self) -> None:
        leaving, self._leaving, self._is_turn_over = self._leaving, None, False
        if leaving:
            self._run(self._depart_from(leaving))

    async def _depart_from(self, left: dict[str, PresenceMember]) -> None:
        for channel, member in left.items():
            if channel not in self.session.channels:
                await self._shared.node.depart(self, channel, member)

    async def _sign_in(self, effect: SignIn) -> None:
        await self._shared.node.sign_in(self, effect.user)
        if self.is_open:
            self._deadline = 0.0

    def _whisper(self, effect: Whisper) -> None:
        metrics = self._shared.node.metrics
        policy = self._shared.node.policies.of(self.app.id, effect.channel)
        if (most := policy.max_event_bytes) is not None and (size := len(effect.data.encode())) > most:
            reason = f"The data of this event has {size} bytes, more than the {most} it may have on this channel"
            self._say(encoding.error(reason, Code.CLIENT_EVENT_REFUSED, effect.channel))
            return
        if not self._limited().may_whisper(policy, self._shared.sweeper.now()):
            metrics.app(self.app.id).limit("client_event")
            rate = policy.client_events_per_s or self.app.client_events_per_s
            reason = f"More than {rate} client events a second"
            self._say(encoding.error(reason, Code.CLIENT_EVENT_REFUSED, effect.channel))
            return
        metrics.client_events += 1
        self._run(self._shared.node.whisper(self, effect))

    def _run(self, coroutine: object) -> None:
        tasks = self._shared.node.tasks
        self._is_busy = True
        tasks.run(coroutine, self._on_done, self._on_failed)  # type: ignore[arg-type] # any coroutine

    def _on_done(self, _result: object) -> None:
        self._is_busy = False
        # Take it out: a message that is done at once calls this again, whatever the number of messages behind it.
        waiting, self._waiting = self._waiting, None
        if self._is_turn_over:
            self._depart()
        if waiting is None:
            return
        while waiting and self.is_open:
            if not self._is_busy:
                self._depart_before(waiting[0])
            if not self._is_busy:
                self._act_on(waiting.popleft())
            if self._is_busy and self.is_open:
                self._waiting = waiting
                return
        self._read_on()

    def _on_failed(self) -> None:
        self._is_busy = False
        self.close(Code.INTERNAL_ERROR, "Internal error")

    def _may_join(self, channel: str) -> bool:
        """Whether the client may join now; if not, tell it why. Only joins of presence channels are limited."""
        if kind_of(channel) is not ChannelKind.PRESENCE or self._limited().may_join(self._shared.sweeper.now()):
            return True
        rate = self.app.presence_joins_per_s
        reason = f"More than {rate} joins of presence channels a second: try again in a moment"
        self._say(self.session.refused(channel, reason).frame)
        return False

    def _limited(self) -> ClientRates:
        if self._rates is None:
            self._rates = ClientRates(self.app)
        return self._rates

    # Ends

    def _cut(self, reason: str) -> None:
        self._shared.node.metrics.slow_consumers += 1
        self._link.drop_queued()
        self.close(Code.OVER_CAPACITY, reason, linger_s=SLOW_LINGER_S)

    def _leave(
        self, descriptor: int, linger_s: float = LINGER_S, code: int = 0, reason: str = "", *, is_lost: bool = False
    ) -> None:
        if not self.is_open:
            return
        self.is_open = False
        if self._behind_since:
            self._shared.node.metrics.app(self.app.id).behind -= 1
            self._behind_since = 0.0
        self._tell_drained()
        if self._is_greeted:
            self._tell_operators(code, reason)
        if self._waiting is not None:
            self._waiting = None
            self._read_on()  # to read the peer's close
        if self._address is not None:
            self._shared.addresses.release(self.app.id, self._address)
        node = self._shared.node
        self._deadline = self._shared.sweeper.now() + linger_s
        if self._leaving:
            node.tasks.run(self._depart_from(self._leaving))
            self._leaving = None
        if self._is_greeted:
            node.tasks.run(node.disconnect(self, descriptor, is_lost=is_lost))
        self._shared.sweeper.add(self)

    def _tell_operators(self, code: int, reason: str) -> None:
        feed, session = self._shared.node.feed, self.session
        why = f"{code}: {reason}" if code else ""
        if code and code not in _USUAL_ENDS:
            feed.problem("disconnect", self.app.id, why, user_id=session.user_id, socket_id=session.socket_id)
        elif feed.watches:
            feed.note("disconnect", self.app.id, user_id=session.user_id, socket_id=session.socket_id, why=why)


def _ignored(message: bytes) -> bytes:
    """Encode the answer to a message over the rate. It names the channel, so that the client stops waiting."""
    channel: str | None = getattr(decode(message), "channel", None)
    return encoding.error("Too many messages: this one was ignored", Code.CLIENT_EVENT_REFUSED, channel)
