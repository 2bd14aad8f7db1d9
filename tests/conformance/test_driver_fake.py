"""The fake driver keeps the promises of a real one."""

from __future__ import annotations

import pytest

from conformance.driver_promises import DriverPromises, RefusingDriverPromises
from smartlink.broadcasting import BroadcastRefused, BroadcastUnavailable, Envelope
from smartlink.broadcasting.testing import FakeDriver


class TestFakeDriver(RefusingDriverPromises, DriverPromises):
    @pytest.fixture
    def driver(self) -> FakeDriver:
        self._driver = FakeDriver()
        return self._driver

    def arrived(self) -> list[Envelope]:
        return self._driver.sent

    def make_unavailable(self) -> None:
        self._driver.fails_with = BroadcastUnavailable("away")

    def make_refusing(self) -> None:
        self._driver.fails_with = BroadcastRefused("wrong")
