"""Changing one's account, and what a new password, a sign-out or a block ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kit.client import connected
from kit.portal import PASSWORD, Person, World
from kit.realtime import realtime_server
from smartlink.broadcasting import BroadcastSettings
from smartlink.portal.shared.errors import Invalid, Unauthenticated
from smartlink.portal.shared.passwords import Asker
from smartlink.portal.users.schemas import NewToken

NEW = "a new battery staple"


async def sign_in(world: World, person: Person, password: str = PASSWORD) -> int:
    return (await world.client().post("/api/login", json={"email": person.email, "password": password})).status_code


async def test_changing_the_name(world: World, ana: Person) -> None:
    answer = await ana.patch("/api/user", {"name": "Anna", "is_admin": True, "id": 7})

    assert answer.status_code == 200
    assert set(answer.json()) == {"id", "name", "email", "is_admin", "created_at"}
    assert (answer.json()["id"], answer.json()["name"], answer.json()["is_admin"]) == (ana.id, "Anna", False)
    assert (await ana.get("/api/user")).json()["name"] == "Anna"


async def test_a_new_address_needs_the_password_and_must_be_free(world: World, ana: Person, ben: Person) -> None:
    address = {"email": "New.Address@example.com"}

    assert (await ana.patch("/api/user", address)).json()["errors"].keys() == {"current_password"}
    wrong = await ana.patch("/api/user", address | {"current_password": "wrong"})
    assert wrong.json()["errors"].keys() == {"current_password"}
    right = {"current_password": PASSWORD}
    assert (await ana.patch("/api/user", {"email": ben.email} | right)).json()["errors"].keys() == {"email"}
    assert (await ana.patch("/api/user", {"email": "nonsense"} | right)).json()["errors"].keys() == {"email"}
    assert (await ana.patch("/api/user", address | right)).json()["email"] == "new.address@example.com"


@pytest.mark.parametrize(
    "body", [{"name": ""}, {"name": "\u200b"}, {"name": "a\tb"}, {"name": 7}, {"email": 7}, [], "x"]
)
async def test_invalid_profiles_are_refused(ana: Person, body: Any) -> None:
    assert (await ana.patch("/api/user", body)).status_code == 422


async def test_a_new_password_ends_all_other_sessions_and_tokens(world: World, ana: Person) -> None:
    other = (await ana.post("/api/tokens", {"name": "phone"})).json()["token"]
    phone = world.client(authorization=f"Bearer {other}")
    page = world.client()
    await page.post("/api/session", json={"email": ana.email, "password": PASSWORD})
    assert (await page.get("/api/session")).status_code == 200

    answer = await ana.put("/api/user/password", {"current_password": PASSWORD, "password": NEW})

    assert answer.status_code == 204
    assert (await ana.get("/api/user")).status_code == 200
    assert (await phone.get("/api/user")).status_code == 401
    assert (await page.get("/api/session")).status_code == 401
    assert await sign_in(world, ana) == 422
    assert await sign_in(world, ana, NEW) == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"current_password": "wrong", "password": NEW}, "current_password"),
        ({"current_password": PASSWORD, "password": "short"}, "password"),
        ({"current_password": PASSWORD, "password": "x" * 129}, "password"),
        ({"password": NEW}, "current_password"),
        ({"current_password": PASSWORD}, "password"),
        ({"current_password": PASSWORD, "password": "with \u0000 in it"}, "password"),
    ],
)
async def test_an_invalid_new_password_changes_nothing(
    world: World, ana: Person, body: dict[str, str], field: str
) -> None:
    answer = await ana.put("/api/user/password", body)

    assert answer.status_code == 422
    assert set(answer.json()["errors"]) == {field}
    assert await sign_in(world, ana) == 200


async def test_guessing_the_current_password_is_limited(ana: Person) -> None:
    guesses = [
        (await ana.put("/api/user/password", {"current_password": f"guess {n}", "password": NEW})).status_code
        for n in range(12)
    ]

    assert guesses[0] == 422
    assert guesses[-1] == 429


async def test_signing_out_everywhere_ends_the_current_session_too(world: World, ana: Person) -> None:
    page = world.client()
    await page.post("/api/session", json={"email": ana.email, "password": PASSWORD})

    assert (await ana.post("/api/logout/everywhere")).status_code == 204

    assert (await ana.get("/api/user")).status_code == 401
    assert (await page.get("/api/session")).status_code == 401
    assert await sign_in(world, ana) == 200


@pytest.mark.parametrize("channel", ["presence-chat", "private-user.{id}", "private-financial.{id}"])
async def test_sockets_end_with_the_password_they_were_opened_under(database_url: str, channel: str) -> None:
    async with realtime_server() as server:
        world = World(database_url, {"broadcast": BroadcastSettings(_env_file=None, reverb_port=server.port)})
        ana, ben = await world.person("Ana"), await world.person("Ben")
        async with connected(server.port) as hers, connected(server.port) as his:
            for client, person in ((hers, ana), (his, ben)):
                name = channel.format(id=person.id)
                asked = {"socket_id": client.socket_id, "channel_name": name}
                auth = (await person.post("/broadcasting/auth", asked)).json()
                client.send("pusher:subscribe", {"channel": name} | auth)
                await client.expect("pusher_internal:subscription_succeeded")

            await ana.put("/api/user/password", {"current_password": PASSWORD, "password": NEW})

            assert (await hers.closed()).code == 4009
            his.send("pusher:ping", {})
            while (await his.receive())["event"] != "pusher:pong":
                pass
        await world.portal.users.endings.ended()
        await world.aclose()


async def test_blocked_users_are_signed_out_and_cannot_sign_in(world: World, ana: Person) -> None:
    async with world.portal.database.writing() as session:
        await world.portal.users.set_blocked(session, ana.id, blocked=True)

    assert (await ana.get("/api/user")).status_code == 401
    assert await sign_in(world, ana) == 403
    assert await sign_in(world, ana, "wrong") == 422
    asked = {"socket_id": "1.1", "channel_name": f"private-user.{ana.id}"}
    assert (await ana.post("/broadcasting/auth", asked)).status_code == 401

    async with world.portal.database.writing() as session:
        await world.portal.users.set_blocked(session, ana.id, blocked=False)
    assert await sign_in(world, ana) == 200


async def test_a_password_being_replaced_is_no_longer_accepted(world: World, ana: Person) -> None:
    users = world.portal.users
    verified = await users.verify(ana.email, PASSWORD)
    await ana.put("/api/user/password", {"current_password": PASSWORD, "password": "battery staple"})

    with pytest.raises(Invalid):
        await users.sign_in(verified)
    with pytest.raises(Invalid):
        await users.open_session(verified)


async def test_a_user_being_blocked_cannot_create_a_token(world: World, ana: Person) -> None:
    users = world.portal.users
    verified = await users.verify(ana.email, PASSWORD)
    async with world.portal.database.writing() as session:
        await users.set_blocked(session, ana.id, blocked=True)

    with pytest.raises(Invalid):
        await users.sign_in(verified)


async def test_a_token_being_revoked_cannot_create_another(world: World, ana: Person) -> None:
    users = world.portal.users
    caller = await users.by_token(ana.client.headers["authorization"].removeprefix("Bearer "))
    assert caller is not None
    await ana.post("/api/logout/everywhere")

    with pytest.raises(Unauthenticated):
        await users.create_token(caller, NewToken(name="survivor"))
    assert await world.rows("SELECT id FROM personal_access_tokens") == []


async def test_a_password_replaced_during_another_change_is_no_longer_accepted(
    world: World, ana: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords, may_go_on, waits = world.portal.passwords, asyncio.Event(), asyncio.Event()
    hash_it = passwords.hash

    async def hash_slowly(password: str, asker: Asker | None = None) -> str:
        if password == "of somebody who knew":
            waits.set()
            await may_go_on.wait()
        return await hash_it(password, asker)

    monkeypatch.setattr(passwords, "hash", hash_slowly)
    late = {"current_password": PASSWORD, "password": "of somebody who knew"}
    changing = asyncio.create_task(ana.put("/api/user/password", late))
    await waits.wait()
    first = await ana.put("/api/user/password", {"current_password": PASSWORD, "password": NEW})
    may_go_on.set()
    second = await changing

    assert first.status_code == 204
    assert (second.status_code, set(second.json()["errors"])) == (422, {"current_password"})
    assert await sign_in(world, ana, NEW) == 200


async def test_of_two_concurrent_renames_the_realtime_server_gets_the_last_one_last(
    world: World, ana: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[object] = []
    may_arrive, waits = asyncio.Event(), asyncio.Event()

    async def change_info(user_id: int, info: dict[str, object]) -> None:
        if info["name"] == "First" and not may_arrive.is_set():
            waits.set()
            await may_arrive.wait()
        heard.append(info["name"])

    monkeypatch.setattr(world.portal.realtime, "change_info", change_info)
    first = asyncio.create_task(ana.patch("/api/user", {"name": "First"}))
    await waits.wait()
    assert (await ana.patch("/api/user", {"name": "Second"})).status_code == 200
    may_arrive.set()
    assert (await first).status_code == 200

    assert heard == ["Second", "First", "Second"]
