"""Generated requests, valid and invalid: no 5xx, and every response is described.

SMARTLINK_SCHEMA_EXAMPLES says how many requests of each kind each endpoint gets (`make test-api`: many).
"""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from pwdlib.hashers.argon2 import Argon2Hasher
from schemathesis.core.failures import Failure
from schemathesis.python import asgi
from schemathesis.specs.openapi import checks as conformance

from smartlink.broadcasting.testing import FakeBroadcaster
from smartlink.portal.main import Portal, build
from smartlink.portal.shared.passwords import Passwords
from smartlink.portal.shared.settings import PortalSettings

EXAMPLES = int(os.environ.get("SMARTLINK_SCHEMA_EXAMPLES", "6"))
# Sharing one database, cases see what earlier ones left: reproducible only from the start, so not kept for later.
RUN = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
NEED_REALTIME = {"admin_connections", "admin_channels", "admin_disconnect_user"}
CHECKS = [
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_headers_conformance,
    conformance.response_schema_conformance,
    conformance.negative_data_rejection,
]
FORBIDDEN = ("password", "remember_token")


class Api:
    """The app on a database of its own, with callers who sign in again when a request has signed them out."""

    def __init__(self, template: str, directory: Path) -> None:
        self.path = directory / "portal.db"
        shutil.copyfile(template, self.path)
        cheap = Passwords(Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1))
        self.portal: Portal = build(
            PortalSettings(_env_file=None, database_url=f"sqlite:///{self.path}"),
            broadcaster=FakeBroadcaster(),
            passwords=cheap,
        )
        self.portal.limits.allowed = dict.fromkeys(self.portal.limits.allowed, (1_000_000, 1.0))
        self.schema = schemathesis.openapi.from_asgi("/openapi.json", self.portal.app)
        self._numbers = itertools.count(1)
        self._tokens: dict[bool, str] = {}
        self.own = self._records()

    def headers(self, *, admin: bool) -> dict[str, str]:
        """What signs a user or an admin in."""
        if admin not in self._tokens:
            self._tokens[admin] = self._registered(admin)
        return {"Authorization": f"Bearer {self._tokens[admin]}"}

    def forget(self, *, admin: bool) -> None:
        """The caller was signed out."""
        self._tokens.pop(admin, None)

    def _registered(self, admin: bool) -> str:
        email = f"caller{next(self._numbers)}@example.com"
        with asgi.get_client(self.portal.app) as client:
            answer = client.post(
                "/api/register", json={"name": "Caller", "email": email, "password": "correct horse"}
            ).json()
        if admin:
            with sqlite3.connect(self.path, timeout=10) as database:
                database.execute("UPDATE users SET is_admin = 1 WHERE email = ?", (email,))
            database.close()
        token: str = answer["token"]
        return token

    def _records(self) -> dict[str, int]:
        """One record of each kind, of the admin's, by the name of its path parameter."""
        with asgi.get_client(self.portal.app) as client:
            peer = {"name": "Peer", "email": "peer@example.com", "password": "correct horse"}
            by_peer = {"Authorization": f"Bearer {client.post('/api/register', json=peer).json()['token']}"}
            by_user, by_admin = self.headers(admin=False), self.headers(admin=True)
            user_id = client.get("/api/user", headers=by_user).json()["id"]
            direct = {"recipient_id": user_id, "message": "Hello"}
            message = client.post("/api/chat/messages/private", json=direct, headers=by_peer).json()
            campaign = client.post("/api/campaigns", json={"name": "Summer", "budget": "9"}, headers=by_admin).json()
            notified = client.get("/api/notifications", headers=by_user).json()
        return {
            "user_id": message["user_id"],
            "message_id": message["id"],
            "campaign_id": campaign["id"],
            "notification_id": notified[0]["id"],
        }

    def close(self) -> None:
        asgi._get_portal().call(self.portal.stop)


@pytest.fixture(scope="module")
def api(sqlite_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    found = Api(sqlite_template, tmp_path_factory.mktemp("api"))
    yield found
    found.close()


# Users last: there callers sign out and come back as others, who own none of the records.
TAGS = ("chat", "notifications", "campaigns", "wallet", "admin", "realtime", "operations", "users")


@pytest.mark.parametrize("mode", [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE])
@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.timeout(3600 if EXAMPLES > 50 else 120)
def test_every_response_is_described(api: Api, tag: str, mode: schemathesis.GenerationMode) -> None:
    failures: list[str] = []
    for found in api.schema.get_all_operations():
        operation = found.ok()
        if tag in operation.tags and not (mode.is_negative and _takes_nothing(operation)):
            try:
                _try(api, operation, mode)
            except (AssertionError, Failure, BaseExceptionGroup) as failure:
                failures.append(f"{operation.label}: {failure!r}")

    assert not failures, "\n\n".join(failures)


def test_every_group_of_endpoints_is_tested(api: Api) -> None:
    tags = {tag for found in api.schema.get_all_operations() for tag in found.ok().tags}

    assert tags == set(TAGS)


def _takes_nothing(operation: Any) -> bool:
    return not (operation.path_parameters or operation.query or operation.body or operation.headers)


def _try(api: Api, operation: Any, mode: schemathesis.GenerationMode) -> None:
    name = operation.definition.raw["operationId"]
    admin = "/admin/" in operation.path or "/campaigns" in operation.path

    @RUN
    @given(case=operation.as_strategy(generation_mode=mode))
    def requested(case: Any) -> None:
        is_signed = bool(operation.definition.raw.get("security"))
        headers = api.headers(admin=admin) if is_signed else {}
        if mode.is_positive and case.method != "DELETE":
            case.path_parameters |= {name: api.own[name] for name in case.path_parameters if name in api.own}
        answer = case.call(headers=headers)
        if answer.status_code == 401 and is_signed:
            api.forget(admin=admin)
            answer = case.call(headers=api.headers(admin=admin))
        assert answer.status_code < 500 or (answer.status_code == 503 and name in NEED_REALTIME), answer.text
        case.validate_response(answer, checks=CHECKS)
        assert not any(f'"{word}":' in answer.text for word in FORBIDDEN) or answer.status_code == 422

    requested()
