"""`smartlink events types`: what an application announces, for its front end and for others."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smartlink.cli.failures import fail, settings_errors

if TYPE_CHECKING:
    from smartlink.broadcasting.described import Described

__all__ = ["register"]

events = typer.Typer(help="The event classes of an application.", no_args_is_help=True, pretty_exceptions_enable=False)


def register(app: typer.Typer) -> None:
    app.add_typer(events, name="events")


@events.callback()
def _about() -> None:
    """The event classes of an application."""


@events.command()
def types(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="MODULE[:BROADCASTING]…", help="Modules with events; one may name the Broadcasting."),
    ],
    typescript: Annotated[Path | None, typer.Option(help="Write TypeScript here.", metavar="FILE")] = None,
    asyncapi: Annotated[Path | None, typer.Option(help="Write AsyncAPI 3 here, in JSON.", metavar="FILE")] = None,
    schema: Annotated[
        Path | None, typer.Option("--json-schema", help="Write JSON Schema here.", metavar="FILE")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a page of documentation here.", metavar="FILE")] = None,
    title: Annotated[str, typer.Option(help="Title of the documents.")] = "Events",
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if a file is not current.")] = False,
) -> None:
    """Describe all event classes of an application, and with its channel rules who may listen.

    Without an option it prints TypeScript. What cannot be described is said on standard error.
    """
    from smartlink.broadcasting.described import event_types, json_schema, page

    described, namespace = _describe(sources, title)
    document = described.document
    for problem in described.problems:
        print(problem, file=sys.stderr)  # noqa: T201 - this is the command line
    if not document["components"]["messages"]:
        fail(f"No event classes in {', '.join(sources)}: name the modules that define them.")
    written = _HEAD + event_types(document, namespace=namespace)
    files = (
        (typescript, written),
        (asyncapi, _json(document)),
        (schema, _json(json_schema(document))),
        (markdown, page(document)),
    )
    wanted = {path: text for path, text in files if path is not None}
    if not wanted:
        print(written, end="")  # noqa: T201
        return
    stale = {path: text for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text}
    if check and stale:
        fail(f"Not current: {', '.join(map(str, stale))}. Run smartlink events types without --check.")
    for path, text in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


_HEAD = "/** The events that the application announces, written by `smartlink events types`. */\n\n"


def _describe(sources: list[str], title: str) -> tuple[Described, str]:
    """Import the modules, and describe what they define; also the namespace of its names."""
    from smartlink.broadcasting import BroadcastSettings
    from smartlink.broadcasting.described import describe, event_classes

    sys.path.insert(0, str(Path.cwd()))
    rules, namespace = None, None
    for source in sources:
        name, colon, attribute = source.partition(":")
        module = _imported(name)
        if colon:
            found: Any = getattr(module, attribute, None)
            if found is None or not hasattr(found, "rules"):
                fail(f"{source} is not a Broadcasting", 2)
            rules, namespace = found.rules, found.settings.namespace
    if namespace is None:
        with settings_errors():
            namespace = BroadcastSettings().namespace
    return describe(event_classes(), rules, namespace=namespace, title=title), namespace


def _imported(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        fail(f"There is no module {name} in {Path.cwd()} or installed", 2)


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
