"""`/broadcasting/auth` and `/broadcasting/user-auth`: signatures for those who may have them at the end of the request.

Rules take time, and who calls is remembered for a moment. So the database is asked once more, when the answer is ready:
nothing is signed for a user after the transaction that blocked them, demoted them or ended what they came by. Sockets
that are older than that are the realtime server's affair: it was told to end them, and refuses what was signed before.
"""

from __future__ import annotations

import msgspec

from smartlink.broadcasting import BroadcastingAuth, ChannelAuthorizer, RequestRefused
from smartlink.broadcasting.authorizer import AuthResponse
from smartlink.broadcasting.routes import respond
from smartlink.broadcasting.socket_id import Message, Receive, Scope, Send
from smartlink.portal.shared.errors import Forbidden, PortalError, Unauthenticated
from smartlink.portal.shared.limits import RateLimits
from smartlink.portal.users.identity import Identity
from smartlink.portal.users.principals import Principal

__all__ = ["Signing"]

_CALLER = "smartlink.caller"


class Signing:
    """The library's endpoints for our users. A token needs `user:read` to sign in, on channels what the rules ask."""

    def __init__(self, authorizer: ChannelAuthorizer[Principal], identity: Identity, limits: RateLimits) -> None:
        self._limits = limits
        self._endpoint = BroadcastingAuth(authorizer, self._caller)
        self._identity = identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        told: list[Message] = []

        async def hold(message: Message) -> None:
            told.append(message)

        await self._endpoint(scope, receive, hold)
        if told and told[0].get("status") == 200:
            try:
                await self._confirm(scope)
            except PortalError as error:
                body = msgspec.json.encode({"message": error.message})
                await respond(send, AuthResponse(error.status, body, error.headers))
                return
        for message in told:
            await send(message)

    async def _caller(self, scope: Scope) -> Principal | None:
        try:
            caller = await self._identity.caller(scope)
            if caller is not None:
                await self._limits.take("signature", caller.id)
                if scope["path"].endswith("/user-auth"):
                    caller.check("user:read")
        except PortalError as error:
            raise RequestRefused(error.status, error.message, error.headers) from error
        scope[_CALLER] = caller
        return caller

    async def _confirm(self, scope: Scope) -> None:
        """Raises Unauthenticated for who is not signed in any more, Forbidden for who is an admin no more."""
        before: Principal = scope[_CALLER]
        now = await self._identity.caller(scope, is_fresh=True)
        if now is None:
            raise Unauthenticated
        if before.is_admin and not now.is_admin:
            raise Forbidden
