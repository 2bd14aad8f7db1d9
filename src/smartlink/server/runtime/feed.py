"""The operator feed: what happens in this process, for operators who are looking.

While nobody looks, a happening costs one truth test (`if feed.watches`). While somebody does, each watch keeps a
bounded batch until it is collected; what does not fit is counted and dropped. Problems (refusals, errors) are rare, so
the last few are kept always: they answer "why was I refused?" afterwards.
"""

from __future__ import annotations

import fnmatch
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

__all__ = ["KINDS", "MAX_ENTRIES", "Batch", "Entry", "Feed", "Filter"]

MAX_ENTRIES = 100
"""Entries of one watch per batch; four batches a second are more than anybody reads."""
MAX_BYTES = 65_536
"""Payload shown per batch of one watch."""
MAX_TURN = 400
"""Entries of all watches together per turn."""
MAX_WATCHES = 64
MAX_SHOWN = 2_000
"""Characters of a payload that are shown."""
MAX_TEXT = 200
MAX_PROBLEMS = 300
MAX_PATTERN = 200

KINDS: Final = (
    "connect", "disconnect", "subscribe", "unsubscribe", "publish", "client_event", "webhook", "refused", "error",
    "received", "sent",
)  # fmt: skip
"""`received` and `sent` are the frames of one connection, shown only to those who look at it."""


class Filter(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a watch shows; None shows everything. `channel` and `event` are patterns with `*`, `?` and `[…]`."""

    app_id: str | None = None
    channel: str | None = None
    event: str | None = None
    user_id: str | None = None
    socket_id: str | None = None
    kinds: tuple[str, ...] = ()


class Entry(msgspec.Struct, omit_defaults=True):
    """One happening. `at` is in seconds since 1970; `why` says why something was refused or ended."""

    at: float
    kind: str
    app_id: str = ""
    channel: str = ""
    event: str = ""
    user_id: str = ""
    socket_id: str = ""
    data: str = ""
    why: str = ""


class Batch(msgspec.Struct):
    """What one watch collected since its last batch, and how many entries did not fit."""

    entries: list[Entry]
    dropped: int


class _Frame(msgspec.Struct):
    event: str = ""
    data: msgspec.Raw = msgspec.Raw(b'""')


_frame = msgspec.json.Decoder(_Frame).decode


class _Watch:
    __slots__ = ("_channel", "_event", "bytes", "dropped", "entries", "filter", "reply_to", "until")

    def __init__(self, shown: Filter, reply_to: str) -> None:
        self.filter = shown
        self.reply_to = reply_to
        self.until = 0.0
        self.entries: list[Entry] = []
        self.bytes = self.dropped = 0
        self._channel = _pattern(shown.channel)
        self._event = _pattern(shown.event)

    @property
    def is_full(self) -> bool:
        return len(self.entries) >= MAX_ENTRIES or self.bytes >= MAX_BYTES

    @property
    def has_event(self) -> bool:
        return self._event is not None

    def wants(self, kind: str, app_id: str, channel: str, user_id: str, socket_id: str) -> bool:
        shown = self.filter
        return (
            (shown.app_id is None or shown.app_id == app_id)
            and (shown.socket_id is None or shown.socket_id == socket_id)
            and (shown.user_id is None or shown.user_id == user_id)
            and (not shown.kinds or kind in shown.kinds)
            and (self._channel is None or self._channel(channel) is not None)
        )

    def wants_event(self, event: str) -> bool:
        return self._event is None or self._event(event) is not None


class Feed:
    """The happenings of this process. Plain and synchronous; `now` is the clock that leases run by."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.watches: dict[str, _Watch] = {}
        """By watch id. Test its truth before noting anything: nobody may be looking."""
        self.taps: frozenset[str] = frozenset()
        """Socket ids of connections whose frames somebody looks at."""
        self.problems: deque[Entry] = deque(maxlen=MAX_PROBLEMS)
        """The last refusals and errors, oldest first."""
        self._left = MAX_TURN

    def watch(self, watch_id: str, shown: Filter, reply_to: str, lease_s: float) -> bool:
        """Begin or prolong a watch. Returns False if there are too many."""
        watch = self.watches.get(watch_id)
        if watch is None or watch.filter != shown:
            if watch is None and len(self.watches) >= MAX_WATCHES:
                return False
            watch = self.watches[watch_id] = _Watch(shown, reply_to)
            self._set_taps()
        watch.until = self._now() + lease_s
        return True

    def unwatch(self, watch_id: str) -> None:
        """End a watch, if it has not ended."""
        if self.watches.pop(watch_id, None) is not None:
            self._set_taps()

    def note(
        self,
        kind: str,
        app_id: str,
        *,
        channel: str = "",
        event: str = "",
        user_id: str = "",
        socket_id: str = "",
        frame: bytes = b"",
        data: str = "",
        why: str = "",
    ) -> None:
        """Show a happening to those who look. `frame` is a message whose event and data are shown."""
        entry: Entry | None = None
        for watch in self.watches.values():
            if not watch.wants(kind, app_id, channel, user_id, socket_id):
                continue
            is_full = self._left <= 0 or watch.is_full
            if is_full and not watch.has_event:
                watch.dropped += 1
                continue
            if entry is None:
                if frame:
                    event, data = _parts(frame)
                entry = _entry(kind, app_id, channel, event, user_id, socket_id, data, why)
            if not watch.wants_event(entry.event):
                continue
            if is_full:
                watch.dropped += 1
                continue
            watch.entries.append(entry)
            watch.bytes += len(entry.data)
            self._left -= 1

    def problem(
        self,
        kind: str,
        app_id: str,
        why: str,
        *,
        channel: str = "",
        user_id: str = "",
        socket_id: str = "",
        event: str = "",
    ) -> None:
        """Keep a refusal or an error, and show it to those who look."""
        self.problems.append(_entry(kind, app_id, channel, event, user_id, socket_id, "", why))
        if self.watches:
            self.note(kind, app_id, channel=channel, event=event, user_id=user_id, socket_id=socket_id, why=why)

    def collect(self) -> Iterator[tuple[str, str, Batch]]:
        """Yield watch id, address and batch of each watch that has something; end watches that nobody prolonged."""
        now = self._now()
        self._left = MAX_TURN
        for watch_id, watch in tuple(self.watches.items()):
            if watch.entries or watch.dropped:
                yield watch_id, watch.reply_to, Batch(watch.entries, watch.dropped)
                watch.entries, watch.bytes, watch.dropped = [], 0, 0
            if now >= watch.until:
                self.unwatch(watch_id)

    def _set_taps(self) -> None:
        self.taps = frozenset(
            watch.filter.socket_id for watch in self.watches.values() if watch.filter.socket_id is not None
        )


def _entry(
    kind: str, app_id: str, channel: str, event: str, user_id: str, socket_id: str, data: str, why: str
) -> Entry:
    return Entry(
        round(time.time(), 3),
        kind,
        app_id[:MAX_TEXT],
        channel[:MAX_TEXT],
        event[:MAX_TEXT],
        user_id[:MAX_TEXT],
        socket_id[:MAX_TEXT],
        data if len(data) <= MAX_SHOWN else f"{data[:MAX_SHOWN]}…",
        why[:MAX_TEXT],
    )


def _parts(frame: bytes) -> tuple[str, str]:
    """Return event and data of a message, as text. What is no message has neither, and is shown as it is."""
    try:
        parsed = _frame(frame)
        data = bytes(parsed.data).decode()
        if data.startswith('"'):
            data = msgspec.json.decode(data, type=str)
    except (msgspec.DecodeError, UnicodeError):
        return "", frame.decode("utf-8", "replace")
    return parsed.event, data


def _pattern(text: str | None) -> Callable[[str], re.Match[str] | None] | None:
    return None if text is None else re.compile(fnmatch.translate(text[:MAX_PATTERN])).match
