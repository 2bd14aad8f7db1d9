"""A misspelt setting is reported, and a correct one is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from smartlink.cli.unknown import OF_OTHERS, find_unknown, warn_of_unknown
from smartlink.server.settings.config import ServerSettings

KNOWN = {name.upper() for name in ServerSettings.model_fields} | OF_OTHERS


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("REVERB_APP_MAX_CONECTIONS", "REVERB_APP_MAX_CONNECTIONS"),
        ("REVERB_WEBHOOKS_URL", "REVERB_WEBHOOK_URL"),
        ("REVERB_SCALING_ENABLE", "REVERB_SCALING_ENABLED"),
        ("REVERB_SOMETHING_ELSE_ENTIRELY", None),
    ],
)
def test_a_misspelt_setting_is_reported_with_the_likely_name(name: str, meant: str | None) -> None:
    assert find_unknown([name, "PATH", "REVERB_APP_ID"], KNOWN) == {name: meant}


def test_every_name_of_the_example_is_known() -> None:
    listed = re.findall(
        r"^# (REVERB_[A-Z0-9_]+)=", (Path(__file__).parents[2] / ".env.example").read_text(), re.MULTILINE
    )

    assert len(listed) > 50
    assert find_unknown(listed, KNOWN) == {}


def test_the_env_file_is_checked_and_no_value_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERB_APP_SECRETT", "environment-value")
    file = tmp_path / ".env"
    file.write_text("REVERB_APP_KEYY=file-value\n")
    with capture_logs() as logs:
        warn_of_unknown(file)

    told = {entry["name"]: entry["did_you_mean"] for entry in logs if "did_you_mean" in entry}
    assert told == {"REVERB_APP_SECRETT": "REVERB_APP_SECRET", "REVERB_APP_KEYY": "REVERB_APP_KEY"}
    assert "value" not in str(logs)
