"""Commands on data: the database, users, channel rules, failed events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from smartlink.cli.failures import database_errors, fail, settings_errors
from smartlink.cli.logs import configure

if TYPE_CHECKING:
    from smartlink.broadcasting.outbox import FailedEvents
    from smartlink.portal.main import Portal
    from smartlink.portal.shared.settings import PortalSettings

__all__ = ["register"]

T = TypeVar("T")

db = typer.Typer(help="The database.", no_args_is_help=True, pretty_exceptions_enable=False)
user = typer.Typer(help="Accounts.", no_args_is_help=True, pretty_exceptions_enable=False)
channels = typer.Typer(help="Channels and who may subscribe.", no_args_is_help=True, pretty_exceptions_enable=False)
failed = typer.Typer(help="Events that were refused for good.", no_args_is_help=True, pretty_exceptions_enable=False)


def register(app: typer.Typer) -> None:
    app.add_typer(db, name="db")
    app.add_typer(user, name="user")
    app.add_typer(channels, name="channels")
    app.add_typer(failed, name="failed")
    app.command()(seed)


@db.command()
def upgrade(revision: Annotated[str, typer.Argument(help="Revision to go to.")] = "head") -> None:
    """Bring the database up to a revision."""
    from smartlink.portal import migrations

    with database_errors():
        migrations.upgrade(_settings().url, revision)
    _say(f"The database is at {migrations.current(_settings().url)}")


@db.command()
def downgrade(revision: Annotated[str, typer.Argument(help="Revision to go to, or base.")]) -> None:
    """Take the database down to a revision. What the revision does not know is removed, direct messages first."""
    from smartlink.portal import migrations

    with database_errors():
        migrations.downgrade(_settings().url, revision)
    _say(f"The database is at {migrations.current(_settings().url) or 'base'}")


def seed() -> None:
    """Add demo data: three users, a few messages. Done twice, it is there once."""
    from smartlink.portal import migrations
    from smartlink.portal.seed import seed as add

    url = _settings().url
    with database_errors():
        migrations.upgrade(url)
        users = add(url)
    for demo in users:
        _say(f"{demo.email}  {demo.password}")


@user.command("create")
def create_user(
    email: Annotated[str, typer.Option(prompt=True, help="E-mail to sign in with.")],
    name: Annotated[str, typer.Option(prompt=True, help="Name that others see.")],
    password: Annotated[str, typer.Option(prompt=True, hide_input=True, confirmation_prompt=True)],
    admin: Annotated[bool, typer.Option("--admin", help="Make the user an admin.")] = False,
) -> None:
    """Create a user."""
    from pydantic import ValidationError

    from smartlink.portal.seed import create_user as create
    from smartlink.portal.shared.errors import Invalid
    from smartlink.portal.users.schemas import Registration

    url = _settings().url
    try:
        Registration.model_validate({"name": name, "email": email, "password": password})
        user_id = create(url, name=name, email=email, password=password, is_admin=admin)
    except ValidationError as error:
        fail("\n".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()))
    except Invalid as error:
        fail("\n".join(text for texts in error.errors.values() for text in texts))
    _say(f"User {user_id} created")


@channels.command("list")
def list_channels() -> None:
    """Show the patterns that decide who may subscribe."""

    async def work(portal: Portal) -> None:
        for rule in portal.rules.rules:
            kinds = ", ".join(sorted(kind.value for kind in rule.kinds))
            _say(f"{rule.pattern:<28} {kinds}")

    _with_portal(work)


@channels.command()
def check(
    user_id: Annotated[int, typer.Argument(metavar="USER", help="The user's id.")],
    channel: Annotated[str, typer.Argument(help="The channel's name on the wire.")],
) -> None:
    """Say whether a user may subscribe to a channel, which rule decides, and why. Exit code 1 when not."""

    async def work(portal: Portal) -> bool:
        from smartlink.portal.users.service import Principal, find

        async with portal.database.reading() as session:
            found = await find(session, user_id)
        if found is None:
            fail(f"No user has the id {user_id}")
        caller = Principal(found.id, found.name, found.email, found.is_admin, found.created_at)
        decision = await portal.rules.decide(caller, channel)
        _say(f"{'allowed' if decision.allowed else 'denied'}: {decision.why} (rule: {decision.rule or 'none'})")
        return decision.allowed

    if not _with_portal(work):
        raise typer.Exit(1)


@failed.command("list")
def list_failed(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show events that were refused for good, newest first."""

    async def work(portal: Portal) -> None:
        async with portal.database.reading() as session:
            events = await _failed_events().list(session)
        if as_json:
            rows = [{"id": e.id, "channel": e.channel, "name": e.name, "error": e.error} for e in events]
            _say(json.dumps(rows))
            return
        for event in events:
            _say(f"{event.id:>8}  {event.channel}  {event.name}  {event.error}")
        if not events:
            _say("No failed events")

    _with_portal(work)


@failed.command()
def retry(event: Annotated[str, typer.Argument(help="An id, or all.")]) -> None:
    """Send a failed event again, or all of them."""

    async def work(portal: Portal) -> int:
        async with portal.database.writing() as session:
            if event == "all":
                return await _failed_events().retry_all(session)
            return int(await _failed_events().retry(session, _id(event)))

    _tell(_with_portal(work), "waiting to be sent again")


@failed.command()
def forget(event: Annotated[str, typer.Argument(help="An id.")]) -> None:
    """Delete a failed event for good."""

    async def work(portal: Portal) -> int:
        async with portal.database.writing() as session:
            return int(await _failed_events().forget(session, _id(event)))

    _tell(_with_portal(work), "forgotten")


def _failed_events() -> FailedEvents:
    from smartlink.broadcasting.outbox import FailedEvents
    from smartlink.portal.shared.db import outbox_tables

    return FailedEvents(outbox_tables)


def _id(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        fail(f"{text!r} is not an id")
    return int(text)


def _tell(count: int, what: str) -> None:
    if not count:
        fail("No failed event has this id")
    _say(f"{count} {what}")


def _settings() -> PortalSettings:
    from smartlink.portal.shared.settings import PortalSettings

    configure()
    with settings_errors():
        settings = PortalSettings()
        _ = settings.url  # raises for an address that makes no sense
        return settings


def _with_portal(work: Callable[[Portal], Awaitable[T]]) -> T:
    from smartlink.portal.main import build
    from smartlink.portal.shared.errors import DatabaseAway

    settings = _settings()

    async def main() -> T:
        portal = build(settings)
        try:
            await portal.start()
            return await work(portal)
        finally:
            await portal.stop()

    try:
        return asyncio.run(main())
    except DatabaseAway as error:
        fail(str(error))


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 — this is the command line
