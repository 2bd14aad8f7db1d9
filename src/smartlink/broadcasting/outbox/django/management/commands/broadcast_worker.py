"""`manage.py broadcast_worker`: sends what `DjangoOutbox` recorded."""

from __future__ import annotations

import asyncio
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.module_loading import import_string
from sqlalchemy.exc import DBAPIError

from smartlink.broadcasting.broadcaster import Broadcaster
from smartlink.broadcasting.errors import BroadcastConfigError
from smartlink.broadcasting.facade import BaseBroadcasting
from smartlink.broadcasting.outbox.django.engine import opened_outbox
from smartlink.broadcasting.outbox.relay import Until
from smartlink.broadcasting.outbox.status import read_status
from smartlink.broadcasting.outbox.worker import run_worker

__all__ = ["Command"]


class Command(BaseCommand):  # type: ignore[misc] # Django has no types
    """One worker process; any number may run."""

    help = "Send recorded events until told to stop. Any number of workers may run."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--queue", help="queues to take, first one first: high,default; all when not given")
        parser.add_argument("--concurrency", type=int, default=4, help="calls of the service side by side (4)")
        parser.add_argument("--stop-when-empty", action="store_true", help="end once nothing waits")
        parser.add_argument("--max-jobs", type=int, help="end after so many events")
        parser.add_argument("--max-time", type=float, help="end after so many seconds")
        parser.add_argument("--using", default="default", help="the database of the settings (default)")
        parser.add_argument("--url", help="SQLAlchemy's address of it, where the settings do not say it all")
        parser.add_argument("--redis-url", help="the Redis over which the outbox rings")
        parser.add_argument(
            "--broadcaster",
            help="import path of a Broadcaster or DjangoBroadcasting, or of a function that makes a Broadcaster",
        )

    def handle(self, **options: Any) -> None:
        """Until a signal comes, or what the options say has been done."""
        try:
            asyncio.run(_work(options))
        except (BroadcastConfigError, ImportError, ValueError) as error:
            raise CommandError(str(error)) from None
        except (DBAPIError, OSError) as error:
            raise CommandError(f"the database cannot be used; has `migrate` been run? {error}") from None


async def _work(options: dict[str, Any]) -> None:
    async with opened_outbox(options["using"], options["url"]) as (engine, tables):
        await read_status(engine, tables)  # The relay outlives a database that is away; the start tells of it.
        async with _broadcaster(options["broadcaster"]) as broadcaster:
            await run_worker(
                engine,
                tables,
                broadcaster,
                queues=options["queue"].split(",") if options["queue"] else None,
                concurrency=options["concurrency"],
                until=Until(options["max_jobs"], options["max_time"], options["stop_when_empty"]),
                redis_url=options["redis_url"],
            )


def _broadcaster(path: str | None) -> Broadcaster:
    if path is None:
        return Broadcaster.from_settings()
    found = import_string(path)
    if isinstance(found, BaseBroadcasting):
        return found.broadcaster
    broadcaster = found if isinstance(found, Broadcaster) else found()
    if not isinstance(broadcaster, Broadcaster):
        raise CommandError(f"--broadcaster {path} gives {type(broadcaster).__name__}; it has to give a Broadcaster")
    return broadcaster
