"""The response schema of notifications."""

from __future__ import annotations

import datetime as dt
from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["NotificationOut"]


class NotificationOut(BaseModel):
    """A notification."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    type: str
    data: dict[str, Any]
    read_at: dt.datetime | None
    created_at: dt.datetime
