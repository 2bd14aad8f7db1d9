"""Turns errors into what the user sees: a sentence that says what to change, and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import typer
from pydantic import ValidationError

__all__ = [
    "PortTaken",
    "database_errors",
    "describe",
    "fail",
    "server_errors",
    "settings_errors",
    "take_port",
]


def fail(message: str, code: int = 1) -> NoReturn:
    """Print `message` on standard error and exit with `code`."""
    print(message, file=sys.stderr)  # noqa: T201 — this is the command line
    raise typer.Exit(code)


@contextlib.contextmanager
def settings_errors() -> Iterator[None]:
    """Report invalid settings, a line each, and exit with 2."""
    try:
        yield
    except ValidationError as error:
        fail(describe(error), 2)
    except ValueError as error:
        fail(str(error), 2)


def describe(error: ValidationError) -> str:
    """Return a line for each invalid setting."""
    return "\n".join(_line(problem) for problem in error.errors(include_url=False))


def _line(problem: Any) -> str:
    name = str(problem["loc"][-1]).upper() if problem["loc"] else "settings"
    given = problem.get("input")
    shown = "…" if any(word in name for word in ("SECRET", "PASSWORD", "KEY", "URL", "QUEUE")) else str(given)[:60]
    said = problem["msg"].removeprefix("Value error, ")
    return f"{name}={shown}: {said}. Change it in the environment or .env."


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """Report an unusable database and exit with 1, or an unknown revision and exit with 2."""
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    from smartlink.broadcasting.outbox.pgbouncer import pooler_hint
    from smartlink.portal.migrations import revisions
    from smartlink.portal.shared.errors import DatabaseAway

    try:
        yield
    except CommandError as error:
        known = ", ".join(sorted(revisions()))
        fail(f"{str(error).rstrip('.')}. This version knows {known}; a newer database needs a newer version.", 2)
    except (SQLAlchemyError, OSError, DatabaseAway) as error:
        cause = error.__cause__ if isinstance(error, DatabaseAway) and error.__cause__ else error
        if hint := pooler_hint(cause):
            fail(f"The database cannot be used: {hint}.")
        reason = type(getattr(cause, "orig", None) or cause).__name__
        fail(
            f"The database cannot be used ({reason}). Is it running, and up to date (smartlink db upgrade)? "
            "Check DATABASE_URL, or the DB_ settings."
        )


@contextlib.contextmanager
def server_errors() -> Iterator[None]:
    """Report invalid applications and exit with 2, or an unusable webhook queue and exit with 1."""
    from smartlink.server.apps.base import AppsInvalid
    from smartlink.server.webhooks.queue import QueueUnavailable

    try:
        yield
    except AppsInvalid as error:
        fail(str(error), 2)
    except QueueUnavailable as error:
        fail(f"{error}. See REVERB_WEBHOOK_QUEUE.")


class PortTaken(Exception):
    """A port cannot be bound; the message names the variable to change."""


@contextlib.contextmanager
def take_port(host: str, port: int, variable: str) -> Iterator[None]:
    """Turn a failing bind into PortTaken, with a message for the user."""
    try:
        yield
    except socket.gaierror as error:
        raise PortTaken(
            f"{host} is not an address of this machine: {error.strerror}. Set {_host_of(variable)}."
        ) from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(f"Port {port} on {host} is already in use. Set {variable} to another one.") from None
        if error.errno in (errno.EACCES, errno.EADDRNOTAVAIL):
            reason = os.strerror(error.errno)
            raise PortTaken(
                f"Cannot listen on {host}:{port}: {reason}. Set {variable} or {_host_of(variable)}."
            ) from None
        raise


def _host_of(variable: str) -> str:
    """Return the name of the host setting that belongs to a port setting."""
    return variable.removesuffix("PORT") + "HOST"
