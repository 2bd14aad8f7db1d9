"""Tables of the ledger: accounts, movements of a wallet, and the two entries behind each movement."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from smartlink.portal.shared.db import Base, BigId, UtcDateTime
from smartlink.portal.shared.money import MoneyColumn

__all__ = ["LedgerEntry", "Transaction", "Wallet"]

OUTSIDE = "outside"
"""The account on the other side of each deposit and withdrawal: the world. Its balance is minus all wallets'."""


class Wallet(Base):
    """A user's account. `balance` is the sum of its entries; `version` counts its movements."""

    __tablename__ = "wallets"
    __table_args__ = (
        CheckConstraint("balance >= 0", name="ck_wallets_balance"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), unique=True)
    currency: Mapped[str] = mapped_column(String(3))
    balance: Mapped[Decimal] = mapped_column(MoneyColumn)
    version: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class Transaction(Base):
    """One movement of a wallet, as its owner sees it. `version` is the wallet's after it: no gap, no repeat."""

    __tablename__ = "wallet_transactions"
    __table_args__ = (
        Index("ix_wallet_transactions_wallet", "wallet_id", "id"),
        Index("uq_wallet_transactions_version", "wallet_id", "version", unique=True),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    wallet_id: Mapped[int] = mapped_column(ForeignKey("wallets.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(String(16))
    amount: Mapped[Decimal] = mapped_column(MoneyColumn)
    balance_after: Mapped[Decimal] = mapped_column(MoneyColumn)
    version: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class LedgerEntry(Base):
    """One side of a movement: what an account gained, or lost where it is below zero. The sides sum to zero.

    `account` is `wallet:{id}` or `outside`.
    """

    __tablename__ = "ledger_entries"
    __table_args__ = (
        Index("ix_ledger_entries_transaction", "transaction_id"),
        Index("ix_ledger_entries_account", "account", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    transaction_id: Mapped[int] = mapped_column(ForeignKey("wallet_transactions.id", ondelete="CASCADE"))
    account: Mapped[str] = mapped_column(String(32))
    amount: Mapped[Decimal] = mapped_column(MoneyColumn)
