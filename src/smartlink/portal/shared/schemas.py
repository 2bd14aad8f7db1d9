"""Answers that several features give."""

from __future__ import annotations

from pydantic import BaseModel

__all__ = ["Status"]


class Status(BaseModel):
    """Done."""

    status: str = "ok"
