"""Request and response schemas of users."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from smartlink.portal.shared.text import Name, PlainText
from smartlink.portal.shared.times import Moment
from smartlink.portal.users.abilities import ALL, AbilityOrAll

__all__ = [
    "Credentials",
    "NewToken",
    "NewTokenOut",
    "PasswordChange",
    "Profile",
    "ProfileChange",
    "Registration",
    "Self",
    "SignedIn",
    "SignedInPage",
    "TokenOut",
    "folded_email",
]

_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f.]+(\.[^@\s\x00-\x1f\x7f.]+)+\Z")


Password = Annotated[PlainText, Field(min_length=8, max_length=128)]


def folded_email(text: str) -> str:
    """Return an e-mail address in the form in which it is stored and compared."""
    return text.strip().lower()


def _email(text: str) -> str:
    if not _EMAIL.match(text.strip()):
        raise ValueError("must be an e-mail address")
    return folded_email(text)


class Profile(BaseModel):
    """What everyone may see of a user."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    id: int
    name: str


class Self(Profile):
    """What users see of themselves."""

    email: str
    is_admin: bool
    created_at: dt.datetime


class Registration(BaseModel):
    """A registration."""

    name: Name
    email: Annotated[PlainText, Field(max_length=255), AfterValidator(_email)]
    password: Password


class Credentials(BaseModel):
    """Credentials to sign in with."""

    email: Annotated[PlainText, Field(max_length=255)]
    password: Annotated[PlainText, Field(max_length=1024)]


class ProfileChange(BaseModel):
    """Changes to your profile. Omitted fields stay as they are; a new address requires the password."""

    name: Name | None = None
    email: Annotated[PlainText, Field(max_length=255), AfterValidator(_email)] | None = None
    current_password: Annotated[PlainText, Field(max_length=1024)] | None = None


class PasswordChange(BaseModel):
    """A new password, and the one it replaces."""

    current_password: Annotated[PlainText, Field(max_length=1024)]
    password: Password


class SignedIn(BaseModel):
    """The signed-in user and their new token, which is shown only once."""

    user: Self
    token: str


class SignedInPage(BaseModel):
    """The user signed in on a page; the session is in the cookie."""

    user: Self


class NewToken(BaseModel):
    """A token to create. `abilities` defaults to all (`*`); `expires_at` must be in the future.

    A token cannot create one with more abilities or a longer life than its own.
    """

    name: Name
    abilities: list[AbilityOrAll] = Field([ALL], max_length=50)
    expires_at: Moment | None = None

    @field_validator("expires_at")
    @classmethod
    def _to_come(cls, value: dt.datetime | None) -> dt.datetime | None:
        if value is not None and value <= dt.datetime.now(dt.UTC):
            raise ValueError("must be in the future")
        return value


class TokenOut(BaseModel):
    """A token, without its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    abilities: list[str]
    last_used_at: dt.datetime | None
    expires_at: dt.datetime | None
    created_at: dt.datetime


class NewTokenOut(TokenOut):
    """A new token, with its secret."""

    token: str
