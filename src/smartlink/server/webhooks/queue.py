"""The port `WebhookQueue`: what is to be told to whom, kept where a restart, and other nodes, find it again.

Two things live in it. *Subjects*: a channel, or a user on a channel, with what was last told of it and when it must be
looked at again. *Waiting events*: one queue per address (app, URL and lane), taken by one node at a time under a lease.

What is told of users has a lane of its own, with places of its own: however many channels strangers make, they neither
delay who came and went nor take its room.

A subject is told of by state, not by edge. An arrival is told when the subject is not announced yet; a leave only asks
for a look later, and what that look finds is told. Every report gives its subject a new version, and a look counts only
if no report came meanwhile: so whatever order the nodes' reports arrive in, what was told last is the truth.
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
"""Events one address may have waiting, and as many of users; what comes on top is dropped and counted."""
MAX_FAILED = 1_000
"""Batches kept as failed per address; the oldest make room."""


class QueueUnavailable(Exception):
    """The queue cannot be used now; nothing of the call has happened. The message says why, without secrets."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A user on a channel, or with an empty `user_id` the channel itself."""

    app_id: str
    channel: str
    user_id: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """One queue: the events of one app for one URL that are of users, or those that are not."""

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
    """The event as JSON text, as it stands in the body."""
    urls: tuple[str, ...]
    check_in_s: float | None = None
    """When to look whether it is still so. Always given for a leave."""
    once_for_s: float = 0.0
    """Skip it when one was reported for the subject within this time; only for events."""

    @property
    def addresses(self) -> list[Address]:
        """Where the event is to wait."""
        return [Address(self.subject.app_id, url, bool(self.subject.user_id)) for url in self.urls]


@dataclass(frozen=True, slots=True)
class Check:
    """A subject that is due for a look."""

    subject: Subject
    version: str
    is_announced: bool


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    """One waiting event. `at`: when it happened; `since`: from when its tries count."""

    at: float
    since: float
    event: str


@dataclass(frozen=True, slots=True)
class Batch:
    """The head of an address's queue, taken under a lease. `attempts` have failed in a row before this one."""

    address: Address
    lease: str
    entries: tuple[QueuedEvent, ...]
    attempts: int


@dataclass(frozen=True, slots=True)
class FailedBatch:
    """Events that were not taken in time."""

    id: int
    address: Address
    failed_at: float
    reason: str
    entries: tuple[QueuedEvent, ...]


class WebhookQueue(Protocol):
    """Keeps reports, waiting events and failed ones.

    Promises, tried on every engine by tests/conformance/test_webhook_queue.py: what `record` or `settle` has returned
    for survives the death of the caller; events of one address are taken in the order they were recorded in; an
    address is taken by one caller at a time, and by another once the lease is over; a caller whose lease is over
    changes nothing any more; addresses do not wait for each other. Everything raises QueueUnavailable.
    """

    async def start(self) -> None: ...

    async def record(self, reports: Sequence[WebhookReport]) -> int:
        """Take reports, in order. Returns how many events were dropped because their address has too many waiting."""

    async def recheck(self, in_s: float) -> None:
        """Have everything announced or due looked at, `in_s` from now, channels last.

        Nodes may have died without a word. What others look at anyway may keep its time.
        """

    async def claim(self, limit: int, lease_s: float, *, of_users: bool) -> Sequence[Check]:
        """Users, or channels, that are due, longest due first.

        Not given to others for `lease_s`; due again afterwards.
        """

    async def settle(self, check: Check, *, is_announced: bool, told: WebhookReport | None) -> bool:
        """End a look: what is announced from now on, and the event that says so.

        False, and nothing is done, when a report came since the claim: the subject is then due again at once.
        """

    async def ready(self, limit: int) -> Sequence[Address]:
        """Addresses with something to send, not leased and not to be spared until later."""

    async def take(self, address: Address, limit: int, lease_s: float) -> Batch | None:
        """Lease an address and its oldest events. None when it is leased, spared or empty."""

    async def done(self, batch: Batch) -> None:
        """The batch was taken by its receiver: forget it, free the address."""

    async def defer(self, batch: Batch, again_in_s: float, give_up_after_s: float, reason: str) -> int:
        """The batch was not taken: free the address in `again_in_s`.

        Events that waited, at an address that failed, both for `give_up_after_s`, are kept as failed; returns how many.
        """

    async def give_up(self, batch: Batch, reason: str) -> int:
        """Keep the batch as failed at once; returns its number of events."""

    async def failed(self, limit: int = 1_000) -> Sequence[FailedBatch]:
        """Failed batches, newest first."""

    async def retry(self, batch_id: int | None) -> int:
        """Let a failed batch, or all (None), wait anew, behind what waits already. Returns how many batches."""

    async def forget(self, batch_id: int | None) -> int:
        """Delete a failed batch, or all (None). Returns how many batches."""

    async def stop(self) -> None: ...
