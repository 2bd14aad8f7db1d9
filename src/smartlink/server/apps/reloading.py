"""Reading apps again on demand, as on SIGHUP: nobody waits for the outcome, so it is told in the log."""

from __future__ import annotations

import structlog

from smartlink.server.apps.base import AppManager, AppsInvalid

__all__ = ["reload_apps"]

log = structlog.get_logger(__name__)


async def reload_apps(apps: AppManager) -> None:
    """Read the apps again; those that cannot be read, or make no sense, are told and the old ones stay."""
    try:
        await apps.reload()
    except AppsInvalid as error:
        log.error("apps not read, the old ones stay", faults=str(error).splitlines())
