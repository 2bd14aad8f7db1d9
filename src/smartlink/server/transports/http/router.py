"""Routes method and path to an endpoint. Calls below `/apps` and `/users` are signed, and limited per app.

Pages of other origins may call if the app lists their origin. Cookies are not used, so credentials are not allowed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import unquote

import msgspec

from smartlink.server.apps.base import App, AppManager
from smartlink.server.cluster.brokers.base import BrokerUnavailable
from smartlink.server.core.node import Node
from smartlink.server.net.requests import HttpError, HttpRequest, HttpResponse
from smartlink.server.transports.http import channels, events, revoke, users
from smartlink.server.transports.http import status as status_call
from smartlink.server.transports.http.auth import authenticate, parse_query
from smartlink.server.transports.http.rates import Rates

__all__ = ["Router"]

Endpoint: TypeAlias = Callable[[dict[str, str]], Coroutine[Any, Any, HttpResponse]]

_PUBLISHING = ("/events", "/batch_events")
_ENDINGS = {"terminate_connections": users.terminate, "force_reconnect": users.reconnect}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Content-Type, Idempotency-Key",
    "Access-Control-Max-Age": "600",
}
_UP = HttpResponse(b'{"health":"OK"}')
_DRAINING = HttpResponse(b'{"health":"draining"}', 503, {"Retry-After": "1"})


class Router:
    """Answers the calls of the HTTP API."""

    def __init__(
        self, node: Node, apps: AppManager, is_ready: Callable[[], bool], status: status_call.StatusEndpoint
    ) -> None:
        self._node = node
        self._apps = apps
        self._is_ready = is_ready
        self._status = status
        self.rates = Rates()

    async def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer `request`; the caller's errors become responses too."""
        metrics = self._node.metrics
        metrics.http_requests += 1
        response = await self._answer(request)
        metrics.answered(response.status)
        return self._to_origin(request, response) if "origin" in request.headers else response

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        metrics = self._node.metrics
        try:
            return await self._dispatch(request)
        except HttpError as error:
            metrics.http_errors += 1
            self._note_refusal(request, error)
            return error.response()
        except BrokerUnavailable as error:
            metrics.http_errors += 1
            if (app := self._app_of(request)) is not None:
                metrics.app(app.id).fail_call(503)
            return HttpError(503, f"{error}. Try again in a moment", {"Retry-After": "1"}).response()

    def _up(self) -> HttpResponse:
        """200 as long as clients are served, so that balancers keep them here; problems are in the body."""
        health = self._status.health
        problems, warnings = health.problems(), health.warnings()
        if not problems and not warnings:
            return _UP
        report = {"health": "degraded" if problems else "OK", "problems": problems, "warnings": warnings}
        return HttpResponse(msgspec.json.encode(report))

    def refusal(self, head: HttpRequest) -> HttpError | None:
        """The error to refuse a request with regardless of its body; None if that depends on the body."""
        try:
            if head.path == "/up" or head.method == "OPTIONS":
                raise HttpError(413, "This request takes no body")
            self._call(head, is_whole=False)
        except HttpError as error:
            metrics = self._node.metrics
            metrics.http_requests += 1
            metrics.http_errors += 1
            metrics.answered(error.status)
            self._note_refusal(head, error)
            if "origin" not in head.headers:
                return error
            return HttpError(error.status, str(error), self._to_origin(head, error.response()).headers)
        return None

    async def _dispatch(self, request: HttpRequest) -> HttpResponse:
        if request.path == "/up":
            _allow(request, "GET", "HEAD")
            if not self._is_ready():
                return _DRAINING
            return self._up()
        return await self._call(request)()

    def _call(self, request: HttpRequest, *, is_whole: bool = True) -> Callable[[], Coroutine[Any, Any, HttpResponse]]:
        """Find the handler of a request. Raises HttpError for faults of its head and, if whole, of its body's MD5."""
        parts = request.path.split("/")[1:]
        if parts[0] == "apps" and len(parts) >= 3:
            return self._app_call(request, parts[1], parts[2:], is_whole=is_whole)
        if parts[0] == "users" and len(parts) == 3 and (end := _ENDINGS.get(parts[2])) is not None:
            # An official client omits the application from this path; the key identifies it.
            parameters = parse_query(request.query)
            app = self._apps.by_key(parameters.get("auth_key", ""))
            if app is None:
                raise HttpError(401, "auth_key is not the key of any application")
            _allow(request, "POST")
            self._admit(app, request, parameters, is_whole=is_whole)
            return partial(end, self._node, app, unquote(parts[1]))
        raise HttpError(404, "No such path: the HTTP API is below /apps/{id}, WebSockets are at /app/{key}")

    def _app_call(
        self, request: HttpRequest, app_id: str, parts: list[str], *, is_whole: bool
    ) -> Callable[[], Coroutine[Any, Any, HttpResponse]]:
        app = self._apps.by_id(unquote(app_id))
        if app is None:
            raise HttpError(404, f"No application has the id {unquote(app_id)[:40]!r}")
        call = self._find(request, app, parts)
        if call is None:
            raise HttpError(404, "No such call")
        method, endpoint = call
        if request.method == "OPTIONS":
            return partial(_preflight, app, request)
        _allow(request, method)
        parameters = parse_query(request.query)
        self._admit(app, request, parameters, is_whole=is_whole)
        return partial(self._carry_out, app, request, endpoint, parameters)

    async def _carry_out(
        self, app: App, request: HttpRequest, endpoint: Endpoint, parameters: dict[str, str]
    ) -> HttpResponse:
        counted = self._node.metrics.app(app.id)
        counted.http_calls += 1
        counted.http_bytes_received += len(request.body)
        began_at = time.perf_counter()
        try:
            response = await endpoint(parameters)
        finally:
            counted.http.observe(time.perf_counter() - began_at)
        counted.http_bytes_sent += len(response.body)
        return response

    def _admit(self, app: App, request: HttpRequest, parameters: dict[str, str], *, is_whole: bool) -> None:
        """Raises HttpError if the caller is not the app, or the app is disabled or over its rate."""
        authenticate(app, request, parameters, is_whole=is_whole)
        if not app.is_enabled:
            raise HttpError(403, "This application is disabled")
        if is_whole and not (request.method == "POST" and request.path.endswith(_PUBLISHING)):
            self.rates.read(app)

    def _app_of(self, request: HttpRequest) -> App | None:
        parts = request.path.split("/")
        return self._apps.by_id(unquote(parts[2])) if len(parts) > 2 and parts[1] == "apps" else None

    def _note_refusal(self, request: HttpRequest, error: HttpError) -> None:
        app = self._app_of(request)
        if app is not None:
            self._node.metrics.app(app.id).fail_call(error.status)
        why = f"{request.method} {request.path[:100]}: {error.status} {error}"
        self._node.feed.problem("error", "" if app is None else app.id, why)

    def _to_origin(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Add the headers that let pages of the app's listed origins read the response."""
        parts = request.path.split("/")
        app = self._apps.by_id(unquote(parts[2])) if len(parts) > 3 and parts[1] == "apps" else None
        if app is None or not app.cors_origins:
            return response
        headers = dict(response.headers) | {"Vary": "Origin"}
        if "*" in app.cors_origins:
            headers["Access-Control-Allow-Origin"] = "*"
        elif request.headers["origin"] in app.cors_origins:
            headers["Access-Control-Allow-Origin"] = request.headers["origin"]
        headers["Access-Control-Expose-Headers"] = "Retry-After"
        return msgspec.structs.replace(response, headers=headers)

    def _find(self, request: HttpRequest, app: App, parts: list[str]) -> tuple[str, Endpoint] | None:
        node = self._node
        charge = partial(self.rates.publish, app)
        match parts:
            case ["events"]:
                return "POST", lambda _: events.publish(node, app, request, charge)
            case ["batch_events"]:
                return "POST", lambda _: events.publish_batch(node, app, request, charge)
            case ["channels"]:
                return "GET", lambda parameters: channels.list_channels(node, app, parameters)
            case ["channels", name, *rest]:
                return self._find_of_channel(request, app, unquote(name), rest)
            case ["status"]:
                return "GET", lambda _: status_call.status(node, app, self._status)
            case ["connections"]:
                return "GET", lambda _: channels.connections(node, app)
            case ["users", user_id, "revoke"]:
                return "POST", lambda _: revoke.revoke_user(node, app, unquote(user_id), request.body)
            case ["users", user_id, "info"]:
                return "POST", lambda _: users.change_info(node, app, unquote(user_id), request.body)
            case ["users", user_id, verb] if (end := _ENDINGS.get(verb)) is not None:
                return "POST", lambda _: end(node, app, unquote(user_id))
        return None

    def _find_of_channel(
        self, request: HttpRequest, app: App, name: str, rest: list[str]
    ) -> tuple[str, Endpoint] | None:
        node = self._node
        match rest:
            case []:
                return "GET", lambda parameters: channels.show_channel(node, app, name, parameters)
            case ["users"]:
                return "GET", lambda parameters: channels.list_users(node, app, name, parameters)
            case ["events"]:
                return "GET", lambda parameters: channels.list_events(node, app, name, parameters)
            case ["revoke"]:
                return "POST", lambda _: revoke.revoke_channel(node, app, name, request.body)
        return None


def _allow(request: HttpRequest, *methods: str) -> None:
    if request.method not in methods:
        raise HttpError(405, f"Use {' or '.join(methods)}", {"Allow": ", ".join(methods)})


async def _preflight(app: App, request: HttpRequest) -> HttpResponse:
    """Answer a CORS preflight. Raises HttpError 403 if the origin is not listed."""
    if "*" not in app.cors_origins and request.headers.get("origin") not in app.cors_origins:
        raise HttpError(403, "Pages of this origin may not call the HTTP API of this application")
    return HttpResponse(headers=_PREFLIGHT)
