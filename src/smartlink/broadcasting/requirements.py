"""What the library needs, looked for before anything of it is imported: a missing extra is told in words."""

from __future__ import annotations

import importlib.util

_NEEDED = ("httpx2", "pydantic_settings", "sqlalchemy")

if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
    raise ModuleNotFoundError(
        f"smartlink.broadcasting needs {', '.join(missing)}: pip install 'smartlink-realtime[broadcasting]'",
        name=missing[0],
    )
