"""Demo data: three people and something they have said. Done twice, it is there once."""

from __future__ import annotations

import asyncio
import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import func, select

from smartlink.portal.chat.model import ChatMessage
from smartlink.portal.shared.db import Database
from smartlink.portal.shared.security import Passwords
from smartlink.portal.shared.settings import async_url
from smartlink.portal.users.model import User
from smartlink.portal.users.service import create

__all__ = ["DemoUser", "create_user", "seed"]


@dataclass(frozen=True, slots=True)
class DemoUser:
    """A sign-in to print."""

    name: str
    email: str
    password: str
    is_admin: bool = False


DEMO_USERS = (
    DemoUser("Ana", "ana@example.com", "password"),
    DemoUser("Ben", "ben@example.com", "password"),
    DemoUser("Admin", "admin@example.com", "password", is_admin=True),
)
_SAID = (
    ("ana@example.com", None, "Good morning! Is anybody here?"),
    ("ben@example.com", None, "Morning Ana. I am. Coffee is ready ☕"),
    ("admin@example.com", None, "Welcome to SmartLink. Open a second window to see messages arrive."),
    ("ana@example.com", "ben@example.com", "Do you have a minute for the spring campaign?"),
    ("ben@example.com", "ana@example.com", "Sure, send it over."),
    ("ana@example.com", "ben@example.com", "Thank you, on its way."),
)


def seed(url: str) -> list[DemoUser]:
    """Add the demo data to a migrated database, as far as it is not there; the sign-ins to print."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _seed(async_url(url))).result()
    return list(DEMO_USERS)


def create_user(url: str, *, name: str, email: str, password: str, is_admin: bool = False) -> int:
    """Create a user and return the id. Raises Invalid when the address is taken."""

    async def add() -> int:
        database = Database(async_url(url))
        try:
            user = await create(database, Passwords(), name=name, email=email, password=password, is_admin=is_admin)
            return user.id
        finally:
            await database.aclose()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, add()).result()


async def _seed(url: str) -> None:
    database = Database(url)
    try:
        async with database.reading() as session:
            emails = [user.email for user in DEMO_USERS]
            known = {user.email: user.id for user in await session.scalars(select(User).where(User.email.in_(emails)))}
        missing = [user for user in DEMO_USERS if user.email not in known]
        if missing:
            await _add_people(database, missing, known)
        async with database.writing() as session:
            if not await session.scalar(select(func.count()).where(ChatMessage.user_id.in_(known.values()))):
                session.add_all(_messages(known))
    finally:
        await database.aclose()


async def _add_people(database: Database, missing: list[DemoUser], known: dict[str, int]) -> None:
    passwords = Passwords()
    for demo in missing:
        user = await create(
            database, passwords, name=demo.name, email=demo.email, password=demo.password, is_admin=demo.is_admin
        )
        known[demo.email] = user.id


def _messages(ids: dict[str, int]) -> list[ChatMessage]:
    start = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=len(_SAID))
    return [
        ChatMessage(
            user_id=ids[sender],
            recipient_id=None if recipient is None else ids[recipient],
            message=text,
            created_at=start + dt.timedelta(minutes=minute),
            updated_at=start + dt.timedelta(minutes=minute),
        )
        for minute, (sender, recipient, text) in enumerate(_SAID)
    ]
