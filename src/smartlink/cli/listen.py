"""`smartlink listen`: what arrives on channels, printed as it arrives."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smartlink.cli.failures import fail
from smartlink.cli.operators import printable
from smartlink.protocol.addresses import netloc
from smartlink.safety import is_loopback

if TYPE_CHECKING:
    from smartlink.client import Authorizer, Channel, Client, Event, Gap, Stream

__all__ = ["register"]

_SAMPLE_KEY, _SAMPLE_SECRET = "app-key", "app-secret"


def register(app: typer.Typer) -> None:
    app.command()(listen)


def listen(
    channels: Annotated[list[str], typer.Argument(metavar="CHANNEL…", help="Full names, as in private-orders.7.")],
    url: Annotated[
        str | None, typer.Option(help="Address of the server, as in wss://ws.example.com.", metavar="URL")
    ] = None,
    key: Annotated[str | None, typer.Option(help="The application's key (REVERB_APP_KEY).")] = None,
    auth: Annotated[
        str | None, typer.Option(help="Endpoint that authorizes, instead of REVERB_APP_SECRET.", metavar="URL")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="Sent to that endpoint, as in 'Authorization: Bearer …'.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="The user to be on presence channels, by id.")] = None,
    event: Annotated[list[str] | None, typer.Option(help="Only events with this name; may be repeated.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Exit after so many events.")] = None,
    session: Annotated[bool, typer.Option(help="--no-session for other servers than SmartLink's.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line for each event.")] = False,
) -> None:
    """Print what arrives on channels, until Ctrl-C; comes back after a lost connection and says what is missing.

    Settings are those of publishers: REVERB_HOST, REVERB_PORT, REVERB_SCHEME, REVERB_APP_KEY, REVERB_APP_SECRET.
    Exits with 1 if the server or the application refuses.
    """
    from smartlink.client import Client, ClientError

    settings = _settings()
    address = url or _address(settings)
    shown_key = key or settings.get("REVERB_APP_KEY") or _SAMPLE_KEY
    try:
        authorizer = _authorizer(settings, address, shown_key, auth, header or [], user)
        client = Client(address, shown_key, auth=authorizer, session=session)
    except ValueError as error:
        fail(str(error), 2)
    try:
        asyncio.run(_listen(client, _Printer(as_json, count), channels, event or []))
    except KeyboardInterrupt:
        raise typer.Exit from None
    except (ClientError, ValueError) as error:
        fail(printable(str(error)))
    except BrokenPipeError:
        # The reader of the pipe is gone: nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass(slots=True)
class _Printer:
    as_json: bool
    left: int | None

    def show(self, item: Event | Gap) -> bool:
        """Print an event or a gap; return whether that was the last one."""
        now = datetime.now().astimezone()
        name: str | None = getattr(item, "name", None)
        if self.as_json:
            shown = {"at": now.isoformat(), "channel": item.channel} | _fields(item)
            print(json.dumps(shown), flush=True)  # noqa: T201 - this is the command line
        elif name is None:
            what = printable(" ".join(f"{key}={value}" for key, value in _fields(item).items()))
            print(f"{now:%H:%M:%S}  {item.channel}  … {what}", flush=True)  # noqa: T201
        else:
            data = printable(getattr(item, "text", ""))
            print(f"{now:%H:%M:%S}  {item.channel}  {printable(name)}  {data}", flush=True)  # noqa: T201
        if self.left is not None and name is not None:
            self.left -= 1
        return self.left == 0


def _fields(item: Event | Gap) -> dict[str, object]:
    from smartlink.client import Gap

    if isinstance(item, Gap):
        return {"gap": item.reason} if item.missed is None else {"gap": item.reason, "missed": item.missed}
    fields = {"event": item.name, "data": item.data}
    return fields if item.user_id is None else fields | {"user_id": item.user_id}


async def _listen(client: Client, printer: _Printer, names: list[str], events: list[str]) -> None:
    async with client:
        channels = [client.channel(name) for name in dict.fromkeys(names)]
        streams = [(channel, channel.events(*events)) for channel in channels]
        tasks = [asyncio.create_task(_print(printer, channel, stream)) for channel, stream in streams]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _print(printer: _Printer, channel: Channel, stream: Stream[Event | Gap]) -> None:
    await channel.ready()
    _say(f"Listening to {channel.name}")
    async for item in stream:
        if printer.show(item):
            return


def _settings() -> Mapping[str, str]:
    from dotenv import dotenv_values

    file = Path(".env")
    written = dotenv_values(file) if file.is_file() else {}
    return {name: value for name, value in {**written, **os.environ}.items() if value}


def _address(settings: Mapping[str, str]) -> str:
    scheme = "wss" if settings.get("REVERB_SCHEME") == "https" else "ws"
    port = settings.get("REVERB_PORT") or settings.get("REVERB_SERVER_PORT") or "8080"
    return f"{scheme}://{netloc(settings.get('REVERB_HOST', '127.0.0.1'), port)}"


def _authorizer(
    settings: Mapping[str, str], address: str, key: str, endpoint: str | None, headers: list[str], user: str | None
) -> Authorizer | None:
    """Return who authorizes; None where only public channels can be had. Raises ValueError for a malformed header."""
    from urllib.parse import urlsplit

    from smartlink.client import Endpoint, Secret

    if endpoint is not None:
        pairs = [header.partition(":") for header in headers]
        if wrong := [name for name, colon, _ in pairs if not colon]:
            raise ValueError(f"--header {printable(wrong[0])[:20]}…: write a name, a colon and a value")
        return Endpoint(endpoint, headers={name.strip(): value.strip() for name, _, value in pairs})
    secret = settings.get("REVERB_APP_SECRET")
    if secret is None and is_loopback(urlsplit(address).hostname or ""):
        secret = _SAMPLE_SECRET
    if secret is None:
        return None
    return Secret(key, secret, user_id=user, encryption_master_key=settings.get("BROADCAST_ENCRYPTION_MASTER_KEY"))


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)  # noqa: T201 - this is the command line
