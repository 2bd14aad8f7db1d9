"""Requires the packages that the outbox needs in addition to the library's."""

from __future__ import annotations

from smartlink.broadcasting.requirements import require

require("sqlalchemy")
