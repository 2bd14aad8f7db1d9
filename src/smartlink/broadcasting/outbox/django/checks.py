"""System checks: what would go wrong later is reported by `manage.py check`."""

from __future__ import annotations

import importlib.util
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Tags
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import FieldDoesNotExist
from django.db import connections
from pydantic import ValidationError

from smartlink.broadcasting.config import BroadcastSettings
from smartlink.broadcasting.integrations.django_models import BroadcastsChanges
from smartlink.safety import SAMPLE_SECRETS

__all__ = ["CHECKS", "check_databases", "check_deployment", "check_models", "check_settings"]

_LABEL = "smartlink_outbox"
_DRIVERS = {"postgresql": "asyncpg", "sqlite": "aiosqlite"}


def check_models(app_configs: Any = None, **_: object) -> list[CheckMessage]:
    """E001: a model broadcasts its changes and names no fields. E002: it names one that it does not have."""
    found: list[CheckMessage] = []
    for model in apps.get_models():
        if not issubclass(model, BroadcastsChanges) or (
            app_configs is not None and model._meta.app_config not in app_configs  # noqa: SLF001 - Django's way
        ):
            continue
        if model.broadcasts_nothing_named():
            found.append(
                Error(
                    "The model broadcasts its changes, and names nothing to send.",
                    hint='Name the attributes: broadcast_fields = ("id", ...).',
                    obj=model,
                    id=f"{_LABEL}.E001",
                )
            )
        found += [
            Error(f"broadcast_fields names {name!r}, which the model does not have.", obj=model, id=f"{_LABEL}.E002")
            for name in model.broadcast_fields
            if not _has(model, name)
        ]
    return found


def check_databases(databases: Any = None, **_: object) -> list[CheckMessage]:
    """W001: no database can hold the outbox. W002: the package is missing over which its events are read."""
    vendors = {connections[alias].vendor for alias in connections}
    supported = vendors & _DRIVERS.keys()
    if not supported:
        return [
            CheckWarning(
                f"The outbox needs PostgreSQL or SQLite, and the project has {', '.join(sorted(vendors))}.",
                id=f"{_LABEL}.W001",
            )
        ]
    packages = [_DRIVERS[vendor] for vendor in sorted(supported)]
    if any(importlib.util.find_spec(package) is not None for package in packages):
        return []
    return [
        CheckWarning(
            "Recorded events cannot be sent: no asynchronous driver for the database is installed.",
            hint=f"pip install {' or '.join(packages)}",
            id=f"{_LABEL}.W002",
        )
    ]


def check_settings(app_configs: Any = None, **_: object) -> list[CheckMessage]:
    """E003: a setting of the environment is invalid."""
    try:
        BroadcastSettings()
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        return [Error(f"The settings of broadcasting are invalid: {wrong}.", id=f"{_LABEL}.E003")]
    return []


def check_deployment(app_configs: Any = None, **_: object) -> list[CheckMessage]:
    """W003, with `check --deploy`: events are signed with a publicly known secret."""
    if check_settings():
        return []
    settings = BroadcastSettings()
    if settings.driver != "reverb" or settings.reverb_app_secret.get_secret_value() not in SAMPLE_SECRETS:
        return []
    return [
        CheckWarning(
            "REVERB_APP_SECRET is a publicly known sample: anyone could publish, and listen to private channels.",
            hint="smartlink reverb install writes a random one into .env.",
            id=f"{_LABEL}.W003",
        )
    ]


CHECKS: list[tuple[Any, str, bool]] = [
    (check_models, Tags.models, False),
    (check_databases, Tags.compatibility, False),
    (check_settings, Tags.compatibility, False),
    (check_deployment, Tags.security, True),
]
"""Each check, its tag, and whether it is for deployments only."""


def _has(model: Any, name: str) -> bool:
    try:
        model._meta.get_field(name)  # noqa: SLF001 - Django's way
    except FieldDoesNotExist:
        return hasattr(model, name)
    return True
