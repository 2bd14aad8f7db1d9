"""A worker as a process of its own, to be killed: `python outbox_worker.py DATABASE_URL PORT`."""

from __future__ import annotations

import asyncio
import signal
import sys

from broadcasting.outbox_database import open_engine, service_driver
from smartlink.broadcasting.outbox import PostgresListener, Relay


async def main(url: str, port: int) -> None:
    engine, tables = open_engine(url)
    listeners = [] if engine.dialect.name == "sqlite" else [PostgresListener(engine)]
    driver = service_driver(port)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await Relay(engine, tables, driver, listeners=listeners).run(stop)
    await driver.aclose()
    await engine.dispose()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
