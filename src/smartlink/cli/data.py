"""Commands on the portal's data: the database, users, channel rules, failed events."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated

import typer

from smartlink.cli import backups
from smartlink.cli.apps import sender
from smartlink.cli.failures import database_errors, fail, settings_errors
from smartlink.cli.logs import configure
from smartlink.cli.portal import settings_with_database, with_portal
from smartlink.cli.wording import counted

if TYPE_CHECKING:
    from smartlink.broadcasting.outbox import FailedEvents
    from smartlink.portal.main import Portal

__all__ = ["register"]

db = typer.Typer(help="The database.", no_args_is_help=True, pretty_exceptions_enable=False)
user = typer.Typer(help="Accounts.", no_args_is_help=True, pretty_exceptions_enable=False)
channels = typer.Typer(help="Channels and who may subscribe.", no_args_is_help=True, pretty_exceptions_enable=False)
failed = typer.Typer(help="Failed events.", no_args_is_help=True, pretty_exceptions_enable=False)
event = typer.Typer(help="Events.", no_args_is_help=True, pretty_exceptions_enable=False)


def register(app: typer.Typer) -> None:
    backups.register(db)
    app.add_typer(db, name="db")
    app.add_typer(user, name="user")
    app.add_typer(channels, name="channels")
    app.add_typer(failed, name="failed")
    app.add_typer(event, name="event")
    app.command()(seed)


# Let a relative revision such as -1 be an argument rather than an option.
_STEPS = {"ignore_unknown_options": True}


@db.command(context_settings=_STEPS)
def upgrade(revision: Annotated[str, typer.Argument(help="A revision, or a number of steps: +1.")] = "head") -> None:
    """Upgrade the database to a revision."""
    from smartlink.portal import migrations

    with database_errors():
        migrations.upgrade(settings_with_database().url, revision)
    _say(f"The database is at {migrations.current(settings_with_database().url)}")


@db.command(context_settings=_STEPS)
def downgrade(
    revision: Annotated[str, typer.Argument(help="A revision, base, or a number of steps: -1.")],
) -> None:
    """Downgrade the database to a revision. Data that the older revision cannot hold is deleted."""
    from smartlink.portal import migrations

    with database_errors():
        migrations.downgrade(settings_with_database().url, revision)
    _say(f"The database is at {migrations.current(settings_with_database().url) or 'base'}")


def seed() -> None:
    """Add demo data: three users with messages, campaigns and wallets. Running it again adds nothing."""
    from smartlink.portal import migrations
    from smartlink.portal.seed import seed as add

    url = settings_with_database().url
    with database_errors():
        migrations.upgrade(url)
        users = add(url)
    for demo in users:
        _say(f"{demo.email}  {demo.password}")


@user.command("create")
def create_user(
    email: Annotated[str, typer.Option(prompt=True, help="E-mail address to sign in with.")],
    name: Annotated[str, typer.Option(prompt=True, help="Name shown to others.")],
    password: Annotated[
        str, typer.Option(prompt=True, hide_input=True, confirmation_prompt=True, help="8 to 128 characters.")
    ],
    admin: Annotated[bool, typer.Option("--admin", help="Make the user an admin.")] = False,
) -> None:
    """Create a user."""
    from pydantic import ValidationError

    from smartlink.portal.seed import create_user as create
    from smartlink.portal.shared.errors import Invalid, by_field
    from smartlink.portal.users.schemas import Registration

    url = settings_with_database().url
    try:
        Registration.model_validate({"name": name, "email": email, "password": password})
        with database_errors():
            user_id = create(url, name=name, email=email, password=password, is_admin=admin)
    except ValidationError as error:
        fail("\n".join(text for texts in by_field(error.errors()).values() for text in texts))
    except Invalid as error:
        fail("\n".join(text for texts in error.errors.values() for text in texts))
    _say(f"User {user_id} created")


@channels.command("list")
def list_channels() -> None:
    """List the patterns that decide who may subscribe."""
    from smartlink.portal.main import channel_rules
    from smartlink.portal.shared.db import Database

    configure()
    for rule in channel_rules(Database("postgresql+asyncpg://")).rules:  # rules are only listed: nothing connects
        kinds = ", ".join(sorted(kind.value for kind in rule.kinds))
        _say(f"{rule.pattern:<28} {kinds}")


@channels.command()
def check(
    user_id: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
    channel: Annotated[str, typer.Argument(help="The channel's name, with its prefix.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show whether a user may subscribe to a channel, which rule decides, and why. Exits with 1 if not."""
    number = _id(user_id, "a user id")

    async def work(portal: Portal) -> bool:
        from smartlink.portal.users.service import Principal, find
        from smartlink.protocol.names import ChannelKind, is_valid_channel, kind_of

        async with portal.database.reading() as session:
            found = await find(session, number)
        if found is None:
            fail(f"There is no user {number}")
        if is_valid_channel(channel) and kind_of(channel) is ChannelKind.PUBLIC:
            allowed, why, rule = True, "public channels are open to everyone with the app key", None
        else:
            caller = Principal(found.id, found.name, found.email, found.is_admin, found.created_at)
            decision = await portal.authorizer.decide(caller, channel)
            allowed, why, rule = decision.allowed, decision.why, decision.rule
        if as_json:
            _say(json.dumps({"user": number, "channel": channel, "allowed": allowed, "rule": rule, "why": why}))
        else:
            _say(f"{'allowed' if allowed else 'denied'}: {why} (rule: {rule or 'none'})")
        return allowed

    if not with_portal(work):
        raise typer.Exit(1)


@event.command()
def trigger(
    channel: Annotated[str, typer.Argument(help="The channel's name, with its prefix.")],
    name: Annotated[str, typer.Argument(metavar="EVENT", help="The event's name, sent unchanged.")],
    data: Annotated[str, typer.Argument(metavar="JSON", help="The payload, a JSON object.")] = "{}",
    socket_id: Annotated[str | None, typer.Option(help="A socket to exclude.")] = None,
    app_id: Annotated[str | None, typer.Option("--app", help="Id of the application to publish as.")] = None,
) -> None:
    """Publish an event now, through the configured driver and without the outbox. Exits with 1 if it is refused.

    If applications are defined in a file or a database, their key and secret are used. The default for --app is
    REVERB_APP_ID, or the first application if none has that id.
    """
    from smartlink.broadcasting import (
        BroadcastConfigError,
        Broadcaster,
        BroadcastFailed,
        BroadcastSettings,
        Envelope,
    )
    from smartlink.protocol.names import is_reserved_event, is_valid_channel, is_valid_event_name, is_valid_socket_id

    if not is_valid_channel(channel):
        fail(f"{channel[:80]!r} is not a channel name: use 1 to 200 letters, digits and _ - = @ , . ;", 2)
    if not is_valid_event_name(name) or is_reserved_event(name):
        fail(f"{name[:80]!r} is not an event name: use 1 to 200 characters, without pusher: or pusher_internal:", 2)
    if socket_id is not None and not is_valid_socket_id(socket_id):
        fail(f"--socket-id {socket_id[:80]!r}: a socket id looks like 123.456", 2)
    payload = _payload(data)

    async def work() -> str:
        broadcaster = Broadcaster.from_settings(settings)
        try:
            await broadcaster.send_envelopes([Envelope(channel, name, payload, socket_id)])
            return broadcaster.driver.name
        finally:
            await broadcaster.aclose()

    configure()
    with settings_errors():
        settings = sender(BroadcastSettings(), app_id)
    try:
        driver = asyncio.run(work())
    except BroadcastConfigError as error:
        fail(str(error), 2)
    except BroadcastFailed as error:
        fail(f"Not sent: {error}")
    _say(f"Sent {name} on {channel} through {driver}")


def _payload(data: str) -> str:
    try:
        decoded = json.loads(data)
    except ValueError as error:
        fail(f"The payload is not JSON: {error}", 2)
    if not isinstance(decoded, dict):
        fail(f"The payload must be a JSON object, such as '{{\"id\": 1}}', not {type(decoded).__name__}", 2)
    return json.dumps(decoded, ensure_ascii=False, separators=(",", ":"))


@failed.command("list")
def list_failed(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many to show.")] = 100,
) -> None:
    """List failed events, newest first."""

    async def work(portal: Portal) -> None:
        async with portal.database.reading() as session:
            events = await _failed_events().list(session, limit=limit)
        if as_json:
            names = ("id", "channel", "name", "queue", "attempts", "error", "created_at")
            _say(json.dumps([{name: getattr(event, name) for name in names} for event in events], default=str))
            return
        for event in events:
            _say(f"{event.id:>8}  {event.created_at:%Y-%m-%d %H:%M:%S}  {event.channel}  {event.name}  {event.error}")
        if not events:
            _say("No failed events")

    with_portal(work)


@failed.command()
def retry(which: Annotated[str, typer.Argument(metavar="ID|all", help="An event's id, or all.")]) -> None:
    """Retry a failed event, or all of them: each gets a new id and goes to the end of its channel's queue."""

    async def work(portal: Portal) -> int:
        if number is not None:
            async with portal.database.writing() as session:
                return int(await _failed_events().retry(session, number))
        return await _retry_all(portal)

    number = None if which == "all" else _id(which, "an event id; give one, or all")
    _report(with_portal(work), which, "queued again")


async def _retry_all(portal: Portal) -> int:
    """Retry in batches, to bound the size of a transaction. Events that fail after the start stay failed."""
    from smartlink.broadcasting.outbox import RETRIED_AT_ONCE

    failed_events = _failed_events()
    async with portal.database.reading() as session:
        newest = await failed_events.list(session, limit=1)
    count, step = 0, RETRIED_AT_ONCE
    while newest and step == RETRIED_AT_ONCE:
        async with portal.database.writing() as session:
            step = await failed_events.retry_all(session, through=newest[0].id)
        count += step
    return count


@failed.command()
def forget(which: Annotated[str, typer.Argument(metavar="ID|all", help="An event's id, or all.")]) -> None:
    """Delete a failed event permanently, or all of them."""

    async def work(portal: Portal) -> int:
        async with portal.database.writing() as session:
            if number is None:
                return await _failed_events().forget_all(session)
            return int(await _failed_events().forget(session, number))

    number = None if which == "all" else _id(which, "an event id; give one, or all")
    _report(with_portal(work), which, "deleted")


def _failed_events() -> FailedEvents:
    from smartlink.broadcasting.outbox import FailedEvents
    from smartlink.portal.shared.db import outbox_tables

    return FailedEvents(outbox_tables)


def _id(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        fail(f"{text[:60]!r} is not {what}", 2)
    return int(text)


def _report(count: int, which: str, what: str) -> None:
    if not count:
        none = "There are no failed events" if which == "all" else f"There is no failed event {which}"
        fail(f"{none}. See: smartlink failed list")
    _say(f"{counted(count, 'event')} {what}")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 — this is the command line
