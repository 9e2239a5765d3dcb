"""Acts of steps that may be done once."""

from dataclasses import replace
from uuid import uuid4

from orchestrator.core.model import NodeKey
from orchestrator.store.effects import EffectDone
from tests.integration.store_conformance.house import House


def test_the_key_of_an_emission_is_taken_once_in_its_scope(house: House) -> None:
    tenant, first, second = f"t-{uuid4()}", uuid4(), uuid4()
    with house.store.transaction() as tx:
        assert tx.reserve_emission(tenant, "tenant", "k", first) is None
        assert tx.reserve_emission(tenant, "tenant", "k", second) == first
        assert tx.reserve_emission(tenant, str(first), "k", second) is None
        assert tx.trigger(f"no-{uuid4()}") is None


def test_the_act_of_a_step_is_found_in_its_run_and_stored_once(house: House) -> None:
    flow, run = house.instance(), uuid4()
    done = EffectDone(
        id=house.new_id(),
        tenant_id="t",
        instance_id=flow.id,
        key=NodeKey("emit", (1,)),
        run_id=run,
        kind="message",
        destination_fingerprint="d",
        request_sha256="r",
        provider_receipt_id="p",
        attempt=2,
        answer={"deduped": False},
        created_at=house.now(),
    )
    with house.store.transaction() as tx:
        assert tx.insert_effect(done)
        assert not tx.insert_effect(replace(done, id=uuid4(), attempt=3))
        assert tx.effect_of_step(flow.id, done.key, run) == done
        assert tx.effect_of_step(flow.id, done.key, uuid4()) is None
        assert tx.effect_of_step(flow.id, NodeKey("emit"), run) is None
