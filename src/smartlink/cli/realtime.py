"""`smartlink reverb …`: the realtime server alone. Commands and options follow Laravel Reverb; `status` is ours."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from smartlink.cli.apps import as_served, read_apps
from smartlink.cli.failures import PortTaken, fail, server_errors, settings_errors
from smartlink.cli.logs import configure
from smartlink.cli.reach import port_to_write, warn_of_port
from smartlink.cli.unknown import warn_of_unknown
from smartlink.protocol.addresses import netloc

__all__ = ["register"]

reverb = typer.Typer(help="The realtime server.", no_args_is_help=True, pretty_exceptions_enable=False)
TIMEOUT_S = 5.0
RESTART_S = 60.0


def register(app: typer.Typer) -> None:
    app.add_typer(reverb, name="reverb")


@reverb.command()
def start(
    host: Annotated[str | None, typer.Option(help="Address to listen on (REVERB_SERVER_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (REVERB_SERVER_PORT).")] = None,
    path: Annotated[str | None, typer.Option(help="Path prefix (REVERB_SERVER_PATH).")] = None,
    hostname: Annotated[
        str | None, typer.Option(help="Host name that clients connect to (REVERB_SERVER_HOSTNAME).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes, one per core by default (REVERB_SERVER_WORKERS).")
    ] = None,
    debug: Annotated[bool, typer.Option(help="Show every frame, secrets removed, and log more.")] = False,
) -> None:
    """Start the realtime server."""
    from smartlink.cli import running, worker
    from smartlink.cli.frames import show_frame
    from smartlink.server.net.sockets import raise_descriptor_limit
    from smartlink.server.run.supervisor import WorkersFailed
    from smartlink.server.settings.config import ServerSettings

    configure(verbose=debug)
    raise_descriptor_limit()
    options = {
        "reverb_server_host": host,
        "reverb_server_port": port,
        "reverb_server_path": path,
        "reverb_server_hostname": hostname,
        "reverb_server_workers": workers,
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    with settings_errors():
        settings = ServerSettings(**given)
        settings.check_start()
        warn_of_port(settings)
    warn_of_unknown()
    scheme = "ws" if settings.reverb_server_tls_cert is None else "wss"

    def started(bound: int) -> None:
        name = settings.reverb_server_hostname or settings.reverb_server_host
        _say(f"Realtime server: {scheme}://{netloc(name, bound)}{settings.reverb_server_path}")

    command = worker.command(given, debug=debug)
    shown = show_frame if debug else None
    try:
        running.run(
            lambda stop: running.serve_realtime(settings, stop, started, worker_command=command, show_frames=shown)
        )
    except (PortTaken, WorkersFailed) as error:
        fail(str(error))
    except ValueError as error:
        fail(str(error), 2)


@reverb.command()
def restart(
    host: Annotated[str | None, typer.Option(help="Address the server listens on (REVERB_SERVER_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port the server listens on (REVERB_SERVER_PORT).")] = None,
) -> None:
    """Replace the running server with a new one, including code and settings, without refusing connections.

    Waits until the new server is ready and exits with 0; with 1 if it cannot start (the old one keeps running); with 3
    if no server runs on this machine and port.
    """
    from smartlink.server.run.control import CommandFailed, NotRunning, ask, control_path
    from smartlink.server.settings.config import ServerSettings

    options = {"reverb_server_host": host, "reverb_server_port": port}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    with settings_errors():
        settings = ServerSettings(**given)
    try:
        answer = ask(control_path(settings, settings.reverb_server_port), "restart", RESTART_S)
    except NotRunning:
        fail(
            f"No realtime server runs here on {settings.reverb_server_host}:{settings.reverb_server_port}. "
            "Start it: smartlink reverb start",
            3,
        )
    except CommandFailed as error:
        fail(f"Not restarted: {error}\nThe old server keeps running.")
    _say(f"Restarted: process {answer['pid']}, workers {', '.join(map(str, answer['workers']))}")


@reverb.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    app_id: Annotated[str | None, typer.Option("--app", help="Id of the application to report on.")] = None,
) -> None:
    """Show the status of the server at REVERB_HOST:REVERB_PORT. Exits with 0 if it is up, else with 1.

    The default for --app is REVERB_APP_ID, or the first application if none has that id. Connections and channels are
    the application's, across all workers and nodes; messages a second are those of the machine that answers.
    """
    from smartlink.broadcasting import BroadcastSettings
    from smartlink.server.settings.config import ServerSettings

    with settings_errors(), server_errors():
        server = ServerSettings()
        apps = asyncio.run(read_apps(server))
        settings = as_served(BroadcastSettings(), apps, app_id)
    if settings is None:
        fail(f"No application{f' {app_id}' if app_id else ''} is served. See: smartlink apps list", 2)
    report = _ask(settings)
    if report["state"] == "down" and (elsewhere := port_to_write(settings, server)) is not None:
        report["problem"] = f"nothing answers there, but {elsewhere}"
    if as_json:
        _say(json.dumps(report))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table(show_header=False, box=None)
        for name, value in report.items():
            if value != []:
                table.add_row(_words(name), _shown(value))
        Console().print(table)
    if report["state"] != "up":
        raise typer.Exit(1)


def _shown(value: object) -> str:
    """Return a value as people write it; sentences on lines of their own, words and named figures with commas."""
    if isinstance(value, dict):
        return ", ".join(f"{_words(name)} {_shown(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ("\n" if any(" " in str(each) for each in value) else ", ").join(map(str, value))
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _words(name: str) -> str:
    if name.endswith("_per_s"):
        return f"{name.removesuffix('_per_s')} a second"
    return f"{name.removesuffix('_s')} (s)" if name.endswith("_s") else name.replace("_", " ")


@reverb.command()
def install(
    force: Annotated[bool, typer.Option(help="Replace existing keys; clients with the old ones stop working.")] = False,
) -> None:
    """Write a random app id, key and secret to .env, keeping its other lines."""
    file = Path(".env")
    lines = file.read_text().splitlines() if file.exists() else []
    names = ("REVERB_APP_ID", "REVERB_APP_KEY", "REVERB_APP_SECRET")
    present = [line for line in lines if line.split("=", 1)[0].strip() in names and line.split("=", 1)[-1].strip()]
    if present and not force:
        fail(".env already has keys. Use --force to replace them.")
    lines = [line for line in lines if line.split("=", 1)[0].strip() not in names]
    values = (str(secrets.randbelow(900_000) + 100_000), secrets.token_hex(10), secrets.token_hex(24))
    lines += [f"{name}={value}" for name, value in zip(names, values, strict=True)]
    temporary = file.with_name(".env.new")
    temporary.unlink(missing_ok=True)
    # It contains a secret: no other user may read it, even while it is written.
    temporary.touch(0o600)
    temporary.write_text("\n".join(lines) + "\n")
    temporary.replace(file)
    _say("Wrote REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET to .env")


def _ask(settings: Any) -> dict[str, Any]:
    import httpx2

    from smartlink.protocol.signing import signed_query

    base = f"{settings.reverb_scheme}://{netloc(settings.reverb_host, settings.reverb_port)}"
    report: dict[str, Any] = {"address": base, "state": "down"}
    app_path = f"/apps/{settings.reverb_app_id}"
    secret = settings.reverb_app_secret.get_secret_value()
    try:
        # Ignore the environment's proxies, which are not for our own server, but honour its certificates.
        with httpx2.Client(timeout=TIMEOUT_S, trust_env=False, verify=httpx2.create_ssl_context()) as client:

            def get(path: str) -> Any:
                query = signed_query(settings.reverb_app_key, secret, "GET", path, timestamp=int(time.time()))
                answer = client.get(f"{base}{path}?{query}")
                if answer.status_code == 401:
                    raise ValueError("the server rejects REVERB_APP_KEY or REVERB_APP_SECRET")
                if answer.status_code == 404:
                    raise ValueError(f"the server does not know REVERB_APP_ID={settings.reverb_app_id}")
                return answer.raise_for_status().json()

            up = client.get(f"{base}/up")
            if up.status_code != 200:
                report["state"] = _state_of(up)
                return report
            report |= get(f"{app_path}/status")
            report["state"] = "degraded" if report.get("problems") or report["redis"] == "down" else "up"
    except ValueError as error:
        report["problem"] = str(error)
    except httpx2.HTTPError as error:
        report["problem"] = f"{type(error).__name__}: {_reason(error)}"
    return report


def _state_of(answer: Any) -> str:
    """Return the state that a server which is not up reports, or the status of anything else that answered."""
    try:
        told = answer.json()
    except ValueError:
        told = None
    health = told.get("health") if isinstance(told, dict) else None
    return health if isinstance(health, str) else f"answers {answer.status_code}"


def _reason(error: BaseException) -> str:
    """Return why the server could not be reached, and what to do about it."""
    import httpx2

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not trusted ({cause.verify_message}). Set SSL_CERT_FILE to its authority's"
        if isinstance(cause, ssl.SSLError):
            return "the program at this address does not speak TLS. Check REVERB_SCHEME and REVERB_PORT"
        if isinstance(cause, httpx2.ProtocolError | httpx2.ReadError):
            return "the program at this address does not speak HTTP. Check REVERB_SCHEME and REVERB_PORT"
        cause = cause.__cause__ or cause.__context__
    return "nothing answers there. Start it (smartlink reverb start), or check REVERB_HOST and REVERB_PORT"


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 — this is the command line
