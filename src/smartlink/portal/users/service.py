"""Accounts: registration, sign-in and sign-out, profiles, tokens and sessions."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, bindparam, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from smartlink.portal.shared.db import Database
from smartlink.portal.shared.errors import Forbidden, Invalid, NotFound, Unauthenticated
from smartlink.portal.shared.paging import Page, ordered, within
from smartlink.portal.shared.passwords import Asker, Passwords
from smartlink.portal.shared.realtime import RealtimeApi, RealtimeAway
from smartlink.portal.shared.security import digest, new_token
from smartlink.portal.shared.unit_of_work import Announcer
from smartlink.portal.users.abilities import ALL
from smartlink.portal.users.endings import Endings
from smartlink.portal.users.events import EVERYBODY, UserUpdated
from smartlink.portal.users.model import Token, User, WebSession
from smartlink.portal.users.principals import Principal, Principals
from smartlink.portal.users.schemas import NewToken, Profile, ProfileChange, folded_email

__all__ = ["Principal", "Users", "create", "find", "listed_tokens"]

TOUCH_EVERY = dt.timedelta(minutes=5)
LOOKED_BACK = dt.timedelta(days=1)
KEPT_EXPIRED = dt.timedelta(days=7)
_CALLER = (User.id, User.name, User.email, User.is_admin, User.created_at)
_BY_TOKEN = (
    select(*_CALLER, Token.id, Token.abilities, Token.last_used_at, Token.expires_at)
    .join(Token, Token.user_id == User.id)
    .where(Token.token == bindparam("key"), User.blocked_at.is_(None))
)
_BY_SESSION = (
    select(*_CALLER, WebSession.id, WebSession.expires_at)
    .join(WebSession, WebSession.user_id == User.id)
    .where(WebSession.id == bindparam("key"), WebSession.expires_at > bindparam("now"), User.blocked_at.is_(None))
)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


async def create(
    database: Database,
    passwords: Passwords,
    *,
    name: str,
    email: str,
    password: str,
    is_admin: bool = False,
) -> User:
    """Create a user. Raises Invalid if the address is taken, and DatabaseAway."""
    hashed = await passwords.hash(password)
    now = _now()
    user = User(
        name=name, email=folded_email(email), password=hashed, is_admin=is_admin, created_at=now, updated_at=now
    )
    try:
        async with database.writing() as session:
            session.add(user)
            await session.flush()
    except IntegrityError:
        raise Invalid({"email": ["The email has already been taken."]}) from None
    return user


async def find(session: AsyncSession, user_id: int) -> User | None:
    """Return the user with this id, or None."""
    return await session.get(User, user_id)


def listed_tokens(user_id: int, page: Page) -> Select[Token]:
    """Select a page of a user's tokens: newest first, or oldest first after an id."""
    found = select(Token).where(Token.user_id == user_id, *within(Token.id, page))
    return found.order_by(ordered(Token.id, page)).limit(page.limit)


class Users:
    """Accounts, tokens and sessions."""

    def __init__(
        self,
        announcer: Announcer,
        passwords: Passwords,
        session_days: int,
        endings: Endings,
        realtime: RealtimeApi,
        principals: Principals | None = None,
    ) -> None:
        self.principals = principals or Principals()
        self.endings = endings
        self._realtime = realtime
        self._announcer = announcer
        self._database = announcer.database
        self._passwords = passwords
        self._expired_until = _now() - LOOKED_BACK
        self._session_life = dt.timedelta(days=session_days)

    async def register(self, name: str, email: str, password: str, asker: Asker | None = None) -> tuple[User, str]:
        """Create a user and a first token. Returns both. Raises Invalid if the address is taken."""
        hashed = await self._passwords.hash(password, asker)
        now = _now()
        user = User(name=name, email=folded_email(email), password=hashed, created_at=now, updated_at=now)
        try:
            async with self._database.writing() as session:
                session.add(user)
                await session.flush()
                _, secret = await _add_token(session, user.id, "sign-in", [ALL], None)
        except IntegrityError:
            raise Invalid({"email": ["The email has already been taken."]}) from None
        return user, secret

    async def verify(self, email: str, password: str, asker: Asker | None = None) -> User:
        """Return the user with these credentials.

        Raises Invalid, with the same message and in the same time whether the address or the password is wrong.
        Raises Forbidden for a blocked user, but only if the password is right.
        """
        async with self._database.reading() as session:
            user = await session.scalar(select(User).where(User.email == folded_email(email)))
        if not await self._passwords.is_right(password, user.password if user else None, asker) or user is None:
            raise _wrong_credentials()
        if user.blocked_at is not None:
            raise Forbidden("This account is blocked.")
        return user

    async def by_token(self, token: str, *, is_fresh: bool = False) -> Principal | None:
        """Return the owner of a bearer token, or None if it has expired or was revoked. `is_fresh` skips the cache."""
        key = digest(token.rpartition("|")[2])
        known = None if is_fresh else self.principals.get(key)
        if known is not None:
            return known
        now, revocations = _now(), self.principals.revocations
        async with self._database.fetching() as fetch:
            found = await fetch(_BY_TOKEN, key=key)
        if not found:
            return None
        user_id, name, email, is_admin, created_at, token_id, abilities, last_used_at, expires_at = found[0]
        if expires_at is not None and expires_at <= now:
            return None
        if last_used_at is None or now - last_used_at >= TOUCH_EVERY:
            async with self._database.writing() as session:
                await session.execute(update(Token).where(Token.id == token_id).values(last_used_at=now))
        user = (user_id, name, email, is_admin, created_at)
        principal = Principal(*user, token_id, None, frozenset(abilities), expires_at)
        self.principals.keep(key, principal, expires_at, revocations)
        return principal

    async def by_session(self, cookie: str, *, is_fresh: bool = False) -> Principal | None:
        """Return the owner of a session cookie, or None if it has expired or ended. `is_fresh` skips the cache."""
        key = digest(cookie)
        known = None if is_fresh else self.principals.get(key)
        if known is not None:
            return known
        now, revocations = _now(), self.principals.revocations
        async with self._database.fetching() as fetch:
            found = await fetch(_BY_SESSION, key=key, now=now)
        if not found:
            return None
        user_id, name, email, is_admin, created_at, session_id, expires_at = found[0]
        principal = Principal(user_id, name, email, is_admin, created_at, None, session_id)
        self.principals.keep(key, principal, expires_at, revocations)
        return principal

    async def sign_in(self, user: User) -> str:
        """Create a token for a user returned by `verify`. Raises Invalid if the password has changed since."""
        async with self._database.writing() as session:
            await _check_unchanged(session, user)
            _, secret = await _add_token(session, user.id, "sign-in", [ALL], None)
        return secret

    async def open_session(self, user: User) -> str:
        """Start a session for a user returned by `verify`. Returns the cookie's value. Raises like `sign_in`."""
        secret, now = new_token(), _now()
        async with self._database.writing() as session:
            await _check_unchanged(session, user)
            session.add(
                WebSession(id=digest(secret), user_id=user.id, created_at=now, expires_at=now + self._session_life)
            )
        return secret

    async def sign_out(self, principal: Principal) -> None:
        """Revoke the caller's token or end their session, and end all their connections.

        Connections do not record the token or session they belong to, so the user's other devices must reconnect.
        """
        async with self._database.writing() as session:
            if principal.token_id is not None:
                await session.execute(delete(Token).where(Token.id == principal.token_id))
            if principal.session_id is not None:
                await session.execute(delete(WebSession).where(WebSession.id == principal.session_id))
            await self.endings.record(session, principal.id)
        await self.ended(principal.id)

    async def sign_out_everywhere(self, principal: Principal) -> None:
        """End all the caller's sessions, tokens and connections, including the current one."""
        async with self._database.writing() as session:
            await _end_all(session, principal.id)
            await self.endings.record(session, principal.id)
        await self.ended(principal.id)

    async def change_profile(self, principal: Principal, change: ProfileChange, asker: Asker | None = None) -> User:
        """Change the name, which is announced, or the address.

        Raises Invalid if the address is taken, or without the right password for a new one.
        """
        values: dict[str, object] = {}
        checked: str | None = None
        if change.name is not None:
            values["name"] = change.name
        if change.email is not None and change.email != principal.email:
            checked = await self._check_password(principal.id, change.current_password or "", asker)
            values["email"] = change.email
        try:
            async with self._announcer.work() as work:
                if checked is not None:
                    await _check_same_password(work.session, principal.id, checked)
                if values:
                    values["updated_at"] = _now()
                    await work.session.execute(update(User).where(User.id == principal.id).values(values))
                user = await work.session.get(User, principal.id, populate_existing=True)
                if user is not None and change.name is not None:
                    work.announce(UserUpdated(Profile.model_validate(user)))
        except IntegrityError:
            raise Invalid({"email": ["The email has already been taken."]}) from None
        if user is None:
            raise NotFound
        await self.principals.forget(principal.id)
        if change.name is not None:
            # For new subscribers of presence channels; present ones got the event. If the server is down or does not
            # support this call, they see the new name after the user's next connection.
            with contextlib.suppress(RealtimeAway):
                await self._send_name(user.id, user.name)
        return user

    async def _send_name(self, user_id: int, name: str) -> None:
        """Send the name until it is the database's: concurrent changes may arrive out of order."""
        now: str | None = name
        sent: str | None = None
        while now is not None and now != sent:
            await self._realtime.change_info(user_id, {"id": user_id, "name": now})
            sent = now
            async with self._database.reading() as session:
                now = await session.scalar(select(User.name).where(User.id == user_id))

    async def heard_up_to(self) -> int:
        """Return the id of the last event about users. What is read after this includes all changes up to it."""
        async with self._database.reading() as session:
            return await self._announcer.outbox.latest_id(session, str(EVERYBODY))

    async def change_password(self, principal: Principal, current: str, new: str, asker: Asker | None = None) -> None:
        """Change the password, and end all other sessions and tokens and all connections.

        The caller keeps their session or token and reconnects. Raises Invalid if `current` is wrong.
        """
        checked = await self._check_password(principal.id, current, asker)
        hashed = await self._passwords.hash(new, asker)
        async with self._database.writing() as session:
            await _check_same_password(session, principal.id, checked)
            values = {"password": hashed, "updated_at": _now()}
            await session.execute(update(User).where(User.id == principal.id).values(values))
            await _end_all(session, principal.id, but=principal)
            await self.endings.record(session, principal.id)
        await self.ended(principal.id)

    async def ended(self, user_id: int) -> None:
        """Clear the user from the cache and start ending their connections. Call it after the commit."""
        await self.principals.forget(user_id)
        self.endings.begin(user_id)

    async def set_blocked(self, work: AsyncSession, user_id: int, *, blocked: bool) -> User:
        """Block a user, which ends all their sessions, tokens and connections, or unblock them. Raises NotFound.

        Call `ended` after the commit.
        """
        user = await work.get(User, user_id)
        if user is None:
            raise NotFound
        if blocked != (user.blocked_at is not None):
            user.blocked_at = user.updated_at = _now()
            if not blocked:
                user.blocked_at = None
        if blocked:
            # Flush first: a concurrent sign-in then waits for this, or is ended by what follows.
            await work.flush()
            await _end_all(work, user_id)
            await self.endings.record(work, user_id)
        return user

    async def _check_password(self, user_id: int, password: str, asker: Asker | None) -> str:
        """Return the stored hash of a right password, for `_check_same_password`. Raises Invalid if it is wrong."""
        async with self._database.reading() as session:
            stored = await session.scalar(select(User.password).where(User.id == user_id))
        if not await self._passwords.is_right(password, stored, asker) or stored is None:
            raise _wrong_password()
        return stored

    async def tokens(self, user_id: int, page: Page) -> Sequence[Token]:
        """Return a page of a user's tokens, newest first."""
        async with self._database.reading() as session:
            return (await session.scalars(listed_tokens(user_id, page))).all()

    async def add_token(self, user_id: int, name: str) -> tuple[Token, str]:
        """Create a token with all abilities. Returns it and its secret."""
        async with self._database.writing() as session:
            return await _add_token(session, user_id, name, [ALL], None)

    async def create_token(self, caller: Principal, new: NewToken) -> tuple[Token, str]:
        """Create a token for the caller. Returns it and its secret.

        Raises Forbidden if it would have more abilities or a longer life than the caller's own, and Unauthenticated
        if the caller has been signed out since.
        """
        _check_not_wider(caller, new)
        async with self._database.writing() as session:
            await _check_signed_in(session, caller)
            return await _add_token(session, caller.id, new.name, list(new.abilities), new.expires_at)

    async def revoke(self, user_id: int, token_id: int) -> None:
        """Revoke a token and end the user's connections. Raises NotFound if it is not this user's."""
        async with self._database.writing() as session:
            gone = await session.execute(
                delete(Token).where(Token.id == token_id, Token.user_id == user_id).returning(Token.id)
            )
            if gone.scalar() is None:
                raise NotFound
            await self.endings.record(session, user_id)
        await self.ended(user_id)

    async def end_expired(self) -> None:
        """End the connections of users with a session or token that has expired since the last call.

        The first call looks back a day, since the time of the last one is unknown.
        """
        since, now = self._expired_until, _now()
        users: set[int] = set()
        async with self._database.writing() as session:
            for kind in (WebSession, Token):
                expired = select(kind.user_id).where(kind.expires_at > since, kind.expires_at <= now)
                users |= set(await session.scalars(expired))
            for user_id in users:
                await self.endings.record(session, user_id)
        self._expired_until = now
        for user_id in users:
            self.endings.begin(user_id)

    async def prune(self) -> None:
        """Delete sessions and tokens that expired more than a week ago."""
        async with self._database.writing() as session:
            before = _now() - KEPT_EXPIRED
            await session.execute(delete(WebSession).where(WebSession.expires_at <= before))
            await session.execute(delete(Token).where(Token.expires_at <= before))


async def _check_unchanged(session: AsyncSession, user: User) -> None:
    """Raise Invalid if the password was replaced, or the user blocked, since the password was checked."""
    now = select(User.password, User.blocked_at).where(User.id == user.id).with_for_update(read=True)
    found = (await session.execute(now)).one_or_none()
    if found is None or found.password != user.password or found.blocked_at is not None:
        raise _wrong_credentials()


async def _check_same_password(session: AsyncSession, user_id: int, checked: str) -> None:
    """Raise Invalid if the password was replaced since it was checked."""
    now = await session.scalar(select(User.password).where(User.id == user_id).with_for_update())
    if now != checked:
        raise _wrong_password()


def _wrong_password() -> Invalid:
    return Invalid({"current_password": ["The current password is incorrect."]})


async def _check_signed_in(session: AsyncSession, caller: Principal) -> None:
    """Raise Unauthenticated if the caller's token or session has ended: it must not create another."""
    if caller.token_id is not None:
        own: Select[Any] = select(Token.id).where(Token.id == caller.token_id)
    else:
        own = select(WebSession.id).where(WebSession.id == caller.session_id)
    if await session.scalar(own.with_for_update(read=True)) is None:
        raise Unauthenticated


def _wrong_credentials() -> Invalid:
    return Invalid({"email": ["These credentials do not match our records."]})


async def _end_all(session: AsyncSession, user_id: int, *, but: Principal | None = None) -> None:
    tokens = delete(Token).where(Token.user_id == user_id)
    sessions = delete(WebSession).where(WebSession.user_id == user_id)
    if but is not None and but.token_id is not None:
        tokens = tokens.where(Token.id != but.token_id)
    if but is not None and but.session_id is not None:
        sessions = sessions.where(WebSession.id != but.session_id)
    await session.execute(tokens)
    await session.execute(sessions)


async def _add_token(
    session: AsyncSession, user_id: int, name: str, abilities: list[str], expires_at: dt.datetime | None
) -> tuple[Token, str]:
    secret, now = new_token(), _now()
    token = Token(
        user_id=user_id,
        name=name,
        token=digest(secret),
        abilities=abilities,
        expires_at=expires_at,
        created_at=now,
        updated_at=now,
    )
    session.add(token)
    await session.flush()
    return token, f"{token.id}|{secret}"


def _check_not_wider(caller: Principal, new: NewToken) -> None:
    """Raise Forbidden if the new token would have more abilities, or a longer life, than the caller's."""
    more = [ability for ability in new.abilities if not caller.can(ability)]
    if more:
        raise Forbidden(f"A token cannot create another with abilities it lacks: {', '.join(more)}.")
    if caller.expires_at is not None and (new.expires_at is None or new.expires_at > caller.expires_at):
        raise Forbidden("A token cannot create another that expires later than itself.")
