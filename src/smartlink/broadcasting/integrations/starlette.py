"""Starlette: adds the endpoints for `Broadcasting.install`; the user comes from a function of the request."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request

from smartlink.broadcasting.authorizer import ChannelAuthorizer
from smartlink.broadcasting.routes import BroadcastingAuth
from smartlink.broadcasting.socket_id import Scope, SocketIdMiddleware

__all__ = ["install"]

UserOf = Callable[[Request], Any]


def install(
    app: Starlette,
    authorizer: ChannelAuthorizer[Any] | None,
    user: UserOf | Mapping[str, UserOf] | None,
    prefix: str,
) -> None:
    """Add the middleware, and the endpoints if `authorizer` and `user` are given."""
    app.add_middleware(SocketIdMiddleware)
    if authorizer is not None and user is not None:
        users = user if isinstance(user, Mapping) else {"default": user}
        app.mount(prefix, BroadcastingAuth(authorizer, {name: _of_scope(each) for name, each in users.items()}))


def _of_scope(user_of: UserOf) -> Callable[[Scope], Awaitable[Any]]:
    async def user(scope: Scope) -> Any:
        found = user_of(Request(scope))
        return await found if inspect.isawaitable(found) else found

    return user
