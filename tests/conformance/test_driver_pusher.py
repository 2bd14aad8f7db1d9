"""The pusher driver with a service on a real socket, healthy and failing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from conformance.driver_promises import DriverPromises, RefusingDriverPromises, envelopes
from kit.pusher_service import HANG, LOSE_THE_ANSWER, PusherService, pusher_service
from smartlink.broadcasting import BroadcastRefused, BroadcastUnavailable, Delivery, Envelope
from smartlink.broadcasting.drivers.pusher import PusherDriver


def driver_for(service: PusherService, **changes: Any) -> PusherDriver:
    settings: dict[str, Any] = {"host": "127.0.0.1", "port": service.port, "scheme": "http", "timeout_s": 2}
    return PusherDriver(service.app_id, service.key, changes.pop("secret", service.secret), **settings | changes)


@pytest.fixture
async def service() -> AsyncIterator[PusherService]:
    async with pusher_service() as service:
        yield service


@pytest.fixture
async def driver(service: PusherService) -> AsyncIterator[PusherDriver]:
    driver = driver_for(service)
    yield driver
    await driver.aclose()


class TestPusherDriver(RefusingDriverPromises, DriverPromises):
    @pytest.fixture(autouse=True)
    def _remember(self, service: PusherService) -> None:
        self._service = service

    def arrived(self) -> list[Envelope]:
        return [
            Envelope(event["channel"], event["name"], event["data"], event.get("socket_id"))
            for event in self._service.taken
        ]

    def make_unavailable(self) -> None:
        self._service.answers = lambda _: 503

    def make_refusing(self) -> None:
        self._service.answers = lambda _: 400


async def test_one_envelope_is_one_event(service: PusherService, driver: PusherDriver) -> None:
    await driver.send(envelopes(1))

    [call] = service.calls
    assert call.path == "/apps/77/events"
    assert call.headers["content-type"] == "application/json"
    assert "socket_id" not in call.events[0]


async def test_ten_events_are_one_call_and_eleven_are_two(service: PusherService, driver: PusherDriver) -> None:
    await driver.send(envelopes(10))
    await driver.send(envelopes(11))

    assert [call.path.rpartition("/")[2] for call in service.calls] == ["batch_events", "batch_events", "events"]


async def test_one_event_for_many_channels_goes_in_chunks_of_a_hundred(
    service: PusherService, driver: PusherDriver
) -> None:
    await driver.send([Envelope(f"private-{n}", "E", "{}", "1.2") for n in range(250)])

    assert [(call.path, len(call.events)) for call in service.calls] == [
        ("/apps/77/events", 100),
        ("/apps/77/events", 100),
        ("/apps/77/events", 50),
    ]
    assert [event["channel"] for event in service.taken] == [f"private-{n}" for n in range(250)]


async def test_the_same_event_twice_on_a_channel_arrives_twice(service: PusherService, driver: PusherDriver) -> None:
    await driver.send([Envelope("a", "E", "{}"), Envelope("a", "E", "{}"), Envelope("b", "E", "{}")])

    assert [event["channel"] for event in service.taken] == ["a", "a", "b"]


async def test_mixed_events_keep_their_order_across_calls(service: PusherService, driver: PusherDriver) -> None:
    sent = [Envelope("a", "First", "{}")]
    sent += [Envelope(f"b.{n}", "Many", "{}") for n in range(30)]
    sent += envelopes(12)

    await driver.send(sent)

    assert [(event["channel"], event["name"]) for event in service.taken] == [(e.channel, e.name) for e in sent]
    assert len(service.calls) <= 4


async def test_only_smartlink_servers_get_extension_fields(service: PusherService) -> None:
    sent = [
        Envelope("a", "E", "{}", delivery=Delivery.LIVE),
        Envelope("b", "E", '{"eventId":7}', event_id="7"),
    ]
    plain, own = driver_for(service), driver_for(service, is_smartlink=True)
    await plain.send(sent)
    await own.send(sent)

    assert [set(event) for event in service.taken[:2]] == [{"name", "channel", "data"}] * 2
    assert [(event.get("live"), event.get("id")) for event in service.taken[2:]] == [(True, None), (None, "7")]
    await plain.aclose()
    await own.aclose()


@pytest.mark.parametrize(
    ("is_smartlink", "key", "calls"), [(True, "k", 2), (True, None, 1), (False, "k", 1), (False, None, 1)]
)
@pytest.mark.parametrize("failure", [500, LOSE_THE_ANSWER])
async def test_a_call_that_may_have_arrived_is_retried_only_if_duplicates_are_detected(
    service: PusherService, is_smartlink: bool, key: str | None, calls: int, failure: int | str
) -> None:
    service.answers = lambda _: failure
    driver = driver_for(service, is_smartlink=is_smartlink)

    with pytest.raises(BroadcastUnavailable):
        await driver.send(envelopes(1), idempotency_key=key)

    assert [call.idempotency_key for call in service.calls] == [key] * calls
    await driver.aclose()


async def test_a_retry_may_succeed(service: PusherService) -> None:
    answers = iter([502, 200])
    service.answers = lambda _: next(answers)
    driver = driver_for(service, is_smartlink=True)

    await driver.send(envelopes(1), idempotency_key="k")

    assert len(service.taken) == 1
    await driver.aclose()


async def test_the_connection_is_kept(service: PusherService, driver: PusherDriver) -> None:
    for _ in range(20):
        await driver.send(envelopes(2))

    assert service.connections == 1


async def test_the_idempotency_key_names_each_call(service: PusherService, driver: PusherDriver) -> None:
    await driver.send(envelopes(11), idempotency_key="k")
    await driver.send(envelopes(1))

    keys = [call.idempotency_key for call in service.calls]
    assert keys[0] == "k"
    assert keys[1] not in (None, "k")
    assert keys[2] is None


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_these_responses_refuse_the_event(service: PusherService, driver: PusherDriver, status: int) -> None:
    service.answers = lambda _: status

    with pytest.raises(BroadcastRefused, match=str(status)):
        await driver.send(envelopes(1))


@pytest.mark.parametrize("status", [301, 302, 401, 403, 404, 408, 409, 418, 429, 500, 502, 503, 504])
async def test_these_responses_mean_unavailable(service: PusherService, driver: PusherDriver, status: int) -> None:
    service.answers = lambda _: status

    with pytest.raises(BroadcastUnavailable, match=str(status)) as raised:
        await driver.send(envelopes(1))
    assert raised.value.answered is (status in (500, 502, 504))


async def test_the_error_for_a_redirect_says_what_to_check(service: PusherService, driver: PusherDriver) -> None:
    service.answers = lambda _: 301

    with pytest.raises(BroadcastUnavailable, match="not followed, check host, port and scheme"):
        await driver.send(envelopes(1))


def http(status: int, body: bytes, kind: str = "application/json", extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\n{extra}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\x00garbage\r\n\r\n",
        b"HTTP/1.1 999999 no\r\n\r\n",
        http(200, b"<html>Sign in to this network</html>", "text/html"),
        http(200, b"ok"),
        http(200, b"[1]"),
        http(200, b"[" * 50_000),
        http(200, b"\xff\xfe"),
        http(200, b"{" + b"x" * 1_000_000),
        http(200, b"not gzip", extra="content-encoding: gzip\r\n"),
        http(400, b"<html>The plain HTTP request was sent to HTTPS port</html>", "text/html"),
    ],
)
async def test_an_unexpected_body_is_unavailable(service: PusherService, driver: PusherDriver, garbage: bytes) -> None:
    service.answers = lambda _: garbage

    with pytest.raises(BroadcastUnavailable):
        await driver.send(envelopes(1))


async def test_a_wrong_secret_is_unavailable_not_refused(service: PusherService) -> None:
    driver = driver_for(service, secret="another")

    with pytest.raises(BroadcastUnavailable, match="check app id, key, secret"):
        await driver.send(envelopes(1))
    await driver.aclose()


async def test_an_unreachable_service_is_unavailable(service: PusherService, driver: PusherDriver) -> None:
    await service.stop()

    with pytest.raises(BroadcastUnavailable, match=r"ConnectError.*check host, port and scheme"):
        await driver.send(envelopes(1))


async def test_a_service_that_returns_is_used_again(service: PusherService, driver: PusherDriver) -> None:
    await driver.send(envelopes(1))
    await service.stop()
    with pytest.raises(BroadcastUnavailable):
        await driver.send(envelopes(1))
    await service.start()

    await driver.send(envelopes(1))

    assert len(service.taken) == 2


async def test_a_hanging_service_times_out(service: PusherService) -> None:
    service.answers = lambda _: HANG
    driver = driver_for(service, timeout_s=0.1)

    with pytest.raises(BroadcastUnavailable, match=r"no answer within 0\.1 s"):
        await driver.send(envelopes(1))
    await driver.aclose()


async def test_a_service_that_dies_during_a_call_is_unavailable(service: PusherService, driver: PusherDriver) -> None:
    service.answers = lambda _: LOSE_THE_ANSWER

    with pytest.raises(BroadcastUnavailable):
        await driver.send(envelopes(1))


async def test_a_host_that_does_not_exist_is_unavailable(service: PusherService) -> None:
    driver = driver_for(service, host="no-such-host.invalid")

    with pytest.raises(BroadcastUnavailable):
        await driver.send(envelopes(1))
    await driver.aclose()


async def test_no_message_carries_the_secret_or_a_signature(service: PusherService, driver: PusherDriver) -> None:
    failures = []
    for answer in (400, 401, 500, b"garbage"):
        service.answers = lambda _, answer=answer: answer  # type: ignore[misc]
        with pytest.raises((BroadcastUnavailable, BroadcastRefused)) as raised:
            await driver.send(envelopes(1))
        failures.append(str(raised.value))

    assert not any(word in " ".join(failures) for word in ("auth_signature", "auth_key", service.secret, '"n"'))


async def test_concurrent_calls_do_not_mix(service: PusherService, driver: PusherDriver) -> None:
    await asyncio.gather(*(driver.send(envelopes(10, channel=f"c{number}")) for number in range(30)))

    assert all(len({event["channel"] for event in call.events}) == 1 for call in service.calls)
    assert len(service.taken) == 300


async def test_a_service_that_cannot_exclude_users_is_not_sent_such_events(service: PusherService) -> None:
    driver = driver_for(service, is_smartlink=True)
    assert driver.leaves_out_users

    with pytest.raises(BroadcastRefused, match="only a SmartLink server can"):
        await driver.send(envelopes(1, except_user="7"))

    assert service.taken == []
    assert not driver.leaves_out_users
    await driver.aclose()
