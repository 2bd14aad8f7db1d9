"""Type checking an application that uses the library."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from kit import processes

_MARKED = re.compile(r"# error: ([a-z, -]+)$")
APPLICATION = """
from dataclasses import dataclass

from sqlalchemy import create_engine, MetaData
from sqlalchemy.orm import scoped_session, sessionmaker

from smartlink.broadcasting import (
    Broadcaster, BroadcastEvent, BroadcastSettings, ChannelRules, Member, ChannelAuthorizer, Delivery, PrivateChannel,
    SyncBroadcaster,
)
from smartlink.broadcasting.outbox import Outbox, define_tables
from smartlink.broadcasting.sessions import SessionBroadcasts


@dataclass(frozen=True)
class User:
    id: int


@dataclass(frozen=True)
class Shipped(BroadcastEvent):
    order: int
    delivery = Delivery.STATE
    broadcast_connections = ("reverb", "pusher")

    def broadcast_on(self) -> PrivateChannel:
        return PrivateChannel(f"orders.{self.order}")


rules = ChannelRules()


@rules.private("orders.{order}")
def own(user: User, order: int) -> bool:
    return user.id == order


def member_of(user: User) -> Member:
    return Member(user.id)


settings = BroadcastSettings(driver="log", reverb_host="realtime.internal")
authorizer: ChannelAuthorizer[User] = ChannelAuthorizer.from_settings(rules, lambda user: Member(user.id), settings)
authorizer = ChannelAuthorizer.from_settings(rules, member_of, settings)
broadcaster = SyncBroadcaster.from_settings(settings)
sessions = scoped_session(sessionmaker(create_engine("sqlite://")))
broadcasts = SessionBroadcasts(broadcaster.broadcaster, Outbox(define_tables(MetaData())))
broadcasts.announce(sessions, Shipped(1))
own("ana", 7)


async def send(broadcaster: Broadcaster) -> None:
    await broadcaster.private("orders.7").with_({"order": 7}).send()
    broadcaster.send(Shipped(7))
"""


def checked(folder: Path, *files: Path) -> list[str]:
    """What mypy reports of applications, strictly and without a plugin."""
    said = processes.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", *map(str, files)],
        cwd=folder, env=os.environ | {"MYPYPATH": str(Path(__file__).parents[2] / "src")},
        capture_output=True, text=True, timeout=170,
    )  # fmt: skip
    assert said.stderr == ""
    named = {file.name for file in files}
    return [line for line in said.stdout.splitlines() if "error:" in line and Path(line.split(":")[0]).name in named]


@pytest.mark.timeout(180)
def test_an_application_is_checked_strictly_without_any_plugin(tmp_path: Path) -> None:
    application = tmp_path / "application.py"
    application.write_text(APPLICATION)

    own, sent, *others = checked(tmp_path, application)

    assert 'Argument 1 to "own" has incompatible type "str"; expected "User"' in own
    assert "unused-coroutine" in sent
    assert others == []


@pytest.mark.timeout(180)
def test_the_front_door_reports_wrong_use_and_nothing_else(tmp_path: Path) -> None:
    applications = sorted((Path(__file__).parent / "typed").glob("*_app.py"))

    errors = checked(tmp_path, *applications)

    found = {(Path(each.split(":")[0]).name, int(each.split(":")[1]), each.rpartition("[")[2][:-1]) for each in errors}
    wanted = {
        (application.name, number, code)
        for application in applications
        for number, line in enumerate(application.read_text().splitlines(), 1)
        if (marked := _MARKED.search(line))
        for code in marked[1].split(", ")
    }
    assert len(applications) == 4
    assert found == wanted, "\n".join(errors)
