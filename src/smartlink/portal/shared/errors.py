"""What the API answers when it cannot do what was asked, in one form: `{"message"}`, with `errors` on 422.

PortalError
├── Unauthenticated      401  the caller: sign in
├── Forbidden            403  the caller: not allowed
├── NotFound             404  the caller: not there, or not theirs
├── Conflict             409  the caller: somebody else was first; `version` is the present one
├── AnotherAccount       409  the page: it shows one account, the session is another's; `X-Account` names that one
├── TooLarge             413  the caller: send less
├── CsrfMismatch         419  the page: send X-XSRF-TOKEN
├── Invalid              422  the caller: `errors` names the fields
├── TooMany              429  the caller: wait
├── Busy                 503  callers wait and try again
├── RealtimeUnavailable  503  the operator; callers wait and try again
└── DatabaseAway         503  the operator; callers wait and try again
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from smartlink.portal.shared.times import A_TIME

__all__ = [
    "AnotherAccount",
    "Busy",
    "Conflict",
    "CsrfMismatch",
    "DatabaseAway",
    "Forbidden",
    "Invalid",
    "NotFound",
    "PortalError",
    "RealtimeUnavailable",
    "TooLarge",
    "TooMany",
    "Unauthenticated",
    "by_field",
    "handle_errors",
]

log = logging.getLogger(__name__)


class PortalError(Exception):
    """The root. `status` is the answer's; `message` is for the caller."""

    status = 500
    default = "Server error."

    def __init__(self, message: str | None = None) -> None:
        self.message = message or self.default
        super().__init__(self.message)

    @property
    def headers(self) -> dict[str, str]:
        """Headers the answer carries."""
        return {}

    @property
    def body(self) -> dict[str, object]:
        """The answer's body."""
        return {"message": self.message}


class Unauthenticated(PortalError):
    """Nobody is signed in."""

    status = 401
    default = "Unauthenticated."

    @property
    def headers(self) -> dict[str, str]:
        return {"www-authenticate": "Bearer"}


class Forbidden(PortalError):
    """Signed in, but not allowed."""

    status = 403
    default = "This action is not allowed."


class NotFound(PortalError):
    """Not there, or not the caller's: both look the same."""

    status = 404
    default = "Not found."


class Conflict(PortalError):
    """The caller knows an older version than the present one; nothing was changed."""

    status = 409
    default = "This was changed meanwhile. Load it again."

    def __init__(self, version: int) -> None:
        super().__init__()
        self.version = version

    @property
    def body(self) -> dict[str, object]:
        return {"message": self.message, "version": self.version}


class AnotherAccount(PortalError):
    """A page shows one account, and its browser has signed in to another since; nothing was changed."""

    status = 409
    default = "Another account is signed in on this browser."

    def __init__(self, account_id: int) -> None:
        super().__init__()
        self.account_id = account_id

    @property
    def headers(self) -> dict[str, str]:
        return {"x-account": str(self.account_id)}


class TooLarge(PortalError):
    """The body is larger than any that we ask for."""

    status = 413
    default = "The body is too large."


class CsrfMismatch(PortalError):
    """A page's request without the token that only the page can read."""

    status = 419
    default = "CSRF token mismatch."


class Invalid(PortalError):
    """Input that does not fit; `errors` says which field, and why."""

    status = 422

    def __init__(self, errors: Mapping[str, Sequence[str]]) -> None:
        self.errors = {field: list(texts) for field, texts in errors.items()}
        super().__init__(_summary(self.errors))

    @property
    def body(self) -> dict[str, object]:
        return {"message": self.message, "errors": self.errors}


class TooMany(PortalError):
    """Too often. `retry_after_s` says when the next one is taken."""

    status = 429
    default = "Too many attempts."

    def __init__(self, retry_after_s: float) -> None:
        super().__init__()
        self.retry_after_s = max(1, math.ceil(retry_after_s))

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": str(self.retry_after_s)}


class DatabaseAway(PortalError):
    """The database is away or locked; nothing was changed."""

    status = 503
    default = "Service unavailable."

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": "1"}


class Busy(PortalError):
    """More are waiting for what takes long than there is room for."""

    status = 503
    default = "Too many people are signing in. Try again in a second."

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": "1"}


class RealtimeUnavailable(PortalError):
    """The realtime server does not answer; nothing was changed."""

    status = 503
    default = "The realtime server does not answer."

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": "1"}


def handle_errors(app: FastAPI, on_error: Callable[[str, str], None]) -> None:
    """Give every error of `app` the one form. `on_error` hears the kind and the path of each that is our fault."""

    @app.exception_handler(PortalError)
    async def portal_error(_request: Request, error: PortalError) -> JSONResponse:
        if isinstance(error, DatabaseAway):
            log.warning("database away: %s", error.__cause__.__class__.__name__)
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        remapped = Invalid(by_field(error.errors(), behind=1))
        return JSONResponse(remapped.body, remapped.status)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:
            # The framework's word for a body that it cannot read; ours for all bad input is 422.
            unread = Invalid({"body": ["The body is not JSON."]})
            return JSONResponse(unread.body, unread.status)
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_methods_of(app, request))
        return JSONResponse({"message": error.detail}, error.status_code, headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> JSONResponse:
        # Nobody hears it; that it is answered says that it was no fault of ours.
        return JSONResponse({"message": "The client gave up on the request."}, 400)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        route = request.scope.get("route")
        on_error(type(error).__name__, getattr(route, "path", "unknown"))
        return JSONResponse({"message": PortalError.default}, 500)


def _methods_of(app: FastAPI, request: Request) -> list[str]:
    """What the path can be asked with: the framework itself names the methods of its first route only."""
    path = request.scope["path"]
    found = {
        method.upper()
        for template, methods in app.openapi()["paths"].items()
        if re.fullmatch(re.sub(r"{[a-z_]+}", "[^/]+", template.replace(".", r"\.")), path)
        for method in methods
    }
    return sorted(found) or ["GET", "HEAD"]


def by_field(errors: Sequence[Any], behind: int = 0) -> dict[str, list[str]]:
    """What is wrong with which field, of pydantic's errors; `behind` so many names of where the input came from."""
    found: dict[str, list[str]] = {}
    for error in errors:
        place = [str(part) for part in error["loc"][behind:]]
        field = ".".join(place) if place and error["type"] != "json_invalid" else "body"
        found.setdefault(field[:80].encode("utf-8", "replace").decode(), []).append(_text(field[:80], error))
    return found


def _text(field: str, error: Any) -> str:
    kind, limits = error["type"], error.get("ctx", {})
    label = field.encode("utf-8", "replace").decode().replace("_", " ")
    if kind == "json_invalid":
        return "The body is not JSON."
    if kind == "missing":
        return f"The {label} field is required."
    if kind in ("string_too_short", "too_short") and limits.get("min_length") == 1:
        return f"The {label} field must not be empty."
    things = "entries" if limits.get("field_type") == "List" else "characters"
    said = next((text for beginning, text in _SAID.items() if kind.startswith(beginning)), "is not valid")
    return f"The {label} field {said.format(**limits, things=things)}."


_SAID = {
    "string_type": "must be text",
    "string_unicode": "must be text",
    "bool": "must be true or false",
    "int": "must be a whole number",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    # Behind a check of ours a text's length is told as anything's.
    "string_too_long": "must not have more than {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "too_long": "must not have more than {max_length} {things}",
    "too_short": "must have at least {min_length} {things}",
    "literal_error": "must be {expected}",
    "datetime": A_TIME,
    "timezone": A_TIME,
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_attributes_type": "must be an object",
    "value_error": "{error}",
}
"""What is said of an error whose kind begins so."""


def _summary(errors: Mapping[str, Sequence[str]]) -> str:
    texts = [text for field in errors.values() for text in field]
    if not texts:
        return "The given data is not valid."
    if len(texts) == 1:
        return texts[0]
    more = len(texts) - 1
    return f"{texts[0]} (and {more} more error{'s' if more > 1 else ''})"
