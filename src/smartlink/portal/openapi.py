"""The OpenAPI document: FastAPI's, completed by rules.

The rules add the errors that all endpoints of a kind share: 401 for signed-in callers, 403 for tokens without the
ability, 409 for requests by cookie, 429 for unsafe requests (and 403 and 419 by cookie), 404 for ids, 422 for
parameters, 413 for bodies, 503 for the database. Endpoints declare others themselves, with `raises` and `shows`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from smartlink.portal.shared.answers import HEADERS
from smartlink.portal.shared.errors import (
    AnotherAccount,
    Conflict,
    CsrfMismatch,
    DatabaseAway,
    Forbidden,
    NotFound,
    TooLarge,
    TooMany,
    Unauthenticated,
)
from smartlink.portal.users.abilities import ABILITIES

__all__ = ["MUTATING", "describe"]

MUTATING = frozenset({"post", "put", "patch", "delete"})
_TAGS = {
    "users": "Accounts, tokens, and the pages' session.",
    "chat": "General and direct messages, read receipts, typing, and who is online.",
    "notifications": "Your notifications.",
    "campaigns": "Your campaigns. Admins see and change all campaigns.",
    "wallet": "Your wallet.",
    "admin": "For admins only.",
    "realtime": "The realtime server's address, channel authorization, and missed events.",
    "operations": "Health checks.",
}
_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token from `POST /api/login`, which has every ability (`*`), or `POST /api/tokens`. Each "
        "endpoint names the ability it needs: " + ", ".join(f"`{ability}`" for ability in ABILITIES) + ".",
    },
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "smartlink_session",
        "description": "The pages' session, from `POST /api/session`.",
    },
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": "X-XSRF-TOKEN",
        "description": "The value of the cookie XSRF-TOKEN, required for unsafe requests by cookie.",
    },
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Pusher-Signature",
        "description": "HMAC-SHA-256 of the body with the app's secret; X-Pusher-Key names the app.",
    },
}
_MESSAGE = {"type": "string", "description": "What went wrong, for people."}
_SCHEMAS: dict[str, dict[str, Any]] = {
    "Error": {
        "type": "object",
        "description": "An error.",
        "properties": {"message": _MESSAGE},
        "required": ["message"],
        "additionalProperties": False,
    },
    "InvalidError": {
        "type": "object",
        "description": "Invalid input: which fields, and why.",
        "properties": {
            "message": _MESSAGE,
            "errors": {
                "type": "object",
                "additionalProperties": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            },
        },
        "required": ["message", "errors"],
        "additionalProperties": False,
    },
    "ConflictError": {
        "type": "object",
        "description": "Changed by someone else; `version` is the current one.",
        "properties": {"message": _MESSAGE, "version": {"type": "integer", "minimum": 1}},
        "required": ["message", "version"],
        "additionalProperties": False,
    },
}
_INVALID = {"message": "The name field is required.", "errors": {"name": ["The name field is required."]}}
_ANOTHER = "The session belongs to another account than the request's `X-Account`; the response's `X-Account` names it."
_CONFLICT = (
    "Conflict",
    f"Changed by someone else. Or: {_ANOTHER}",
    {"message": Conflict.default, "version": 3},
    ("X-Account",),
)
"""For endpoints that check versions, which have two reasons for 409."""
_ERRORS: dict[str, tuple[str, str, dict[str, Any], tuple[str, ...]]] = {
    "401": ("Unauthenticated", "Not signed in.", {"message": Unauthenticated.default}, ("WWW-Authenticate",)),
    "403": ("Forbidden", "Not allowed.", {"message": Forbidden.default}, ()),
    "404": ("NotFound", "Does not exist, or is not yours.", {"message": NotFound.default}, ()),
    "409": ("AnotherAccount", _ANOTHER, {"message": AnotherAccount.default}, ("X-Account",)),
    "413": ("TooLarge", "The body is larger than 64 KiB.", {"message": TooLarge.default}, ()),
    "419": ("CsrfMismatch", "X-XSRF-TOKEN is missing or wrong.", {"message": CsrfMismatch.default}, ()),
    "422": ("Invalid", "Invalid input.", _INVALID, ()),
    "429": ("TooMany", "Too many requests.", {"message": TooMany.default}, ("Retry-After",)),
    "503": (
        "Unavailable",
        "A service is down; nothing was changed.",
        {"message": DatabaseAway.default},
        ("Retry-After",),
    ),
}
_BODIES = {"Conflict": ("ConflictError", "Error"), "Invalid": ("InvalidError",)}
_SOCKET_ID = {
    "name": "X-Socket-ID",
    "in": "header",
    "required": False,
    "description": "Your socket id; events to others skip this socket.",
    "schema": {"type": "string"},
    "example": "123.456",
}
_ACCOUNT = {
    "name": "X-Account",
    "in": "header",
    "required": False,
    "description": "The id of the account that a page shows. If the session is another account's, the response is 409.",
    "schema": {"type": "string"},
    "example": "7",
}
_NO_DATABASE = ("/api/realtime",)
_FOUND = {
    "id": 7, "user_id": 7, "recipient_id": 9, "name": "Ana", "email": "ana@example.com", "is_admin": False,
    "password": "correct horse", "current_password": "correct horse", "token": "7|3jU0…", "abilities": ["*"],
    "message": "Hello, world!", "typing": True, "version": 3, "currency": "EUR", "type": "deposit",
    "budget": "1000.00", "amount": "12.50", "balance": "112.50", "balance_after": "112.50", "unread_count": 2,
    "data": {"id": 7}, "payload": {"id": 7}, "channel": "private-user.7", "event": "App\\Events\\NotificationRead",
    "description": "Until the end of summer.", "action": "budget", "changes": {"budget": ["900.00", "1000.00"]},
    "host": "127.0.0.1", "port": 8080, "key": "app-key", "scheme": "http", "q": "hello", "after": 41, "before": 41,
    "limit": 50, "read_at": None, "ends_at": None, "blocked_at": None, "error": "HTTP 413", "status": "ok",
    "target": "user 7", "detail": {"is_blocked": True}, "at": "2026-01-31T12:00:00Z", "figures": {"connections": 12},
    "expires_at": "2100-01-01T00:00:00Z",
    "if-match": '"3"', "Idempotency-Key": "5b0e6f0c", "socket_id": "123.456", "channel_name": "private-user.7",
}  # fmt: skip
"""Example values of fields and parameters, by name."""


def describe(app: FastAPI) -> None:
    """Make `app` serve the completed document, which is built on first use."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(
                get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    document["tags"] = [{"name": name, "description": text} for name, text in _TAGS.items()]
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for generated in ("HTTPValidationError", "ValidationError"):
        schemas.pop(generated, None)
    schemas |= _SCHEMAS
    components["securitySchemes"] = _SCHEMES
    components["headers"] = HEADERS
    components["responses"] = {
        name: _error(name, text, example, headers) for name, text, example, headers in (*_ERRORS.values(), _CONFLICT)
    }
    components["parameters"] = {"X-Account": _ACCOUNT, "X-Socket-ID": _SOCKET_ID}
    for path, method, operation in _operations(document):
        _complete(path, method, operation)
    for path in ("/broadcasting/auth", "/broadcasting/user-auth"):
        document["paths"][path] = {"post": _broadcasting(path)}
    for schema in schemas.values():
        _show(schema, schemas)
    document["paths"] = dict(sorted(document["paths"].items()))
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    first, _, rest = re.sub(r"(?<!\n)\n(?!\n)", " ", operation.pop("description", "")).partition(". ")
    operation["summary"], _, more = first.partition("\n\n")
    operation["summary"] = operation["summary"].removesuffix(".")
    if described := "\n\n".join(filter(None, (more, rest))):
        operation["description"] = described
    parameters = operation.get("parameters", [])
    for parameter in parameters:
        kinds = [kind for kind in parameter["schema"].pop("anyOf", []) if kind.get("type") != "null"]
        if kinds:  # Queries and headers can be omitted, but not null.
            parameter["schema"] |= kinds[0]
        if parameter["name"] in _FOUND:
            parameter["example"] = _FOUND[parameter["name"]]
    answers = operation["responses"]
    for answer in answers.values():
        if answer.get("description") == "Successful Response":
            answer["description"] = "Done."
    is_input_checked = "requestBody" in operation or any(parameter["in"] != "path" for parameter in parameters)
    if not is_input_checked:
        answers.pop("422", None)
    statuses = [status for status in answers if status in _ERRORS]
    names = {status: _ERRORS[status][0] for status in (*statuses, *_implied(path, method, operation))}
    if "409" in statuses:
        names["409"] = _CONFLICT[0]
    for status, name in names.items():
        answers[status] = {"$ref": f"#/components/responses/{name}"}
    if _is_for_users(operation):
        by_cookie: dict[str, list[str]] = {"cookie": []}
        operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/X-Account"})
        if method in MUTATING:
            by_cookie["csrf"] = []
            operation["parameters"].append({"$ref": "#/components/parameters/X-Socket-ID"})
        operation["security"].append(by_cookie)
    operation["responses"] = dict(sorted(answers.items()))


def _is_for_users(operation: dict[str, Any]) -> bool:
    """Return whether the operation takes a token or a session."""
    return any("bearer" in way for way in operation.get("security", ()))


def _implied(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    """Yield the error statuses that follow from an operation's kind."""
    if "security" in operation:
        yield "401"
    if _is_for_users(operation):
        yield from ("403", "409")
        if method in MUTATING:
            yield from ("419", "429")
    if "{" in path:
        yield "404"
    if "requestBody" in operation:
        yield "413"
    if path not in _NO_DATABASE:
        yield "503"


def _error(name: str, text: str, example: dict[str, Any], headers: tuple[str, ...]) -> dict[str, Any]:
    bodies = [{"$ref": f"#/components/schemas/{body}"} for body in _BODIES.get(name, ("Error",))]
    schema = bodies[0] if len(bodies) == 1 else {"anyOf": bodies}
    answer: dict[str, Any] = {
        "description": text,
        "content": {"application/json": {"schema": schema, "example": example}},
    }
    if headers:
        answer["headers"] = {header: {"$ref": f"#/components/headers/{header}"} for header in headers}
    return answer


def _broadcasting(path: str) -> dict[str, Any]:
    """Describe one of the library's two endpoints, which are not FastAPI routes."""
    is_sign_in = path.endswith("user-auth")
    fields: dict[str, Any] = {"socket_id": {"type": "string", "pattern": r"^[0-9]+\.[0-9]+$"}}
    answered: dict[str, Any] = {"auth": {"type": "string", "description": "The app's key and a signature."}}
    if is_sign_in:
        answered["user_data"] = {"type": "string", "description": "The user, as JSON."}
    else:
        fields["channel_name"] = {"type": "string", "maxLength": 200}
        answered["channel_data"] = {
            "type": "string",
            "description": "JSON with `user_id`, and `user_info` on presence channels.",
        }
        answered["shared_secret"] = {"type": "string", "description": "Encrypted channels only."}
    asked = {"type": "object", "properties": fields, "required": [] if is_sign_in else ["channel_name"]}
    example = {name: _FOUND[name] for name in fields}
    content = {"schema": asked, "example": example}
    operation: dict[str, Any] = {
        "tags": ["realtime"],
        "description": ("Sign a connection in. " if is_sign_in else "Authorize a socket for a private channel. ")
        + ("" if is_sign_in else "A token needs the channel's ability. ")
        + "Without `socket_id`, the response only says whether you may, without a signature.",
        "operationId": "realtime_sign_in" if is_sign_in else "realtime_authorize",
        "requestBody": {
            "required": True,
            "content": {"application/json": content, "application/x-www-form-urlencoded": content},
        },
        "security": [{"bearer": ["user:read"] if is_sign_in else []}],
        "responses": {
            "200": {
                "description": "Signed.",
                "content": {"application/json": {"schema": {"type": "object", "properties": answered}}},
            },
        },
    }
    _complete(path, "post", operation)
    operation["parameters"] = [{"$ref": "#/components/parameters/X-Account"}]
    refused = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for status, text in (("400", "Unreadable body."), ("415", "Neither a form nor JSON."), ("422", "Invalid fields.")):
        operation["responses"][status] = {"description": text, "content": refused}
    operation["responses"] = dict(sorted(operation["responses"].items()))
    return operation


def _show(schema: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Give an object schema an example composed of its fields' examples."""
    if schema.get("type") == "object" and "properties" in schema:
        schema["example"] = _example(schema, schemas)


def _example(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    if "$ref" in schema:
        return _example(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "properties" in schema:
        return {name: _of_field(name, field, schemas) for name, field in schema["properties"].items()}
    for word in ("examples", "enum"):
        if schema.get(word):
            return schema[word][0]
    if "const" in schema or "default" in schema:
        return schema.get("const", schema.get("default"))
    if "anyOf" in schema:
        return _example(schema["anyOf"][0], schemas)
    if schema.get("type") == "array":
        return [_example(schema["items"], schemas)]
    if schema.get("format") == "date-time":
        return "2026-01-31T12:00:00Z"
    return {"integer": 1, "number": 1.0, "boolean": True, "string": "text", "object": {}}.get(schema["type"])


def _of_field(name: str, field: dict[str, Any], schemas: dict[str, Any]) -> Any:
    kinds = [field, *field.get("anyOf", [])]
    if name in _FOUND and not any("enum" in kind or "$ref" in kind for kind in kinds):
        return _FOUND[name]
    return _example(field, schemas)
