"""`smartlink doctor` at the public address: each way in which a proxy is configured wrongly is named, with what to do."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from kit.deployment import certificate
from kit.examining import SECRET, examined, problems, warnings
from kit.misconfigured_proxy import MisconfiguredProxy
from kit.serve import Smartlink
from smartlink.cli.doctor import configuration, public, realtime

KEY = "of-the-test"
Checks = list[dict[str, str]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smartlink]:
    folder = tmp_path_factory.mktemp("serve")
    started = Smartlink(folder, reverb_app_key=KEY, reverb_app_secret=SECRET, reverb_app_ping_interval=1)
    started.start()
    yield started
    started.stop()


@asynccontextmanager
async def proxied(running: Smartlink, **faults: Any) -> AsyncIterator[MisconfiguredProxy]:
    proxy = MisconfiguredProxy(running.app_port, running.realtime_port, **faults)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


async def examined_through(
    proxy: MisconfiguredProxy, running: Smartlink, folder: Path, *words: str, **settings: Any
) -> Checks:
    scheme = "http" if proxy.tls is None else "https"
    given = {
        "app_url": f"{scheme}://127.0.0.1:{proxy.port}",
        "reverb_public_host": "127.0.0.1",
        "reverb_public_port": proxy.port,
        "reverb_public_scheme": scheme,
        "reverb_port": running.realtime_port,
        "reverb_app_key": KEY,
        "reverb_app_secret": SECRET,
        "reverb_app_ping_interval": 1,
    }
    _, checks, said = await asyncio.to_thread(examined, folder, "--only", "proxy", *words, **given | settings)
    assert SECRET not in said
    return checks


def states(checks: Checks) -> dict[str, str]:
    return {check["check"]: check["state"] for check in checks}


async def test_a_good_proxy_passes_every_check(running: Smartlink, tmp_path: Path) -> None:
    async with proxied(running) as proxy:
        checks = await examined_through(proxy, running, tmp_path, "--slow")

    assert states(checks) == dict.fromkeys(("proxy", "clock", "upgrade", "sessions", "fallback", "idle"), "fine")
    said = {check["check"]: check["said"] for check in checks}
    assert "an event arrived after" in said["upgrade"]


async def test_a_server_without_the_portal_is_examined_at_its_public_address(
    running: Smartlink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration, "has_portal", lambda: False)
    async with proxied(running) as proxy:
        checks = await examined_through(proxy, running, tmp_path, "--slow")
    async with proxied(running, drops_upgrades=True) as proxy:
        faulty = await examined_through(proxy, running, tmp_path)
        nowhere = await examined_through(proxy, running, tmp_path, reverb_public_host="")

    assert states(checks) == dict.fromkeys(("clock", "upgrade", "sessions", "fallback", "idle"), "fine")
    assert problems(faulty).keys() == {"upgrade", "sessions"}
    assert states(nowhere) == {"proxy": "skipped"}


async def test_a_proxy_that_drops_upgrades_is_reported(running: Smartlink, tmp_path: Path) -> None:
    async with proxied(running, drops_upgrades=True) as proxy:
        checks = await examined_through(proxy, running, tmp_path)

    told = problems(checks)
    assert told.keys() == {"upgrade", "sessions"}
    assert "forward `Upgrade` and `Connection`" in told["upgrade"]
    assert states(checks)["fallback"] == "fine"


async def test_a_proxy_that_buffers_is_reported(running: Smartlink, tmp_path: Path) -> None:
    async with proxied(running, buffers=True) as proxy:
        with mock.patch.object(public, "STREAM_S", 1.0):
            checks = await examined_through(proxy, running, tmp_path)

    assert problems(checks) == {}
    assert "held back" in warnings(checks)["fallback"]
    assert "proxy_buffering off" in warnings(checks)["fallback"]


async def test_a_proxy_that_does_not_pass_named_sessions_is_reported(running: Smartlink, tmp_path: Path) -> None:
    async with proxied(running, passes_sessions=False) as proxy:
        checks = await examined_through(proxy, running, tmp_path)

    assert problems(checks).keys() == {"sessions"}
    assert "make the proxy pass ^(/s/" in problems(checks)["sessions"]


@pytest.mark.parametrize(
    ("shift_s", "state", "said"),
    [
        (300, "warning", "s ahead; from 600 s on"),
        (-300, "warning", "s behind"),
        (3_600, "failed", "s ahead: signatures"),
    ],
)
async def test_a_clock_that_differs_is_reported(
    running: Smartlink, tmp_path: Path, shift_s: int, state: str, said: str
) -> None:
    async with proxied(running, date_shift_s=shift_s) as proxy:
        checks = await examined_through(proxy, running, tmp_path)

    (clock,) = (check for check in checks if check["check"] == "clock")
    assert clock["state"] == state
    assert said in clock["said"]
    assert "NTP" in clock["fix"]


@pytest.mark.parametrize(
    ("name", "advice"), [("nginx/1.22.1", "proxy_read_timeout"), ("lighttpd/1.4.69", "max-read-idle"), ("", "HAProxy")]
)
async def test_a_proxy_that_closes_before_the_ping_is_reported_with_its_default(
    running: Smartlink, tmp_path: Path, name: str, advice: str
) -> None:
    async with proxied(running, closes_on_ping=True, name=name or "unknown") as proxy:
        checks = await examined_through(proxy, running, tmp_path, "--slow")

    assert "before the server's ping at 1 s" in warnings(checks)["idle"]
    assert advice in warnings(checks)["idle"]


async def test_silence_is_tried_only_on_request(running: Smartlink, tmp_path: Path) -> None:
    async with proxied(running, closes_on_ping=True) as proxy:
        checks = await examined_through(proxy, running, tmp_path)

    assert states(checks)["idle"] == "skipped"


@pytest.mark.parametrize(
    ("days", "name", "is_known", "state", "said"),
    [
        (90, "IP:127.0.0.1", True, "fine", "trusted, ends in 89 days"),
        (3, "IP:127.0.0.1", True, "warning", "ends in 2 days: renew it"),
        (90, "IP:127.0.0.2", True, "failed", "use a certificate with this IP address"),
        (90, "IP:127.0.0.1", False, "failed", "use a certificate of an authority that browsers know"),
    ],
)
async def test_the_public_certificate_is_examined(
    running: Smartlink, tmp_path: Path, days: int, name: str, is_known: bool, state: str, said: str
) -> None:
    chain, key = certificate(tmp_path, days, name)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(chain, key)
    known = {"ssl_cert_file": chain} if is_known else {}
    async with proxied(running, tls=tls) as proxy:
        checks = await examined_through(proxy, running, tmp_path, **known)

    found = [check for check in checks if check["check"] in ("public certificate", "proxy")][-1 if is_known else 0]
    assert found["state"] == state
    assert said in f"{found['said']}: {found['fix']}"


async def test_an_event_with_a_time_the_server_refuses_names_the_clock(running: Smartlink, tmp_path: Path) -> None:
    wrong = SimpleNamespace(time=lambda: time.time() + 700, monotonic=time.monotonic)
    async with proxied(running) as proxy:
        with mock.patch.object(realtime, "time", wrong):
            checks = await examined_through(proxy, running, tmp_path)

    assert "auth_timestamp is more than 600 seconds off" in problems(checks)["upgrade"]
    assert "NTP" in problems(checks)["upgrade"]
