"""A PostgreSQL of our own for the tests: a private cluster on a free port, gone when they are done."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from kit.ports import free_port

__all__ = ["fresh_database", "postgres_url"]


def _binary(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    binary = str(found[-1]) if found else shutil.which(name)
    if binary is None:
        raise FileNotFoundError(f"{name} is missing; `make setup-dev` installs PostgreSQL")
    return binary


def _run(command: list[str], owner: int | None) -> None:
    identity = {} if owner is None else {"user": owner, "group": owner, "extra_groups": []}
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60, check=False, **identity)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")


@contextmanager
def cluster() -> Iterator[str]:
    """Start a cluster and give the address of its `postgres` database. It does not wait for the disk."""
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
    control = [_binary("pg_ctl"), "-D", str(data), "-l", str(directory / "log")]
    try:
        _run([_binary("initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"], owner)
        _run([*control, "-w", "-t", "30", "-o", options, "start"], owner)
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            _run([*control, "-m", "immediate", "stop"], owner)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


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
