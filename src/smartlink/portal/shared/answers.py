"""Helpers for endpoints to declare response headers, and errors that only some endpoints return."""

from __future__ import annotations

from typing import Any

from smartlink.portal.shared.errors import PortalError

__all__ = ["HEADERS", "raises", "shows"]

_COUNT = {"type": "string", "pattern": "^[0-9]+$"}

HEADERS: dict[str, dict[str, Any]] = {
    "X-Event-Id": {
        "description": "The last event of the channel included in this response: `after` for `GET /api/events`.",
        "schema": _COUNT,
        "example": "41",
    },
    "X-Unread-Count": {
        "description": "The total number of unread notifications.",
        "schema": _COUNT,
        "example": "3",
    },
    "ETag": {
        "description": "The record's version, for If-Match.",
        "schema": {"type": "string", "pattern": '^"[1-9][0-9]*"$'},
        "example": '"3"',
    },
    "X-Account": {
        "description": "The id of the account the session cookie belongs to.",
        "schema": {"type": "string", "pattern": "^[1-9][0-9]*$"},
        "example": "7",
    },
    "Retry-After": {
        "description": "Seconds to wait before retrying.",
        "schema": {"type": "string", "pattern": "^[1-9][0-9]*$"},
        "example": "1",
    },
    "WWW-Authenticate": {
        "description": "How to sign in.",
        "schema": {"type": "string", "enum": ["Bearer"]},
        "example": "Bearer",
    },
    "Set-Cookie": {
        "description": "The session (HttpOnly) and the CSRF token, which the page reads; expired when it ends.",
        "schema": {"type": "string"},
        "example": "smartlink_session=…; HttpOnly; Path=/; SameSite=lax",
    },
    "Content-Disposition": {
        "description": "The file's name.",
        "schema": {"type": "string"},
        "example": 'attachment; filename="transactions.csv"',
    },
}
"""All response headers of the API, for the components of its description."""


def raises(*errors: type[PortalError]) -> dict[int | str, dict[str, Any]]:
    """Return `responses` for a route: errors that do not follow from its parameters or its permissions."""
    return {error.status: {"description": error.default} for error in errors}


def shows(*headers: str, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """Return `responses` for a route: the headers of its successful response."""
    return {status: {"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers}}}
