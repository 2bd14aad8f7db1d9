"""The admin API: only for admins, and every change is in the audit log."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kit.client import connected
from kit.portal import PASSWORD, Person, World, payloads
from kit.realtime import realtime_server
from kit.waiting import LIMIT_S
from smartlink.broadcasting import BroadcastSettings
from smartlink.portal.admin import console
from smartlink.portal.admin.events import AdminFigures

CALLS = [
    ("GET", "/api/admin/overview"),
    ("GET", "/api/admin/users"),
    ("PATCH", "/api/admin/users/1"),
    ("POST", "/api/admin/users/1/disconnect"),
    ("GET", "/api/admin/connections"),
    ("GET", "/api/admin/channels"),
    ("GET", "/api/admin/events"),
    ("GET", "/api/admin/failed-jobs"),
    ("POST", "/api/admin/failed-jobs/retry"),
    ("DELETE", "/api/admin/failed-jobs"),
    ("POST", "/api/admin/failed-jobs/1/retry"),
    ("DELETE", "/api/admin/failed-jobs/1"),
    ("POST", "/api/admin/broadcast"),
    ("GET", "/api/admin/audit"),
    ("GET", "/api/admin/messages/1/versions"),
]


@pytest.fixture
async def admin(world: World) -> Person:
    return await world.person("Admin", is_admin=True)


async def audit(admin: Person) -> list[tuple[str, str]]:
    return [(entry["action"], entry["target"]) for entry in (await admin.get("/api/admin/audit")).json()]


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_only_admins_may_use_the_endpoints(world: World, ana: Person, method: str, path: str) -> None:
    body = {"channel": "chat", "event": "x", "data": {}, "is_admin": True}

    assert (await ana.client.request(method, path, json=body)).status_code == 403
    assert (await world.client().request(method, path, json=body)).status_code == 401
    (await world.broadcasts()).assert_nothing_broadcast()
    assert await world.rows("SELECT id FROM audit_entries") == []


async def test_the_list_of_calls_is_the_list_of_endpoints(world: World) -> None:
    paths = (await world.client().get("/openapi.json")).json()["paths"]
    found = {
        (method.upper(), re.sub(r"\{\w+\}", "1", path))
        for path, methods in paths.items()
        if path.startswith("/api/admin")
        for method in methods
    }

    assert found == set(CALLS)


async def test_users_are_listed_found_and_paged(world: World, admin: Person, ana: Person, ben: Person) -> None:
    listed = (await admin.get("/api/admin/users")).json()

    assert [user["name"] for user in listed] == ["Ben", "Ana", "Admin"]
    assert set(listed[0]) == {"id", "name", "email", "is_admin", "blocked_at", "is_online", "last_seen", "created_at"}
    assert [user["id"] for user in (await admin.get("/api/admin/users?q=AN")).json()] == [ana.id]
    assert [user["id"] for user in (await admin.get(f"/api/admin/users?q={ben.email}")).json()] == [ben.id]
    assert (await admin.get("/api/admin/users?q=%25")).json() == []
    assert [user["name"] for user in (await admin.get(f"/api/admin/users?before={ana.id}")).json()] == ["Admin"]


async def test_a_blocked_user_is_signed_out_until_unblocked(world: World, admin: Person, ana: Person) -> None:
    answer = await admin.patch(f"/api/admin/users/{ana.id}", {"is_blocked": True})

    assert answer.status_code == 200
    assert answer.json()["blocked_at"] is not None
    assert (await ana.get("/api/user")).status_code == 401
    await admin.patch(f"/api/admin/users/{ana.id}", {"is_blocked": False})
    again = await world.client().post("/api/login", json={"email": ana.email, "password": PASSWORD})
    assert again.status_code == 200
    assert await audit(admin) == [("change user", f"user {ana.id}")] * 2


async def test_a_user_can_be_made_an_admin_and_demoted(admin: Person, ana: Person) -> None:
    assert (await admin.patch(f"/api/admin/users/{ana.id}", {"is_admin": True})).json()["is_admin"] is True
    assert (await ana.get("/api/admin/users")).status_code == 200
    await admin.patch(f"/api/admin/users/{ana.id}", {"is_admin": False})
    assert (await ana.get("/api/admin/users")).status_code == 403


@pytest.mark.parametrize("change", [{"is_admin": False}, {"is_blocked": True}])
async def test_admins_cannot_lock_themselves_out(admin: Person, change: dict[str, bool]) -> None:
    answer = await admin.patch(f"/api/admin/users/{admin.id}", change)

    assert answer.status_code == 422
    assert set(answer.json()["errors"]) == set(change)
    assert (await admin.get("/api/admin/users")).status_code == 200


@pytest.mark.parametrize("change", [{"is_admin": False}, {"is_blocked": True}])
async def test_of_two_admins_who_demote_each_other_one_stays(world: World, change: dict[str, bool]) -> None:
    for _ in range(5):
        one, other = await world.person("One", is_admin=True), await world.person("Other", is_admin=True)

        answers = await asyncio.gather(
            one.patch(f"/api/admin/users/{other.id}", change), other.patch(f"/api/admin/users/{one.id}", change)
        )

        taken, refused = sorted(answer.status_code for answer in answers)
        assert (taken, refused) in {(200, 401), (200, 403)}


@pytest.mark.parametrize("body", [{"is_admin": "yes"}, {"is_blocked": 1}, {"is_admin": []}, [], "x"])
async def test_invalid_changes_are_refused(admin: Person, ana: Person, body: Any) -> None:
    assert (await admin.patch(f"/api/admin/users/{ana.id}", body)).status_code == 422


@pytest.mark.parametrize("odd", ["0", "-1", "abc", "01", "9223372036854775808", "999999"])
async def test_odd_ids_are_not_found(admin: Person, odd: str) -> None:
    answers = [
        await admin.patch(f"/api/admin/users/{odd}", {"is_admin": True}),
        await admin.post(f"/api/admin/users/{odd}/disconnect"),
        await admin.post(f"/api/admin/failed-jobs/{odd}/retry"),
        await admin.delete(f"/api/admin/failed-jobs/{odd}"),
    ]

    assert {answer.status_code for answer in answers} == {404}


async def test_a_test_event_is_sent_as_written(world: World, admin: Person) -> None:
    body = {"channel": "private-user.7", "event": "App\\Events\\Hello", "data": {"a": [1, "ü"]}}

    assert (await admin.post("/api/admin/broadcast", body)).status_code == 200

    [data] = payloads(await world.broadcasts(), "Hello", "private-user.7")
    assert data["a"] == [1, "ü"]
    assert await audit(admin) == [("broadcast", "private-user.7")]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"channel": "a b", "event": "x"}, "channel"),
        ({"channel": "x" * 201, "event": "x"}, "channel"),
        ({"channel": "private-", "event": "x"}, "channel"),
        ({"channel": "private-private-user.1", "event": "x"}, "channel"),
        ({"channel": "#server-to-user-1", "event": "x"}, "channel"),
        ({"channel": "chat", "event": ""}, "event"),
        ({"channel": "chat", "event": "pusher:error"}, "event"),
        ({"channel": "chat", "event": "pusher_internal:member_added"}, "event"),
        ({"channel": "chat", "event": "x", "data": [1]}, "data"),
        ({"channel": "chat", "event": "x", "data": "text"}, "data"),
        ({"channel": "chat", "event": "x", "data": {"a": "x" * 11_000}}, "data"),
        ({"event": "x"}, "channel"),
        ({"channel": "chat"}, "event"),
    ],
)
async def test_an_invalid_test_event_is_refused(world: World, admin: Person, body: dict[str, Any], field: str) -> None:
    answer = await admin.post("/api/admin/broadcast", body)

    assert answer.status_code == 422, answer.text
    assert set(answer.json()["errors"]) == {field}
    (await world.broadcasts()).assert_nothing_broadcast()
    assert await audit(admin) == []


async def test_recent_events_are_listed_without_the_content_of_direct_messages(
    world: World, admin: Person, ana: Person, ben: Person
) -> None:
    await ana.post("/api/chat/messages", {"message": "For all"})
    await world.direct_message(ana, ben, "Only for you")
    message_id = (await ben.get(f"/api/chat/messages/private/{ana.id}")).json()[0]["id"]
    await ben.post(f"/api/chat/messages/{message_id}/read")

    listed = (await admin.get("/api/admin/events")).json()

    assert {"MessageRead", "NotificationCreated"} <= {event["name"].rpartition("\\")[2] for event in listed}
    assert "Only for you" not in json.dumps(listed)
    [direct] = [event for event in listed if event["channel"].startswith("private-chat.")]
    assert direct["payload"] is None
    [general] = (await admin.get("/api/admin/events?channel=chat")).json()
    assert general["payload"]["message"]["message"] == "For all"


async def failed(world: World, count: int = 1) -> list[int]:
    for _ in range(count):
        await world.execute(
            "INSERT INTO recorded_events (channel, name, payload, delivery, state, attempts, error, created_at)"
            " VALUES ('chat', 'Broken', '{}', 'durable', 'failed', 3, 'refused: 400', CURRENT_TIMESTAMP)"
        )
    return [row.id for row in await world.rows("SELECT id FROM recorded_events WHERE state = 'failed' ORDER BY id")]


async def test_failed_events_are_listed_retried_and_deleted(world: World, admin: Person) -> None:
    first, second, third = await failed(world, 3)

    listed = (await admin.get("/api/admin/failed-jobs")).json()
    assert [job["id"] for job in listed] == [third, second, first]
    assert set(listed[0]) == {"id", "channel", "name", "payload", "attempts", "error", "created_at"}
    assert (await admin.post(f"/api/admin/failed-jobs/{first}/retry")).status_code == 200
    assert (await admin.delete(f"/api/admin/failed-jobs/{second}")).status_code == 204
    assert [job["id"] for job in (await admin.get("/api/admin/failed-jobs")).json()] == [third]
    assert len(payloads(await world.broadcasts(), "Broken")) == 1
    assert (await admin.post("/api/admin/failed-jobs/retry")).status_code == 200
    assert len(payloads(await world.broadcasts(), "Broken")) == 2
    await failed(world)
    assert (await admin.delete("/api/admin/failed-jobs")).status_code == 204
    assert (await admin.get("/api/admin/failed-jobs")).json() == []
    assert len(await audit(admin)) == 4


async def test_any_number_of_failed_events_is_retried_each_as_a_new_event(world: World, admin: Person) -> None:
    await world.execute(
        "INSERT INTO recorded_events (channel, name, payload, delivery, state, created_at)"
        " WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1500)"
        " SELECT 'private-user.' || n, 'Broken', '{}', 'durable', 'failed', CURRENT_TIMESTAMP FROM numbers"
    )
    [last] = await world.rows("SELECT MAX(id) AS id FROM recorded_events")

    assert (await admin.post("/api/admin/failed-jobs/retry")).status_code == 200

    [told] = await world.rows("SELECT COUNT(*) AS many, MIN(id) AS first FROM recorded_events WHERE state = 'pending'")
    assert (told.many, told.first > last.id) == (1500, True)
    assert (await admin.get("/api/admin/failed-jobs")).json() == []


async def test_without_the_realtime_server_endpoints_return_503_and_figures_show_it(database_url: str) -> None:
    world = World(database_url, {"broadcast": BroadcastSettings(_env_file=None, reverb_port=1)})
    admin, ana = await world.person("Admin", is_admin=True), await world.person("Ana")

    for answer in (
        await admin.get("/api/admin/connections"),
        await admin.get("/api/admin/channels"),
        await admin.post(f"/api/admin/users/{ana.id}/disconnect"),
    ):
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
    overview = (await admin.get("/api/admin/overview")).json()
    assert overview["now"]["realtime"] == "down"
    assert overview["now"]["connections"] is None
    assert await audit(admin) == []
    await world.aclose()


async def test_admins_see_connected_users_and_can_disconnect_them(database_url: str) -> None:
    async with realtime_server() as server:
        world = World(database_url, {"broadcast": BroadcastSettings(_env_file=None, reverb_port=server.port)})
        admin, ana = await world.person("Admin", is_admin=True), await world.person("Ana")
        async with connected(server.port) as socket:
            asked = {"socket_id": socket.socket_id, "channel_name": "presence-chat"}
            auth = (await ana.post("/broadcasting/auth", asked)).json()
            socket.send("pusher:subscribe", {"channel": "presence-chat"} | auth)
            await socket.expect("pusher_internal:subscription_succeeded")

            connections = (await admin.get("/api/admin/connections")).json()
            channels = (await admin.get("/api/admin/channels")).json()
            assert connections == {
                "connections": 1,
                "users": [{"id": str(ana.id), "name": "Ana", "channels": ["presence-chat"]}],
            }
            assert channels == [{"name": "presence-chat", "subscription_count": 1, "user_count": 1}]
            assert (await admin.post(f"/api/admin/users/{ana.id}/disconnect")).status_code == 200
            assert (await socket.closed()).code == 4009
        assert (await admin.get("/api/admin/overview")).json()["now"]["realtime"] == "up"
        assert await audit(admin) == [("disconnect", f"user {ana.id}")]
        await world.aclose()


@asynccontextmanager
async def looking(admin: Person, port: int) -> AsyncIterator[None]:
    """An admin's page is open."""
    async with connected(port) as socket:
        asked = {"socket_id": socket.socket_id, "channel_name": "private-admin"}
        auth = (await admin.post("/broadcasting/auth", asked)).json()
        socket.send("pusher:subscribe", {"channel": "private-admin"} | auth)
        await socket.expect("pusher_internal:subscription_succeeded")
        assert (await admin.get("/api/admin/overview")).status_code == 200
        yield


async def said_to_admins(world: World, event: str) -> list[dict[str, Any]]:
    """What admins were sent, once it is something."""
    async with asyncio.timeout(LIMIT_S):
        while not (found := payloads(world.broadcaster, event, "private-admin")):
            await asyncio.sleep(0.05)
    return found


def beside(database_url: str, port: int) -> World:
    return World(database_url, {"broadcast": BroadcastSettings(_env_file=None, reverb_port=port)})


async def test_figures_and_the_console_are_live_while_an_admin_watches(database_url: str) -> None:
    async with realtime_server() as server:
        world = beside(database_url, server.port)
        admin, ana = await world.person("Admin", is_admin=True), await world.person("Ana")
        stop = asyncio.Event()
        showing = asyncio.create_task(world.portal.board.show(stop))
        await asyncio.sleep(0.2)
        (await world.broadcasts()).assert_broadcast(AdminFigures, times=0)
        async with looking(admin, server.port):
            [figures, *_] = await said_to_admins(world, "AdminFigures")
            await ana.post("/api/chat/messages", {"message": "somebody looks"})
            entries = [data["entry"] for data in await said_to_admins(world, "AdminEvent")]
        stop.set()
        await showing
        assert {entry["channel"] for entry in entries} == {"chat"}
        assert "somebody looks" not in json.dumps(entries)
        assert figures["figures"]["connections"] == 1
        await world.aclose()


async def test_the_console_shows_actions_from_just_before_subscribing(database_url: str) -> None:
    async with realtime_server() as server:
        world = beside(database_url, server.port)
        admin = await world.person("Admin", is_admin=True)
        answer = await admin.post("/api/admin/broadcast", {"channel": "chat", "event": "Tried", "data": {}})
        assert answer.status_code == 200, answer.text
        assert not await world.portal.board.has_viewer()
        async with looking(admin, server.port):
            [first, *_] = await said_to_admins(world, "AdminEvent")
        assert first["entry"]["name"] in {"broadcast", "Tried"}
        await world.aclose()


async def test_the_console_does_not_show_old_entries(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "KEPT", dt.timedelta(0))
    monkeypatch.setattr(console, "LOOKS_EVERY_S", 0.02)
    async with realtime_server() as server:
        world = beside(database_url, server.port)
        admin, ana = await world.person("Admin", is_admin=True), await world.person("Ana")
        await ana.post("/api/chat/messages", {"message": "nobody looks"})
        await asyncio.sleep(0.5)
        async with looking(admin, server.port):
            while not await world.portal.board.has_viewer(0):
                await asyncio.sleep(0.05)
            await ana.post("/api/campaigns", {"name": "Autumn", "budget": "1"})
            entries = [data["entry"] for data in await said_to_admins(world, "AdminEvent")]
        assert "chat" not in {entry["channel"] for entry in entries}
        await world.aclose()


async def test_figures_are_kept_for_an_hour(world: World, admin: Person) -> None:
    await world.portal.board.sample()
    await world.execute("UPDATE figure_samples SET at = '2020-01-01 00:00:00+00:00'")
    await world.portal.board.sample()

    overview = (await admin.get("/api/admin/overview")).json()

    assert len(overview["history"]) == 1
    assert len(await world.rows("SELECT id FROM figure_samples")) == 1


@pytest.mark.parametrize("listed", ["users", "events", "failed-jobs", "audit"])
async def test_lists_can_be_paged_in_both_directions(world: World, admin: Person, ana: Person, listed: str) -> None:
    await failed(world, 4)
    for blocked in (True, False, True, False):
        await admin.patch(f"/api/admin/users/{ana.id}", {"is_blocked": blocked})
        await world.person()

    async def ids(query: str) -> list[int]:
        return [row["id"] for row in (await admin.get(f"/api/admin/{listed}?{query}")).json()]

    every = await ids("limit=100")
    assert len(every) >= 4
    assert every == sorted(every, reverse=True)
    assert await ids(f"before={every[1]}&limit=2") == every[2:4]
    assert await ids(f"after={every[-1]}&limit=2") == every[-2:-4:-1]
