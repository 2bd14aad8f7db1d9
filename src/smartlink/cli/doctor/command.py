"""The command: runs all checks in order and prints a line for each finding."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from smartlink.cli.doctor.finding import CheckState, Finding, skipped
from smartlink.cli.failures import fail
from smartlink.cli.logs import configure

if TYPE_CHECKING:
    from smartlink.broadcasting import BroadcastSettings
    from smartlink.cli.doctor.configuration import Installed
    from smartlink.portal.shared.settings import PortalSettings

__all__ = ["doctor"]

_NO_PORTAL = "the portal is not installed here"
_OTHERS_SETTINGS = (
    "the portal is not set up here: DB_CONNECTION={} belongs to another application. To use the portal, set "
    "DATABASE_URL=sqlite:///var/smartlink.db, or postgresql://…"
)
CHECKS = (
    "settings",
    "keys",
    "pages",
    "database",
    "redis",
    "ports",
    "descriptors",
    "certificate",
    "webhooks",
    "realtime",
    "proxy",
)
_MARKS = {CheckState.FINE: "✓", CheckState.WARNING: "!", CheckState.FAILED: "✗", CheckState.SKIPPED: "–"}
_ASCII = {CheckState.FINE: "ok", CheckState.WARNING: "!!", CheckState.FAILED: "XX", CheckState.SKIPPED: "--"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    only: Annotated[str | None, typer.Option(help=f"Run only some checks: {', '.join(CHECKS)}.")] = None,
    slow: Annotated[bool, typer.Option("--slow", help="Also check that the proxy keeps silent sockets open.")] = False,
) -> None:
    """Check this installation and say how to fix what is wrong. Exits with 1 if a check fails.

    Before the services are started, run only the checks that can pass: --only settings,keys,database,redis.
    """
    configure()
    wanted = CHECKS if only is None else tuple(name.strip() for name in only.split(","))
    if unknown := sorted(set(wanted) - set(CHECKS)):
        fail(f"--only: there is no check {unknown[0][:40]!r}; choose from {', '.join(CHECKS)}", 2)
    found = asyncio.run(_examine(frozenset(wanted), is_slow=slow))
    is_well = all(finding.state is not CheckState.FAILED for finding in found)
    if as_json:
        listed = [dataclasses.asdict(finding) | {"state": finding.state.value} for finding in found]
        _say(json.dumps({"ok": is_well, "checks": listed}, ensure_ascii=False))
    else:
        for finding in found:
            _say(_line(finding))
    if not is_well:
        raise typer.Exit(1)


async def _examine(wanted: frozenset[str], *, is_slow: bool) -> list[Finding]:
    from smartlink.cli.apps import as_served, read_apps
    from smartlink.cli.doctor import configuration, machine, realtime, redis, webhooks
    from smartlink.server.apps.base import AppsInvalid

    installed, found = configuration.read_settings()
    server, own, portal = installed.server, installed.broadcast, installed.portal
    no_portal = _NO_PORTAL
    if portal is not None and portal.is_database_foreign:
        no_portal, portal = _OTHERS_SETTINGS.format(portal.db_connection[:40]), None
    if "settings" not in wanted:
        found = [finding for finding in found if finding.state is CheckState.FAILED]
    if server is None or own is None or (portal is not None and not _has_database(portal)):
        return found  # The other checks need these settings.
    with contextlib.suppress(AppsInvalid):  # reported by the webhooks check
        own = as_served(own, await read_apps(server)) or own
    found += _examine_installed(wanted, own, portal, no_portal)
    if "database" in wanted:
        found += await _examine_database(portal, no_portal)
    if "redis" in wanted:
        found += await redis.check_redis(server, portal)
    if "ports" in wanted:
        found += machine.check_ports(server, portal)
    found += [check(server) for name, check in machine.CHECKS.items() if name in wanted]
    if "descriptors" in wanted:
        found.append(await realtime.check_open_descriptors(own))
    if "webhooks" in wanted:
        found += await webhooks.check_webhooks(server)
    if "realtime" in wanted:
        found.append(await realtime.check_realtime(own, None if portal is None else portal.app_url, server))
    if "proxy" in wanted:
        found += await _examine_public(installed, own, is_slow=is_slow, has_pages=portal is not None)
    return found


def _examine_installed(
    wanted: frozenset[str], own: BroadcastSettings, portal: PortalSettings | None, no_portal: str
) -> list[Finding]:
    from smartlink.cli.doctor import configuration

    found = configuration.check_keys(own) if "keys" in wanted else []
    if "pages" in wanted:
        found.append(skipped("pages", no_portal) if portal is None else configuration.check_pages())
    return found


async def _examine_database(portal: PortalSettings | None, no_portal: str) -> list[Finding]:
    if portal is None:
        return [skipped("database", no_portal)]
    from smartlink.cli.doctor import database

    return await database.check_database(portal)


async def _examine_public(
    installed: Installed, own: BroadcastSettings, *, has_pages: bool, is_slow: bool
) -> list[Finding]:
    from smartlink.cli.doctor import public

    settings, server = installed.public, installed.server
    if settings is None or server is None:
        return [skipped("proxy", "the settings of the public address are invalid")]
    if not has_pages:
        # Pages come from another application: what clients know of ours is the key.
        settings = settings.model_copy(update={"broadcast": own})
    return await public.check_public(settings, own, server, has_pages=has_pages, is_slow=is_slow)


def _has_database(settings: object) -> bool:
    try:
        return bool(getattr(settings, "url"))  # noqa: B009 — it raises for an invalid address
    except ValueError:
        return False


def _line(finding: Finding) -> str:
    is_utf = (sys.stdout.encoding or "").lower().startswith("utf")
    line = f"{(_MARKS if is_utf else _ASCII)[finding.state]} {finding.check}: {finding.said}"
    return f"{line}\n    {'→' if is_utf else '->'} {finding.fix}" if finding.fix else line


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 — this is the command line
