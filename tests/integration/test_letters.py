"""Letters over a real store: delivered twice, to nobody, or never."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from orchestrator.core.changes import LetterWritten
from orchestrator.core.letters import Letter, ParentLetsGo, SignalSent
from orchestrator.engine import Engine
from orchestrator.postman import Postman
from orchestrator.settings import Settings
from orchestrator.store import letters, timers
from orchestrator.store.session import Store
from sequences.signals import Control, Custom
from tests.support.drive import StoredWorld, gate, step, sub_sequence

pytestmark = pytest.mark.shares_database


@pytest.fixture
def world(store: Store, settings: Settings) -> StoredWorld:
    world = StoredWorld(store, settings)
    world.define("child", [step("a", "external")])
    return world


def write(world: StoredWorld, recipient: UUID, content, *, age: timedelta = timedelta(seconds=1)) -> UUID:
    """Write a letter that its sender did not deliver."""
    letter = Letter(
        id=world.engine._turnstile.new_id(world.now()), sender=uuid4(), recipient=recipient, content=content
    )
    sender = world.start([step("a")])
    with world.store.transaction() as tx:
        tx.write([(sender.instance, (LetterWritten(letter=letter),))])
        tx.execute("UPDATE letters SET due_at = clock_timestamp() - %s WHERE id = %s", (age, letter.id))
    return letter.id


def left(world: StoredWorld) -> int:
    with world.store.transaction() as tx:
        return tx.query("SELECT count(*) FROM letters")[0][0]


def test_the_postman_delivers_what_a_dead_process_has_left(world: StoredWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.store.write_set.GRACE", timedelta(hours=1))
    flow = world.start([sub_sequence("call", "child"), step("after", "external")])
    (child,) = flow.children()
    world.hold_mail()
    child.complete("a")
    world.restart()
    postman = Postman(world.engine)
    assert (flow.state, postman.tick().done) == ("waiting", 0), "the sender has its time"
    with world.store.transaction() as tx:
        tx.execute("UPDATE letters SET due_at = clock_timestamp()")
    assert postman.tick().done == 1
    assert (flow.check().standing(), left(world)) == ({"after": "ready"}, 0)


def test_a_child_that_was_not_started_is_started_by_its_timer(world: StoredWorld) -> None:
    world.hold_mail()
    flow = world.start([sub_sequence("call", "child")])
    (child,) = flow.children()
    assert child.check().state == "scheduled"
    world.restart()
    with world.store.transaction() as tx:
        due = timers.due(tx, 10)
    assert world.engine.fire(due) == 1
    assert child.check().state == "waiting"


def test_a_letter_delivered_by_many_at_once_is_opened_once(world: StoredWorld) -> None:
    flow = world.start([gate("g"), gate("h")])
    write(world, flow.id, SignalSent(signal=Custom(None), payload={"value": "yes"}))
    engines = [Engine(world.store, None, world.settings) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda engine: engine.deliver([flow.id]), engines))
    assert [row.block_id for row in flow.rows()] == ["g"]
    assert left(world) == 0


def test_letters_are_opened_in_order(world: StoredWorld) -> None:
    flow = world.start([step("a", "external")])
    for signal in (Control.PAUSE, Control.RESUME, Control.PAUSE):
        write(world, flow.id, SignalSent(signal=signal, payload=None))
    assert Postman(world.engine).tick().done == 3
    assert flow.check().instance.is_held
    assert left(world) == 0


@pytest.mark.parametrize("recipient", ["nobody", "ended"])
def test_a_letter_that_nobody_can_open_is_dropped(world: StoredWorld, recipient: str) -> None:
    flow = world.start([step("a")]).run()
    write(world, flow.id if recipient == "ended" else uuid4(), ParentLetsGo())
    before = flow.instance
    Postman(world.engine).tick()
    assert (left(world), flow.instance) == (0, before)


def test_a_letter_without_meaning_goes_away_and_changes_nothing_else(world: StoredWorld) -> None:
    """Two gates are open, so a nameless signal means neither."""
    flow = world.start([{"type": "parallel", "id": "p", "branches": [[gate("g")], [gate("h")]]}])
    write(world, flow.id, SignalSent(signal=Custom(None), payload={"value": "yes"}))
    assert Postman(world.engine).tick().done == 1
    assert (left(world), flow.check().rows()) == (0, [])


def test_a_letter_that_cannot_be_opened_holds_up_no_other(world: StoredWorld) -> None:
    broken, well = world.start([step("a", "external")]), world.start([step("a", "external")])
    bad = write(world, broken.id, ParentLetsGo(), age=timedelta(seconds=2))
    write(world, well.id, ParentLetsGo())
    with world.store.transaction() as tx:
        tx.execute("UPDATE letters SET kind = 'unheard of' WHERE id = %s", (bad,))
    Postman(world.engine).tick()
    assert (well.state, broken.state, left(world)) == ("cancelled", "waiting", 1)
    with world.store.transaction() as tx:
        assert letters.overdue(tx, 10) == []
