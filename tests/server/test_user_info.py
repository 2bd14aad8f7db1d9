"""`user_info` of presence members: requested, and changed while they are present."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kit.client import connected
from kit.engines import Between
from kit.realtime import an_app, call, realtime_server
from smartlink.server.run.lifecycle import RealtimeServer

ANA = {"user_id": "1", "user_info": {"name": "Ana"}}
BEN = {"user_id": 2, "user_info": {"name": "Ben"}}
UPDATED = "pusher:member_updated"


async def users(server: RealtimeServer, channel: str = "presence-a", **params: str) -> Any:
    answer = await call(server.port, "GET", f"/apps/1001/channels/{channel}/users", params=params)
    return answer.json().get("users") if answer.status_code == 200 else answer.status_code


async def change(server: RealtimeServer, user_id: str, body: Any) -> tuple[int, Any]:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await call(server.port, "POST", f"/apps/1001/users/{user_id}/info", text)
    return answer.status_code, answer.json()


async def test_users_are_listed_with_user_info_on_request(server: RealtimeServer) -> None:
    async with connected(server.port) as ana, connected(server.port) as ben:
        await ana.subscribe("presence-a", ANA)
        await ben.subscribe("presence-a", BEN)

        told = [{"id": "1", "user_info": {"name": "Ana"}}, {"id": "2", "user_info": {"name": "Ben"}}]
        assert await users(server, with_user_info="1") == told
        assert await users(server, with_user_info="0") == await users(server) == [{"id": "1"}, {"id": "2"}]
        assert await users(server, "presence-nobody", with_user_info="1") == []
        assert await users(server, with_user_info="yes") == 400


async def test_a_change_is_announced_once_and_included_in_later_states() -> None:
    between = Between()
    async with (
        realtime_server(engines=between.engines()) as one,
        realtime_server(engines=between.engines()) as two,
        connected(one.port) as ana,
        connected(two.port) as tab,
        connected(two.port) as ben,
    ):
        for client, member in ((ana, ANA), (tab, ANA), (ben, BEN)):
            await client.subscribe("presence-a", member)
        await ben.subscribe("presence-b", BEN)
        for client in (ana, tab):
            await client.expect("pusher_internal:member_added")
        newer = {"name": "Ana B."}
        asked = {"user_info": newer, "channels": ["presence-a", "presence-none", "presence-a"]}

        assert await change(one, "1", asked) == (200, {"channels": ["presence-a"]})
        for client in (ana, tab, ben):
            message = await client.expect(UPDATED)
            assert (message["channel"], json.loads(message["data"])) == (
                "presence-a", {"user_id": "1", "user_info": newer},
            )  # fmt: skip
            assert await client.is_quiet()
        assert await change(two, "1", asked) == (200, {"channels": ["presence-a"]})
        assert await ana.is_quiet(), "nothing has changed"
        assert await users(two, with_user_info="1") == [
            {"id": "1", "user_info": newer}, {"id": "2", "user_info": {"name": "Ben"}},
        ]  # fmt: skip
        async with connected(two.port) as late:
            state = await late.subscribe("presence-a", {"user_id": "3"})
        assert state["presence"]["hash"]["1"] == newer


async def test_a_change_without_channels_applies_to_all_the_users_channels() -> None:
    between = Between()
    async with (
        realtime_server(engines=between.engines()) as one,
        realtime_server(engines=between.engines()) as two,
        connected(one.port) as ana,
        connected(two.port) as ben,
        connected(one.port) as tab,
    ):
        await ana.subscribe("presence-a", ANA)
        await ben.subscribe("presence-a", BEN)
        await ana.expect("pusher_internal:member_added")
        await tab.subscribe("presence-a", BEN)
        await ben.subscribe("presence-b", BEN)

        assert await change(one, "2", {"user_info": [1]}) == (200, {})
        for client in (ana, tab):
            assert json.loads((await client.expect(UPDATED))["data"]) == {"user_id": 2, "user_info": [1]}
            assert await client.is_quiet()
        assert {(await ben.expect(UPDATED))["channel"] for _ in range(2)} == {"presence-a", "presence-b"}
        assert await ben.is_quiet()
        assert await users(one, "presence-b", with_user_info="1") == [{"id": "2", "user_info": [1]}]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"[]", 400), (b"{", 400), (b'{"user_info":' + b"[" * 4_000, 400), ({}, 400),
        ({"user_info": {}, "channels": []}, 400), ({"user_info": {}, "channels": "presence-a"}, 400),
        ({"user_info": {}, "channels": ["chat"]}, 400), ({"user_info": {}, "channels": [1]}, 400),
        ({"user_info": {}, "channels": ["presence-a\n"]}, 400), ({"user_info": {}, "channels": ["presence-a"] * 101}, 400),
        ({"user_info": "x" * 1_024}, 413),
    ],
)  # fmt: skip
async def test_an_invalid_change_is_refused(server: RealtimeServer, body: Any, status: int) -> None:
    async with connected(server.port) as ana:
        await ana.subscribe("presence-a", ANA)

        assert (await change(server, "1", body))[0] == status
        assert await ana.is_quiet()
        assert await users(server, with_user_info="1") == [{"id": "1", "user_info": {"name": "Ana"}}]


async def test_a_change_is_refused_while_other_nodes_are_unreachable() -> None:
    between = Between()
    async with realtime_server(an_app(), engines=between.engines()) as one:
        between.is_away = True
        for body in ({"user_info": {}}, {"user_info": {}, "channels": ["presence-a"]}):
            assert (await change(one, "1", body))[0] == 503
