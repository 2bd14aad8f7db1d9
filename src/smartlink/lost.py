"""What all houses take for a lost connection, whichever event loop they run on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["closed_is_lost"]


@contextlib.contextmanager
def closed_is_lost() -> Iterator[None]:
    """Within this block, writing to a connection that is closed already raises ConnectionResetError.

    asyncio's own transports end so, too. uvloop's raise RuntimeError ("unable to perform operation on <TCPTransport …>;
    the handler is closed"), which nobody expects of a network. Any other RuntimeError passes.
    """
    try:
        yield
    except RuntimeError as error:
        if "handler is closed" not in str(error) and "unable to perform operation on" not in str(error):
            raise
        raise ConnectionResetError("the connection was closed meanwhile") from error
