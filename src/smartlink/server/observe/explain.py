"""Explains in sentences what the server knows about a channel, a connection or a user, and why it acted as it did."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import msgspec

from smartlink.protocol.names import ChannelKind, is_cache, kind_of
from smartlink.server.apps.patterns import matches
from smartlink.server.apps.policies import DEFAULT_POLICY, ChannelPolicy, describe
from smartlink.server.observe.records import AppRow, ChannelRow, ConnectionDetail, ConnectionRow
from smartlink.server.runtime.feed import Entry

__all__ = ["Explanation", "of_channel", "of_connection", "of_user"]

_RULES = {
    ChannelKind.PUBLIC: "It is public: anybody with the app key may subscribe.",
    ChannelKind.PRIVATE: "It is private: a subscription needs a signature from the application's endpoint.",
    ChannelKind.PRESENCE: "It is a presence channel: a subscription needs a signature that names the member.",
    ChannelKind.ENCRYPTED: "It is private and encrypted: a subscription needs a signature, and the server has no key "
    "to read its events.",
}


class Explanation(msgspec.Struct):
    """What is known about a subject: `facts` are sentences, `problems` the refusals and errors that concern it."""

    subject: str
    kind: str
    facts: list[str]
    problems: list[Entry]
    is_known: bool


def of_channel(
    name: str, app: AppRow, channel: ChannelRow, subscribers: Sequence[ConnectionRow], problems: list[Entry]
) -> Explanation:
    """Explain a channel; `subscribers` are the first few."""
    kind = kind_of(name)
    facts = [_RULES[kind]]
    if is_cache(name):
        facts.append(f"It keeps its last event for {app.limits['cache_ttl_s']} s for later subscribers.")
    if channel.subscriptions:
        users = "" if channel.users is None else f", {_counted(channel.users, 'member')}"
        facts.append(f"It has {_counted(channel.subscriptions, 'subscription')}{users}, on {_nodes(subscribers)}.")
    else:
        facts.append("Nobody is subscribed: events published to it reach nobody.")
    policy, why = _policy(name, app)
    facts += [why, _client_events(kind, app, policy)]
    if kind is ChannelKind.PRESENCE and (most := app.limits["max_presence_members"]) is not None:
        facts.append(f"It may have {most} members.")
    return Explanation(name, "channel", facts, problems, is_known=channel.subscriptions > 0 or bool(problems))


def of_connection(socket_id: str, app: AppRow, found: ConnectionDetail | None, problems: list[Entry]) -> Explanation:
    """Explain a connection, or why there is none."""
    if found is None:
        ends = [entry for entry in problems if entry.kind == "disconnect"]
        facts = [f"It ended: {ends[0].why}." if ends else "No node has this connection: it has ended, or never was."]
        return Explanation(socket_id, "connection", facts, problems, is_known=bool(problems))
    since = dt.datetime.fromtimestamp(found.since, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    client = f" with {found.client}" if found.client else ""
    transport = "WebSocket" if found.transport == "websocket" else "the HTTP fallback"
    who = f"as user {found.signed_in_as}" if found.signed_in_as is not None else "and is not signed in"
    facts = [
        f"It is connected since {since} from {found.address}{client} over {transport}, on {found.node}, {who}.",
        f"It was last heard {found.heard_s} s ago; after {app.limits['ping_interval_s']} s of silence it is pinged.",
    ]
    if found.is_pinged:
        facts.append("A ping waits for its answer: it is closed if none comes.")
    if found.authorize_within_s is not None:
        facts.append(f"It ends in {found.authorize_within_s} s unless it signs in or joins a private channel.")
    if found.is_resumable:
        facts.append("Its client may resume the session after a broken connection, and gets what it missed.")
    most = app.limits["max_channels"]
    facts.append(f"It is on {_counted(found.channels, 'channel')}{'' if most is None else f' of at most {most}'}.")
    if found.backlog_bytes:
        facts.append(f"{found.backlog_bytes} bytes wait for it: it reads slower than its channels deliver.")
    if found.waiting_messages:
        facts.append(f"{found.waiting_messages} of its messages wait for the nodes.")
    return Explanation(socket_id, "connection", facts, problems, is_known=True)


def of_user(user_id: str, app: AppRow, connections: Sequence[ConnectionRow], problems: list[Entry]) -> Explanation:
    """Explain a user by the first of their connections."""
    most = app.limits["max_connections_per_user"]
    limit = "" if most is None else f" of at most {most}"
    facts = (
        [f"The user has {_counted(len(connections), 'connection')}{limit}."]
        if connections
        else ["The user is not connected."]
    )
    facts += [
        f"{each.socket_id} from {each.address}, on {_counted(each.channels, 'channel')}, on {each.node}."
        for each in connections[:10]
    ]
    return Explanation(user_id, "user", facts, problems, is_known=bool(connections or problems))


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what if count == 1 else f'{what}s'}"


def _policy(channel: str, app: AppRow) -> tuple[ChannelPolicy, str]:
    """The policy that holds on a channel, and why."""
    for number, policy in enumerate(app.channels):
        if matches(policy.pattern, channel):
            before = app.channels[0].pattern if number == 1 else f"{number} before it"
            why = f", as {before} {'does' if number == 1 else 'do'} not match" if number else ""
            return policy, f"The policy of {policy.pattern} holds{why}: it {describe(policy)}."
    if app.channels:
        return DEFAULT_POLICY, f"None of the app's {len(app.channels)} policies matches it: what the app says holds."
    return DEFAULT_POLICY, "The app has no policies of channels: what the app says holds."


def _client_events(kind: ChannelKind, app: AppRow, policy: ChannelPolicy) -> str:
    allowed = policy.client_events
    if kind is ChannelKind.ENCRYPTED or allowed == "none":
        return "It takes no client events."
    if allowed is None and not app.limits["accepts_client_events"]:
        return "The app accepts no client events (REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM)."
    on_public = app.limits["accepts_public_client_events"] if allowed is None else allowed == "all"
    if kind is ChannelKind.PUBLIC and not on_public:
        who = "the app" if allowed is None else "the policy"
        return f"Client events are refused here: {who} accepts them on private and presence channels only."
    rate = policy.client_events_per_s or app.limits["client_events_per_s"]
    return f"It takes client events, {rate} a second from each connection."


def _nodes(rows: Sequence[ConnectionRow]) -> str:
    nodes = sorted({row.node for row in rows})
    return f"{len(nodes)} nodes" if len(nodes) > 3 else ", ".join(nodes) or "other nodes"
