"""Singular and plural in the commands' messages."""

from __future__ import annotations

import pytest

from smartlink.cli.wording import counted, waiting


@pytest.mark.parametrize(
    ("said", "right"),
    [
        (counted(0, "event"), "0 events"),
        (counted(1, "event"), "1 event"),
        (counted(2, "event"), "2 events"),
        (counted(1, "batch", "batches"), "1 batch"),
        (counted(2, "batch", "batches"), "2 batches"),
        (waiting(1), "1 event waiting"),
        (waiting(2), "2 events waiting"),
    ],
)
def test_one_is_singular(said: str, right: str) -> None:
    assert said == right
