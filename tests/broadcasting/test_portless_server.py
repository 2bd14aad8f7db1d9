"""`smartlink.testing`: a whole realtime server without a port."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from kit.waiting import LIMIT_S
from smartlink.broadcasting import (
    Broadcaster,
    Broadcasting,
    BroadcastNow,
    BroadcastSettings,
    EncryptedPrivateChannel,
    PresenceChannel,
    PrivateChannel,
    SyncBroadcaster,
)
from smartlink.client import SubscriptionFailed
from smartlink.testing import realtime_server


class Said(BroadcastNow):
    text: str
    channel = PrivateChannel("chat")


class Sealed(BroadcastNow):
    text: str
    channel = EncryptedPrivateChannel("chat")


def settings(**given: Any) -> BroadcastSettings:
    return BroadcastSettings(_env_file=None, **given)


def chat(**given: Any) -> Broadcasting:
    broadcasting = Broadcasting(settings(**given))

    @broadcasting.private("chat")
    def may_listen(user: int) -> bool:
        return user == 7

    @broadcasting.presence("room")
    def may_enter(user: int) -> dict[str, str]:
        return {"name": f"User {user}"}

    return broadcasting


@pytest.mark.parametrize("driver", ["reverb", "null", "pusher"])
async def test_what_is_sent_async_and_sync_arrives_whatever_the_driver(driver: str) -> None:
    own = {"pusher_app_id": "7", "pusher_app_key": "key", "pusher_app_secret": "s"} if driver == "pusher" else {}
    broadcasting = chat(driver=driver, **own)

    with realtime_server(broadcasting) as realtime:
        async with realtime.client_of(7) as client:
            stream = (await client.subscribe("private-chat")).events(Said)
            assert await broadcasting.send_now(Said("one"))
            assert await asyncio.to_thread(broadcasting.send_now_sync, Said("two"))

            assert [await stream.get(LIMIT_S), await stream.get(LIMIT_S)] == [Said("one"), Said("two")]
        socket = Path(realtime.unix_socket)
        assert socket.is_socket()  # noqa: ASYNC240
    assert not socket.exists()  # noqa: ASYNC240


def test_plain_broadcasters_reach_it_too() -> None:
    for broadcaster in (SyncBroadcaster.from_settings(settings()), Broadcaster.from_settings(settings())):
        with realtime_server(broadcaster) as realtime, realtime.sync_client() as client:
            stream = client.subscribe("private-chat", LIMIT_S).events(Said)
            if isinstance(broadcaster, SyncBroadcaster):
                with broadcaster:
                    broadcaster.send(Said("hello"))
            else:
                asyncio.run(broadcaster.send(Said("hello")))

            assert stream.get(LIMIT_S) == Said("hello")


async def test_rules_decide_and_sign_in_works() -> None:
    with realtime_server(chat()) as realtime:
        async with realtime.client_of(8) as other, realtime.client_of(None) as nobody:
            with pytest.raises(SubscriptionFailed, match="private-chat"):
                await other.subscribe("private-chat")
            with pytest.raises(SubscriptionFailed, match="Unauthenticated"):
                await nobody.subscribe("private-chat")
            room = await other.presence(str(PresenceChannel("room")))

            assert room.me is not None
            assert room.me.info == {"name": "User 8"}
            assert (await other.sign_in()).id == "8"


async def test_a_user_can_be_revoked() -> None:
    broadcasting = chat()
    with realtime_server(broadcasting) as realtime:
        async with realtime.client_of(7) as client:
            stream = (await client.subscribe("private-chat")).events(Said)
            await broadcasting.revoke(7, PrivateChannel("chat"), reason="over")

            with pytest.raises(SubscriptionFailed, match="over"):
                await stream.get(LIMIT_S)


async def test_encrypted_channels_are_sealed() -> None:
    broadcasting = chat(encryption_master_key=base64.b64encode(b"k" * 32).decode())
    with realtime_server(broadcasting) as realtime:
        async with realtime.client_of(7) as client:
            stream = (await client.subscribe("private-encrypted-chat")).events(Sealed)
            assert await broadcasting.send_now(Sealed("secret"))

            assert await stream.get(LIMIT_S) == Sealed("secret")


async def test_the_environment_changes_nothing_but_arguments_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERB_APP_MAX_CHANNELS", "1")
    monkeypatch.setenv("REVERB_SCALING_ENABLED", "true")
    with realtime_server() as realtime:
        async with realtime.client() as client:
            await client.subscribe("one")
            await client.subscribe("two")
    with realtime_server(reverb_app_max_channels=1) as realtime:
        async with realtime.client() as client:
            await client.subscribe("one")
            with pytest.raises(SubscriptionFailed):
                await client.subscribe("two")


def test_wrong_arguments_are_refused_and_leave_nothing_running() -> None:
    with pytest.raises(TypeError, match="Broadcasting or a broadcaster"):
        with realtime_server("myapp:broadcasting"):  # type: ignore[arg-type]
            pass
    with realtime_server() as realtime, pytest.raises(TypeError, match="knows of none"):
        realtime.client_of(7)


def test_after_it_events_go_where_they_went() -> None:
    broadcasting = chat(driver="null")
    with realtime_server(broadcasting):
        pass

    assert broadcasting.send_now_sync(Said("nowhere"))
