"""`smartlink worker …`: runs the worker that sends recorded events, and reports how far behind it is."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Annotated

import typer

from smartlink.cli.failures import database_errors, fail, settings_errors
from smartlink.cli.logs import configure
from smartlink.cli.portal import require_tables, settings_with_database, with_portal
from smartlink.cli.wording import waiting

if TYPE_CHECKING:
    from smartlink.broadcasting.outbox import OutboxStatus
    from smartlink.portal.main import Portal
    from smartlink.portal.shared.background import WorkerOptions

__all__ = ["register"]

worker = typer.Typer(
    help="The worker: sends recorded events and runs scheduled jobs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,32}\Z")


def register(app: typer.Typer) -> None:
    app.add_typer(worker, name="worker")


@worker.command()
def start(
    queue: Annotated[
        str | None, typer.Option(help="Queues to work on, in order of priority: high,default,low. Default: all.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Calls of the service to make at once.")] = 4,
    once: Annotated[bool, typer.Option("--once", help="Send the events waiting now, then exit.")] = False,
    stop_when_empty: Annotated[bool, typer.Option("--stop-when-empty", help="Exit once no event is waiting.")] = False,
    max_jobs: Annotated[int | None, typer.Option(min=1, help="Exit after this many events.")] = None,
    max_time: Annotated[float | None, typer.Option(min=0, help="Exit after this many seconds.")] = None,
) -> None:
    """Start a worker. Several workers share the load; each channel belongs to one worker at a time."""
    from smartlink.broadcasting.outbox import Until
    from smartlink.cli import running
    from smartlink.portal.main import check_broadcasting
    from smartlink.portal.shared.background import WorkerOptions
    from smartlink.portal.shared.settings import check_start

    queues = None if queue is None else _queues(queue)
    until = Until(max_jobs=max_jobs, max_time_s=max_time, is_empty=stop_when_empty)
    options = WorkerOptions(queues=queues, concurrency=concurrency, until=until)
    settings = settings_with_database()
    with settings_errors():
        check_start(settings)
        check_broadcasting(settings)
    require_tables(settings)
    if once:
        _send_once(options)
        return
    with database_errors():
        running.run(lambda stop: running.serve_worker(settings, stop, options))


@worker.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    max_lag: Annotated[float, typer.Option(min=0, help="Longest acceptable lag, in seconds.")] = 30.0,
) -> None:
    """Show waiting and failed events, the lag (the age of the oldest waiting event), and the workers.

    Exits with 1 if no worker is running or the lag is too long.
    """
    configure()

    async def work(portal: Portal) -> OutboxStatus:
        from smartlink.broadcasting.outbox import read_status
        from smartlink.portal.shared.db import outbox_tables

        return await read_status(portal.database.engine, outbox_tables)

    found = with_portal(work)
    problems = _problems(found, max_lag)
    if as_json:
        _say(json.dumps({"ok": not problems, "problems": problems, **dataclasses.asdict(found)}))
    else:
        _show(found)
        for problem in problems:
            _say(problem)
    if problems:
        raise typer.Exit(1)


def _problems(found: OutboxStatus, max_lag_s: float) -> list[str]:
    problems = []
    if not found.has_worker:
        problems.append("No worker is running, so no events are sent. Start one: smartlink worker start")
    else:
        problems += [
            f"No worker handles the queue {queue.name}: {waiting(queue.waiting)}. "
            f"Start one: smartlink worker start --queue {queue.name}"
            for queue in found.queues
            if not queue.has_worker
        ]
    if found.lag_s > max_lag_s:
        problems.append(f"The oldest event has been waiting for {found.lag_s:.0f} s, more than {max_lag_s:g} s")
        if found.last_error:
            problems.append(f"Last error: {found.last_error}")
    return problems


def _show(found: OutboxStatus) -> None:
    _say(f"waiting {found.waiting}   lag {found.lag_s:.1f} s   failed {found.failed}")
    for queue in found.queues:
        _say(f"queue {queue.name:<20} waiting {queue.waiting}   lag {queue.lag_s:.1f} s")
    for each in found.workers:
        state = "alive" if each.is_alive else "dead"
        queues = "all queues" if each.queues == ("*",) else ",".join(each.queues)
        _say(
            f"worker {each.id} {state}: {each.host}, process {each.pid}, {queues}, last seen {each.seen_s:.1f} s ago, "
            f"up {each.up_s:.0f} s, sent {each.sent}, failed {each.failed}"
        )


def _send_once(options: WorkerOptions) -> None:
    async def work(portal: Portal) -> int:
        return await portal.send_once(options)

    _say(f"{with_portal(work)} sent")


def _queues(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not _QUEUE.match(name):
            fail(f"--queue: {name[:60]!r} is not a queue name: use 1 to 32 letters, digits, hyphens, _ and dots", 2)
    return tuple(dict.fromkeys(names))


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 — this is the command line
