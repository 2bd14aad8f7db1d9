"""Several drivers at once, rescue, events without a class, and notifications."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from smartlink.broadcasting import (
    BroadcastConfigError,
    Broadcaster,
    BroadcastError,
    BroadcastEvent,
    BroadcastNotification,
    BroadcastNow,
    BroadcastRefused,
    BroadcastUnavailable,
    Channel,
    Delivery,
    Envelope,
    PresenceChannel,
    PrivateChannel,
)
from smartlink.broadcasting.testing import FakeDriver


@dataclass(frozen=True)
class Told(BroadcastEvent):
    broadcast_connections = ("reverb", "ably")

    text: str

    def broadcast_on(self) -> Channel:
        return Channel("news")

    def broadcast_with_for(self, connection: str) -> Mapping[str, object]:
        return {"text": self.text, "via": connection}


class Drivers:
    """Two fakes, by name; the default one is a third."""

    def __init__(self) -> None:
        self.default, self.reverb, self.ably = FakeDriver(), FakeDriver(), FakeDriver()
        self.reverb.name, self.ably.name = "reverb", "ably"
        self.failures: list[tuple[BroadcastEvent, BroadcastError]] = []
        self.broadcaster = Broadcaster(
            self.default, find_driver=self.find, report=lambda event, error: self.failures.append((event, error))
        )

    def find(self, name: str) -> FakeDriver:
        try:
            return {"reverb": self.reverb, "ably": self.ably}[name]
        except KeyError:
            raise BroadcastConfigError(f"there is no driver {name}") from None


class OneConnection(Told):
    broadcast_connections = "ably"


@pytest.fixture
def drivers() -> Drivers:
    return Drivers()


async def test_one_connection_may_be_named_without_a_list(drivers: Drivers) -> None:
    await drivers.broadcaster.send(OneConnection("hi"))

    assert [envelope.connection for envelope in drivers.ably.sent] == ["ably"]
    assert not drivers.default.sent


async def test_an_event_goes_through_every_connection_it_names_with_the_payload_for_each(drivers: Drivers) -> None:
    await drivers.broadcaster.send(Told("hi"))

    assert [json.loads(e.payload) for e in drivers.reverb.sent] == [{"text": "hi", "via": "reverb"}]
    assert [json.loads(e.payload) for e in drivers.ably.sent] == [{"text": "hi", "via": "ably"}]
    assert drivers.default.sent == []


async def test_a_failing_connection_does_not_stop_the_others(drivers: Drivers) -> None:
    drivers.reverb.fails_with = BroadcastUnavailable("reverb is away")

    with pytest.raises(BroadcastUnavailable, match="reverb is away"):
        await drivers.broadcaster.send(Told("hi"))
    assert len(drivers.ably.sent) == 1


async def test_of_two_failures_the_temporary_one_is_raised_with_the_other_as_a_note(drivers: Drivers) -> None:
    drivers.reverb.fails_with = BroadcastRefused("never")
    drivers.ably.fails_with = BroadcastUnavailable("later")

    with pytest.raises(BroadcastUnavailable, match="later") as raised:
        await drivers.broadcaster.send(Told("hi"))
    assert raised.value.__notes__ == ["never"]


async def test_packing_for_an_unknown_connection_raises(drivers: Drivers) -> None:
    with pytest.raises(BroadcastConfigError, match="no driver mars"):
        await drivers.broadcaster.on(Channel("news")).via("mars").send()
    with pytest.raises(BroadcastConfigError, match="this broadcaster has only fake"):
        Broadcaster(FakeDriver()).pack(Told("hi"))


async def test_a_recorded_envelope_for_a_removed_connection_is_refused(drivers: Drivers) -> None:
    with pytest.raises(BroadcastRefused, match="no driver mars"):
        await drivers.broadcaster.driver.send([Envelope("news", "E", "{}", connection="mars")])


async def test_naming_the_default_connection_is_the_same_as_naming_none(drivers: Drivers) -> None:
    named = [
        Envelope("chat", str(n), "{}", connection=None if n % 2 else drivers.broadcaster.driver.name) for n in range(4)
    ]

    await drivers.broadcaster.send_envelopes(named)

    assert [sent.name for sent in drivers.default.sent] == ["0", "1", "2", "3"]


async def test_the_idempotency_key_differs_for_each_connection(drivers: Drivers) -> None:
    packed = drivers.broadcaster.pack(Told("hi"))

    await drivers.broadcaster.driver.send(packed, idempotency_key="k")

    assert drivers.reverb.idempotency_keys == ["k.reverb"]
    assert drivers.ably.idempotency_keys == ["k.ably"]


@pytest.mark.parametrize("text", ["away", "x" * 20_000])
async def test_an_event_with_rescue_is_reported_instead_of_raising(drivers: Drivers, text: str) -> None:
    class Unimportant(Told):
        broadcast_connections = ()
        broadcast_rescue = True

    drivers.default.fails_with = BroadcastUnavailable("away")
    event = Unimportant(text)

    await drivers.broadcaster.send(event)

    assert [failed for failed, _ in drivers.failures] == [event]


async def test_without_report_failures_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    driver = FakeDriver()
    driver.fails_with = BroadcastUnavailable("away")

    await Broadcaster(driver).on(Channel("news")).as_("x").rescue().send()

    assert "broadcast of AnonymousEvent failed: BroadcastUnavailable: away" in caplog.text


async def test_an_anonymous_event_can_be_built_in_one_expression(drivers: Drivers) -> None:
    sentence = drivers.broadcaster.private("orders.1").on(Channel("news")).as_(".order.shipped").with_({"id": 1})
    await sentence.via("ably").send()

    assert drivers.ably.sent == [
        Envelope(channel, "order.shipped", '{"id":1}', connection="ably") for channel in ("private-orders.1", "news")
    ]


async def test_nothing_is_sent_before_send_which_can_be_called_again(drivers: Drivers) -> None:
    sentence = drivers.broadcaster.presence("room")

    assert drivers.default.sent == []
    await sentence.send()
    await sentence.send()
    assert drivers.default.sent == [Envelope("presence-room", "AnonymousEvent", "{}")] * 2
    assert sentence.event.broadcast_on() == (PresenceChannel("room"),)


async def test_a_notification_has_the_name_and_fields_that_echo_expects(drivers: Drivers) -> None:
    channel = PrivateChannel("App.Models.User.7")
    await drivers.broadcaster.send(BroadcastNotification(channel, "invoice.paid", {"amount": "1.50"}, id="n-1"))

    [envelope] = drivers.default.sent
    assert envelope.name == "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated"
    assert json.loads(envelope.payload) == {"amount": "1.50", "id": "n-1", "type": "invoice.paid"}
    assert BroadcastNotification(channel, "a").id != BroadcastNotification(channel, "a").id


def test_broadcast_now_is_live() -> None:
    @dataclass(frozen=True)
    class Blinked(BroadcastNow):
        def broadcast_on(self) -> Channel:
            return Channel("lamp")

    assert Broadcaster(FakeDriver()).pack(Blinked())[0].delivery is Delivery.LIVE


@pytest.mark.parametrize("user_id", ["7", 7])
async def test_excluding_a_user_raises_for_a_service_that_cannot(drivers: Drivers, user_id: str | int) -> None:
    drivers.default.leaves_out_users = False
    with pytest.raises(BroadcastConfigError, match="fake cannot exclude all sockets of a user"):
        await drivers.broadcaster.on(Channel("news")).to_other_users(user_id).send()
