"""Writes docs/reference/broadcasting.md and client.md from docstrings. With --check, says whether they are current."""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import SecretStr

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
MODULES = (
    "smartlink.broadcasting",
    "smartlink.broadcasting.sessions",
    "smartlink.broadcasting.models",
    "smartlink.broadcasting.outbox",
    "smartlink.broadcasting.webhooks",
    "smartlink.broadcasting.server_api",
    "smartlink.broadcasting.testing",
    "smartlink.broadcasting.described",
    "smartlink.broadcasting.integrations.fastapi",
    "smartlink.broadcasting.integrations.django",
    "smartlink.broadcasting.integrations.django_models",
    "smartlink.broadcasting.integrations.flask",
)
_CODE = re.compile(r"    \S|@|class |with |async with |await |urlpatterns|app\.|[a-z_]+ = |[a-z_]+\.[a-z_]+\(")
PAGES = {
    "broadcasting.md": (
        MODULES,
        """# The broadcasting library

Every public name, from its docstring (`make reference` writes this page). Errors are grouped by who must act: see
`BroadcastError`. Settings are those of `BroadcastSettings`; `.env.example` lists their variables.
""",
    ),
    "client.md": (
        ("smartlink.client",),
        """# The client

Every public name, from its docstring (`make reference` writes this page). How to use it:
[listening from Python](../howto/listen-from-python.md).
""",
    ),
}


def page(modules: tuple[str, ...], head: str) -> str:
    """The whole page."""
    parts = [head]
    for name in modules:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            continue
        parts += [f"## `{name}`", _text(module)]
        if name == modules[0]:
            parts.append("```text\n" + _text(importlib.import_module(f"{name}.errors")) + "\n```")
        for public in sorted(module.__all__, key=str.lower):
            parts += _described(public, getattr(module, public))
    return "\n\n".join(part for part in parts if part) + "\n"


def _described(name: str, value: object) -> Iterator[str]:
    if inspect.isclass(value):
        yield f"### `{name}{_signature(value)}`"
        yield _text(value)
        yield "\n".join(_settings(value) if hasattr(value, "model_fields") else _values(value))
        yield "\n".join(_members(value))
    elif callable(value):
        yield f"### `{name}{_signature(value)}`"
        yield _text(value)
    else:
        yield f"### `{name}`"
        yield next(text for module in _modules() if (text := _attributes(module).get(name)))


def _modules() -> Iterator[ModuleType]:
    return (module for name, module in sorted(sys.modules.items()) if name.startswith(MODULES[0]))


def _values(kind: type) -> Iterator[str]:
    """An enum's members, and class variables that say something of themselves."""
    for name, text in _attributes(kind).items():
        if not name.startswith("_"):
            yield f"- `{name}`: {text}"


def _settings(kind: Any) -> Iterator[str]:
    told = _attributes(kind)
    for name, field in kind.model_fields.items():
        variables = ", ".join(f"`{variable}`" for variable in field.validation_alias.choices if variable != name)
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        given = "" if default is None else f" ({default!r})"
        yield f"- `{name}`, {variables}{given}{f': {told[name]}' if name in told else ''}"


def _attributes(owner: type | ModuleType) -> dict[str, str]:
    """The docstrings below assignments in a class or module."""
    parsed: Any = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    if inspect.isclass(owner):
        [parsed] = parsed.body
    found: dict[str, str] = {}
    for statement, following in zip(parsed.body, parsed.body[1:], strict=False):
        if not (isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)):
            continue
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name):
                found[target.id] = " ".join(inspect.cleandoc(str(following.value.value)).split())
    return found


def _members(kind: type) -> Iterator[str]:
    for name, member in vars(kind).items():
        if name.startswith("_") or name == "model_config":
            continue
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if not inspect.isfunction(function) or not function.__doc__:
            continue
        awaited = "await " if inspect.iscoroutinefunction(function) else ""
        shown = name if isinstance(member, property) else f"{awaited}{name}{_signature(function)}"
        yield f"- `{shown}`: {_text(function, indent='  ')}"


def _signature(value: object) -> str:
    if inspect.isclass(value) and (issubclass(value, enum.Enum | BaseException) or hasattr(value, "model_fields")):
        return ""
    try:
        signature = inspect.signature(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    if inspect.isclass(value) and any(name.startswith("_") for name in signature.parameters):
        return ""  # Made by others, never by its user.
    parameters = [each for name, each in signature.parameters.items() if name not in ("self", "cls") and name[0] != "_"]
    if any(each.name == "args" and each.kind is each.VAR_POSITIONAL for each in parameters):
        return ""
    shown = str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    return re.sub(
        r"<factory>", "…", re.sub(r"smartlink\.(broadcasting|client)\.[a-z_.]+\.", "", shown.replace("'", ""))
    )


def _text(value: object, indent: str = "") -> str:
    text = inspect.getdoc(value) if not dataclasses.is_dataclass(value) else value.__doc__
    text = inspect.cleandoc(text or "")
    if inspect.ismodule(value):
        text = _with_code(text)
    return f"\n{indent}".join(text.splitlines()).replace(f"\n{indent}\n", "\n\n")


def _with_code(text: str) -> str:
    """A module's docstring, its example as a block of code."""
    paragraphs: list[str] = []
    for paragraph in text.split("\n\n"):
        is_code = _CODE.match(paragraph)
        if is_code and paragraphs and paragraphs[-1].endswith("```"):
            # As the formatter has it: what is defined stands apart.
            gap = "\n\n\n" if paragraph.lstrip().startswith(("@", "class ")) else "\n\n"
            paragraphs[-1] = paragraphs[-1][:-4] + f"{gap}{textwrap.dedent(paragraph)}\n```"
        elif is_code:
            paragraphs.append(f"```python\n{textwrap.dedent(paragraph)}\n```")
        elif "├──" in paragraph:
            paragraphs.append(paragraph)
        else:
            paragraphs.append(paragraph)
    return "\n\n".join(paragraphs)


def main() -> int:
    """Write or check the pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (modules, head) in PAGES.items():
        target, wanted = FOLDER / name, page(modules, head)
        if "--check" not in sys.argv:
            target.write_text(wanted)
        elif not target.exists() or target.read_text() != wanted:
            print(f"{name} is not current: make reference", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
