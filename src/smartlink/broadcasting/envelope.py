"""An event packed for one channel: what is recorded, carried through the outbox, and handed to a driver."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["DEFAULT_QUEUE", "Delivery", "Envelope"]

DEFAULT_QUEUE = "default"


class Delivery(enum.StrEnum):
    """How surely an event arrives."""

    DURABLE = "durable"
    """Recorded with the change it tells of, sent at least once and in order, kept for clients to catch up."""
    LIVE = "live"
    """Sent straight after the commit, at most once, never recorded: typing, figures, cursors."""
    STATE = "state"
    """Recorded for its order, sent at least once, not listed for catching up: the state itself can be asked for."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """One event for one channel, ready to travel.

    `channel` is the wire name; `name` the event's; `payload` a JSON object as text; `socket_id` the one socket
    that shall not receive it; `queue` where it waits when it is recorded. `event_id` is set by the outbox, the same
    each time this event is sent, so that a service can take a repeat for what it is. `connection` names the driver
    it goes through, None for the default one; `except_user` the user whose sockets shall all be left out.
    """

    channel: str
    name: str
    payload: str
    socket_id: str | None = None
    delivery: Delivery = Delivery.DURABLE
    queue: str = DEFAULT_QUEUE
    event_id: str | None = None
    connection: str | None = None
    except_user: str | None = None
