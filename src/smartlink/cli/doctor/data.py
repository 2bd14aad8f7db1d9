"""Database and Redis: reachable, as this version wants them, and of one mind about the time."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from smartlink.broadcasting.outbox import read_status
from smartlink.cli.doctor.finding import Finding, failed, fine, skipped, warning
from smartlink.portal import migrations
from smartlink.portal.shared.db import Database, outbox_tables
from smartlink.portal.shared.errors import DatabaseAway
from smartlink.portal.shared.settings import PortalSettings
from smartlink.server.config import ServerSettings, UnsafeSettings
from smartlink.server.redis.connect import ask, find_topology, open_connection
from smartlink.server.redis_address import Kind

__all__ = ["check_database", "check_redis"]

TIMEOUT_S = 10.0
MOST_SKEW_S = 2.0
LEAST_REDIS = (6, 2)


async def check_database(settings: PortalSettings) -> list[Finding]:
    """Reachable, at our revision, its clock like ours; and somebody sends what is recorded in it."""
    where = "DATABASE_URL, or the DB_ settings"
    try:
        revision = await asyncio.wait_for(asyncio.to_thread(migrations.current, settings.url), TIMEOUT_S)
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        reason = type(getattr(error, "orig", None) or error).__name__
        return [failed("database", f"it cannot be used ({reason})", f"start it; check {where}")]
    if revision is None:
        return [failed("database", "it has no tables", "smartlink db upgrade")]
    if revision not in migrations.revisions():
        said = f"it is at revision {revision}, which this version does not know"
        return [failed("database", said, "install the version that the database belongs to, or a newer one")]
    if revision != migrations.HEAD:
        said = f"it is at revision {revision}, this version wants {migrations.HEAD}"
        return [failed("database", said, "smartlink db upgrade")]
    database = Database(settings.url)
    kind = "SQLite" if database.is_sqlite else "PostgreSQL"
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return [fine("database", f"{kind}, revision {revision}"), await _clock(database), await _worker(database)]
    except (DatabaseAway, SQLAlchemyError, TimeoutError) as error:
        return [failed("database", f"it does not answer ({type(error).__name__})", f"check {where}")]
    finally:
        await database.aclose()


async def check_redis(server: ServerSettings, portal: PortalSettings) -> list[Finding]:
    """Reachable, new enough, keeps what it is given, its clock like ours."""
    own = portal.broadcast
    is_given = own.redis_url is not None or "redis_host" in own.model_fields_set
    if not (server.reverb_scaling_enabled or server.reads_events_from_redis or is_given):
        return [skipped("redis", "not used: one node, no REDIS_URL")]
    fix = "start it; check REDIS_URL, or REDIS_HOST, REDIS_PORT and REDIS_PASSWORD"
    try:
        address = server.redis_address
        async with asyncio.timeout(TIMEOUT_S):
            topology = await find_topology(address)
            connection = await open_connection(address, topology.endpoints[0])
            try:
                before = time.time()
                info = str(await ask(connection, "INFO", "server"))
                told = await ask(connection, "TIME")
                policy = await _policy(connection)
            finally:
                await connection.disconnect(nowait=True)
    except UnsafeSettings as error:
        return [failed("redis", str(error), "change it in the environment or in .env")]
    except (RedisError, OSError, TimeoutError) as error:
        return [failed("redis", f"it cannot be reached ({type(error).__name__})", fix)]
    version = re.search(r"redis_version:(\d+)\.(\d+)", info)
    numbers = (int(version[1]), int(version[2])) if version else (0, 0)
    shown = ".".join(map(str, numbers))
    found = [fine("redis", f"version {shown}, {address}")]
    least = (7, 0) if address.kind is Kind.CLUSTER else LEAST_REDIS
    if numbers < least:
        found = [failed("redis", f"version {shown} is too old", f"install {'.'.join(map(str, least))} or newer")]
    if policy not in (None, "noeviction"):
        said = f"it forgets keys when memory is short (maxmemory-policy {policy})"
        found.append(warning("redis", said, "redis-cli config set maxmemory-policy noeviction"))
    found.append(_skew("Redis", int(told[0]) + int(told[1]) / 1e6 - before))
    return found


async def _policy(connection: Any) -> str | None:
    """None where it may not be asked, as with hosted ones."""
    try:
        answer = await ask(connection, "CONFIG", "GET", "maxmemory-policy")
    except RedisError:
        return None
    return _text(answer[1]) if answer else None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


async def _clock(database: Database) -> Finding:
    if database.is_sqlite:
        return skipped("clock", "the database runs on this machine's")
    async with database.reading() as session:
        before = time.time()
        there = await session.scalar(text("SELECT extract(epoch FROM clock_timestamp())"))
    return _skew("the database", float(there or 0) - before)


def _skew(whose: str, seconds: float) -> Finding:
    if abs(seconds) <= MOST_SKEW_S:
        return fine("clock", f"{whose} is {abs(seconds):.1f} s away")
    ahead = "ahead" if seconds > 0 else "behind"
    return failed("clock", f"{whose} is {abs(seconds):.1f} s {ahead}", "run an NTP client on both machines")


async def _worker(database: Database) -> Finding:
    found = await read_status(database.engine, outbox_tables)
    if found.has_worker:
        return fine("worker", f"at work, {found.waiting} events wait")
    return warning("worker", f"none is at work, {found.waiting} events wait", "smartlink worker start, or serve")
