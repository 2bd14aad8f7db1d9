"""Wallets: balance, deposits, withdrawals, and the list of transactions."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Select, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from smartlink.portal.finance.channels import financial_channel
from smartlink.portal.finance.events import BalanceUpdated, DepositCompleted, WithdrawalProcessed
from smartlink.portal.finance.model import OUTSIDE, LedgerEntry, Transaction, Wallet
from smartlink.portal.finance.schemas import MovementType, TransactionOut, WalletOut
from smartlink.portal.notifications.service import notify
from smartlink.portal.shared.errors import Invalid
from smartlink.portal.shared.idempotency import StoredResponse, once
from smartlink.portal.shared.limits import RateLimits
from smartlink.portal.shared.money import MAX_AMOUNT, money_text
from smartlink.portal.shared.paging import Page, ordered, within
from smartlink.portal.shared.unit_of_work import Announcer, UnitOfWork
from smartlink.portal.users.schemas import Profile
from smartlink.portal.users.service import Principal

__all__ = ["Filter", "Finance", "ledger"]

CURRENCY = "EUR"
EXPORTED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects transactions of one type, at or after `since`, and before `until`; None: no restriction."""

    type: MovementType | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None


def ledger(user_id: int, page: Page, which: Filter) -> Select[Transaction]:
    """Select a page of a user's transactions: newest first, or oldest first after an id."""
    found = (
        select(Transaction)
        .join(Wallet, Wallet.id == Transaction.wallet_id)
        .where(Wallet.user_id == user_id, *within(Transaction.id, page))
    )
    if which.type is not None:
        found = found.where(Transaction.type == which.type)
    if which.since is not None:
        found = found.where(Transaction.created_at >= which.since)
    if which.until is not None:
        found = found.where(Transaction.created_at < which.until)
    return found.order_by(ordered(Transaction.id, page)).limit(page.limit)


class Finance:
    """The caller's own wallet. All methods raise TooMany."""

    def __init__(self, announcer: Announcer, limits: RateLimits) -> None:
        self._announcer = announcer
        self._limits = limits

    async def wallet(self, caller: Principal) -> tuple[WalletOut, int]:
        """Return the wallet, and the id of the last event on its channel that it includes."""
        await self._limits.take("wallet", caller.id)
        async with self._announcer.database.reading() as session:
            event_id = await self._announcer.outbox.latest_id(session, str(financial_channel(caller.id)))
            row = await session.scalar(select(Wallet).where(Wallet.user_id == caller.id))
        if row is None:
            return WalletOut(balance=Decimal(0), currency=CURRENCY, version=0), event_id
        return WalletOut.model_validate(row), event_id

    async def transactions(self, caller: Principal, page: Page, which: Filter) -> list[TransactionOut]:
        """Return a page of transactions."""
        await self._limits.take("wallet", caller.id)
        async with self._announcer.database.reading() as session:
            return await _page(session, caller, page, which)

    async def export(self, caller: Principal, which: Filter) -> AsyncIterator[list[TransactionOut]]:
        """Return all transactions, oldest first, in batches. The first is read at once, so that errors show early."""
        await self._limits.take("wallet", caller.id)
        return self._pieces(caller, which, await self._piece(caller, which, 0))

    async def _pieces(
        self, caller: Principal, which: Filter, rows: list[TransactionOut]
    ) -> AsyncIterator[list[TransactionOut]]:
        while rows:
            yield rows
            rows = [] if len(rows) < EXPORTED_AT_ONCE else await self._piece(caller, which, rows[-1].id)

    async def _piece(self, caller: Principal, which: Filter, after: int) -> list[TransactionOut]:
        async with self._announcer.database.reading() as session:
            return await _page(session, caller, Page(EXPORTED_AT_ONCE, None, after), which)

    async def move(self, caller: Principal, kind: MovementType, amount: Decimal, key: str | None) -> StoredResponse:
        """Deposit or withdraw. Raises Invalid if the balance would fall below zero or exceed `MAX_AMOUNT`."""
        await self._limits.take("wallet", caller.id)
        async with (
            self._announcer.work() as work,
            once(work.session, caller.id, f"wallet.{kind}", key, money_text(amount)) as done,
        ):
            if done.response is not None:
                return done.response
            transaction = await self._move(work, caller, kind, amount)
            done.response = answer = StoredResponse(201, transaction.model_dump_json())
        return answer

    async def _move(self, work: UnitOfWork, caller: Principal, kind: MovementType, amount: Decimal) -> TransactionOut:
        now = dt.datetime.now(dt.UTC)
        gained = amount if kind == "deposit" else -amount
        wallet = await _changed(work.session, caller.id, gained, now)
        row = Transaction(
            wallet_id=wallet.id,
            type=kind,
            amount=amount,
            balance_after=wallet.balance,
            version=wallet.version,
            created_at=now,
        )
        work.session.add(row)
        await work.session.flush()
        work.session.add_all(
            (
                LedgerEntry(transaction_id=row.id, account=f"wallet:{wallet.id}", amount=gained),
                LedgerEntry(transaction_id=row.id, account=OUTSIDE, amount=-gained),
            )
        )
        transaction = TransactionOut.model_validate(row)
        user = Profile(id=caller.id, name=caller.name)
        event = DepositCompleted if kind == "deposit" else WithdrawalProcessed
        work.announce(event(user, transaction))
        work.announce(BalanceUpdated(user, wallet.balance - gained, wallet.balance, wallet.version))
        data = {
            "transaction_id": transaction.id,
            "amount": money_text(amount),
            "currency": wallet.currency,
            "balance": money_text(wallet.balance),
        }
        await notify(work, user, kind, data)
        return transaction


async def _page(session: AsyncSession, caller: Principal, page: Page, which: Filter) -> list[TransactionOut]:
    rows = (await session.scalars(ledger(caller.id, page, which))).all()
    return [TransactionOut.model_validate(row) for row in rows]


async def _changed(session: AsyncSession, user_id: int, gained: Decimal, now: dt.datetime) -> Wallet:
    """Add `gained` and return the wallet, locked until the transaction ends. Raises Invalid like `move`."""
    if gained > 0:
        insert: Any = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
        opened = insert(Wallet).values(
            user_id=user_id, currency=CURRENCY, balance=Decimal(0), version=0, created_at=now, updated_at=now
        )
        await session.execute(opened.on_conflict_do_nothing(index_elements=["user_id"]))
    changed = await session.scalar(
        update(Wallet)
        .where(Wallet.user_id == user_id, Wallet.balance >= -gained, Wallet.balance <= MAX_AMOUNT - gained)
        .values(balance=Wallet.balance + gained, version=Wallet.version + 1, updated_at=now)
        .returning(Wallet)
        .execution_options(synchronize_session=False)
    )
    if changed is None:
        text = "The balance would exceed the maximum." if gained > 0 else "Insufficient balance."
        raise Invalid({"amount": [text]})
    return changed
