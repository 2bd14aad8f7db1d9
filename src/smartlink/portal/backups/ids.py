"""Raises ids and versions in a restored database, so that none is ever used twice.

Clients outlive a restore. A page that has seen event 5000 would take a new event 4001 for one it has had; a browser
still on `private-user.57` of a lost account would receive the events of the next user 57; a page that shows version 9
of a balance ignores version 8. So a restore advances all ids and versions by more than can have been used since the
backup. The skipped events count as pruned: clients that ask for missed events are told to reload the state.
"""

from __future__ import annotations

import datetime as dt
import re
import sqlite3

__all__ = ["VERSION_JUMP", "jump", "lift_postgresql", "lift_sqlite"]

LEAST_JUMP = 10**9
IDS_PER_S = 10_000
VERSION_JUMP = 1_000_000
"""Versions have 32 bits, which leaves room for two thousand restores."""
_VERSIONED = ("wallets", "campaigns")
_EPHEMERAL = ("outbox_lease", "outbox_workers")
"""Tables of workers that ran when the backup was taken, which are emptied."""


def jump(taken_at: dt.datetime, now: dt.datetime) -> int:
    """Return by how much to raise ids: a thousand million, plus 10,000 for each second since the backup.

    Ids stay below 2**53, the limit of integers in browsers, for more than a million restores.
    """
    age_s = max(0, int((now - taken_at).total_seconds()))
    return LEAST_JUMP + IDS_PER_S * age_s


def lift_sqlite(connection: sqlite3.Connection, by: int) -> None:
    """Raise the ids of every table by `by`, in the caller's transaction."""
    tables = {
        str(name): "AUTOINCREMENT" in str(sql).upper()
        for name, sql in connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
    }
    for name in (name for name, counts in tables.items() if counts):
        lifted = connection.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = ?", (by, name))
        if not lifted.rowcount:
            connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, by))
    for name in tables.keys() & _VERSIONED:
        connection.execute(f"UPDATE {name} SET version = version + {VERSION_JUMP}")  # noqa: S608 — our own names
    for name in tables.keys() & _EPHEMERAL:
        connection.execute(f"DELETE FROM {name}")  # noqa: S608 — our own names
    if "outbox_watermark" in tables:
        connection.execute(
            "INSERT INTO outbox_watermark (id, pruned_through) SELECT 1, seq FROM sqlite_sequence"
            " WHERE name = 'recorded_events'"
            " ON CONFLICT (id) DO UPDATE SET pruned_through = excluded.pruned_through"
        )


def lift_postgresql(by: int) -> str:
    """Return the SQL statement that does the same on PostgreSQL, for a session without a search path."""
    versioned, ephemeral = (", ".join(f"'{name}'" for name in names) for names in (_VERSIONED, _EPHEMERAL))
    values = {"BY": str(by), "VERSION_JUMP": str(VERSION_JUMP), "VERSIONED": versioned, "EPHEMERAL": ephemeral}
    return re.sub("<([A-Z_]+)>", lambda found: values[found[1]], _ON_POSTGRESQL)


_ON_POSTGRESQL = """DO $$
DECLARE counter record; name text; lifted bigint;
BEGIN
  FOR counter IN SELECT format('%I.%I', schemaname, sequencename) AS name, last_value
      FROM pg_sequences WHERE schemaname = 'public' AND max_value = 9223372036854775807 LOOP
    PERFORM setval(counter.name::regclass, coalesce(counter.last_value, 0) + <BY>);
  END LOOP;
  FOREACH name IN ARRAY ARRAY[<VERSIONED>] LOOP
    IF to_regclass('public.' || name) IS NOT NULL THEN
      EXECUTE format('UPDATE public.%I SET version = version + <VERSION_JUMP>', name);
    END IF;
  END LOOP;
  FOREACH name IN ARRAY ARRAY[<EPHEMERAL>] LOOP
    IF to_regclass('public.' || name) IS NOT NULL THEN
      EXECUTE format('DELETE FROM public.%I', name);
    END IF;
  END LOOP;
  IF to_regclass('public.outbox_watermark') IS NOT NULL THEN
    SELECT last_value INTO lifted FROM pg_sequences
      WHERE format('%I.%I', schemaname, sequencename)::regclass
        = pg_get_serial_sequence('public.recorded_events', 'id')::regclass;
    INSERT INTO public.outbox_watermark (id, pruned_through) VALUES (1, lifted)
      ON CONFLICT (id) DO UPDATE SET pruned_through = excluded.pruned_through;
  END IF;
END $$;
"""
