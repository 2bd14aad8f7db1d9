"""Ending a session, token, password, right or account ends every connection and voids every signature."""

from __future__ import annotations

import asyncio
import datetime as dt
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kit.client import Client, connected
from kit.portal import PASSWORD, Person, World
from kit.realtime import realtime_server
from kit.waiting import eventually_told
from smartlink.broadcasting import BroadcastSettings
from smartlink.portal import main
from smartlink.portal.shared.realtime import RealtimeApi, RealtimeAway
from smartlink.portal.users import endings as users_endings
from smartlink.portal.users.endings import Endings
from smartlink.portal.users.principals import Principal


@pytest.fixture
def sqlite_url(sqlite_template: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("db") / "portal.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite+aiosqlite:///{path}"


@asynccontextmanager
async def live(url: str) -> AsyncIterator[tuple[World, int]]:
    """A portal with its realtime server, and the server's port."""
    async with realtime_server() as server:
        world = World(url, {"broadcast": BroadcastSettings(_env_file=None, reverb_port=server.port)})
        yield world, server.port
        await world.aclose()


async def authorized(client: Client, person: Person, channel: str) -> dict[str, str]:
    asked = {"socket_id": client.socket_id, "channel_name": channel}
    answer = await person.post("/broadcasting/auth", asked)
    assert answer.status_code == 200, answer.text
    return {"channel": channel, **answer.json()}


async def subscribed(client: Client, person: Person, channel: str) -> None:
    client.send("pusher:subscribe", await authorized(client, person, channel))
    await client.expect("pusher_internal:subscription_succeeded")


async def log_out(world: World, ana: Person) -> None:
    assert (await ana.post("/api/logout")).status_code == 204


async def log_out_everywhere(world: World, ana: Person) -> None:
    assert (await ana.post("/api/logout/everywhere")).status_code == 204


async def close_the_page(world: World, ana: Person) -> None:
    page = world.client()
    await page.post("/api/session", json={"email": ana.email, "password": PASSWORD})
    headers = {"x-xsrf-token": page.cookies["XSRF-TOKEN"]}
    assert (await page.delete("/api/session", headers=headers)).status_code == 204


async def revoke_a_token(world: World, ana: Person) -> None:
    token = (await ana.post("/api/tokens", {"name": "phone"})).json()["id"]
    assert (await ana.delete(f"/api/tokens/{token}")).status_code == 204


async def let_a_token_expire(world: World, ana: Person) -> None:
    await world.portal.users.end_expired()
    await world.execute(
        "UPDATE personal_access_tokens SET expires_at = :at WHERE user_id = :id", at=_now_text(), id=ana.id
    )
    await world.portal.users.end_expired()


async def let_a_session_expire(world: World, ana: Person) -> None:
    await world.client().post("/api/session", json={"email": ana.email, "password": PASSWORD})
    await world.portal.users.end_expired()
    await world.execute("UPDATE sessions SET expires_at = :at WHERE user_id = :id", at=_now_text(), id=ana.id)
    await world.portal.users.end_expired()


def _now_text() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


@pytest.mark.parametrize(
    "end", [log_out, log_out_everywhere, close_the_page, revoke_a_token, let_a_token_expire, let_a_session_expire]
)
async def test_connections_end_with_the_session_or_token_that_opened_them(
    sqlite_url: str, end: Callable[[World, Person], Any]
) -> None:
    async with live(sqlite_url) as (world, port), connected(port) as hers, connected(port) as his:
        ana, ben = await world.person("Ana"), await world.person("Ben")
        await subscribed(hers, ana, f"private-user.{ana.id}")
        await subscribed(his, ben, f"private-user.{ben.id}")

        await end(world, ana)

        assert (await hers.closed()).code == 4009
        await world.portal.users.endings.ended()
        assert await world.rows("SELECT user_id FROM connection_endings") == []
        his.send("pusher:ping", {})
        await his.expect("pusher:pong")


async def test_a_token_that_has_not_expired_ends_nothing(sqlite_url: str) -> None:
    async with live(sqlite_url) as (world, port), connected(port) as hers:
        ana = await world.person("Ana")
        await ana.post("/api/tokens", {"name": "later", "expires_at": "2100-01-01T00:00:00Z"})
        await subscribed(hers, ana, f"private-user.{ana.id}")

        await world.portal.users.end_expired()
        await world.portal.users.endings.ended()

        hers.send("pusher:ping", {})
        await hers.expect("pusher:pong")


CHANGES = {
    "blocked": {"is_blocked": True},
    "another password": None,
    "signed out everywhere": None,
}


async def _change(how: str, world: World, chief: Person, ada: Person) -> None:
    if how == "another password":
        body = {"current_password": PASSWORD, "password": "a new battery staple"}
        assert (await ada.put("/api/user/password", body)).status_code == 204
    elif how == "signed out everywhere":
        await log_out_everywhere(world, ada)
    else:
        assert (await chief.patch(f"/api/admin/users/{ada.id}", CHANGES[how])).status_code == 200
    await world.portal.users.endings.ended()


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("channel", ["private-user.{id}", "presence-chat", "private-admin"])
async def test_earlier_signatures_are_void_after_an_ending(sqlite_url: str, how: str, channel: str) -> None:
    async with live(sqlite_url) as (world, port), connected(port) as waiting:
        chief, ada = await world.person("Chief", is_admin=True), await world.person("Ada", is_admin=True)
        signed = await authorized(waiting, ada, channel.format(id=ada.id))

        await _change(how, world, chief, ada)
        waiting.send("pusher:subscribe", signed)

        assert (await waiting.receive())["event"] in ("pusher:subscription_error", "pusher:error")


@pytest.mark.parametrize("how", CHANGES)
async def test_an_earlier_sign_in_signature_is_void_after_an_ending(sqlite_url: str, how: str) -> None:
    async with live(sqlite_url) as (world, port), connected(port) as waiting:
        chief, ada = await world.person("Chief", is_admin=True), await world.person("Ada", is_admin=True)
        signed = (await ada.post("/broadcasting/user-auth", {"socket_id": waiting.socket_id})).json()

        await _change(how, world, chief, ada)
        waiting.send("pusher:signin", signed)

        assert (await waiting.receive())["event"] == "pusher:error"


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("endpoint", ["auth", "user-auth"])
async def test_a_request_in_progress_during_an_ending_gets_no_signature(
    world: World, how: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chief, ada = await world.person("Chief", is_admin=True), await world.person("Ada", is_admin=True)
    users = world.portal.users
    known, began = users.by_token, []

    async def by_token(token: str, *, is_fresh: bool = False) -> Principal | None:
        found = await known(token, is_fresh=is_fresh)
        if found is not None and found.id == ada.id and not began:
            began.append(token)
            monkeypatch.setattr(users, "by_token", known)
            users.endings.begin = lambda _: None  # type: ignore[method-assign] # there is no server to tell
            await _change(how, world, chief, ada)
        return found

    monkeypatch.setattr(users, "by_token", by_token)
    answer = await ada.post(f"/broadcasting/{endpoint}", {"socket_id": "1.1", "channel_name": "private-admin"})

    assert began
    # Who changed the password keeps their session; the one signed for is refused by the realtime server.
    allowed = how == "another password"
    assert ("auth" in answer.json()) is allowed
    assert answer.status_code == (200 if allowed else 401)


async def test_endings_are_sent_once_the_server_is_available_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users_endings, "RETRY_FOR_S", 0.0)
    monkeypatch.setattr(users_endings, "LEFT_TO_WORKERS", dt.timedelta(0))
    before = World(database_url, {"broadcast": BroadcastSettings(_env_file=None, reverb_port=1)})
    ana = await before.person("Ana")
    await ana.post("/api/logout")
    await before.portal.users.endings.ended()
    await before.portal.users.endings.run_once()
    assert len(await before.rows("SELECT user_id FROM connection_endings")) == 1
    await before.aclose()

    async with live(database_url) as (world, port), connected(port) as hers:
        await hers.sign_in(str(ana.id))

        await world.portal.users.endings.run_once()

        assert (await hers.closed()).code == 4009
        assert await world.rows("SELECT user_id FROM connection_endings") == []


async def test_an_ending_requested_during_another_is_sent_again(world: World, ana: Person) -> None:
    told: list[int] = []

    class Realtime(RealtimeApi):
        async def terminate(self, user_id: int) -> None:
            told.append(user_id)
            if len(told) == 1:
                raise RealtimeAway("once")
            if len(told) == 2:
                await record()

    async def record() -> None:
        async with world.portal.database.writing() as session:
            await endings.record(session, ana.id)

    endings = Endings(world.portal.database, Realtime(BroadcastSettings(_env_file=None)))
    await record()
    endings.begin(ana.id)
    await endings.ended()

    assert told == [ana.id] * 3


async def test_workers_send_endings_that_the_committing_process_could_not(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "END_EVERY_S", 0.2)
    monkeypatch.setattr(users_endings, "LEFT_TO_WORKERS", dt.timedelta(0))
    async with live(sqlite_url) as (world, port), connected(port) as hers:
        ana = await world.person("Ana")
        await hers.sign_in(str(ana.id))
        async with world.portal.database.writing() as session:
            await world.portal.users.endings.record(session, ana.id)
        stop = asyncio.Event()
        work = asyncio.create_task(world.portal.work(stop))

        assert (await hers.closed()).code == 4009

        async def is_done() -> bool:
            return await world.rows("SELECT user_id FROM connection_endings") == []

        await eventually_told(is_done)
        stop.set()
        await work


async def test_an_ending_recorded_just_after_the_last_check_is_found(world: World, ana: Person) -> None:
    class Watched(Endings):
        looks = 0

        async def _handle(self, user_id: int) -> bool:
            self.looks += 1
            if self.looks == 1:
                self.begin(user_id)
            return False

    endings = Watched(world.portal.database, world.portal.realtime)
    endings.begin(ana.id)
    await endings.ended()

    assert endings.looks == 2
