"""The operator API: JSON over HTTP beside the metrics. See docs/howto/dashboard.md for the calls."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from smartlink.server.observe.access import Access, Operator, Request
from smartlink.server.observe.charts import SERIES, SPANS
from smartlink.server.observe.operators import Operators
from smartlink.server.observe.questions import MAX_PAGE
from smartlink.server.observe.records import Question
from smartlink.server.observe.webhook_desk import Refused
from smartlink.server.runtime.feed import KINDS, MAX_PATTERN, Filter

__all__ = ["OperatorApi", "Response"]

MAX_TEXT: Final = 300
ALIVE_S: Final = 10.0
"""How often a silent console is sent a comment, to notice that it is gone."""
_ALL_ONLY: Final = "This token is for one application; this concerns all of them"
_JSON: Final = {"Content-Type": "application/json"}
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; `stream` takes the place of `body` for one that stays open."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: dict(_JSON))
    stream: AsyncIterator[bytes] | None = None


class _Event(msgspec.Struct, forbid_unknown_fields=True):
    channel: str
    event: str
    data: str
    app: str | None = None


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    id: int | None
    app: str | None = None


_Handler = Callable[[Request, Operator], Awaitable[Any]]


class OperatorApi:
    """Answers requests below `/api/`. Never raises: faults become answers with `error`."""

    def __init__(self, operators: Operators, access: Access, version: str) -> None:
        self._operators = operators
        self._access = access
        self._version = version
        self._calls: dict[tuple[str, str], _Handler] = {
            ("GET", "session"): self._session,
            ("GET", "overview"): self._overview,
            ("GET", "apps"): self._apps,
            ("GET", "connections"): self._connections,
            ("GET", "connection"): self._connection,
            ("GET", "channels"): self._channels,
            ("GET", "channel"): self._channel,
            ("GET", "explain"): self._explain,
            ("GET", "problems"): self._problems,
            ("GET", "console"): self._console,
            ("GET", "charts"): self._charts,
            ("GET", "audit"): self._audit,
            ("GET", "webhooks"): self._webhooks,
            ("POST", "events"): self._send,
            ("POST", "webhooks/retry"): self._retry,
            ("POST", "webhooks/forget"): self._forget,
        }

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        try:
            operator = self._access.check(request)
            name = request.path.removeprefix("/api/")
            call = self._calls.get((request.method, name))
            if call is None:
                is_path = any(path == name for _, path in self._calls)
                raise Refused(405, "Not with this method") if is_path else Refused(404, "No such call")
            if request.method == "POST" and not request.headers.get("content-type", "").startswith("application/json"):
                # Pages of other origins cannot send this type without asking first.
                raise Refused(415, "Send application/json")
            result = await call(request, operator)
        except Refused as refused:
            return Response(_encode({"error": str(refused)}), refused.status)
        return result if isinstance(result, Response) else Response(_encode(result))

    # Reading

    async def _session(self, _: Request, operator: Operator) -> Any:
        return {"operator": operator.name, "app_id": operator.app_id, "version": self._version}

    async def _overview(self, _: Request, operator: Operator) -> Any:
        return await self._operators.overview(operator.app_id)

    async def _apps(self, _: Request, operator: Operator) -> Any:
        return await self._operators.apps(operator.app_id)

    async def _connections(self, request: Request, operator: Operator) -> Any:
        return await self._operators.connections(await self._page(request, operator))

    async def _connection(self, request: Request, operator: Operator) -> Any:
        app_id = await self._app_id(request, operator)
        found = await self._operators.connection(app_id, _required(request, "socket"))
        if found is None:
            raise Refused(404, "No node has this connection")
        return found

    async def _channels(self, request: Request, operator: Operator) -> Any:
        return await self._operators.channels(await self._page(request, operator))

    async def _channel(self, request: Request, operator: Operator) -> Any:
        app_id, name = await self._app_id(request, operator), _required(request, "channel")
        channel = await self._operators.channel(app_id, name)
        return {"channel": channel, "history": await self._operators.history(app_id, name)}

    async def _explain(self, request: Request, operator: Operator) -> Any:
        return await self._operators.explain(await self._app_id(request, operator), _required(request, "subject"))

    async def _problems(self, request: Request, operator: Operator) -> Any:
        app_id = operator.app_id or _text(request, "app")
        return await self._operators.problems(Question("problems", app_id=app_id))

    async def _charts(self, request: Request, operator: Operator) -> Any:
        _require_all(operator)
        span = request.query.get("span", "1h")
        if span not in SPANS:
            raise Refused(400, f"span is one of {', '.join(SPANS)}")
        return {"series": SERIES, "points": self._operators.charts.points(span)}

    async def _audit(self, _: Request, operator: Operator) -> Any:
        return self._operators.audit.actions(operator.app_id)

    async def _webhooks(self, request: Request, operator: Operator) -> Any:
        return await self._operators.failed_webhooks(operator.app_id or _text(request, "app") or None)

    async def _console(self, request: Request, operator: Operator) -> Response:
        kinds = tuple(kind for kind in _text(request, "kinds").split(",") if kind)
        if unknown := set(kinds) - set(KINDS):
            raise Refused(400, f"{min(unknown)[:40]!r} is no kind; they are {', '.join(KINDS)}")
        shown = Filter(
            app_id=operator.app_id or _text(request, "app") or None,
            channel=_text(request, "channel", MAX_PATTERN) or None,
            event=_text(request, "event", MAX_PATTERN) or None,
            user_id=_text(request, "user") or None,
            socket_id=_text(request, "socket") or None,
            kinds=kinds,
        )
        console = await self._operators.consoles.open(shown)
        self._note(operator, request, "watch", shown.app_id or "", shown.channel or shown.socket_id or "*", "open")

        async def stream() -> AsyncIterator[bytes]:
            try:
                yield b": watching\n\n"
                while True:
                    lines = await console.lines(ALIVE_S)
                    yield b"".join(b"data: %b\n\n" % line for line in lines) or b": alive\n\n"
            finally:
                await self._operators.consoles.close(console)

        headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        return Response(headers=headers, stream=stream())

    # Acting

    async def _send(self, request: Request, operator: Operator) -> Any:
        event = _decoded(request, _Event)
        app_id = await self._app_id(request, operator, event.app)
        reached = await self._acted(
            operator, request, "send event", app_id, f"{event.event} on {event.channel}",
            self._operators.send(app_id, event.channel, event.event, event.data),
        )  # fmt: skip
        return {"subscriptions": reached}

    async def _retry(self, request: Request, operator: Operator) -> Any:
        batch = _decoded(request, _Batch)
        app_id = _scope(operator, batch.app)
        call = self._operators.retry_webhooks(app_id, batch.id)
        return {"batches": await self._acted(operator, request, "replay webhooks", app_id or "", _batch(batch), call)}

    async def _forget(self, request: Request, operator: Operator) -> Any:
        batch = _decoded(request, _Batch)
        app_id = _scope(operator, batch.app)
        call = self._operators.forget_webhooks(app_id, batch.id)
        return {"batches": await self._acted(operator, request, "delete webhooks", app_id or "", _batch(batch), call)}

    async def _acted(
        self, operator: Operator, request: Request, action: str, app_id: str, target: str, call: Awaitable[int]
    ) -> int:
        try:
            count = await call
        except Refused as refused:
            self._note(operator, request, action, app_id, target, f"refused: {refused}")
            raise
        self._note(operator, request, action, app_id, target, f"done: {count}")
        return count

    def _note(self, operator: Operator, request: Request, action: str, app_id: str, target: str, outcome: str) -> None:
        self._operators.audit.note(operator.name, request.address or "unix", action, app_id, target, outcome)

    async def _page(self, request: Request, operator: Operator) -> Question:
        limit = request.query.get("limit", "50")
        if not re.fullmatch(r"[0-9]{1,4}", limit) or not 1 <= int(limit) <= MAX_PAGE:
            raise Refused(400, f"limit is a number from 1 to {MAX_PAGE}")
        return Question(
            "connections",
            app_id=await self._app_id(request, operator),
            channel=_text(request, "channel"),
            user_id=_text(request, "user"),
            text=_text(request, "text"),
            after=_text(request, "after"),
            limit=int(limit),
        )

    async def _app_id(self, request: Request, operator: Operator, named: str | None = None) -> str:
        """Return the app that a request is about: the one it names, the operator's, or the first."""
        app_id = _scope(operator, named if named is not None else _text(request, "app") or None)
        if app_id is not None:
            return app_id
        apps = await self._operators.apps(None)
        if not apps:
            raise Refused(404, "No application is served")
        return apps[0].id


def _scope(operator: Operator, named: str | None) -> str | None:
    """Return the app that an operator means; None for all. Raises Refused 403 for another than their own."""
    if operator.app_id is None:
        return named
    if named not in (None, operator.app_id):
        raise Refused(403, "This token is for another application")
    return operator.app_id


def _require_all(operator: Operator) -> None:
    if operator.app_id is not None:
        raise Refused(403, _ALL_ONLY)


def _text(request: Request, name: str, most: int = MAX_TEXT) -> str:
    value = request.query.get(name, "")
    if len(value) > most:
        raise Refused(400, f"{name} is longer than {most} characters")
    return value


def _required(request: Request, name: str) -> str:
    value = _text(request, name)
    if not value:
        raise Refused(400, f"{name} is missing")
    return value


def _decoded(request: Request, form: type[Any]) -> Any:
    try:
        return msgspec.json.decode(request.body, type=form)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Refused(400, f"Invalid body: {str(error)[:200]}") from None


def _batch(batch: _Batch) -> str:
    return "all" if batch.id is None else str(batch.id)
