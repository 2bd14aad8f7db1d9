"""Checks the addresses that webhooks are sent to."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from smartlink.cli.apps import read_apps
from smartlink.cli.doctor.finding import Finding, failed, fine, skipped, warning
from smartlink.cli.wording import counted
from smartlink.server.apps.base import AppsInvalid
from smartlink.server.run.bootstrap import guard_for
from smartlink.server.settings.config import ServerSettings
from smartlink.server.webhooks.guard import TargetRefused

__all__ = ["check_webhooks"]

TIMEOUT_S = 10.0


async def check_webhooks(settings: ServerSettings) -> list[Finding]:
    """Check that the server would post to each address. Nothing is posted."""
    try:
        urls = sorted({hook.url for app in await read_apps(settings) for hook in app.webhooks})
    except AppsInvalid as error:
        return [failed("webhooks", f"the applications are invalid: {error}", "smartlink apps check")]
    if not urls:
        return [skipped("webhooks", "not used by any application")]
    guard = guard_for(settings)
    found = []
    for url in urls:
        where = urlsplit(url).netloc
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await guard.resolve(url)
        except TargetRefused as refused:
            found.append(failed("webhooks", f"{where} is refused: {refused.why}", refused.fix))
        except (OSError, TimeoutError):
            found.append(warning("webhooks", f"{where} does not resolve on this machine", "check its DNS name"))
    return found or [fine("webhooks", f"{counted(len(urls), 'address', 'addresses')} allowed")]
