"""Money: exact decimals with two places, stored as whole cents, sent as strings."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from sqlalchemy import BigInteger
from sqlalchemy.types import TypeDecorator

__all__ = ["MAX_AMOUNT", "Amount", "Money", "MoneyColumn", "money_text"]

MAX_AMOUNT = Decimal("999999999999.99")
_TEXT = re.compile(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,2})?\Z")
_PATTERN = r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,2})?$"


class MoneyColumn(TypeDecorator[Decimal]):
    """A column that stores an amount in whole cents, because SQLite's decimals are floating point."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Any) -> int | None:
        return None if value is None else int(value.scaleb(2).to_integral_exact())

    def process_result_value(self, value: Any, dialect: Any) -> Decimal | None:
        return None if value is None else Decimal(value).scaleb(-2).quantize(Decimal("0.01"))


def money_text(amount: Decimal) -> str:
    """Return an amount as it is sent: two decimal places, no exponent."""
    return f"{amount:.2f}"


def _amount(value: object) -> Decimal:
    """Parse an amount above zero from a string or a JSON number. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("must be an amount such as 12.50")
    text = value if isinstance(value, str) else repr(value).removesuffix(".0") if value == value else ""
    if not _TEXT.match(text):
        raise ValueError("must be an amount above zero with at most two decimal places, such as 12.50")
    amount = Decimal(text).quantize(Decimal("0.01"))
    if amount <= 0:
        raise ValueError("must be greater than zero")
    return amount


Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    PlainSerializer(money_text, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _PATTERN, "examples": ["12.50"]},
                {"type": "number", "exclusiveMinimum": 0, "maximum": float(MAX_AMOUNT), "multipleOf": 0.01},
            ]
        },
        mode="validation",
    ),
]
"""An amount in a request: above zero, at most 999,999,999,999.99, at most two decimal places."""

Money = Annotated[
    Decimal,
    PlainSerializer(money_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^-?[0-9]+\.[0-9]{2}$", "examples": ["12.50"]}, mode="serialization"),
]
"""An amount in a response."""
