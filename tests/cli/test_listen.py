"""`smartlink listen` against a server, as real processes."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kit import processes
from kit.ports import free_port
from kit.realtime import KEY, SECRET, an_app, realtime_server
from kit.serve import SMARTLINK
from kit.subscribers import application, publish
from kit.waiting import LIMIT_S

HOSTILE = "\x1b[31mred\x07\u202etxt"


@asynccontextmanager
async def listening(folder: Path, port: int, *words: str, **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {"REVERB_PORT": str(port), "PATH": "/usr/bin:/bin", "HOME": str(folder)} | more
    process = await processes.spawn(
        SMARTLINK, "listen", *words, cwd=folder, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def heard(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    return (await process.stderr.readline()).decode()


async def test_it_prints_what_arrives_until_it_is_interrupted(tmp_path: Path) -> None:
    async with realtime_server() as server:
        async with listening(tmp_path, server.port, "private-orders.7", "chat", "--json") as process:
            assert process.stdout is not None
            assert {await heard(process) for _ in range(2)} == {
                "Listening to private-orders.7\n", "Listening to chat\n",
            }  # fmt: skip
            await publish(server.port, "private-orders.7", {"n": 1})
            line: dict[str, Any] = json.loads(await process.stdout.readline())
            assert {name: line[name] for name in ("channel", "event", "data")} == {
                "channel": "private-orders.7", "event": "news", "data": {"n": 1},
            }  # fmt: skip
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0


async def test_it_selects_counts_and_lets_nothing_steer_the_terminal(tmp_path: Path) -> None:
    async with realtime_server() as server:
        words = ("chat", "--event", "red", "--event", HOSTILE[:2] + "name", "--count", "2")
        async with listening(tmp_path, server.port, *words) as process:
            assert process.stdout is not None
            await heard(process)
            for name, data in (("blue", 1), ("red", HOSTILE), ("red", 3), ("red", 4)):
                await publish(server.port, "chat", data, name=name)
            shown = (await process.stdout.read()).decode()

            assert await process.wait() == 0
            assert [line.split("  ")[1:3] for line in shown.splitlines()] == [["chat", "red"], ["chat", "red"]]
            assert shown.rstrip().endswith("3")
            assert not {"\x1b", "\x07", "\u202e"} & set(shown)


@pytest.mark.parametrize(
    ("words", "secret", "code", "said"),
    [
        (["presence-room"], SECRET, 1, "a presence channel needs user_id"),
        (["private-chat"], "wrong", 1, "Invalid signature"),
        (["chat", "--key", "other"], SECRET, 1, "No application has this key (4001)"),
        (["not a channel"], SECRET, 1, "not a channel name"),
        (["chat", "--url", "nonsense"], SECRET, 2, "looks like wss://"),
        (["chat", "--auth", "http://x", "--header", "Bearer s3cret-token-of-somebody"], SECRET, 2, "a name, a colon"),
    ],
)
async def test_what_is_refused_is_said_and_the_code_tells(
    words: list[str], secret: str, code: int, said: str, tmp_path: Path
) -> None:
    async with realtime_server(an_app()) as server:
        async with listening(tmp_path, server.port, *words, REVERB_APP_SECRET=secret) as process:
            out, err = await process.communicate()

    assert (process.returncode, out) == (code, b"")
    assert said in err.decode()
    assert b"Traceback" not in err


async def test_an_endpoint_may_authorize_and_a_user_be_on_presence_channels(tmp_path: Path) -> None:
    async with realtime_server() as server, application() as app:
        app.answers = [(403, b"")]
        words = ("private-chat", "--auth", app.url, "--header", "Authorization: Bearer t0ken")
        async with listening(tmp_path, server.port, *words) as process:
            assert await process.wait() == 1
        assert "authorization: bearer t0ken" in app.requests[0].lower()

        async with listening(tmp_path, server.port, "presence-room", "--user", "7", "--key", KEY) as process:
            assert await heard(process) == "Listening to presence-room\n"


async def test_a_server_that_is_away_is_waited_for(tmp_path: Path) -> None:
    async with listening(tmp_path, port := free_port(), "chat", "--count", "1") as process:
        assert "coming back" in await heard(process)
        async with realtime_server(reverb_server_port=port) as server:
            while "Listening" not in await heard(process):
                pass
            await publish(server.port, "chat", 1)
            assert await process.wait() == 0
