"""The order of publications: one socket, into which all workers of a machine write, and from which their parent reads.

The kernel queues whole records in the order in which they were written. So a publication has its place in the order of
its channel as soon as it is written, even if its worker is killed the next moment, and nobody has to wait for the
parent to say so.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable

from smartlink.server.cluster.brokers.base import BrokerUnavailable

__all__ = ["Ordered", "Ordering", "TooLarge", "ordering_pair"]

BUFFER_BYTES = 1_048_576
"""What the kernel holds until the parent reads; larger records must go another way."""
AT_ONCE = 4_096
"""Records read in one go: more than the kernel can hold, given what each costs it."""
REST_S = 0.002
"""How long records wait for others when the last ones came less than this ago."""
_TOO_LARGE = errno.EMSGSIZE


class TooLarge(Exception):
    """The record is larger than the kernel takes as a whole."""


def ordering_pair() -> tuple[socket.socket, socket.socket]:
    """The parent's end, and the one that all workers share."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (here, there):
        end.setblocking(False)
    there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    return here, there


class Ordering:
    """A worker's end. Records leave in the order of `send`."""

    def __init__(self, end: socket.socket, on_drained: Callable[[], None]) -> None:
        """`on_drained` is called when nothing waits for the kernel any more."""
        self._socket = end
        self._on_drained = on_drained
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, asyncio.Future[None], float]] = deque()
        """Records, who awaits their places, and since when."""
        self.waiting_bytes = 0
        """Bytes that the kernel has not taken."""

    def send(self, record: bytes) -> asyncio.Future[None] | None:
        """Send a record. Returns None if it has its place, else a future that is done when it has.

        Raises TooLarge, BrokerUnavailable.
        """
        if not self._waiting:
            try:
                self._socket.send(record)
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._send_on)
            except OSError as error:
                raise _failure(error) from None
            else:
                return None
        place: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((record, place, self._loop.time()))
        self.waiting_bytes += len(record)
        return place

    def give_up(self, wait_s: float) -> None:
        """Drop what has waited for longer than this, and tell who awaits it."""
        before = self._loop.time() - wait_s
        while self._waiting and self._waiting[0][2] < before:
            self._settle(BrokerUnavailable("The parent process does not reply"))

    def close(self) -> None:
        """Close this worker's end; what waits is lost."""
        if self._socket.fileno() >= 0:
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
        while self._waiting:
            self._settle(BrokerUnavailable("The parent process is gone"))

    def _send_on(self) -> None:
        while self._waiting:
            try:
                self._socket.send(self._waiting[0][0])
            except BlockingIOError:
                return
            except OSError as error:
                self._settle(_failure(error))
            else:
                self._settle(None)
        self._loop.remove_writer(self._socket.fileno())
        self._on_drained()

    def _settle(self, failure: Exception | None) -> None:
        record, place, _ = self._waiting.popleft()
        self.waiting_bytes -= len(record)
        if place.done():
            return
        if failure is None:
            place.set_result(None)
        else:
            place.set_exception(failure)


def _failure(error: OSError) -> Exception:
    return TooLarge() if error.errno == _TOO_LARGE else BrokerUnavailable("The parent process is gone")


class Ordered:
    """The parent's end. `on_record` is called with each record; it must not raise."""

    def __init__(self, end: socket.socket, on_record: Callable[[bytes], None]) -> None:
        self._socket = end
        self._on_record = on_record
        self._chunk = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._chunk)
        self._loop = asyncio.get_running_loop()
        self._read_at = 0.0
        self._resting: asyncio.TimerHandle | None = None
        self._loop.add_reader(end.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        now = self._loop.time()
        if now - self._read_at > REST_S:
            self._read_at = now
            self.read()
        else:
            # Nobody waits for this end, and the workers wake up once for all that it forwards together.
            self._loop.remove_reader(self._socket.fileno())
            self._resting = self._loop.call_later(REST_S, self._go_on)

    def _go_on(self) -> None:
        self._resting = None
        self._read_at = self._loop.time()
        self._loop.add_reader(self._socket.fileno(), self._on_readable)
        self.read()

    def read(self) -> None:
        """Take every record that has its place by now."""
        receive, chunk, view = self._socket.recv_into, self._chunk, self._view
        for _ in range(AT_ONCE):
            try:
                size = receive(chunk)
            except BlockingIOError:
                return
            self._on_record(bytes(view[:size]))

    def close(self) -> None:
        """Close this end."""
        if self._resting is not None:
            self._resting.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
