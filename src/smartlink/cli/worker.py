"""One worker process of the realtime server, started by its parent.

Run as `python -m smartlink.cli.worker --line=5 --listen=6,7`, where the numbers are inherited descriptors.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import sys

from pydantic import ValidationError

from smartlink.cli.failures import describe
from smartlink.cli.frames import show_frame
from smartlink.cli.logs import configure
from smartlink.server.net.sockets import raise_descriptor_limit
from smartlink.server.run.bootstrap import build, uses_redis, worker_engines
from smartlink.server.settings.config import ServerSettings
from smartlink.server.webhooks.queue import QueueUnavailable
from smartlink.server.workers import messages
from smartlink.server.workers.engines import ForwardedWebhooks, WorkerOverview
from smartlink.server.workers.parent_link import ParentLink

__all__ = ["command", "main"]


def command(overrides: dict[str, object], *, debug: bool) -> list[str]:
    """Return the command that starts a worker: a fresh interpreter, so that it runs the code installed by then."""
    # -P: the working directory must not decide what is imported.
    words = [sys.executable, "-P", "-m", "smartlink.cli.worker", f"--settings={json.dumps(overrides)}"]
    return [*words, "--debug"] if debug else words


def main() -> int:
    """Serve until the parent or a signal asks to stop. Returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--line", type=int, required=True)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--settings", default="{}")
    parser.add_argument("--debug", action="store_true")
    given = parser.parse_args()
    configure(verbose=given.debug)
    raise_descriptor_limit()
    line = socket.socket(fileno=given.line)
    listeners = [socket.socket(fileno=int(descriptor)) for descriptor in given.listen.split(",")]
    try:
        settings = ServerSettings(**json.loads(given.settings))
        settings.check_start()
    except ValidationError as error:
        return _fail(line, describe(error))
    except ValueError as error:
        return _fail(line, str(error))
    import uvloop

    return uvloop.run(_serve(settings, line, listeners, debug=given.debug))


def _fail(line: socket.socket, reason: str) -> int:
    """Report to the parent why this worker cannot start."""
    with line:
        for message in (messages.Hello(messages.VERSION, os.getpid()), messages.Failed(reason)):
            record = messages.encode(message)
            line.sendall(len(record).to_bytes(4, "big") + record)
    return 1


async def _serve(settings: ServerSettings, end: socket.socket, listeners: list[socket.socket], *, debug: bool) -> int:
    loop = asyncio.get_running_loop()
    line, stop = ParentLink(end), asyncio.Event()
    is_replaced = False

    def drain(replaced: bool) -> None:
        nonlocal is_replaced
        is_replaced = replaced
        stop.set()

    def on_signal() -> None:
        drain(False)
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(name)

    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, on_signal)
    line.on_drain = drain

    def lost() -> None:
        if stop.is_set():
            # The parent was signalled twice: exit at once.
            os._exit(1)
        # Without its parent this worker cannot be replaced: leave the port to the next server.
        drain(True)

    line.on_lost = lost
    shown = show_frame if debug else None
    overview = WorkerOverview(line)
    if uses_redis(settings):
        server = build(settings, overview=overview, show_frames=shown)
    else:
        webhooks = ForwardedWebhooks(line)
        server = build(settings, engines=worker_engines(line), webhooks=webhooks, overview=overview, show_frames=shown)
    try:
        await server.start(listeners)
    except (OSError, ValueError, QueueUnavailable) as error:
        line.tell(messages.Failed(str(error)))
        await line.close()
        return 1
    line.on_reload = server.reload
    loop.add_signal_handler(signal.SIGHUP, server.reload)
    line.ready(server.rates.figures)
    await stop.wait()
    await server.stop(is_replaced=is_replaced)
    await line.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
