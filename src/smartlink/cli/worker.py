"""One worker process of the realtime server, started by its parent.

Run as `python -m smartlink.cli.worker --line=5 --order=6 --listen=7,8`, where the numbers are inherited descriptors.
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
from smartlink.server.observe.gateway import serve_questions
from smartlink.server.run.bootstrap import build
from smartlink.server.run.engines import uses_redis, worker_engines
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
    # Parents of every version start workers with this name.
    parser.add_argument("--line", type=int, required=True)
    parser.add_argument("--order", type=int)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--settings", default="{}")
    parser.add_argument("--debug", action="store_true")
    given = parser.parse_args()
    configure(verbose=given.debug)
    raise_descriptor_limit()
    end = socket.socket(fileno=given.line)
    if given.order is None:
        return _fail(end, "the parent is of an older version")
    order = socket.socket(fileno=given.order)
    listeners = [socket.socket(fileno=int(descriptor)) for descriptor in given.listen.split(",")]
    try:
        settings = ServerSettings(**json.loads(given.settings))
        settings.check_start()
    except ValidationError as error:
        return _fail(end, describe(error))
    except ValueError as error:
        return _fail(end, str(error))
    import uvloop

    return uvloop.run(_serve(settings, end, order, listeners, debug=given.debug))


def _fail(end: socket.socket, reason: str) -> int:
    """Report to the parent why this worker cannot start."""
    with end:
        for message in (messages.Hello(messages.VERSION, os.getpid()), messages.StartFailed(reason)):
            record = messages.encode(message)
            end.sendall(len(record).to_bytes(4, "big") + record)
    return 1


async def _serve(
    settings: ServerSettings, end: socket.socket, order: socket.socket, listeners: list[socket.socket], *, debug: bool
) -> int:
    loop = asyncio.get_running_loop()
    parent_link, stop = ParentLink(end, order), asyncio.Event()
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
    parent_link.on_drain = drain

    def lost() -> None:
        if stop.is_set():
            # The parent was signalled twice: exit at once.
            os._exit(1)
        # Without its parent this worker cannot be replaced: leave the port to the next server.
        drain(True)

    parent_link.on_lost = lost
    shown = show_frame if debug else None
    overview = WorkerOverview(parent_link)
    if uses_redis(settings):
        server = build(settings, overview=overview, show_frames=shown)
    else:
        webhooks = ForwardedWebhooks(parent_link)
        server = build(
            settings, engines=worker_engines(parent_link), webhooks=webhooks, overview=overview, show_frames=shown
        )
    try:
        await server.start(listeners)
    except (OSError, ValueError, QueueUnavailable) as error:
        parent_link.send(messages.StartFailed(str(error)))
        await parent_link.close()
        return 1
    serve_questions(server.agent, parent_link)
    parent_link.on_reload = server.reload
    loop.add_signal_handler(signal.SIGHUP, server.reload)
    parent_link.ready(server.rates.figures)
    await stop.wait()
    await server.stop(is_replaced=is_replaced)
    await parent_link.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
