"""Checks Redis: reachable, recent enough, not evicting keys, with a clock that agrees with ours."""

from __future__ import annotations

import asyncio
import re
import time

from redis.exceptions import NoPermissionError, RedisError

from smartlink.cli.doctor.clock import compare
from smartlink.cli.doctor.finding import Finding, failed, fine, skipped, warning
from smartlink.portal.shared.settings import PortalSettings
from smartlink.server.cluster.redis.connect import Endpoint, ask, check_permissions, find_topology, open_connection
from smartlink.server.settings.config import ServerSettings, UnsafeSettings
from smartlink.server.settings.redis_address import Kind, RedisAddress

__all__ = ["check_redis"]

TIMEOUT_S = 10.0
LEAST_REDIS = (6, 2)
NEARLY_FULL = 0.9
"""The part of `maxmemory` whose use is a warning."""


async def check_redis(server: ServerSettings, portal: PortalSettings | None) -> list[Finding]:
    """Check that Redis is reachable, recent enough, not evicting keys, not full, and that its clock agrees."""
    is_shared = portal is not None and (
        portal.broadcast.redis_url is not None or "redis_host" in portal.broadcast.model_fields_set
    )
    if not (server.reverb_scaling_enabled or server.reads_events_from_redis or is_shared):
        return [skipped("redis", "not used (one node, no REDIS_URL)")]
    fix = "start Redis; check REDIS_URL, or REDIS_HOST, REDIS_PORT and REDIS_PASSWORD"
    try:
        address = server.redis_address
        async with asyncio.timeout(TIMEOUT_S):
            topology = await find_topology(address)
            for endpoint in topology.endpoints if server.reverb_scaling_enabled else ():
                await check_permissions(address, endpoint, server.reverb_scaling_channel)
            memory = [await _memory(address, endpoint) for endpoint in topology.endpoints]
            connection = await open_connection(address, topology.endpoints[0])
            try:
                before = time.time()
                info = str(await ask(connection, "INFO", "server"))
                told = await ask(connection, "TIME")
            finally:
                await connection.disconnect(nowait=True)
    except UnsafeSettings as error:
        return [failed("redis", str(error), "change it in the environment, in .env, or in Redis")]
    except NoPermissionError as error:
        said = f"its user lacks permissions this check needs: {error}"
        return [failed("redis", said, "allow +info and +time: see docs/howto/redis.md")]
    except (RedisError, OSError, TimeoutError) as error:
        return [failed("redis", f"cannot be reached ({type(error).__name__})", fix)]
    version = re.search(r"redis_version:(\d+)\.(\d+)", info)
    numbers = (int(version[1]), int(version[2])) if version else (0, 0)
    shown = ".".join(map(str, numbers))
    found = [fine("redis", f"version {shown}, {address}")]
    least = (7, 0) if address.kind is Kind.CLUSTER else LEAST_REDIS
    if numbers < least:
        found = [failed("redis", f"version {shown} is too old", f"install {'.'.join(map(str, least))} or newer")]
    found += _of_memory(memory)
    found.append(compare("Redis", int(told[0]) + int(told[1]) / 1e6 - before))
    return found


async def _memory(address: RedisAddress, endpoint: Endpoint) -> dict[str, str]:
    """Return the fields of one server's `INFO memory`."""
    connection = await open_connection(address, endpoint)
    try:
        told: str = (await ask(connection, "INFO", "memory")).decode(errors="replace")
    finally:
        await connection.disconnect(nowait=True)
    lines = (line.partition(":") for line in told.splitlines())
    return {name: value for name, _, value in lines}


def _of_memory(servers: list[dict[str, str]]) -> list[Finding]:
    found = []
    fix = "raise its maxmemory, or find out what else fills it"
    policies = {told.get("maxmemory_policy", "noeviction") for told in servers}
    for policy in sorted(policies - {"noeviction"}):
        said = f"evicts keys when it runs out of memory (maxmemory-policy {policy})"
        found.append(warning("redis", said, "redis-cli config set maxmemory-policy noeviction"))
    for told in servers:
        most = int(told.get("maxmemory", 0))
        used = int(told.get("used_memory", 0)) - int(told.get("mem_not_counted_for_evict", 0))
        if most and used > most and told.get("maxmemory_policy") == "noeviction":
            said = f"out of memory: {used:,} of {most:,} bytes used; publishing is answered with 503"
            found.append(failed("redis", said, fix))
        elif most and used > NEARLY_FULL * most and told.get("maxmemory_policy") == "noeviction":
            found.append(warning("redis", f"nearly full: {used:,} of {most:,} bytes used", fix))
    return found
