"""Webhooks of a server, over sockets: who gets which events."""

from __future__ import annotations

from pathlib import Path

from kit.client import connected
from kit.realtime import SECRET, realtime_server
from kit.receiver import receiver
from kit.waiting import eventually
from server.webhook_sink import ANA, CHANNEL_EVENTS, MEMBER_EVENTS, app_with
from smartlink.server.apps.base import App, WebhookTarget
from smartlink.server.apps.static import StaticApps


async def test_first_and_last_are_posted_and_retried_until_accepted() -> None:
    async with receiver(500, 503) as target:
        async with realtime_server(reverb_webhook_url=target.url, reverb_webhook_grace=0.2) as server:
            async with connected(server.port) as ana, connected(server.port) as tab:
                await ana.subscribe("presence-chat", ANA)
                await tab.subscribe("presence-chat", ANA)
            await eventually(lambda: len(target.events) == 4)
            await eventually(lambda: server.metrics.webhooks_sent == 4)
            assert server.metrics.webhooks_retried >= 2

    assert [name for name in target.names if name in CHANNEL_EVENTS] == CHANNEL_EVENTS
    assert [name for name in target.names if name in MEMBER_EVENTS] == MEMBER_EVENTS
    assert {"name": "member_added", "channel": "presence-chat", "user_id": "1"} in target.events


async def test_a_page_reload_posts_nothing() -> None:
    async with receiver() as target:
        async with realtime_server(reverb_webhook_url=target.url, reverb_webhook_grace=5) as server:
            for _ in range(3):
                async with connected(server.port) as ana:
                    await ana.subscribe("presence-chat", ANA)
                await eventually(lambda: len(server.node.hub) == 0)
            async with connected(server.port) as ana:
                await ana.subscribe("presence-chat", ANA)
                await eventually(lambda: len(target.events) >= 2)

                assert sorted(target.names) == ["channel_occupied", "member_added"]


async def test_apps_do_not_get_each_others_webhooks() -> None:
    secrets = {"app-key": SECRET, "key-2": "secret-2"}
    async with receiver(secrets=secrets) as one, receiver(secrets=secrets) as two:
        apps = StaticApps(
            [
                App("1001", "app-key", SECRET, webhooks=(WebhookTarget(one.url),)),
                App("2", "key-2", "secret-2", webhooks=(WebhookTarget(two.url),)),
            ]
        )
        async with realtime_server(apps) as server:
            async with connected(server.port) as ana, connected(server.port, key="key-2") as ben:
                await ana.subscribe("chat")
                await ben.subscribe("other")
                await ben.subscribe("chat")
                await eventually(lambda: len(one.events) == 1 and len(two.events) == 2)

    assert {post["key"] for post in one.posts} == {"app-key"}
    assert {post["key"] for post in two.posts} == {"key-2"}
    assert [event["channel"] for event in two.events] == ["other", "chat"]


async def test_an_address_gets_only_the_events_it_selected() -> None:
    async with receiver() as all_of_it, receiver() as few:
        hooks = (
            WebhookTarget(all_of_it.url),
            WebhookTarget(few.url, ("member_added", "channel_vacated"), ("presence-room-",)),
        )
        async with realtime_server(StaticApps([app_with(*hooks)]), reverb_webhook_grace=0.1) as server:
            async with connected(server.port) as ana:
                await ana.subscribe("presence-chat", ANA)
                await ana.subscribe("presence-room-1", ANA)
                await ana.subscribe("public")
            await eventually(lambda: len(all_of_it.events) == 10 and len(few.events) == 2)

    assert few.events == [
        {"name": "member_added", "channel": "presence-room-1", "user_id": "1"},
        {"name": "channel_vacated", "channel": "presence-room-1"},
    ]


async def test_without_webhooks_no_file_is_created(tmp_path: Path) -> None:
    file = tmp_path / "var" / "webhooks.db"
    async with realtime_server(reverb_webhook_queue=f"sqlite:///{file}") as server, connected(server.port) as ana:
        await ana.subscribe("presence-chat", ANA)
    assert not file.parent.exists()
