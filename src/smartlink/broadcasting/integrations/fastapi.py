"""FastAPI: a router that gets the user from your dependency.

app.include_router(broadcasting_router(authorizer, current_user), prefix="/broadcasting")
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Request, Response

from smartlink.broadcasting.authorizer import AuthRequest, ChannelAuthorizer
from smartlink.broadcasting.routes import ClientGone, read_body
from smartlink.broadcasting.socket_id import SocketIdMiddleware

__all__ = ["broadcasting_router"]

User = TypeVar("User")
Dependency = Callable[..., User | Awaitable[User | None] | None]


def broadcasting_router(
    authorizer: ChannelAuthorizer[User], current_user: Dependency[User] | Mapping[str, Dependency[User]]
) -> APIRouter:
    """Return a router with `/auth` and `/user-auth`, for GET and POST.

    `current_user` is a dependency that returns the user, or None for 401; what it raises is handled as elsewhere in
    your app. It must not read the body. Pass a mapping of names to dependencies for several guards: all of them run,
    so each must return None for users it does not know.
    """
    dependencies = current_user if isinstance(current_user, Mapping) else {"default": current_user}
    router = APIRouter()

    async def answer(request: Request, **users: Any) -> Response:
        auth_request = AuthRequest(
            method=request.method,
            path=request.url.path,
            read=partial(read_body, request.scope, request.receive),
            content_type=request.headers.get("content-type", ""),
            query=request.url.query,
        )
        try:
            said = await authorizer.answer(
                auth_request, {name: partial(users.get, f"user_{n}") for n, name in numbered}
            )
        except ClientGone:
            # The client has disconnected, but without a response the framework would log an error.
            return Response(status_code=400)
        return Response(said.body, said.status, dict(said.headers) | {"cache-control": "no-store"}, "application/json")

    # FastAPI reads dependencies from the signature: one parameter for each.
    numbered = list(enumerate(dependencies))
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("request", keyword, annotation=Request)]
    parameters += [inspect.Parameter(f"user_{n}", keyword, default=Depends(dependencies[name])) for n, name in numbered]
    answer.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    for path in ("/auth", "/user-auth"):
        router.add_api_route(path, answer, methods=["GET", "POST"], include_in_schema=False)
    return router


def install(
    app: FastAPI,
    authorizer: ChannelAuthorizer[Any] | None,
    user: Dependency[Any] | Mapping[str, Dependency[Any]] | None,
    prefix: str,
) -> None:
    """Add the middleware, and the router if `authorizer` and `user` are given. Called by `Broadcasting.install`."""
    app.add_middleware(SocketIdMiddleware)
    if authorizer is not None and user is not None:
        app.include_router(broadcasting_router(authorizer, user), prefix=prefix)
