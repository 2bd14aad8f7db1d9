"""A crowd of WebSocket connections in one process: plain sockets over one epoll, as cheap as Python allows.

What `pload` cannot do: several channels for each connection, batches, all connects at once. The server's cost is read
from the kernel's accounting, so that a slow crowd does not count.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import select
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

KEY, SECRET, APP_ID = "app-key", "app-secret", "1001"
MARK = b"@@"
HANDSHAKE = (
    b"GET /app/app-key?protocol=7&client=crowd&version=1.0 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def frame(payload: bytes) -> bytes:
    size = len(payload)
    head = bytes([0x81, 0x80 | size]) if size < 126 else bytes([0x81, 0xFE]) + size.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload  # masked with zeros: valid, and costs the crowd nothing


def cpu_s(pids: Sequence[int]) -> float:
    """User and system time of these processes, all threads, as the scheduler counts it."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


class Crowd:
    """Connections that answer heartbeats' absence with nothing: runs must be shorter than the ping interval allows."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.epoll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self.texts: dict[int, bytes] = {}
        self.subscribed = 0
        self.marks = 0
        self.lost = 0

    def connect(self, count: int, channels: Callable[[int], list[str]], *, at_once: int = 256) -> float:
        """Open `count` connections and subscribe each; seconds until all are. `at_once` are on their way together."""
        started, wanted, begun = 0, 0, time.monotonic()
        opened: dict[int, int] = {}
        target = self.subscribed
        while started < count or opened or self.subscribed < target + wanted:
            while started < count and len(opened) < at_once:
                s = socket.socket()
                s.setblocking(False)
                s.connect_ex(("127.0.0.1", self.port))
                self.sockets[s.fileno()] = s
                opened[s.fileno()] = started
                self.epoll.register(s.fileno(), select.EPOLLOUT)
                started += 1
            for fd, events in self.epoll.poll(0.05):
                s = self.sockets.get(fd)
                if s is None:
                    continue
                if events & select.EPOLLOUT and fd in opened:
                    try:
                        s.send(HANDSHAKE)
                    except OSError:
                        self._drop(fd)
                        opened.pop(fd, None)
                        continue
                    self.epoll.modify(fd, select.EPOLLIN)
                    continue
                data = self._read(fd)
                if fd in opened and b"connection_established" in data:
                    names = channels(opened.pop(fd))
                    wanted += len(names)
                    for name in names:
                        s.send(frame(json.dumps({"event": "pusher:subscribe", "data": {"channel": name}}).encode()))
            if time.monotonic() - begun > 60:
                break
        return time.monotonic() - begun

    def drain(self, until_marks: int, timeout_s: float = 30.0) -> None:
        """Read until so many marked messages have come in all."""
        end = time.monotonic() + timeout_s
        while self.marks < until_marks and time.monotonic() < end:
            for fd, _ in self.epoll.poll(0.05):
                self._read(fd)

    def close(self) -> None:
        for s in self.sockets.values():
            s.close()
        self.epoll.close()

    def _read(self, fd: int) -> bytes:
        try:
            data = self.sockets[fd].recv(262_144)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._drop(fd)
            return b""
        self.marks += data.count(MARK)
        self.subscribed += data.count(b"subscription_succeeded")
        return data

    def _drop(self, fd: int) -> None:
        self.lost += 1
        self.epoll.unregister(fd)
        self.sockets.pop(fd).close()


class Publisher:
    """Signed calls of the HTTP API over one connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, method: str, path: str, body: bytes = b"", **params: str) -> bytes:
        """One call; the answer's body. Raises RuntimeError when it is not 200."""
        pairs = params | {"auth_key": KEY, "auth_timestamp": str(int(time.time())), "auth_version": "1.0"}
        if body:
            pairs["body_md5"] = hashlib.md5(body, usedforsecurity=False).hexdigest()
        query = "&".join(f"{name}={value}" for name, value in sorted(pairs.items()))
        signature = hmac.digest(SECRET.encode(), f"{method}\n{path}\n{query}".encode(), "sha256").hex()
        head = f"{method} {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: x\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        self._socket.sendall(head.encode() + body)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._socket.recv(65_536)
        top, _, rest = answer.partition(b"\r\n\r\n")
        size = next(
            int(line.split(b":")[1]) for line in top.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        while len(rest) < size:
            rest += self._socket.recv(65_536)
        if not top.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(top.split(b"\r\n")[0].decode() + " " + rest.decode())
        return rest

    def publish(self, channels: list[str], data: str) -> None:
        self.call(
            "POST", f"/apps/{APP_ID}/events", json.dumps({"name": "e", "channels": channels, "data": data}).encode()
        )

    def publish_batch(self, channel: str, data: Sequence[str]) -> None:
        batch = [{"name": "e", "channel": channel, "data": text} for text in data]
        self.call("POST", f"/apps/{APP_ID}/batch_events", json.dumps({"batch": batch}).encode())
