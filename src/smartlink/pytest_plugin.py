"""The pytest plugin, found by its entry point: fixtures for applications that broadcast.

Imports little: pytest loads it in every run, whether its fixtures are used or not.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from smartlink.broadcasting import Broadcaster, SyncBroadcaster
    from smartlink.broadcasting.facade import BaseBroadcasting
    from smartlink.broadcasting.testing import Broadcasts
    from smartlink.testing import Realtime

    Sender = BaseBroadcasting | Broadcaster | SyncBroadcaster

_INI = "smartlink_broadcasting"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting that names the application's object."""
    parser.addini(_INI, "the application's Broadcasting or broadcaster, as module:attribute", default="")


@pytest.fixture
def smartlink_broadcasting(pytestconfig: pytest.Config) -> Sender | None:
    """The application's `Broadcasting`, or its broadcaster: named by the setting, or overridden in conftest.py."""
    where = str(pytestconfig.getini(_INI))
    if not where:
        return None
    try:
        found: Sender = pkgutil.resolve_name(where)
    except (ValueError, ImportError, AttributeError) as error:
        raise pytest.UsageError(f"{_INI} = {where}: {error}; it has the form myapp.main:broadcasting") from error
    return found


@pytest.fixture
def broadcasts(smartlink_broadcasting: Sender | None) -> Iterator[Broadcasts]:
    """What the application broadcasts, with assertions; nothing leaves the process. See `fake_broadcasts`."""
    from smartlink.broadcasting.testing import fake_broadcasts

    if smartlink_broadcasting is None:
        raise pytest.UsageError(
            f"the fixture broadcasts needs the application's object: set {_INI} = myapp.main:broadcasting in pytest's "
            f"configuration, or override the fixture {_INI} in conftest.py"
        )
    with fake_broadcasts(smartlink_broadcasting) as found:
        yield found


@pytest.fixture
def realtime_settings() -> Mapping[str, Any]:
    """Settings of the fixture `realtime`'s server, as `ServerSettings` names them; override it in your tests."""
    return {}


@pytest.fixture
def realtime(smartlink_broadcasting: Sender | None, realtime_settings: Mapping[str, Any]) -> Iterator[Realtime]:
    """A whole realtime server without a port, which gets what the application broadcasts; see `Realtime`."""
    try:
        from smartlink.testing import realtime_server
    except ModuleNotFoundError as missing:
        raise pytest.UsageError(
            f"the fixture realtime needs {missing.name}: pip install 'smartlink-realtime[server,broadcasting,client]'"
        ) from missing
    with realtime_server(smartlink_broadcasting, **realtime_settings) as running:
        yield running
