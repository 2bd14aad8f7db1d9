"""The channel of a user's wallet. Its rule is with the users' own channels."""

from __future__ import annotations

from smartlink.broadcasting import PrivateChannel

__all__ = ["financial_channel"]


def financial_channel(user_id: int) -> PrivateChannel:
    """Return the channel of a user's wallet."""
    return PrivateChannel(f"financial.{user_id}")
