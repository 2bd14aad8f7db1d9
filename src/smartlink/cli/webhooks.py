"""`smartlink webhooks …`: lists, retries and deletes webhooks that could not be delivered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar
from urllib.parse import urlsplit

import typer

from smartlink.cli.failures import fail, server_errors, settings_errors
from smartlink.cli.logs import configure
from smartlink.cli.wording import counted

if TYPE_CHECKING:
    from smartlink.server.webhooks.queue import FailedBatch, WebhookQueue

__all__ = ["register"]

T = TypeVar("T")
webhooks = typer.Typer(
    help="Webhooks that could not be delivered.", no_args_is_help=True, pretty_exceptions_enable=False
)


def register(app: typer.Typer) -> None:
    app.add_typer(webhooks, name="webhooks")


@webhooks.command("failed")
def list_failed(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, including the events.")] = False,
) -> None:
    """List failed batches of events, newest first."""
    batches = _with_queue(lambda queue: queue.failed())
    if as_json:
        _say(json.dumps([_fields(batch) for batch in batches]))
        return
    for batch in batches:
        at = datetime.fromtimestamp(batch.failed_at, UTC).strftime("%Y-%m-%d %H:%M:%S")
        where = urlsplit(batch.address.url)
        target = f"{where.scheme}://{where.netloc}{where.path}"
        events = counted(len(batch.entries), "event")
        _say(f"{batch.id:>8}  {at}  app {batch.address.app_id}  {target}  {events}  {batch.reason}")
    if not batches:
        _say("No failed webhooks")


@webhooks.command()
def retry(batch: Annotated[str, typer.Argument(metavar="ID", help="A batch id, or all.")]) -> None:
    """Retry a failed batch, or all of them, after the batches that are already waiting."""
    number = _id(batch)
    _report(_with_queue(lambda queue: queue.retry(number)), batch, "queued again")


@webhooks.command()
def forget(batch: Annotated[str, typer.Argument(metavar="ID", help="A batch id, or all.")]) -> None:
    """Delete a failed batch, or all of them, permanently."""
    number = _id(batch)
    _report(_with_queue(lambda queue: queue.forget(number)), batch, "deleted")


def _fields(batch: FailedBatch) -> dict[str, object]:
    return {
        "id": batch.id,
        "app_id": batch.address.app_id,
        "url": batch.address.url,
        "failed_at": datetime.fromtimestamp(batch.failed_at, UTC).isoformat(),
        "reason": batch.reason,
        "events": [{"at": entry.at} | json.loads(entry.event) for entry in batch.entries],
    }


def _id(text: str) -> int | None:
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        fail(f"{text[:60]!r} is not a batch id; give one, or all", 2)
    return int(text)


def _report(count: int, batch: str, what: str) -> None:
    if not count and batch != "all":
        fail(f"There is no failed batch {batch}")
    _say(f"{counted(count, 'batch', 'batches')} {what}")


def _with_queue(work: Callable[[WebhookQueue], Awaitable[T]]) -> T:
    from smartlink.server.run.engines import webhook_queue_for
    from smartlink.server.settings.config import ServerSettings

    configure()
    with settings_errors():
        settings = ServerSettings()
        queue = webhook_queue_for(settings)
    where = settings.webhook_queue
    if where == "memory":
        fail("REVERB_WEBHOOK_QUEUE=memory keeps failed webhooks only in the server's process, out of reach from here")
    if where.startswith("sqlite:///") and not Path(where.removeprefix("sqlite:///")).exists():
        fail(f"There is no queue at {where} yet (REVERB_WEBHOOK_QUEUE). The server creates it with the first webhook")

    async def main() -> T:
        await queue.start()
        try:
            return await work(queue)
        finally:
            await queue.stop()

    with server_errors():
        return asyncio.run(main())


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 — this is the command line
