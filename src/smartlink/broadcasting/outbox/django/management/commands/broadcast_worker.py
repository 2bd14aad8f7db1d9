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
    """Runs one worker process; any number may run at once."""

    help = "Send recorded events until stopped. Any number of workers may run at once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--queue", help="queues to work on, in order of priority: high,default (all)")
        parser.add_argument("--concurrency", type=int, default=4, help="calls of the service to make at once (4)")
        parser.add_argument("--stop-when-empty", action="store_true", help="exit once no event is waiting")
        parser.add_argument("--max-jobs", type=int, help="exit after this many events")
        parser.add_argument("--max-time", type=float, help="exit after this many seconds")
        parser.add_argument("--using", default="default", help="alias of the database in DATABASES (default)")
        parser.add_argument("--url", help="SQLAlchemy URL of the database, if DATABASES is not enough")
        parser.add_argument("--redis-url", help="Redis that the outbox uses to wake workers")
        parser.add_argument(
            "--broadcaster",
            help="import path of a Broadcaster or DjangoBroadcasting, or of a function that returns a Broadcaster",
        )

    def handle(self, **options: Any) -> None:
        """Run until a signal, or until the limits in the options are reached. Raises CommandError."""
        try:
            asyncio.run(_work(options))
        except (BroadcastConfigError, ImportError, ValueError) as error:
            raise CommandError(str(error)) from None
        except (DBAPIError, OSError) as error:
            raise CommandError(f"The database cannot be used. Did you run `migrate`? {error}") from None


async def _work(options: dict[str, Any]) -> None:
    async with opened_outbox(options["using"], options["url"]) as (engine, tables):
        await read_status(engine, tables)  # Fail now if the database is down: the relay itself would retry.
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
        raise CommandError(f"--broadcaster {path} must name a Broadcaster, not {type(broadcaster).__name__}")
    return broadcaster
