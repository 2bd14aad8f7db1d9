"""The type for times in requests: ISO 8601 with a time zone, converted to UTC."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

__all__ = ["A_TIME", "Moment"]

A_TIME = "must be a time with a time zone, such as 2026-01-31T12:00:00Z"
# Numbers, and strings of digits, would be taken for seconds since 1970.
_FORM = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}")


def _text(value: object) -> object:
    if isinstance(value, dt.datetime):
        return value
    if not isinstance(value, str) or not _FORM.match(value):
        raise ValueError(A_TIME)
    return value


def _utc(value: dt.datetime) -> dt.datetime:
    try:
        return value.astimezone(dt.UTC)
    except OverflowError:
        raise ValueError("must be within the years 1 to 9999 in UTC") from None


Moment = Annotated[AwareDatetime, BeforeValidator(_text), AfterValidator(_utc)]
"""A time in a request."""
