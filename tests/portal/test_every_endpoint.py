"""Rules for all endpoints, tested on each that the API's description lists, so that new ones are included."""

from __future__ import annotations

import json
import re
import shutil
from typing import Any

import httpx2
import pytest

from kit.portal import PASSWORD, Person, World
from smartlink.broadcasting.testing import FakeBroadcaster
from smartlink.portal.main import build
from smartlink.portal.openapi import MUTATING
from smartlink.portal.shared.passwords import Asker
from smartlink.portal.shared.settings import PortalSettings

DESCRIBED: dict[str, Any] = build(
    PortalSettings(_env_file=None, database_url="sqlite:///unused.db"), broadcaster=FakeBroadcaster()
).app.openapi()
OPERATIONS = [(method, path) for path, methods in DESCRIBED["paths"].items() for method in methods]
SIGNED_IN = [
    (method, path)
    for method, path in OPERATIONS
    if any("bearer" in way for way in DESCRIBED["paths"][path][method].get("security", []))
]
BY_ID = [(method, path) for method, path in OPERATIONS if "{" in path]
UNSAFE = [(method, path) for method, path in SIGNED_IN if method in MUTATING]

# Whose record each id is: somebody else's. For admins, who may see all, there is only what is not there.
OTHERS_ID = {
    "/api/admin/messages/{message_id}/versions": "admin",
    "/api/chat/messages/{message_id}": "message",
    "/api/chat/messages/{message_id}/read": "message",
    "/api/chat/messages/{message_id}/unread": "message",
    "/api/chat/messages/private/{user_id}": "oneself",
    "/api/chat/messages/private/{user_id}/read": "oneself",
    "/api/tokens/{token_id}": "token",
    "/api/notifications/{notification_id}/read": "notification",
    "/api/campaigns/{campaign_id}": "campaign",
    "/api/campaigns/{campaign_id}/activity": "campaign",
    "/api/campaigns/{campaign_id}/activate": "campaign",
    "/api/campaigns/{campaign_id}/deactivate": "campaign",
    "/api/campaigns/{campaign_id}/budget": "campaign",
    "/api/admin/users/{user_id}": "admin",
    "/api/admin/users/{user_id}/disconnect": "admin",
    "/api/admin/failed-jobs/{event_id}": "admin",
    "/api/admin/failed-jobs/{event_id}/retry": "admin",
}
BODIES = {"budget": {"budget": "1.00"}, "{message_id}": {"message": "x"}}


@pytest.fixture
def database_url(sqlite_template: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database is enough: what is tried here lies before it."""
    path = tmp_path_factory.mktemp("db") / "portal.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture
async def page(world: World, ana: Person) -> httpx2.AsyncClient:
    """Ana's page: signed in by cookie."""
    client = world.client()
    await client.post("/api/session", json={"email": ana.email, "password": PASSWORD})
    return client


def _url(path: str, number: int = 1) -> str:
    return re.sub(r"{\w+}", str(number), path)


def _is_an_error(answer: httpx2.Response, *more: str) -> bool:
    body = answer.json()
    return set(body) == {"message", *more} and bool(body["message"]) and "json" in answer.headers["content-type"]


def test_each_endpoint_with_an_id_is_in_the_ownership_table() -> None:
    assert {path for _, path in BY_ID} == set(OTHERS_ID)


async def test_other_users_records_are_404(world: World, ana: Person, ben: Person, eve: Person) -> None:
    message = await world.direct_message(ana, ben)
    campaign = (await ana.post("/api/campaigns", {"name": "Summer", "budget": "5.00"})).json()["id"]
    ids = {
        "message": message,
        "oneself": eve.id,
        "token": (await ana.post("/api/tokens", {"name": "mine"})).json()["id"],
        "notification": (await ben.get("/api/notifications")).json()[0]["id"],
        "campaign": campaign,
    }
    before = await world.rows("SELECT * FROM campaigns"), await world.rows("SELECT * FROM chat_messages")

    for method, path in BY_ID:
        if (whose := OTHERS_ID[path]) == "admin":
            continue
        body = BODIES.get(path.rpartition("/")[2], {})
        for number in (ids[whose], 999_999):
            answer = await eve.client.request(method.upper(), _url(path, number), json=body)
            assert (answer.status_code, answer.json()) == (404, {"message": "Not found."}), (method, path, number)

    assert before == (
        await world.rows("SELECT * FROM campaigns"),
        await world.rows("SELECT * FROM chat_messages"),
    )
    assert (await ben.post(f"/api/notifications/{ids['notification']}/read")).json()["read_at"] is not None


@pytest.mark.parametrize(("method", "path"), SIGNED_IN)
async def test_unauthenticated_requests_get_401_for_any_input(world: World, method: str, path: str) -> None:
    answer = await world.client().request(method.upper(), _url(path))

    assert answer.status_code == 401
    assert _is_an_error(answer)


async def test_admin_endpoints_are_for_admins(world: World, ana: Person) -> None:
    for method, path in SIGNED_IN:
        if path.startswith("/api/admin/"):
            answer = await ana.client.request(method.upper(), _url(path), json={})
            assert (answer.status_code, _is_an_error(answer)) == (403, True), (method, path)


async def test_a_cookie_request_needs_the_csrf_token(world: World, ana: Person, page: httpx2.AsyncClient) -> None:
    for method, path in UNSAFE:
        for token in ("", "0" * 64, "é"):
            headers = {"x-xsrf-token": token.encode("latin-1")} if token else {}
            answer = await page.request(method.upper(), _url(path), json={}, headers=headers)
            assert (answer.status_code, _is_an_error(answer)) == (419, True), (method, path)
        token = page.cookies["XSRF-TOKEN"]
        foreign = {"x-xsrf-token": token, "origin": "https://evil.example"}
        answer = await page.request(method.upper(), _url(path), json={}, headers=foreign)
        assert (answer.status_code, _is_an_error(answer)) == (403, True), (method, path)
    assert (await page.get("/api/session")).status_code == 200


async def test_a_page_for_one_account_cannot_act_for_another(
    world: World, ana: Person, ben: Person, page: httpx2.AsyncClient
) -> None:
    token = page.cookies["XSRF-TOKEN"]
    for method, path in SIGNED_IN:
        for shown in (str(ben.id), f"0{ana.id}", "ana", ""):
            headers = {"x-xsrf-token": token, "x-account": shown}
            answer = await page.request(method.upper(), _url(path), json={}, headers=headers)
            assert (answer.status_code, _is_an_error(answer)) == (409, True), (method, path, shown)
            assert answer.headers["x-account"] == str(ana.id)
        assert "409" in DESCRIBED["paths"][path][method]["responses"], (method, path)
        parameters = DESCRIBED["paths"][path][method]["parameters"]
        assert {"$ref": "#/components/parameters/X-Account"} in parameters, (method, path)
    money = {"x-xsrf-token": token, "x-account": str(ana.id), "idempotency-key": "k"}
    assert (await page.post("/api/wallet/deposits", json={"amount": "5"}, headers=money)).status_code == 201
    assert (await page.get("/api/wallet", headers=money)).json()["balance"] == "5.00"


async def test_another_account_is_reported_before_a_csrf_mismatch(ben: Person, page: httpx2.AsyncClient) -> None:
    headers = {"x-xsrf-token": "0" * 64, "x-account": str(ben.id)}

    assert (await page.post("/api/wallet/deposits", json={"amount": "5"}, headers=headers)).status_code == 409


async def test_a_bearer_token_needs_no_x_account(ana: Person, ben: Person) -> None:
    assert (await ana.get("/api/user", headers={"x-account": str(ben.id)})).json()["id"] == ana.id


@pytest.mark.parametrize(("app_url", "is_secure"), [("https://chat.example.com", True), (None, False)])
async def test_cookies_have_safe_attributes(database_url: str, app_url: str | None, is_secure: bool) -> None:
    world = World(database_url, {"app_url": app_url})
    ana = await world.person()

    answer = await world.client().post("/api/session", json={"email": ana.email, "password": PASSWORD})

    cookies = {cookie.partition("=")[0]: cookie.lower() for cookie in answer.headers.get_list("set-cookie")}
    assert set(cookies) == {"smartlink_session", "XSRF-TOKEN"}
    assert all(("; secure" in cookie) is is_secure and "samesite=lax" in cookie for cookie in cookies.values())
    assert "; httponly" in cookies["smartlink_session"]
    assert "; httponly" not in cookies["XSRF-TOKEN"]
    assert ("strict-transport-security" in answer.headers) is is_secure
    await world.aclose()


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_an_unsupported_method_is_405_with_allow(world: World, method: str, path: str) -> None:
    known = {"get", *DESCRIBED["paths"][path]} if path.startswith("/broadcasting") else DESCRIBED["paths"][path]
    wrong = next(each for each in ("put", "patch", "delete", "post") if each not in known)
    client = (await world.person(is_admin=True)).client

    answer = await client.request(wrong.upper(), _url(path))

    allowed = {each.strip().lower() for each in answer.headers.get("allow", "").split(",")}
    assert answer.status_code == 405
    assert method in allowed
    assert wrong not in allowed
    assert _is_an_error(answer)


BAD = {
    "an unknown path": ("GET", "/api/nothing", {}, 404, ()),
    "an unknown path, posted to": ("POST", "/api/nothing", {"json": {}}, 404, ()),
    "no page": ("GET", "/nothing", {}, 404, ()),
    "no file": ("GET", "/assets/nothing.js", {}, 404, ()),
    "broken JSON": ("POST", "/api/chat/messages", {"content": b"{", "type": "application/json"}, 422, ("errors",)),
    "no UTF-8": ("POST", "/api/chat/messages", {"content": b"\xff\xfe", "type": "application/json"}, 422, ("errors",)),
    "too deep": ("POST", "/api/chat/messages", {"content": b"[" * 50_000, "type": "application/json"}, 422, ("errors",)),
    "a form": ("POST", "/api/chat/messages", {"data": {"message": "x"}}, 422, ("errors",)),
    "text": ("POST", "/api/chat/messages", {"content": b"x", "type": "text/plain"}, 422, ("errors",)),
    "XML": ("POST", "/api/chat/messages", {"content": b"<x/>", "type": "application/xml"}, 422, ("errors",)),
    "nothing": ("POST", "/api/chat/messages", {}, 422, ("errors",)),
    "too much": ("POST", "/api/chat/messages", {"content": b" " * 70_000, "type": "application/json"}, 413, ()),
    "too much for signing": ("POST", "/broadcasting/auth", {"content": b" " * 70_000, "type": "application/json"}, 413, ()),
    "XML for signing": ("POST", "/broadcasting/auth", {"content": b"<x/>", "type": "application/xml"}, 415, ()),
    "broken JSON for signing": ("POST", "/broadcasting/auth", {"content": b"{", "type": "application/json"}, 400, ()),
    "a webhook unsigned": ("POST", "/webhooks/realtime", {"content": b"{}", "type": "application/json"}, 401, ()),
    "an odd id": ("GET", "/api/campaigns/abc", {}, 404, ()),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
async def test_all_errors_have_the_same_form(ana: Person, what: str) -> None:
    method, path, options, status, more = BAD[what]
    options = dict(options)
    headers = {"content-type": kind} if (kind := options.pop("type", None)) else {}

    answer = await ana.client.request(method, path, headers=headers, **options)

    assert answer.status_code == status, answer.text
    assert _is_an_error(answer, *more)


async def test_only_a_message_to_oneself_has_another_form(ana: Person) -> None:
    answer = await ana.post("/api/chat/messages/private", {"recipient_id": ana.id, "message": "x"})

    assert (answer.status_code, answer.json()) == (400, {"error": "Cannot send message to yourself"})


async def test_every_response_has_the_security_headers(world: World, ana: Person) -> None:
    for method, path in [*OPERATIONS, ("get", "/docs"), ("get", "/"), ("get", "/nothing"), ("get", "/openapi.json")]:
        for client in (world.client(), ana.client):
            headers = (await client.request(method.upper(), _url(path))).headers
            assert "'unsafe-inline'" not in headers["content-security-policy"], (method, path)
            assert headers["content-security-policy"].startswith("default-src 'self'")
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            if path.startswith("/api/"):
                assert headers["cache-control"] == "no-store"
        if (method, path) in {("post", "/api/logout"), ("post", "/api/logout/everywhere"), ("delete", "/api/session")}:
            ana = await world.person()


async def test_a_forged_host_header_is_never_echoed(world: World, ana: Person) -> None:
    poison = {"host": "evil.example", "x-forwarded-host": "evil.example", "x-forwarded-proto": "https"}

    for path in ("/api/realtime", "/openapi.json", "/docs", "/", "/api/campaigns/", "//evil.example/x"):
        answer = await ana.get(path, headers=poison | {"accept": "text/html"})
        assert "evil.example" not in answer.text + json.dumps(dict(answer.headers)), path


@pytest.mark.parametrize("value", ["1\r\nset-cookie: x=1", "a\nb", '"3"\r\n'])
async def test_input_never_becomes_a_header(world: World, ana: Person, value: str) -> None:
    for name in ("if-match", "idempotency-key", "x-socket-id", "x-forwarded-for"):
        headers = {name: value.encode()}
        answer = await ana.client.post("/api/chat/messages", json={"message": "x"}, headers=headers)
        assert "set-cookie" not in answer.headers
        assert answer.status_code in (201, 422)


async def test_an_unknown_account_and_a_wrong_password_look_the_same(world: World, ana: Person) -> None:
    checked: list[str | None] = []
    verify = world.portal.passwords._verify

    async def counted(password: str, stored: str, asker: Asker | None) -> bool:
        checked.append(stored)
        return await verify(password, stored, asker)

    world.portal.passwords._verify = counted  # type: ignore[method-assign]
    client = world.client()

    wrong = await client.post("/api/login", json={"email": ana.email, "password": "not this one"})
    nobody = await client.post("/api/login", json={"email": "nobody@example.com", "password": "not this one"})

    assert (wrong.status_code, wrong.json()) == (nobody.status_code, nobody.json())
    # Both went through Argon2 once: that is what takes the time.
    assert len(checked) == 2


LIMITED = {
    "register": (30, "POST", "/api/register", {}),
    "sign-in": (10, "POST", "/api/login", {"email": "x@example.com", "password": "wrong password"}),
    "session": (10, "POST", "/api/session", {"email": "x@example.com", "password": "wrong password"}),
    "typing": (5, "POST", "/api/chat/typing", {"typing": True}),
    "posting": (20, "POST", "/api/chat/messages", {"message": "x"}),
    "direct posting": (20, "POST", "/api/chat/messages/private", {"message": "x", "recipient_id": 999}),
    "editing": (20, "PATCH", "/api/chat/messages/{message_id}", {"message": "x"}),
    "wallet": (60, "GET", "/api/wallet", None),
    "ledger": (60, "GET", "/api/wallet/transactions", None),
    "search": (30, "GET", "/api/chat/search?q=x", None),
    "password": (10, "PUT", "/api/user/password", {"current_password": "wrong", "password": "long enough"}),
    "address": (10, "PATCH", "/api/user", {"email": "new@example.com", "current_password": "wrong"}),
    "name": (30, "PATCH", "/api/user", {"name": "Ana"}),
    "tokens": (30, "POST", "/api/tokens", {"name": "x"}),
    "campaigns": (30, "POST", "/api/campaigns", {"name": "x", "budget": "1.00"}),
}


@pytest.mark.parametrize("what", LIMITED)
async def test_a_rate_limit_is_429_with_retry_after(world: World, ana: Person, what: str) -> None:
    limit, method, path, body = LIMITED[what]
    limits = world.portal.limits
    # The window is made long: a slow machine must not see it move.
    limits.allowed = {name: (at_most, 3600.0) for name, (at_most, _) in limits.allowed.items()}

    answers = []
    for number in range(limit + 1):
        sent = body
        if what == "register":
            sent = {"name": "N", "email": f"n{number}@example.com", "password": PASSWORD}
        answers.append(await ana.client.request(method, _url(path), json=sent))

    assert all(answer.status_code != 429 for answer in answers[:-1])
    assert answers[-1].status_code == 429
    assert _is_an_error(answers[-1])
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 3600
    assert "429" in DESCRIBED["paths"][path.partition("?")[0]][method.lower()]["responses"]


# Signed by the realtime server: nobody else gets past the first look at it.
UNLIMITED = {("post", "/webhooks/realtime")}


def test_every_changing_endpoint_has_a_rate_limit() -> None:
    limited = {
        operation for operation in OPERATIONS if "429" in DESCRIBED["paths"][operation[1]][operation[0]]["responses"]
    }

    assert {operation for operation in OPERATIONS if operation[0] in MUTATING} - limited == UNLIMITED
    assert {(method.lower(), path.partition("?")[0]) for _, method, path, _ in LIMITED.values()} <= limited


@pytest.mark.parametrize(("method", "path"), [each for each in UNSAFE if each not in UNLIMITED])
async def test_every_changing_endpoint_is_429_beyond_its_limit(world: World, method: str, path: str) -> None:
    admin = await world.person(is_admin=True)
    world.portal.limits.allowed = dict.fromkeys(world.portal.limits.allowed, (2, 3600.0))
    bodies = {
        "/api/chat/messages": {"message": "x"},
        "/api/chat/messages/private": {"message": "x", "recipient_id": 999},
        "/api/chat/messages/{message_id}": {"message": "x"},
        "/api/chat/typing": {"typing": True},
        "/api/user/password": {"current_password": "wrong", "password": "long enough"},
    }
    body = bodies.get(path, {"amount": "1.00"} if "wallet" in path else {"name": "x"})
    # Those that end the token they come by: the limit is the user's.
    tokens = [(await world.portal.users.add_token(admin.id, "x"))[1] for _ in range(3)]

    answers = []
    for token in tokens:
        client = world.client(authorization=f"Bearer {token}")
        if path == "/api/logout/everywhere" and answers:
            token = (await world.portal.users.add_token(admin.id, "x"))[1]
            client = world.client(authorization=f"Bearer {token}")
        answers.append(await client.request(method.upper(), _url(path), json=body))

    assert [answer.status_code == 429 for answer in answers] == [False, False, True], answers
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 3600


def test_every_endpoint_is_fully_described() -> None:
    seen = set()
    for method, path in OPERATIONS:
        operation = DESCRIBED["paths"][path][method]
        assert operation["summary"], path
        assert operation["tags"], path
        assert operation["operationId"] not in seen
        seen.add(operation["operationId"])
        for content in operation.get("requestBody", {}).get("content", {}).values():
            schema = content["schema"]
            shown = content.get("example") or DESCRIBED["components"]["schemas"].get(
                (schema.get("$ref") or schema.get("anyOf", [{}])[0].get("$ref", "")).rpartition("/")[2], {}
            ).get("example")
            assert shown, (method, path)


async def test_a_page_has_at_most_the_described_length(world: World) -> None:
    admin = await world.person(is_admin=True)
    queries = {"/api/events": "channel=chat&after=0&", "/api/chat/search": "q=x&"}
    seen = set()
    for method, path in SIGNED_IN:
        for parameter in DESCRIBED["paths"][path][method].get("parameters", ()):
            if parameter.get("name") != "limit" or "{" in path:
                continue
            seen.add(path)
            schema, query = parameter["schema"], queries.get(path, "")
            least, most = schema["minimum"], schema["maximum"]
            expected = {least - 1: 422, least: 200, most: 200, most + 1: 422}
            got = {limit: (await admin.get(f"{path}?{query}limit={limit}")).status_code for limit in expected}
            assert got == expected, path
    assert {"/api/chat/messages", "/api/tokens", "/api/events", "/api/admin/users"} <= seen


async def test_null_is_accepted_where_the_description_allows_it(ana: Person) -> None:
    campaign = (await ana.post("/api/campaigns", {"name": "Summer", "budget": "5.00"})).json()
    fields = DESCRIBED["components"]["schemas"]["CampaignChange"]["properties"]

    for name, schema in fields.items():
        may_be_null = {"type": "null"} in schema.get("anyOf", ())
        answer = await ana.patch(f"/api/campaigns/{campaign['id']}", {name: None})
        assert answer.status_code == (200 if may_be_null else 422), name
