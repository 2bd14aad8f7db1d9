"""Where money movements are heard. Who may listen is said with the users' own channels."""

from __future__ import annotations

from smartlink.broadcasting import PrivateChannel

__all__ = ["financial_channel"]


def financial_channel(user_id: int) -> PrivateChannel:
    """The channel on which a user hears of their money."""
    return PrivateChannel(f"financial.{user_id}")
