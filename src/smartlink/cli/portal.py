"""What the commands on the portal share: reading its settings, requiring its tables, running work with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from smartlink.cli.failures import database_errors, fail, settings_errors
from smartlink.cli.logs import configure

if TYPE_CHECKING:
    from smartlink.portal.main import Portal
    from smartlink.portal.shared.settings import PortalSettings

__all__ = ["require_tables", "settings_with_database", "with_portal"]

T = TypeVar("T")


def settings_with_database() -> PortalSettings:
    """Return the portal's settings. If they or their database address are invalid, say so and exit with 2."""
    from smartlink.portal.shared.settings import PortalSettings

    configure()
    with settings_errors():
        settings = PortalSettings()
        _ = settings.url  # raises for an invalid address
        return settings


def require_tables(settings: PortalSettings) -> None:
    """Exit with 1, and say what to do, unless the database has the portal's tables at a known revision."""
    from smartlink.portal import migrations

    with database_errors():
        revision = migrations.current(settings.url)
    if revision is None:
        fail(
            "The database has none of the portal's tables. Create them: smartlink db upgrade\n"
            "An application with its own outbox runs its own worker instead: see docs/howto/outbox.md"
        )
    if revision not in migrations.revisions():
        fail(
            f"The database is at revision {revision[:40]}, which is not one of the portal's: it belongs to another "
            "application, or to a newer version. Change DATABASE_URL, or install that version"
        )


def with_portal(work: Callable[[Portal], Awaitable[T]]) -> T:
    """Return the result of `work`, run with a started portal that serves no requests.

    If the settings or the database are unusable, say so and exit.
    """
    from smartlink.portal.main import build, check_broadcasting

    settings = settings_with_database()
    with settings_errors():
        check_broadcasting(settings)

    async def main() -> T:
        portal = build(settings)
        try:
            await portal.start()
            return await work(portal)
        finally:
            await portal.stop()

    with database_errors():
        return asyncio.run(main())
