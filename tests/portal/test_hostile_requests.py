"""Hostile requests get an error, never a 5xx, and have no effect."""

from __future__ import annotations

from typing import Any

import pytest

from kit.portal import Person, World

ODD_IDS = [
    "abc", "-1", "0", "01", "1.0", "9223372036854775808", "99999999999999999999", "1%20OR%201=1", "1;--", "０", "%00",
    "__proto__", "{0.__class__}", "1e3", "%F0%9F%98%80", "+1", "1%0A",
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD_IDS)
async def test_odd_ids_are_not_found(ana: Person, odd: str) -> None:
    answers = [
        await ana.post(f"/api/chat/messages/{odd}/read"),
        await ana.get(f"/api/chat/messages/private/{odd}"),
        await ana.post(f"/api/chat/messages/private/{odd}/read"),
        await ana.patch(f"/api/chat/messages/{odd}", {"message": "x"}),
        await ana.delete(f"/api/chat/messages/{odd}"),
        await ana.delete(f"/api/tokens/{odd}"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 6
    assert all(set(answer.json()) == {"message"} for answer in answers)


@pytest.mark.parametrize(
    "message",
    [
        None,
        "",
        " ",
        "\t\n\r ",
        "\u200b\u200d\ufeff",
        "\u3000\u00a0",
        "nul\x00",
        1,
        1.5,
        True,
        [],
        {},
        ["x"],
        "x" * 1001,
    ],
)
async def test_an_invalid_message_is_refused(world: World, ana: Person, ben: Person, message: object) -> None:
    said = (await ana.post("/api/chat/messages", {"message": "x"})).json()["id"]
    before = len((await world.broadcasts()).sent)

    answers = [
        await ana.patch(f"/api/chat/messages/{said}", {"message": message}),
        await ana.post("/api/chat/messages", {"message": message}),
        await ana.post("/api/chat/messages/private", {"message": message, "recipient_id": ben.id}),
    ]

    assert [(answer.status_code, set(answer.json()["errors"])) for answer in answers] == [(422, {"message"})] * 3
    assert len((await world.broadcasts()).sent) == before


@pytest.mark.parametrize(
    "kept", ["שלום \u202eabc\u202c", "e\u0301", "<script>alert(1)</script>", "' OR 1=1;--", "👩‍👩‍👧"]
)
async def test_unusual_text_is_stored_unchanged(ana: Person, kept: str) -> None:
    answer = await ana.post("/api/chat/messages", {"message": kept})

    assert (answer.status_code, answer.json()["message"]) == (201, kept)


RECIPIENTS = ["1", "01", True, 1.9, 0, -1, 2**63, 10**30, None, [], [1, 2], {"id": 1}, "abc", "__proto__"]


@pytest.mark.parametrize("recipient", RECIPIENTS)
async def test_an_invalid_recipient_id_is_refused(ana: Person, recipient: object) -> None:
    answer = await ana.post("/api/chat/messages/private", {"recipient_id": recipient, "message": "x"})

    assert (answer.status_code, set(answer.json()["errors"])) == (422, {"recipient_id"})


BODIES = [
    b"", b"null", b"[]", b"1", b'"text"', b"{", b'{"message": NaN}', b'{"message": "\\ud800"}', b"\xff\xfe{}",
    b"[" * 50_000, b'{"message": ' + b'{"a":' * 10_000, b'{"message": 1e999}', b"message=x", b"\x00",
]  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "/api/chat/messages", "/api/chat/messages/private", "/api/chat/typing", "/api/tokens", "/api/login",
        "/api/register",
    ],
)  # fmt: skip
async def test_malformed_bodies_are_client_errors(ana: Person, path: str) -> None:
    for body in BODIES:
        answer = await ana.client.post(path, content=body, headers={"content-type": "application/json"})

        assert answer.status_code in (400, 422), body[:40]
        assert "message" in answer.json()


async def test_a_repeated_key_cannot_smuggle_another_type(world: World, ana: Person) -> None:
    body = b'{"message": "first", "message": ["second"]}'

    answer = await ana.client.post("/api/chat/messages", content=body, headers={"content-type": "application/json"})

    assert answer.status_code == 422


async def test_a_body_that_is_too_large_is_refused(ana: Person) -> None:
    declared = await ana.post("/api/chat/messages", {"message": "x" * 70_000})

    async def chunks():  # type: ignore[no-untyped-def]
        for _ in range(70):
            yield b" " * 1024

    chunked = await ana.client.post(
        "/api/chat/messages", content=chunks(), headers={"content-type": "application/json"}
    )

    assert (declared.status_code, chunked.status_code) == (413, 413)


async def test_unknown_fields_are_ignored(world: World, ana: Person, ben: Person) -> None:
    extra = {"id": 999, "user_id": ben.id, "is_read": True, "read_at": "2000-01-01T00:00:00Z", "is_admin": True}

    general = (await ana.post("/api/chat/messages", {"message": "x", "recipient_id": ben.id} | extra)).json()
    direct = (await ana.post("/api/chat/messages/private", {"message": "x", "recipient_id": ben.id} | extra)).json()

    for message in (general, direct):
        assert (message["user_id"], message["is_read"], message["read_at"]) == (ana.id, False, None)
        assert message["id"] != 999
    assert general["recipient_id"] is None


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "before=x", "after=-1", f"before={10**30}", "limit="]
)
async def test_invalid_cursors_are_refused(ana: Person, query: str) -> None:
    answer = await ana.get(f"/api/chat/messages?{query}")

    assert (answer.status_code, set(answer.json()["errors"])) == (422, {query.partition("=")[0]})


@pytest.mark.parametrize("socket_id", ["x", "1.2\r\nx: y", "١.١", "1.2, 3.4", ""])
async def test_a_malformed_socket_id_excludes_nobody(world: World, ana: Person, socket_id: str) -> None:
    headers = {"x-socket-id": socket_id.encode()}

    assert (await ana.client.post("/api/chat/messages", json={"message": "x"}, headers=headers)).status_code == 201
    assert [envelope.socket_id for envelope in (await world.broadcasts()).sent] == [None]


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_the_length_of_an_idempotency_key_is_limited(ana: Person, key: str) -> None:
    answer = await ana.post("/api/chat/messages", {"message": "x"}, headers={"idempotency-key": key})

    assert answer.status_code == 422


@pytest.mark.parametrize(
    "path",
    ["/..%2f..%2fmain.py", "/%252e%252e/main.py", "/assets/..%2f..%2fmain.py", "/..\\main.py", "/%00", "/etc//passwd"],
)
async def test_files_outside_the_pages_folder_are_not_served(world: World, path: str) -> None:
    answer = await world.client().get(path)

    assert answer.status_code == 404
    assert b"Portal" not in answer.content


async def test_every_endpoint_requires_a_caller(world: World) -> None:
    client = world.client()
    document = (await client.get("/openapi.json")).json()
    is_open = {"/api/register", "/api/login", "/api/realtime", "/up"}

    for path, methods in document["paths"].items():
        for method in methods:
            if path in is_open or (path, method) == ("/api/session", "post"):
                continue
            url = path.replace("{message_id}", "1").replace("{user_id}", "1").replace("{token_id}", "1")
            answer = await client.request(method.upper(), url)
            assert answer.status_code in (401, 422), (method, path)
            if answer.status_code == 422:
                raise AssertionError(f"{method} {path} looks at the body before it knows who asks")


@pytest.mark.parametrize(
    "path",
    [
        "/api/user",
        "/api/tokens",
        "/api/chat/messages",
        "/api/chat/users/online",
        "/api/notifications",
        "/api/campaigns",
        "/api/wallet/transactions",
        "/api/admin/users",
    ],
)
async def test_no_dependency_of_an_endpoint_runs_in_a_thread(
    world: World, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastAPI runs a plain function in a thread, which costs more than all that ours do."""
    in_threads: list[object] = []

    async def in_thread(call: Any, *_: object, **values: object) -> object:
        in_threads.append(call)
        return call(**values)

    monkeypatch.setattr("fastapi.dependencies.utils.run_in_threadpool", in_thread)
    root = await world.person("Root", is_admin=True)

    assert (await root.get(path)).status_code == 200
    assert not in_threads
