"""The endpoints of users: registration, sign-in, profile, tokens, and the pages' session."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Response

from smartlink.portal.shared.answers import raises, shows
from smartlink.portal.shared.errors import Forbidden, TooMany
from smartlink.portal.shared.limits import RateLimits
from smartlink.portal.shared.paging import EVENT_ID, PathId, WhichPage
from smartlink.portal.shared.passwords import asker_of
from smartlink.portal.shared.routing import feature_router
from smartlink.portal.users.identity import AnyChange, able, identity_of, session_cookie
from smartlink.portal.users.model import User
from smartlink.portal.users.schemas import (
    Credentials,
    NewToken,
    NewTokenOut,
    PasswordChange,
    ProfileChange,
    Registration,
    Self,
    SignedIn,
    SignedInPage,
    TokenOut,
    folded_email,
)
from smartlink.portal.users.service import Principal, Users

__all__ = ["router"]

router = feature_router(prefix="/api", tags=["users"])


async def _users(request: Request) -> Users:
    users: Users = request.app.state.users
    return users


async def _limits(request: Request) -> RateLimits:
    limits: RateLimits = request.app.state.limits
    return limits


UsersService = Annotated[Users, Depends(_users)]
Limits = Annotated[RateLimits, Depends(_limits)]
Reader = Annotated[Principal, able("user:read")]
Writer = Annotated[Principal, able("user:write")]
Leaver = Annotated[Principal, able("user:write", limit="change")]
TokenReader = Annotated[Principal, able("tokens:read")]
TokenMaker = Annotated[Principal, able("tokens:write", limit="token")]
TokenWriter = Annotated[Principal, able("tokens:write", limit="change")]


@router.post("/register", status_code=201, responses=raises(TooMany))
async def register(body: Registration, request: Request, users: UsersService, limits: Limits) -> SignedIn:
    """Create an account. The token is shown only once."""
    asker = asker_of(request)
    await limits.take("register", asker.address)
    user, token = await users.register(body.name, body.email, body.password, asker)
    return SignedIn(user=Self.model_validate(user), token=token)


async def _verified(body: Credentials, request: Request, users: Users, limits: RateLimits) -> User:
    """Verify credentials. Guesses count against the guesser's own address, so they cannot lock out the user."""
    asker = asker_of(request)
    await limits.take("sign-in", asker.address)
    await limits.take("login", f"{asker.address} {folded_email(body.email)}")
    return await users.verify(body.email, body.password, asker)


@router.post("/login", responses=raises(Forbidden, TooMany))
async def login(body: Credentials, request: Request, users: UsersService, limits: Limits) -> SignedIn:
    """Sign in and create a token."""
    user = await _verified(body, request, users, limits)
    return SignedIn(user=Self.model_validate(user), token=await users.sign_in(user))


@router.post("/logout", status_code=204)
async def logout(caller: AnyChange, request: Request, users: UsersService) -> Response:
    """Sign out: revoke the token or end the session of this request."""
    await users.sign_out(caller)
    response = Response(status_code=204)
    if caller.session_id is not None:
        identity_of(request).forget(response)
    return response


@router.get("/user")
async def who_am_i(caller: Reader) -> Self:
    """Show the signed-in user."""
    return Self.model_validate(caller)


@router.patch("/user", responses=raises(TooMany))
async def change_profile(
    body: ProfileChange, caller: Writer, request: Request, users: UsersService, limits: Limits
) -> Self:
    """Change your name or e-mail address. A new address requires `current_password`."""
    await limits.take("profile", caller.id)
    if body.email is not None:
        await limits.take("password", caller.id)
    return Self.model_validate(await users.change_profile(caller, body, asker_of(request)))


@router.put("/user/password", status_code=204, responses=raises(TooMany))
async def change_password(
    body: PasswordChange, caller: Writer, request: Request, users: UsersService, limits: Limits
) -> Response:
    """Change your password. All your other sessions, tokens and connections end."""
    await limits.take("password", caller.id)
    await users.change_password(caller, body.current_password, body.password, asker_of(request))
    return Response(status_code=204)


@router.post("/logout/everywhere", status_code=204)
async def logout_everywhere(caller: Leaver, request: Request, users: UsersService) -> Response:
    """End all your sessions, tokens and connections, including this one."""
    await users.sign_out_everywhere(caller)
    response = Response(status_code=204)
    if caller.session_id is not None:
        identity_of(request).forget(response)
    return response


@router.get("/tokens")
async def list_tokens(caller: TokenReader, which: WhichPage, users: UsersService) -> list[TokenOut]:
    """List your tokens, newest first."""
    return [TokenOut.model_validate(token) for token in await users.tokens(caller.id, which)]


@router.post("/tokens", status_code=201, responses=raises(TooMany))
async def create_token(body: NewToken, caller: TokenMaker, users: UsersService) -> NewTokenOut:
    """Create a token. Its secret is shown only once."""
    token, secret = await users.create_token(caller, body)
    return NewTokenOut(**TokenOut.model_validate(token).model_dump(), token=secret)


@router.delete("/tokens/{token_id}", status_code=204)
async def revoke_token(token_id: PathId, caller: TokenWriter, users: UsersService) -> Response:
    """Revoke one of your tokens."""
    await users.revoke(caller.id, token_id)
    return Response(status_code=204)


@router.post("/session", responses=shows("Set-Cookie", EVENT_ID) | raises(Forbidden, TooMany))
async def open_session(
    body: Credentials, request: Request, response: Response, users: UsersService, limits: Limits
) -> SignedInPage:
    """Sign in on a page. Sets the session as an HttpOnly cookie, and the CSRF token as one that the page can read.

    X-Event-Id: the last event on `presence-chat` whose new names are included in lists loaded after this.
    """
    identity = identity_of(request)
    identity.check_origin(request.scope)
    user = await _verified(body, request, users, limits)
    identity.remember(response, await users.open_session(user))
    response.headers[EVENT_ID] = str(await users.heard_up_to())
    return SignedInPage(user=Self.model_validate(user))


@router.get("/session", responses=shows("Set-Cookie", EVENT_ID))
async def current_session(caller: Reader, request: Request, response: Response, users: UsersService) -> SignedInPage:
    """Show the user signed in on this page, and renew its CSRF token. X-Event-Id: as for signing in."""
    response.headers[EVENT_ID] = str(await users.heard_up_to())
    cookie = session_cookie({"cookie": request.headers.get("cookie", "")})
    if caller.session_id is not None and cookie is not None:
        identity_of(request).remember(response, cookie)
    return SignedInPage(user=Self.model_validate(caller))


@router.delete("/session", status_code=204)
async def close_session(caller: AnyChange, request: Request, users: UsersService) -> Response:
    """Sign out on a page."""
    await users.sign_out(caller)
    response = Response(status_code=204)
    identity_of(request).forget(response)
    return response
