"""Responses shared by several features."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

__all__ = ["RealtimeEndpoint", "Status", "Up"]


class Status(BaseModel):
    """Done."""

    status: Literal["ok"] = "ok"


class Up(BaseModel):
    """The portal can serve."""

    status: Literal["ok", "degraded"] = "ok"
    problems: list[str] | None = None


class RealtimeEndpoint(BaseModel):
    """How browsers reach the realtime server."""

    key: str
    host: str
    port: int
    scheme: Literal["http", "https"]
