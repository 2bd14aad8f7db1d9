"""Who loses a right leaves the channels it opened, at once, and stays connected."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kit.client import Client, connected
from kit.portal import Person, World
from kit.pusher_service import pusher_service
from kit.realtime import realtime_server
from kit.waiting import eventually_told
from smartlink.broadcasting import BroadcastSettings, BroadcastUnavailable
from smartlink.portal import main
from smartlink.portal.admin import service as admin_service
from smartlink.portal.users import channel_revocations
from smartlink.portal.users.principals import Principal

CAMPAIGN = {"name": "Summer", "budget": "10.00"}


def reaching(port: int) -> dict[str, Any]:
    return {"broadcast": BroadcastSettings(_env_file=None, reverb_port=port)}


@asynccontextmanager
async def live(url: str) -> AsyncIterator[tuple[World, int]]:
    """A portal that reaches a realtime server, and the server's port."""
    async with realtime_server() as server:
        world = World(url, reaching(server.port), is_live=True)
        yield world, server.port
        await world.aclose()


async def authorized(client: Client, person: Person, channel: str) -> dict[str, Any]:
    answer = await person.post("/broadcasting/auth", {"socket_id": client.socket_id, "channel_name": channel})
    assert answer.status_code == 200, answer.text
    return {"channel": channel, **answer.json()}


async def subscribed(client: Client, person: Person, *channels: str) -> None:
    for channel in channels:
        client.send("pusher:subscribe", await authorized(client, person, channel))
        await client.expect("pusher_internal:subscription_succeeded")


async def lost(client: Client, count: int) -> set[tuple[str, str, str]]:
    """The channels that a client is told it has lost, how and why."""
    told = [await client.expect("pusher:subscription_error") for _ in range(count)]
    return {(each["channel"], each["data"]["type"], each["data"]["error"]) for each in told}


async def campaign_of(person: Person) -> int:
    answer = await person.post("/api/campaigns", CAMPAIGN)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


async def demote(chief: Person, person: Person) -> None:
    assert (await chief.patch(f"/api/admin/users/{person.id}", {"is_admin": False})).status_code == 200


async def test_a_former_admin_loses_what_only_admins_see_and_nothing_else(database_url: str) -> None:
    async with live(database_url) as (world, port), connected(port) as client, connected(port) as other:
        chief, ada = await world.person("Chief", is_admin=True), await world.person("Ada", is_admin=True)
        theirs, own = await campaign_of(chief), await campaign_of(ada)
        lasting = [f"private-user.{ada.id}", f"private-campaign.{own}"]
        await subscribed(client, ada, "private-admin", f"private-campaign.{theirs}", f"presence-campaign.{theirs}")
        await subscribed(client, ada, *lasting)
        await subscribed(other, chief, "private-admin")

        await demote(chief, ada)
        await world.portal.revocations.ended()

        reason = ("Revoked", "You are no longer an admin")
        assert await lost(client, 3) == {
            (channel, *reason)
            for channel in ("private-admin", f"private-campaign.{theirs}", f"presence-campaign.{theirs}")
        }
        # The connection and the rest stay; the page is told why.
        await world.portal.relay.run_once()
        await client.expect("App\\Events\\CampaignCreated")
        told = await client.expect("App\\Events\\RightsChanged")
        assert (told["channel"], json.loads(told["data"])) == (lasting[0], {"is_admin": False})
        assert await other.is_quiet()
        assert await world.rows("SELECT id FROM channel_revocations") == []
        assert await world.rows("SELECT user_id FROM connection_endings") == []


@pytest.mark.parametrize("channel", ["private-admin", "private-campaign.{theirs}", "presence-campaign.{theirs}"])
async def test_signatures_that_a_former_admin_has_not_used_are_void(database_url: str, channel: str) -> None:
    async with live(database_url) as (world, port), connected(port) as client:
        chief, ada = await world.person("Chief", is_admin=True), await world.person("Ada", is_admin=True)
        theirs = await campaign_of(chief)
        unused = await authorized(client, ada, channel.format(theirs=theirs))
        await subscribed(client, ada, f"private-user.{ada.id}")

        await demote(chief, ada)
        await world.portal.revocations.ended()

        client.send("pusher:subscribe", unused)
        assert (await client.expect("pusher:subscription_error"))["data"]["status"] == 401


async def test_a_request_in_progress_during_a_demotion_gets_no_signature(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    chief, ada = await world.person("Chief", is_admin=True), await world.person("Ada", is_admin=True)
    users = world.portal.users
    known = users.by_token

    async def by_token(token: str, *, is_fresh: bool = False) -> Principal | None:
        found = await known(token, is_fresh=is_fresh)
        if found is not None and found.id == ada.id:
            monkeypatch.setattr(users, "by_token", known)
            await demote(chief, ada)
        return found

    monkeypatch.setattr(users, "by_token", by_token)
    answer = await ada.post("/broadcasting/auth", {"socket_id": "1.1", "channel_name": "private-admin"})

    assert answer.status_code == 403


async def test_with_too_many_campaigns_a_former_admins_connections_are_ended(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_service, "MAX_REVOKED_CAMPAIGNS", 1)
    async with live(database_url) as (world, port), connected(port) as client:
        chief, ada = await world.person("Chief", is_admin=True), await world.person("Ada", is_admin=True)
        for _ in range(2):
            await campaign_of(chief)
        await subscribed(client, ada, "private-admin")

        await demote(chief, ada)

        assert (await client.closed()).code == 4009


async def test_an_admin_again_loses_nothing(world: World) -> None:
    chief, ada = await world.person("Chief", is_admin=True), await world.person("Ada", is_admin=True)
    world.broadcaster.fake_driver.fails_with = BroadcastUnavailable("away")
    await demote(chief, ada)
    await chief.patch(f"/api/admin/users/{ada.id}", {"is_admin": True})

    # Ends although the server is still away: with the rights back there is nothing to send.
    await world.portal.revocations.ended()

    world.broadcaster.assert_nothing_revoked()
    assert await world.rows("SELECT id FROM channel_revocations") == []


async def test_everyone_leaves_the_channels_of_a_deleted_campaign(database_url: str) -> None:
    async with live(database_url) as (world, port), connected(port) as owner, connected(port) as viewer:
        chief, ana = await world.person("Chief", is_admin=True), await world.person("Ana")
        deleted, kept = await campaign_of(ana), await campaign_of(ana)
        for client, person in ((owner, ana), (viewer, chief)):
            await subscribed(client, person, f"private-campaign.{deleted}", f"private-campaign.{kept}")

        assert (await chief.delete(f"/api/campaigns/{deleted}")).status_code == 204
        await world.portal.revocations.ended()

        for client in (owner, viewer):
            assert await lost(client, 1) == {(f"private-campaign.{deleted}", "Revoked", "This campaign was deleted")}
            client.send("pusher:ping", {})
            await client.expect("pusher:pong")


async def test_a_blocked_user_is_disconnected(database_url: str) -> None:
    async with live(database_url) as (world, port), connected(port) as client:
        chief, ana = await world.person("Chief", is_admin=True), await world.person("Ana")
        await subscribed(client, ana, f"private-user.{ana.id}", "presence-chat")

        await chief.patch(f"/api/admin/users/{ana.id}", {"is_blocked": True})

        assert (await client.closed()).code == 4009


async def test_with_a_server_that_cannot_revoke_connections_are_ended(database_url: str) -> None:
    """As with Laravel's Reverb, which knows no such call."""
    async with pusher_service() as service:
        world = World(database_url, reaching(service.port), is_live=True)
        ended: list[int] = []
        world.portal.users.endings.begin = ended.append  # type: ignore[method-assign] # the double has no such call
        chief, ada = await world.person("Chief", is_admin=True), await world.person("Ada", is_admin=True)

        await demote(chief, ada)
        await world.portal.revocations.ended()

        assert ended == [ada.id, ada.id]
        assert await world.rows("SELECT user_id FROM connection_endings") == [(ada.id,)]
        assert await world.rows("SELECT id FROM channel_revocations") == []
        await world.aclose()


async def test_workers_revoke_what_the_committing_process_could_not(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_revocations, "RETRY_FOR_S", 0.0)
    monkeypatch.setattr(channel_revocations, "LEFT_TO_WORKERS", dt.timedelta(0))
    monkeypatch.setattr(main, "END_EVERY_S", 0.2)
    before = World(database_url, reaching(1), is_live=True)
    chief, ada = await before.person("Chief", is_admin=True), await before.person("Ada", is_admin=True)
    await demote(chief, ada)
    await before.portal.revocations.ended()
    await before.portal.revocations.run_once()
    assert len(await before.rows("SELECT id FROM channel_revocations")) == 1
    await before.aclose()

    async with live(database_url) as (world, _):
        stop = asyncio.Event()
        work = asyncio.create_task(world.portal.work(stop))

        async def is_done() -> bool:
            return await world.rows("SELECT id FROM channel_revocations") == []

        await eventually_told(is_done)
        stop.set()
        await work
