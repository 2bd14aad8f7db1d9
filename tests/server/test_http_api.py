"""The HTTP API: signatures, bad bodies, responses, and malformed HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from kit.client import connected, raw
from kit.realtime import KEY, SECRET, call, realtime_server
from kit.waiting import LIMIT_S
from smartlink.protocol.signing import body_md5, sign_request, signed_query
from smartlink.server.run.lifecycle import RealtimeServer

EVENT = b'{"name":"e","channel":"chat","data":"{}"}'
PATH = "/apps/1001/events"


async def send(port: int, method: str, target: str, body: bytes = b"") -> httpx2.Response:
    async with httpx2.AsyncClient(verify=False, trust_env=False, timeout=LIMIT_S) as client:
        return await client.request(method, f"http://127.0.0.1:{port}{target}", content=body)


def query(params: dict[str, str], secret: str = SECRET, method: str = "POST", path: str = PATH) -> str:
    signature = sign_request(secret, method, path, params.items())
    return "&".join(f"{name}={value}" for name, value in (params | {"auth_signature": signature}).items())


def params(**changed: str | None) -> dict[str, str]:
    base: dict[str, str | None] = {
        "auth_key": KEY,
        "auth_timestamp": str(int(time.time())),
        "auth_version": "1.0",
        "body_md5": body_md5(EVENT),
    }
    return {name: value for name, value in (base | changed).items() if value is not None}


async def test_a_signed_event_is_accepted(server: RealtimeServer) -> None:
    answer = await call(server.port, "POST", PATH, EVENT)

    assert (answer.status_code, answer.text) == (200, "{}")


def ahead(seconds: int) -> str:
    """A timestamp so far from now."""
    return str(int(time.time()) + seconds)


def with_upper_signature(signed: str) -> str:
    head, _, signature = signed.rpartition("=")
    return f"{head}={signature.upper()}"


BAD_QUERIES: dict[str, Callable[[], str]] = {
    "nothing": lambda: "",
    "another secret": lambda: query(params(), secret="guess"),
    "another key": lambda: query(params(auth_key="other")),
    "no version": lambda: query(params(auth_version=None)),
    "version 2.0": lambda: query(params(auth_version="2.0")),
    "no timestamp": lambda: query(params(auth_timestamp=None)),
    "old timestamp": lambda: query(params(auth_timestamp=ahead(-700))),
    "future timestamp": lambda: query(params(auth_timestamp=ahead(900))),
    "timestamp as 1e9": lambda: query(params(auth_timestamp="1e9")),
    "negative timestamp": lambda: query(params(auth_timestamp="-1")),
    "no md5": lambda: query(params(body_md5=None)),
    "md5 of another body": lambda: query(params(body_md5=body_md5(b"x"))),
    "md5 in upper case": lambda: query(params(body_md5=body_md5(EVENT).upper())),
    "signature of GET": lambda: query(params(), method="GET"),
    "signature of another path": lambda: query(params(), path="/apps/1001/batch_events"),
    "signature cut": lambda: query(params())[:-1],
    "signature in upper case": lambda: with_upper_signature(query(params())),
}


@pytest.mark.parametrize("name", BAD_QUERIES)
async def test_a_wrong_signature_is_401_and_publishes_nothing(server: RealtimeServer, name: str) -> None:
    async with connected(server.port) as client:
        await client.subscribe("chat")
        answer = await send(server.port, "POST", f"{PATH}?{BAD_QUERIES[name]()}", EVENT)

        assert answer.status_code == 401
        assert answer.json()["error"]
        assert await client.is_quiet()


async def test_a_repeated_parameter_is_400(server: RealtimeServer) -> None:
    answer = await send(server.port, "POST", f"{PATH}?{query(params())}&auth_version=1.0", EVENT)

    assert answer.status_code == 400


@pytest.mark.parametrize("offset", [-590, 590])
async def test_timestamps_may_differ_by_ten_minutes(server: RealtimeServer, offset: int) -> None:
    answer = await call(server.port, "POST", PATH, EVENT, timestamp=int(time.time()) + offset)

    assert answer.status_code == 200


def event(**changed: Any) -> bytes:
    return json.dumps(
        {k: v for k, v in ({"name": "e", "channel": "chat", "data": "{}"} | changed).items() if v != "-"}
    ).encode()


BAD_BODIES: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 400),
    "not JSON": (b"x", 400),
    "array": (b"[]", 400),
    "null": (b"null", 400),
    "NaN": (b'{"name":NaN}', 400),
    "deep": (b"[" * 100_000, 400),
    "lone surrogate": (b'{"name":"\\ud800","channel":"chat","data":""}', 400),
    "not UTF-8": (b'{"name":"\xff","channel":"chat","data":""}', 400),
    "no name": (event(name="-"), 400),
    "name a number": (event(name=1), 400),
    "name empty": (event(name=""), 400),
    "name of 201": (event(name="n" * 201), 400),
    "name with NUL": (event(name="a\0"), 400),
    "name of the protocol": (event(name="pusher:error"), 400),
    "name of the protocol's inside": (event(name="pusher_internal:member_added"), 400),
    "no data": (event(data="-"), 400),
    "data an object": (event(data={}), 400),
    "data null": (event(data=None), 400),
    "data too large": (event(data="x" * 10_241), 413),
    "data too large in UTF-8": (event(data="ž" * 5_121), 413),
    "no channel": (event(channel="-"), 400),
    "channel a number": (event(channel=1), 400),
    "channel with a space": (event(channel="a b"), 400),
    "channel of 201": (event(channel="c" * 201), 400),
    "channels empty": (event(channels=[]), 400),
    "channels of 101": (event(channels=[f"c{i}" for i in range(101)]), 400),
    "channels with a number": (event(channels=["a", 1]), 400),
    "one bad channel": (event(channels=["chat", "a b"]), 400),
    "socket id malformed": (event(socket_id="1.1\n"), 400),
    "socket id in other digits": (event(socket_id="١.١"), 400),
    "socket id a number": (event(socket_id=1.1), 400),
    "info unknown": (event(info="passwords"), 400),
    "body too large": (b"x" * 300_000, 413),
}


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_an_invalid_body_is_refused_as_a_whole(server: RealtimeServer, name: str) -> None:
    body, status = BAD_BODIES[name]
    async with connected(server.port) as client:
        await client.subscribe("chat")
        answer = await call(server.port, "POST", PATH, body)

        assert answer.status_code == status, answer.text
        assert answer.json()["error"]
        assert await client.is_quiet()


async def test_a_thousand_emoji_arrive(server: RealtimeServer) -> None:
    data = json.dumps({"message": "😀" * 1_000}, ensure_ascii=False)
    async with connected(server.port) as client:
        await client.subscribe("chat")
        await call(server.port, "POST", PATH, json.dumps({"name": "e", "channel": "chat", "data": data}).encode())

        assert (await client.receive())["data"] == data


async def test_a_batch_is_all_or_nothing(server: RealtimeServer) -> None:
    good = {"name": "e", "channel": "chat", "data": "{}"}
    async with connected(server.port) as client:
        await client.subscribe("chat")
        for batch in ([], [good] * 11, [good, good | {"name": ""}], [good, {"name": "e", "data": ""}]):
            answer = await call(server.port, "POST", "/apps/1001/batch_events", json.dumps({"batch": batch}).encode())
            assert answer.status_code == 400
        assert await client.is_quiet()
        await call(server.port, "POST", "/apps/1001/batch_events", json.dumps({"batch": [good, good]}).encode())

        await client.expect("e")
        await client.expect("e")


async def test_counts_are_returned_on_request(server: RealtimeServer) -> None:
    async with connected(server.port) as ana, connected(server.port) as tab:
        await ana.subscribe("presence-chat", {"user_id": 1})
        await tab.subscribe("presence-chat", {"user_id": "1"})
        await tab.subscribe("chat")

        async def get(path: str, **parameters: str) -> tuple[int, Any]:
            answer = await call(server.port, "GET", path, params=parameters)
            return answer.status_code, answer.json()

        counts = {"user_count": 1, "subscription_count": 2}
        assert await get("/apps/1001/channels") == (200, {"channels": {"presence-chat": {}, "chat": {}}})
        assert await get("/apps/1001/channels", filter_by_prefix="presence-", info="user_count") == (
            200, {"channels": {"presence-chat": {"user_count": 1}}},
        )  # fmt: skip
        assert (await get("/apps/1001/channels", info="user_count"))[0] == 400
        assert await get("/apps/1001/channels/presence-chat", info="user_count,subscription_count") == (
            200, {"occupied": True} | counts,
        )  # fmt: skip
        assert await get("/apps/1001/channels/nobody") == (200, {"occupied": False})
        assert (await get("/apps/1001/channels/chat", info="user_count"))[0] == 400
        assert (await get("/apps/1001/channels/chat/users"))[0] == 400
        assert await get("/apps/1001/channels/presence-nobody/users") == (200, {"users": []})
        assert await get("/apps/1001/connections") == (200, {"connections": 2})
        answer = await call(
            server.port, "POST", PATH,
            json.dumps({"name": "e", "channels": ["presence-chat"], "data": "", "info": "user_count,subscription_count"}).encode(),
        )  # fmt: skip
        assert answer.json() == {"channels": {"presence-chat": counts}}


async def test_attributes_that_do_not_apply_to_a_channel_are_omitted(server: RealtimeServer) -> None:
    asked = {"name": "e", "data": "", "info": "user_count,subscription_count"}
    batch = [asked | {"channel": "presence-chat"}, {"name": "e", "data": "", "channel": "chat"}]
    async with connected(server.port) as client:
        await client.subscribe("presence-chat", {"user_id": "1"})
        await client.subscribe("chat")
        event = asked | {"channels": ["presence-chat", "chat"]}
        several = await call(server.port, "POST", PATH, json.dumps(event).encode())
        nothing = await call(
            server.port, "POST", PATH, json.dumps(event | {"info": "user_count", "channels": ["chat"]}).encode()
        )
        batched = await call(server.port, "POST", "/apps/1001/batch_events", json.dumps({"batch": batch}).encode())
        only_public = [{"name": "e", "data": "", "channel": "chat", "info": "user_count"}]
        empty = await call(server.port, "POST", "/apps/1001/batch_events", json.dumps({"batch": only_public}).encode())

    both = {"user_count": 1, "subscription_count": 1}
    assert several.json() == {"channels": {"presence-chat": both, "chat": {"subscription_count": 1}}}
    assert nothing.json() == {"channels": {"chat": {}}}
    assert batched.json() == {"batch": [both, {}]}
    assert empty.json() == {"batch": [{}]}


async def test_the_official_python_clients_quirks_are_accepted(server: RealtimeServer) -> None:
    empty = await call(server.port, "GET", "/apps/1001/channels", params={"body_md5": body_md5(b"")})
    terminate = await call(server.port, "POST", "/users/1/terminate_connections", b"{}")

    assert (empty.status_code, terminate.status_code) == (200, 200)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/apps", 404),
        ("GET", "/apps/1001", 404),
        ("POST", "/apps/2/events", 404),
        ("POST", "/apps/1001/../2/events", 404),
        ("POST", "//apps/1001/events", 404),
        ("POST", "/apps/1001/events/", 404),
        ("GET", "/apps/1001/events", 405),
        ("DELETE", "/apps/1001/channels", 405),
        ("POST", "/up", 405),
        ("GET", "/up", 200),
    ],
)
async def test_unknown_paths_and_methods_are_refused(
    server: RealtimeServer, method: str, path: str, status: int
) -> None:
    async with raw(server.port) as client:
        q = signed_query(KEY, SECRET, method, path, timestamp=int(time.time()))
        client.writer.write(f"{method} {path}?{q} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(LIMIT_S):
            answer = await client.reader.read()

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


MALFORMED = {
    "garbage": b"\x00\x01\x02\r\n\r\n",
    "two lengths": b"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": b"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "chunk size no number": b"POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "space before colon": b"GET /up HTTP/1.1\r\nHost : x\r\n\r\n",
    "no host": b"GET /up HTTP/1.1\r\n\r\n",
    "HTTP/3.7": b"GET /up HTTP/3.7\r\nHost: x\r\n\r\n",
    "bare line feed in a name": b"GET /up HTTP/1.1\r\nHost: x\r\nA\nB: 1\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_request_gets_one_response_and_nothing_after_it_is_read(
    server: RealtimeServer, name: str
) -> None:
    async with raw(server.port) as client:
        client.writer.write(MALFORMED[name] + b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(LIMIT_S):
            answer = await client.reader.read()

    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer[9:10] in b"45"


async def test_chunked_bodies_pipelining_and_keep_alive(server: RealtimeServer) -> None:
    q = signed_query(KEY, SECRET, "POST", PATH, EVENT, timestamp=int(time.time()))
    chunks = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (10, EVENT[:10], len(EVENT) - 10, EVENT[10:])
    request = f"POST {PATH}?{q} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunks
    async with connected(server.port) as subscriber, raw(server.port) as client:
        await subscriber.subscribe("chat")
        client.writer.write(request * 3)
        async with asyncio.timeout(LIMIT_S):
            for _ in range(3):
                head = await client.reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                assert await client.reader.readexactly(2) == b"{}"
        for _ in range(3):
            await subscriber.expect("e")


async def test_the_path_prefix_applies_to_every_path() -> None:
    async with realtime_server(reverb_server_path="ws/") as server, raw(server.port) as client:
        assert (await client.handshake("/ws/app/app-key?protocol=7")).startswith("HTTP/1.1 101")
        q = signed_query(KEY, SECRET, "POST", PATH, EVENT, timestamp=int(time.time()))
        assert (await send(server.port, "POST", f"/ws{PATH}?{q}", EVENT)).status_code == 200
