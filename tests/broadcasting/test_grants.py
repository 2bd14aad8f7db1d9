"""Rules that answer with a Grant: the subscription ends at a time, on private and presence channels."""

from __future__ import annotations

import datetime as dt
import json
import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from broadcasting.front_door import User, follow, settings_for
from kit.client import connected
from kit.realtime import realtime_server
from smartlink.broadcasting import (
    BroadcastConfigError,
    Broadcasting,
    BroadcastSettings,
    ChannelAuthorizer,
    ChannelRules,
    Grant,
    Member,
)
from smartlink.broadcasting.authorizer import AuthRequest
from smartlink.broadcasting.encryption import ChannelEncryption
from smartlink.protocol.signing import sign_channel

SOCKET = "123.456"
MASTER_KEY = "A" * 43 + "="
IN_AN_HOUR = dt.timedelta(hours=1)


def rules_with(answer: object) -> ChannelRules:
    rules = ChannelRules()

    @rules.any("room")
    async def room(user: int) -> Any:
        return answer

    return rules


async def signed(answer: object, channel: str, **options: Any) -> dict[str, Any]:
    """What the endpoint answers where a rule answers so."""
    authorizer: ChannelAuthorizer[int] = ChannelAuthorizer(
        rules_with(answer), key="k", secret="s", member_of=lambda user: Member(user, {"name": "Ána"}), **options
    )
    body = json.dumps({"socket_id": SOCKET, "channel_name": channel}).encode()
    request = AuthRequest("POST", "/broadcasting/auth", lambda: body, "application/json")
    answered = await authorizer.answer(request, {"": lambda: 7})
    assert answered.status == 200
    said: dict[str, Any] = json.loads(answered.body)
    assert said["auth"] == sign_channel("k", "s", SOCKET, channel, said.get("channel_data"))
    return said


@pytest.mark.parametrize(
    "grant",
    [
        lambda: Grant(expires_in=IN_AN_HOUR),
        lambda: Grant(expires_in=3600),
        lambda: Grant(expires_at=dt.datetime.now(dt.UTC) + IN_AN_HOUR),
        lambda: Grant(expires_at=time.time() + 3600),
    ],
    ids=["timedelta", "seconds", "datetime", "time"],
)
@pytest.mark.parametrize("channel", ["private-room", "presence-room", "private-encrypted-room", "private-cache-room"])
async def test_the_end_of_a_grant_is_signed(grant: Callable[[], Grant], channel: str) -> None:
    before = time.time()
    said = json.loads((await signed(grant(), channel, encryption=ChannelEncryption(MASTER_KEY)))["channel_data"])

    assert before - 0.001 <= said.pop("expires_at") - 3600 <= time.time() + 0.001
    more = {"user_info": {"name": "Ána"}} if channel.startswith("presence") else {}
    assert said == {"user_id": "7"} | more


async def test_a_duration_counts_from_each_decision() -> None:
    grant = Grant(expires_in=60)

    assert grant.ends_at(1000.0) == 1060.0
    assert grant.ends_at(2000.0) == 2060.0
    assert Grant().ends_at(1000.0) is None


async def test_a_private_channel_that_names_nobody_carries_the_end_alone() -> None:
    said = await signed(Grant(expires_at=4e9), "private-room", name_user_on_private=False)

    assert said["channel_data"] == '{"expires_at":4000000000.0}'


@pytest.mark.parametrize(
    ("grant", "member"),
    [
        (Grant(expires_in=9, info={"seat": 3}), {"user_id": "7", "user_info": {"seat": 3}}),
        (Grant(expires_in=9, member=Member("guest", {"seat": 4})), {"user_id": "guest", "user_info": {"seat": 4}}),
    ],
)
async def test_a_grant_may_describe_the_member(grant: Grant, member: dict[str, Any]) -> None:
    said = json.loads((await signed(grant, "presence-room"))["channel_data"])

    assert said.pop("expires_at")
    assert said == member


async def test_a_grant_without_an_end_allows_like_true() -> None:
    assert await signed(Grant(), "private-room") == await signed(True, "private-room")


@pytest.mark.parametrize("channel", ["private-room", "presence-room"])
async def test_a_grant_that_has_ended_denies_and_says_why(channel: str) -> None:
    decision = await rules_with(Grant(expires_at=time.time() - 1)).decide(7, channel)

    assert (decision.allowed, decision.why) == (False, "the rule's Grant has expired")


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"expires_in": 0}, ValueError, "has passed already"),
        ({"expires_in": dt.timedelta(seconds=-1)}, ValueError, "has passed already"),
        ({"expires_in": math.nan}, ValueError, "not a number of seconds"),
        ({"expires_in": math.inf}, ValueError, "not a number of seconds"),
        ({"expires_at": 1e13}, ValueError, "not a number of seconds"),
        ({"expires_in": True}, TypeError, "expires_in is a timedelta or a number of seconds, not True"),
        ({"expires_in": "1h"}, TypeError, "expires_in is a timedelta"),
        ({"expires_in": dt.datetime(2030, 1, 1, tzinfo=dt.UTC)}, TypeError, "expires_in is a timedelta"),
        ({"expires_at": IN_AN_HOUR}, TypeError, "expires_at is a datetime"),
        ({"expires_at": dt.datetime(2030, 1, 1)}, ValueError, "no time zone"),  # noqa: DTZ001 - the mistake
        ({"expires_in": 1, "expires_at": 4e9}, ValueError, "one end"),
        ({"info": {}, "member": Member(1)}, ValueError, "put the info into the Member"),
        ({"info": "Ana"}, TypeError, "info is a mapping, not str"),
        ({"member": 7}, TypeError, "member is a Member, not int"),
    ],
)
def test_a_grant_that_makes_no_sense_is_refused_where_it_is_made(
    fields: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        Grant(**fields)


@pytest.mark.parametrize("driver", [{"driver": "pusher", "pusher_app_key": "k", "pusher_app_secret": "s"},
                                    {"driver": "ably", "ably_key": "app.key:secret"}], ids=["pusher", "ably"])  # fmt: skip
async def test_a_service_that_cannot_end_subscriptions_says_so(driver: dict[str, Any]) -> None:
    settings = BroadcastSettings(_env_file=None, **driver)
    body = json.dumps({"socket_id": SOCKET, "channel_name": "private-room"}).encode()
    request = AuthRequest("POST", "/broadcasting/auth", lambda: body, "application/json")

    async def ask(answer: Grant) -> int:
        authorizer = ChannelAuthorizer[int].from_settings(rules_with(answer), lambda user: Member(7), settings)
        return (await authorizer.answer(request, {"": lambda: 7})).status

    with pytest.raises(BroadcastConfigError, match=r"private-room.*only a SmartLink server ends them"):
        await ask(Grant(expires_in=60))
    assert await ask(Grant()) == 200


@pytest.mark.parametrize("channel", ["private-room", "presence-room"])
async def test_the_server_ends_the_subscription_with_its_grant(channel: str) -> None:
    async with realtime_server() as server, connected(server.port) as browser:
        broadcasting = Broadcasting(settings_for(server.port))
        broadcasting.rules.any("room")(_for_a_moment)

        async def ask(path: str, form: Any, user: str) -> tuple[int, Any]:
            body = json.dumps(form).encode()
            request = AuthRequest("POST", path, lambda: body, "application/json")
            answered = await broadcasting.authorizer.answer(request, {"": lambda: User(int(user))})
            return answered.status, json.loads(answered.body)

        await follow(browser, ask, channel, "7")
        ended = await browser.expect("pusher:subscription_error")

    assert ended["channel"] == channel
    assert (ended["data"]["type"], ended["data"]["status"]) == ("Expired", 401)


def _for_a_moment(user: User) -> Grant:
    return Grant(expires_in=dt.timedelta(milliseconds=300))
