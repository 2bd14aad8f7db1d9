"""Our own PgBouncer in front of the tests' PostgreSQL, in transaction mode, on a free port."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from kit import processes
from kit.ports import free_port
from kit.waiting import LIMIT_S, wait_until

__all__ = ["pgbouncer"]


@contextmanager
def pgbouncer(url: str, pool_size: int = 5) -> Iterator[str]:
    """The address of the same database through a pooler; `url` is `postgresql…://…`."""
    binary = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not Path(binary).exists():
        raise FileNotFoundError("pgbouncer is missing; `make setup-dev` installs it")
    parts, port = urlsplit(url), free_port()
    folder = Path(tempfile.mkdtemp(prefix="smartlink-pgb-"))
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host={parts.hostname} port={parts.port} user={parts.username}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = transaction\nmax_client_conn = 200\ndefault_pool_size = {pool_size}\n"
    )
    # It refuses to run as root.
    identity = {}
    if os.getuid() == 0:
        owner = pwd.getpwnam("postgres").pw_uid
        identity = {"user": owner, "group": owner, "extra_groups": []}
        folder.chmod(0o755)
    log = folder / "log"
    with log.open("wb") as output:
        process = processes.popen([binary, str(config)], stdout=output, stderr=output, cwd="/", **identity)
    through = parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}").geturl()

    def accepts() -> bool:
        assert process.poll() is None, f"PgBouncer ended:\n{log.read_text()}"
        try:
            psycopg.connect(through.replace("+asyncpg", "")).close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        wait_until(accepts, what="a PgBouncer that accepts connections")
        yield through
    finally:
        process.terminate()
        process.wait(LIMIT_S)
        shutil.rmtree(folder, ignore_errors=True)
