"""The download size of the first page, from the built pages."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import smartlink.portal

STATIC = Path(smartlink.portal.__file__).parent / "static"
#: Bytes of compressed JavaScript until the first page works.
MOST = 85_000
IMPORTED = re.compile(r"""(?:from|import)\s*["']\./([\w.-]+\.js)["']""")


def scripts_of_the_first_page() -> set[Path]:
    """What index.html names, and what that imports before it runs; not what is loaded when it is wanted."""
    html = (STATIC / "index.html").read_text()
    waiting = [STATIC / "assets" / name for name in re.findall(r"/assets/([\w.-]+\.js)", html)]
    found: set[Path] = set()
    while waiting:
        script = waiting.pop()
        if script not in found:
            found.add(script)
            waiting += [script.parent / name for name in IMPORTED.findall(script.read_text())]
    return found


def test_the_first_page_has_a_size_limit() -> None:
    scripts = scripts_of_the_first_page()
    weights = {script.name: len(gzip.compress(script.read_bytes(), 9)) for script in scripts}
    assert weights
    assert sum(weights.values()) <= MOST, weights


def test_only_admin_pages_load_the_charts() -> None:
    with_charts = {script for script in (STATIC / "assets").glob("*.js") if "u-over" in script.read_text()}
    assert with_charts
    assert not with_charts & scripts_of_the_first_page()
