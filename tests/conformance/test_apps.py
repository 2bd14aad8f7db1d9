"""What every engine of the port `AppManager` promises."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from smartlink.server.apps.base import App, AppManager
from smartlink.server.apps.static import StaticApps

ONE, TWO = App("1", "key-1", "secret-1"), App("2", "key-2", "secret-2")


class AppManagerPromises:
    """Subclassed per engine."""

    def manager(self, apps: Iterable[App]) -> AppManager:
        raise NotImplementedError

    def test_an_app_is_the_same_by_key_and_by_id(self) -> None:
        manager = self.manager([ONE, TWO])

        assert manager.by_key("key-2") == manager.by_id("2") == TWO
        assert list(manager.all()) == [ONE, TWO]

    @pytest.mark.parametrize("unknown", ["", "3", "secret-1", "KEY-1", "\0", "ž" * 1_000])
    def test_unknown_is_none(self, unknown: str) -> None:
        manager = self.manager([ONE])

        assert manager.by_key(unknown) is None
        assert manager.by_id(unknown) is None


class TestStaticApps(AppManagerPromises):
    def manager(self, apps: Iterable[App]) -> AppManager:
        return StaticApps(apps)

    def test_two_apps_with_one_key_are_refused(self) -> None:
        with pytest.raises(ValueError, match="share"):
            StaticApps([ONE, App("3", "key-1", "s")])


def test_a_secret_is_not_shown() -> None:
    assert "secret-1" not in repr(ONE)
