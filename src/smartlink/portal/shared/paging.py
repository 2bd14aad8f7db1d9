"""Ids in paths and cursors in queries: canonical decimal numbers that fit the database, everything else is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query
from pydantic import BeforeValidator, Field, WithJsonSchema
from sqlalchemy import ColumnElement
from sqlalchemy.orm import InstrumentedAttribute

from smartlink.portal.shared.errors import NotFound

__all__ = ["EVENT_ID", "MAX_ID", "Cursor", "Limit", "Page", "PathId", "WhichPage", "ordered", "page", "within"]

Ids = InstrumentedAttribute[int] | ColumnElement[int]

EVENT_ID = "X-Event-Id"
"""Header of a list: up to which event of its channel it is current."""

MAX_ID = 2**63 - 1
_ID = re.compile(r"[1-9][0-9]{0,18}\Z")


def _path_id(text: object) -> int:
    if not isinstance(text, str) or not _ID.match(text) or int(text) > MAX_ID:
        # Not a ValueError on purpose: a name that no record can have is "not found", not "bad input".
        raise NotFound
    return int(text)


PathId = Annotated[int, BeforeValidator(_path_id), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_ID})]
"""An id in a path. An odd one (`abc`, `-1`, `01`, `9223372036854775808`) is 404 like any that is not there."""


def _cursor(text: object) -> object:
    if isinstance(text, str) and (not re.match(r"[0-9]{1,19}\Z", text) or int(text) > MAX_ID):
        raise ValueError("must be a whole number")
    return text


# What is said about bounds here would be lost behind the validator, so the schema says it itself.
Cursor = Annotated[int, BeforeValidator(_cursor), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_ID})]
"""An id in a query, or 0."""

Limit = Annotated[int, BeforeValidator(_cursor), Field(ge=1)]
"""How many of a list at most. Where it is used says up to how many, and describes itself."""


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list: at most `limit`, before or after an id."""

    limit: int
    before: int | None
    after: int | None


async def page(
    limit: Annotated[Limit, Query(le=100), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 100})] = 50,
    before: Annotated[Cursor | None, Query()] = None,
    after: Annotated[Cursor | None, Query()] = None,
) -> Page:
    """The page a request asks for; a dependency."""
    return Page(limit, before, after)


WhichPage = Annotated[Page, Depends(page)]


def within(column: Ids, page: Page) -> list[ColumnElement[bool]]:
    """The conditions that bound a page."""
    bounds: list[ColumnElement[bool]] = []
    if page.before is not None:
        bounds.append(column < page.before)
    if page.after is not None:
        bounds.append(column > page.after)
    return bounds


def ordered(column: Ids, page: Page) -> Any:
    """Newest first; after an id, oldest first, so that nothing is passed over."""
    return column.desc() if page.after is None else column.asc()
