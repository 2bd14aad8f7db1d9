"""Webhooks: what happens on channels, posted to the applications. Batched, signed, retried from a queue.

`emit` appends an event to a buffer. A task moves the buffer to the queue at once, checks the subjects due there, and
runs a sender per address with something to send. Failed events stay in the queue, for this node or, if the queue is
shared, for any node.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from urllib.parse import urlsplit

import msgspec
import structlog

from smartlink.background import Background, ended
from smartlink.protocol.names import signed_in_user
from smartlink.protocol.signing import sign_webhook
from smartlink.server.apps.base import App, AppManager, WebhookTarget
from smartlink.server.apps.policies import PolicyTable
from smartlink.server.runtime.feed import Feed
from smartlink.server.runtime.metrics import Metrics
from smartlink.server.webhooks.base import OutgoingEvent
from smartlink.server.webhooks.post import Poster, Posting
from smartlink.server.webhooks.queue import (
    Address,
    Batch,
    Check,
    QueueUnavailable,
    Subject,
    WebhookQueue,
    WebhookReport,
)

__all__ = ["Occupants", "WebhookTimes", "Webhooks"]

MAX_BUFFERED = 20_000
"""Limit of buffered channel events, and separately of buffered user events."""
MAX_RECORDED = 500
MAX_CHECKED = 500
MAX_CHANNELS_CHECKED = 100
"""Channels checked before users are checked again."""
MAX_BATCH = 100
MAX_SENDERS = 128
BATCH_S = 0.1
POLL_S = 1.0
TAKEN_OVER_S = 15.0
"""How long after its time a try may begin."""
CHECK_LEASE_S = 10.0
MAX_PAUSE_S = 30.0

Occupants = Callable[[str, str], Awaitable[Collection[str] | None]]
"""Returns the ids of the users on a channel (app id, channel), over all nodes; None if the channel is vacant."""

log = structlog.get_logger(__name__)

_LEAVE_OF = {"channel_occupied": "channel_vacated", "member_added": "member_removed", "user_online": "user_offline"}
_OF_USERS = frozenset({"member_added", "member_removed", "user_online", "user_offline"})
_ARRIVAL_OF = {leave: arrival for arrival, leave in _LEAVE_OF.items()}
_WITHOUT_CHANNEL = ("user_online", "user_offline")


@dataclass(frozen=True, slots=True)
class WebhookTimes:
    """Durations in seconds."""

    grace_s: float = 3.0
    """How long a leave may be followed by a return."""
    restart_grace_s: float = 20.0
    """How long earlier clients have to return after a start."""
    cache_miss_s: float = 10.0
    """Period with at most one `cache_miss` per channel."""
    first_pause_s: float = 0.5
    """Pause of an address after its first failure; doubled with each failure, up to `MAX_PAUSE_S`."""
    retry_s: float = 300.0
    """How long a failing address is retried before its events are kept as failed."""


@dataclass(frozen=True, slots=True)
class _Buffered:
    app: App
    event: OutgoingEvent
    at: float
    monotonic: float


class Webhooks:
    """A `WebhookSink` over a queue. Opens the queue when the first app with a webhook appears."""

    def __init__(
        self,
        *,
        apps: AppManager,
        queue: WebhookQueue,
        poster: Poster,
        occupants: Occupants,
        metrics: Metrics,
        times: WebhookTimes,
        background: Background | None = None,
        feed: Feed | None = None,
    ) -> None:
        self.feed = feed or Feed()
        self._background = background or Background()
        self._apps = apps
        self._policies = PolicyTable(apps)
        self._queue = queue
        self._poster = poster
        self._occupants = occupants
        self._metrics = metrics
        self._times = times
        self._buffers: dict[bool, deque[_Buffered]] = {True: deque(), False: deque()}
        """User events (True) and the others (False)."""
        self._senders: dict[Address, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._wake_at = float("inf")
        self._is_open = self._is_draining = False
        self._must_close = False
        """Whether opening has begun; a stop may interrupt it."""
        self._stopping = asyncio.Event()
        self._has_overflown = self._is_away = self._has_taken_up = False
        self._oldest: dict[Address, tuple[float, float]] = {}
        """Addresses with a batch not accepted yet: when its oldest event happened, and when we have tried again."""

    async def start(self) -> None:
        """Open the queue if any app has webhooks. Raises QueueUnavailable if retrying cannot help."""
        if any(app.webhooks for app in self._apps.all()):
            await self._open()
        self._task = self._background.start("delivering webhooks", self._run())
        self._checking = self._background.start("checking webhook addresses", self._check_addresses())

    def emit(self, app: App, event: OutgoingEvent) -> None:
        """Buffer one event. Synchronous; never blocks. Drops and counts it when the buffer is full."""
        if self._stopping.is_set() or not any(_concerns(hook, event) for hook in app.webhooks):
            return
        if not self._policies.of(app.id, event.channel).webhooks:
            return
        buffer = self._buffers[event.name in _OF_USERS]
        if len(buffer) >= MAX_BUFFERED:
            self._drop(1, "the webhook queue cannot keep up")
            return
        buffer.append(_Buffered(app, event, time.time(), time.monotonic()))
        self._wake.set()

    @property
    def is_open(self) -> bool:
        """Whether the queue is open: it is from the first app with webhooks on."""
        return self._is_open

    @property
    def queue(self) -> WebhookQueue:
        """The queue, once it is open. Raises QueueUnavailable before."""
        if not self._is_open:
            raise QueueUnavailable("no application has webhooks yet")
        return self._queue

    def drain(self) -> None:
        """Clients are being sent away: stop checking; other nodes, or the next start, check what they leave."""
        self._is_draining = True

    async def stop(self, timeout_s: float = 2.0) -> None:
        """Flush the buffer to the queue and send for about `timeout_s`. The rest stays in the queue."""
        self._stopping.set()
        await ended(self._checking)
        if self._task is not None:
            # Do not cancel within a record: its events would be recorded twice.
            self._wake.set()
            await asyncio.wait((self._task,), timeout=timeout_s)
            await ended(self._task)
        if self._is_open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._finish()
            await ended(*self._senders.values())
        if self._must_close:
            await self._queue.stop()
        self._is_open = self._must_close = False
        self._drop(sum(map(len, self._buffers.values())), "the server is stopping and the webhook queue is unavailable")
        for buffer in self._buffers.values():
            buffer.clear()

    async def _check_addresses(self) -> None:
        """Log refused addresses now, not when there is something to post."""
        refused: dict[str, str] = {}
        for app in tuple(self._apps.all()):
            for url in {hook.url for hook in app.webhooks}:
                if url not in refused:
                    refused[url] = await self._poster.refuses(url) or ""
                if refused[url]:
                    where = urlsplit(url).netloc
                    log.error("webhook address refused", app_id=app.id, address=where, reason=refused[url])

    async def _finish(self) -> None:
        try:
            while any(self._buffers.values()):
                await self._flush()
            await self._send_what_is_ready()
            while self._senders:
                await asyncio.wait(tuple(self._senders.values()))
                await self._send_what_is_ready()
        except QueueUnavailable as error:
            log.error("webhook queue unavailable", reason=str(error))

    async def _open(self) -> None:
        if self._is_open:
            return
        self._must_close = True
        try:
            await self._queue.start()
        except QueueUnavailable:
            self._must_close = False
            raise
        self._is_open = True

    async def _recheck_leftovers(self) -> None:
        """Recheck once what a previous run left."""
        if not self._has_taken_up:
            in_s = max(self._times.restart_grace_s, self._times.grace_s)
            await self._queue.recheck(in_s)
            self._has_taken_up = True
            self._wake_by(in_s)

    @property
    def is_away(self) -> bool:
        """Whether the queue cannot be used: events wait in memory."""
        return self._is_away

    def oldest_s(self) -> float:
        """The age of the oldest event that waits here or was not accepted yet, in seconds; 0 without any.

        A batch that another node took over is forgotten when we would have tried it again.
        """
        now = time.monotonic()
        self._oldest = {address: kept for address, kept in self._oldest.items() if kept[1] > now}
        waiting = [buffer[0].at for buffer in self._buffers.values() if buffer]
        waiting += [at for at, _ in self._oldest.values()]
        return max(0.0, time.time() - min(waiting)) if waiting else 0.0

    # The task

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if any(self._buffers.values()):
                    await self._open()
                if self._is_open:
                    await self._recheck_leftovers()
                    await self._flush()
                    if not self._is_draining:
                        await self._check_due()
                    await self._send_what_is_ready()
                if self._is_away:
                    self._is_away = False
                    log.warning("webhook queue available again")
            except QueueUnavailable as error:
                if not self._is_away:
                    self._is_away = True
                    log.error("webhook queue unavailable", reason=str(error))
                await self._pause(POLL_S)
            except Exception:  # the boundary: the task must survive a bug in one round
                self._metrics.internal_errors += 1
                log.exception("internal error")
                await self._pause(POLL_S)
            await self._sleep()

    async def _sleep(self) -> None:
        """Sleep until an event is buffered, a subject is due, or it is time to take over other nodes' work."""
        if self._is_open or any(self._buffers.values()):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.0, min(POLL_S, self._wake_at - time.monotonic())))
        else:
            await self._wake.wait()
        self._wake.clear()
        if self._wake_at <= time.monotonic():
            self._wake_at = float("inf")

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless stopped."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _wake_by(self, in_s: float) -> None:
        self._wake_at = min(self._wake_at, time.monotonic() + in_s)

    async def _flush(self) -> None:
        """Move all user events and some of the others to the queue; run again for the rest."""
        of_users, others = self._buffers[True], self._buffers[False]
        while of_users:
            await self._record(of_users)
        if others:
            await self._record(others)
        if others or of_users:
            self._wake.set()
        else:
            self._has_overflown = False

    async def _record(self, buffer: deque[_Buffered]) -> None:
        grace_s = self._times.grace_s
        batch = [buffer[n] for n in range(min(MAX_RECORDED, len(buffer)))]
        began = time.monotonic()
        reports = [report for entry in batch if (report := self._report(entry, began)) is not None]
        dropped = await self._queue.record(reports)
        for _ in batch:
            buffer.popleft()
        self._drop(dropped, "too many events are waiting for this address")
        self._wake_by(grace_s)
        # Between an arrival and its record, another node may have reported and settled the leave that followed.
        if time.monotonic() - batch[0].monotonic >= grace_s:
            late = [
                replace(report, check_in_s=grace_s)
                for report in reports
                if report.kind == "arrival" and report.check_in_s is None
            ]
            if late:
                await self._queue.record(late)

    def _report(self, buffered: _Buffered, now: float) -> WebhookReport | None:
        event, name = buffered.event, buffered.event.name
        subject = Subject(buffered.app.id, event.channel, event.user_id or "" if name != "client_event" else "")
        urls = _urls(buffered.app, name, event.channel)
        if name in _ARRIVAL_OF:
            return WebhookReport("leave", subject, buffered.at, "", (), self._times.grace_s)
        if name in _LEAVE_OF:
            is_late = now - buffered.monotonic >= self._times.grace_s / 2
            check_in_s = self._times.grace_s if is_late else None
            return WebhookReport("arrival", subject, buffered.at, _text(event), urls, check_in_s)
        once_for_s = self._times.cache_miss_s if name == "cache_miss" else 0.0
        return WebhookReport("event", subject, buffered.at, _text(event), urls, once_for_s=once_for_s) if urls else None

    async def _check_due(self) -> None:
        """Check all users that are due, and some of the channels; run again for the rest."""
        while await self._check(MAX_CHECKED, of_users=True) == MAX_CHECKED:
            pass
        if await self._check(MAX_CHANNELS_CHECKED, of_users=False) == MAX_CHANNELS_CHECKED:
            self._wake.set()

    async def _check(self, limit: int, *, of_users: bool) -> int:
        checks = await self._queue.claim(limit, CHECK_LEASE_S, of_users=of_users)
        there: dict[tuple[str, str], Collection[str] | None] = {}
        for check in checks:
            channel = (check.subject.app_id, check.subject.channel)
            # Read after the claim: a later arrival or leave gives the subject a new version.
            if channel not in there:
                there[channel] = await self._occupants(*channel)
            await self._settle(check, there[channel])
        return len(checks)

    async def _settle(self, check: Check, users: Collection[str] | None) -> None:
        subject = check.subject
        app = self._apps.by_id(subject.app_id)
        if app is None:
            await self._queue.settle(check, is_announced=False, report=None)
            return
        is_signed_in_channel = signed_in_user(subject.channel) is not None
        is_there = users is not None and (is_signed_in_channel or not subject.user_id or subject.user_id in users)
        report = None
        if is_there != check.is_announced:
            names = ("member_added", "member_removed") if subject.user_id else ("channel_occupied", "channel_vacated")
            if is_signed_in_channel:
                names = _WITHOUT_CHANNEL
            event = OutgoingEvent(names[not is_there], subject.channel, subject.user_id or None)
            urls = _urls(app, event.name, subject.channel)
            report = WebhookReport("event", subject, time.time(), _text(event), urls)
        if not await self._queue.settle(check, is_announced=is_there, report=report):
            self._wake_by(0.0)

    async def _send_what_is_ready(self) -> None:
        for address in await self._queue.ready(MAX_SENDERS):
            if address not in self._senders and len(self._senders) < MAX_SENDERS:
                task = asyncio.get_running_loop().create_task(self._send_all(address))
                self._senders[address] = task
                task.add_done_callback(lambda _, address=address: self._on_sent(address))  # type: ignore[misc]

    def _on_sent(self, address: Address) -> None:
        self._senders.pop(address, None)
        self._wake.set()

    async def _send_all(self, address: Address) -> None:
        """Post the events of an address in batches until none is left or one is not accepted."""
        await self._pause(BATCH_S)
        is_deferred = False
        try:
            async with self._poster.posting() as post:
                # The lease of a dead sender must end soon after its post could have.
                while (batch := await self._queue.take(address, MAX_BATCH, self._poster.timeout_s + 2)) is not None:
                    if not await self._send(post, batch):
                        is_deferred = True
                        return
        except QueueUnavailable as error:
            log.error("webhook queue unavailable", reason=str(error))
        except Exception:  # the boundary: one address must not end the others
            self._metrics.internal_errors += 1
            log.exception("internal error")
        finally:
            if not is_deferred:
                self._oldest.pop(address, None)

    async def _send(self, post: Posting, batch: Batch) -> bool:
        """Post one batch. Returns whether the next may follow at once."""
        self._oldest[batch.address] = (batch.entries[0].at, float("inf"))
        app = self._apps.by_id(batch.address.app_id)
        if app is None or all(hook.url != batch.address.url for hook in app.webhooks):
            given_up = await self._queue.give_up(batch, "no longer an address of the application")
            self._metrics.webhooks_failed += given_up
            return True
        reason = await post(batch.address.url, *_signed(app, batch))
        if reason is None:
            await self._queue.done(batch)
            self._metrics.webhooks_sent += len(batch.entries)
            if self.feed.watches:
                events = f"[{','.join(entry.event for entry in batch.entries)}]"
                self.feed.note("webhook", app.id, event="accepted", data=events, why=_place(batch))
            return True
        pause_s = min(self._times.first_pause_s * 2 ** min(batch.attempts, 16), MAX_PAUSE_S) * random.uniform(0.75, 1.0)  # noqa: S311 — spreads tries
        given_up = await self._queue.defer(batch, pause_s, self._times.retry_s, reason)
        self._wake_by(pause_s)
        self._oldest[batch.address] = (batch.entries[0].at, time.monotonic() + pause_s + TAKEN_OVER_S)
        self._metrics.webhooks_retried += max(0, len(batch.entries) - given_up)
        self._metrics.webhooks_failed += given_up
        outcome = "failed" if given_up else "retried"
        self.feed.problem("webhook", app.id, f"{_place(batch)}: {reason}", event=outcome)
        log.warning("webhook not accepted", app=app.id, reason=reason, retry_in_s=round(pause_s, 2), given_up=given_up)
        return False

    def _drop(self, count: int, why: str) -> None:
        if not count:
            return
        self._metrics.webhooks_dropped += count
        if not self._has_overflown:
            self._has_overflown = True
            log.error("webhook events dropped", reason=why)


def _place(batch: Batch) -> str:
    """Where a batch goes, without what an address may hold of secrets."""
    where = urlsplit(batch.address.url)
    return f"{len(batch.entries)} to {where.scheme}://{where.hostname or ''}{where.path}"


def _wants(hook: WebhookTarget, name: str, channel: str) -> bool:
    if hook.events and name not in hook.events:
        return False
    if name in _WITHOUT_CHANNEL:  # on no channel: sent to an address for some channels only if listed
        return bool(hook.events) or not hook.channel_prefixes
    return not hook.channel_prefixes or channel.startswith(hook.channel_prefixes)


def _concerns(hook: WebhookTarget, event: OutgoingEvent) -> bool:
    """Whether `hook` wants the event or its opposite: reporting either correctly requires both."""
    other = _LEAVE_OF.get(event.name) or _ARRIVAL_OF.get(event.name)
    return _wants(hook, event.name, event.channel) or (other is not None and _wants(hook, other, event.channel))


def _urls(app: App, name: str, channel: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(hook.url for hook in app.webhooks if _wants(hook, name, channel)))


def _text(event: OutgoingEvent) -> str:
    fields = {name: value for name, value in asdict(event).items() if value is not None}
    if event.name in _WITHOUT_CHANNEL:
        del fields["channel"]
    return msgspec.json.encode(fields).decode()


def _signed(app: App, batch: Batch) -> tuple[bytes, dict[str, str]]:
    """The body and its headers. The time is the newest event's, the same on every attempt."""
    events: Sequence[str] = [entry.event for entry in batch.entries]
    time_ms = int(max(entry.at for entry in batch.entries) * 1000)
    body = f'{{"time_ms":{time_ms},"events":[{",".join(events)}]}}'.encode()
    return body, {
        "Content-Type": "application/json",
        "X-Pusher-Key": app.key,
        "X-Pusher-Signature": sign_webhook(app.secret, body),
    }
