"""`manage.py broadcast_failed list|retry|forget`: the failed events of the outbox."""

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
    """Lists, retries and deletes failed events."""

    help = "List failed events, retry them as new events, or delete them permanently."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", choices=["list", "retry", "forget"])
        parser.add_argument("which", nargs="?", metavar="ID|all", help="an event id, or all; for retry and forget")
        parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON")
        parser.add_argument("--limit", type=int, default=100, help="how many to show (100)")
        parser.add_argument("--using", default="default", help="alias of the database in DATABASES (default)")
        parser.add_argument("--url", help="SQLAlchemy URL of the database, if DATABASES is not enough")

    def handle(self, **options: Any) -> None:
        """Run the action and print its result. Raises CommandError."""
        action, which = options["action"], options["which"]
        if action != "list" and which != "all" and not (which and which.isascii() and which.isdigit()):
            raise CommandError(f"{action}: give an event id, or all")
        try:
            said = asyncio.run(_do(options))
        except (DBAPIError, OSError) as error:
            raise CommandError(f"The database cannot be used. Did you run `migrate`? {error}") from None
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
        raise CommandError("There are no failed events" if which == "all" else f"There is no failed event {which}")
    events = "1 event" if count == 1 else f"{count} events"
    return f"{events} {'queued again' if action == 'retry' else 'deleted'}"


def _shown(events: list[FailedEvent], *, as_json: bool) -> str:
    if as_json:
        return json.dumps([dataclasses.asdict(event) for event in events], default=str)
    lines = [f"{event.id:>8}  {event.created_at:%Y-%m-%d %H:%M:%S}  {event.channel}  {event.name}  {event.error}"
             for event in events]  # fmt: skip
    return "\n".join(lines) or "No failed events"
