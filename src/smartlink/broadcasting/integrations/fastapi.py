"""FastAPI: a router whose user comes from a dependency of yours.

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
    """`/auth` and `/user-auth`, for GET and POST.

    `current_user` is a dependency: what it raises is answered as everywhere in your app, None is 401. It must not
    read the body. A mapping makes several guards: all are asked, so each gives None for whom it does not know.
    """
    dependencies = current_user if isinstance(current_user, Mapping) else {"default": current_user}
    router = APIRouter()

    async def answer(request: Request, **users: Any) -> Response:
        question = AuthRequest(
            method=request.method,
            path=request.url.path,
            read=partial(read_body, request.scope, request.receive),
            content_type=request.headers.get("content-type", ""),
            query=request.url.query,
        )
        try:
            said = await authorizer.answer(question, {name: partial(users.get, f"user_{n}") for n, name in numbered})
        except ClientGone:
            # Nobody is there to read it; without an answer the framework would log a failure.
            return Response(status_code=400)
        return Response(said.body, said.status, dict(said.headers) | {"cache-control": "no-store"}, "application/json")

    # One parameter for each dependency: that is how FastAPI asks for them.
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
    """Add the middleware, and the router where there is somebody to sign for; `Broadcasting.install` calls it."""
    app.add_middleware(SocketIdMiddleware)
    if authorizer is not None and user is not None:
        app.include_router(broadcasting_router(authorizer, user), prefix=prefix)
