"""Connects to the servers that hold the data: a single one, the master known to Sentinels, or a Cluster's masters."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError, ResponseError

from smartlink.lost import closed_is_lost
from smartlink.server.cluster.redis.permissions import missing_rules
from smartlink.server.settings.config import UnsafeSettings
from smartlink.server.settings.redis_address import Kind, RedisAddress

__all__ = [
    "LOST",
    "TIMEOUT_S",
    "Endpoint",
    "RedisRefused",
    "Topology",
    "ask",
    "check_permissions",
    "find_topology",
    "open_connection",
    "slot_of",
]

Endpoint = tuple[str, int]
LOST = (RedisError, OSError, TimeoutError, asyncio.IncompleteReadError, EOFError)
"""Exceptions of a connection that is unusable."""


TIMEOUT_S = 2.0
"""Timeout of connecting, and of any command."""


class RedisRefused(UnsafeSettings):
    """Redis answers but rejects us; retrying cannot help. The message names the setting to correct."""


@dataclass(frozen=True, slots=True)
class Topology:
    """Which server holds which slot. Without a Cluster, one holds them all."""

    endpoints: tuple[Endpoint, ...]
    slots: tuple[int, ...] | None = None
    """For each of the 16,384 slots the index of its endpoint; -1 if it is not served."""

    def endpoint(self, name: str) -> Endpoint | None:
        """The server of a key or sharded channel; None if it is not served."""
        if self.slots is None:
            return self.endpoints[0]
        index = self.slots[slot_of(name)]
        return None if index < 0 else self.endpoints[index]


def slot_of(name: str) -> int:
    slot: int = key_slot(name.encode())
    return slot


async def ask(connection: Connection, *arguments: Any) -> Any:
    """Send one command and return its reply. Raises one of LOST; ResponseError if Redis refuses it."""
    await connection.send_command(*arguments)
    return await connection.read_response(disable_decoding=True)


def _connection(address: RedisAddress, endpoint: Endpoint, *, is_sentinel: bool) -> Connection:
    """A connection, not yet open. It never reconnects or retries by itself."""
    arguments: dict[str, Any] = {
        "host": endpoint[0],
        "port": endpoint[1],
        "db": 0 if is_sentinel else address.database,
        "username": None if is_sentinel else address.username,
        "password": address.sentinel_password if is_sentinel else address.password,
        "socket_timeout": None,
        "socket_connect_timeout": TIMEOUT_S,
        "socket_keepalive": True,
        "driver_info": None,
        "protocol": 2,
    }
    if not address.is_tls:
        return Connection(**arguments)
    return SSLConnection(ssl_ca_certs=address.ca_file, **arguments)


async def open_connection(
    address: RedisAddress, endpoint: Endpoint, scripts: Sequence[str] = (), *, is_sentinel: bool = False
) -> Connection:
    """Open a connection and load `scripts`. Raises RedisRefused, or one of LOST."""
    connection = _connection(address, endpoint, is_sentinel=is_sentinel)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await connection.connect()  # type: ignore[no-untyped-call] # redis-py has no type there
            for script in scripts:
                await ask(connection, "SCRIPT", "LOAD", script)
            if not scripts:
                await ask(connection, "PING")  # Redis asks for a password only at the first command
    except NoPermissionError as error:
        await connection.disconnect(nowait=True)
        raise RedisRefused(
            f"Redis at {endpoint[0]}:{endpoint[1]} does not grant its user enough permissions: {_reason(error)}"
        ) from None
    except (AuthenticationError, AuthorizationError) as error:
        await connection.disconnect(nowait=True)
        who = "REDIS_SENTINEL_PASSWORD" if is_sentinel else "REDIS_USERNAME or REDIS_PASSWORD (or those in REDIS_URL)"
        raise RedisRefused(f"Redis at {endpoint[0]}:{endpoint[1]} rejects {who}: {_reason(error)}") from None
    except ssl.SSLCertVerificationError as error:
        await connection.disconnect(nowait=True)
        raise RedisRefused(
            f"The certificate of Redis is not trusted ({error.verify_message}): set REDIS_CA_FILE."
        ) from None
    except ResponseError as error:
        await connection.disconnect(nowait=True)
        if "DB index" in str(error):
            raise RedisRefused(f"Redis has no database {address.database}: change REDIS_DB (or REDIS_URL).") from None
        raise
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


async def check_permissions(address: RedisAddress, endpoint: Endpoint, prefix: str) -> None:
    """Raise RedisRefused, listing each ACL rule that the nodes' user lacks, or one of LOST."""
    connection = await open_connection(address, endpoint)
    try:
        with closed_is_lost():
            async with asyncio.timeout(TIMEOUT_S):
                missing = await missing_rules(connection, prefix, is_cluster=address.kind is Kind.CLUSTER)
    finally:
        await connection.disconnect(nowait=True)
    if missing:
        user, rules = address.username or "default", " ".join(missing)
        raise RedisRefused(
            f"Redis at {endpoint[0]}:{endpoint[1]} does not grant its user {user!r} enough permissions.  "
            f"Missing: {rules}. Grant them there: ACL SETUSER {user} {rules}"
        )


async def find_topology(address: RedisAddress) -> Topology:
    """Find out which servers hold the data. Raises RedisRefused, or one of LOST."""
    if address.kind is Kind.SINGLE:
        return Topology(address.hosts[:1])
    failure: Exception | None = None
    for host in address.hosts:
        try:
            connection = await open_connection(address, host, is_sentinel=address.kind is Kind.SENTINEL)
            try:
                with closed_is_lost():
                    return await _discover(address, connection, host)
            finally:
                await connection.disconnect(nowait=True)
        except RedisRefused:
            raise
        except LOST as error:
            failure = error
    raise failure or ConnectionError("no host")


async def _discover(address: RedisAddress, connection: Connection, host: Endpoint) -> Topology:
    async with asyncio.timeout(TIMEOUT_S):
        if address.kind is Kind.SENTINEL:
            return await _master(address, connection)
        return await read_slots(connection, host)


async def _master(address: RedisAddress, sentinel: Connection) -> Topology:
    found = await ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service)
    if not found:
        raise ResponseError(f"the Sentinel does not know the service {address.service!r} (REDIS_SENTINEL_SERVICE)")
    endpoint = (found[0].decode(), int(found[1]))
    connection = await open_connection(address, endpoint)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            role = await ask(connection, "ROLE")
    finally:
        await connection.disconnect(nowait=True)
    if role[0] != b"master":
        raise ResponseError("the server named by the Sentinel is not a master yet")
    return Topology((endpoint,))


async def read_slots(connection: Connection, asked: Endpoint) -> Topology:
    """The Cluster as seen by one of its nodes."""
    try:
        ranges = await ask(connection, "CLUSTER", "SLOTS")
    except ResponseError as error:
        if "cluster support disabled" in str(error):
            raise RedisRefused("Redis is not a Cluster: unset REDIS_CLUSTER, or write redis:// in REDIS_URL.") from None
        raise
    endpoints: dict[Endpoint, int] = {}
    slots = [-1] * 16_384
    for first, last, master, *_ in ranges:
        host = (master[0] or b"").decode() or asked[0]
        index = endpoints.setdefault((host, int(master[1])), len(endpoints))
        slots[first : last + 1] = [index] * (last + 1 - first)
    if not endpoints or -1 in slots:
        raise ResponseError("the Cluster does not serve all slots")
    return Topology(tuple(endpoints), tuple(slots))


def _reason(error: Exception) -> str:
    return str(error).partition(".")[0][:100]
