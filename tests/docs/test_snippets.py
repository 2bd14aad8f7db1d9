"""The guides' snippets are valid Python, and the names they import exist."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDES = sorted(
    [ROOT / "README.md", *(ROOT / "docs" / "howto").glob("*.md"), *(ROOT / "docs" / "tutorial").glob("*.md")]
)
_BEGINS_PYTHON = re.compile(
    r"^(?:# \w+\.py\b.*\n)?(?:from \w|import \w+$|class \w+|@\w|def |async |with \w)", re.MULTILINE
)


def snippets(text: str) -> Iterator[str]:
    """Blocks in fences marked `python`, and indented ones that look like Python."""
    yield from re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    without_fences = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for block in re.findall(r"(?:^(?: {4}.*)?\n)+", without_fences, re.MULTILINE):
        code = re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip("\n")
        if _BEGINS_PYTHON.match(code):
            yield code


ALL = [
    pytest.param(code, id=f"{guide.stem}-{n}") for guide in GUIDES for n, code in enumerate(snippets(guide.read_text()))
]


def test_the_guides_contain_snippets() -> None:
    assert len(ALL) > 15


@pytest.mark.parametrize("code", ALL)
def test_a_snippet_is_valid_python_and_its_imports_exist(code: str) -> None:
    tree = compile(code, "guide", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("smartlink."):
            module = importlib.import_module(node.module or "")
            missing = [name.name for name in node.names if not hasattr(module, name.name)]
            assert missing == [], f"{node.module} has no {missing}"
