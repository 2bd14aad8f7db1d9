"""A driver of your own: what is broadcast goes to a file, one line each, beside what already goes to the server."""

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path

from smartlink.broadcasting import (
    Broadcaster,
    BroadcastSettings,
    BroadcastUnavailable,
    Channel,
    Driver,
    DriverManager,
    Envelope,
)


class FileDriver:
    """Appends envelopes to a file. Raises nothing but BroadcastFailed, as every driver promises."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        lines = "".join(
            json.dumps({"channel": e.channel, "event": e.name, "data": json.loads(e.payload)}) + "\n" for e in envelopes
        )
        try:
            await asyncio.to_thread(self._append, lines)
        except OSError as error:
            raise BroadcastUnavailable(f"{self._path}: {error}") from error

    async def aclose(self) -> None:
        """Nothing is held."""

    def _append(self, lines: str) -> None:
        with self._path.open("a") as file:
            file.write(lines)


def file_driver(_: BroadcastSettings) -> Driver:
    return FileDriver(Path(os.environ.get("BROADCAST_FILE", "broadcasts.jsonl")))


async def main() -> None:
    settings = BroadcastSettings()
    manager = DriverManager(settings)
    manager.extend("file", file_driver)
    # BROADCAST_DRIVER=file would make it the default; here one event goes through both.
    async with Broadcaster.from_settings(settings, manager=manager) as broadcaster:
        await broadcaster.on(Channel("news")).as_("news.out").with_({"n": 1}).via("file", "reverb").send()


if __name__ == "__main__":
    asyncio.run(main())
