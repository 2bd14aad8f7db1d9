"""Several applications on one server: isolated, changed while it runs, each with its own rates and origins."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from kit.changing_apps import ChangingApps
from kit.client import Client, connected
from kit.realtime import call, realtime_server
from kit.receiver import receiver
from kit.waiting import eventually
from smartlink.protocol.signing import sign_channel
from smartlink.server.apps.base import App, AppsInvalid, WebhookTarget
from smartlink.server.apps.table import AppTable
from smartlink.server.run.bootstrap import apps_for
from smartlink.server.run.lifecycle import RealtimeServer
from smartlink.server.settings.config import ServerSettings

ONE, TWO = App("1001", "app-key", "app-secret"), App("2002", "key-two", "secret-two")


@asynccontextmanager
async def two_apps(*apps: App) -> AsyncIterator[tuple[RealtimeServer, ChangingApps]]:
    manager = ChangingApps(apps or (ONE, TWO))
    async with realtime_server(manager) as server:
        yield server, manager


async def publish(server: RealtimeServer, app: App, channel: str, name: str = "e") -> int:
    body = json.dumps({"name": name, "channel": channel, "data": "x"}).encode()
    answer = await call(server.port, "POST", f"/apps/{app.id}/events", body, key=app.key, secret=app.secret)
    return answer.status_code


# Two at once


async def test_the_same_channel_of_two_apps_is_two_channels() -> None:
    async with two_apps() as (server, _), connected(server.port) as ana, connected(server.port, key=TWO.key) as ben:
        await ana.subscribe("chat")
        await ben.subscribe("chat")

        assert await publish(server, TWO, "chat", "for-two") == 200
        assert (await ben.receive())["event"] == "for-two"
        assert await ana.is_quiet()
        listed = await call(server.port, "GET", "/apps/1001/channels/chat", params={"info": "subscription_count"})
        assert listed.json() == {"occupied": True, "subscription_count": 1}


async def join_with(client: Client, key: str, secret: str) -> str:
    auth = sign_channel(key, secret, client.socket_id, "private-a")
    client.send("pusher:subscribe", {"channel": "private-a", "auth": auth})
    return str((await client.receive())["event"])


@pytest.mark.parametrize(
    ("key", "secret"), [(TWO.key, TWO.secret), (ONE.key, TWO.secret), (TWO.key, ONE.secret)], ids=str
)
async def test_one_apps_signatures_are_invalid_for_another(key: str, secret: str) -> None:
    body = b'{"name":"e","channel":"chat","data":"x"}'
    async with two_apps() as (server, _), connected(server.port) as ana:
        assert await join_with(ana, key, secret) == "pusher:subscription_error"
        answer = await call(server.port, "POST", "/apps/1001/events", body, key=key, secret=secret)
        assert answer.status_code == 401
        ended = await call(server.port, "POST", "/users/1/terminate_connections", b"{}", key=key, secret=secret)
        assert (ended.status_code == 200) is ((key, secret) == (TWO.key, TWO.secret))


async def test_terminating_a_user_affects_one_app_only() -> None:
    async with two_apps() as (server, _), connected(server.port) as ana, connected(server.port, key=TWO.key) as ben:
        await ana.subscribe("presence-a", {"user_id": "7"})
        data = json.dumps({"user_id": "7"})
        auth = sign_channel(TWO.key, TWO.secret, ben.socket_id, "presence-a", data)
        ben.send("pusher:subscribe", {"channel": "presence-a", "auth": auth, "channel_data": data})
        await ben.expect("pusher_internal:subscription_succeeded")

        await call(
            server.port, "POST", "/apps/2002/users/7/terminate_connections", b"{}", key=TWO.key, secret=TWO.secret
        )
        assert (await ben.closed()).code == 4009
        assert await ana.is_quiet()


# They come and go


@pytest.mark.parametrize(
    ("becomes", "code"),
    [
        (None, 4001),
        (replace(ONE, key="other-key"), 4001),
        (replace(ONE, is_enabled=False), 4003),
        (replace(ONE, secret="other-secret"), 4200),
    ],
)
async def test_connections_end_when_their_app_changes(becomes: App | None, code: int) -> None:
    async with two_apps() as (server, manager):
        async with connected(server.port) as ana, connected(server.port, key=TWO.key) as ben:
            manager.become(*([TWO] if becomes is None else [becomes, TWO]))

            assert (await ana.closed()).code == code
            assert await ben.is_quiet()
        async with connected(server.port) as again:
            expected = None if code == 4200 else code
            assert getattr(again, "refusal", {"code": None})["code"] == expected
        await eventually(lambda: len(server.node.hub) == 0)


async def test_new_limits_apply_to_new_connections_only() -> None:
    async with two_apps() as (server, manager), connected(server.port) as ana:
        manager.become(replace(ONE, max_connections=1), TWO)

        assert await ana.is_quiet()
        async with connected(server.port) as late:
            assert late.refusal["code"] == 4100  # type: ignore[attr-defined]


async def test_a_server_reads_and_reloads_its_apps_file(tmp_path: Path) -> None:
    file = tmp_path / "apps.toml"
    file.write_text('[[apps]]\nid = "1001"\nkey = "app-key"\nsecret = "app-secret"\n')
    async with realtime_server(reverb_apps_file=file) as server, connected(server.port) as ana:
        assert await publish(server, ONE, "chat") == 200
        file.write_text("nonsense")
        server.reload()
        assert await ana.is_quiet()
        file.write_text('[[apps]]\nid = "1001"\nkey = "app-key"\nsecret = "app-secret"\nis_enabled = false\n')
        server.reload()

        assert (await ana.closed()).code == 4003
        assert await publish(server, ONE, "chat") == 403


async def test_the_webhook_of_the_environment_belongs_to_its_app(tmp_path: Path) -> None:
    async with receiver() as target:
        file = tmp_path / "apps.toml"
        blocks = [f'[[apps]]\nid = "{app.id}"\nkey = "{app.key}"\nsecret = "{app.secret}"\n' for app in (ONE, TWO)]
        file.write_text("".join(blocks))
        async with realtime_server(reverb_apps_file=file, reverb_webhook_url=target.url) as server:
            async with connected(server.port, key=TWO.key) as ben, connected(server.port) as ana:
                await ben.subscribe("two")
                await ana.subscribe("one")
                await eventually(lambda: len(target.events) == 1)

    assert target.events[0]["channel"] == "one"


@pytest.mark.parametrize("secret", ["app-secret", "brief", "x" * 19])
async def test_every_app_needs_a_long_secret_unless_on_loopback(tmp_path: Path, secret: str) -> None:
    file = tmp_path / "apps.toml"
    file.write_text(f'[[apps]]\nid = "5"\nkey = "k"\nsecret = "{secret}"\n')
    manager = apps_for(ServerSettings(_env_file=None, reverb_apps_file=file, reverb_server_host="0.0.0.0"))

    with pytest.raises(AppsInvalid, match="app '5': its secret is a sample value or shorter than 20") as raised:
        await manager.start(lambda _: None)
    assert secret not in str(raised.value)


def test_an_invalid_change_keeps_the_previous_apps() -> None:
    table = AppTable()
    table.replace([ONE, TWO])
    with pytest.raises(AppsInvalid):
        table.replace([ONE, ONE])
    assert list(table.all()) == [ONE, TWO]


# Rates and origins


async def test_the_rate_counts_each_channel_and_each_event_of_a_batch() -> None:
    limited = replace(ONE, publishes_per_s=6)
    async with two_apps(limited, TWO) as (server, _):
        event = {"name": "e", "data": "x"}
        batch = json.dumps({"batch": [event | {"channel": "a"}] * 3}).encode()
        wide = json.dumps(event | {"channels": ["a", "b", "c"]}).encode()
        answers = [
            await call(server.port, "POST", "/apps/1001/batch_events", batch),
            await call(server.port, "POST", "/apps/1001/events", wide),
            await call(server.port, "POST", "/apps/1001/batch_events", batch),
        ]

        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].headers["Retry-After"] == "1"
        assert "More than 6 events a second" in answers[2].json()["error"]
        assert await publish(server, TWO, "chat") == 200
        assert (await call(server.port, "GET", "/apps/1001/channels")).status_code == 200


async def test_a_call_above_the_rate_passes_once_and_is_charged_in_full() -> None:
    async with two_apps(replace(ONE, publishes_per_s=1)) as (server, _):
        wide = json.dumps({"name": "e", "data": "x", "channels": [str(n) for n in range(50)]}).encode()

        assert (await call(server.port, "POST", "/apps/1001/events", wide)).status_code == 200
        refused = await call(server.port, "POST", "/apps/1001/events", wide)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "50")


ORIGIN = "https://page.test"
LISTED = replace(ONE, cors_origins=(ORIGIN,))


async def preflight(server: RealtimeServer, origin: str, path: str = "/apps/1001/events") -> Any:
    import httpx2

    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    async with httpx2.AsyncClient(verify=False, trust_env=False) as client:
        return await client.options(f"http://127.0.0.1:{server.port}{path}", headers=headers)


@pytest.mark.parametrize(
    ("app", "origin", "allowed"),
    [
        (LISTED, ORIGIN, ORIGIN),
        (LISTED, "https://page.test.evil.test", None),
        (LISTED, "http://page.test", None),
        (LISTED, "https://page.test:444", None),
        (LISTED, "null", None),
        (replace(ONE, cors_origins=("*",)), ORIGIN, "*"),
        (ONE, ORIGIN, None),
    ],
)
async def test_pages_of_listed_origins_may_call(app: App, origin: str, allowed: str | None) -> None:
    async with two_apps(app) as (server, _):
        asked = await preflight(server, origin)
        called = await call(server.port, "GET", "/apps/1001/channels", headers={"Origin": origin})
        wrong = await call(server.port, "GET", "/apps/1001/channels", secret="x", headers={"Origin": origin})

        assert asked.status_code == (403 if allowed is None else 200)
        assert (called.status_code, wrong.status_code) == (200, 401)
        for answer in (asked, called, wrong):
            assert answer.headers.get("access-control-allow-origin") == allowed
            assert "access-control-allow-credentials" not in answer.headers
        if allowed is not None:
            assert asked.headers["access-control-allow-methods"] == "GET, POST"
            assert called.headers["vary"] == "Origin"


@pytest.mark.parametrize("path", ["/apps/9/events", "/apps/1001/nothing", "/up", "/apps", "/"])
async def test_a_preflight_of_another_origin_is_refused(path: str) -> None:
    async with two_apps(LISTED) as (server, _):
        assert (await preflight(server, ORIGIN, path)).status_code in (404, 405)


def test_every_key_of_an_app_is_documented() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "howto" / "apps.md").read_text()

    assert [field.name for field in fields(App) if f"| `{field.name}` |" not in guide] == []
    assert [field.name for field in fields(WebhookTarget) if f"`{field.name}`" not in guide] == []
