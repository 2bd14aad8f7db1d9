"""The permissions that the nodes' user needs in Redis, probed command by command to name each missing rule.

Commands are refused before they are executed, so probing has hardly any effect: the one key that is written has the
wrong type for nearly all of them, and expires within seconds.
"""

from __future__ import annotations

from redis.asyncio.connection import Connection
from redis.exceptions import NoPermissionError, ResponseError

from smartlink.server.cluster.redis.naming import Names

__all__ = ["COMMANDS", "missing_rules", "rule_for"]

_K = "\0key"
COMMANDS: dict[str, tuple[str | int, ...]] = {
    "ping": (),
    "time": (),
    "info": ("memory",),
    "memory|usage": (_K,),
    "eval": ("return 1", 0),
    "evalsha": ("0" * 40, 0),
    "script|load": ("return 1",),
    "set": (_K, "", "PX", 5_000),
    "get": (_K,),
    "incr": (_K,),
    "exists": (_K,),
    "expire": (_K, 5),
    "pexpire": (_K, 5_000),
    "ttl": (_K,),
    "pttl": (_K,),
    "hset": (_K, "f", ""),
    "hsetnx": (_K, "f", ""),
    "hget": (_K, "f"),
    "hgetall": (_K,),
    "hdel": (_K, "f"),
    "hexists": (_K, "f"),
    "hincrby": (_K, "f", 1),
    "hkeys": (_K,),
    "hlen": (_K,),
    "hscan": (_K, 0),
    "hvals": (_K,),
    "lindex": (_K, 0),
    "llen": (_K,),
    "lpop": (_K,),
    "lrange": (_K, 0, 0),
    "lrem": (_K, 0, ""),
    "ltrim": (_K, 0, 0),
    "rpush": (_K, ""),
    "sadd": (_K, ""),
    "srem": (_K, ""),
    "sscan": (_K, 0),
    "xadd": (_K, "*", "f", ""),
    "xlen": (_K,),
    "xrange": (_K, "-", "-"),
    "xrevrange": (_K, "+", "-"),
    "zadd": (_K, 1, ""),
    "zpopmin": (_K,),
    "zrange": (_K, 0, 0),
    "zrangebyscore": (_K, 0, 0),
    "zrem": (_K, ""),
    "zrevrange": (_K, 0, 0),
    "zscore": (_K, ""),
    "del": (_K,),
}
"""Each command that nodes send, also from scripts, with valid arguments. `_K` stands for a key."""


async def missing_rules(connection: Connection, prefix: str, *, is_cluster: bool = False) -> list[str]:
    """The ACL rules that nodes need and this connection's user lacks, in `ACL SETUSER` syntax.

    Leaves the connection subscribed, hence unusable. Raises what a connection raises.
    """
    names = Names(prefix)
    key, channel = names.of_nodes("tried"), names.heartbeat("tried")
    tried: list[tuple[str, list[str | int]]] = [
        (command, [*command.upper().split("|"), *(key if each == _K else each for each in arguments)])
        for command, arguments in COMMANDS.items()
    ]
    if is_cluster:
        tried.append(("cluster|slots", ["CLUSTER", "SLOTS"]))
    sharded = "s" if is_cluster else ""
    tried.append((f"{sharded}publish", [f"{sharded}publish", channel, ""]))
    tried += [(verb, [verb, channel]) for verb in (f"{sharded}subscribe", f"{sharded}unsubscribe")]
    await connection.send_packed_command([part for _, words in tried for part in connection.pack_command(*words)])
    missing: dict[str, None] = {}
    for command, _ in tried:
        try:
            await connection.read_response(disable_decoding=True)
        except NoPermissionError as error:
            missing[rule_for(error, command, prefix)] = None
        except ResponseError:
            pass  # wrong type, another server's slot or out of memory: permitted all the same
    return list(missing)


def rule_for(error: NoPermissionError, command: str, prefix: str) -> str:
    """The missing rule that Redis reports."""
    said = str(error)
    if "to run" in said:
        return f"+{command}"
    return f"&{prefix}:*" if "channel" in said else f"~{prefix}:*"
