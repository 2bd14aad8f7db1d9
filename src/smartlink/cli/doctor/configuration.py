"""Checks the settings, and the keys among them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TypeVar

from pydantic import ValidationError

from smartlink.broadcasting import BroadcastSettings
from smartlink.cli.doctor.finding import Finding, failed, fine, warning
from smartlink.cli.failures import describe
from smartlink.portal.shared.settings import SAMPLE_SECRETS, PortalSettings, check_start
from smartlink.server.settings.config import ServerSettings

__all__ = ["Installed", "check_keys", "check_pages", "has_portal", "read_settings"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Installed:
    """The settings of each installed part; None where they are invalid or the part is not installed."""

    server: ServerSettings | None
    broadcast: BroadcastSettings | None
    portal: PortalSettings | None
    public: PortalSettings | None
    """Those for the public address, which has a meaning without the portal too."""


def has_portal() -> bool:
    """Return whether the portal is installed, rather than the server alone."""
    return all(find_spec(name) is not None for name in ("fastapi", "alembic"))


def read_settings() -> tuple[Installed, list[Finding]]:
    """Read the settings. Returns those that are valid, and the findings about all of them."""
    server, server_problem = _read(ServerSettings)
    if server is not None:
        server_problem = _problem_of(server.check_start)
    portal: PortalSettings | None = None
    if has_portal():
        portal, problem = _read(PortalSettings)
        if portal is not None:
            problem = _problem_of(partial(_check_portal, portal))
        broadcast = None if portal is None else portal.broadcast
    else:
        broadcast, problem = _read(BroadcastSettings)
    installed = Installed(server, broadcast, portal, portal if has_portal() else _read(PortalSettings)[0])
    problems = dict.fromkeys(filter(None, (server_problem, problem)))
    if not problems:
        return installed, [fine("settings", "valid")]
    return installed, [failed("settings", text, "change it in the environment or .env") for text in problems]


def check_keys(own: BroadcastSettings) -> list[Finding]:
    """Check that signing and encryption keys are well formed and not the published samples."""
    found = []
    samples = [
        name
        for name, value in (
            ("REVERB_APP_KEY", own.reverb_app_key),
            ("REVERB_APP_SECRET", own.reverb_app_secret.get_secret_value()),
        )
        if value in SAMPLE_SECRETS
    ]
    if samples:
        found.append(
            warning(
                "keys",
                f"{' and '.join(samples)}: a published sample value, safe on this machine only",
                "smartlink reverb install",
            )
        )
    listed = [own.encryption_master_key, own.encryption_master_key_previous]
    keys = [key for each in listed if each is not None for key in each.get_secret_value().split(",")]
    if not all(_is_master_key(key.strip()) for key in keys):
        found.append(
            failed(
                "keys",
                "BROADCAST_ENCRYPTION_MASTER_KEY is not 32 bytes in base64",
                'generate one: python -c "import base64, os; print(base64.b64encode(os.urandom(32)).decode())"',
            )
        )
    return found or [fine("keys", f"application {own.reverb_app_id} has its own key and secret")]


def check_pages() -> Finding:
    """Check that the portal's pages are built."""
    from smartlink.portal.pages import how_to_build

    command = how_to_build()
    if command is None:
        return fine("pages", "built")
    return failed("pages", "not built: the portal serves only its API", f"build them: {command}")


def _read(kind: Callable[[], T]) -> tuple[T | None, str | None]:
    try:
        return kind(), None
    except ValidationError as error:
        return None, describe(error)


def _problem_of(check: Callable[[], None]) -> str | None:
    try:
        check()
    except ValueError as error:
        return str(error)
    return None


def _check_portal(settings: PortalSettings) -> None:
    if not settings.is_database_foreign:
        _ = settings.url
        check_start(settings)


def _is_master_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except (binascii.Error, ValueError):
        return False
