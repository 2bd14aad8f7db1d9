"""`manage.py broadcast_failed list|retry|forget`: events that the service refused."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from smartlink.broadcasting.outbox.django.engine import opened_outbox
from smartlink.broadcasting.outbox.failed import RETRIED_AT_ONCE, FailedEvent, FailedEvents

__all__ = ["Command"]


class Command(BaseCommand):  # type: ignore[misc] # Django has no types
    """Dead letters, for a person."""

    help = "Show events that were set aside, send them again as new ones, or delete them for good."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", choices=["list", "retry", "forget"])
        parser.add_argument("which", nargs="?", metavar="ID|all", help="an event's id, or all; for retry and forget")
        parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON")
        parser.add_argument("--limit", type=int, default=100, help="how many to show (100)")
        parser.add_argument("--using", default="default", help="the database of the settings (default)")
        parser.add_argument("--url", help="SQLAlchemy's address of it, where the settings do not say it all")

    def handle(self, **options: Any) -> None:
        """Show, or change and say how many."""
        action, which = options["action"], options["which"]
        if action != "list" and which != "all" and not (which and which.isascii() and which.isdigit()):
            raise CommandError(f"{action} what? Give an event's id, or all")
        try:
            said = asyncio.run(_do(options))
        except (DBAPIError, OSError) as error:
            raise CommandError(f"the database cannot be used; has `migrate` been run? {error}") from None
        self.stdout.write(said)


async def _do(options: dict[str, Any]) -> str:
    action, which = options["action"], options["which"]
    async with opened_outbox(options["using"], options["url"]) as (engine, tables):
        failed = FailedEvents(tables)
        if action == "list":
            async with AsyncSession(engine) as session:
                return _shown(await failed.list(session, limit=options["limit"]), as_json=options["as_json"])
        count, through = 0, None
        while True:
            async with AsyncSession(engine) as session, session.begin():
                if which != "all":
                    change = failed.retry if action == "retry" else failed.forget
                    count = int(await change(session, int(which)))
                    break
                if action == "forget":
                    count = await failed.forget_all(session)
                    break
                if through is None:
                    through = next((event.id for event in await failed.list(session, limit=1)), 0)
                step = await failed.retry_all(session, through=through)
            count += step
            if step < RETRIED_AT_ONCE:
                break
    if not count:
        raise CommandError("No event has failed" if which == "all" else f"No failed event has the id {which}")
    return f"{count} {'waiting to be sent again' if action == 'retry' else 'forgotten'}"


def _shown(events: list[FailedEvent], *, as_json: bool) -> str:
    if as_json:
        return json.dumps([dataclasses.asdict(event) for event in events], default=str)
    lines = [f"{event.id:>8}  {event.created_at:%Y-%m-%d %H:%M:%S}  {event.channel}  {event.name}  {event.error}"
             for event in events]  # fmt: skip
    return "\n".join(lines) or "No failed events"
