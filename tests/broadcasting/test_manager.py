"""The settings, and the drivers that DriverManager builds from them; errors name the missing setting."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pydantic
import pytest

from smartlink.broadcasting import BroadcastConfigError, Broadcaster, BroadcastSettings, DriverManager, Envelope
from smartlink.broadcasting.drivers.log import LogDriver
from smartlink.broadcasting.testing import FakeDriver


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for prefix in ("BROADCAST_", "REVERB_", "PUSHER_", "ABLY_", "REDIS_"):
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
def test_a_missing_pusher_setting_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for variable in {"PUSHER_APP_ID", "PUSHER_APP_KEY", "PUSHER_APP_SECRET"} - {missing}:
        monkeypatch.setenv(variable, "x")

    with pytest.raises(BroadcastConfigError, match=f"needs {missing}"):
        DriverManager(BroadcastSettings(driver="pusher")).driver()


def test_the_error_for_an_unknown_connection_names_it_not_the_setting() -> None:
    with pytest.raises(BroadcastConfigError, match="connection 'puhser': there is no such driver"):
        DriverManager(BroadcastSettings()).driver("puhser")


@pytest.mark.parametrize("name", ["abli", "puhser", ""])
def test_the_error_for_an_unknown_driver_lists_the_known_ones(name: str) -> None:
    with pytest.raises(BroadcastConfigError, match="ably, log, null, pusher, redis, reverb"):
        DriverManager(BroadcastSettings()).driver(name)


def test_applications_can_add_drivers() -> None:
    manager = DriverManager(BroadcastSettings(driver="mine"))
    manager.extend("mine", lambda _: FakeDriver())

    assert isinstance(manager.driver(), FakeDriver)


def test_secrets_are_hidden_in_repr() -> None:
    assert "app-secret" not in repr(BroadcastSettings())


async def test_the_log_driver_logs_events_without_payloads(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    await LogDriver().send([Envelope("private-a", "Said", '{"text":"é"}', "1.2")])

    assert "Said on private-a, 13 bytes, not to 1.2" in caplog.text
    assert "text" not in caplog.text


async def test_the_log_driver_can_show_payloads(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    await LogDriver(show_payloads=True).send([Envelope("private-a", "Said", '{"text":"hi"}')])

    assert '{"text":"hi"}' in caplog.text


async def test_the_null_driver_accepts_everything() -> None:
    await DriverManager(BroadcastSettings()).driver("null").send([Envelope("private-a", "Said", "{}")])


PUSHER = {"pusher_app_id": "1", "pusher_app_key": "p-key", "pusher_app_secret": "p-secret"}


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({}, ("app-key", "app-secret")),
        ({"driver": "log"}, ("app-key", "app-secret")),
        ({"driver": "null"}, ("app-key", "app-secret")),
        ({"driver": "redis"}, ("app-key", "app-secret")),
        ({"driver": "mine", "reverb_app_key": "r"}, ("r", "app-secret")),
        ({"driver": "pusher", **PUSHER}, ("p-key", "p-secret")),
        ({"driver": "ably", "ably_key": "app.key:secret:part"}, ("app.key", "secret:part")),
    ],
)
def test_the_signing_key_depends_on_the_driver(settings: dict[str, Any], key: tuple[str, str]) -> None:
    assert BroadcastSettings(**settings).signing_key() == key


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"driver": "pusher"}, "PUSHER_APP_KEY"),
        ({"driver": "ably"}, "ABLY_KEY"),
        ({"driver": "ably", "ably_key": "secret"}, r"appId\.keyId:secret"),
        ({"driver": "log", "reverb_app_secret": ""}, "REVERB_APP_SECRET"),
    ],
)
def test_a_missing_signing_key_is_named(settings: dict[str, Any], missing: str) -> None:
    with pytest.raises(BroadcastConfigError, match=missing):
        BroadcastSettings(**settings).signing_key()


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, "redis://127.0.0.1:6379/0"),
        ({"redis_host": "::1", "redis_port": 7000}, "redis://[::1]:7000/0"),
        ({"redis_password": "p@ss/word"}, "redis://:p%40ss%2Fword@127.0.0.1:6379/0"),
        ({"redis_username": "app", "redis_password": "x"}, "redis://app:x@127.0.0.1:6379/0"),
        ({"redis_password": "x", "redis_url": "rediss://r:1/2"}, "rediss://r:1/2"),
    ],
)
def test_redis_is_set_by_a_url_or_by_its_parts(settings: dict[str, Any], address: str) -> None:
    assert BroadcastSettings(**settings).redis_address == address


@pytest.mark.parametrize("driver", ["ably", "redis", "pusher", "reverb"])
async def test_every_driver_is_built_from_settings_alone(driver: str) -> None:
    settings = BroadcastSettings(driver=driver, ably_key="a.b:c", **PUSHER)
    manager = DriverManager(settings)

    assert manager.driver().name == driver
    await manager.aclose()


@pytest.mark.parametrize("key", ["short", "x" * 44])
def test_an_invalid_master_key_is_refused_at_startup(key: str) -> None:
    with pytest.raises(BroadcastConfigError, match="BROADCAST_ENCRYPTION_MASTER_KEY"):
        Broadcaster.from_settings(BroadcastSettings(driver="null", encryption_master_key=key))


@pytest.mark.parametrize(
    "host", ["http://localhost", "localhost:8080", "local host", "localhost/app", "1:2", "a\n", "[::1]:8080"]
)
@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        ({"driver": "reverb", "reverb_host": "HOST"}, "REVERB_HOST"),
        ({"driver": "pusher", "pusher_host": "HOST"} | PUSHER, "PUSHER_HOST"),
        ({"driver": "pusher", "pusher_app_cluster": "HOST"} | PUSHER, "PUSHER_APP_CLUSTER"),
        ({"driver": "ably", "ably_key": "a.b:c", "ably_host": "HOST"}, "ABLY_HOST"),
    ],
)
def test_a_host_that_is_a_url_or_has_a_port_is_refused_at_startup(
    settings: dict[str, Any], variable: str, host: str
) -> None:
    given = {name: host if value == "HOST" else value for name, value in settings.items()}

    with pytest.raises(BroadcastConfigError, match=f"{variable}: .* is not a host"):
        Broadcaster.from_settings(BroadcastSettings(**given))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "realtime.example.com", "redis_1", "localhost."])
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    assert DriverManager(BroadcastSettings(reverb_host=host)).driver().name == "reverb"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("drvier", "did you mean driver"), ("reverb_prot", "did you mean reverb_port"), ("x", "has no x$")],
)
def test_an_unknown_argument_is_refused(name: str, hint: str) -> None:
    with pytest.raises(BroadcastConfigError, match=hint):
        BroadcastSettings(**{name: "1"})


def test_arguments_may_have_the_names_of_the_variables() -> None:
    settings = BroadcastSettings(_env_file=None, BROADCAST_DRIVER="log", REVERB_PORT="9000")  # type: ignore[call-arg]

    assert (settings.driver, settings.reverb_port) == ("log", 9000)


@pytest.mark.parametrize(
    ("host", "secret", "is_warned"),
    [
        ("realtime.example.com", "app-secret", True),
        ("10.0.0.4", "changeme", True),
        ("127.0.0.1", "app-secret", False),
        ("localhost", "app-secret", False),
        ("[::1]", "app-secret", False),
        ("realtime.example.com", "a-secret-of-our-own", False),
    ],
)
def test_a_sample_secret_for_another_machine_logs_a_warning(
    caplog: pytest.LogCaptureFixture, host: str, secret: str, is_warned: bool
) -> None:
    Broadcaster.from_settings(BroadcastSettings(_env_file=None, reverb_host=host, reverb_app_secret=secret))

    assert ("REVERB_APP_SECRET is a publicly known sample" in caplog.text) == is_warned


@pytest.mark.parametrize(
    ("given", "port"),
    [
        ({}, 8080),
        ({"reverb_server_port": 9000}, 9000),
        ({"reverb_server_port": 0}, 8080),
        ({"reverb_server_port": 9000, "reverb_port": 443}, 443),
    ],
)
def test_an_unset_port_defaults_to_the_servers_port(given: dict[str, int], port: int) -> None:
    assert BroadcastSettings(_env_file=None, **given).reverb_port == port


def test_an_explicit_port_wins_from_any_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".env"
    file.write_text("REVERB_PORT=443\n")
    monkeypatch.setenv("REVERB_SERVER_PORT", "9000")

    assert BroadcastSettings(_env_file=file).reverb_port == 443
