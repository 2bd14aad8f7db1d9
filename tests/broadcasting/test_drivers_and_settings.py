"""Choosing a driver by settings: what is missing is said, with what to write."""

from __future__ import annotations

import logging
from typing import Any

import pydantic
import pytest

from smartlink.broadcasting import BroadcastConfigError, BroadcastSettings, DriverManager, Envelope
from smartlink.broadcasting.drivers.log import LogDriver
from smartlink.broadcasting.testing import FakeDriver


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for prefix in ("BROADCAST_", "REVERB_", "PUSHER_"):
        for name in BroadcastSettings.model_fields:
            monkeypatch.delenv(prefix + name.upper(), raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("BROADCAST_CONNECTION", raising=False)
    monkeypatch.chdir(tmp_path)


async def test_the_default_is_the_embedded_server() -> None:
    manager = DriverManager(BroadcastSettings())

    assert manager.driver().name == "reverb"
    assert manager.driver() is manager.driver("reverb")
    await manager.aclose()


@pytest.mark.parametrize("variable", ["BROADCAST_DRIVER", "BROADCAST_CONNECTION"])
def test_the_driver_is_chosen_by_either_variable(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "log")

    assert DriverManager(BroadcastSettings()).driver().name == "log"


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / ".env").write_text("BROADCAST_DRIVER=null\nREVERB_PORT=9000\nUNKNOWN=1\n")
    monkeypatch.setenv("BROADCAST_DRIVER", "log")

    settings = BroadcastSettings()

    assert (settings.driver, settings.reverb_port) == ("log", 9000)


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERB_PORT", "")

    assert BroadcastSettings().reverb_port == 8080


@pytest.mark.parametrize(
    ("variable", "value"),
    [("REVERB_PORT", "0"), ("REVERB_PORT", "x"), ("REVERB_SCHEME", "ws"), ("BROADCAST_TIMEOUT", "-1")],
)
def test_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(pydantic.ValidationError, match=variable):
        BroadcastSettings()


@pytest.mark.parametrize("missing", ["PUSHER_APP_ID", "PUSHER_APP_KEY", "PUSHER_APP_SECRET"])
def test_what_pusher_misses_is_said(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for variable in {"PUSHER_APP_ID", "PUSHER_APP_KEY", "PUSHER_APP_SECRET"} - {missing}:
        monkeypatch.setenv(variable, "x")

    with pytest.raises(BroadcastConfigError, match=f"needs {missing}"):
        DriverManager(BroadcastSettings(driver="pusher")).driver()


@pytest.mark.parametrize("name", ["abli", "puhser", ""])
def test_an_unknown_driver_is_answered_with_the_known(name: str) -> None:
    with pytest.raises(BroadcastConfigError, match="ably, log, null, pusher, redis, reverb"):
        DriverManager(BroadcastSettings()).driver(name)


def test_applications_add_their_own() -> None:
    manager = DriverManager(BroadcastSettings(driver="mine"))
    manager.extend("mine", lambda _: FakeDriver())

    assert isinstance(manager.driver(), FakeDriver)


def test_the_secret_does_not_show() -> None:
    assert "app-secret" not in repr(BroadcastSettings())


async def test_the_log_driver_tells_of_events_but_not_what_they_say(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    await LogDriver().send([Envelope("private-a", "Said", '{"text":"é"}', "1.2")])

    assert "Said on private-a, 13 bytes, not to 1.2" in caplog.text
    assert "text" not in caplog.text


async def test_the_log_driver_shows_payloads_when_told_to(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    await LogDriver(show_payloads=True).send([Envelope("private-a", "Said", '{"text":"hi"}')])

    assert '{"text":"hi"}' in caplog.text


async def test_the_null_driver_takes_everything() -> None:
    await DriverManager(BroadcastSettings()).driver("null").send([Envelope("private-a", "Said", "{}")])
