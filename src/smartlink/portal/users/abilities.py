"""The abilities of tokens. Each endpoint names the ability it needs; the pages' sessions have all of them."""

from __future__ import annotations

from typing import Final, Literal, get_args

__all__ = ["ABILITIES", "ALL", "Ability", "AbilityOrAll"]

Ability = Literal[
    "user:read",
    "user:write",
    "tokens:read",
    "tokens:write",
    "chat:read",
    "chat:write",
    "notifications:read",
    "notifications:write",
    "campaigns:read",
    "campaigns:write",
    "wallet:read",
    "wallet:write",
    "admin:read",
    "admin:write",
]
AbilityOrAll = Literal["*", Ability]

ALL: Final = "*"
"""Every ability, including those of later versions."""
ABILITIES: Final[tuple[Ability, ...]] = get_args(Ability)
