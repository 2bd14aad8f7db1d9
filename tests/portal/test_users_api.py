"""Accounts, tokens and sessions over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from kit.portal import PASSWORD, Person, World

SELF_KEYS = {"id", "name", "email", "is_admin", "created_at"}
NEW = {"name": "Zoë", "email": "Zoe@Example.com", "password": PASSWORD}


async def test_registering_signs_in(world: World) -> None:
    client = world.client()

    answer = await client.post("/api/register", json=NEW)

    assert answer.status_code == 201
    assert set(answer.json()) == {"user", "token"}
    assert set(answer.json()["user"]) == SELF_KEYS
    me = await client.get("/api/user", headers={"authorization": f"Bearer {answer.json()['token']}"})
    assert me.json() == answer.json()["user"]


async def test_an_email_is_taken_regardless_of_case(world: World) -> None:
    client = world.client()
    answers = await asyncio.gather(
        *(client.post("/api/register", json=NEW | {"email": email}) for email in ("zoe@example.com", "ZOE@EXAMPLE.COM"))
    )

    assert sorted(answer.status_code for answer in answers) == [201, 422]
    refused = next(answer for answer in answers if answer.status_code == 422)
    assert set(refused.json()["errors"]) == {"email"}


async def test_registration_ignores_unknown_fields(world: World) -> None:
    extra = {"id": 7777, "is_admin": True, "created_at": "2000-01-01T00:00:00Z"}

    answer = await world.client().post("/api/register", json=NEW | extra)

    user = answer.json()["user"]
    assert user["is_admin"] is False
    assert user["id"] != 7777
    assert not user["created_at"].startswith("2000")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""), ("name", "  "), ("name", None), ("name", 5), ("name", "x" * 101), ("name", "a\nb"),
        ("email", "nobody"), ("email", "a@b"), ("email", "a b@c.de"), ("email", []), ("email", "x" * 300 + "@a.de"),
        ("password", "short"), ("password", "x" * 129), ("password", {}), ("password", "nul\x00nulnul"),
    ],
)  # fmt: skip
async def test_an_invalid_registration_names_the_field(world: World, field: str, value: object) -> None:
    answer = await world.client().post("/api/register", json=NEW | {field: value})

    assert answer.status_code == 422
    assert set(answer.json()) == {"message", "errors"}
    assert set(answer.json()["errors"]) == {field}
    assert all(isinstance(text, str) for text in answer.json()["errors"][field])


async def test_signing_in_does_not_reveal_whether_an_account_exists(world: World, ana: Person) -> None:
    client = world.client()

    wrong = await client.post("/api/login", json={"email": ana.email, "password": "wrong"})
    unknown = await client.post("/api/login", json={"email": "nobody@example.com", "password": "wrong"})

    assert (wrong.status_code, wrong.json()) == (unknown.status_code, unknown.json())
    assert wrong.status_code == 422


async def test_sign_ins_are_limited_per_account(world: World, ana: Person, ben: Person) -> None:
    client = world.client()
    attempts = [
        (await client.post("/api/login", json={"email": ana.email.upper(), "password": "wrong"})).status_code
        for _ in range(11)
    ]

    assert attempts == [422] * 10 + [429]
    assert (await client.post("/api/login", json={"email": ben.email, "password": PASSWORD})).status_code == 200


async def test_a_forged_forwarding_header_does_not_lift_the_registration_limit(world: World) -> None:
    client = world.client()
    answers = [
        await client.post("/api/register", json={}, headers={"x-forwarded-for": f"10.0.0.{n}"}) for n in range(3)
    ] + [
        await client.post(
            "/api/register", json=NEW | {"email": f"n{n}@example.com"}, headers={"x-forwarded-for": f"{n}"}
        )
        for n in range(31)
    ]

    assert [answer.status_code for answer in answers[3:]] == [201] * 30 + [429]


async def test_signing_out_revokes_the_token(world: World, ana: Person) -> None:
    assert (await ana.post("/api/logout")).status_code == 204

    assert (await ana.get("/api/user")).status_code == 401


async def test_tokens_are_shown_once_stored_hashed_and_revocable(world: World, ana: Person, eve: Person) -> None:
    created = (await ana.post("/api/tokens", {"name": "laptop"})).json()

    listed = (await ana.get("/api/tokens")).json()
    assert set(created) == {"id", "name", "abilities", "last_used_at", "expires_at", "created_at", "token"}
    assert set(listed[0]) == set(created) - {"token"}
    stored = [row.token for row in await world.rows("SELECT token FROM personal_access_tokens")]
    assert not any(secret in created["token"] or created["token"] in secret for secret in stored)
    assert (await eve.delete(f"/api/tokens/{created['id']}")).status_code == 404
    assert (await ana.delete(f"/api/tokens/{created['id']}")).status_code == 204
    client = world.client(authorization=f"Bearer {created['token']}")
    assert (await client.get("/api/user")).status_code == 401


async def test_an_expired_token_is_401(world: World, ana: Person) -> None:
    soon = {"name": "old", "expires_at": "2100-01-01T00:00:00Z"}
    created = (await ana.post("/api/tokens", soon)).json()
    await world.execute("UPDATE personal_access_tokens SET expires_at = created_at WHERE id = :id", id=created["id"])

    client = world.client(authorization=f"Bearer {created['token']}")

    assert (await client.get("/api/user")).status_code == 401


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer x", "Bearer 1|x", "Basic eDp5", "Bearer \xff\xfe"])
async def test_anything_but_a_valid_token_is_401(world: World, header: str) -> None:
    answer = await world.client().get("/api/user", headers={"authorization": header.encode("latin-1")})

    assert (answer.status_code, answer.json()) == (401, {"message": "Unauthenticated."})


async def _page(world: World, person: Person, **headers: str) -> tuple[httpx2.AsyncClient, httpx2.Response]:
    client = world.client(**headers)
    answer = await client.post("/api/session", json={"email": person.email, "password": PASSWORD})
    return client, answer


async def test_a_page_signs_in_with_a_cookie_that_scripts_cannot_read(world: World, ana: Person) -> None:
    client, answer = await _page(world, ana)

    assert set(answer.json()) == {"user"}
    cookies = {cookie.partition("=")[0]: cookie.lower() for cookie in answer.headers.get_list("set-cookie")}
    assert "httponly" in cookies["smartlink_session"]
    assert "samesite=lax" in cookies["smartlink_session"]
    assert "httponly" not in cookies["XSRF-TOKEN"]
    assert (await client.get("/api/session")).json()["user"]["id"] == ana.id


async def test_cookies_are_secure_behind_https(database_url: str) -> None:
    world = World(database_url, {"app_url": "https://chat.example.com"})
    ana = await world.person()

    _, answer = await _page(world, ana, origin="https://chat.example.com")

    assert answer.status_code == 200
    assert all("secure" in cookie.lower() for cookie in answer.headers.get_list("set-cookie"))
    await world.aclose()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat/messages", {"message": "x"}),
        ("/api/chat/typing", {"typing": True}),
        ("/api/logout", None),
        ("/broadcasting/auth", {"socket_id": "1.2", "channel_name": "presence-chat"}),
        ("/broadcasting/user-auth", {"socket_id": "1.2"}),
    ],
)
async def test_a_cookie_without_the_csrf_token_changes_nothing(world: World, ana: Person, path: str, body: Any) -> None:
    client, _ = await _page(world, ana)
    _, other = await _page(world, await world.person())
    token = client.cookies["XSRF-TOKEN"]

    for wrong in ({}, {"x-xsrf-token": "x"}, {"x-xsrf-token": other.cookies["XSRF-TOKEN"]}):
        assert (await client.post(path, json=body, headers=wrong)).status_code == 419
    foreign = {"x-xsrf-token": token, "origin": "https://evil.example"}
    assert (await client.post(path, json=body, headers=foreign)).status_code == 403
    assert (await client.post(path, json=body, headers={"x-xsrf-token": token})).status_code < 300


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://portal.test.evil.example", "http://xportal.test", "//", "http://["],
)
async def test_a_foreign_page_cannot_sign_in(world: World, ana: Person, origin: str) -> None:
    _, answer = await _page(world, ana, origin=origin)

    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


async def test_a_page_signs_out(world: World, ana: Person) -> None:
    client, _ = await _page(world, ana)
    old = dict(client.cookies)

    answer = await client.delete("/api/session", headers={"x-xsrf-token": client.cookies["XSRF-TOKEN"]})

    assert answer.status_code == 204
    cookie = f"smartlink_session={old['smartlink_session']}"
    assert (await world.client().get("/api/session", headers={"cookie": cookie})).status_code == 401


@pytest.mark.parametrize("past", ["2001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"])
async def test_a_token_cannot_expire_in_the_past(ana: Person, past: str) -> None:
    answer = await ana.post("/api/tokens", {"name": "old", "expires_at": past})

    assert answer.status_code == 422
    assert answer.json()["errors"] == {"expires_at": ["The expires at field must be in the future."]}


async def test_a_token_without_abilities_keeps_none(ana: Person) -> None:
    assert (await ana.post("/api/tokens", {"name": "none", "abilities": []})).json()["abilities"] == []
    assert (await ana.post("/api/tokens", {"name": "all"})).json()["abilities"] == ["*"]


async def test_tokens_are_paged(ana: Person) -> None:
    for number in range(3):
        await ana.post("/api/tokens", {"name": f"token {number}"})

    newest = (await ana.get("/api/tokens?limit=2")).json()
    assert [token["name"] for token in newest] == ["token 2", "token 1"]
    older = (await ana.get(f"/api/tokens?before={newest[-1]['id']}")).json()
    assert [token["name"] for token in older] == ["token 0", "test"]
    assert [token["name"] for token in (await ana.get(f"/api/tokens?after={older[-1]['id']}&limit=2")).json()] == [
        "token 0",
        "token 1",
    ]
