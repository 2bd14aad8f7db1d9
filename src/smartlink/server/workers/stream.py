"""Records over a Unix stream socket, each prefixed with its length; one write per turn of the loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from smartlink.server.workers.messages import MAX_BYTES

__all__ = ["RecordStream"]

READ_BYTES = 65_536
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Bytes that may wait for a peer; beyond, the stream is closed."""


class RecordStream:
    """One end. `on_record` is called with each record, `on_end` once after the last; neither may raise."""

    def __init__(
        self,
        end: socket.socket,
        on_record: Callable[[bytes], None],
        on_end: Callable[[], None],
        before_records: Callable[[], None] | None = None,
        may_flush: Callable[[], bool] | None = None,
    ) -> None:
        """`before_records` is called before what was read is handed on. While `may_flush` is false nothing is written;
        call `flush` when that changes.
        """
        end.setblocking(False)
        self._socket = end
        self._on_record = on_record
        self._on_end = on_end
        self._before_records = before_records
        self._may_flush = may_flush
        self._loop = asyncio.get_running_loop()
        self._chunk = bytearray(READ_BYTES)
        self._read_buffer = bytearray()
        self._pieces: list[bytes] = []
        self._waiting = memoryview(b"")
        self.waiting_bytes = 0
        """Bytes sent that the kernel has not taken."""
        self._is_scheduled = False
        self._waiters: list[asyncio.Future[None]] = []
        self.is_open = True
        self._loop.add_reader(end.fileno(), self._read)

    def send(self, record: bytes) -> None:
        """Send a record, together with all others of this turn of the loop."""
        if not self.is_open:
            return
        self._pieces += (len(record).to_bytes(4, "big"), record)
        self.waiting_bytes += len(record) + 4
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self.flush)
        if self.waiting_bytes > MAX_WAITING_BYTES:
            self._loop.call_soon(self.close)

    def flush(self) -> None:
        """Write as much as the kernel takes."""
        self._is_scheduled = False
        if not self._pieces or self._waiting or not self.is_open:
            return
        if self._may_flush is not None and not self._may_flush():
            return
        self._waiting = memoryview(b"".join(self._pieces))
        self._pieces.clear()
        self._write()
        if self._waiting and self.is_open:
            self._loop.add_writer(self._socket.fileno(), self._write)

    async def drained(self) -> None:
        """Wait until the kernel has taken everything sent so far, or the stream has ended."""
        while self.is_open and (self._waiting or self._pieces):
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def close(self) -> None:
        """Close the stream; what the kernel has not taken is lost."""
        if not self.is_open:
            return
        self.is_open = False
        descriptor = self._socket.fileno()
        self._loop.remove_reader(descriptor)
        self._loop.remove_writer(descriptor)
        self._socket.close()
        self._waiting, self.waiting_bytes = memoryview(b""), 0
        self._pieces.clear()
        self._wake()
        self._on_end()

    def _read(self) -> None:
        try:
            size = self._socket.recv_into(self._chunk)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size = 0
        if self._before_records is not None:
            self._before_records()
        if not size:
            self.close()
            return
        buffer = self._read_buffer
        buffer += memoryview(self._chunk)[:size]
        position, size = 0, len(buffer)
        while size - position >= 4 and self.is_open:
            length = int.from_bytes(buffer[position : position + 4], "big")
            if length > MAX_BYTES:
                self.close()
                return
            end = position + 4 + length
            if end > size:
                break
            record = bytes(buffer[position + 4 : end])
            position = end
            self._on_record(record)
        del buffer[:position]

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._waiting)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        self.waiting_bytes -= sent
        self._waiting = self._waiting[sent:]
        if self._waiting:
            return
        self._loop.remove_writer(self._socket.fileno())
        if self._pieces:
            self.flush()
        else:
            self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
