"""Ids in paths and cursors in queries: canonical decimal numbers that fit the database."""

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
"""Response header of a list: the last event of its channel that it includes."""

MAX_ID = 2**63 - 1
_ID = re.compile(r"[1-9][0-9]{0,18}\Z")


def _path_id(text: object) -> int:
    if not isinstance(text, str) or not _ID.match(text) or int(text) > MAX_ID:
        # Not a ValueError, on purpose: an id that no record can have is "not found", not invalid input.
        raise NotFound
    return int(text)


PathId = Annotated[int, BeforeValidator(_path_id), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_ID})]
"""An id in a path. A malformed one (`abc`, `-1`, `01`, `9223372036854775808`) is a 404, like any unknown one."""


def _cursor(text: object) -> object:
    if isinstance(text, str) and (not re.match(r"[0-9]{1,19}\Z", text) or int(text) > MAX_ID):
        raise ValueError("must be a whole number")
    return text


# Pydantic drops bounds given after a validator from the schema, so it is spelled out.
Cursor = Annotated[int, BeforeValidator(_cursor), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_ID})]
"""An id in a query, or 0."""

Limit = Annotated[int, BeforeValidator(_cursor), Field(ge=1)]
"""The maximum length of a list. Each use adds its own upper bound and schema."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: at most `limit` records, before or after an id."""

    limit: int
    before: int | None
    after: int | None


async def page(
    limit: Annotated[Limit, Query(le=100), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 100})] = 50,
    before: Annotated[Cursor | None, Query()] = None,
    after: Annotated[Cursor | None, Query()] = None,
) -> Page:
    """Return the page a request asks for; a dependency."""
    return Page(limit, before, after)


WhichPage = Annotated[Page, Depends(page)]


def within(column: Ids, page: Page) -> list[ColumnElement[bool]]:
    """Return the conditions for a page's ids."""
    bounds: list[ColumnElement[bool]] = []
    if page.before is not None:
        bounds.append(column < page.before)
    if page.after is not None:
        bounds.append(column > page.after)
    return bounds


def ordered(column: Ids, page: Page) -> Any:
    """Return the order of a page: newest first, or oldest first after an id, so that nothing is skipped."""
    return column.desc() if page.after is None else column.asc()
