"""Announcing in SQLAlchemy transactions: together with the change or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy import Engine, Insert, create_engine, event, select
from sqlalchemy.orm import Mapped, Session, mapped_column, scoped_session, sessionmaker

from broadcasting.announcing import (
    Base,
    Basket,
    Blinked,
    Dispensable,
    Item,
    Order,
    Quiet,
    RingingOutbox,
    Said,
    Stamped,
    World,
    tables,
)
from smartlink.broadcasting import (
    BroadcastConfigError,
    BroadcastUnavailable,
    Delivery,
    Envelope,
    InvalidChannel,
    UnserialisablePayload,
    from_socket,
)
from smartlink.broadcasting.models import BroadcastsChanges
from smartlink.broadcasting.sessions import SessionBroadcasts
from smartlink.broadcasting.testing import FakeBroadcaster


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    engine = create_engine(f"sqlite:///{tmp_path / 'w.db'}")
    Base.metadata.create_all(engine)
    sessions = sessionmaker(engine)
    outbox, live = RingingOutbox(), []
    broadcasts = SessionBroadcasts(FakeBroadcaster(), outbox, send_live=live.extend)
    broadcasts.attach(sessions)
    yield World(engine, sessions, broadcasts, outbox, live)
    engine.dispose()


def test_a_models_changes_are_recorded_as_echo_expects_them(world: World) -> None:
    with world.sessions.begin() as session:
        order = Order(id=7)
        session.add(order)
    with world.sessions.begin() as session:
        session.get_one(Order, 7).status = "shipped"
    with world.sessions.begin() as session:
        session.delete(session.get_one(Order, 7))

    channel = "private-App.Models.Order.7"
    assert world.recorded() == [
        (channel, "OrderCreated", {"model": {"id": 7, "status": "new"}}),
        (channel, "OrderUpdated", {"model": {"id": 7, "status": "shipped"}}),
        (channel, "OrderDeleted", {"model": 7}),
    ]


def test_a_rolled_back_change_is_never_announced(world: World) -> None:
    def fail() -> None:
        with world.sessions.begin() as session:
            session.add(Order(id=1))
            session.flush()
            world.broadcasts.announce(session, Said("no"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with world.sessions() as session:
        session.add(Order(id=2))
        session.flush()
        session.rollback()
        session.commit()

    assert world.recorded() == []
    assert world.outbox.rung == []


def test_only_savepoints_that_are_not_rolled_back_are_announced(world: World) -> None:
    with world.sessions.begin() as session:
        world.broadcasts.announce(session, Said("before"))
        with session.begin_nested():
            session.add(Order(id=1))
            world.broadcasts.announce(session, Said("kept"))
        outer = session.begin_nested()
        with session.begin_nested():
            session.add(Order(id=2))
            world.broadcasts.announce(session, Said("lost"))
        outer.rollback()
        world.broadcasts.announce(session, Said("after"))

    told = [payload.get("text") or payload["model"]["id"] for _, _, payload in world.recorded()]
    assert told == ["before", 1, "kept", "after"] or told == ["before", "kept", 1, "after"]


def test_assigning_an_equal_value_is_not_a_change(world: World) -> None:
    with world.sessions.begin() as session:
        session.add(Order(id=1))
    with world.sessions.begin() as session:
        session.get_one(Order, 1).status = "new"

    assert [name for _, name, _ in world.recorded()] == ["OrderCreated"]


def test_a_model_may_choose_changes_recipients_and_queue(world: World) -> None:
    with from_socket("1.2"), world.sessions.begin() as session:
        quiet = Quiet(id=1)
        session.add(quiet)
        session.flush()
        session.delete(quiet)

    events = tables.recorded_events
    with world.engine.connect() as connection:
        assert connection.execute(select(events.c.name, events.c.socket_id, events.c.queue)).all() == [
            ("QuietDeleted", "1.2", "low")
        ]


def test_the_commit_wakes_the_worker_and_sends_live_events(world: World) -> None:
    with world.sessions.begin() as session:
        world.broadcasts.announce(session, Said("hi"))
        world.broadcasts.announce(session, Blinked())
        assert world.live == []

    assert world.outbox.rung == [{"default"}]
    assert [(envelope.channel, envelope.delivery) for envelope in world.live] == [("lamp", Delivery.LIVE)]
    assert [name for _, name, _ in world.recorded()] == ["App\\Events\\Said"]


def test_a_session_can_be_used_again_after_its_commit(world: World) -> None:
    with world.sessions() as session:
        for n in range(3):
            world.broadcasts.announce(session, Said(str(n)))
            session.add(Order(id=n + 1))
            session.commit()

    assert [payload.get("text") for _, name, payload in world.recorded() if name.endswith("Said")] == ["0", "1", "2"]
    assert len(world.recorded()) == 6


def test_announcing_before_any_statement_is_rolled_back_too(world: World) -> None:
    with world.sessions() as session:
        world.broadcasts.announce(session, Said("no"))
        session.rollback()
        session.add(Order(id=1))
        session.commit()

    assert [name for _, name, _ in world.recorded()] == ["OrderCreated"]


def test_uncommitted_events_of_a_closed_session_are_not_announced_later(world: World) -> None:
    session = world.sessions()
    session.add(Order(id=1))
    session.flush()
    world.broadcasts.announce(session, Said("no"))
    session.close()
    session.add(Order(id=2))
    session.commit()
    session.close()

    assert [payload["model"]["id"] for _, _, payload in world.recorded()] == [2]


def test_of_a_model_deleted_in_its_own_transaction_only_the_deletion_is_announced(world: World) -> None:
    with world.sessions.begin() as session:
        session.add(Stamped(id=1))
    with world.sessions.begin() as session:
        stamped = session.get_one(Stamped, 1)
        stamped.n = 2
        session.flush()
        session.delete(stamped)

    assert [name for _, name, _ in world.recorded()] == ["StampedCreated", "StampedDeleted"]


def test_every_kind_of_deletion_is_announced(world: World) -> None:
    with world.sessions.begin() as session:
        session.add(Basket(id=1, items=[Item(id=1), Item(id=2), Item(id=3)]))
    with world.sessions.begin() as session:
        basket = session.get_one(Basket, 1)
        basket.items.pop()
    with world.sessions.begin() as session:
        world.broadcasts.attach(session)
        basket = session.get_one(Basket, 1)
        savepoint = session.begin_nested()
        session.delete(basket)
        session.flush()
        savepoint.rollback()
        session.delete(basket)

    ends = [payload["model"] for _, name, payload in world.recorded() if name == "ItemDeleted"]
    assert ends == [3, 1, 2] or ends == [3, 2, 1]
    assert len(world.recorded()) == 6


def test_changes_made_by_other_commit_listeners_are_announced_too(world: World) -> None:
    def late(session: Session) -> None:
        world.broadcasts.announce(session, Said("late"))
        world.broadcasts.announce(session, Blinked())
        session.add(Order(id=2))

    event.listen(world.sessions, "before_commit", late)
    with world.sessions.begin() as session:
        session.add(Order(id=1))
        world.broadcasts.announce(session, Said("early"))

    told = [payload.get("text") or payload["model"]["id"] for _, _, payload in world.recorded()]
    assert told == ["early", 1, "late", 2]
    assert len(world.live) == 1


def test_live_models_need_send_live(world: World) -> None:
    class Cursor(BroadcastsChanges, Base):
        __tablename__ = "cursors"
        broadcast_fields: ClassVar[Sequence[str]] = ("id",)
        broadcast_delivery = Delivery.LIVE
        id: Mapped[int] = mapped_column(primary_key=True)

    Base.metadata.create_all(world.engine)
    with Session(world.engine) as session:
        SessionBroadcasts(FakeBroadcaster(), world.outbox).attach(session)
        session.add(Cursor(id=1))
        with pytest.raises(BroadcastConfigError, match=r"CursorCreated is live: .*send_live"):
            session.commit()
        with pytest.raises(BroadcastConfigError):
            session.commit()  # Nor does it go by without its event when it is tried again.


def test_a_rolled_back_deletion_leaves_the_change_announced(world: World) -> None:
    with world.sessions.begin() as session:
        stamped = Stamped(id=1)
        session.add(stamped)
        session.flush()
        savepoint = session.begin_nested()
        session.delete(stamped)
        session.flush()
        savepoint.rollback()

    assert [name for _, name, _ in world.recorded()] == ["StampedCreated"]


def test_lost_live_events_do_not_affect_the_commit_or_the_session(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def is_away(_: Sequence[Envelope]) -> None:
        raise BroadcastUnavailable("away")

    broadcasts = SessionBroadcasts(FakeBroadcaster(), world.outbox, send_live=is_away)
    with Session(world.engine) as session:
        broadcasts.attach(session)
        session.add(Order(id=1))
        broadcasts.announce(session, Blinked())
        session.commit()
        session.add(Order(id=2))
        session.commit()

    assert "live events lost (App\\Events\\Blinked): BroadcastUnavailable: away" in caplog.text
    assert len(world.recorded()) == 2


def test_an_event_with_rescue_does_not_fail_the_change(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with world.sessions.begin() as session:
        session.add(Order(id=1))
        world.broadcasts.announce(session, Dispensable(object()))

    assert [name for _, name, _ in world.recorded()] == ["OrderCreated"]
    assert "broadcast of Dispensable failed: UnserialisablePayload" in caplog.text


def test_a_scoped_session_announces_and_records_too(world: World) -> None:
    session = scoped_session(sessionmaker(world.engine))
    world.broadcasts.attach(session)

    session.add(Order(id=1))
    world.broadcasts.announce(session, Said("hi"))
    session.commit()
    world.outbox.record_sync(session, FakeBroadcaster().pack(Said("by hand")))
    session.commit()
    session.remove()

    assert [payload.get("text") for _, _, payload in world.recorded()] == ["hi", None, "by hand"]


def test_a_session_over_several_engines_records_where_the_table_is(world: World, tmp_path: Path) -> None:
    replica = create_engine(f"sqlite:///{tmp_path / 'replica.db'}")

    class Routing(Session):
        def get_bind(self, *args: Any, clause: Any = None, **more: Any) -> Engine:
            return world.engine if self._flushing or isinstance(clause, Insert) else replica

    by_table = sessionmaker(binds={Order: world.engine, tables.recorded_events: world.engine})
    for number, sessions in enumerate((by_table, sessionmaker(class_=Routing))):
        world.broadcasts.attach(sessions)
        with sessions.begin() as session:
            session.add(Order(id=number))
            world.broadcasts.announce(session, Said("hi"))
    replica.dispose()

    assert [name for _, name, _ in world.recorded()] == ["App\\Events\\Said", "OrderCreated"] * 2


def test_a_session_of_an_attached_maker_may_be_attached_again(world: World) -> None:
    with world.sessions() as session:
        world.broadcasts.attach(session)
        session.add(Order(id=1))
        world.broadcasts.announce(session, Blinked())
        session.commit()

    assert [name for _, name, _ in world.recorded()] == ["OrderCreated"]
    assert len(world.live) == 1


def test_a_model_without_broadcast_fields_is_refused() -> None:
    with pytest.raises(TypeError, match="name the attributes to send"):

        class Leaky(BroadcastsChanges, Base):
            __tablename__ = "leaky"
            id: Mapped[int] = mapped_column(primary_key=True)


def test_an_unsendable_event_rolls_the_change_back(world: World) -> None:
    class Naming(BroadcastsChanges, Base):
        __tablename__ = "naming"
        broadcast_fields: ClassVar[Sequence[str]] = ("metadata",)
        id: Mapped[int] = mapped_column(primary_key=True)

    Base.metadata.create_all(world.engine)
    with pytest.raises(UnserialisablePayload, match=r"payload\.model\.metadata"), world.sessions.begin() as session:
        session.add(Naming(id=1))
    with world.sessions() as session:
        assert session.scalars(select(Naming)).all() == []


def test_a_composite_key_needs_a_channel_of_its_own(world: World) -> None:
    class Pair(BroadcastsChanges, Base):
        __tablename__ = "pairs"
        broadcast_fields: ClassVar[Sequence[str]] = ("a",)
        a: Mapped[int] = mapped_column(primary_key=True)
        b: Mapped[int] = mapped_column(primary_key=True)

    Base.metadata.create_all(world.engine)
    with pytest.raises(InvalidChannel, match="composite key of 2 columns"), world.sessions.begin() as session:
        session.add(Pair(a=1, b=2))


def test_announcing_in_an_unattached_session_raises(world: World) -> None:
    with (
        Session(world.engine) as session,
        pytest.raises(BroadcastConfigError, match="Said would never be sent: this session"),
    ):
        world.broadcasts.announce(session, Said("hi"))


def test_live_events_need_send_live(world: World) -> None:
    broadcasts = SessionBroadcasts(FakeBroadcaster(), world.outbox)
    broadcasts.attach(world.sessions)

    with pytest.raises(BroadcastConfigError, match="send_live"), world.sessions.begin() as session:
        broadcasts.announce(session, Blinked())


def test_an_async_broadcaster_is_refused_for_sync_sessions(world: World, caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeBroadcaster()
    broadcasts = SessionBroadcasts(fake, world.outbox, send_live=fake.send_envelopes)
    with Session(world.engine) as session:
        broadcasts.attach(session)
        broadcasts.announce(session, Blinked())
        session.commit()

    assert "give send_live a SyncBroadcaster's send_envelopes" in caplog.text
