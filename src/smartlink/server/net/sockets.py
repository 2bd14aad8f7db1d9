"""The sockets a server listens on, and how many descriptors it may use."""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
from pathlib import Path

from smartlink.server.settings.config import ServerSettings

__all__ = ["SocketUnusable", "open_listeners", "open_socket", "open_unix_socket", "raise_descriptor_limit"]


class SocketUnusable(ValueError):
    """The Unix socket cannot be opened; the message says why."""


def raise_descriptor_limit() -> int:
    """Raise this process's descriptor limit to the hard limit. Returns that limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def open_socket(host: str, port: int, backlog: int, *, is_shared: bool = False) -> socket.socket:
    """Open a non-blocking listening socket. Raises OSError, for instance if the port is taken.

    Several sockets with `is_shared` may listen on one port; the kernel spreads new connections evenly over them.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def open_unix_socket(path: Path, mode: int, backlog: int) -> socket.socket:
    """Open a non-blocking listening Unix socket, replacing a stale socket file. Raises OSError."""
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # No one may connect before the mode is set.
        before = os.umask(0o777)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(backlog)
        path.chmod(mode)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def open_listeners(settings: ServerSettings, workers: int = 1, *, is_shared: bool = False) -> list[list[socket.socket]]:
    """Open the sockets of each worker: one of its own on the port, and the Unix socket, which all share.

    With `is_shared`, other processes that say so too may listen on the same port.

    The caller keeps them open, so that connections queued on a dead worker's socket are accepted by its successor.
    Raises OSError if the port is unavailable, and SocketUnusable.
    """
    host, port, backlog = settings.reverb_server_host, settings.reverb_server_port, settings.reverb_server_backlog
    if workers == 1:
        listeners = [[open_socket(host, port, backlog, is_shared=is_shared)]]
    else:
        # SO_REUSEPORT would also share the port with another server: make sure that there is none.
        with open_socket(host, port, backlog) as probe:
            port = probe.getsockname()[1]
        listeners = [[open_socket(host, port, backlog, is_shared=True)] for _ in range(workers)]
    if settings.reverb_server_unix_socket is not None:
        try:
            shared = open_unix_socket(
                Path(settings.reverb_server_unix_socket), settings.reverb_server_unix_socket_mode, backlog
            )
        except OSError as error:
            for (listener,) in listeners:
                listener.close()
            raise SocketUnusable(
                f"REVERB_SERVER_UNIX_SOCKET={settings.reverb_server_unix_socket}: {error.strerror}"
            ) from None
        for own in listeners:
            own.append(shared)
    return listeners


def _remove_stale(path: Path) -> None:
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise FileExistsError(errno.EEXIST, "The file exists and is not a socket", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        else:
            raise OSError(errno.EADDRINUSE, "Another server is listening on it", str(path))
