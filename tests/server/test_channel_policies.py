"""Policies by channel pattern, and the history that they keep for servers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kit.client import connected
from kit.realtime import APP_ID, an_app, call, realtime_server
from smartlink.server.apps.base import App, AppsInvalid
from smartlink.server.apps.description import app_from_description, policies_from_json
from smartlink.server.apps.patterns import covers, matches
from smartlink.server.apps.policies import DEFAULT_POLICY, ChannelPolicy, PolicyTable, describe, never_holds
from smartlink.server.apps.static import StaticApps

KEPT = an_app(channels=(ChannelPolicy("prices.*", history=3), ChannelPolicy("cache-**", history=2)))


async def publish(port: int, number: int, channel: str) -> None:
    body = json.dumps({"name": "news", "channel": channel, "data": str(number)}).encode()
    assert (await call(port, "POST", f"/apps/{APP_ID}/events", body)).status_code == 200


async def history(port: int, channel: str, **params: Any) -> dict[str, Any]:
    parameters = {name: str(value) for name, value in params.items()}
    answer = await call(port, "GET", f"/apps/{APP_ID}/channels/{channel}/events", params=parameters)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("pattern", "channel", "is_match"),
    [
        ("prices.*", "prices.eur", True),
        ("prices.*", "prices.eur.usd", False),
        ("prices.**", "prices.eur.usd", True),
        ("prices.*", "private-prices.eur", False),
        ("**", "anything.at-all", True),
        ("*", "one.two", False),
        ("private-*.1", "private-orders.1", True),
        ("a.b", "aXb", False),
        ("prices.*", "prices.", True),
    ],
)
def test_a_pattern_matches_whole_names_by_segments(pattern: str, channel: str, *, is_match: bool) -> None:
    assert matches(pattern, channel) is is_match


@pytest.mark.parametrize(
    ("earlier", "pattern", "is_covered"),
    [
        (["**"], "a.*", True),
        (["a.*"], "a.*", True),
        (["a.*"], "a.b", True),
        (["a.*"], "a.**", False),
        (["a.**"], "a.*", True),
        (["*"], "a*b", True),
        (["*"], "a.b", False),
        (["**.b"], "a.*.b", True),
        (["*.*"], "**", False),
        (["a*", "b*"], "b", True),
        (["*", "**.**"], "**", True),
        (["*a*b*"], "*b*a*", False),
        (["private-*"], "private-encrypted-*", True),
        ([], "a", False),
        (["*a" * 60], "*b" * 60, False),
    ],
)
def test_a_pattern_is_covered_if_earlier_ones_match_all_its_names(
    earlier: list[str], pattern: str, *, is_covered: bool
) -> None:
    assert covers(earlier, pattern) is is_covered


def test_a_policy_that_can_never_hold_is_told_why() -> None:
    policies = [ChannelPolicy(pattern) for pattern in ("a.*", "b*", "a.b", "c", "bc", "**", "d")]
    assert [never_holds(policies, number) for number in range(len(policies))] == [
        None,
        None,
        "never holds: a.* comes first and matches the same channels",
        None,
        "never holds: b* comes first and matches the same channels",
        None,
        "never holds: ** comes first and matches the same channels",
    ]
    halves = [ChannelPolicy(pattern) for pattern in ("*", "**.**", "a**")]
    assert never_holds(halves, 2) == "never holds: the patterns before it match the same channels"


def test_a_policy_is_said_in_one_line() -> None:
    policy = ChannelPolicy(
        "**", history=5, conflate_ms=250, receipts=True, client_events="all", client_events_per_s=3, max_subscribers=9,
        max_event_bytes=100, presence_grace_s=4, subscription_count=False, webhooks=False,
    )  # fmt: skip
    assert describe(policy) == (
        "keeps 5 events for 120 s, at most 1048576 bytes, sends each subscriber at most one event per name in 250 ms, "
        "reports who has received an event, takes client events, on public channels too, takes 3 client events a "
        "second from each connection, has at most 9 subscribers, takes events of at most 100 bytes, keeps lost members "
        "for 4 s, sends no subscription counts, sends no webhooks"
    )
    assert describe(DEFAULT_POLICY) == "changes nothing"


def test_the_first_policy_that_matches_holds() -> None:
    table = PolicyTable(
        StaticApps([an_app(channels=(ChannelPolicy("a.*", history=1), ChannelPolicy("**", history=2)))])
    )
    assert [table.of(APP_ID, channel).history for channel in ("a.b", "a.b.c", "a.b")] == [1, 2, 1]


def test_no_policy_holds_on_the_servers_own_channels_or_for_unknown_apps() -> None:
    table = PolicyTable(StaticApps([an_app(channels=(ChannelPolicy("**", history=2),))]))
    assert table.of(APP_ID, "#server-to-user-7") is DEFAULT_POLICY
    assert table.of("another", "a.b") is DEFAULT_POLICY


def test_policies_are_read_from_a_table_and_from_a_setting() -> None:
    policy = {"pattern": "private-prices.*", "history": 200, "conflate_ms": 250, "client_events": "none"}
    app = app_from_description({"id": "1", "key": "k", "secret": "s", "channels": [policy]}, "app")
    assert app.channels == (ChannelPolicy("private-prices.*", history=200, conflate_ms=250, client_events="none"),)
    assert policies_from_json(json.dumps([policy])) == app.channels


@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        ({}, "pattern: is required"),
        ({"pattern": "a b"}, "is not a pattern"),
        ({"pattern": "a", "history": 0}, "history: must be a whole number"),
        ({"pattern": "a", "client_events": "some"}, "must be none, members or all"),
        ({"pattern": "a", "histroy": 5}, "did you mean 'history'?"),
        ({"pattern": "a", "presence_grace_s": -1}, "presence_grace_s"),
        ("a", "must be a table"),
    ],
)
def test_a_policy_that_is_wrong_is_named(policy: Any, fault: str) -> None:
    with pytest.raises(AppsInvalid, match="number 1") as error:
        app_from_description({"id": "1", "key": "k", "secret": "s", "channels": [policy]}, "app")
    assert fault in str(error.value)
    with pytest.raises(AppsInvalid, match="REVERB_APP_CHANNELS"):
        policies_from_json(json.dumps([policy]))


async def test_servers_read_what_a_channel_keeps_from_any_position() -> None:
    async with realtime_server(KEPT) as server:
        for number in range(5):
            await publish(server.port, number, "prices.eur")
        everything = await history(server.port, "prices.eur")
        assert [(event["name"], event["data"]) for event in everything["events"]] == [
            ("news", "2"),
            ("news", "3"),
            ("news", "4"),
        ]
        assert everything["complete"] is False
        positions = [event["position"] for event in everything["events"]]
        assert await history(server.port, "prices.eur", after=positions[0]) == {
            "events": everything["events"][1:],
            "complete": True,
        }
        assert await history(server.port, "prices.eur", after=positions[2]) == {"events": [], "complete": True}
        older = await history(server.port, "prices.eur", after=positions[0] - 2, limit=1)
        assert older == {"events": everything["events"][:1], "complete": False}
        from_the_future = await history(server.port, "prices.eur", after=positions[2] + 1)
        assert from_the_future == {"events": [], "complete": False}
        assert await history(server.port, "not-kept") == {"events": [], "complete": False}


@pytest.mark.parametrize(
    "query", [{"after": "x"}, {"after": "-1"}, {"after": "9" * 19}, {"limit": "0"}, {"limit": "1001"}]
)
async def test_a_query_that_makes_no_sense_is_400(query: dict[str, str]) -> None:
    async with realtime_server(KEPT) as server:
        answer = await call(server.port, "GET", f"/apps/{APP_ID}/channels/prices.eur/events", params=query)
        assert answer.status_code == 400
        assert next(iter(query)) in answer.json()["error"]


async def test_reading_history_counts_as_reading() -> None:
    async with realtime_server(an_app(reads_per_s=1, publishes_per_s=100)) as server:
        statuses = {
            (await call(server.port, "GET", f"/apps/{APP_ID}/channels/chat/events")).status_code for _ in range(8)
        }
        assert statuses == {200, 429}


async def test_an_app_over_its_history_loses_its_own_and_no_other_apps() -> None:
    other = App(id="2", key="other", secret="other-secret", channels=KEPT.channels)
    async with realtime_server(KEPT, other, reverb_server_history_bytes=65_536) as server:
        body = json.dumps({"name": "news", "channel": "prices.eur", "data": "kept"}).encode()
        answer = await call(server.port, "POST", "/apps/2/events", body, key="other", secret="other-secret")
        assert answer.status_code == 200
        for number in range(200):
            await publish(server.port, number, f"prices.{number}")

        assert (await history(server.port, "prices.0"))["events"] == []
        assert len((await history(server.port, "prices.199"))["events"]) == 1
        answer = await call(
            server.port, "GET", "/apps/2/channels/prices.eur/events", key="other", secret="other-secret"
        )
        assert [event["data"] for event in answer.json()["events"]] == ["kept"]


async def test_a_client_that_subscribes_to_a_kept_channel_gets_only_what_is_new() -> None:
    async with realtime_server(KEPT) as server:
        await publish(server.port, 0, "prices.eur")
        async with connected(server.port) as client:
            await client.subscribe("prices.eur")
            assert await client.is_quiet()
