"""A portal for tests: real database, real HTTP semantics, events kept instead of sent."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from dataclasses import dataclass, field
from typing import Any

import httpx2
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import text

from smartlink.broadcasting.testing import FakeBroadcaster
from smartlink.portal.main import Portal, build
from smartlink.portal.shared.passwords import Passwords
from smartlink.portal.shared.settings import PortalSettings
from smartlink.portal.users import service

__all__ = ["PASSWORD", "Person", "World", "ago", "payloads"]

PASSWORD = "correct horse"
_numbers = itertools.count(1)


@dataclass
class Person:
    """A signed-in user with a client of their own."""

    id: int
    name: str
    email: str
    client: httpx2.AsyncClient

    async def get(self, path: str, **options: Any) -> httpx2.Response:
        return await self.client.get(path, **options)

    async def post(self, path: str, json: Any = None, **options: Any) -> httpx2.Response:
        return await self.client.post(path, json=json, **options)

    async def patch(self, path: str, json: Any = None, **options: Any) -> httpx2.Response:
        return await self.client.patch(path, json=json, **options)

    async def put(self, path: str, json: Any = None, **options: Any) -> httpx2.Response:
        return await self.client.put(path, json=json, **options)

    async def delete(self, path: str) -> httpx2.Response:
        return await self.client.delete(path)


@dataclass
class World:
    """A portal, the people in it, and what it broadcast."""

    url: str
    options: dict[str, Any] = field(default_factory=dict)
    is_live: bool = False
    """Whether what it broadcasts goes to the realtime server in `options`, instead of being kept."""

    def __post_init__(self) -> None:
        self.broadcaster = FakeBroadcaster()
        # The cheapest Argon2 there is: what is tried here is not how slow it is.
        passwords = Passwords(Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1))
        settings = PortalSettings(_env_file=None, database_url=self.url, **self.options)
        self.portal: Portal = build(
            settings, broadcaster=None if self.is_live else self.broadcaster, passwords=passwords
        )
        self._clients: list[httpx2.AsyncClient] = []

    def client(self, **headers: str) -> httpx2.AsyncClient:
        """A client that nobody has signed in."""
        transport = httpx2.ASGITransport(app=self.portal.app, raise_app_exceptions=False)
        client = httpx2.AsyncClient(transport=transport, base_url="http://portal.test", headers=headers)
        self._clients.append(client)
        return client

    async def person(self, name: str = "", *, is_admin: bool = False) -> Person:
        """A new user, signed in by a token."""
        number = next(_numbers)
        name = name or f"Person {number}"
        email = f"person{number}@example.com"
        user = await service.create(
            self.portal.database, self.portal.passwords, name=name, email=email, password=PASSWORD, is_admin=is_admin
        )
        _, token = await self.portal.users.add_token(user.id, "test")
        return Person(user.id, name, email, self.client(authorization=f"Bearer {token}"))

    async def broadcasts(self) -> FakeBroadcaster:
        """The broadcaster, once everything that was announced has been sent."""
        await self.portal.announcer.live.drained()
        while await self.portal.relay.run_once():
            pass
        return self.broadcaster

    async def rows(self, statement: str, **values: Any) -> list[Any]:
        """What the database answers."""
        async with self.portal.database.reading() as session:
            return list((await session.execute(text(statement), values)).all())

    async def execute(self, statement: str, **values: Any) -> None:
        """Change the database behind the portal's back."""
        async with self.portal.database.writing() as session:
            await session.execute(text(statement), values)
        self.portal.users.principals.clear()

    async def direct_message(self, sender: Person, recipient: Person, message: str = "Hello, world!") -> int:
        """A direct message, sent; its id."""
        answer = await sender.post("/api/chat/messages/private", {"recipient_id": recipient.id, "message": message})
        assert answer.status_code == 201, answer.text
        message_id: int = answer.json()["id"]
        return message_id

    async def aclose(self) -> None:
        for client in self._clients:
            await client.aclose()
        await self.portal.stop()


def payloads(sent: FakeBroadcaster, name: str, on: object = None) -> list[dict[str, Any]]:
    """The payloads of what was broadcast under this name, as clients hear them, in order."""
    return [
        json.loads(envelope.payload)
        for envelope in sent.sent
        if envelope.name.rpartition("\\")[2] == name and (on is None or envelope.channel == str(on))
    ]


def ago(**units: float) -> dt.datetime:
    """A time in the past."""
    return dt.datetime.now(dt.UTC) - dt.timedelta(**units)
