"""`smartlink tail` and `smartlink explain`: what happens on the realtime server, and why."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smartlink.cli.operators import printable, reach

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["register"]

_COLOURS = {
    "connect": "green",
    "disconnect": "bright_black",
    "subscribe": "cyan",
    "unsubscribe": "bright_black",
    "publish": "blue",
    "client_event": "magenta",
    "webhook": "yellow",
    "refused": "red",
    "error": "red",
}
_APP = typer.Option("--app", help="Only this application, by id.")
_URL = typer.Option(
    "--url", help="Address of the operators' port of another machine; REVERB_OPERATOR_TOKEN is sent.", metavar="URL"
)
_JSON = typer.Option("--json", help="Print JSON.")


def register(app: typer.Typer) -> None:
    app.command()(tail)
    app.command()(explain)


def tail(
    pattern: Annotated[str | None, typer.Argument(help="Channels to show, with * and ?; all by default.")] = None,
    app_id: Annotated[str | None, _APP] = None,
    event: Annotated[str | None, typer.Option(help="Only events with this name; * and ? match.")] = None,
    user: Annotated[str | None, typer.Option(help="Only what this user does, by id.")] = None,
    socket: Annotated[str | None, typer.Option(help="Only this connection, with its frames, by socket id.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only these kinds, as in connect,refused.")] = None,
    as_json: Annotated[bool, _JSON] = False,
    url: Annotated[str | None, _URL] = None,
) -> None:
    """Show what happens on all workers and nodes, as it happens, until Ctrl-C.

    It cannot slow the server: what does not fit is dropped, and the count is shown.
    """
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    try:
        for batch in reach(url).lines(channel=pattern, app=app_id, event=event, user=user, socket=socket, kinds=kind):
            if batch.get("watching"):
                print("Watching. Press Ctrl-C to stop.", file=sys.stderr, flush=True)  # noqa: T201
            for entry in batch["entries"]:
                if as_json:
                    _say(json.dumps(entry | {"node": batch["node"]}))
                else:
                    _show(console, entry)
            if batch["dropped"]:
                if as_json:
                    _say(json.dumps({"kind": "dropped", "count": batch["dropped"], "node": batch["node"]}))
                else:
                    console.print(f"… {batch['dropped']:,} not shown: narrow the filter", style="yellow", markup=False)
    except KeyboardInterrupt:
        raise typer.Exit from None
    except BrokenPipeError:
        # The reader of the pipe is gone: nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def explain(
    subject: Annotated[str, typer.Argument(metavar="CHANNEL|SOCKET_ID|USER", help="What to explain.")],
    app_id: Annotated[str | None, _APP] = None,
    as_json: Annotated[bool, _JSON] = False,
    url: Annotated[str | None, _URL] = None,
) -> None:
    """Say what the server knows about a channel, a connection or a user, and why it refused something.

    Exits with 1 if the server knows nothing about it.
    """
    found = reach(url).get("explain", subject=subject, app=app_id)
    if as_json:
        _say(json.dumps(found))
    else:
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=True)
        console.print(f"{found['kind']} {printable(found['subject'])}", style="bold", markup=False)
        for fact in found["facts"]:
            console.print(f"  {printable(fact)}", markup=False)
        if found["problems"]:
            console.print("Refusals and errors, newest first", style="bold", markup=False)
            for entry in found["problems"][:10]:
                _show(console, entry)
    if not found["is_known"]:
        raise typer.Exit(1)


def _show(console: Console, entry: dict[str, Any]) -> None:
    from rich.text import Text

    kind = entry["kind"]
    line = Text(
        datetime.fromtimestamp(entry["at"], UTC).astimezone().strftime("%H:%M:%S.%f")[:-3], style="bright_black"
    )
    line.append(f"  {kind:<12} ", style=_COLOURS.get(kind, "default"))
    parts = [(name, printable(entry.get(name, ""))) for name in ("channel", "event", "why", "data")]
    if entry.get("user_id"):
        parts.append(("who", f"user {printable(entry['user_id'])}"))
    if entry.get("socket_id"):
        parts.append(("who", printable(entry["socket_id"])))
    for name, text in parts:
        if text:
            style = {"channel": "bold", "why": "red" if kind in ("refused", "error") else "", "data": "bright_black"}
            line.append(f" {text}", style=style.get(name, ""))
    console.print(line)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 — this is the command line
