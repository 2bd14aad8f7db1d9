"""What `Broadcasting` knows of an application's users: their ids, and where the current one comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from smartlink.broadcasting.authorization import Member
from smartlink.broadcasting.errors import BroadcastConfigError

__all__ = ["check_user_function", "member_of"]


def member_of(user: Any) -> Member:
    """Return the `Member` with the user's `pk` or `id`, or of an id. Raises BroadcastConfigError without one."""
    if isinstance(user, Member):
        return user
    if isinstance(user, str | int) and not isinstance(user, bool):
        return Member(user)
    found = getattr(user, "pk", None) or getattr(user, "id", None)
    if isinstance(found, UUID):
        found = str(found)
    if not isinstance(found, str | int) or isinstance(found, bool):
        raise BroadcastConfigError(
            f"{type(user).__name__} has no id that is a string or a number: pass Broadcasting "
            "member_of=lambda user: Member(user.id)"
        )
    return Member(found)


def check_user_function(user: object) -> None:
    """Raise TypeError unless it can give `install` the current user, or is None."""
    given = list(user.values()) if isinstance(user, Mapping) else [user]
    if user is not None and not (given and all(callable(each) for each in given)):
        raise TypeError(f"install(user=...) takes the function that gives the current user, not {user!r:.80}")
