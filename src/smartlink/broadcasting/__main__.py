"""`python -m smartlink.broadcasting myapp.main:broadcasting`: a worker that sends what your application recorded."""

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
    """Work until SIGTERM or Ctrl-C. Exits with a message for what cannot be found or used."""
    parser = argparse.ArgumentParser(prog="python -m smartlink.broadcasting", description="Send recorded events.")
    parser.add_argument("broadcasting", help="where your Broadcasting is: myapp.main:broadcasting")
    parser.add_argument("--queue", help="queues to take, first one first: high,default; all when not given")
    parser.add_argument("--concurrency", type=int, default=4, help="calls of the service side by side (4)")
    parser.add_argument("--stop-when-empty", action="store_true", help="end once nothing waits")
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
        raise ValueError(f"{path}: write module:name, such as myapp.main:broadcasting")
    found = getattr(importlib.import_module(module), name, None)
    if not isinstance(found, Broadcasting):
        raise ValueError(f"{path} is {type(found).__name__}, not a Broadcasting")
    return found


if __name__ == "__main__":
    main()
