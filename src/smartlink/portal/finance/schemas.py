"""Request and response schemas of wallets."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import BaseModel, ConfigDict

from smartlink.portal.shared.money import Amount, Money

__all__ = ["Movement", "MovementType", "TransactionOut", "WalletOut"]

MovementType = Literal["deposit", "withdrawal"]


class Movement(BaseModel):
    """The amount of a deposit or withdrawal."""

    amount: Amount


class WalletOut(BaseModel):
    """A wallet. `version` counts its transactions: a client with a lower one is out of date."""

    model_config = ConfigDict(from_attributes=True)

    balance: Money
    currency: str
    version: int


class TransactionOut(BaseModel):
    """A deposit or withdrawal."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    type: MovementType
    amount: Money
    balance_after: Money
    version: int
    created_at: dt.datetime
