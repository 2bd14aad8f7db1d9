"""Who may connect: the origin, the application, the protocol, the room there is. The same over every transport."""

from __future__ import annotations

import secrets
from urllib.parse import parse_qs

from smartlink.protocol.errors import Code
from smartlink.protocol.session import Session
from smartlink.server.apps.base import App
from smartlink.server.node import Node
from smartlink.server.requests import HttpError, Request

__all__ = ["check_origin", "new_session", "refusal"]

_PROTOCOLS = frozenset({"5", "6", "7"})


def check_origin(app: App, request: Request) -> None:
    """Raises HttpError 403 when a page of this origin may not connect. Clients that are no browser send none."""
    origin = request.headers.get("origin")
    if origin is None or "*" in app.allowed_origins or origin in app.allowed_origins:
        return
    raise HttpError(403, "This origin may not connect to the application")


def refusal(node: Node, app: App | None, query: str) -> tuple[Code, str] | None:
    """Why a client with this query may not connect: what it must be told before the end. None when it may."""
    if app is None:
        return Code.NO_SUCH_APP, "No application has this key"
    protocol = parse_qs(query).get("protocol", [""])[0]
    if not protocol:
        return Code.NO_PROTOCOL, "Say which protocol you speak: ?protocol=7"
    if protocol not in _PROTOCOLS:
        return Code.UNSUPPORTED_PROTOCOL, "Protocol 7 is spoken here"
    if not node.has_room(app):
        return Code.OVER_CAPACITY, f"The application has {app.max_connections} connections, the most it may have"
    return None


def new_session(app: App) -> Session:
    """A session with a socket id that nobody can guess."""
    return Session(f"{secrets.randbits(31)}.{secrets.randbits(31)}", app.rules())
