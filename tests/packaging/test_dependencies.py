"""Each extra declares exactly what its code imports, with lower and upper bounds."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
HOUSES = {house: house for house in ("server", "portal", "broadcasting", "client", "cli")}
BROUGHT_BY_ITS_USER = {"django", "fastapi", "flask", "werkzeug", "starlette"}
"""Frameworks the library fits into: whoever uses one has it."""
ADDED_BY = {
    "broadcasting": ("redis", "encryption"),
    "server": ("apps-sql",),
    "cli": ("server", "portal"),  # a command for a part that is not installed says so
}
NOT_IMPORTED = {"aiosqlite", "asyncpg", "httptools"}
"""Named in an address or a setting: SQLAlchemy's drivers, uvicorn's parser."""


def imported(house: str) -> set[str]:
    """The distributions that a house's code imports by name."""
    known, found = packages_distributions(), set()
    for file in (ROOT / "src/smartlink" / house).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            tops = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"smartlink"}
            found |= {known[top][0].lower() for top in tops}
    return found


def declared(*extras: str) -> dict[str, Requirement]:
    """What the extras ask for, and what is asked for always; other extras of ours are left out."""
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in EXTRAS[extra])]
    found = (Requirement(text) for text in texts)
    return {each.name.lower(): each for each in found if each.name != PROJECT["name"]}


@pytest.mark.parametrize("house", HOUSES)
def test_each_import_is_declared_by_the_extra_itself(house: str) -> None:
    unasked = BROUGHT_BY_ITS_USER if house == "broadcasting" else set()

    assert imported(house) - unasked <= declared(house, *ADDED_BY.get(house, ())).keys()


@pytest.mark.parametrize("house", HOUSES)
def test_nothing_is_declared_that_is_not_used(house: str) -> None:
    used = imported(house) | (imported("cli") if house in ("server", "portal") else set())

    assert declared(house).keys() - used - NOT_IMPORTED - imported("protocol") == set()


def test_each_dependency_has_a_lower_and_an_upper_bound() -> None:
    for extra in EXTRAS:
        for requirement in declared(extra).values():
            assert {specifier.operator for specifier in requirement.specifier} == {">=", "<"}, requirement


def test_locked_versions_are_within_the_bounds() -> None:
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / "requirements/run.txt").read_text(), re.MULTILINE))
    for requirement in declared(*EXTRAS).values():
        assert requirement.specifier.contains(locked[requirement.name]), requirement
