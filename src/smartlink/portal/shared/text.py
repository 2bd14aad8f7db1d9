"""Types for text in requests: allowed characters, and length in code points."""

from __future__ import annotations

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field

__all__ = ["MessageText", "Name", "PlainText", "is_blank"]

_BLANK_LOOKING = frozenset("\u2800\u3164\uffa0\u115f\u1160")


def is_blank(text: str) -> bool:
    """Return whether the text is invisible: only spaces, line ends, zero-width, format and filler characters."""
    return all(
        unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cc", "Cf") or character in _BLANK_LOOKING
        for character in text
    )


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode") from None
    return text


def _visible(text: str) -> str:
    if is_blank(text):
        raise ValueError("must not be blank")
    return text


def _one_line(text: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in text):
        raise ValueError("must be one line without control characters")
    return text.strip()


PlainText = Annotated[str, Field(strict=True), AfterValidator(_storable)]
"""Any text that a database can store."""

Name = Annotated[PlainText, Field(min_length=1, max_length=100), AfterValidator(_visible), AfterValidator(_one_line)]
"""A name: 1 to 100 code points on one line, not blank."""

MessageText = Annotated[PlainText, Field(min_length=1, max_length=1000), AfterValidator(_visible)]
"""A message: 1 to 1000 code points, not blank."""
