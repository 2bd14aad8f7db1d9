"""The paths of the HTTP fallback, and CORS.

`POST {path}/app/{key}/{server}/{session}/xhr_streaming`, `/xhr` and `/xhr_send`, each also below `/pusher`, pusher-js'
default, and below `/s/{token}` for clients that resume. `server` is 0 to 999 and `session` 8 characters, both drawn by
the client: with them and the application's key, anyone can read the session. They are equivalent to a token of 50
random bits, so they are never logged. A session is not bound to an address, because phones and carriers change it
between requests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

import msgspec

from smartlink.protocol import encoding
from smartlink.protocol.errors import Code
from smartlink.server.apps.base import App, AppManager
from smartlink.server.cluster.brokers.base import BrokerUnavailable
from smartlink.server.core.client_sessions import SessionToken
from smartlink.server.core.node import Node
from smartlink.server.net.requests import HttpError, HttpRequest, HttpResponse, ResponseStream
from smartlink.server.transports.admission import WRONG_ORIGIN, may_call
from smartlink.server.transports.fallback.link import OPEN_LINE, close_line, message_line
from smartlink.server.transports.fallback.sessions import SessionRefused, Sessions, UnknownSession

__all__ = ["Fallback"]

MAX_MESSAGES = 100
"""Messages per request; pusher-js sends one."""

MAX_IGNORED = 4_096
"""Largest body of a request for output, which needs none."""

_PATH = re.compile(r"(?:/s/[^/]*)?(?:/pusher)?/app/([^/]+)/(.*)/(xhr_streaming|xhr|xhr_send)")
_SESSION = re.compile(r"[0-9]{1,3}/[0-9A-Za-z]{8}")
_STREAM: Final = {
    "Content-Type": "application/javascript; charset=UTF-8",
    # Keep proxies from buffering or recoding the response, which would delay everything.
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}
_UNKNOWN = "Unknown session: it has ended or never existed"
_messages = msgspec.json.Decoder(list[str])


class Fallback:
    """Handles the requests of clients over HTTP."""

    def __init__(self, apps: AppManager, sessions: Sessions, node: Node) -> None:
        self._apps = apps
        self._node = node
        self._sessions = sessions

    def takes(self, path: str) -> bool:
        return not path.startswith("/apps/") and _PATH.fullmatch(path) is not None

    async def refusal(self, head: HttpRequest) -> HttpError | None:
        """The error to refuse a request with regardless of its body; None if that depends on the body."""
        match = _PATH.fullmatch(head.path)
        assert match is not None  # noqa: S101 — `takes` was checked
        key, session, verb = match.groups()
        app = self._apps.by_key(unquote(key))
        if app is not None and not may_call(app, head):
            return HttpError(403, WRONG_ORIGIN, cors(app, head))
        if verb != "xhr_send":
            is_long = "transfer-encoding" in head.headers or int(head.headers.get("content-length", "0")) > MAX_IGNORED
            return HttpError(413, "A polling request has no body", cors(app, head)) if is_long else None
        if app is None or not await self._sessions.has(app, session.replace("/", ".")):
            return HttpError(404, _UNKNOWN, cors(app, head))
        return None

    async def answer(self, request: HttpRequest, stream: ResponseStream) -> HttpResponse | None:
        """The response; None if it is sent through `stream`."""
        match = _PATH.fullmatch(request.path)
        assert match is not None  # noqa: S101 — `takes` was checked
        key, session, verb = match.groups()
        app = self._apps.by_key(unquote(key))
        try:
            if app is not None and not may_call(app, request):
                raise HttpError(403, WRONG_ORIGIN)
            return await self._answer(request, app, session, verb, stream)
        except SessionRefused as refused:
            app_id = "" if app is None else app.id
            self._node.refuse(refused.code.name.lower(), refused.reason, app_id, request.client_address)
            return _farewell(refused.code, refused.reason, cors(app, request))
        except UnknownSession:
            return _error(HttpError(404, _UNKNOWN), cors(app, request))
        except BrokerUnavailable:
            away = HttpError(503, "Another node is unreachable: try again in a moment", {"Retry-After": "1"})
            return _error(away, cors(app, request))
        except HttpError as error:
            return _error(error, cors(app, request))

    async def _answer(
        self, request: HttpRequest, app: App | None, session: str, verb: str, stream: ResponseStream
    ) -> HttpResponse | None:
        headers = cors(app, request)
        if request.method == "OPTIONS":
            preflight = {
                "Access-Control-Allow-Methods": "POST, OPTIONS",
                "Access-Control-Allow-Headers": "Content-Type",
                "Access-Control-Max-Age": "7200",
            }
            return HttpResponse(b"", 204, headers | preflight)
        if request.method != "POST":
            raise HttpError(405, "Use POST", {"Allow": "POST, OPTIONS"})
        if _SESSION.fullmatch(session) is None:
            raise HttpError(404, "A session path is a number from 0 to 999 and 8 letters or digits")
        session = session.replace("/", ".")
        if verb == "xhr_send":
            if app is None:
                raise UnknownSession
            await self._sessions.send(app, session, _decode(request.body))
            return HttpResponse(b"", 204, headers)
        if app is None:
            raise SessionRefused(Code.NO_SUCH_APP, "No application has this key")
        try:
            token, _ = SessionToken.parse(request.path, request.query)
        except ValueError as error:
            raise SessionRefused(Code.WRONG_PATH, str(error)) from None
        stream.begin(_STREAM | headers)
        await self._sessions.open(app, session, request, stream, token, is_poll=verb == "xhr")
        return None


def cors(app: App | None, request: HttpRequest) -> dict[str, str]:
    """Headers that let pages of allowed origins read the response. Anyone may read that an application is unknown."""
    origin = request.headers.get("origin")
    if origin is None:
        return {}
    if app is None or "*" in app.allowed_origins:
        return {"Access-Control-Allow-Origin": "*"}
    allowed = {"Access-Control-Allow-Origin": origin} if may_call(app, request) else {}
    return allowed | {"Vary": "Origin"}


def _decode(body: bytes) -> list[str]:
    try:
        messages = _messages.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise HttpError(400, "The body must be a JSON array of strings") from None
    if len(messages) > MAX_MESSAGES:
        raise HttpError(413, f"{len(messages)} messages, more than {MAX_MESSAGES}")
    return messages


def _farewell(code: int, reason: str, headers: Mapping[str, str]) -> HttpResponse:
    """A response that opens, gives the reason, and closes: pusher-js acts on a code only after an open."""
    body = OPEN_LINE + message_line([encoding.error(reason, code)]) + close_line(code, reason)
    return HttpResponse(body, 200, _STREAM | dict(headers))


def _error(error: HttpError, headers: Mapping[str, str]) -> HttpResponse:
    return HttpResponse(msgspec.json.encode({"error": str(error)}), error.status, dict(error.headers) | dict(headers))
