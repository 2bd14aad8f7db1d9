"""The dashboard's files, which wheels contain. Served from a list, so that no path leads elsewhere."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Final

from smartlink.server.observe.api import Response

__all__ = ["STATIC", "Pages"]

STATIC: Final = Path(__file__).parent / "static"
_KINDS: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_UNBUILT: Final = b"The dashboard is not built; build it with: make pages\n"


class Pages:
    """Finds files by request path."""

    def __init__(self, directory: Path = STATIC) -> None:
        self._directory = directory

    def find(self, path: str) -> Response | None:
        """Return the file at a path; None if there is none."""
        name = path.removeprefix("/") or "index.html"
        if name not in self._files:
            return Response(_UNBUILT, 503, {"Content-Type": "text/plain"}) if name == "index.html" else None
        file = self._directory / name
        is_hashed = name.startswith("assets/")
        headers = {
            "Content-Type": _KINDS[file.suffix],
            "Cache-Control": "public, max-age=31536000, immutable" if is_hashed else "no-cache",
            "Content-Security-Policy": _POLICY,
            "Referrer-Policy": "no-referrer",
        }
        return Response(file.read_bytes(), 200, headers)

    @cached_property
    def _files(self) -> frozenset[str]:
        if not self._directory.is_dir():
            return frozenset()
        found = (file for file in self._directory.rglob("*") if file.is_file() and file.suffix in _KINDS)
        return frozenset(file.relative_to(self._directory).as_posix() for file in found)
