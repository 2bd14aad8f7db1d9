"""`.env.example` lists every setting, and only settings."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import AliasChoices
from pydantic_settings import BaseSettings

from smartlink.broadcasting import BroadcastSettings
from smartlink.portal.shared.settings import PortalSettings
from smartlink.server.settings.config import ServerSettings

EXAMPLE = Path(__file__).parents[2] / ".env.example"


def names(settings: type[BaseSettings]) -> list[set[str]]:
    """The variables that set each field."""
    found: list[set[str]] = []
    for field_name, field in settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseSettings):
            continue
        if isinstance(field.validation_alias, AliasChoices):
            found.append({str(choice) for choice in field.validation_alias.choices if str(choice).isupper()})
        else:
            found.append({field_name.upper()})
    return found


def test_every_setting_is_listed_and_every_listed_name_is_a_setting() -> None:
    listed = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", EXAMPLE.read_text(), re.MULTILINE))
    fields = [
        variables for settings in (ServerSettings, BroadcastSettings, PortalSettings) for variables in names(settings)
    ]

    assert [variables for variables in fields if not variables & listed] == []
    assert listed - set().union(*fields) == set()


def test_the_values_are_the_defaults_of_the_server() -> None:
    listed = re.findall(r"^# ([A-Z][A-Z0-9_]+)=(.+)$", EXAMPLE.read_text(), re.MULTILINE)
    given = {name.lower(): value for name, value in listed if name.lower() in ServerSettings.model_fields}
    settings = ServerSettings(_env_file=None, **given)

    assert len(given) > 40
    assert {name: value for name, value in settings if value != ServerSettings.model_fields[name].default} == {}


def test_the_example_contains_no_secret() -> None:
    for line in EXAMPLE.read_text().splitlines():
        name, _, value = line.removeprefix("# ").partition("=")
        if name.endswith(("SECRET", "PASSWORD")):
            assert value in ("", "app-secret"), line
