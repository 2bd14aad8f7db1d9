"""Encodes payloads as JSON, exactly or not at all.

Values without an exact representation raise an error that names their place, instead of being changed: NaN, bytes,
sets (they have no order), times without a time zone, integers beyond 2**53 (JavaScript rounds them). Decimals become
text, so that money is never a float; times become ISO 8601 in UTC. Text is not escaped, so an emoji takes four bytes.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import uuid
from collections.abc import Iterator, Mapping
from decimal import Decimal

import msgspec
from pydantic import BaseModel

from smartlink.broadcasting.errors import UnserialisablePayload
from smartlink.broadcasting.events import dumped, public_fields

__all__ = ["encode_payload"]

MAX_DEPTH = 32
MAX_EXACT_INT = 2**53 - 1


def encode_payload(payload: object) -> bytes:
    """Encode `payload`, a mapping, as JSON in UTF-8. Raises UnserialisablePayload."""
    if not isinstance(payload, Mapping):
        raise UnserialisablePayload(f"a payload must be a mapping of names to values, not {type(payload).__name__}")
    plain = _plain(payload, "payload", 0)
    try:
        return msgspec.json.encode(plain)
    except UnicodeEncodeError:
        where = next(_halves(plain, "payload"), "payload")
        raise UnserialisablePayload(f"{where}: text with half a character (a lone surrogate) has no UTF-8") from None
    except (OverflowError, ValueError, TypeError) as error:
        raise UnserialisablePayload(f"the payload has no form in JSON: {error}") from error


def _plain(value: object, path: str, depth: int) -> object:
    kind = type(value)
    if value is None or kind is str or kind is bool:
        return value
    if kind is int:
        return _exact(value, path)
    if depth > MAX_DEPTH:
        raise UnserialisablePayload(f"{path[:200]}: nested deeper than {MAX_DEPTH}, or within itself")
    if isinstance(value, Mapping):
        plain = {_key(key, path): _plain(item, f"{path}.{key}", depth + 1) for key, item in value.items()}
        if len(plain) < len(value):
            raise UnserialisablePayload(f"{path}: two of its keys are the same text in JSON; one would be lost")
        return plain
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    return _plain_scalar(value, path, depth)


def _plain_scalar(value: object, path: str, depth: int) -> object:
    if isinstance(value, enum.Enum):
        return _plain(value.value, path, depth)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UnserialisablePayload(f"{path}: JSON has no {value}; leave it out or send None")
        return float(value)
    if isinstance(value, str | int):
        return str(value) if isinstance(value, str) else _exact(int(value), path)
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise UnserialisablePayload(f"{path}: JSON has no {value}; leave it out or send None")
        return format(value, "f")
    if isinstance(value, dt.datetime):
        if value.utcoffset() is None:
            raise UnserialisablePayload(f"{path}: a time without a zone says no instant; make it aware (UTC)")
        return value.astimezone(dt.UTC)
    if isinstance(value, dt.date | uuid.UUID):
        return value
    if isinstance(value, BaseModel):
        return _plain(dumped(value, path), path, depth + 1)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(public_fields(value), path, depth + 1)
    raise UnserialisablePayload(f"{path}: {_advice(value)}")


def _halves(plain: object, path: str) -> Iterator[str]:
    """Yield the paths of text that has no UTF-8 encoding."""
    if isinstance(plain, Mapping):
        for key, value in plain.items():
            yield from _halves(key, path)
            yield from _halves(value, f"{path}.{key!a}" if _is_halved(key) else f"{path}.{key}")
    elif isinstance(plain, list):
        for index, value in enumerate(plain):
            yield from _halves(value, f"{path}[{index}]")
    elif isinstance(plain, str) and _is_halved(plain):
        yield path


def _is_halved(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _exact(number: object, path: str) -> object:
    if isinstance(number, int) and abs(number) > MAX_EXACT_INT:
        raise UnserialisablePayload(
            f"{path}: a browser reads a whole number beyond 2**53 as another one; send it as text"
        )
    return number


def _key(key: object, path: str) -> str:
    if isinstance(key, str):
        return str(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    raise UnserialisablePayload(f"{path}: a name in JSON is text, not {type(key).__name__}")


def _advice(value: object) -> str:
    name = type(value).__name__
    if isinstance(value, set | frozenset):
        return f"a {name} has no order in JSON; send a sorted list"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{name} has no form in JSON; decode it, or encode it as base64 yourself"
    return f"{name} has no form in JSON; send a mapping, a list, text or a number from broadcast_with()"
