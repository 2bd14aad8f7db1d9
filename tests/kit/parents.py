"""A process that ends with the one that started it."""

from __future__ import annotations

import ctypes
import shutil
import signal

__all__ = ["SETPRIV", "end_with_parent"]

SETPRIV = shutil.which("setpriv")
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have this very process killed when the one that started it is gone. Does nothing where there is no setpriv."""
    if SETPRIV is not None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
