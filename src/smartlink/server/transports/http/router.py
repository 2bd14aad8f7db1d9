"""Routes method and path to an endpoint. Calls below `/apps` and `/users` are signed, and limited per app.

Pages of other origins may call if the app lists their origin. Cookies are not used, so credentials are not allowed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from functools import lru_cache
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

Parameters: TypeAlias = dict[str, str]
_Answer: TypeAlias = Coroutine[Any, Any, HttpResponse]
Endpoint: TypeAlias = Callable[["Router", App, HttpRequest, Parameters, str], _Answer]
"""Answers a call about the channel or user that its path names, if it names one."""

_ENDINGS = {"terminate_connections": users.terminate, "force_reconnect": users.reconnect}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Content-Type, Idempotency-Key",
    "Access-Control-Max-Age": "600",
}
_UP = HttpResponse(b'{"health":"OK"}')
_DRAINING = HttpResponse(b'{"health":"draining"}', 503, {"Retry-After": "1"})


class _Route(msgspec.Struct, frozen=True):
    """What a path means. `name` is the channel or user in it; `publishes`: charged per event, not per call.

    Without `app_id` the application is the one whose key the call is signed with; without `endpoint` it is no call.
    """

    app_id: str | None
    method: str = ""
    endpoint: Endpoint | None = None
    name: str = ""
    publishes: bool = False


class Router:
    """Answers the calls of the HTTP API."""

    def __init__(
        self, node: Node, apps: AppManager, is_ready: Callable[[], bool], status: status_call.StatusEndpoint
    ) -> None:
        self.node = node
        self._apps = apps
        self._is_ready = is_ready
        self.status = status
        self.rates = Rates()

    async def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer `request`; the caller's errors become responses too."""
        metrics = self.node.metrics
        metrics.http_requests += 1
        try:
            response = self._probed(request) if request.path == "/up" else await self._call(request)
        except HttpError as error:
            metrics.http_errors += 1
            self._note_refusal(request, error)
            response = error.response()
        except BrokerUnavailable as error:
            metrics.http_errors += 1
            if (app := self._app_of(request)) is not None:
                metrics.app(app.id).fail_call(503)
            response = HttpError(503, f"{error}. Try again in a moment", {"Retry-After": "1"}).response()
        metrics.answered(response.status)
        return self._to_origin(request, response) if "origin" in request.headers else response

    def _probed(self, request: HttpRequest) -> HttpResponse:
        _check_probe(request)
        return self._up() if self._is_ready() else _DRAINING

    def _up(self) -> HttpResponse:
        """200 as long as clients are served, so that balancers keep them here; problems are in the body."""
        health = self.status.health
        problems, warnings = health.problems(), health.warnings()
        if not problems and not warnings:
            return _UP
        report = {"health": "degraded" if problems else "OK", "problems": problems, "warnings": warnings}
        return HttpResponse(msgspec.json.encode(report))

    def refusal(self, head: HttpRequest) -> HttpError | None:
        """The error to refuse a request with regardless of its body; None if that depends on the body."""
        try:
            if head.path == "/up":
                _check_probe(head, is_whole=False)
            self._admitted(head, is_whole=False)
        except HttpError as error:
            metrics = self.node.metrics
            metrics.http_requests += 1
            metrics.http_errors += 1
            metrics.answered(error.status)
            self._note_refusal(head, error)
            if "origin" not in head.headers:
                return error
            return HttpError(error.status, str(error), self._to_origin(head, error.response()).headers)
        return None

    async def _call(self, request: HttpRequest) -> HttpResponse:
        app, route, parameters = self._admitted(request)
        if request.method == "OPTIONS":
            return _preflight(app, request)
        assert route.endpoint is not None  # noqa: S101 — else the request was refused
        if route.app_id is None:
            return await route.endpoint(self, app, request, parameters, route.name)
        counted = self.node.metrics.app(app.id)
        counted.http_calls += 1
        counted.http_bytes_received += len(request.body)
        began_at = time.perf_counter()
        try:
            response = await route.endpoint(self, app, request, parameters, route.name)
        finally:
            counted.http.observe(time.perf_counter() - began_at)
        counted.http_bytes_sent += len(response.body)
        return response

    def _admitted(self, request: HttpRequest, *, is_whole: bool = True) -> tuple[App, _Route, Parameters]:
        """Find what is called, and check that the caller may. Raises HttpError for faults of the head and, if whole,
        of the body's MD5.
        """
        if request.method == "OPTIONS":
            _check_empty(request, is_whole=is_whole)
        route = _route(request.path)
        if route is None:
            raise HttpError(404, "No such path: the HTTP API is below /apps/{id}, WebSockets are at /app/{key}")
        if route.app_id is None:
            parameters = parse_query(request.query)
            app = self._apps.by_key(parameters.get("auth_key", ""))
            if app is None:
                raise HttpError(401, "auth_key is not the key of any application")
            _allow(request, route.method)
        else:
            app = self._apps.by_id(route.app_id)
            if app is None:
                raise HttpError(404, f"No application has the id {route.app_id[:40]!r}")
            if route.endpoint is None:
                raise HttpError(404, "No such call")
            if request.method == "OPTIONS":
                return app, route, {}
            if request.method != route.method:
                _allow(request, route.method)
            parameters = parse_query(request.query)
        authenticate(app, request, parameters, is_whole=is_whole)
        if not app.is_enabled:
            raise HttpError(403, "This application is disabled")
        if is_whole and not route.publishes:
            self.rates.read(app)
        return app, route, parameters

    def _app_of(self, request: HttpRequest) -> App | None:
        parts = request.path.split("/")
        return self._apps.by_id(unquote(parts[2])) if len(parts) > 2 and parts[1] == "apps" else None

    def _note_refusal(self, request: HttpRequest, error: HttpError) -> None:
        app = self._app_of(request)
        if app is not None:
            self.node.metrics.app(app.id).fail_call(error.status)
        why = f"{request.method} {request.path[:100]}: {error.status} {error}"
        self.node.feed.problem("error", "" if app is None else app.id, why)

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


@lru_cache(maxsize=256)
def _route(path: str) -> _Route | None:
    """What a path means; None if nothing. Applications send the same paths again and again."""
    parts = path.split("/")[1:]
    if len(parts) >= 3 and parts[0] == "apps":
        return _Route(unquote(parts[1]), *(_find(parts[2:]) or ()))
    if len(parts) == 3 and parts[0] == "users" and parts[2] in _ENDINGS:
        # An official client omits the application from this path; the key identifies it.
        return _Route(None, *_ending(parts[1], parts[2]))
    return None


def _find(parts: list[str]) -> tuple[str, Endpoint, str, bool] | None:
    match parts:
        case ["events"]:
            return "POST", _publish, "", True
        case ["batch_events"]:
            return "POST", _publish_batch, "", True
        case ["channels"]:
            return "GET", lambda router, app, _, asked, __: channels.list_channels(router.node, app, asked), "", False
        case ["channels", name, *rest]:
            return _find_of_channel(unquote(name), rest)
        case ["status"]:
            return "GET", lambda router, app, *_: status_call.status(router.node, app, router.status), "", False
        case ["connections"]:
            return "GET", lambda router, app, *_: channels.connections(router.node, app), "", False
        case ["users", user_id, "revoke"]:
            return "POST", _revoke_user, unquote(user_id), False
        case ["users", user_id, "info"]:
            return "POST", _change_info, unquote(user_id), False
        case ["users", user_id, verb] if verb in _ENDINGS:
            return _ending(user_id, verb)
    return None


def _find_of_channel(name: str, rest: list[str]) -> tuple[str, Endpoint, str, bool] | None:
    match rest:
        case []:
            return "GET", _of_channel(channels.show_channel), name, False
        case ["users"]:
            return "GET", _of_channel(channels.list_users), name, False
        case ["events"]:
            return "GET", _of_channel(channels.list_events), name, False
        case ["revoke"]:
            return "POST", _revoke_channel, name, False
    return None


def _of_channel(
    show: Callable[[Node, App, str, Parameters], Coroutine[Any, Any, HttpResponse]],
) -> Endpoint:
    return lambda router, app, _, parameters, name: show(router.node, app, name, parameters)


def _ending(user_id: str, verb: str) -> tuple[str, Endpoint, str, bool]:
    end = _ENDINGS[verb]
    return "POST", lambda router, app, _, __, name: end(router.node, app, name), unquote(user_id), False


def _publish(router: Router, app: App, request: HttpRequest, _: Parameters, __: str) -> _Answer:
    return events.publish(router.node, app, request, router.rates)


def _publish_batch(router: Router, app: App, request: HttpRequest, _: Parameters, __: str) -> _Answer:
    return events.publish_batch(router.node, app, request, router.rates)


def _revoke_user(router: Router, app: App, request: HttpRequest, _: Parameters, name: str) -> _Answer:
    return revoke.revoke_user(router.node, app, name, request.body)


def _revoke_channel(router: Router, app: App, request: HttpRequest, _: Parameters, name: str) -> _Answer:
    return revoke.revoke_channel(router.node, app, name, request.body)


def _change_info(router: Router, app: App, request: HttpRequest, _: Parameters, name: str) -> _Answer:
    return users.change_info(router.node, app, name, request.body)


def _allow(request: HttpRequest, *methods: str) -> None:
    if request.method not in methods:
        raise HttpError(405, f"Use {' or '.join(methods)}", {"Allow": ", ".join(methods)})


def _check_probe(request: HttpRequest, *, is_whole: bool = True) -> None:
    _allow(request, "GET", "HEAD")
    _check_empty(request, is_whole=is_whole)


def _check_empty(request: HttpRequest, *, is_whole: bool) -> None:
    """Refuse a body, whether it came with the head or is awaited."""
    if not is_whole or request.body or "transfer-encoding" in request.headers:
        raise HttpError(413, "This request takes no body")


def _preflight(app: App, request: HttpRequest) -> HttpResponse:
    """Answer a CORS preflight. Raises HttpError 403 if the origin is not listed."""
    if "*" not in app.cors_origins and request.headers.get("origin") not in app.cors_origins:
        raise HttpError(403, "Pages of this origin may not call the HTTP API of this application")
    return HttpResponse(headers=_PREFLIGHT)
