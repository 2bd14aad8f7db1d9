"""The built pages, their headers, and the API's documentation page.

Files under `assets/` have a hash in their names and are cached for good; everything else is revalidated. If a browser
asks for a page at a path that is not a file, it gets the single page, which routes by itself. The build compresses each
file ahead of time, beside it; a browser gets the smallest form that it accepts.
"""

from __future__ import annotations

import mimetypes
import posixpath
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from smartlink.portal.shared.errors import TooLarge
from smartlink.portal.shared.settings import PortalSettings
from smartlink.protocol.addresses import netloc

__all__ = ["DOCS_HTML", "STATIC", "GuardMiddleware", "Pages", "content_security_policy", "how_to_build"]

STATIC = Path(__file__).parent / "static"

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 64 * 1024
_FOR_EVER = "public, max-age=31536000, immutable"
_CODINGS = (("br", ".br"), ("gzip", ".gz"))
_REFUSED = re.compile(r"([\w*]+)\s*;\s*q=0(?:\.0*)?(?![.\d])")
_NOT_PAGES = ("api/", "broadcasting/", "webhooks/", "assets/", "docs-assets/")

DOCS_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>SmartLink API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs-assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs-assets/swagger-ui-bundle.js"></script>
<script src="/docs-assets/init.js"></script>
</body>
</html>
"""


UNBUILT_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>SmartLink: pages not built</title>
<link rel="icon" href="data:,">
</head>
<body>
<h1>The pages are not built</h1>
<p>The API works, but this installation has no pages. Run <code>{command}</code>, then reload this page.</p>
<p>The API is described at <a href="/openapi.json">/openapi.json</a>.</p>
</body>
</html>
"""


def how_to_build() -> str | None:
    """Return the command that builds the pages, or None if they are built. Wheels contain them."""
    if (STATIC / "index.html").is_file():
        return None
    is_checkout = (Path(__file__).parents[3] / "frontend" / "package.json").is_file()
    return "make pages" if is_checkout else "make pages && pip install ."


class Pages:
    """Serves all other paths: a file, the single page, or 404 as JSON."""

    def __init__(self, directory: Path, asset_url: str = "") -> None:
        self._asset_url = asset_url
        self._directory = directory
        self._files = StaticFiles(directory=directory, check_dir=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        response = await self._response(scope)
        await response(scope, receive, send)

    async def _response(self, scope: Scope) -> Response:
        path = scope["path"].lstrip("/")
        if scope["method"] not in ("GET", "HEAD") or "\x00" in path or path.startswith(_NOT_PAGES[:3]):
            return _not_found()
        if path in ("", "index.html"):
            return self._index(scope)
        try:
            response = await self._file(posixpath.normpath(path), scope)
        except (HTTPException, OSError, ValueError):
            return self._index(scope) if _wants_page(scope, path) else _not_found()
        response.headers["cache-control"] = _FOR_EVER if path.startswith("assets/") else "no-cache"
        return response

    async def _file(self, path: str, scope: Scope) -> Response:
        """Return a file, compressed if the browser accepts it. Raises what StaticFiles raises."""
        for coding, ending in _accepted(scope):
            if (self._directory / (path + ending)).is_file():
                response = await self._files.get_response(path + ending, scope)
                # "Not modified" has neither body nor coding.
                if response.status_code == 200:
                    response.headers["content-encoding"] = coding
                    response.headers["content-type"] = mimetypes.guess_type(path)[0] or "application/octet-stream"
                break
        else:
            response = await self._files.get_response(path, scope)
        response.headers["vary"] = "accept-encoding"
        return response

    def _index(self, scope: Scope) -> Response:
        index = self._directory / "index.html"
        if not index.is_file():
            return _unbuilt()
        headers = {"cache-control": "no-cache"}
        if self._asset_url:
            # Only the page contains absolute paths; scripts and styles refer to each other by relative ones.
            page = index.read_text().replace('"/assets/', f'"{self._asset_url}/assets/')
            return HTMLResponse(page, headers=headers)
        headers["vary"] = "accept-encoding"
        for coding, ending in _accepted(scope):
            if (compressed := index.with_name(index.name + ending)).is_file():
                return FileResponse(compressed, headers=headers | {"content-encoding": coding}, media_type="text/html")
        return FileResponse(index, headers=headers)


def _accepted(scope: Scope) -> list[tuple[str, str]]:
    """Return the codings that a request accepts, with the ending of such files, the smallest first."""
    if any(name == b"range" for name, _ in scope["headers"]):
        return []
    accept = b",".join(value for name, value in scope["headers"] if name == b"accept-encoding").decode("latin-1")
    refused = _REFUSED.findall(accept.lower())
    offered = re.findall(r"[\w*]+", _REFUSED.sub("", accept.lower()))
    return [(coding, ending) for coding, ending in _CODINGS if coding in offered and coding not in refused]


def _wants_page(scope: Scope, path: str) -> bool:
    accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
    return b"text/html" in accept and not path.startswith(_NOT_PAGES)


def _unbuilt() -> Response:
    command = how_to_build() or "make pages"
    return HTMLResponse(UNBUILT_HTML.format(command=command.replace("&", "&amp;")), 503, {"cache-control": "no-store"})


def _not_found() -> Response:
    return JSONResponse({"message": "Not found."}, 404)


async def docs(_request: Any) -> Response:
    """Serve the documentation page."""
    return HTMLResponse(DOCS_HTML, headers={"cache-control": "no-cache"})


def content_security_policy(settings: PortalSettings) -> str:
    """Return the policy: only our own files, nothing inline, and connections to the realtime server."""
    realtime = settings.realtime
    host, port = realtime["host"], realtime["port"]
    secure = realtime["scheme"] == "https"
    address = netloc(host, port)
    sockets = f"{'wss' if secure else 'ws'}://{address} {'https' if secure else 'http'}://{address}"
    assets = f" {settings.asset_url}" if settings.asset_url else ""
    return (
        f"default-src 'self'{assets}; connect-src 'self' {sockets}; img-src 'self' data:{assets}; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


class GuardMiddleware:
    """Adds security headers to every response, and limits the body of every request."""

    def __init__(self, app: ASGIApp, settings: PortalSettings) -> None:
        self._app = app
        self._headers = [
            (b"content-security-policy", content_security_policy(settings).encode("latin-1", "replace")),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"same-origin"),
        ]
        if settings.is_https:
            self._headers.append((b"strict-transport-security", b"max-age=31536000"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_private = scope["path"].startswith("/api/")

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), *self._headers]
                if is_private:
                    headers.append((b"cache-control", b"no-store"))
                message = {**message, "headers": headers}
            await send(message)

        if _declared_bytes(scope) > MAX_BODY_BYTES:
            await _too_large()(scope, receive, with_headers)
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise HTTPException(413, TooLarge.default)
            return message

        await self._app(scope, bounded, with_headers)


def _declared_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 12 else MAX_BODY_BYTES + 1
    return 0


def _too_large() -> Response:
    return JSONResponse({"message": TooLarge.default}, 413, {"connection": "close"})
