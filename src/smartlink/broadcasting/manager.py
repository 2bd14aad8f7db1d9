"""Choose or build a driver by name; applications add their own with `extend`."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import SecretStr

from smartlink.broadcasting.config import BroadcastSettings
from smartlink.broadcasting.drivers.base import Driver
from smartlink.broadcasting.drivers.log import LogDriver
from smartlink.broadcasting.drivers.null import NullDriver
from smartlink.broadcasting.drivers.pusher import PusherDriver
from smartlink.broadcasting.errors import BroadcastConfigError

__all__ = ["DriverFactory", "DriverManager"]

DriverFactory = Callable[[BroadcastSettings], Driver]


class DriverManager:
    """Builds each driver once, when first asked for, and keeps it until `aclose`."""

    def __init__(self, settings: BroadcastSettings) -> None:
        self._settings = settings
        self._built: dict[str, Driver] = {}
        self._factories: dict[str, DriverFactory] = {
            "reverb": _reverb,
            "pusher": _pusher,
            "log": lambda _: LogDriver(),
            "null": lambda _: NullDriver(),
        }

    def driver(self, name: str | None = None) -> Driver:
        """The driver called `name`, by default the one that the settings choose.

        Raises BroadcastConfigError for a name nobody knows, and for a setting that the driver misses.
        """
        chosen = self._settings.driver if name is None else name
        if chosen not in self._built:
            factory = self._factories.get(chosen)
            if factory is None:
                known = ", ".join(sorted(self._factories))
                raise BroadcastConfigError(f"BROADCAST_DRIVER={chosen}: there is no such driver; write one of {known}")
            self._built[chosen] = factory(self._settings)
        return self._built[chosen]

    def extend(self, name: str, factory: DriverFactory) -> None:
        """Make `name` choosable; it may stand in for a built-in one. A driver already built stays."""
        self._factories[name] = factory

    async def aclose(self) -> None:
        """Close every driver that was built."""
        while self._built:
            _, driver = self._built.popitem()
            await driver.aclose()


def _reverb(settings: BroadcastSettings) -> Driver:
    return PusherDriver(
        _present("reverb", REVERB_APP_ID=settings.reverb_app_id),
        _present("reverb", REVERB_APP_KEY=settings.reverb_app_key),
        _present("reverb", REVERB_APP_SECRET=_revealed(settings.reverb_app_secret)),
        host=_present("reverb", REVERB_HOST=settings.reverb_host),
        port=settings.reverb_port,
        scheme=settings.reverb_scheme,
        timeout_s=settings.timeout_s,
        name="reverb",
    )


def _pusher(settings: BroadcastSettings) -> Driver:
    host = settings.pusher_host or f"api-{settings.pusher_app_cluster}.pusher.com"
    return PusherDriver(
        _present("pusher", PUSHER_APP_ID=settings.pusher_app_id),
        _present("pusher", PUSHER_APP_KEY=settings.pusher_app_key),
        _present("pusher", PUSHER_APP_SECRET=_revealed(settings.pusher_app_secret)),
        host=host,
        port=settings.pusher_port,
        scheme=settings.pusher_scheme,
        timeout_s=settings.timeout_s,
        trust_env=settings.pusher_host is None,
        name="pusher",
    )


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _present(driver: str, **variables: str | None) -> str:
    [(variable, value)] = variables.items()
    if not value:
        raise BroadcastConfigError(f"BROADCAST_DRIVER={driver} needs {variable}; set it in the environment or .env")
    return value
