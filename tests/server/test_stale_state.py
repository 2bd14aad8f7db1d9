"""State read before waiting for an engine, a process or a node may have changed afterwards."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from kit.client import connected
from kit.engines import Between
from kit.realtime import KEY, SECRET, realtime_server
from kit.waiting import eventually
from smartlink.protocol import encoding
from smartlink.protocol.session import PresenceMember
from smartlink.protocol.signing import sign_channel
from smartlink.server.cluster.brokers.base import Publication
from smartlink.server.cluster.history.memory import MemoryHistory
from smartlink.server.cluster.idempotency.memory import MemoryIdempotency
from smartlink.server.cluster.presence.base import ChannelState
from smartlink.server.cluster.presence.memory import MemoryPresence
from smartlink.server.cluster.sessions.memory import MemorySessions
from smartlink.server.core.corrections import Corrections
from smartlink.server.core.members import Members
from smartlink.server.net.sockets import open_listeners
from smartlink.server.run.supervisor import Supervisor, WorkersFailed
from smartlink.server.runtime.eager import EagerTasks
from smartlink.server.runtime.metrics import Metrics
from smartlink.server.workers.hub import WorkerHub


async def test_disconnecting_while_the_state_is_sent_again_leaves_nothing_behind() -> None:
    between = Between()
    async with realtime_server(engines=between.engines()) as server:
        async with connected(server.port) as client:
            await client.subscribe("presence-a", {"user_id": "1"})
            between.reading.shut()
            data = json.dumps({"user_id": "1"})
            auth = sign_channel(KEY, SECRET, client.socket_id, "presence-a", data)
            client.send("pusher:subscribe", {"channel": "presence-a", "channel_data": data, "auth": auth})
            await eventually(lambda: between.reading.waiting)
            client.writer.transport.abort()
            await eventually(lambda: len(server.node.hub) == 0)
        between.reading.open()

        await eventually(lambda: not between.nodes[0].subscribed)


@pytest.mark.parametrize(
    ("becomes", "code"), [("is_enabled = false", 4003), ('key = "another"', 4001), ('secret = "another secret"', 4200)]
)
async def test_an_app_change_during_the_greeting_ends_the_connection(tmp_path: Path, becomes: str, code: int) -> None:
    file = tmp_path / "apps.toml"
    told = {"id": '"1001"', "key": f'"{KEY}"', "secret": f'"{SECRET}"'}
    file.write_text("\n".join(["[[apps]]", *(f"{name} = {value}" for name, value in told.items())]))
    between = Between()
    async with realtime_server(engines=between.engines(), reverb_apps_file=file) as server:
        between.admitting.shut()

        async def greeting() -> int:
            async with connected(server.port) as client:
                return int(client.refusal["code"]) if not client.socket_id else 0

        coming = asyncio.create_task(greeting())
        await eventually(lambda: between.admitting.waiting)
        name, _, value = becomes.partition(" = ")
        told[name] = value
        file.write_text("\n".join(["[[apps]]", *(f"{name} = {value}" for name, value in told.items())]))
        await server._apps.reload()
        between.admitting.open()

        assert await coming == code
        await eventually(lambda: len(server.node.hub) == 0)


class SlowPresence(MemoryPresence):
    """Answers with what was true when it was asked, when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[asyncio.Event] = []

    async def state(self, app_id: str, channel: str) -> ChannelState:
        found = await super().state(app_id, channel)
        self.answers.append(answer := asyncio.Event())
        await answer.wait()
        return found


@pytest.mark.parametrize("comes_back", [False, True])
async def test_a_member_is_not_reconciled_with_an_outdated_reply(comes_back: bool) -> None:
    async with realtime_server() as server, connected(server.port) as client:
        await client.subscribe("presence-a", {"user_id": "2"})
        presence, delivered = SlowPresence(), list[Publication]()
        await presence.join("1001", "presence-a", "1.1", PresenceMember("1"))
        members = Members(
            server.node.hub, presence, delivered.append, lambda: True, EagerTasks(Metrics()), Corrections()
        )
        members.note("1001", "presence-a", "1", 0, has_come=False)
        await eventually(lambda: len(presence.answers) == 1)
        # While that answer, in which the user is there, is under way, they leave; and another question is asked.
        if comes_back:
            members.note("1001", "presence-a", "3", 0, has_come=False)
            await eventually(lambda: len(presence.answers) == 2)
            members.note("1001", "presence-a", "1", 0, has_come=True)
        else:
            await presence.leave("1001", "presence-a", "1.1")
            members.note("1001", "presence-a", "1", 0, has_come=False)
            await eventually(lambda: len(presence.answers) == 2)
        for answer in presence.answers:
            answer.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        members.stop()

        assert [encoding.member_in(each.frame) for each in delivered] == []


WORKER = """
import socket, sys, time
from smartlink.server.workers import messages
end = socket.socket(fileno=int(sys.argv[1].partition("=")[2]))
def send(message):
    record = messages.encode(message)
    end.sendall(len(record).to_bytes(4, "big") + record)
send(messages.Hello(messages.VERSION, 0))
end.recv(65536)
send(messages.Ready())
time.sleep(0.5)
"""


def worker_hub() -> WorkerHub:
    return WorkerHub(
        presence=MemoryPresence(),
        history=MemoryHistory(),
        idempotency=MemoryIdempotency(),
        sessions=MemorySessions(),
        emit=lambda app_id, event: None,
    )


async def test_a_worker_that_fails_to_start_leaves_no_earlier_one_running() -> None:
    async with realtime_server() as server:
        slots = open_listeners(server.settings, 2)
        slots[1][0].close()
        supervisor = Supervisor(worker_hub(), [sys.executable, "-c", WORKER], slots, 0.1)

        with pytest.raises(ValueError, match="fds_to_keep"):
            await supervisor.replace()

        assert not supervisor._launched
        slots[0][0].close()
        await supervisor.stop()


async def test_a_stop_during_a_replacement_leaves_no_worker_behind() -> None:
    async with realtime_server() as server:
        slots = open_listeners(server.settings, 1)
        supervisor = Supervisor(worker_hub(), [sys.executable, "-c", WORKER], slots, 5.0)
        replacing = asyncio.create_task(supervisor.replace())
        await eventually(lambda: any(worker.peer.heard_at and worker.peer.is_open for worker in supervisor._launched))

        await supervisor.stop()

        with pytest.raises(WorkersFailed, match="stopping"):
            await replacing
        assert not supervisor._launched
        assert not supervisor._keepers
        slots[0][0].close()
