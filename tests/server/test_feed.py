"""The operator feed: what it shows, what it leaves out, and that it is bounded."""

from __future__ import annotations

from smartlink.server.runtime.feed import MAX_BYTES, MAX_ENTRIES, MAX_PROBLEMS, MAX_TURN, MAX_WATCHES, Feed, Filter

FRAME = b'{"event":"placed","channel":"orders","data":"{\\"id\\":7}"}'


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def watching(shown: Filter, clock: Clock | None = None) -> Feed:
    feed = Feed(clock or Clock())
    assert feed.watch("w", shown, "there", 10)
    return feed


def kinds(feed: Feed) -> list[str]:
    return [entry.kind for _, _, batch in feed.collect() for entry in batch.entries]


def test_an_event_is_shown_with_its_name_and_data() -> None:
    feed = watching(Filter())

    feed.note("publish", "1", channel="orders", frame=FRAME)

    [(watch_id, reply_to, batch)] = feed.collect()
    assert (watch_id, reply_to, batch.dropped) == ("w", "there", 0)
    assert (batch.entries[0].event, batch.entries[0].data) == ("placed", '{"id":7}')


def test_data_that_is_an_object_is_shown_as_json() -> None:
    feed = watching(Filter())

    feed.note("sent", "1", frame=b'{"event":"pusher:error","data":{"code":4301,"message":"no"}}')

    [(_, _, batch)] = feed.collect()
    assert batch.entries[0].data == '{"code":4301,"message":"no"}'


def test_each_part_of_a_filter_leaves_out_the_others() -> None:
    for shown in (
        Filter(app_id="2"),
        Filter(channel="chat.*"),
        Filter(event="shipped*"),
        Filter(user_id="7"),
        Filter(socket_id="1.1"),
        Filter(kinds=("connect",)),
    ):
        feed = watching(shown)
        feed.note("publish", "1", channel="orders", frame=FRAME)
        assert kinds(feed) == [], shown


def test_patterns_match_channel_and_event() -> None:
    feed = watching(Filter(channel="ord*", event="pl?ced"))

    feed.note("publish", "1", channel="orders", frame=FRAME)
    feed.note("publish", "1", channel="chat", frame=FRAME)

    assert kinds(feed) == ["publish"]


def test_what_does_not_fit_is_counted() -> None:
    feed = watching(Filter())

    for _ in range(MAX_ENTRIES + 5):
        feed.note("publish", "1", channel="orders", frame=FRAME)

    [(_, _, batch)] = feed.collect()
    assert (len(batch.entries), batch.dropped) == (MAX_ENTRIES, 5)
    feed.note("connect", "1")
    assert kinds(feed) == ["connect"]


def test_large_payloads_are_cut_and_fill_a_batch_sooner() -> None:
    feed = watching(Filter())
    large = b'{"event":"e","data":"%b"}' % (b"x" * 9_000)

    for _ in range(MAX_ENTRIES):
        feed.note("publish", "1", channel="orders", frame=large)

    [(_, _, batch)] = feed.collect()
    assert sum(len(entry.data) for entry in batch.entries) < MAX_BYTES + 3_000
    assert len(batch.entries) + batch.dropped == MAX_ENTRIES


def test_all_watches_together_are_bounded() -> None:
    feed = Feed(Clock())
    for number in range(10):
        feed.watch(str(number), Filter(), "there", 10)

    for _ in range(MAX_ENTRIES):
        feed.note("connect", "1")

    batches = [batch for _, _, batch in feed.collect()]
    assert sum(len(batch.entries) for batch in batches) == MAX_TURN
    assert sum(len(batch.entries) + batch.dropped for batch in batches) == 10 * MAX_ENTRIES


def test_a_watch_that_nobody_prolongs_ends() -> None:
    clock = Clock()
    feed = watching(Filter(socket_id="1.1"), clock)
    assert feed.taps == {"1.1"}

    clock.now = 9
    feed.watch("w", Filter(socket_id="1.1"), "there", 10)
    clock.now = 18
    list(feed.collect())
    assert feed.watches

    clock.now = 19
    list(feed.collect())
    assert not feed.watches
    assert feed.taps == frozenset()


def test_there_is_a_limit_of_watches() -> None:
    feed = Feed(Clock())

    assert all(feed.watch(str(number), Filter(), "there", 10) for number in range(MAX_WATCHES))
    assert not feed.watch("more", Filter(), "there", 10)
    assert feed.watch("0", Filter(), "there", 10)


def test_problems_are_kept_while_nobody_looks_and_are_bounded() -> None:
    feed = Feed(Clock())

    for number in range(MAX_PROBLEMS + 1):
        feed.problem("refused", "1", f"reason {number}", channel="x" * 5_000)

    assert len(feed.problems) == MAX_PROBLEMS
    assert feed.problems[-1].why == f"reason {MAX_PROBLEMS}"
    assert len(feed.problems[-1].channel) == 200


def test_a_hostile_pattern_is_answered_quickly() -> None:
    feed = watching(Filter(channel="*a" * 100))

    feed.note("publish", "1", channel="a" * 99 + "b", frame=FRAME)

    assert kinds(feed) == []
