"""Keeps `user_presence` in line with the realtime server's connections, and announces changes.

Webhooks report who joined and left; a sweep corrects what a crash or a lost webhook has left behind.
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
    """A webhook event: a user joined (`joined` true) or left a presence channel."""

    user_id: int
    joined: bool


def user_id_of(text: object) -> int | None:
    """Return a member's id as a user id, or None if it is not a valid one."""
    if not isinstance(text, str) or not _USER_ID.match(text) or int(text) > MAX_ID:
        return None
    return int(text)


class Presence:
    """Stores and announces who is online."""

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer
        self._touched: dict[int, float] = {}

    async def online(self) -> Sequence[User]:
        """Return the users who are online and were seen in the last five minutes, by name."""
        found = (
            select(User)
            .join(UserPresence, UserPresence.user_id == User.id)
            .where(UserPresence.is_online, UserPresence.last_seen >= _now() - RECENT)
            .order_by(User.name, User.id)
            .limit(1000)
        )
        async with self._announcer.database.reading() as session:
            return (await session.scalars(found)).all()

    async def apply(self, events: Iterable[MemberEvent], at_ms: int) -> None:
        """Apply `events`, reported by the realtime server at `at_ms`, in order and in one transaction.

        Ignores users with a report that is as new or newer: this one is a repeat, or late. A time in the future
        counts as now, so that a server with a fast clock does not outdate correct reports.
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

    async def correct(self, present: Collection[int], as_of: dt.datetime) -> None:
        """Correct the table: `present` are the users on the channel at `as_of`. Rows changed since are kept."""
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
        """Update when a user was last seen, at most once a minute."""
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
    """Apply joins (True) and leaves (False) in order, and announce changes, unless the report is outdated."""
    is_online = await _claim(work, user_id, at_ms)
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


async def _claim(work: UnitOfWork, user_id: int, at_ms: int) -> bool | None:
    """Lock the user's row and set the time of its report. Returns whether the user was online; None if outdated."""
    insert: Any = sqlite.insert if _is_sqlite(work) else postgresql.insert
    now = _now()
    row = insert(UserPresence).values(
        user_id=user_id, is_online=False, last_seen=now, created_at=now, updated_at=now, told_ms=at_ms
    )
    was_online: bool | None = await work.session.scalar(
        row.on_conflict_do_update(
            index_elements=["user_id"], set_={"told_ms": at_ms}, where=UserPresence.told_ms < at_ms
        ).returning(UserPresence.is_online)
    )
    return was_online


def _is_sqlite(work: UnitOfWork) -> bool:
    return work.session.get_bind().dialect.name == "sqlite"


def _ms(time: dt.datetime) -> int:
    return int(time.timestamp() * 1000)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def member_events(events: Iterable[object]) -> list[MemberEvent]:
    """Return the joins and leaves on our presence channel among a webhook's events."""
    found = []
    for event in events:
        if isinstance(event, MemberAdded | MemberRemoved) and event.channel == CHAT_PRESENCE:
            user_id = user_id_of(event.user_id)
            if user_id is not None:
                found.append(MemberEvent(user_id, isinstance(event, MemberAdded)))
    return found
