"""Money movements as they are sent and seen."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import BaseModel, ConfigDict

from smartlink.portal.shared.money import Amount, Money

__all__ = ["Movement", "MovementType", "TransactionOut", "WalletOut"]

MovementType = Literal["deposit", "withdrawal"]


class Movement(BaseModel):
    """How much is to move."""

    amount: Amount


class WalletOut(BaseModel):
    """A wallet. `version` counts its movements: a page that knows an older one is behind."""

    model_config = ConfigDict(from_attributes=True)

    balance: Money
    currency: str
    version: int


class TransactionOut(BaseModel):
    """One movement."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    type: MovementType
    amount: Money
    balance_after: Money
    version: int
    created_at: dt.datetime
