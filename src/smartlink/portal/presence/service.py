"""Keeps `user_presence` at the truth of connections, and tells of changes only.

The realtime server says who came and went; a sweep compares with who is really there, for what a crash left.
"""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite

from smartlink.broadcasting.webhooks import MemberAdded, MemberRemoved
from smartlink.portal.presence.channels import CHAT_PRESENCE
from smartlink.portal.presence.events import UserJoined, UserLeft
from smartlink.portal.presence.model import UserPresence
from smartlink.portal.shared.paging import MAX_ID
from smartlink.portal.shared.unit_of_work import Announcer, UnitOfWork
from smartlink.portal.users.model import User

__all__ = ["MemberEvent", "Presence", "member_events", "user_id_of"]

RECENT = dt.timedelta(minutes=5)
TOUCH_EVERY_S = 60.0
_USER_ID = re.compile(r"[1-9][0-9]{0,18}\Z")


@dataclass(frozen=True, slots=True)
class MemberEvent:
    """A webhook's word that a user came to a presence channel (`joined`) or left it."""

    user_id: int
    joined: bool


def user_id_of(text: object) -> int | None:
    """The user a member's id stands for; None when it is none of ours."""
    if not isinstance(text, str) or not _USER_ID.match(text) or int(text) > MAX_ID:
        return None
    return int(text)


class Presence:
    """Who is online."""

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer
        self._touched: dict[int, float] = {}

    async def online(self) -> Sequence[User]:
        """Users who are online and were seen in the last five minutes, by name."""
        found = (
            select(User)
            .join(UserPresence, UserPresence.user_id == User.id)
            .where(UserPresence.is_online, UserPresence.last_seen >= _now() - RECENT)
            .order_by(User.name, User.id)
            .limit(1000)
        )
        async with self._announcer.database.reading() as session:
            return (await session.scalars(found)).all()

    async def hear(self, events: Iterable[MemberEvent], at_ms: int) -> None:
        """Apply what the realtime server told of up to `at_ms`, in order, in one transaction.

        Of a user of whom as much or more was told already nothing is applied: it is a repeat, or late. A clock that
        runs ahead counts as ours, or it would make the right one's word late.
        """
        moves: dict[int, list[bool]] = {}
        for event in events:
            moves.setdefault(event.user_id, []).append(event.joined)
        if not moves:
            return
        at_ms = min(at_ms, _ms(_now()))
        async with self._announcer.work() as work:
            names = await _names(work, moves)
            for user_id in sorted(names):
                await _apply(work, user_id, names[user_id], moves[user_id], at_ms)

    async def mend(self, present: Collection[int], as_of: dt.datetime) -> None:
        """Bring the table to who was on the channel at `as_of`. A row changed since then is newer and stays."""
        async with self._announcer.work() as work:
            gone = (
                select(User.id, User.name)
                .join(UserPresence, UserPresence.user_id == User.id)
                .where(UserPresence.is_online, UserPresence.updated_at < as_of)
            )
            left = [(user_id, name) for user_id, name in await work.session.execute(gone) if user_id not in present]
            at_ms = _ms(as_of)
            for user_id, name in left:
                await _apply(work, user_id, name, [False], at_ms)
            names = await _names(work, present)
            for user_id in sorted(names):
                await _apply(work, user_id, names[user_id], [True], at_ms)
            if names:
                seen = update(UserPresence).where(UserPresence.user_id.in_(names), UserPresence.is_online)
                await work.session.execute(seen.values(last_seen=_now()))

    async def touch(self, work: UnitOfWork, user_id: int) -> None:
        """Note that a user did something; written at most once a minute."""
        now = time.monotonic()
        if now - self._touched.get(user_id, -TOUCH_EVERY_S) < TOUCH_EVERY_S:
            return
        if len(self._touched) > 10_000:
            self._touched.clear()
        self._touched[user_id] = now
        seen = update(UserPresence).where(UserPresence.user_id == user_id).values(last_seen=_now())
        await work.session.execute(seen)


async def _names(work: UnitOfWork, user_ids: Collection[int]) -> dict[int, str]:
    if not user_ids:
        return {}
    rows = await work.session.execute(select(User.id, User.name).where(User.id.in_(user_ids)))
    return dict(rows.all())


async def _apply(work: UnitOfWork, user_id: int, name: str, moves: Sequence[bool], at_ms: int) -> None:
    """Take over what was told, each move in order, and announce changes; nothing when it is no news."""
    is_online = await _told(work, user_id, at_ms)
    if is_online is None:
        return
    before = is_online
    for joined in moves:
        if joined != is_online:
            work.announce(UserJoined(user_id, name) if joined else UserLeft(user_id, name))
        is_online = joined
    if is_online != before or len(moves) > 1:
        now = _now()
        changed = update(UserPresence).where(UserPresence.user_id == user_id)
        await work.session.execute(changed.values(is_online=is_online, last_seen=now, updated_at=now))


async def _told(work: UnitOfWork, user_id: int, at_ms: int) -> bool | None:
    """Whether the user was online until now, the row locked and marked as told; None when this is no news."""
    insert: Any = sqlite.insert if _is_sqlite(work) else postgresql.insert
    now = _now()
    row = insert(UserPresence).values(
        user_id=user_id, is_online=False, last_seen=now, created_at=now, updated_at=now, told_ms=at_ms
    )
    told: bool | None = await work.session.scalar(
        row.on_conflict_do_update(
            index_elements=["user_id"], set_={"told_ms": at_ms}, where=UserPresence.told_ms < at_ms
        ).returning(UserPresence.is_online)
    )
    return told


def _is_sqlite(work: UnitOfWork) -> bool:
    return work.session.get_bind().dialect.name == "sqlite"


def _ms(time: dt.datetime) -> int:
    return int(time.timestamp() * 1000)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def member_events(events: Iterable[object]) -> list[MemberEvent]:
    """What a webhook's events say about our presence channel; everything else in them is for others."""
    found = []
    for event in events:
        if isinstance(event, MemberAdded | MemberRemoved) and event.channel == CHAT_PRESENCE:
            user_id = user_id_of(event.user_id)
            if user_id is not None:
                found.append(MemberEvent(user_id, isinstance(event, MemberAdded)))
    return found
