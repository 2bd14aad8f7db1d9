"""FastAPI: a router whose user comes from a dependency of yours.

app.include_router(broadcasting_router(signatory, current_user), prefix="/broadcasting")
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response

from smartlink.broadcasting.authorizer import AuthRequest, ChannelAuthorizer
from smartlink.broadcasting.routes import ClientGone, read_body

__all__ = ["broadcasting_router"]

User = TypeVar("User")


def broadcasting_router(
    authorizer: ChannelAuthorizer[User], current_user: Callable[..., User | Awaitable[User | None] | None]
) -> APIRouter:
    """`/auth` and `/user-auth`, for GET and POST.

    `current_user` is a dependency: what it raises is answered as everywhere in your app, None is 401. It must not
    read the body. For several guards mount `BroadcastingAuth` instead.
    """
    router = APIRouter()

    # Given as a default, not in the annotation, which postponed could not see `current_user`.
    async def answer(request: Request, user: Any = Depends(current_user)) -> Response:
        question = AuthRequest(
            method=request.method,
            path=request.url.path,
            read=partial(read_body, request.scope, request.receive),
            content_type=request.headers.get("content-type", ""),
            query=request.url.query,
        )
        try:
            said = await authorizer.answer(question, {"default": lambda: user})
        except ClientGone:
            # Nobody is there to read it; without an answer the framework would log a failure.
            return Response(status_code=400)
        return Response(said.body, said.status, dict(said.headers) | {"cache-control": "no-store"}, "application/json")

    for path in ("/auth", "/user-auth"):
        router.add_api_route(path, answer, methods=["GET", "POST"], include_in_schema=False)
    return router
