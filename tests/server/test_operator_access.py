"""Who may use the operator API, and that nobody's input harms it: tokens, origins, other applications, floods, names."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from kit.client import connected, raw
from kit.operating import operated
from kit.realtime import KEY, an_app, call, realtime_server
from kit.waiting import eventually
from smartlink.safety import UnsafeSettings
from smartlink.server.apps.base import App
from smartlink.server.observe.consoles import MAX_CONSOLES, MAX_WAITING, Console
from smartlink.server.run.lifecycle import RealtimeServer
from smartlink.server.runtime.feed import MAX_ENTRIES, Filter
from smartlink.server.settings.config import ServerSettings

TOKEN, OF_ONE = "t" * 24, "o" * 24
OTHER = App(id="2002", key="other-key", secret="other-secret")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[1:]}"]
)
async def test_without_the_token_nothing_is_told(server: RealtimeServer, header: str) -> None:
    async with operated(server, token=TOKEN) as api:
        headers = {"Authorization": header} if header else {}

        answers = [await api.request("GET", path, headers=headers) for path in ("overview", "console", "nothing")]
        action = await api.request("POST", "events", body={}, headers=headers)

    assert {answer.status_code for answer in (*answers, action)} == {401}


async def test_with_the_token_everything_is_told(server: RealtimeServer) -> None:
    async with operated(server, token=TOKEN, host="0.0.0.0") as api:
        api.headers = bearer(TOKEN)

        assert (await api.get("session"))["app_id"] is None


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("0.0.0.0", {}),
        ("127.0.0.1", {"Host": "attacker.example"}),
        ("127.0.0.1", {"Host": "["}),
        ("127.0.0.1", {"X-Forwarded-For": "203.0.113.7"}),
        ("127.0.0.1", {"Forwarded": "for=203.0.113.7"}),
        ("127.0.0.1", {"Origin": "https://attacker.example"}),
        ("127.0.0.1", {"Origin": "null"}),
        ("127.0.0.1", {"Sec-Fetch-Site": "cross-site"}),
    ],
)
async def test_without_a_token_only_this_machine_and_no_other_page_is_served(
    server: RealtimeServer, host: str, headers: dict[str, str]
) -> None:
    async with operated(server, host=host) as api:
        answer = await api.request("GET", "overview", headers=headers)

    assert answer.status_code == 403
    assert set(answer.json()) == {"error"}


async def test_a_page_of_another_origin_may_not_use_a_token_either(server: RealtimeServer) -> None:
    async with operated(server, token=TOKEN) as api:
        headers = bearer(TOKEN) | {"Origin": "https://attacker.example"}
        answer = await api.request("GET", "overview", headers=headers)

    assert answer.status_code == 403


async def test_an_action_that_a_form_could_send_is_refused(server: RealtimeServer) -> None:
    async with operated(server) as api, raw(server.port):
        headers = {"Content-Type": "text/plain"}
        answer = await api.request("POST", "events", body={"channel": "a", "event": "e", "data": ""}, headers=headers)

    assert answer.status_code == 415


async def test_an_operator_of_one_application_sees_no_other() -> None:
    async with (
        realtime_server(an_app(), OTHER) as server,
        operated(server, token=TOKEN, app_tokens={"2002": OF_ONE}) as api,
        connected(server.port) as ana,
        connected(server.port, key="other-key"),
    ):
        await ana.subscribe("room")
        api.headers = bearer(OF_ONE)

        overview = await api.get("overview")
        assert [app["id"] for app in overview["apps"]] == ["2002"]
        assert (overview["processes"], overview["findings"]) == ([], [])
        assert [app["id"] for app in await api.get("apps")] == ["2002"]
        assert {row["app_id"] for row in (await api.get("connections"))["rows"]} == {"2002"}
        assert (await api.request("GET", "connection", socket=ana.socket_id)).status_code == 404
        for path in ("connections", "channels", "channel", "explain", "connection"):
            named = await api.request("GET", path, app="1001", channel="room", subject="room", socket="1.1")
            assert named.status_code == 403, path
        assert (await api.request("GET", "charts")).status_code == 403
        for path, body in (
            ("events", {"app": "1001", "channel": "room", "event": "e", "data": ""}),
            ("webhooks/retry", {"app": "1001", "id": None}),
        ):
            assert (await api.request("POST", path, body=body)).status_code == 403, path


async def test_a_console_of_one_application_shows_no_other() -> None:
    async with (
        realtime_server(an_app(), OTHER) as server,
        operated(server, token=TOKEN, app_tokens={"2002": OF_ONE}) as api,
    ):
        api.headers = bearer(OF_ONE)
        async with api.console(app="1001") as lines:
            async with connected(server.port):
                pass
            async with connected(server.port, key="other-key") as ben:
                entry = await anext(lines)

    assert (entry["app_id"], entry["socket_id"]) == ("2002", ben.socket_id)


async def test_an_unknown_application_leaves_nothing_behind(server: RealtimeServer) -> None:
    async with operated(server) as api:
        answer = await api.request("GET", "connections", app="nobody")

    assert answer.status_code == 404
    assert "nobody" not in server.node.hub._tenants


async def test_hostile_names_are_told_as_data(server: RealtimeServer) -> None:
    hostile = '<img src=x onerror=alert(1)>"\u202e\n'
    async with operated(server) as api, connected(server.port) as ana:
        await ana.subscribe("presence-room", {"user_id": "7", "user_info": {"name": hostile}})
        ana.send("pusher:subscribe", {"channel": hostile})
        await ana.expect("pusher:subscription_error")

        answer = await api.request("GET", "problems")

    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json()[0]["channel"] == hostile


@pytest.mark.parametrize(
    "query",
    [{"limit": "0"}, {"limit": "-1"}, {"limit": "1e9"}, {"limit": "٣"}, {"text": "x" * 1_000}, {"after": "x" * 1_000}],
)
async def test_a_faulty_page_is_refused(server: RealtimeServer, query: dict[str, str]) -> None:
    async with operated(server) as api:
        assert (await api.request("GET", "connections", **query)).status_code == 400


@pytest.mark.parametrize(
    "head",
    [
        b"POST /api/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n",
        b"POST /api/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"POST /api/events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /api/overview?%00=%ff&x HTTP/1.1\r\nHost: localhost\r\n: \r\n\r\n",
    ],
)
async def test_malformed_requests_get_an_answer_and_harm_nobody(server: RealtimeServer, head: bytes) -> None:
    async with operated(server) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(head)
        answer = await reader.read()
        writer.close()

        assert answer.startswith(b"HTTP/1.1 ")
        assert b"root:" not in answer
        assert (await api.get("session"))["operator"] == "local"


async def test_there_is_a_limit_of_consoles_and_they_do_not_crowd_out_probes(server: RealtimeServer) -> None:
    async with operated(server) as api, AsyncExitStack() as stack:
        for _ in range(MAX_CONSOLES):
            await stack.enter_async_context(api.console())

        assert (await api.request("GET", "console")).status_code == 429
        assert len(server.node.feed.watches) == 1  # all look at the same
        assert (await api.get("overview"))["missing"] == 0


async def test_a_flood_is_counted_where_it_does_not_fit() -> None:
    console = Console(Filter())

    for _ in range(MAX_WAITING + 3):
        console.put(b'{"entries":[]}', MAX_ENTRIES)

    lines = await console.lines(1)
    assert len(lines) == MAX_WAITING + 1
    assert json.loads(lines[-1])["dropped"] == 3 * MAX_ENTRIES


async def test_a_flood_of_events_reaches_the_console_bounded_and_all_subscribers_whole(server: RealtimeServer) -> None:
    async with operated(server) as api, connected(server.port) as ana, api.console(kinds="publish") as lines:
        await ana.subscribe("room")
        batch = [{"name": "e", "channel": "room", "data": "x"}] * 10
        for _ in range(100):
            answer = await call(server.port, "POST", "/apps/1001/batch_events", json.dumps({"batch": batch}).encode())
            assert answer.status_code == 200

        for _ in range(1_000):
            await ana.expect("e")
        seen = 0
        async for entry in lines:
            seen += entry["count"] if entry["kind"] == "dropped" else 1
            if seen == 1_000:
                break

    await eventually(lambda: not server.node.feed.watches)


async def test_a_channel_of_many_subscribers_is_shown_in_pages(server: RealtimeServer) -> None:
    async with operated(server) as api, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(server.port)) for _ in range(120)]
        for client in clients:
            await client.subscribe("room")

        seen: list[str] = []
        after = ""
        while True:
            page = await api.get("connections", channel="room", limit="50", after=after)
            assert len(page["rows"]) <= 50
            seen += [row["socket_id"] for row in page["rows"]]
            if not (after := page["next"]):
                break

    assert seen == sorted(client.socket_id for client in clients)


@pytest.mark.parametrize("tokens", [("short", None), (TOKEN, f"1={TOKEN}"), (None, "1=short"), (None, TOKEN)])
def test_weak_and_shared_tokens_are_refused_at_the_start(tokens: tuple[str | None, str | None]) -> None:
    token, app_tokens = tokens
    settings = ServerSettings(_env_file=None, reverb_operator_token=token, reverb_operator_app_tokens=app_tokens)

    with pytest.raises(UnsafeSettings, match="REVERB_OPERATOR"):
        settings.check_start()


def test_tokens_are_not_in_the_settings_text() -> None:
    settings = ServerSettings(_env_file=None, reverb_operator_token=TOKEN, reverb_operator_app_tokens=f"{KEY}={OF_ONE}")

    assert TOKEN not in repr(settings)
    assert OF_ONE not in repr(settings)
    assert settings.operator_app_tokens == {KEY: OF_ONE}
