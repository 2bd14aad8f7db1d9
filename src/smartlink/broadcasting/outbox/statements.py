"""The SQL that records events, prepared per database and driver, so that nothing is compiled at run time.

On PostgreSQL, one statement takes the channels' locks, then inserts the rows, and notifies workers at the commit: one
round trip for any number of events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import msgspec

from smartlink import tracing
from smartlink.broadcasting.envelope import Delivery, Envelope
from smartlink.broadcasting.errors import BroadcastConfigError
from smartlink.broadcasting.outbox.partition import check_queue, lock_and_part

__all__ = ["NOTIFY_CHANNEL", "Recording", "Statements", "statements_for"]

NOTIFY_CHANNEL = "smartlink_outbox"

_COLUMNS = "channel, name, payload, socket_id, delivery, connection, except_user, receipts, queue, part, trace"
_TYPES = (*["text"] * 7, "boolean", "text", "smallint", "text")
_MARKS = {"named": ":p{}", "dollar": "${}", "format": "%s"}
_SQLITE_NOW = "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'"


@dataclass(frozen=True, slots=True)
class Recording:
    """A statement and its values. If it does not return ids, it inserts one row, whose id is the last row id."""

    sql: str
    values: tuple[object, ...]
    returns_ids: bool

    def by_name(self) -> dict[str, object]:
        """Return the values for statements with `named` parameters."""
        return {f"p{number}": value for number, value in enumerate(self.values, 1)}


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements for one database and driver."""

    is_sqlite: bool
    one: str
    many: str

    def recording(self, envelopes: Sequence[Envelope]) -> Recording:
        """Return the statement that records `envelopes`, with ids in their order.

        Raises ValueError for a live envelope, and BroadcastConfigError for an invalid queue name.
        """
        if len(envelopes) == 1:
            key, row = _row(envelopes[0])
            return Recording(self.one, row if self.is_sqlite else (*row, key), not self.is_sqlite)
        keyed = [_row(envelope) for envelope in envelopes]
        rows = [row for _, row in keyed]
        if self.is_sqlite:
            return Recording(self.many, (msgspec.json.encode(rows).decode(),), True)
        # Sorted, so that two transactions with the same channels do not deadlock.
        keys = sorted({key for key, _ in keyed})
        return Recording(self.many, (*(list(column) for column in zip(*rows, strict=True)), keys), True)


def statements_for(dialect: str, paramstyle: str, table: str, *, notify: bool) -> Statements:
    """Return the statements for `dialect`.

    Parameters are `:p1`, `:p2` … (`named`), `$1`, `$2` … (`dollar`) or `%s` (`format`). Raises BroadcastConfigError
    for an unsupported database.
    """
    if dialect == "sqlite":
        return _sqlite(paramstyle, table)
    if dialect == "postgresql":
        return _postgresql(paramstyle, table, notify)
    raise BroadcastConfigError(f"the outbox supports sqlite and postgresql, not {dialect}; change DATABASE_URL")


def _sqlite(paramstyle: str, table: str) -> Statements:
    # SQLite has one writer at a time, so no lock is needed to keep the order.
    marks = [f":p{number}" if paramstyle == "named" else "%s" for number in range(1, len(_TYPES) + 1)]
    # With %s parameters, a % in the statement itself must be doubled.
    now = _SQLITE_NOW if paramstyle == "named" else _SQLITE_NOW.replace("%", "%%")
    fields = ", ".join(f"json_extract(value, '$[{index}]')" for index in range(len(_TYPES)))
    return Statements(
        is_sqlite=True,
        one=f"INSERT INTO {table} ({_COLUMNS}, created_at) VALUES ({', '.join(marks)}, {now})",  # noqa: S608 - as below
        many=f"INSERT INTO {table} ({_COLUMNS}, created_at) "  # noqa: S608 - the table's name is ours
        f"SELECT {fields}, {now} FROM json_each({marks[0]}) ORDER BY key RETURNING id",
    )


def _postgresql(paramstyle: str, table: str, notify: bool) -> Statements:
    numbers = count(1)

    def mark(kind: str) -> str:
        return f"CAST({_MARKS[paramstyle].format(next(numbers))} AS {kind})"

    told = f", pg_notify('{NOTIFY_CHANNEL}', '')" if notify else ""
    fields = ", ".join(mark(kind) for kind in _TYPES)
    # OFFSET 0 keeps the lock in a separate step below the insert, so that the row takes its id after the lock.
    one = (
        f"INSERT INTO {table} ({_COLUMNS}, created_at) SELECT {fields}, clock_timestamp() "  # noqa: S608
        f"FROM (SELECT pg_advisory_xact_lock({mark('bigint')}){told} OFFSET 0) AS locked RETURNING id"
    )
    numbers = count(1)
    arrays = ", ".join(mark(f"{kind}[]") for kind in _TYPES)
    # The count forces all locks before the first row; rows take their ids after the sort.
    many = (
        f"INSERT INTO {table} ({_COLUMNS}, created_at) SELECT {_COLUMNS}, clock_timestamp() "  # noqa: S608
        f"FROM unnest({arrays}) WITH ORDINALITY AS row ({_COLUMNS}, place), "
        f"(SELECT count(pg_advisory_xact_lock(key)) AS locks{told} FROM unnest({mark('bigint[]')}) AS key) AS locked "
        f"WHERE locked.locks > 0 ORDER BY place RETURNING id"
    )
    return Statements(is_sqlite=False, one=one, many=many)


def _row(envelope: Envelope) -> tuple[int, tuple[object, ...]]:
    if envelope.delivery is Delivery.LIVE:
        raise ValueError(f"{envelope.name} is live: live events are not recorded; send it after the commit")
    channel = envelope.channel
    key, part = lock_and_part(channel)
    return key, (
        channel,
        envelope.name,
        envelope.payload,
        envelope.socket_id,
        envelope.delivery.value,
        envelope.connection,
        envelope.except_user,
        envelope.receipts,
        check_queue(envelope.queue),
        part,
        tracing.current(),
    )
