"""Tenants given at start."""

from __future__ import annotations

from collections.abc import Iterable

from smartlink.server.apps.base import App

__all__ = ["StaticApps"]


class StaticApps:
    """An `AppManager` over a fixed list. Raises ValueError when two apps share an id or a key."""

    def __init__(self, apps: Iterable[App]) -> None:
        self._apps = tuple(apps)
        self._by_key = {app.key: app for app in self._apps}
        self._by_id = {app.id: app for app in self._apps}
        if len(self._by_key) != len(self._apps) or len(self._by_id) != len(self._apps):
            raise ValueError("Two applications share an id or a key")

    def by_key(self, key: str) -> App | None:
        return self._by_key.get(key)

    def by_id(self, app_id: str) -> App | None:
        return self._by_id.get(app_id)

    def all(self) -> Iterable[App]:
        return self._apps
