"""Answers that several features give."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

__all__ = ["RealtimePlace", "Status"]


class Status(BaseModel):
    """Done."""

    status: Literal["ok"] = "ok"


class RealtimePlace(BaseModel):
    """Where browsers find the realtime server."""

    key: str
    host: str
    port: int
    scheme: Literal["http", "https"]
