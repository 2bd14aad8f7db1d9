"""Events about wallets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from smartlink.broadcasting import BroadcastEvent, PrivateChannel
from smartlink.portal.finance.channels import financial_channel
from smartlink.portal.finance.schemas import TransactionOut
from smartlink.portal.shared.money import money_text
from smartlink.portal.users.schemas import Profile

__all__ = ["BalanceUpdated", "DepositCompleted", "WithdrawalProcessed"]


@dataclass(frozen=True)
class _Movement(BroadcastEvent):
    user: Profile
    transaction: TransactionOut

    def broadcast_on(self) -> PrivateChannel:
        return financial_channel(self.user.id)

    def broadcast_with(self) -> Mapping[str, object]:
        amount = money_text(self.transaction.amount)
        return {"user": self.user, "amount": amount, "transactionId": self.transaction.id}


class DepositCompleted(_Movement):
    """Money was deposited."""


class WithdrawalProcessed(_Movement):
    """Money was withdrawn."""


@dataclass(frozen=True)
class BalanceUpdated(BroadcastEvent):
    """A balance changed. `version` rises with each change, so that clients can ignore older events."""

    user: Profile
    old_balance: Decimal
    new_balance: Decimal
    version: int

    def broadcast_on(self) -> PrivateChannel:
        return financial_channel(self.user.id)

    def broadcast_with(self) -> Mapping[str, object]:
        return {
            "user": self.user,
            "oldBalance": money_text(self.old_balance),
            "newBalance": money_text(self.new_balance),
            "version": self.version,
        }
