"""Demo data: three users with messages, campaigns and wallets. Adding it again changes nothing."""

from __future__ import annotations

import asyncio
import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from smartlink.portal.campaigns.model import Campaign, CampaignActivity
from smartlink.portal.chat.model import ChatMessage
from smartlink.portal.finance.model import OUTSIDE, LedgerEntry, Transaction, Wallet
from smartlink.portal.finance.service import CURRENCY
from smartlink.portal.notifications.model import Notification
from smartlink.portal.shared.db import Database
from smartlink.portal.shared.money import money_text
from smartlink.portal.shared.passwords import Passwords
from smartlink.portal.shared.settings import async_url
from smartlink.portal.users.model import User
from smartlink.portal.users.service import create

__all__ = ["DemoUser", "create_user", "seed"]


@dataclass(frozen=True, slots=True)
class DemoUser:
    """A demo account."""

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
_CAMPAIGNS = (
    ("ana@example.com", "Spring sale", "Ten per cent off what grows.", "1500.00", "active"),
    ("ana@example.com", "Summer newsletter", None, "320.00", "draft"),
    ("ben@example.com", "Coffee week", "A free cup with every order.", "80.50", "inactive"),
)
_MOVED = (
    ("ana@example.com", "deposit", "250.00"),
    ("ana@example.com", "withdrawal", "70.25"),
    ("ben@example.com", "deposit", "42.00"),
)


def seed(url: str) -> list[DemoUser]:
    """Add the demo data that is missing to a migrated database. Returns the accounts."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _seed(async_url(url))).result()
    return list(DEMO_USERS)


def create_user(url: str, *, name: str, email: str, password: str, is_admin: bool = False) -> int:
    """Create a user. Returns the id. Raises Invalid if the address is taken."""

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
                await session.flush()
            await _add_business(session, known)
    finally:
        await database.aclose()


async def _add_people(database: Database, missing: list[DemoUser], known: dict[str, int]) -> None:
    passwords = Passwords()
    for demo in missing:
        user = await create(
            database, passwords, name=demo.name, email=demo.email, password=demo.password, is_admin=demo.is_admin
        )
        known[demo.email] = user.id


async def _add_business(session: AsyncSession, ids: dict[str, int]) -> None:
    """Add campaigns, wallets and their notifications, for users without."""
    now = dt.datetime.now(dt.UTC)
    with_campaigns = set(await session.scalars(select(Campaign.user_id).where(Campaign.user_id.in_(ids.values()))))
    with_wallets = set(await session.scalars(select(Wallet.user_id).where(Wallet.user_id.in_(ids.values()))))
    for email, name, description, budget, status in _CAMPAIGNS:
        if ids[email] not in with_campaigns:
            await _add_campaign(
                session,
                ids,
                Campaign(
                    user_id=ids[email],
                    name=name,
                    description=description,
                    status=status,
                    budget=Decimal(budget),
                    version=1 if status == "draft" else 2,
                    created_at=now - dt.timedelta(hours=3),
                    updated_at=now - dt.timedelta(hours=1),
                ),
            )
    for email in dict.fromkeys(email for email, _, _ in _MOVED):
        if ids[email] not in with_wallets:
            await _add_money(
                session, ids[email], [(kind, Decimal(amount)) for who, kind, amount in _MOVED if who == email]
            )


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


async def _add_campaign(session: AsyncSession, ids: dict[str, int], campaign: Campaign) -> None:
    session.add(campaign)
    await session.flush()
    done: list[tuple[int, str, dt.datetime, dict[str, Any]]] = [(campaign.user_id, "created", campaign.created_at, {})]
    if campaign.status != "draft":
        action = "activated" if campaign.status == "active" else "deactivated"
        before = "draft" if campaign.status == "active" else "active"
        admin_id = ids["admin@example.com"]
        done.append((admin_id, action, campaign.updated_at, {"status": [before, campaign.status]}))
        about = {
            "campaign_id": campaign.id,
            "name": campaign.name,
            "action": action,
            "by": {"id": admin_id, "name": "Admin"},
        }
        session.add(_notification(campaign.user_id, "campaign_changed", about, campaign.updated_at))
    session.add_all(
        CampaignActivity(campaign_id=campaign.id, user_id=user_id, action=action, changes=changes, created_at=at)
        for user_id, action, at, changes in done
    )


async def _add_money(session: AsyncSession, user_id: int, moved: list[tuple[str, Decimal]]) -> None:
    start = dt.datetime.now(dt.UTC) - dt.timedelta(hours=len(moved))
    wallet = Wallet(
        user_id=user_id, currency=CURRENCY, balance=Decimal(0), version=0, created_at=start, updated_at=start
    )
    session.add(wallet)
    await session.flush()
    for hour, (kind, amount) in enumerate(moved):
        gained = amount if kind == "deposit" else -amount
        wallet.balance += gained
        wallet.version += 1
        wallet.updated_at = at = start + dt.timedelta(hours=hour)
        row = Transaction(
            wallet_id=wallet.id,
            type=kind,
            amount=amount,
            balance_after=wallet.balance,
            version=wallet.version,
            created_at=at,
        )
        session.add(row)
        await session.flush()
        session.add_all(
            (
                LedgerEntry(transaction_id=row.id, account=f"wallet:{wallet.id}", amount=gained),
                LedgerEntry(transaction_id=row.id, account=OUTSIDE, amount=-gained),
            )
        )
        about = {
            "transaction_id": row.id,
            "amount": money_text(amount),
            "currency": CURRENCY,
            "balance": money_text(wallet.balance),
        }
        session.add(_notification(user_id, kind, about, at))


def _notification(user_id: int, kind: str, data: dict[str, Any], at: dt.datetime) -> Notification:
    return Notification(user_id=user_id, type=kind, data=data, created_at=at)
