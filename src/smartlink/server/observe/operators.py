"""What operators may ask and do, over all nodes. The HTTP API is in `api`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

from smartlink.background import Background, ended
from smartlink.prometheus import Samples
from smartlink.protocol.names import is_valid_channel, is_valid_socket_id
from smartlink.server.observe import explain
from smartlink.server.observe.audit import Audit
from smartlink.server.observe.charts import EVERY_S, Charts
from smartlink.server.observe.consoles import Consoles
from smartlink.server.observe.diagnosis import Diagnosis, Finding
from smartlink.server.observe.gateway import Gateway
from smartlink.server.observe.records import (
    AppReport,
    AppRow,
    ChannelRow,
    ConnectionDetail,
    ConnectionRow,
    FailedWebhook,
    ProcessReport,
    Question,
)
from smartlink.server.observe.webhook_desk import Refused, WebhookDesk
from smartlink.server.runtime.feed import Entry, Feed

__all__ = ["Operators", "Overview", "Page"]

T = TypeVar("T")


class Page(msgspec.Struct):
    """A page of a list: `next` is the `after` of the next page, empty at the end. `missing` nodes did not answer."""

    rows: list[Any]
    next: str = ""
    missing: int = 0


class AppTotals(AppReport):
    """An application over all nodes. `channels` is a lower bound when several processes serve."""

    id: str


class Overview(msgspec.Struct):
    """All nodes at a glance. An application's operator sees only `apps`."""

    findings: list[Finding]
    apps: list[AppTotals]
    processes: list[ProcessReport]
    missing: int


class Operators:
    """Answers operators. Every method raises Refused, also when no node can be reached.

    `webhooks` is given if this process delivers webhooks; else a node is asked.
    """

    def __init__(
        self,
        gateway: Gateway,
        samples: Callable[[], Samples],
        *,
        own_feed: Feed | None = None,
        webhooks: WebhookDesk | None = None,
        background: Background | None = None,
    ) -> None:
        self.consoles = Consoles(gateway, own_feed)
        self.audit = Audit()
        self.charts = Charts()
        self._gateway = gateway
        self._samples = samples
        self._own_feed = own_feed
        self._webhooks = webhooks
        self._diagnosis = Diagnosis()
        self._background = background or Background()
        self._task: asyncio.Task[None] | None = None
        self._since: dict[tuple[str, str], float] = {}
        """Since when nodes report their problems, as far as this machine has seen."""

    def start(self) -> None:
        """Begin to keep charts."""
        self._task = self._background.start("keeping charts", self._keep())

    async def stop(self) -> None:
        await ended(self._task)
        await self.consoles.stop()

    async def _keep(self) -> None:
        while True:
            at, figures = time.time(), self._samples()
            self.charts.take(at, figures)
            self._diagnosis.take(at, figures)
            await asyncio.sleep(EVERY_S)

    # Everything at once

    async def overview(self, app_id: str | None) -> Overview:
        """Return what all nodes report; of one application, only its totals."""
        processes, missing = await self._each(Question("process"), ProcessReport)
        processes.sort(key=lambda process: process.node)
        apps: dict[str, AppTotals] = {}
        for process in processes:
            for name, report in process.apps.items():
                totals = apps.setdefault(name, AppTotals(0, 0, 0, name))
                totals.connections += report.connections
                totals.subscriptions += report.subscriptions
                totals.channels = max(totals.channels, report.channels)
        if app_id is not None:
            return Overview([], [apps[app_id]] if app_id in apps else [], [], missing)
        return Overview(self._findings(processes, missing), list(apps.values()), processes, missing)

    def _findings(self, processes: list[ProcessReport], missing: int) -> list[Finding]:
        now = time.time()
        found = self._diagnosis.take(now, self._samples())
        reported: dict[tuple[str, str], Finding] = {}
        if missing:
            advice = "Look at the logs of the nodes that are not listed under Nodes."
            reported["", "missing"] = Finding("missing", "problem", f"{missing} nodes do not answer", now, advice)
        for process in processes:
            levels: tuple[tuple[Literal["problem", "warning"], list[str]], ...] = (
                ("problem", process.problems),
                ("warning", process.warnings),
            )
            for level, texts in levels:
                for text in texts:
                    advice = "See the log of this node, and: smartlink doctor"
                    reported[process.node, text] = Finding("reported", level, text, now, advice, process.node)
        self._since = {key: self._since.get(key, now) for key in reported}
        for key, finding in reported.items():
            finding.since = self._since[key]
        return sorted([*found, *reported.values()], key=lambda finding: finding.level != "problem")

    async def apps(self, app_id: str | None) -> list[AppRow]:
        """Return the applications, without their secrets."""
        rows = await self._one(Question("apps"), list[AppRow])
        return [row for row in rows if app_id in (None, row.id)]

    async def app(self, app_id: str) -> AppRow:
        """Return an application. Raises Refused 404."""
        rows = await self.apps(app_id)
        if not rows:
            raise Refused(404, "No application has this id")
        return rows[0]

    # Connections and channels

    async def connections(self, question: Question) -> Page:
        """Return a page of an app's connections; with `channel` its subscribers, with `user_id` those of a user."""
        question.kind = "connections"
        pages, missing = await self._each(question, list[ConnectionRow])
        rows = sorted((row for page in pages for row in page), key=lambda row: row.socket_id)[: question.limit]
        is_more = len(rows) == question.limit
        return Page(rows, rows[-1].socket_id if is_more else "", missing)

    async def connection(self, app_id: str, socket_id: str) -> ConnectionDetail | None:
        """Return one connection, or None."""
        question = Question("connection", app_id=app_id, socket_id=socket_id)
        found, _ = await self._each(question, ConnectionDetail | None)
        return next((detail for detail in found if detail is not None), None)

    async def channels(self, question: Question) -> Page:
        """Return a page of an app's channels with their subscriptions over all nodes."""
        question.kind = "channels"
        pages, missing = await self._each(question, list[ChannelRow])
        merged: dict[str, ChannelRow] = {}
        for page in pages:
            for row in page:
                if row.name in merged:
                    merged[row.name].subscriptions += row.subscriptions
                else:
                    merged[row.name] = row
        rows = [merged[name] for name in sorted(merged)][: question.limit]
        is_more = len(rows) == question.limit
        return Page(rows, rows[-1].name if is_more else "", missing)

    async def channel(self, app_id: str, name: str) -> ChannelRow:
        """Return one channel, which may have no subscriptions."""
        found, _ = await self._each(Question("channel", app_id=app_id, channel=name), ChannelRow)
        row: ChannelRow = found[0]
        row.subscriptions = sum(each.subscriptions for each in found)
        return row

    async def history(self, app_id: str, channel: str) -> list[dict[str, Any]]:
        """Return the event that a cache channel keeps, or none."""
        return await self._one(Question("history", app_id=app_id, channel=channel), list[dict[str, Any]])

    async def problems(self, question: Question) -> list[Entry]:
        """Return the last refusals and errors on all nodes, newest first."""
        question.kind = "problems"
        found, _ = await self._each(question, list[Entry])
        own = () if self._own_feed is None else self._own_feed.problems
        entries = [entry for part in found for entry in part]
        if not (question.channel or question.user_id or question.socket_id):
            entries += [entry for entry in own if question.app_id in ("", entry.app_id)]
        return sorted(entries, key=lambda entry: -entry.at)[: question.limit]

    async def explain(self, app_id: str, subject: str) -> explain.Explanation:
        """Explain a channel, a socket id or a user id: whichever the server knows."""
        app = await self.app(app_id)
        if is_valid_socket_id(subject):
            found = await self.connection(app_id, subject)
            problems = await self.problems(Question("problems", app_id=app_id, socket_id=subject))
            return explain.of_connection(subject, app, found, problems)
        user_page = await self.connections(Question("connections", app_id=app_id, user_id=subject))
        user_problems = await self.problems(Question("problems", app_id=app_id, user_id=subject))
        of_user = explain.of_user(subject, app, user_page.rows, user_problems)
        if not is_valid_channel(subject):
            return of_user
        channel = await self.channel(app_id, subject)
        page = await self.connections(Question("connections", app_id=app_id, channel=subject))
        problems = await self.problems(Question("problems", app_id=app_id, channel=subject))
        of_channel = explain.of_channel(subject, app, channel, page.rows, problems)
        return of_user if of_user.is_known and not of_channel.is_known else of_channel

    # Actions

    async def send(self, app_id: str, channel: str, event: str, data: str) -> int:
        """Publish a test event. Returns how many subscriptions it reaches."""
        question = Question("send", app_id=app_id, channel=channel, event=event, data=data)
        sent = await self._one(question, dict[str, int])
        return sent["subscriptions"]

    async def failed_webhooks(self, app_id: str | None) -> list[FailedWebhook]:
        """Return failed batches, newest first."""
        return await self._desk(Question("webhooks_failed", app_id=app_id or ""), list[FailedWebhook])

    async def retry_webhooks(self, app_id: str | None, batch_id: int | None) -> int:
        """Queue a failed batch again, or all. Returns how many."""
        return await self._desk(Question("webhooks_retry", app_id=app_id or "", batch_id=batch_id), int)

    async def forget_webhooks(self, app_id: str | None, batch_id: int | None) -> int:
        """Delete a failed batch, or all. Returns how many."""
        return await self._desk(Question("webhooks_forget", app_id=app_id or "", batch_id=batch_id), int)

    async def _desk(self, question: Question, form: type[T]) -> T:
        if self._webhooks is None:
            return await self._one(question, form)
        answer = await self._webhooks.answers[question.kind](question)
        return msgspec.convert(answer, form)

    async def _each(self, question: Question, form: Any) -> tuple[list[Any], int]:
        """Return the answers of all nodes, and how many are missing. Raises Refused if there is none."""
        replies = await self._gateway.ask(question)
        answered = [answer for answer in replies.answers if not answer.fault]
        if not answered:
            if replies.answers:
                raise Refused(replies.answers[0].status, replies.answers[0].fault)
            raise Refused(503, "No node answers")
        decode = msgspec.json.Decoder(form).decode
        return [decode(answer.body) for answer in answered], replies.expected - len(replies.answers)

    async def _one(self, question: Question, form: type[T]) -> T:
        found, _ = await self._each(question, form)
        one: T = found[0]
        return one
