"""How all packages recognise a lost connection, whichever event loop they run on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["closed_is_lost"]


@contextlib.contextmanager
def closed_is_lost() -> Iterator[None]:
    """Within this block, writing to a closed connection raises ConnectionResetError.

    asyncio's transports do so themselves. uvloop's raise RuntimeError ("unable to perform operation on <TCPTransport
    …>; the handler is closed"), which callers do not expect of a network. Any other RuntimeError passes.
    """
    try:
        yield
    except RuntimeError as error:
        if "handler is closed" not in str(error) and "unable to perform operation on" not in str(error):
            raise
        raise ConnectionResetError("the connection is closed") from error
