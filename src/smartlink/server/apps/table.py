"""An index of the current apps, used by every engine of `AppManager`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from smartlink.server.apps.base import App, AppChange, AppsInvalid

__all__ = ["AppTable", "Prepare"]

Prepare = Callable[[App], App]
"""Prepares each app before it is served, for instance by checking its secret. Raises AppsInvalid."""


class AppTable:
    """Apps by key and by id."""

    def __init__(self, prepare: Prepare | None = None) -> None:
        self._prepare = prepare
        self._apps: tuple[App, ...] = ()
        self._by_key: dict[str, App] = {}
        self._by_id: dict[str, App] = {}

    def by_key(self, key: str) -> App | None:
        return self._by_key.get(key)

    def by_id(self, app_id: str) -> App | None:
        return self._by_id.get(app_id)

    def all(self) -> Iterable[App]:
        return self._apps

    def replace(self, apps: Iterable[App]) -> Sequence[AppChange]:
        """Replace all apps. Returns what changed. Raises AppsInvalid and keeps the old apps if any is invalid."""
        faults: list[str] = []
        prepared: list[App] = []
        for app in apps:
            try:
                prepared.append(app if self._prepare is None else self._prepare(app))
            except AppsInvalid as error:
                faults.append(str(error))
        by_key: dict[str, App] = {}
        by_id: dict[str, App] = {}
        for app in prepared:
            if app.id in by_id:
                faults.append(f"Two apps share the id {app.id!r}")
            if app.key in by_key:
                faults.append(f"The apps {by_key[app.key].id!r} and {app.id!r} share a key")
            by_id[app.id] = by_key[app.key] = app
        if faults:
            raise AppsInvalid("\n".join(faults))
        before, self._apps, self._by_key, self._by_id = self._apps, tuple(prepared), by_key, by_id
        return [AppChange(app, by_id.get(app.id)) for app in before if by_id.get(app.id) != app]
