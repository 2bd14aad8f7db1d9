"""Tenants given at start."""

from __future__ import annotations

from collections.abc import Iterable

from smartlink.server.apps.base import App, OnAppChanges
from smartlink.server.apps.table import AppTable, Prepare

__all__ = ["StaticApps"]


class StaticApps:
    """An `AppManager` over a fixed list. Raises AppsInvalid if two apps share an id or a key."""

    def __init__(self, apps: Iterable[App], prepare: Prepare | None = None) -> None:
        self._table = AppTable(prepare)
        self._table.replace(apps)
        self.by_key = self._table.by_key
        self.by_id = self._table.by_id
        self.all = self._table.all

    async def start(self, on_change: OnAppChanges) -> None:
        """Nothing to watch."""

    async def reload(self) -> None:
        """Nothing to reload."""

    async def stop(self) -> None:
        """Nothing to close."""
