"""What the outbox needs beyond the rest of the library."""

from __future__ import annotations

from smartlink.broadcasting.requirements import require

require("sqlalchemy")
