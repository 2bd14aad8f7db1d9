"""`python -m smartlink.broadcasting myapp.main:broadcasting`: a worker that sends an application's recorded events."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import sys

from smartlink.broadcasting.errors import BroadcastConfigError
from smartlink.broadcasting.facade import Broadcasting
from smartlink.broadcasting.outbox import Until


def main() -> None:
    """Run the worker until SIGTERM or Ctrl-C. Exits with a message if the argument or the settings are wrong."""
    parser = argparse.ArgumentParser(prog="python -m smartlink.broadcasting", description="Send recorded events.")
    parser.add_argument("broadcasting", help="your Broadcasting, as module:name, such as myapp.main:broadcasting")
    parser.add_argument("--queue", help="queues to handle, highest priority first: high,default (default: all)")
    parser.add_argument("--concurrency", type=int, default=4, help="concurrent calls to the service (default: 4)")
    parser.add_argument("--stop-when-empty", action="store_true", help="exit when no events are waiting")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        broadcasting = _found(options.broadcasting)
        worker = broadcasting.run_worker(
            queues=options.queue.split(",") if options.queue else None,
            concurrency=options.concurrency,
            until=Until(is_empty=options.stop_when_empty),
        )
        asyncio.run(worker)
    except (BroadcastConfigError, ImportError, ValueError) as error:
        sys.exit(f"{error}")


def _found(path: str) -> Broadcasting:
    module, colon, name = path.partition(":")
    if not colon or not module or not name:
        raise ValueError(f"{path}: use module:name, such as myapp.main:broadcasting")
    found = getattr(importlib.import_module(module), name, None)
    if not isinstance(found, Broadcasting):
        raise ValueError(f"{path} is {type(found).__name__}, not a Broadcasting")
    return found


if __name__ == "__main__":
    main()
