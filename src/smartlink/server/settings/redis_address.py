"""The address of Redis: one server, a Cluster, or the master known to Sentinels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import unquote, urlsplit

__all__ = ["BadAddress", "Kind", "RedisAddress", "parse_hosts", "parse_url"]


class BadAddress(ValueError):
    """An invalid address; the message names the setting and the expected form, never a password."""


class Kind(Enum):
    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where to connect and with which credentials. `hosts` are the Sentinels, or some nodes of the Cluster."""

    hosts: tuple[tuple[str, int], ...]
    kind: Kind = Kind.SINGLE
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    is_tls: bool = False
    ca_file: str | None = None
    service: str = ""
    sentinel_password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{self.kind.value} {hosts}"


_SCHEMES = {
    f"{scheme}{suffix}": (kind, scheme == "rediss")
    for scheme in ("redis", "rediss")
    for suffix, kind in (("", Kind.SINGLE), ("+sentinel", Kind.SENTINEL), ("+cluster", Kind.CLUSTER))
}


def parse_hosts(text: str, setting: str, default_port: int) -> tuple[tuple[str, int], ...]:
    """Parse `host[:port]`, comma-separated, with IPv6 in brackets. Raises BadAddress."""
    hosts = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        split = urlsplit(f"//{part}")
        try:
            host, port = split.hostname, split.port
        except ValueError:
            host, port = None, None
        if not host or split.path or split.username is not None:
            raise BadAddress(f"{setting} must be host:port, several separated by commas.")
        hosts.append((host, default_port if port is None else port))
    if not hosts:
        raise BadAddress(f"{setting} has no host. Write host:port.")
    return tuple(hosts)


def parse_url(url: str, *, ca_file: str | None = None, sentinel_password: str | None = None) -> RedisAddress:
    """Parse REDIS_URL. Raises BadAddress.

    `redis[s]://[user[:password]@]host[:port][/db]`, `redis[s]+cluster://…host:port,host:port`,
    `redis[s]+sentinel://…host:port,host:port/service[/db]`.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        raise BadAddress(f"REDIS_URL must begin with one of {', '.join(f'{name}://' for name in _SCHEMES)}.")
    kind, is_tls = _SCHEMES[scheme.lower()]
    authority, _, path = rest.partition("?")[0].partition("/")
    credentials, _, hosts = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    parts = [unquote(part) for part in path.split("/") if part]
    service = ""
    if kind is Kind.SENTINEL:
        if not parts:
            raise BadAddress("REDIS_URL has no service name. Write redis+sentinel://host:port,host:port/service.")
        service = parts.pop(0)
    return RedisAddress(
        hosts=parse_hosts(hosts, "The hosts in REDIS_URL", 26_379 if kind is Kind.SENTINEL else 6_379),
        kind=kind,
        username=unquote(username) or None,
        password=unquote(password) or None,
        database=_database(parts, kind),
        is_tls=is_tls,
        ca_file=ca_file,
        service=service,
        sentinel_password=sentinel_password,
    )


def _database(parts: Iterable[str], kind: Kind) -> int:
    text = "/".join(parts) or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise BadAddress("The database in REDIS_URL must be a number, as in redis://host:6379/0.")
    if kind is Kind.CLUSTER and int(text):
        raise BadAddress("A Redis Cluster has only database 0: remove the database from REDIS_URL.")
    return int(text)
