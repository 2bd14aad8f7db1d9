"""Explains in sentences what the server knows about a channel, a connection or a user, and why it acted as it did."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import msgspec

from smartlink.protocol.names import ChannelKind, is_cache, kind_of
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
    if kind is ChannelKind.ENCRYPTED:
        facts.append("It takes no client events.")
    elif not app.limits["accepts_client_events"]:
        facts.append("The app accepts no client events (REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM).")
    elif kind is ChannelKind.PUBLIC and not app.limits["accepts_public_client_events"]:
        facts.append("Client events are refused here: the app accepts them on private and presence channels only.")
    else:
        rate = app.limits["client_events_per_s"]
        facts.append(f"It takes client events, {rate} a second from each connection.")
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


def _nodes(rows: Sequence[ConnectionRow]) -> str:
    nodes = sorted({row.node for row in rows})
    return f"{len(nodes)} nodes" if len(nodes) > 3 else ", ".join(nodes) or "other nodes"
