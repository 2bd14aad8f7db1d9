"""Parses the fields of a `multipart/form-data` body in memory (RFC 7578), from browsers' FormData and test clients.

Strict: malformed bodies are refused. Files are ignored.
"""

from __future__ import annotations

import re

__all__ = ["form_fields"]

_BOUNDARY = re.compile(r""";\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;",]{1,70}))\s*(?:;|\Z)""", re.IGNORECASE)
_DISPOSITION = re.compile(
    r"""content-disposition:[ \t]*form-data((?:;[ \t]*[a-z*]+="[^"\r\n]*"[ \t]*)*)\Z""", re.IGNORECASE
)
_PARAMETER = re.compile(r""";[ \t]*([a-z*]+)="([^"\r\n]*)\"""", re.IGNORECASE)
_MAX_HEAD_BYTES = 1024


def form_fields(content_type: str, body: bytes, at_most: int) -> list[tuple[str, str]]:
    """Return names and values, in order. Raises ValueError unless it is a UTF-8 form of at most `at_most` parts."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise ValueError("no boundary")
    delimiter = b"\r\n--" + (found[1] or found[2]).encode("ascii")
    # The body begins with the first delimiter; anything after the last one is ignored.
    before, *parts = (b"\r\n" + body).split(delimiter, at_most + 2)
    if before or not parts or len(parts) > at_most + 1 or not parts[-1].startswith(b"--"):
        raise ValueError("its parts do not match its boundary")
    fields = (_field(part) for part in parts[:-1])
    return [field for field in fields if field is not None]


def _field(part: bytes) -> tuple[str, str] | None:
    head, separator, content = part.partition(b"\r\n\r\n")
    if not separator or not head.startswith(b"\r\n") or len(head) > _MAX_HEAD_BYTES:
        raise ValueError("a part has no headers")
    dispositions = [found for line in head.decode().split("\r\n") if (found := _DISPOSITION.match(line))]
    if len(dispositions) != 1:
        raise ValueError("a part has no name")
    parameters = {name.lower(): value for name, value in _PARAMETER.findall(dispositions[0][1])}
    if "name" not in parameters:
        raise ValueError("a part has no name")
    if "filename" in parameters or "filename*" in parameters:
        return None
    return parameters["name"], content.decode()
