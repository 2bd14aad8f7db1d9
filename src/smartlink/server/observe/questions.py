"""Answers operators' questions about this process.

Lists are bounded pages. Long ones are walked in steps, so that connections are served meanwhile.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import socket
import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import msgspec

from smartlink.protocol import encoding
from smartlink.protocol.names import (
    ChannelKind,
    is_cache,
    is_internal,
    is_reserved_event,
    is_user_channel,
    is_valid_channel,
    is_valid_event_name,
    kind_of,
)
from smartlink.server.apps.base import App, AppManager
from smartlink.server.apps.policies import describe
from smartlink.server.cluster.brokers.base import BrokerUnavailable
from smartlink.server.core.client import ClientConnection
from smartlink.server.core.health import Health
from smartlink.server.core.hub import Connection, Tenant
from smartlink.server.core.node import Node
from smartlink.server.net.tap import redact
from smartlink.server.observe.records import (
    AppReport,
    AppRow,
    ChannelRow,
    ConnectionDetail,
    ConnectionRow,
    Kind,
    PolicyRow,
    ProcessReport,
    Question,
    WebhookTargetRow,
)
from smartlink.server.observe.webhook_desk import Refused, WebhookDesk, shown_address
from smartlink.server.runtime.feed import Entry
from smartlink.server.runtime.rates import RateSampler
from smartlink.server.runtime.sweeper import Sweeper

__all__ = ["MAX_PAGE", "Questions"]

MAX_PAGE = 200
MAX_CHANNELS_SHOWN = 200
MAX_PROBLEMS = 50
MAX_HISTORY = 20
STEP = 2_000
"""Rows looked at before the loop handles other work."""

_LIMITS = (
    "max_connections", "max_connections_per_user", "max_message_bytes", "max_channels", "accepts_client_events",
    "accepts_public_client_events", "client_events_per_s", "presence_joins_per_s", "message_rate",
    "ends_on_rate_limit", "max_presence_members", "max_user_info_bytes", "max_channel_length",
    "max_event_name_length", "max_event_bytes", "max_event_channels", "max_batch", "publishes_per_s", "reads_per_s",
    "authorization_timeout_s", "ping_interval_s", "activity_timeout_s", "cache_ttl_s",
)  # fmt: skip


class Questions:
    """What this process knows. Raises Refused for what it will not do, BrokerUnavailable."""

    def __init__(
        self,
        node: Node,
        apps: AppManager,
        *,
        rates: RateSampler,
        health: Health,
        sweeper: Sweeper,
        is_ready: Callable[[], bool],
        version: str,
        webhooks: WebhookDesk | None,
    ) -> None:
        self._node = node
        self._apps = apps
        self._rates = rates
        self._health = health
        self._sweeper = sweeper
        self._is_ready = is_ready
        self._version = version
        self._host = socket.gethostname()
        self.name = f"{self._host}:{os.getpid()}"
        self._answers: dict[Kind, Callable[[Question], Any]] = {
            "process": self._process,
            "connections": self._connections,
            "connection": self._connection,
            "channels": self._channels,
            "channel": self._channel,
            "problems": self._problems,
            "apps": self._list_apps,
            "send": self._send,
            "history": self._history,
        }
        if webhooks is not None:
            self._answers |= webhooks.answers

    async def answer(self, question: Question) -> Any:
        """Return the answer, encodable as JSON."""
        answer = self._answers.get(question.kind)
        if answer is None:
            raise Refused(404, "This process cannot answer that")
        question.limit = max(1, min(question.limit, MAX_PAGE))
        return await answer(question)

    async def _process(self, _: Question) -> ProcessReport:
        figures = self._rates.figures()
        metrics = self._node.metrics
        hub = self._node.hub

        def of_worker(name: str) -> float:
            return next((value for key, value in figures.items() if key.startswith(name)), 0)

        apps = {}
        for app in tuple(self._apps.all()):
            tenant = hub.tenant(app.id)
            apps[app.id] = AppReport(len(tenant.connections), len(tenant.channels), tenant.subscriptions)
        return ProcessReport(
            node=self.name,
            host=self._host,
            pid=os.getpid(),
            version=self._version,
            uptime_s=int(time.monotonic() - self._rates.started_at),
            is_ready=self._is_ready(),
            connections=len(hub),
            received_per_s=round(figures["received_per_s"], 1),
            published_per_s=round(figures["published_per_s"], 1),
            delivered_per_s=round(figures["delivered_per_s"], 1),
            loop_lag_s=round(metrics.loop_lag_s, 4),
            memory_bytes=int(of_worker("smartlink_resident_memory_bytes")),
            descriptors=int(of_worker("smartlink_open_descriptors")),
            redis=self._health.redis,
            problems=self._health.problems(),
            warnings=self._health.warnings(),
            apps=apps,
            slow_consumers=metrics.slow_consumers,
            refused=dict(metrics.refusals),
        )

    def _tenant(self, question: Question) -> Tenant:
        if self._apps.by_id(question.app_id) is None:
            raise Refused(404, "No application has this id")
        return self._node.hub.tenant(question.app_id)

    # Connections

    async def _connections(self, question: Question) -> list[ConnectionRow]:
        """A page of an app's connections, by socket id: all, those of a user, or those on a channel."""
        connections = self._tenant(question).connections
        if question.user_id:
            names = [each.session.socket_id for each in self._node.hub.of_user(question.app_id, question.user_id)]
        else:
            names = list(connections)

        def is_wanted(socket_id: str) -> bool:
            connection = connections.get(socket_id)
            if connection is None or (question.channel and question.channel not in connection.session.channels):
                return False
            return not question.text or _mentions(connection, question.text)

        page = await _page(names, question, is_wanted)
        return [self._row(connections[name], question.channel) for name in page if name in connections]

    def _row(self, connection: Connection, channel: str = "") -> ConnectionRow:
        session = connection.session
        member = session.channels.get(channel)
        client = connection if isinstance(connection, ClientConnection) else None
        return ConnectionRow(
            socket_id=session.socket_id,
            app_id=connection.app.id,
            node=self.name,
            user_id=session.user_id if member is None else member.user_id,
            address="" if client is None else client.address,
            client="" if client is None else client.client,
            transport="websocket" if connection.__class__.__name__ == "WebSocket" else "http",
            since=0.0 if client is None else round(client.since, 3),
            channels=len(session.channels),
            backlog_bytes=connection.backlog,
        )

    async def _connection(self, question: Question) -> ConnectionDetail | None:
        connection = self._node.hub.connection(question.app_id, question.socket_id)
        if not isinstance(connection, ClientConnection):
            return None
        session, now = connection.session, self._sweeper.now()
        members = {name: member.user_id for name, member in session.channels.items() if member is not None}
        shown = dict(list(members.items())[:MAX_CHANNELS_SHOWN])
        info = None if session.user is None else msgspec.json.decode(session.user.member.user_info)
        return ConnectionDetail(
            **msgspec.structs.asdict(self._row(connection)),
            channel_names=sorted(session.channels)[:MAX_CHANNELS_SHOWN],
            member_of=shown,
            signed_in_as=None if session.user is None else session.user.id,
            user_info=info,
            heard_s=round(max(0.0, now - connection.heard_at), 1),
            is_pinged=connection.pinged_at > 0,
            authorize_within_s=connection.authorize_within_s,
            waiting_messages=connection.waiting_messages,
            is_resumable=connection.client_session is not None,
        )

    # Channels

    async def _channels(self, question: Question) -> list[ChannelRow]:
        """A page of an app's channels here, by name; `text` is part of the name."""
        channels = self._tenant(question).channels
        names = _public(channels)
        page = await _page(names, question, lambda name: question.text in name)
        return [_channel_row(name, len(channels[name])) for name in page if name in channels]

    async def _channel(self, question: Question) -> ChannelRow:
        subscribers = self._node.hub.channel(question.app_id, question.channel)
        row = _channel_row(question.channel, 0 if subscribers is None else len(subscribers))
        if kind_of(question.channel) is ChannelKind.PRESENCE:
            row.users = (await self._node.presence.count(question.app_id, question.channel)).users
        return row

    async def _history(self, question: Question) -> list[dict[str, Any]]:
        """The last events that are kept for clients that come back, newest first, or that of a cache channel."""
        app = self._apps.by_id(question.app_id)
        kept, _ = ((), True) if app is None else await self._node.history_of(app, question.channel, None)
        if kept:
            return [
                {"position": each.position, "frame": redact(each.frame.decode()), "ttl_s": None}
                for each in reversed(kept[-MAX_HISTORY:])
            ]
        if not is_cache(question.channel):
            return []
        latest = await self._node.history.latest(question.app_id, question.channel)
        if latest is None:
            return []
        frame = redact(latest.frame.decode())
        return [{"position": latest.position, "frame": frame, "ttl_s": round(latest.ttl_s)}]

    # Others

    async def _problems(self, question: Question) -> list[Entry]:
        """The last refusals and errors here that concern what the question names, newest first."""
        named = [
            (name, value)
            for name, value in (
                ("channel", question.channel), ("user_id", question.user_id), ("socket_id", question.socket_id),
            )
            if value
        ]  # fmt: skip
        found = [
            entry
            for entry in reversed(self._node.feed.problems)
            if (not question.app_id or entry.app_id == question.app_id)
            and (not named or any(getattr(entry, name) == value for name, value in named))
        ]
        return found[:MAX_PROBLEMS]

    async def _list_apps(self, _: Question) -> list[AppRow]:
        return [
            AppRow(
                id=app.id,
                key=app.key,
                is_enabled=app.is_enabled,
                limits={name: getattr(app, name) for name in _LIMITS},
                allowed_origins=app.allowed_origins,
                webhooks=[
                    WebhookTargetRow(shown_address(hook.url), hook.events, hook.channel_prefixes)
                    for hook in app.webhooks
                ],
                channels=app.channels,
                policies=[PolicyRow(policy.pattern, describe(policy)) for policy in app.channels],
            )
            for app in self._apps.all()
        ]

    async def _send(self, question: Question) -> dict[str, int]:
        """Publish a test event. Returns how many subscriptions it reaches."""
        app = self._apps.by_id(question.app_id)
        if app is None:
            raise Refused(404, "No application has this id")
        most = self._node.policies.of(app.id, question.channel).max_event_bytes or app.max_event_bytes
        fault = _fault_of_event(app, question, most)
        if fault is not None:
            raise Refused(400, fault)
        try:
            count = await self._node.presence.count(app.id, question.channel)
            await self._node.publish(
                app, question.channel, encoding.event(question.event, question.channel, question.data)
            )
        except BrokerUnavailable as error:
            raise Refused(503, f"{error}. Try again in a moment") from None
        return {"subscriptions": count.subscriptions}


def _fault_of_event(app: App, question: Question, max_bytes: int) -> str | None:
    channel, event = question.channel, question.event
    if not (is_valid_channel(channel) and len(channel) <= app.max_channel_length) and not is_user_channel(channel):
        return f"{channel[:40]!r} is not a channel name"
    if kind_of(channel) is ChannelKind.ENCRYPTED:
        return "Events on encrypted channels are encrypted by the application; the server has no key"
    if not is_valid_event_name(event) or len(event) > app.max_event_name_length:
        return f"The event name must have 1 to {app.max_event_name_length} characters and no control characters"
    if is_reserved_event(event):
        return "Names that begin with pusher: or pusher_internal: are reserved"
    size = len(question.data.encode())
    if size > max_bytes:
        return f"The data has {size} bytes, more than the {max_bytes} it may have"
    return None


def _public(channels: dict[str, Any]) -> list[str]:
    return [name for name in channels if not is_internal(name)]


def _channel_row(name: str, subscriptions: int) -> ChannelRow:
    kind = kind_of(name).name.lower()
    return ChannelRow(name, f"{kind} cache" if is_cache(name) else kind, subscriptions)


def _mentions(connection: Connection, text: str) -> bool:
    session = connection.session
    if text in session.socket_id or text in session.user_id:
        return True
    return isinstance(connection, ClientConnection) and (text in connection.address or text in connection.client)


async def _page(names: Sequence[str], question: Question, is_wanted: Callable[[str], bool]) -> list[str]:
    """Return the page's names in order, walking all of them in steps."""
    found: list[str] = []
    for start in range(0, len(names), STEP):
        step = (name for name in names[start : start + STEP] if name > question.after and is_wanted(name))
        found = heapq.nsmallest(question.limit, chain(found, step))
        await asyncio.sleep(0)
    return found
