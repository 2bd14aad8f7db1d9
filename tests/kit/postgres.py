"""Our own PostgreSQL for the tests: a private cluster on a free port, removed afterwards."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from kit import processes
from kit.ports import free_port
from kit.waiting import LIMIT_S, wait_until

__all__ = ["ReusedDatabase", "binary", "fresh_database", "postgres_url"]


def binary(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    binary = str(found[-1]) if found else shutil.which(name)
    if binary is None:
        raise FileNotFoundError(f"{name} is missing; `make setup-dev` installs PostgreSQL")
    return binary


@contextmanager
def cluster() -> Iterator[str]:
    """Start a cluster and give the address of its `postgres` database. It does not wait for the disk."""
    processes.needs_server("PostgreSQL")
    # PostgreSQL refuses to run as root; Debian's package brings a user for it.
    owner = pwd.getpwnam("postgres").pw_uid if os.getuid() == 0 else None
    directory = Path(tempfile.mkdtemp(prefix="smartlink-pg-"))
    if owner is not None:
        os.chown(directory, owner, owner)
    data, port = directory / "data", free_port()
    options = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={directory} -c fsync=off "
        "-c synchronous_commit=off -c full_page_writes=off -c max_connections=200"
    )
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    log = directory / "log"
    initdb = [binary("initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    identity = {} if owner is None else {"user": owner, "group": owner, "extra_groups": []}
    try:
        done = processes.run(initdb, capture_output=True, text=True, cwd="/", timeout=LIMIT_S, **identity)
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed: {done.stdout}{done.stderr}")
        with log.open("wb") as output:
            # In the foreground, so that it ends with us; SIGQUIT has it end its own processes at once.
            server = processes.popen(
                [binary("postgres"), "-D", str(data), *shlex.split(options)],
                ends_by=signal.SIGQUIT, cwd="/", stdout=output, stderr=output, **identity,
            )  # fmt: skip
        try:
            wait_until(lambda: _accepts(url, server, log), what="a PostgreSQL that accepts connections")
            yield url
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait(LIMIT_S)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _accepts(url: str, server: subprocess.Popen[bytes], log: Path) -> bool:
    assert server.poll() is None, f"PostgreSQL ended:\n{log.read_text()}"
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of a running server's `postgres` database, as a superuser: `postgresql://…`."""
    with cluster() as url:
        yield url


@contextmanager
def fresh_database(server_url: str, template: str = "template1") -> Iterator[str]:
    """An empty database, or a copy of `template`, dropped afterwards; its address."""
    name = f"t_{uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')  # type: ignore[call-overload]
    try:
        yield f"{server_url.rpartition('/')[0]}/{name}"
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')  # type: ignore[call-overload]


class ReusedDatabase:
    """A migrated database that is emptied for each test, which costs a fraction of a copy.

    For tests that change rows, not tables. Raises AssertionError if the database has rows at the start: they would be
    deleted.
    """

    def __init__(self, url: str, *, keeps: str = "alembic_version") -> None:
        self.url = url
        with psycopg.connect(url) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            names = [f'"{name}"' for (name,) in tables if name != keeps]
            for name in names:
                assert connection.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone() is None, f"{name} has rows"  # type: ignore[call-overload]
            sequences = connection.execute("SELECT sequencename, start_value FROM pg_sequences").fetchall()
        self._emptying = "; ".join(
            [
                "SET session_replication_role = replica",  # in any order, whatever refers to what
                *(f"DELETE FROM {name}" for name in names),
                *(f"SELECT setval('{name}', {start}, false)" for name, start in sequences),
            ]
        )

    def empty(self) -> None:
        """End all other connections, delete all rows, and start ids again."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            connection.execute(self._emptying)  # type: ignore[call-overload]
