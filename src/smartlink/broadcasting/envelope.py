"""An event packed for one channel: what is recorded, carried through the outbox, and handed to a driver."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["DEFAULT_QUEUE", "Delivery", "Envelope"]

DEFAULT_QUEUE = "default"


class Delivery(enum.StrEnum):
    """The delivery guarantee of an event."""

    DURABLE = "durable"
    """Recorded with the change it announces, sent at least once and in order, kept for clients to catch up."""
    LIVE = "live"
    """Sent straight after the commit, at most once, never recorded: typing, figures, cursors."""
    STATE = "state"
    """Recorded to keep its order, sent at least once, but not kept: clients catch up by querying the state."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """One event for one channel, ready to send.

    `channel` is the channel's full name, `name` the event's, `payload` a JSON object as text. `socket_id` is a socket
    to exclude, `except_user` a user whose sockets are all excluded. `queue` is where it waits if it is recorded.
    `event_id` is set by the outbox, the same for each attempt, so that services can detect repeats. `connection`
    names the driver; None means the default one. With `receipts`, the server reports by webhook which users have
    received it.
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
    receipts: bool = False
