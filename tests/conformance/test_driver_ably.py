"""The ably driver with a double of Ably's REST API on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from conformance.driver_promises import DriverPromises, RefusingDriverPromises, envelopes
from kit.ably_service import AblyService, ably_service
from smartlink.broadcasting import BroadcastConfigError, BroadcastRefused, BroadcastUnavailable, Envelope
from smartlink.broadcasting.drivers.ably import AblyDriver, ably_channel


def driver_for(service: AblyService, **changes: Any) -> AblyDriver:
    settings: dict[str, Any] = {"host": "127.0.0.1", "port": service.port, "scheme": "http", "trust_env": False}
    return AblyDriver(changes.pop("key", service.key), **settings | changes)


@pytest.fixture
async def service() -> AsyncIterator[AblyService]:
    async with ably_service() as service:
        yield service


@pytest.fixture
async def driver(service: AblyService) -> AsyncIterator[AblyDriver]:
    driver = driver_for(service)
    yield driver
    await driver.aclose()


def wire_name(ably_name: str) -> str:
    kind, _, name = ably_name.partition(":")
    return name if kind == "public" else f"{kind}-{name}"


class TestAblyDriver(RefusingDriverPromises, DriverPromises):
    @pytest.fixture(autouse=True)
    def _remember(self, service: AblyService) -> None:
        self._service = service

    def arrived(self) -> list[Envelope]:
        return [
            Envelope(wire_name(each["channel"]), each["name"], each["data"], each.get("connectionKey"))
            for each in self._service.taken
        ]

    def make_unavailable(self) -> None:
        self._service.answers = lambda: 503

    def make_refusing(self) -> None:
        self._service.answers = lambda: 400


@pytest.mark.parametrize(
    ("wire", "ably"),
    [
        ("chat", "public:chat"),
        ("private-chat.1", "private:chat.1"),
        ("presence-chat", "presence:chat"),
        ("private-encrypted-vault", "private:encrypted-vault"),
        ("privatechat", "public:privatechat"),
    ],
)
def test_channels_are_named_as_ablys_adapter_names_them(wire: str, ably: str) -> None:
    assert ably_channel(wire) == ably


async def test_a_name_with_special_characters_is_one_path_segment(service: AblyService, driver: AblyDriver) -> None:
    await driver.send([Envelope("private-a=b@c,d;e", "E", "{}")])

    assert service.paths == ["/channels/private%3Aa%3Db%40c%2Cd%3Be/messages"]
    assert service.taken[0]["channel"] == "private:a=b@c,d;e"


async def test_a_repeat_with_the_same_key_is_delivered_once(service: AblyService, driver: AblyDriver) -> None:
    await driver.send(envelopes(3), idempotency_key="k")
    await driver.send(envelopes(3), idempotency_key="k")
    await driver.send(envelopes(3))

    assert len(service.taken) == 6


async def test_a_wrong_key_is_unavailable_not_refused(service: AblyService) -> None:
    driver = driver_for(service, key="app.key:another")

    with pytest.raises(BroadcastUnavailable, match="check ABLY_KEY") as raised:
        await driver.send(envelopes(1))
    assert "another" not in str(raised.value)
    await driver.aclose()


@pytest.mark.parametrize("key", ["", "secret", "app.key", "app.key:", "app:secret", ":secret"])
def test_a_malformed_key_is_refused_at_startup(key: str) -> None:
    with pytest.raises(BroadcastConfigError, match=r"appId\.keyId:secret"):
        AblyDriver(key)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (413, BroadcastRefused),
        (429, BroadcastUnavailable),
        (500, BroadcastUnavailable),
        (b"HTTP/1.1 201 X\r\ncontent-length: 2\r\n\r\nok", BroadcastUnavailable),
        (b"HTTP/1.1 400 X\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<p/>", BroadcastUnavailable),
        (b"\x00\xff\r\n\r\n", BroadcastUnavailable),
    ],
)
async def test_each_response_maps_to_unavailable_or_refused(
    service: AblyService, driver: AblyDriver, answer: int | bytes, kind: type[Exception]
) -> None:
    service.answers = lambda: answer

    with pytest.raises(kind):
        await driver.send(envelopes(1))
