"""Tests and benchmarks start processes only by `kit.processes`, so that they end with the run."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
STARTS = re.compile(r"subprocess\.(run|Popen|call|check_call|check_output)\(|create_subprocess_(exec|shell)\(")


def test_all_processes_are_started_by_kit_processes() -> None:
    own = {ROOT / "tests" / "kit" / "processes.py", Path(__file__)}
    files = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in files
        if file not in own
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if STARTS.search(line)
    ]

    assert found == []
