"""What nodes ask each other for operators, and what they answer. Encoded as JSON; contains no secrets."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from smartlink.server.apps.policies import ChannelPolicy
from smartlink.server.runtime.feed import Batch, Filter

__all__ = [
    "Answer",
    "AppReport",
    "AppRow",
    "ChannelRow",
    "ConnectionDetail",
    "ConnectionRow",
    "FailedWebhook",
    "FromNode",
    "Kind",
    "PolicyRow",
    "ProcessReport",
    "Question",
    "Replies",
    "Told",
    "WebhookTargetRow",
]

Kind: TypeAlias = Literal[
    "process", "connections", "connection", "channels", "channel", "problems", "watch", "unwatch",
    "apps", "send", "history", "webhooks_failed", "webhooks_retry", "webhooks_forget",
]  # fmt: skip


class Question(msgspec.Struct, omit_defaults=True):
    """One question. Lists are pages: at most `limit` rows, in order, that come after `after`."""

    kind: Kind
    app_id: str = ""
    channel: str = ""
    socket_id: str = ""
    user_id: str = ""
    text: str = ""
    after: str = ""
    limit: int = 50
    event: str = ""
    data: str = ""
    batch_id: int | None = None
    watch_id: str = ""
    shown: Filter | None = None


class Answer(msgspec.Struct, tag="answer", omit_defaults=True):
    """A node's answer: `body`, or why there is none (`fault`, with an HTTP status)."""

    number: int
    node: str
    body: msgspec.Raw = msgspec.Raw(b"null")
    fault: str = ""
    status: int = 0


class Told(msgspec.Struct, tag="told"):
    """What a node's watches collected, by watch id."""

    node: str
    batches: dict[str, Batch]


FromNode: TypeAlias = Answer | Told


class Replies(msgspec.Struct):
    """The answers of the nodes that answered, and how many were expected to."""

    answers: list[Answer]
    expected: int


class AppReport(msgspec.Struct):
    """What one application has in one process."""

    connections: int
    channels: int
    subscriptions: int


class ProcessReport(msgspec.Struct):
    """One process: a node, or a worker of one. Rates are per second over the last ten."""

    node: str
    host: str
    pid: int
    version: str
    uptime_s: int
    is_ready: bool
    connections: int
    received_per_s: float
    published_per_s: float
    delivered_per_s: float
    loop_lag_s: float
    memory_bytes: int
    descriptors: int
    redis: str
    problems: list[str]
    warnings: list[str]
    apps: dict[str, AppReport]
    slow_consumers: int
    refused: dict[str, int]


class ConnectionRow(msgspec.Struct):
    """One connection in a list. Times are in seconds since 1970."""

    socket_id: str
    app_id: str
    node: str
    user_id: str
    address: str
    client: str
    transport: str
    since: float
    channels: int
    backlog_bytes: int


class ConnectionDetail(ConnectionRow):
    """One connection: its row, and what only its page shows."""

    channel_names: list[str]
    """The first 200."""
    member_of: dict[str, str]
    """By presence channel, the member's user id."""
    signed_in_as: str | None
    user_info: Any
    heard_s: float
    """Seconds since the peer was last heard."""
    is_pinged: bool
    """A ping waits for its answer."""
    authorize_within_s: float | None
    """It ends unless it is authorized by then."""
    waiting_messages: int
    is_resumable: bool
    """Its client may resume the session after a broken connection, and gets what it missed."""


class ChannelRow(msgspec.Struct):
    """One channel in a list, with its subscriptions on one node or on all."""

    name: str
    kind: str
    subscriptions: int
    users: int | None = None


class WebhookTargetRow(msgspec.Struct):
    """A webhook address, without what it may hold of secrets."""

    address: str
    events: tuple[str, ...]
    channel_prefixes: tuple[str, ...]


class PolicyRow(msgspec.Struct):
    """A policy of channels, in words."""

    pattern: str
    says: str


class AppRow(msgspec.Struct):
    """An application: its public key and its limits, never its secret."""

    id: str
    key: str
    is_enabled: bool
    limits: dict[str, Any]
    allowed_origins: tuple[str, ...]
    webhooks: list[WebhookTargetRow]
    channels: tuple[ChannelPolicy, ...] = ()
    policies: list[PolicyRow] = []
    """The same as `channels`, in words."""


class FailedWebhook(msgspec.Struct):
    """A batch of events that an address did not accept."""

    id: int
    app_id: str
    address: str
    failed_at: float
    reason: str
    events: list[Any]
    """The first 20."""
    count: int
