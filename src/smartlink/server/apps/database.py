"""Tenants in a table of an SQL database, polled every few seconds. Requires the extra `apps-sql`.

Lookups never query the database: all apps are in memory, so unknown keys cost it nothing. While it is unreachable, the
apps last read are served.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, fields
from typing import Any

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from smartlink.background import Background, ended
from smartlink.server.apps.base import App, AppsInvalid, OnAppChanges
from smartlink.server.apps.description import app_from_description
from smartlink.server.apps.table import AppTable, Prepare

__all__ = ["DatabaseApps", "realtime_apps", "row_of"]

TIMEOUT_S = 10.0

log = structlog.get_logger(__name__)
metadata = sa.MetaData()

realtime_apps = sa.Table(
    "realtime_apps",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("key", sa.String(128), nullable=False, unique=True),
    sa.Column("secret", sa.String(256), nullable=False),
    sa.Column("is_enabled", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("settings", sa.Text, nullable=False, server_default="{}"),
)
"""`settings` holds all other fields of `App` as a JSON object; omitted ones take their defaults."""

_COLUMNS = ("id", "key", "secret", "is_enabled")
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


class DatabaseApps:
    """An `AppManager` over the table `realtime_apps`, polled every `poll_s`.

    An invalid row is logged and its app stays as it was; the others are served.
    """

    def __init__(
        self, url: str, prepare: Prepare | None = None, poll_s: float = 5.0, background: Background | None = None
    ) -> None:
        self._background = background or Background()
        self._url = url
        self._prepare = prepare
        self._poll_s = poll_s
        self._table = AppTable()
        self.by_key = self._table.by_key
        self.by_id = self._table.by_id
        self.all = self._table.all
        self._on_change: OnAppChanges = lambda changes: None
        self._faults: list[str] = []
        self._is_away = False
        self._engine: AsyncEngine | None = None
        self._reading = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self, on_change: OnAppChanges) -> None:
        self._table.replace(await self._read())
        self._on_change = on_change
        self._task = self._background.start("polling the applications table", self._watch())

    async def reload(self) -> None:
        # One at a time: an earlier read must not replace a later one.
        async with self._reading:
            before = {app.id for app in self.all()}
            changes = self._table.replace(await self._read())
            added = {app.id for app in self.all()} - before
        if changes or added:
            log.info("apps read", apps=len(tuple(self.all())), added=len(added), changed=len(changes))
        if changes:
            self._on_change(changes)

    async def stop(self) -> None:
        await ended(self._task)
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None

    async def create_table(self) -> None:
        """Create the table if it does not exist. Raises AppsInvalid."""
        async with _translating_errors(), self._connect().begin() as connection:
            await connection.run_sync(metadata.create_all)

    async def add(self, app: App) -> None:
        """Insert one app. Raises AppsInvalid, for instance if its id or key exists."""
        async with _translating_errors(), self._connect().begin() as connection:
            await connection.execute(realtime_apps.insert().values(row_of(app)))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self.reload()
                if self._is_away:
                    self._is_away = False
                    log.warning("apps database reachable again")
            except AppsInvalid as error:
                if not self._is_away:
                    self._is_away = True
                    log.error("apps not reloaded, keeping the old ones", faults=str(error).splitlines())

    def _connect(self) -> AsyncEngine:
        if self._engine is None:
            scheme, separator, rest = self._url.partition("://")
            if "pgbouncer=" in rest.partition("?")[2]:
                raise AppsInvalid("REVERB_APPS_DATABASE_URL must bypass PgBouncer: use PostgreSQL's own address")
            try:
                self._engine = create_async_engine(f"{_DRIVERS.get(scheme, scheme)}{separator}{rest}")
            except (SQLAlchemyError, ImportError, ValueError) as error:
                raise AppsInvalid(f"REVERB_APPS_DATABASE_URL cannot be used: {type(error).__name__}") from None
        return self._engine

    async def _read(self) -> list[App]:
        async with _translating_errors(), self._connect().connect() as connection:
            rows = (await connection.execute(sa.select(realtime_apps).order_by(realtime_apps.c.id))).mappings().all()
        apps: list[App] = []
        old_ones: list[App] = []
        faults: list[str] = []
        for row in rows:
            try:
                app = app_from_description(_description(row), f"app {row['id']!r}")
                apps.append(app if self._prepare is None else self._prepare(app))
            except AppsInvalid as error:
                faults += str(error).splitlines()
                old = self.by_id(row["id"])
                old_ones += [] if old is None else [old]
        if faults != self._faults:
            self._faults = faults
            log.error("invalid apps keep their previous settings", faults=faults)
        # Another app may have taken the key of one that stays.
        keys = {app.key for app in apps}
        return apps + [old for old in old_ones if old.key not in keys]


def row_of(app: App) -> dict[str, Any]:
    """An app as a row of the table."""
    known = {name: value for name, value in asdict(app).items() if name not in _COLUMNS}
    defaults = {field.name: field.default for field in fields(App)}
    settings = {name: value for name, value in known.items() if value != defaults[name]}
    return {name: getattr(app, name) for name in _COLUMNS} | {"settings": msgspec.json.encode(settings).decode()}


def _description(row: sa.RowMapping) -> dict[str, Any]:
    try:
        settings = msgspec.json.decode(row["settings"] or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        raise AppsInvalid(f"app {row['id']!r}: settings is not a JSON object") from None
    if twice := set(settings) & set(_COLUMNS):
        raise AppsInvalid(f"app {row['id']!r}: {min(twice)} is a column, not one of its settings")
    return settings | {name: row[name] for name in _COLUMNS}


@asynccontextmanager
async def _translating_errors() -> AsyncIterator[None]:
    """Convert database errors to AppsInvalid, without the database's address."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield
    except TimeoutError:
        raise AppsInvalid(f"The database of REVERB_APPS_DATABASE_URL did not answer in {TIMEOUT_S:g} s") from None
    except IntegrityError:
        raise AppsInvalid("An app with this id or key already exists") from None
    except (SQLAlchemyError, OSError) as error:
        original = getattr(error, "orig", None)
        if "realtime_apps" in str(original):
            raise AppsInvalid("The table realtime_apps is missing: create it with `smartlink apps install`") from None
        reason = type(original or error).__name__
        raise AppsInvalid(f"The database of REVERB_APPS_DATABASE_URL cannot be used ({reason})") from None
