"""The promises of every driver. Subclass it for each: build one, and return what arrived at the other end."""

from __future__ import annotations

import asyncio
import gc
import json
from abc import ABC, abstractmethod
from typing import Any

import pytest

from smartlink.broadcasting import BroadcastFailed, BroadcastRefused, BroadcastUnavailable, Driver, Envelope

__all__ = ["DriverPromises", "RefusingDriverPromises", "envelopes"]


def envelopes(count: int, **changes: Any) -> list[Envelope]:
    """`count` different envelopes, in an order that shows in their payloads."""
    return [
        Envelope(**{"channel": f"private-x.{n % 3}", "name": "App\\Events\\E", "payload": f'{{"n":{n}}}'} | changes)
        for n in range(count)
    ]


class DriverPromises(ABC):
    """Needs a fixture `driver`, and the ways to look at the service and to break it."""

    @abstractmethod
    def arrived(self) -> list[Envelope]:
        """What the service has taken, in order; the promise is not compared."""

    @abstractmethod
    def make_unavailable(self) -> None:
        """From now on the service answers that it cannot."""

    def numbers(self) -> list[int]:
        return [json.loads(envelope.payload)["n"] for envelope in self.arrived()]

    async def test_it_has_a_name(self, driver: Driver) -> None:
        assert driver.name

    async def test_an_event_arrives_unchanged(self, driver: Driver) -> None:
        sent = Envelope("presence-chat", "order.shipped", '{"text":"🎉 \\"é\\""}', "12.34")

        await driver.send([sent])

        assert self.arrived() == [sent]

    @pytest.mark.parametrize("count", [1, 2, 10, 11, 25])
    async def test_order_is_kept(self, driver: Driver, count: int) -> None:
        await driver.send(envelopes(count))

        assert self.numbers() == list(range(count))

    async def test_sending_no_envelopes_makes_no_call(self, driver: Driver) -> None:
        await driver.send([])

        assert self.arrived() == []

    async def test_a_failing_service_is_unavailable(self, driver: Driver) -> None:
        self.make_unavailable()

        with pytest.raises(BroadcastUnavailable):
            await driver.send(envelopes(2))
        assert self.arrived() == []

    async def test_a_closed_driver_is_unavailable(self, driver: Driver) -> None:
        await driver.send(envelopes(1))
        await driver.aclose()

        with pytest.raises(BroadcastFailed):
            await driver.send(envelopes(1))
        assert self.numbers() == [0]

    # Connections whose loop has ended cannot be closed any more; Python says so when they are collected.
    @pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
    async def test_it_works_in_later_event_loops(self, driver: Driver) -> None:
        for each in envelopes(3):
            await asyncio.to_thread(lambda one=each: asyncio.run(driver.send([one])))
        await driver.send([envelopes(4)[3]])

        assert self.numbers() == [0, 1, 2, 3]
        await driver.aclose()
        gc.collect()


class RefusingDriverPromises(ABC):
    """For services that look at what they are sent."""

    @abstractmethod
    def make_refusing(self) -> None:
        """From now on the service answers that what was sent is wrong."""

    async def test_a_rejecting_service_raises_refused(self, driver: Driver) -> None:
        self.make_refusing()

        with pytest.raises(BroadcastRefused):
            await driver.send(envelopes(2))
