"""Firefox and WebKit, one person each, against the whole system."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from browsers.firefox import Firefox
from browsers.screen import Screen
from browsers.webkit import WebKit
from browsers.window import Window
from kit.serve import Smartlink

MINI_BROWSERS = sorted(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"))


@dataclass(slots=True)
class Two:
    """Ana and Ben, signed in, each in a browser of a make of its own."""

    ana: Window
    ben: Window


@pytest.fixture(scope="module")
def smartlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smartlink]:
    running = Smartlink(tmp_path_factory.mktemp("smartlink"))
    running.start()
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["ana in Firefox", "ana in WebKit"])
async def two(
    request: pytest.FixtureRequest, smartlink: Smartlink, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Two]:
    binaries = {name: shutil.which(name) or name for name in ("firefox-esr", "WebKitWebDriver", "Xvfb")}
    folder = tmp_path_factory.mktemp("browsers")
    folders = [folder / name for name in ("screen", "firefox", "webkit")]
    for place in folders:
        place.mkdir()
    async with AsyncExitStack() as running:
        screen = await Screen.start(binaries["Xvfb"], folders[0])
        running.push_async_callback(screen.close)
        firefox = await Firefox.start(binaries["firefox-esr"], folders[1])
        running.push_async_callback(firefox.close)
        webkit = await WebKit.start(binaries["WebKitWebDriver"], str(MINI_BROWSERS[-1]), screen, folders[2])
        running.push_async_callback(webkit.close)
        print(f"{firefox.engine}, {webkit.engine}")  # noqa: T201 -- the target shows which versions were tried
        pair = Two(firefox, webkit) if "Firefox" in request.param else Two(webkit, firefox)
        for name, window in (("ana", pair.ana), ("ben", pair.ben)):
            await window.open(smartlink.url)
            await window.write("[data-testid=login-email]", f"{name}@example.com")
            await window.write("[data-testid=login-password]", "password")
            await window.click("[data-testid=login-submit]")
            await window.sees("[data-testid=connection-state]", "Connected")
        yield pair
