"""Campaigns over HTTP: ownership, validation, status rules, versions, and announcements."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kit.portal import Person, World, payloads
from smartlink.broadcasting import PrivateChannel
from smartlink.portal.campaigns.events import (
    BudgetChanged,
    CampaignActivated,
    CampaignCreated,
    CampaignDeactivated,
    CampaignDeleted,
    CampaignUpdated,
)

KEYS = {
    "id", "user_id", "name", "description", "status", "budget", "starts_at", "ends_at", "version", "created_at",
    "updated_at",
}  # fmt: skip
ODD_IDS = ["0", "-1", "abc", "01", "1.0", "9223372036854775808", "1 OR 1=1"]


async def created(person: Person, **fields: Any) -> dict[str, Any]:
    answer = await person.post("/api/campaigns", {"name": "Spring", "budget": "100.00"} | fields)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.fixture
async def admin(world: World) -> Person:
    return await world.person("Admin", is_admin=True)


async def test_creating_needs_only_a_name_and_a_budget(world: World, ana: Person) -> None:
    campaign = await created(ana)

    assert set(campaign) == KEYS
    assert (campaign["status"], campaign["budget"], campaign["version"]) == ("draft", "100.00", 1)
    assert campaign["user_id"] == ana.id
    assert campaign["description"] is campaign["starts_at"] is campaign["ends_at"] is None
    (await world.broadcasts()).assert_broadcast(
        CampaignCreated,
        on=PrivateChannel(f"user.{ana.id}"),
        times=1,
        where=lambda data: set(data) == {"eventId", "campaign"} and set(data["campaign"]) == KEYS,
    )


@pytest.mark.parametrize(
    "budget", ["0", "0.00", "-1", -5, 0, "1.005", 1.005, "1e3", 1e300, "NaN", "Infinity", "1000000000000", "ten", "", " 5",
               "05", "٣", True, None, [], {}],
)  # fmt: skip
async def test_a_budget_is_an_amount_above_zero_with_two_decimals(ana: Person, budget: Any) -> None:
    for answer in (
        await ana.post("/api/campaigns", {"name": "Spring", "budget": budget}),
        await ana.put(f"/api/campaigns/{(await created(ana))['id']}/budget", {"budget": budget}),
    ):
        assert answer.status_code == 422, answer.text
        assert set(answer.json()["errors"]) == {"budget"}


@pytest.mark.parametrize(
    ("budget", "kept"), [("5", "5.00"), (5, "5.00"), (5.5, "5.50"), ("999999999999.99", "999999999999.99"), ("0.01", "0.01")]
)  # fmt: skip
async def test_a_budget_is_stored_exactly(ana: Person, budget: Any, kept: str) -> None:
    campaign = await created(ana, budget=budget)

    assert campaign["budget"] == kept
    assert (await ana.get(f"/api/campaigns/{campaign['id']}")).json()["budget"] == kept


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": None}, "name"),
        ({"name": 7}, "name"),
        ({"description": "x" * 5001}, "description"),
        ({"description": "\u0000"}, "description"),
        ({"status": "inactive"}, "status"),
        ({"status": "paused"}, "status"),
        ({"starts_at": "tomorrow"}, "starts_at"),
        ({"starts_at": "2026-01-01T00:00:00"}, "starts_at"),
        ({"starts_at": 1_800_000_000}, "starts_at"),
        ({"starts_at": "1800000000"}, "starts_at"),
        ({"starts_at": "2026-01-01"}, "starts_at"),
        ({"starts_at": "0001-01-01T00:00:00+14:00"}, "starts_at"),
        ({"ends_at": "9999-12-31T23:59:59-12:00"}, "ends_at"),
        ({"starts_at": "2030-02-01T00:00:00Z", "ends_at": "2030-01-01T00:00:00Z"}, "ends_at"),
        ({"starts_at": "2030-01-01T00:00:00Z", "ends_at": "2030-01-01T01:00:00+01:00"}, "ends_at"),
        ({"status": "active", "ends_at": "2020-01-01T00:00:00Z"}, "ends_at"),
    ],
)
async def test_bad_fields_are_named(world: World, ana: Person, fields: dict[str, Any], field: str) -> None:
    answer = await ana.post("/api/campaigns", {"name": "Spring", "budget": "1"} | fields)

    assert answer.status_code == 422, answer.text
    assert set(answer.json()["errors"]) == {field}
    assert await world.rows("SELECT id FROM campaigns") == []


async def test_fields_set_by_the_server_cannot_be_sent(ana: Person, ben: Person) -> None:
    campaign = await created(ana, id=999, user_id=ben.id, version=9, created_at="2000-01-01T00:00:00Z")

    assert (campaign["user_id"], campaign["version"]) == (ana.id, 1)
    assert campaign["id"] != 999
    assert not campaign["created_at"].startswith("2000")


async def test_owners_see_their_own_and_admins_see_all(ana: Person, ben: Person, admin: Person) -> None:
    first, second = await created(ana), await created(ben)

    assert [row["id"] for row in (await ana.get("/api/campaigns")).json()] == [first["id"]]
    assert [row["id"] for row in (await admin.get("/api/campaigns")).json()] == [second["id"], first["id"]]
    assert [row["id"] for row in (await admin.get("/api/campaigns?limit=1")).json()] == [second["id"]]
    older = await admin.get(f"/api/campaigns?before={second['id']}")
    assert [row["id"] for row in older.json()] == [first["id"]]
    assert (await admin.get("/api/campaigns?status=active")).json() == []


async def test_other_users_cannot_see_or_change_a_campaign(world: World, ana: Person, ben: Person) -> None:
    campaign = await created(ana)
    path = f"/api/campaigns/{campaign['id']}"

    answers = [
        await ben.get(path),
        await ben.get(f"{path}/activity"),
        await ben.patch(path, {"name": "Mine"}),
        await ben.put(f"{path}/budget", {"budget": "1"}),
        await ben.post(f"{path}/activate"),
        await ben.post(f"{path}/deactivate"),
        await ben.delete(path),
    ]

    assert {answer.status_code for answer in answers} == {404}
    assert (await ana.get(path)).json() == campaign
    assert [row.name for row in await world.rows("SELECT name FROM campaigns")] == ["Spring"]


@pytest.mark.parametrize("odd", ODD_IDS)
async def test_odd_ids_are_not_found(ana: Person, odd: str) -> None:
    path = f"/api/campaigns/{odd}"
    answers = [
        await ana.get(path),
        await ana.get(f"{path}/activity"),
        await ana.patch(path, {"name": "Mine"}),
        await ana.put(f"{path}/budget", {"budget": "1"}),
        await ana.post(f"{path}/activate"),
        await ana.post(f"{path}/deactivate"),
        await ana.delete(path),
    ]

    assert {answer.status_code for answer in answers} == {404}


async def test_without_a_sign_in_requests_get_401(world: World) -> None:
    stranger = world.client()

    assert (await stranger.get("/api/campaigns")).status_code == 401
    assert (await stranger.post("/api/campaigns", json={"name": "x", "budget": "1"})).status_code == 401


async def test_a_change_is_stored_announced_and_logged(world: World, ana: Person) -> None:
    campaign = await created(ana)
    path = f"/api/campaigns/{campaign['id']}"

    answer = await ana.patch(path, {"name": "Summer", "budget": "250.5", "description": "Warm"})

    assert answer.status_code == 200
    changed = answer.json()
    assert (changed["name"], changed["budget"], changed["description"]) == ("Summer", "250.50", "Warm")
    assert changed["version"] == 2
    assert answer.headers["etag"] == '"2"'
    sent, on = await world.broadcasts(), PrivateChannel(f"campaign.{campaign['id']}")
    sent.assert_broadcast(CampaignUpdated, on=on, times=1, where=lambda data: data["campaign"] == changed)
    sent.assert_broadcast(
        BudgetChanged,
        on=on,
        times=1,
        where=lambda data: (data["oldBudget"], data["newBudget"]) == ("100.00", "250.50"),
    )
    activity = (await ana.get(f"{path}/activity")).json()
    assert [entry["action"] for entry in activity] == ["updated", "created"]
    assert activity[0]["changes"]["name"] == ["Spring", "Summer"]
    assert activity[0]["user"] == {"id": ana.id, "name": "Ana"}


async def test_a_change_that_changes_nothing_announces_nothing(world: World, ana: Person) -> None:
    campaign = await created(ana)
    path = f"/api/campaigns/{campaign['id']}"

    assert (await ana.patch(path, {"name": "Spring"})).json() == campaign
    assert (await ana.put(f"{path}/budget", {"budget": 100})).json() == campaign
    sent = await world.broadcasts()
    sent.assert_broadcast(CampaignUpdated, times=0)
    sent.assert_broadcast(BudgetChanged, times=0)


async def test_dates_are_compared_with_what_is_stored(ana: Person) -> None:
    campaign = await created(ana, starts_at="2030-06-01T00:00:00Z", ends_at="2030-07-01T00:00:00Z")
    path = f"/api/campaigns/{campaign['id']}"

    assert (await ana.patch(path, {"ends_at": "2030-05-01T00:00:00Z"})).status_code == 422
    assert (await ana.patch(path, {"starts_at": "2030-08-01T00:00:00Z"})).status_code == 422
    cleared = await ana.patch(path, {"starts_at": None, "ends_at": "2030-05-01T00:00:00Z"})
    assert cleared.status_code == 200
    assert cleared.json()["starts_at"] is None


@pytest.mark.parametrize("field", ["name", "budget", "status"])
async def test_required_fields_cannot_be_cleared(ana: Person, field: str) -> None:
    campaign = await created(ana)

    answer = await ana.patch(f"/api/campaigns/{campaign['id']}", {field: None})

    assert answer.status_code == 422
    assert set(answer.json()["errors"]) == {field}


async def test_only_allowed_status_changes_succeed(world: World, ana: Person) -> None:
    campaign = await created(ana)
    path = f"/api/campaigns/{campaign['id']}"

    wrong = await ana.post(f"{path}/deactivate")
    assert wrong.status_code == 422
    assert "active" in wrong.json()["errors"]["status"][0]
    assert (await ana.post(f"{path}/activate")).json()["status"] == "active"
    assert (await ana.post(f"{path}/activate")).status_code == 422
    assert (await ana.patch(path, {"status": "draft"})).status_code == 422
    assert (await ana.post(f"{path}/deactivate")).json()["status"] == "inactive"
    assert (await ana.patch(path, {"status": "active"})).json()["status"] == "active"

    sent, on = await world.broadcasts(), PrivateChannel(f"campaign.{campaign['id']}")
    sent.assert_broadcast(CampaignActivated, on=on, times=2)
    sent.assert_broadcast(CampaignDeactivated, on=on, times=1)


async def test_a_campaign_that_has_ended_cannot_be_activated(ana: Person) -> None:
    campaign = await created(ana, ends_at="2020-01-01T00:00:00Z")

    answer = await ana.post(f"/api/campaigns/{campaign['id']}/activate")

    assert answer.status_code == 422
    assert set(answer.json()["errors"]) == {"ends_at"}


@pytest.mark.parametrize("way", ["body", "header", "weak header"])
async def test_a_stale_version_is_refused_with_the_current_one(ana: Person, way: str) -> None:
    campaign = await created(ana)
    path = f"/api/campaigns/{campaign['id']}"
    await ana.patch(path, {"name": "Summer"})
    body = {"version": 1} if way == "body" else {}
    headers = {} if way == "body" else {"if-match": '"1"' if way == "header" else 'W/"1"'}

    answers = [
        await ana.patch(path, {"name": "Autumn"} | body, headers=headers),
        await ana.put(f"{path}/budget", {"budget": "1"} | body, headers=headers),
        await ana.post(f"{path}/activate", body, headers=headers),
    ]
    if headers:
        answers.append(await ana.client.delete(path, headers=headers))
        answers.append(await ana.patch(path, {"name": "Autumn", "version": 2}, headers=headers))

    assert {(answer.status_code, answer.json()["version"]) for answer in answers} == {(409, 2)}
    assert (await ana.get(path)).json()["name"] == "Summer"
    assert (await ana.patch(path, {"name": "Autumn"}, headers={"if-match": "2"})).status_code == 200


@pytest.mark.parametrize("version", [0, -1, "1", 1.5, True, 2**31])
async def test_a_version_is_a_whole_number(ana: Person, version: Any) -> None:
    campaign = await created(ana)

    assert (await ana.patch(f"/api/campaigns/{campaign['id']}", {"version": version})).status_code == 422


async def test_of_concurrent_edits_with_one_version_one_succeeds(ana: Person) -> None:
    campaign = await created(ana)
    path = f"/api/campaigns/{campaign['id']}"

    answers = await asyncio.gather(*(ana.patch(path, {"name": f"Name {number}", "version": 1}) for number in range(8)))

    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    assert (await ana.get(path)).json()["version"] == 2


async def test_an_owner_is_notified_of_an_admins_change(world: World, ana: Person, admin: Person) -> None:
    campaign = await created(ana)
    path = f"/api/campaigns/{campaign['id']}"

    await admin.post(f"{path}/activate")
    await ana.post(f"{path}/deactivate")
    await admin.delete(path)

    sent = await world.broadcasts()
    told = [data["notification"]["data"] for data in payloads(sent, "NotificationCreated")]
    assert [(data["action"], data["by"]["id"]) for data in told] == [("activated", admin.id), ("deleted", admin.id)]
    sent.assert_broadcast(
        CampaignDeleted,
        on=PrivateChannel(f"user.{ana.id}"),
        times=1,
        where=lambda data: data["campaign"]["id"] == campaign["id"],
    )
    assert (await ana.get(path)).status_code == 404
    assert await world.rows("SELECT id FROM campaign_activities") == []


async def test_only_owner_and_admins_may_join_a_campaigns_channel(
    world: World, ana: Person, ben: Person, admin: Person
) -> None:
    campaign = await created(ana)

    for channel in (f"private-campaign.{campaign['id']}", f"presence-campaign.{campaign['id']}"):
        asked = {"socket_id": "1.1", "channel_name": channel}
        statuses = [(await person.post("/broadcasting/auth", asked)).status_code for person in (ana, admin, ben)]
        assert statuses == [200, 200, 403], channel
    asked = {"socket_id": "1.1", "channel_name": "presence-campaign.999999"}
    assert (await admin.post("/broadcasting/auth", asked)).status_code == 403


async def test_deleting_a_campaign_requires_the_current_version(ana: Person) -> None:
    campaign = await created(ana)
    path = f"/api/campaigns/{campaign['id']}"

    assert (await ana.client.delete(path, headers={"if-match": '"1"'})).status_code == 204
    assert (await ana.get(path)).status_code == 404


async def test_an_unknown_status_is_refused_with_the_known_ones(ana: Person) -> None:
    answer = await ana.patch(f"/api/campaigns/{(await created(ana))['id']}", {"status": "paused"})

    assert answer.json()["errors"] == {"status": ["The status field must be 'draft', 'active' or 'inactive'."]}


async def test_of_two_concurrent_activations_one_is_refused(world: World, ana: Person) -> None:
    path = f"/api/campaigns/{(await created(ana))['id']}/activate"

    answers = await asyncio.gather(ana.post(path), ana.post(path))

    assert sorted(answer.status_code for answer in answers) == [200, 422]
    assert len(payloads(await world.broadcasts(), "CampaignActivated")) == 1
