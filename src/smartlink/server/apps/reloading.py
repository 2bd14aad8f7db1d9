"""Reloads apps on demand, as on SIGHUP, and logs the outcome because no one waits for it."""

from __future__ import annotations

import structlog

from smartlink.server.apps.base import AppManager, AppsInvalid

__all__ = ["reload_apps"]

log = structlog.get_logger(__name__)


async def reload_apps(apps: AppManager) -> None:
    """Reload the apps; log if they are unreadable or invalid, and keep the old ones."""
    try:
        await apps.reload()
    except AppsInvalid as error:
        log.error("apps not reloaded, keeping the old ones", faults=str(error).splitlines())
