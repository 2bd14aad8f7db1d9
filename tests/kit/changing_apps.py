"""Applications that a test changes while a server runs."""

from __future__ import annotations

from typing import Any

from smartlink.server.apps.base import App
from smartlink.server.apps.static import StaticApps

__all__ = ["ChangingApps"]


class ChangingApps(StaticApps):
    """Apps that a test changes."""

    async def start(self, on_change: Any) -> None:
        self.tell = on_change

    def become(self, *apps: App) -> None:
        self.tell(self._table.replace(apps))
