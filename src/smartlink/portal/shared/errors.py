"""The API's errors. All have one form: `{"message"}`, with `errors` on 422.

PortalError
├── Unauthenticated      401  sign in
├── Forbidden            403  not allowed
├── NotFound             404  does not exist, or is not the caller's
├── Conflict             409  changed by someone else; `version` is the current one
├── AnotherAccount       409  the page shows another account than the session's, which `X-Account` names
├── TooLarge             413  send less
├── CsrfMismatch         419  send X-XSRF-TOKEN
├── Invalid              422  `errors` names the fields
├── TooMany              429  wait
├── Busy                 503  wait and retry
├── RealtimeUnavailable  503  wait and retry; a problem for the operator
└── DatabaseAway         503  wait and retry; a problem for the operator
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

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
]


class PortalError(Exception):
    """The base class. `status` is the HTTP status, `message` is for the caller, `default` the usual message."""

    status = 500
    default = "Server error."

    def __init__(self, message: str | None = None) -> None:
        self.message = message or self.default
        super().__init__(self.message)

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers."""
        return {}

    @property
    def body(self) -> dict[str, object]:
        """The response's body."""
        return {"message": self.message}


class Unauthenticated(PortalError):
    """The request comes without a valid token or session."""

    status = 401
    default = "Unauthenticated."

    @property
    def headers(self) -> dict[str, str]:
        return {"www-authenticate": "Bearer"}


class Forbidden(PortalError):
    """The caller is signed in, but not allowed to do this."""

    status = 403
    default = "This action is not allowed."


class NotFound(PortalError):
    """The record does not exist or is not the caller's; the two are indistinguishable."""

    status = 404
    default = "Not found."


class Conflict(PortalError):
    """The change is based on an older version than the current one; nothing was changed."""

    status = 409
    default = "This has changed since you loaded it. Reload and try again."

    def __init__(self, version: int) -> None:
        super().__init__()
        self.version = version

    @property
    def body(self) -> dict[str, object]:
        return {"message": self.message, "version": self.version}


class AnotherAccount(PortalError):
    """The page shows one account, but its browser has signed in to another since; nothing was changed."""

    status = 409
    default = "This browser is signed in to another account."

    def __init__(self, account_id: int) -> None:
        super().__init__()
        self.account_id = account_id

    @property
    def headers(self) -> dict[str, str]:
        return {"x-account": str(self.account_id)}


class TooLarge(PortalError):
    """The body is larger than any valid request."""

    status = 413
    default = "The request body is too large."


class CsrfMismatch(PortalError):
    """A request by cookie lacks the CSRF token, which only our own pages can read."""

    status = 419
    default = "CSRF token mismatch."


class Invalid(PortalError):
    """The input is invalid. `errors` maps field names to messages."""

    status = 422

    def __init__(self, errors: Mapping[str, Sequence[str]]) -> None:
        self.errors = {field: list(texts) for field, texts in errors.items()}
        super().__init__(_summary(self.errors))

    @property
    def body(self) -> dict[str, object]:
        return {"message": self.message, "errors": self.errors}


class TooMany(PortalError):
    """The caller exceeded a rate limit. `retry_after_s` is the wait in whole seconds, at least 1."""

    status = 429
    default = "Too many attempts."

    def __init__(self, retry_after_s: float) -> None:
        super().__init__()
        self.retry_after_s = max(1, math.ceil(retry_after_s))

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": str(self.retry_after_s)}


class DatabaseAway(PortalError):
    """The database is unavailable or locked; nothing was changed."""

    status = 503
    default = "Service unavailable."

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": "1"}


class Busy(PortalError):
    """Too many requests are waiting for a password to be hashed."""

    status = 503
    default = "Too many people are signing in. Try again in a second."

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": "1"}


class RealtimeUnavailable(PortalError):
    """The realtime server does not answer; nothing was changed."""

    status = 503
    default = "The realtime server is not responding."

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": "1"}


def by_field(errors: Sequence[Any], behind: int = 0) -> dict[str, list[str]]:
    """Return pydantic's errors as messages by field, ignoring the first `behind` parts of each location."""
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
        return "The request body is not valid JSON."
    if kind == "missing":
        return f"The {label} field is required."
    if kind in ("string_too_short", "too_short") and limits.get("min_length") == 1:
        return f"The {label} field must not be empty."
    things = "entries" if limits.get("field_type") == "List" else "characters"
    said = next((text for beginning, text in _SAID.items() if kind.startswith(beginning)), "is invalid")
    return f"The {label} field {said.format(**limits, things=things)}."


_SAID = {
    "string_type": "must be text",
    "string_unicode": "must be text",
    "bool": "must be true or false",
    "int": "must be a whole number",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    # After a validator of ours, pydantic reports a text's length like a list's.
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "too_long": "must have at most {max_length} {things}",
    "too_short": "must have at least {min_length} {things}",
    "literal_error": "must be {expected}",
    "datetime": A_TIME,
    "timezone": A_TIME,
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_attributes_type": "must be an object",
    "value_error": "{error}",
}
"""Messages by the beginning of pydantic's error type."""


def _summary(errors: Mapping[str, Sequence[str]]) -> str:
    texts = [text for field in errors.values() for text in field]
    if not texts:
        return "The given data is invalid."
    if len(texts) == 1:
        return texts[0]
    more = len(texts) - 1
    return f"{texts[0]} (and {more} more error{'s' if more > 1 else ''})"
