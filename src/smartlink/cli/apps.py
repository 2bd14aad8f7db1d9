"""`smartlink apps …`: lists, checks and creates the applications of the realtime server."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from smartlink.cli.failures import fail, server_errors, settings_errors
from smartlink.cli.logs import configure
from smartlink.cli.wording import counted

if TYPE_CHECKING:
    from smartlink.broadcasting import BroadcastSettings
    from smartlink.server.apps.base import App
    from smartlink.server.apps.database import DatabaseApps
    from smartlink.server.settings.config import ServerSettings

__all__ = ["as_served", "read_apps", "register", "sender"]

T = TypeVar("T")
apps = typer.Typer(
    help="The applications of the realtime server.", no_args_is_help=True, pretty_exceptions_enable=False
)


def register(app: typer.Typer) -> None:
    app.add_typer(apps, name="apps")


@apps.command("list")
def list_apps(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the applications that the server would serve, without their secrets."""
    found = _read(_settings())
    if as_json:
        _say(json.dumps([_shown(app) for app in found]))
        return
    for app in found:
        state = "enabled " if app.is_enabled else "disabled"
        _say(
            f"{app.id:<16} {app.key:<24} {state}  {counted(app.max_connections, 'connection')}  "
            f"{counted(len(app.webhooks), 'webhook')}"
        )
    if not found:
        _say("No applications")


@apps.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="The file to check; by default the one in use.")] = None,
) -> None:
    """Check the definitions of the applications, and explain their policies. Exits with 2 if one is invalid."""
    settings = _settings()
    if file is not None:
        settings = settings.model_copy(update={"reverb_apps_file": file, "reverb_apps_database_url": None})
    found = _read(settings)
    _say("1 application, valid" if len(found) == 1 else f"{len(found)} applications, all valid")
    for app in found:
        _explain_policies(app)


def _explain_policies(app: App) -> None:
    """Print a line for each policy of the app's channels, and a hint for each that can never hold."""
    from smartlink.server.apps.policies import describe, never_holds

    if not app.channels:
        return
    _say(f"{app.id}: the first of these policies that matches a channel holds on it")
    width = min(40, max(len(policy.pattern) for policy in app.channels))
    for number, policy in enumerate(app.channels):
        _say(f"  {policy.pattern:<{width}}  {describe(policy)}")
        if (hint := never_holds(app.channels, number)) is not None:
            _say(f"  {'':<{width}}  {hint}")


@apps.command()
def new(
    app_id: Annotated[str | None, typer.Option("--id", help="Its id; random by default.")] = None,
) -> None:
    """Create an application with a random key and secret: adds it to the database in use, or prints a TOML block."""
    from smartlink.server.apps.description import app_from_description

    settings = _settings()
    description = {
        "id": app_id or str(secrets.randbelow(900_000) + 100_000),
        "key": secrets.token_hex(10),
        "secret": secrets.token_hex(24),
    }
    with server_errors():
        app = app_from_description(description, "the new app")
    block = "\n".join(f'{name} = "{value}"' for name, value in description.items())
    if settings.reverb_apps_database_url is not None:
        _with_database(settings, lambda database: database.add(app))
        _say(block)
    else:
        _say(f"[[apps]]\n{block}")


@apps.command()
def install() -> None:
    """Create the table realtime_apps in the database at REVERB_APPS_DATABASE_URL, unless it exists."""
    settings = _settings()
    if settings.reverb_apps_database_url is None:
        fail("Set REVERB_APPS_DATABASE_URL first, to the database for the applications", 2)
    _with_database(settings, lambda database: database.create_table())
    _say("The table realtime_apps is ready")


def _settings() -> ServerSettings:
    from smartlink.server.settings.config import ServerSettings

    configure()
    with settings_errors():
        settings = ServerSettings()
        settings.check_start()
    return settings


def _read(settings: ServerSettings) -> list[App]:
    with server_errors():
        return asyncio.run(read_apps(settings))


async def read_apps(settings: ServerSettings) -> list[App]:
    """Return the applications that the server would serve. Raises AppsInvalid."""
    from smartlink.server.run.bootstrap import apps_for

    manager = apps_for(settings)
    try:
        await manager.start(lambda changes: None)
        return list(manager.all())
    finally:
        await manager.stop()


def as_served(own: BroadcastSettings, apps: Sequence[App], app_id: str | None = None) -> BroadcastSettings | None:
    """Return `own` with the id, key and secret of an application that the server knows, or None if there is none.

    The application is `app_id` if given, else the one named by `own`, else the first that is enabled.
    """
    from pydantic import SecretStr

    wanted = own.reverb_app_id if app_id is None else app_id
    named = [app for app in apps if app.id == wanted]
    others = [app for app in apps if app.is_enabled] if app_id is None else []
    for app in (*named, *others):
        update = {"reverb_app_id": app.id, "reverb_app_key": app.key, "reverb_app_secret": SecretStr(app.secret)}
        return own.model_copy(update=update)
    return None


def sender(own: BroadcastSettings, app_id: str | None) -> BroadcastSettings:
    """Return `own` with the id, key and secret of the application `app_id`.

    They come from the file or database that defines the applications, if one is in use. Exits with 2 if there is no
    such application.
    """
    if own.driver != "reverb" or find_spec("redis") is None:  # the server is not installed here
        described = None
    else:
        from smartlink.server.settings.config import ServerSettings

        server = ServerSettings()
        is_described = server.reverb_apps_file is not None or server.reverb_apps_database_url is not None
        described = server if is_described else None
    if described is None:
        if app_id not in (None, own.reverb_app_id):
            fail(f"There is no application {app_id} here, only {own.reverb_app_id} (REVERB_APP_ID)", 2)
        return own
    found = as_served(own, _read(described), app_id)
    if found is None:
        fail(f"No application{f' {app_id}' if app_id else ''} is served. See: smartlink apps list", 2)
    return found


def _with_database(settings: ServerSettings, work: Callable[[DatabaseApps], Awaitable[T]]) -> T:
    from smartlink.server.apps.database import DatabaseApps
    from smartlink.server.run.bootstrap import apps_for

    async def main() -> T:
        manager = apps_for(settings)
        assert isinstance(manager, DatabaseApps)  # noqa: S101 — its address is set, so it is one
        try:
            return await work(manager)
        finally:
            await manager.stop()

    with server_errors():
        return asyncio.run(main())


def _shown(app: App) -> dict[str, object]:
    from dataclasses import asdict

    return {name: value for name, value in asdict(app).items() if name != "secret"}


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 — this is the command line
