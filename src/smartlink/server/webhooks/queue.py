"""The port `WebhookQueue`: events to post, stored where a restart and other nodes can find them.

It holds two things. *Subjects*: a channel, or a user on a channel, with its last announced state and when to check it
again. *Waiting events*: one queue per address (app, URL and lane), leased to one node at a time. User events have a
separate lane with its own limit: however many channels strangers create, they neither delay nor displace the events of
users.

Subjects are level-triggered. An arrival is announced if the subject is not announced yet; a leave only schedules a
check, and its result is announced. Every report gives its subject a new version, and a check counts only if no report
came meanwhile, so the last announcement is true in whatever order the nodes' reports arrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = [
    "MAX_FAILED",
    "MAX_WAITING",
    "Address",
    "Batch",
    "Check",
    "FailedBatch",
    "QueueUnavailable",
    "QueuedEvent",
    "Subject",
    "WebhookQueue",
    "WebhookReport",
]

MAX_WAITING = 100_000
"""Limit of waiting events per address, and separately of its user events; the excess is dropped and counted."""
MAX_FAILED = 1_000
"""Failed batches kept per address; beyond it, the oldest are dropped."""


class QueueUnavailable(Exception):
    """The queue is unavailable and the call had no effect. The message gives the reason, without secrets."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A user on a channel, or the channel itself if `user_id` is empty."""

    app_id: str
    channel: str
    user_id: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """One queue: the user events, or the other events, of one app for one URL."""

    app_id: str
    url: str
    is_of_users: bool = False


@dataclass(frozen=True, slots=True)
class WebhookReport:
    """One event from the node where it happened, and the addresses that want it."""

    kind: Literal["event", "arrival", "leave"]
    subject: Subject
    at: float
    """When it happened, in seconds since 1970."""
    event: str
    """The event as JSON, as in the body."""
    urls: tuple[str, ...]
    check_in_s: float | None = None
    """Delay before checking whether it still holds. Required for a leave."""
    once_for_s: float = 0.0
    """Skip it if the subject had one within this time; only for events."""

    @property
    def addresses(self) -> list[Address]:
        """The queues that the event goes to."""
        return [Address(self.subject.app_id, url, bool(self.subject.user_id)) for url in self.urls]


@dataclass(frozen=True, slots=True)
class Check:
    """A subject that is due for a check."""

    subject: Subject
    version: str
    is_announced: bool


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    """One waiting event. `at` is when it happened, `since` is when its retries began."""

    at: float
    since: float
    event: str


@dataclass(frozen=True, slots=True)
class Batch:
    """The head of an address's queue, under a lease. `attempts` is the number of consecutive failures before it."""

    address: Address
    lease: str
    entries: tuple[QueuedEvent, ...]
    attempts: int


@dataclass(frozen=True, slots=True)
class FailedBatch:
    """Events that were not accepted in time."""

    id: int
    address: Address
    failed_at: float
    reason: str
    entries: tuple[QueuedEvent, ...]


class WebhookQueue(Protocol):
    """Stores reports, waiting events and failed ones.

    tests/conformance/test_webhook_queue.py checks these promises for every engine: the effects of a returned `record`
    or `settle` survive the death of the caller; events of one address are taken in the order of their recording; an
    address is taken by one caller at a time, and by another once the lease expires; a caller with an expired lease
    changes nothing; addresses do not wait for each other. Every method raises QueueUnavailable.
    """

    async def start(self) -> None: ...

    async def record(self, reports: Sequence[WebhookReport]) -> int:
        """Record reports, in order. Returns how many events were dropped because their address has too many waiting."""

    async def recheck(self, in_s: float) -> None:
        """Schedule a check of every subject announced or due, `in_s` from now, channels last.

        For the case that nodes died silently. Subjects already scheduled may keep their time.
        """

    async def claim(self, limit: int, lease_s: float, *, of_users: bool) -> Sequence[Check]:
        """Claim due users, or channels, longest due first.

        Hidden from others for `lease_s`, then due again.
        """

    async def settle(self, check: Check, *, is_announced: bool, report: WebhookReport | None) -> bool:
        """Finish a check: store whether the subject is announced, and queue the event about it.

        Returns False without effect if a report came since the claim; the subject is then due again at once.
        """

    async def ready(self, limit: int) -> Sequence[Address]:
        """Addresses with something to send, not leased or paused."""

    async def take(self, address: Address, limit: int, lease_s: float) -> Batch | None:
        """Lease an address and its oldest events. Returns None if it is leased, paused or empty."""

    async def done(self, batch: Batch) -> None:
        """The batch was accepted: delete it and release the address."""

    async def defer(self, batch: Batch, again_in_s: float, give_up_after_s: float, reason: str) -> int:
        """The batch was not accepted: release the address after `again_in_s`.

        Events that have waited for `give_up_after_s`, at an address that has failed for as long, are kept as failed.
        Returns how many.
        """

    async def give_up(self, batch: Batch, reason: str) -> int:
        """Keep the batch as failed now. Returns its number of events."""

    async def failed(self, limit: int = 1_000) -> Sequence[FailedBatch]:
        """Failed batches, newest first."""

    async def retry(self, batch_id: int | None) -> int:
        """Requeue a failed batch, or all (None), after the waiting events. Returns how many batches."""

    async def forget(self, batch_id: int | None) -> int:
        """Delete a failed batch, or all (None). Returns how many batches."""

    async def stop(self) -> None: ...
