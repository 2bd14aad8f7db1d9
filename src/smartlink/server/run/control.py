"""The control socket, through which local commands reach a running server. Only the server's user may connect.

One line of JSON each way: `{"command": name}`, then `{"ok": true, …}` or `{"ok": false, "reason": text}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import stat
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from smartlink.server.observe.endpoint import ObserveEndpoint
from smartlink.server.settings.config import ServerSettings

__all__ = [
    "CommandFailed",
    "ControlSocket",
    "NotRunning",
    "ask",
    "control_path",
    "listen_for_operators",
    "listen_unix",
    "operators_path",
]

COMMAND_S = 5.0
"""How long a peer may take to send its command."""
MAX_PATH = 95
"""Unix socket addresses are limited to 107 bytes."""

log = structlog.get_logger(__name__)
Commands = Mapping[str, Callable[[], Awaitable[dict[str, Any]]]]


class CommandFailed(Exception):
    """The server could not carry out the command; the message is the reason."""


class NotRunning(Exception):
    """No server listens on the control socket."""


def control_path(settings: ServerSettings, port: int) -> Path:
    """The control socket of the server that listens on the host of `settings` and on `port`."""
    name = f"reverb-{settings.reverb_server_host.replace('/', '_')}-{port}.sock"
    path = _folder(settings) / name
    if len(os.fsencode(path)) > MAX_PATH:
        path = path.with_name(f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.sock")
    return path


def operators_path(settings: ServerSettings, port: int) -> Path:
    """The Unix socket on which the same server answers operators over HTTP."""
    path = control_path(settings, port)
    return path.with_name(f"{path.stem[:80]}-http.sock")


def _folder(settings: ServerSettings) -> Path:
    if settings.reverb_server_runtime_dir is not None:
        return Path(settings.reverb_server_runtime_dir)
    if own := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(own) / "smartlink"
    return Path(tempfile.gettempdir()) / f"smartlink-{os.geteuid()}"


class ControlSocket:
    """Answers commands. Belongs to the process that holds the port, so an existing socket file is stale."""

    def __init__(self, path: Path, commands: Commands) -> None:
        self._path = path
        self._commands = commands
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. If that is impossible, log a warning: the server runs without remote control."""
        try:
            self._server = await asyncio.start_unix_server(self._serve, sock=listen_unix(self._path))
        except OSError as error:
            log.warning("no control socket, so `smartlink reverb restart` cannot reach this server", reason=str(error))

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(COMMAND_S):
                line = await reader.readline()
            answer = await self._carry_out(line)
            writer.write(json.dumps(answer).encode() + b"\n")
            async with asyncio.timeout(COMMAND_S):
                await writer.drain()
        except (TimeoutError, ConnectionError, ValueError):
            pass  # the peer is gone or silent: there is no one to answer
        finally:
            writer.close()

    async def _carry_out(self, line: bytes) -> dict[str, Any]:
        try:
            command = self._commands[json.loads(line)["command"]]
        except (ValueError, KeyError, TypeError):
            return {"ok": False, "reason": "unknown command"}
        try:
            return {"ok": True} | await command()
        except CommandFailed as error:
            return {"ok": False, "reason": str(error)}


def ask(path: Path, command: str, timeout_s: float) -> dict[str, Any]:
    """Send `command` to the server at `path` and return its answer. Raises NotRunning, CommandFailed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        end.settimeout(timeout_s)
        try:
            end.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunning from None
        except OSError as error:
            raise CommandFailed(f"{path} cannot be used: {error.strerror}") from None
        try:
            end.sendall(json.dumps({"command": command}).encode() + b"\n")
            with end.makefile("rb") as answers:
                answer: dict[str, Any] = json.loads(answers.readline() or b"{}")
        except (OSError, ValueError):
            raise CommandFailed("the server did not answer; see its log") from None
    if not answer.get("ok"):
        raise CommandFailed(str(answer.get("reason", "the server exited before it answered")))
    return answer


async def listen_for_operators(observed: ObserveEndpoint, settings: ServerSettings, port: int) -> None:
    """Serve operators on the Unix socket too. If that is impossible, log a warning."""
    try:
        await observed.listen_on(listen_unix(operators_path(settings, port)))
    except OSError as error:
        log.warning("no socket for operators, so `smartlink tail` cannot reach this server", reason=str(error))


def listen_unix(path: Path) -> socket.socket:
    """Listen on a Unix socket that only this user may open. Replaces a stale one. Raises OSError."""
    folder = path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Do not follow links: in the temporary folder anyone could plant one that leads into a folder of ours.
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} must belong to this user, and only it may write there")
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener
