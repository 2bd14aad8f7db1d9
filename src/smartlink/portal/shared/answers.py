"""What endpoints declare of their answers beside the body: errors that only some give, and headers."""

from __future__ import annotations

from typing import Any

from smartlink.portal.shared.errors import PortalError

__all__ = ["HEADERS", "raises", "shows"]

_COUNT = {"type": "string", "pattern": "^[0-9]+$"}

HEADERS: dict[str, dict[str, Any]] = {
    "X-Event-Id": {
        "description": "Up to which event of its channel the answer is current: the `after` of `GET /api/events`.",
        "schema": _COUNT,
        "example": "41",
    },
    "X-Unread-Count": {
        "description": "How many notifications are unread in all.",
        "schema": _COUNT,
        "example": "3",
    },
    "ETag": {
        "description": "The record's version, to be sent back as If-Match.",
        "schema": {"type": "string", "pattern": '^"[1-9][0-9]*"$'},
        "example": '"3"',
    },
    "X-Account": {
        "description": "The id of the account that the session cookie belongs to.",
        "schema": {"type": "string", "pattern": "^[1-9][0-9]*$"},
        "example": "7",
    },
    "Retry-After": {
        "description": "Seconds to wait before the next attempt.",
        "schema": {"type": "string", "pattern": "^[1-9][0-9]*$"},
        "example": "1",
    },
    "WWW-Authenticate": {
        "description": "How to sign in.",
        "schema": {"type": "string", "enum": ["Bearer"]},
        "example": "Bearer",
    },
    "Set-Cookie": {
        "description": "The session, HttpOnly, and the CSRF token that the page reads; expired ones when it ends.",
        "schema": {"type": "string"},
        "example": "smartlink_session=…; HttpOnly; Path=/; SameSite=lax",
    },
    "Content-Disposition": {
        "description": "The file's name.",
        "schema": {"type": "string"},
        "example": 'attachment; filename="transactions.csv"',
    },
}
"""Every header that an endpoint tells something in."""


def raises(*errors: type[PortalError]) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: errors it gives that do not follow from its parameters or from who may call it."""
    return {error.status: {"description": error.default} for error in errors}


def shows(*headers: str, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: headers of the answer that succeeds."""
    return {status: {"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers}}}
