"""Revoking channels: who loses them leaves at once and stays connected; drivers that cannot do it say so."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from broadcasting.front_door import User, follow, settings_for
from kit.client import Client, connected
from kit.ports import free_port
from kit.pusher_service import pusher_service
from kit.realtime import realtime_server
from smartlink.broadcasting import (
    BroadcastConfigError,
    Broadcaster,
    Broadcasting,
    BroadcastRefused,
    BroadcastSettings,
    BroadcastUnavailable,
    Channel,
    InvalidChannel,
    PresenceChannel,
    PrivateChannel,
    Revocation,
    SyncBroadcaster,
)
from smartlink.broadcasting.authorizer import AuthRequest
from smartlink.broadcasting.drivers.pusher import PusherDriver
from smartlink.broadcasting.testing import FakeBroadcaster, fake_broadcasts

ROOM, HALL = PrivateChannel("room"), PresenceChannel("hall")


class Application:
    """Rules that let everybody in."""

    def __init__(self, port: int) -> None:
        self.broadcasting = Broadcasting(settings_for(port))
        self.broadcasting.rules.any("{name}")(_yes)

    async def ask(self, path: str, form: Mapping[str, str], user: str) -> tuple[int, Any]:
        body = json.dumps(dict(form)).encode()
        request = AuthRequest("POST", path, lambda: body, "application/json")
        answered = await self.broadcasting.authorizer.answer(request, {"": lambda: User(int(user))})
        return answered.status, json.loads(answered.body)

    async def follow(self, browser: Client, channel: Channel, user: int) -> None:
        await follow(browser, self.ask, str(channel), str(user))


def _yes(user: User, name: str) -> bool:
    return True


async def lost(browser: Client) -> tuple[str, str, int, str]:
    told = await browser.expect("pusher:subscription_error")
    return told["channel"], told["data"]["type"], told["data"]["status"], told["data"]["error"]


async def test_a_user_loses_one_channel_and_keeps_the_rest() -> None:
    async with realtime_server() as server, connected(server.port) as ana, connected(server.port) as ben:
        app = Application(server.port)
        for browser, user in ((ana, 7), (ben, 8)):
            await app.follow(browser, ROOM, user)
        await app.follow(ana, PrivateChannel("other"), 7)

        await app.broadcasting.revoke(User(7), ROOM, reason="The order was cancelled")

        assert await lost(ana) == ("private-room", "Revoked", 403, "The order was cancelled")
        for number, channel in enumerate((ROOM, PrivateChannel("other"))):
            await app.broadcasting.broadcaster.on(channel).as_("said").with_({"n": number}).send()
        assert (await ana.expect("said"))["channel"] == "private-other"
        await ben.expect("said")
        async with connected(server.port) as again:
            await app.follow(again, ROOM, 7)  # the rule still lets the user in
        await app.broadcasting.aclose()


async def test_everyone_loses_a_channel_and_a_user_loses_all() -> None:
    async with realtime_server() as server, connected(server.port) as ana, connected(server.port) as ben:
        app = Application(server.port)
        for browser, user in ((ana, 7), (ben, 8)):
            await app.follow(browser, ROOM, user)
        await app.follow(ana, PrivateChannel("other"), 7)
        await app.follow(ana, HALL, 7)

        await app.broadcasting.revoke("private-room", everyone=True)
        assert {(await lost(browser))[0] for browser in (ana, ben)} == {"private-room"}

        await app.broadcasting.revoke(User(7), reason="Blocked")
        assert {await lost(ana) for _ in range(2)} == {
            ("private-other", "Revoked", 403, "Blocked"),
            ("presence-hall", "Revoked", 403, "Blocked"),
        }
        assert await ben.is_quiet()
        await app.broadcasting.aclose()


async def test_an_id_with_any_characters_reaches_the_server() -> None:
    strange = "a/b c?d#é%2F"
    async with realtime_server() as server, connected(server.port) as browser:
        broadcasting = Broadcasting(settings_for(server.port))
        broadcasting.rules.any("{name}")(lambda user, name: True)
        form = json.dumps({"socket_id": browser.socket_id, "channel_name": "private-room"}).encode()
        request = AuthRequest("POST", "/broadcasting/auth", lambda: form, "application/json")
        answered = await broadcasting.authorizer.answer(request, {"": lambda: strange})
        browser.send("pusher:subscribe", {"channel": "private-room"} | json.loads(answered.body))
        await browser.expect("pusher_internal:subscription_succeeded")

        await broadcasting.revoke(strange)

        assert (await lost(browser))[:2] == ("private-room", "Revoked")
        await broadcasting.aclose()


async def test_synchronous_code_revokes_too() -> None:
    async with realtime_server() as server, connected(server.port) as browser:
        app = Application(server.port)
        await app.follow(browser, ROOM, 7)
        await app.follow(browser, HALL, 7)

        await asyncio.to_thread(app.broadcasting.revoke_sync, User(7), ROOM)
        assert (await lost(browser))[0] == "private-room"

        with SyncBroadcaster.from_settings(settings_for(server.port)) as broadcaster:
            await asyncio.to_thread(broadcaster.revoke, HALL, everyone=True)
        assert (await lost(browser))[0] == "presence-hall"
        with pytest.raises(RuntimeError, match="block the running event loop"):
            app.broadcasting.revoke_sync(User(7))
        await asyncio.to_thread(app.broadcasting.close)


async def test_a_server_that_cannot_be_reached_is_an_error() -> None:
    broadcasting = Broadcasting(settings_for(free_port()))

    with pytest.raises(BroadcastUnavailable):
        await broadcasting.revoke(User(7))
    await broadcasting.aclose()


@pytest.mark.parametrize(
    "settings",
    [
        {"driver": "pusher", "pusher_app_id": "1", "pusher_app_key": "k", "pusher_app_secret": "s"},
        {"driver": "ably", "ably_key": "app.key:secret"},
        {"driver": "redis"},
    ],
    ids=lambda settings: str(settings["driver"]),
)
async def test_a_driver_that_cannot_revoke_says_so_at_the_call(settings: dict[str, Any]) -> None:
    async with realtime_server() as server, connected(server.port) as browser:
        broadcasting = Broadcasting(BroadcastSettings(_env_file=None, reverb_port=server.port, **settings))

        with pytest.raises(BroadcastConfigError, match=f"driver {settings['driver']} does not support revoking"):
            await broadcasting.revoke(User(7), ROOM)

        # Another connection may.
        app = Application(server.port)
        await app.follow(browser, ROOM, 7)
        await broadcasting.revoke(User(7), ROOM, via="reverb")
        assert (await lost(browser))[0] == "private-room"
        for each in (broadcasting, app.broadcasting):
            await each.aclose()


async def test_a_driver_of_ones_own_cannot_revoke_unless_it_has_the_method() -> None:
    class Plain:
        name = "plain"

        async def send(self, envelopes: Any, *, idempotency_key: str | None = None) -> None: ...
        async def aclose(self) -> None: ...

    class Revoking(Plain):
        def __init__(self) -> None:
            self.revoked: list[Revocation] = []

        async def revoke(self, revocation: Revocation) -> None:
            self.revoked.append(revocation)

    own = Revoking()
    with pytest.raises(BroadcastConfigError, match="driver plain does not support revoking"):
        await Broadcaster(Plain()).revoke(7)
    await Broadcaster(own).revoke(7, ROOM, reason="why")
    assert own.revoked == [Revocation("private-room", "7", "why")]


async def test_a_server_of_another_kind_is_not_asked_to_revoke() -> None:
    async with pusher_service() as service:
        driver = PusherDriver(
            service.app_id, service.key, service.secret, host="127.0.0.1", port=service.port, scheme="http",
            is_smartlink=True, name="reverb",
        )  # fmt: skip

        with pytest.raises(BroadcastRefused, match="cannot end subscriptions: only a SmartLink server can"):
            await driver.revoke(Revocation(user_id="7"))

        assert service.calls == []
        await driver.aclose()


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda b: b.revoke(ROOM), TypeError, "revoke(PrivateChannel('room'), everyone=True)"),
        (lambda b: b.revoke(7, everyone=True), TypeError, "everyone=True takes the channel, and no user"),
        (lambda b: b.revoke(ROOM, ROOM, everyone=True), TypeError, "everyone=True takes the channel, and no user"),
        (lambda b: b.revoke(User(7)), TypeError, "takes a user's id"),
        (lambda b: b.revoke(True), TypeError, "takes a user's id"),
        (lambda b: b.revoke(""), ValueError, "not a user id"),
        (lambda b: b.revoke("x\n"), ValueError, "not a user id"),
        (lambda b: b.revoke(7, Channel("news")), InvalidChannel, "is public"),
        (lambda b: b.revoke(7, "news"), InvalidChannel, "is public"),
        (lambda b: b.revoke(7, "private-ä"), InvalidChannel, "ASCII letters"),
        (lambda b: b.revoke(7, 8), InvalidChannel, "8 is not a channel"),
        (lambda b: b.revoke(7, PrivateChannel("orders.{id}")), InvalidChannel, "has placeholders"),
        (lambda b: b.revoke(7, reason=""), ValueError, "1 to 200 characters"),
        (lambda b: b.revoke(7, reason="x" * 201), ValueError, "1 to 200 characters"),
        (lambda b: b.revoke(7, via="nowhere"), BroadcastConfigError, "nowhere"),
    ],
)
async def test_a_call_that_makes_no_sense_is_refused(call: Any, error: type[Exception], said: str) -> None:
    with fake_broadcasts(broadcaster := Broadcaster.from_settings(settings_for(1))) as broadcasts:
        if "nowhere" not in said:
            with pytest.raises(error, match=re.escape(said)):
                await call(broadcaster)
        broadcasts.assert_nothing_revoked()
    with pytest.raises(error, match=re.escape(said)):
        await call(broadcaster)


async def test_fakes_keep_revocations() -> None:
    broadcasting = Broadcasting(settings_for(1))
    with fake_broadcasts(broadcasting) as broadcasts:
        await broadcasting.revoke(User(7), ROOM, reason="Lost")
        await broadcasting.revoke(User(8))
        await asyncio.to_thread(broadcasting.revoke_sync, HALL, everyone=True)

        broadcasts.assert_revoked(7, ROOM)
        broadcasts.assert_revoked(7, "private-room", reason="Lost")
        broadcasts.assert_revoked(8)
        broadcasts.assert_revoked(HALL, everyone=True)
        for arguments, options in (
            ((7,), {}),
            ((8, ROOM), {}),
            ((7, ROOM), {"reason": "Another"}),
            ((ROOM,), {"everyone": True}),
        ):
            with pytest.raises(
                AssertionError, match="user 7 from private-room, because 'Lost'; user 8 from all channels"
            ):
                broadcasts.assert_revoked(*arguments, **options)
        with pytest.raises(AssertionError, match="everyone from presence-hall"):
            broadcasts.assert_nothing_revoked()
    await asyncio.to_thread(broadcasting.close)


async def test_a_fake_broadcaster_keeps_them_too_and_can_fail() -> None:
    broadcaster = FakeBroadcaster()
    broadcaster.assert_nothing_revoked()
    await broadcaster.revoke(7)
    broadcaster.assert_revoked(7)

    broadcaster.fake_driver.fails_with = BroadcastUnavailable("away")
    with pytest.raises(BroadcastUnavailable):
        await broadcaster.revoke(8)
    assert [str(each) for each in broadcaster.revoked] == ["user 7 from all channels"]
