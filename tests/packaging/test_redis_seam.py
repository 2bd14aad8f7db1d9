"""What the server uses of redis-py's `Connection`, below the client: an incompatible release fails here, by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import pytest
from redis.asyncio.connection import Connection, SSLConnection

USED: Mapping[str, tuple[str, ...]] = {
    "connect": (),
    "disconnect": ("nowait",),
    "pack_command": (),
    "read_response": ("disable_decoding",),
    "send_command": (),
    "send_packed_command": (),
}
COROUTINES = set(USED) - {"pack_command"}


@pytest.mark.parametrize("kind", [Connection, SSLConnection])
@pytest.mark.parametrize("name", USED)
def test_a_connection_has_what_the_server_calls(kind: type[Connection], name: str) -> None:
    method = getattr(kind, name)

    assert set(USED[name]) <= set(inspect.signature(method).parameters)
    assert inspect.iscoroutinefunction(method) is (name in COROUTINES)


def test_a_packed_command_is_a_list_of_bytes() -> None:
    assert b"".join(Connection().pack_command("SET", "a", "b")) == b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n"
