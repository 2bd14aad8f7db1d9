"""A token can do no more than its abilities allow, on any endpoint and channel, nor create one that can."""

from __future__ import annotations

import re
import shutil
from typing import Any

import httpx2
import pytest

from kit.portal import PASSWORD, Person, World
from smartlink.broadcasting.testing import FakeBroadcaster
from smartlink.portal.main import build
from smartlink.portal.shared.settings import PortalSettings
from smartlink.portal.users.abilities import ABILITIES

DESCRIBED: dict[str, Any] = build(
    PortalSettings(_env_file=None, database_url="sqlite:///unused.db"), broadcaster=FakeBroadcaster()
).app.openapi()
NEEDED = {
    (method, path): ways[0]["bearer"]
    for path, methods in DESCRIBED["paths"].items()
    for method, operation in methods.items()
    if "bearer" in (ways := operation.get("security", [{}]))[0]
}
GIVING_UP = {("post", "/api/logout"), ("delete", "/api/session")}
BY_CHANNEL = {("get", "/api/events"), ("post", "/broadcasting/auth")}
CHANNELS = {
    "private-user.{id}": {"notifications:read", "chat:read", "campaigns:read"},
    "private-financial.{id}": {"wallet:read"},
    "private-chat.{id}.{other}": {"chat:read"},
    "presence-chat": {"chat:read"},
    "private-campaign.{campaign}": {"campaigns:read"},
    "presence-campaign.{campaign}": {"campaigns:read"},
    "private-admin": {"admin:read"},
}


@pytest.fixture
def database_url(sqlite_template: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database is enough: what is tried here lies before it."""
    path = tmp_path_factory.mktemp("db") / "portal.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture
async def admin(world: World) -> Person:
    return await world.person("Ada", is_admin=True)


async def token_of(person: Person, world: World, abilities: Any, **more: Any) -> httpx2.AsyncClient:
    """A client with a new token."""
    answer = await person.post("/api/tokens", {"name": "limited", "abilities": sorted(abilities), **more})
    assert answer.status_code == 201, answer.text
    return world.client(authorization=f"Bearer {answer.json()['token']}")


def test_every_endpoint_for_users_names_its_ability() -> None:
    assert {operation for operation, needed in NEEDED.items() if not needed} == GIVING_UP | BY_CHANNEL
    assert {ability for needed in NEEDED.values() for ability in needed} == set(ABILITIES)
    assert all(f"`{ability}`" in str(DESCRIBED["components"]["securitySchemes"]["bearer"]) for ability in ABILITIES)


@pytest.mark.parametrize(("method", "path"), [operation for operation, needed in NEEDED.items() if needed])
async def test_a_token_can_do_what_its_abilities_allow_and_nothing_else(
    world: World, admin: Person, method: str, path: str
) -> None:
    needed = NEEDED[method, path]
    url, body = re.sub(r"{\w+}", "1", path), {"name": "x", "abilities": []}
    without = await token_of(admin, world, set(ABILITIES) - set(needed))
    holding = await token_of(admin, world, needed)

    refused = await without.request(method.upper(), url, json=body)
    done = await holding.request(method.upper(), url, json=body)

    assert (refused.status_code, refused.json()) == (403, {"message": f"This token lacks the ability {needed[0]}."})
    assert done.status_code not in (401, 403)


@pytest.mark.parametrize(("method", "path"), sorted(GIVING_UP))
async def test_every_token_can_revoke_itself(world: World, ana: Person, method: str, path: str) -> None:
    client = await token_of(ana, world, [])

    assert (await client.request(method.upper(), path)).status_code == 204
    assert (await client.get("/api/user")).status_code == 401


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_token_can_subscribe_to_and_fetch_what_it_may_read(world: World, admin: Person, channel: str) -> None:
    campaign = (await admin.post("/api/campaigns", {"name": "Summer", "budget": "5.00"})).json()["id"]
    name = channel.format(id=admin.id, other=admin.id + 1, campaign=campaign)
    holding = await token_of(admin, world, CHANNELS[channel])
    others = [await token_of(admin, world, set(ABILITIES) - {ability}) for ability in sorted(CHANNELS[channel])]

    for client, status in [(holding, 200), *((client, 403) for client in others)]:
        asked = {"socket_id": "1.1", "channel_name": name}
        assert (await client.post("/broadcasting/auth", json=asked)).status_code == status
        together = await client.post("/broadcasting/auth", json={"socket_id": "1.1", "channels": [name]})
        assert together.json()["channels"][name]["status"] == status
        assert (await client.get("/api/events", params={"channel": name})).status_code == status


async def test_channels_that_are_not_signed_cannot_be_fetched_either(world: World, ana: Person) -> None:
    for name in (f"private-encrypted-user.{ana.id}", f"private-encrypted-cache-user.{ana.id}", "private-admin", "a b"):
        asked = {"socket_id": "1.1", "channel_name": name}
        assert (await ana.post("/broadcasting/auth", asked)).status_code == 403
        assert (await ana.get("/api/events", params={"channel": name})).status_code == 403


async def test_fetching_public_channels_needs_chat_read(world: World, ana: Person) -> None:
    holding = await token_of(ana, world, ["chat:read"])
    without = await token_of(ana, world, set(ABILITIES) - {"chat:read"})

    assert (await holding.get("/api/events?channel=chat")).status_code == 200
    assert (await without.get("/api/events?channel=chat")).status_code == 403


@pytest.mark.parametrize("asked", [{"abilities": ["*"]}, {}, {"abilities": ["tokens:write", "wallet:write"]}])
async def test_a_token_cannot_create_one_with_more_abilities(world: World, ana: Person, asked: dict[str, Any]) -> None:
    client = await token_of(ana, world, ["tokens:write", "wallet:read"])

    refused = await client.post("/api/tokens", json={"name": "wider"} | asked)
    narrower = await client.post("/api/tokens", json={"name": "narrower", "abilities": ["wallet:read"]})

    assert refused.status_code == 403
    assert narrower.status_code == 201
    assert await world.rows("SELECT id FROM personal_access_tokens WHERE name = 'wider'") == []


@pytest.mark.parametrize("expires_at", [None, "2100-01-02T00:00:00Z"])
async def test_a_token_cannot_create_one_that_expires_later(world: World, ana: Person, expires_at: str | None) -> None:
    client = await token_of(ana, world, ["*"], expires_at="2100-01-01T00:00:00Z")

    longer = await client.post("/api/tokens", json={"name": "longer", "expires_at": expires_at})
    as_long = await client.post("/api/tokens", json={"name": "as long", "expires_at": "2100-01-01T00:00:00Z"})

    assert (longer.status_code, as_long.status_code) == (403, 201)


@pytest.mark.parametrize("unknown", ["read", "wallet", "wallet:*", "WALLET:READ", "", " *", 7, None])
async def test_unknown_abilities_are_refused(ana: Person, unknown: object) -> None:
    answer = await ana.post("/api/tokens", {"name": "odd", "abilities": ["chat:read", unknown]})

    assert answer.status_code == 422
    assert set(answer.json()["errors"]) == {"abilities.1"}


async def test_sessions_have_all_abilities(world: World, ana: Person) -> None:
    page = world.client()
    await page.post("/api/session", json={"email": ana.email, "password": PASSWORD})
    headers = {"x-xsrf-token": page.cookies["XSRF-TOKEN"]}

    answer = await page.post("/api/tokens", json={"name": "all"}, headers=headers)

    assert (answer.status_code, answer.json()["abilities"]) == (201, ["*"])


async def test_existing_tokens_keep_their_abilities(world: World, ana: Person) -> None:
    client = await token_of(ana, world, ["chat:read"])
    statement = "UPDATE personal_access_tokens SET abilities = :held WHERE name = 'limited'"
    await world.execute(statement, held='["wallet:read", "server:update"]')

    assert (await client.get("/api/wallet")).status_code == 200
    assert (await client.post("/api/wallet/deposits", json={"amount": "1.00"})).status_code == 403
    assert (await ana.get("/api/tokens")).json()[0]["abilities"] == ["wallet:read", "server:update"]
