"""`smartlink`: the commands, grouped by noun."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Annotated

import typer

from smartlink.cli.failures import PortTaken, database_errors, fail, settings_errors
from smartlink.cli.logs import configure
from smartlink.cli.unknown import warn_of_unknown
from smartlink.protocol.addresses import netloc

if TYPE_CHECKING:
    from smartlink.portal.shared.settings import PortalSettings

__all__ = ["app", "main"]

app = typer.Typer(
    name="smartlink", help="SmartLink realtime: server, portal and worker.", no_args_is_help=True,
    pretty_exceptions_enable=False,
)  # fmt: skip


def _group(name: str, help_text: str) -> typer.Typer:
    group = typer.Typer(help=help_text, no_args_is_help=True, pretty_exceptions_enable=False)
    app.add_typer(group, name=name)
    return group


app_group = _group("app", "The REST API and the pages.")


@app.command()
def serve(demo: Annotated[bool, typer.Option(help="Add demo data and print its accounts.")] = False) -> None:
    """Start everything in one process: realtime server, API, pages and worker."""
    from smartlink.cli import running
    from smartlink.portal import migrations
    from smartlink.portal.main import check_broadcasting
    from smartlink.portal.shared.settings import PortalSettings, check_start, is_loopback
    from smartlink.server.settings.config import ServerSettings

    configure()
    warn_of_unknown()
    with settings_errors():
        server_settings, portal_settings = ServerSettings(), PortalSettings()
        database = portal_settings.url
        server_settings.check_start()
        check_start(portal_settings)
        check_broadcasting(portal_settings)
        if demo and not (is_loopback(portal_settings.app_host) and is_loopback(server_settings.reverb_server_host)):
            fail("--demo creates accounts with known passwords: set APP_HOST and REVERB_SERVER_HOST to 127.0.0.1")

    def started(app_port: int, realtime_port: int) -> None:
        lines = ["", f"  SmartLink is up:  http://{netloc(portal_settings.app_host, app_port)}"]
        lines += [f"  Realtime server:  ws://{netloc(server_settings.reverb_server_host, realtime_port)}", ""]
        if missing := _missing_pages():
            lines += [f"  {missing}", ""]
        if demo:
            lines += ["  Sign in as"]
            lines += [f"    {user.email:<22} {user.password}" for user in users]
            lines += [""]
        lines += ["  Press Ctrl-C to stop.", ""]
        print("\n".join(lines), flush=True)  # noqa: T201 — this is the command line

    users = []
    with database_errors():
        migrations.upgrade(database)
        if demo:
            from smartlink.portal import seed

            users = seed.seed(database)
    _run(lambda stop: running.serve_all(server_settings, portal_settings, stop, started))


@app_group.command("start")
def app_start() -> None:
    """Start the REST API and the pages, without the realtime server and the worker."""
    from smartlink.cli import running
    from smartlink.cli.portal import require_tables
    from smartlink.portal.main import check_broadcasting
    from smartlink.portal.shared.settings import PortalSettings, check_start

    configure()
    with settings_errors():
        settings = _with_database(PortalSettings())
        check_start(settings)
        check_broadcasting(settings)
    require_tables(settings)

    def started(port: int) -> None:
        _say(f"http://{netloc(settings.app_host, port)}")
        if missing := _missing_pages():
            _say(missing)

    _run(lambda stop: running.serve_portal(settings, stop, started))


def _missing_pages() -> str | None:
    """What to say when the pages are not built, which can only happen in a checkout; None when they are."""
    from smartlink.portal.pages import how_to_build

    command = how_to_build()
    return None if command is None else f"The pages are not built, only the API is served. Build them: {command}"


def _with_database(settings: PortalSettings) -> PortalSettings:
    """Return `settings` if their database address is valid. Raises ValueError otherwise."""
    _ = settings.url
    return settings


def _print_version(is_asked: bool) -> None:
    if is_asked:
        _say(metadata.version("smartlink-realtime"))
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """SmartLink realtime: server, portal and worker."""


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 — this is the command line


def _run(main: object) -> None:
    from smartlink.cli import running
    from smartlink.portal.shared.errors import DatabaseAway
    from smartlink.server.settings.config import UnsafeSettings

    try:
        running.run(main)  # type: ignore[arg-type] # a coroutine function over the stop event
    except PortTaken as error:
        fail(str(error))
    except DatabaseAway as error:
        with database_errors():
            raise error
    except UnsafeSettings as error:
        fail(str(error), 2)


def main() -> None:
    """Run the command line."""
    from smartlink.cli import apps, bench, data, event_types, listen, queue_worker, realtime, tail, webhooks
    from smartlink.cli.doctor.command import doctor

    realtime.register(app)
    apps.register(app)
    queue_worker.register(app)
    webhooks.register(app)
    tail.register(app)
    bench.register(app)
    listen.register(app)
    event_types.register(app)
    data.register(app)
    app.command()(doctor)
    app()
