"""Tenants in a TOML file, reloaded when it changes."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path

import structlog

from smartlink.background import Background, ended
from smartlink.server.apps.base import App, AppsInvalid, OnAppChanges
from smartlink.server.apps.description import apps_from_descriptions
from smartlink.server.apps.table import AppTable, Prepare

__all__ = ["FileApps", "read_apps"]

MAX_FILE_BYTES = 64 * 1024 * 1024

log = structlog.get_logger(__name__)


def read_apps(path: Path) -> list[App]:
    """Read the apps from a file. Raises AppsInvalid."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise AppsInvalid(f"{path} is larger than {MAX_FILE_BYTES} bytes")
        text = path.read_text("utf-8")
        if not text.strip():
            # The file may be in the middle of a write: accepting it would disconnect every client for good.
            raise AppsInvalid(f"{path} is empty; to serve no application, write apps = []")
        content = tomllib.loads(text)
    except OSError as error:
        raise AppsInvalid(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise AppsInvalid(f"{path} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise AppsInvalid(f"{path} is not TOML: {error}") from None
    except RecursionError:
        raise AppsInvalid(f"{path} is nested too deeply") from None
    if unknown := set(content) - {"apps"}:
        raise AppsInvalid(f"{path}: {min(unknown)[:40]!r} is not a known key here; write each app as [[apps]]")
    try:
        return apps_from_descriptions(content.get("apps", []))
    except AppsInvalid as error:
        raise AppsInvalid("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None


class FileApps:
    """An `AppManager` over a file, checked every `poll_s`. If it is invalid, log it and keep the old apps."""

    def __init__(
        self, path: Path, prepare: Prepare | None = None, poll_s: float = 1.0, background: Background | None = None
    ) -> None:
        self._background = background or Background()
        self._path = path
        self._poll_s = poll_s
        self._table = AppTable(prepare)
        self.by_key = self._table.by_key
        self.by_id = self._table.by_id
        self.all = self._table.all
        self._on_change: OnAppChanges = lambda changes: None
        self._seen: tuple[int, int, int] | None = None
        self._reading = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self, on_change: OnAppChanges) -> None:
        self._seen = self._state()
        self._table.replace(await asyncio.to_thread(read_apps, self._path))
        self._on_change = on_change
        self._task = self._background.start("watching the applications file", self._watch())

    async def reload(self) -> None:
        # One at a time: an earlier read must not replace a later one.
        async with self._reading:
            self._seen = self._state()
            before = {app.id for app in self.all()}
            changes = self._table.replace(await asyncio.to_thread(read_apps, self._path))
            added = {app.id for app in self.all()} - before
        log.info("apps read", path=str(self._path), apps=len(tuple(self.all())), added=len(added), changed=len(changes))
        if changes:
            self._on_change(changes)

    async def stop(self) -> None:
        await ended(self._task)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            if self._state() == self._seen:
                continue
            try:
                await self.reload()
            except AppsInvalid as error:
                log.error("apps not reloaded, keeping the old ones", faults=str(error).splitlines())

    def _state(self) -> tuple[int, int, int] | None:
        """What changes with the file. Taken before reading it, so that a write in between is noticed next time."""
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
