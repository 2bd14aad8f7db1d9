"""Builds drivers by name; applications add their own with `extend`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from smartlink.broadcasting.config import BroadcastSettings, host_name, required, revealed
from smartlink.broadcasting.drivers.ably import AblyDriver
from smartlink.broadcasting.drivers.base import Driver, leaves_out_users, reports_receipts
from smartlink.broadcasting.drivers.log import LogDriver
from smartlink.broadcasting.drivers.null import NullDriver
from smartlink.broadcasting.drivers.pusher import PusherDriver
from smartlink.broadcasting.drivers.redis import RedisDriver
from smartlink.broadcasting.envelope import Envelope
from smartlink.broadcasting.errors import BroadcastConfigError
from smartlink.broadcasting.revocation import Revocation, revoke_through
from smartlink.safety import SAMPLE_SECRETS, is_loopback

__all__ = ["DriverFactory", "DriverManager", "ManagedDriver"]

_log = logging.getLogger("smartlink.broadcasting")

DriverFactory = Callable[[BroadcastSettings], Driver]


class DriverManager:
    """Builds each driver on first use and keeps it until `aclose`."""

    def __init__(self, settings: BroadcastSettings) -> None:
        self._settings = settings
        self._built: dict[str, Driver] = {}
        self._factories: dict[str, DriverFactory] = {
            "reverb": _reverb,
            "pusher": _pusher,
            "ably": _ably,
            "redis": _redis,
            "log": lambda _: LogDriver(),
            "null": lambda _: NullDriver(),
        }

    def driver(self, name: str | None = None) -> Driver:
        """Return the driver called `name`, by default the one that the settings choose.

        Raises BroadcastConfigError for an unknown name, and if the driver lacks a setting.
        """
        chosen = self._settings.driver if name is None else name
        if chosen not in self._built:
            factory = self._factories.get(chosen)
            if factory is None:
                known = ", ".join(sorted(self._factories))
                asked = f"BROADCAST_DRIVER={chosen}" if name is None else f"connection {chosen!r}"
                raise BroadcastConfigError(f"{asked}: there is no such driver; use one of {known}")
            self._built[chosen] = factory(self._settings)
        return self._built[chosen]

    def use(self, settings: BroadcastSettings) -> None:
        """Build drivers from other settings from now on. Drivers that were already built stay until `aclose`."""
        self._settings = settings

    def extend(self, name: str, factory: DriverFactory) -> None:
        """Add a driver, or replace a built-in one. A driver that was already built stays."""
        self._factories[name] = factory

    async def aclose(self) -> None:
        """Close every driver that was built."""
        while self._built:
            _, driver = self._built.popitem()
            await driver.aclose()


class ManagedDriver:
    """A manager's driver, looked up at each call, so that it is built again after the manager was closed."""

    def __init__(self, manager: DriverManager, asked: str | None = None) -> None:
        driver = manager.driver(asked)
        self.name = driver.name
        self.leaves_out_users = leaves_out_users(driver)
        self.reports_receipts = reports_receipts(driver)
        self._manager = manager
        self._asked = asked

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        """Send the envelopes. Raises BroadcastFailed."""
        driver: Driver = self._manager.driver(self._asked)
        await driver.send(envelopes, idempotency_key=idempotency_key)

    async def revoke(self, revocation: Revocation) -> None:
        """Revoke. Raises BroadcastFailed, and BroadcastConfigError if the driver does not support it."""
        await revoke_through(self._manager.driver(self._asked), revocation)

    async def aclose(self) -> None:
        """Do nothing: the manager closes the driver."""


def _reverb(settings: BroadcastSettings) -> Driver:
    secret = required("reverb", REVERB_APP_SECRET=revealed(settings.reverb_app_secret))
    host = host_name("reverb", REVERB_HOST=settings.reverb_host)
    if secret in SAMPLE_SECRETS and not is_loopback(host):
        _log.warning(
            "REVERB_APP_SECRET is a publicly known sample, but REVERB_HOST=%s is not this machine: set the server's "
            "own secret (smartlink reverb install generates one)",
            host,
        )
    return PusherDriver(
        required("reverb", REVERB_APP_ID=settings.reverb_app_id),
        required("reverb", REVERB_APP_KEY=settings.reverb_app_key),
        secret,
        host=host,
        port=settings.reverb_port,
        scheme=settings.reverb_scheme,
        timeout_s=settings.timeout_s,
        connect_timeout_s=settings.connect_timeout_s,
        is_smartlink=True,
        name="reverb",
    )


def _pusher(settings: BroadcastSettings) -> Driver:
    if settings.pusher_host is None:
        host = host_name("pusher", PUSHER_APP_CLUSTER=f"api-{settings.pusher_app_cluster}.pusher.com")
    else:
        host = host_name("pusher", PUSHER_HOST=settings.pusher_host)
    return PusherDriver(
        required("pusher", PUSHER_APP_ID=settings.pusher_app_id),
        required("pusher", PUSHER_APP_KEY=settings.pusher_app_key),
        required("pusher", PUSHER_APP_SECRET=revealed(settings.pusher_app_secret)),
        host=host,
        port=settings.pusher_port,
        scheme=settings.pusher_scheme,
        timeout_s=settings.timeout_s,
        connect_timeout_s=settings.connect_timeout_s,
        trust_env=settings.pusher_host is None,
        name="pusher",
    )


def _ably(settings: BroadcastSettings) -> Driver:
    return AblyDriver(
        required("ably", ABLY_KEY=revealed(settings.ably_key)),
        host=host_name("ably", ABLY_HOST=settings.ably_host),
        timeout_s=settings.timeout_s,
        connect_timeout_s=settings.connect_timeout_s,
    )


def _redis(settings: BroadcastSettings) -> Driver:
    return RedisDriver(
        settings.redis_address,
        prefix=settings.redis_prefix,
        timeout_s=settings.timeout_s,
        connect_timeout_s=settings.connect_timeout_s,
    )
