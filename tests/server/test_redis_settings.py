"""Redis addresses in the settings, and their errors."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from kit.realtime import realtime_server
from kit.redis import redis_server
from smartlink.server.settings.config import ServerSettings, UnsafeSettings
from smartlink.server.settings.redis_address import Kind, RedisAddress


def settings(**values: Any) -> ServerSettings:
    return ServerSettings(_env_file=None, reverb_scaling_enabled=True, **values)


GOOD: list[tuple[dict[str, Any], RedisAddress]] = [
    ({}, RedisAddress((("127.0.0.1", 6379),))),
    (
        {"redis_host": "r", "redis_port": 1, "redis_username": "u", "redis_password": "p", "redis_db": 3},
        RedisAddress((("r", 1),), username="u", password="p", database=3),
    ),
    ({"redis_url": "redis://r"}, RedisAddress((("r", 6379),))),
    (
        {"redis_url": "redis://u:p%40%3A@r:7/2", "redis_host": "unused"},
        RedisAddress((("r", 7),), username="u", password="p@:", database=2),
    ),
    ({"redis_url": "redis://:p@[::1]:7"}, RedisAddress((("::1", 7),), password="p")),
    (
        {"redis_url": "rediss://r", "redis_ca_file": "ca.pem"},
        RedisAddress((("r", 6379),), is_tls=True, ca_file="ca.pem"),
    ),
    ({"redis_url": "redis+cluster://a:1,b"}, RedisAddress((("a", 1), ("b", 6379)), Kind.CLUSTER)),
    ({"redis_url": "redis://a:1", "redis_cluster": True}, RedisAddress((("a", 1),), Kind.CLUSTER)),
    ({"redis_cluster": True}, RedisAddress((("127.0.0.1", 6379),), Kind.CLUSTER)),
    (
        {"redis_url": "rediss+sentinel://:p@a:1,b/main/4", "redis_sentinel_password": "s"},
        RedisAddress(
            (("a", 1), ("b", 26379)),
            Kind.SENTINEL,
            password="p",
            database=4,
            is_tls=True,
            service="main",
            sentinel_password="s",
        ),
    ),
    (
        {"redis_sentinels": "a, b:2", "redis_sentinel_service": "main", "redis_password": "p"},
        RedisAddress((("a", 26379), ("b", 2)), Kind.SENTINEL, password="p", service="main"),
    ),
]


@pytest.mark.parametrize(("values", "address"), GOOD)
def test_an_address_is_read_from_a_url_or_its_parts(values: dict[str, Any], address: RedisAddress) -> None:
    found = settings(**values).redis_address

    assert (found.hosts, found.kind, found.username, found.password) == (
        address.hosts,
        address.kind,
        address.username,
        address.password,
    )
    assert (found.database, found.is_tls, found.ca_file, found.sentinel_password) == (
        address.database,
        address.is_tls,
        address.ca_file,
        address.sentinel_password,
    )
    assert found.kind is not Kind.SENTINEL or found.service == address.service


BAD: list[tuple[dict[str, Any], str]] = [
    ({"redis_url": "http://:hunter2@r"}, "REDIS_URL"),
    ({"redis_url": "hunter2"}, "REDIS_URL"),
    ({"redis_url": "redis://:hunter2@"}, "REDIS_URL"),
    ({"redis_url": "redis://:hunter2@r:port"}, "REDIS_URL"),
    ({"redis_url": "redis://:hunter2@r:70000"}, "REDIS_URL"),
    ({"redis_url": "redis://:hunter2@r/zero"}, "REDIS_URL"),
    ({"redis_url": "redis+sentinel://:hunter2@r"}, "REDIS_URL"),
    ({"redis_url": "redis+cluster://:hunter2@r/1"}, "REDIS_URL"),
    ({"redis_url": "redis://:hunter2@r/1", "redis_cluster": True}, "REDIS_URL"),
    ({"redis_sentinels": "a:b"}, "REDIS_SENTINELS"),
    ({"redis_sentinels": ","}, "REDIS_SENTINELS"),
    ({"redis_sentinels": "a", "redis_cluster": True}, "REDIS_CLUSTER"),
    ({"redis_cluster": True, "redis_db": 1}, "REDIS_DB"),
    ({"redis_cluster": True, "reverb_redis_ingest": True}, "REVERB_REDIS_INGEST"),
    ({"redis_cluster": True, "broadcast_driver": "redis"}, "BROADCAST_DRIVER"),
]


@pytest.mark.parametrize(("values", "named"), BAD)
def test_an_invalid_address_stops_the_start_without_showing_its_password(values: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsafeSettings) as refused:
        settings(**values).check_start()

    assert named in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_the_printed_address_has_no_password() -> None:
    values = settings(redis_url="redis://:hunter2@r", redis_password="hunter2", redis_sentinel_password="hunter2")

    assert "hunter2" not in repr(values) + str(values.redis_address) + repr(values.redis_address)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "REDIS_PASSWORD"),
        ({"redis_password": "wrong-hunter2"}, "REDIS_PASSWORD"),
        ({"redis_password": "right", "redis_db": 99}, "REDIS_DB"),
        ({"redis_password": "right", "redis_cluster": True}, "REDIS_CLUSTER"),
    ],
)
async def test_rejected_credentials_stop_the_start(
    values: dict[str, Any], named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with redis_server("--requirepass", "right", password="right") as redis:
        with pytest.raises(UnsafeSettings, match=named):
            async with realtime_server(reverb_scaling_enabled=True, redis_port=redis.port, **values):
                pass

    assert "hunter2" not in "".join(capfd.readouterr())


async def test_a_failed_start_releases_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with redis_server("--requirepass", "right", password="right") as redis:
        for _ in range(2):
            with pytest.raises(UnsafeSettings):
                async with realtime_server(reverb_server_port=port, reverb_scaling_enabled=True, redis_port=redis.port):
                    pass
