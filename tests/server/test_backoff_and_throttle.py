"""Failing operations are retried less and less often, and logged at most once a minute."""

from __future__ import annotations

import random

import pytest

from smartlink.backoff import Backoff
from smartlink.throttle import Throttle


def test_pauses_double_up_to_the_last_and_start_over() -> None:
    backoff = Backoff(0.1, 0.5, jitter=0)

    assert [backoff.next_s() for _ in range(5)] == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])
    backoff.reset()
    assert backoff.next_s() == pytest.approx(0.1)


def test_jitter_shortens_a_pause_by_at_most_its_part() -> None:
    pauses = {Backoff(1.0, 1.0, jitter=0.5).next_s() for _ in range(50)}

    assert min(pauses) >= 0.5
    assert max(pauses) <= 1.0
    assert len(pauses) > 1


def test_each_key_is_allowed_once_per_period() -> None:
    now = [100.0]
    throttle = Throttle(60.0, clock=lambda: now[0])

    assert [throttle.allows("a"), throttle.allows("a"), throttle.allows("b")] == [True, False, True]
    now[0] += 59.9
    assert not throttle.allows("a")
    now[0] += 0.1
    assert throttle.allows("a")


def test_a_pause_leaves_the_shared_generator_alone() -> None:
    before = random.getstate()

    Backoff(1.0, 2.0).next_s()

    assert random.getstate() == before
