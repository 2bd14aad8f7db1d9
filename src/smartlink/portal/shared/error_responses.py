"""Answers requests with the API's errors. Apart from `errors`, so that commands need not import a web framework."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from smartlink.portal.shared.errors import DatabaseAway, Invalid, PortalError, by_field

__all__ = ["handle_errors"]

log = logging.getLogger(__name__)


def handle_errors(app: FastAPI, on_error: Callable[[str, str], None]) -> None:
    """Give all errors of `app` the same form. Calls `on_error` with the type and route path of unexpected ones."""

    @app.exception_handler(PortalError)
    async def portal_error(_request: Request, error: PortalError) -> JSONResponse:
        if isinstance(error, DatabaseAway):
            log.warning("database unavailable: %s", error.__cause__.__class__.__name__)
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        remapped = Invalid(by_field(error.errors(), behind=1))
        return JSONResponse(remapped.body, remapped.status)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:
            # FastAPI answers 400 to an unreadable body; we answer 422 to all invalid input.
            unread = Invalid({"body": ["The request body is not valid JSON."]})
            return JSONResponse(unread.body, unread.status)
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_methods_of(app, request))
        return JSONResponse({"message": error.detail}, error.status_code, headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> JSONResponse:
        # Nobody receives this; answering keeps it from being counted as our error.
        return JSONResponse({"message": "The client closed the connection."}, 400)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        route = request.scope.get("route")
        on_error(type(error).__name__, getattr(route, "path", "unknown"))
        return JSONResponse({"message": PortalError.default}, 500)


def _methods_of(app: FastAPI, request: Request) -> list[str]:
    """Return the methods of a path. The framework itself lists only those of the first matching route."""
    path = request.scope["path"]
    found = {
        method.upper()
        for template, methods in app.openapi()["paths"].items()
        if re.fullmatch(re.sub(r"{[a-z_]+}", "[^/]+", template.replace(".", r"\.")), path)
        for method in methods
    }
    return sorted(found) or ["GET", "HEAD"]
