"""Records events over Django's own connection, in the transaction of `transaction.atomic`."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connections, transaction

from smartlink.broadcasting.envelope import Envelope
from smartlink.broadcasting.outbox.statements import Statements, statements_for
from smartlink.broadcasting.outbox.wakeup import RedisBell, Wakeup

__all__ = ["DjangoOutbox"]

_TABLE = "recorded_events"


class DjangoOutbox:
    """Records events in a Django transaction; a worker sends them after the commit.

        with transaction.atomic():
            order.save()
            outbox.record(broadcaster.pack(OrderShipped(order)))

    `using` is the alias of the database. On PostgreSQL, the commit notifies workers; `bell` wakes them through Redis,
    and `wakeup` a relay in this process. On SQLite without Redis, workers elsewhere find events when they sweep.
    """

    def __init__(self, using: str = "default", *, notify: bool = True, bell: RedisBell | None = None) -> None:
        self.wakeup = Wakeup()
        self._using = using
        self._notify = notify
        self._bell = bell
        self._statements: Statements | None = None

    def record(self, envelopes: Sequence[Envelope]) -> list[int]:
        """Record `envelopes` in the open transaction, or a new one. Returns their ids, in order.

        Call it once, at the end of the transaction: on PostgreSQL it locks each channel until the commit, and a second
        call could deadlock with another transaction. Workers are woken after the commit. Raises ValueError for a live
        envelope, which is never recorded, and BroadcastConfigError for an unsupported database or an invalid queue
        name.
        """
        if not envelopes:
            return []
        connection = connections[self._using]
        if self._statements is None:
            self._statements = statements_for(connection.vendor, "format", _TABLE, notify=self._notify)
        recording = self._statements.recording(envelopes)
        with transaction.atomic(using=self._using, savepoint=False), connection.cursor() as cursor:
            cursor.execute(recording.sql, recording.values)
            ids = sorted(row[0] for row in cursor.fetchall()) if recording.returns_ids else [int(cursor.lastrowid)]
            queues = {envelope.queue for envelope in envelopes}
            transaction.on_commit(lambda: self._wake(queues), using=self._using)
        return ids

    def _wake(self, queues: set[str]) -> None:
        self.wakeup.set()
        if self._bell is not None:
            self._bell.ring(queues)
