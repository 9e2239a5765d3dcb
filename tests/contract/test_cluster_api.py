"""Worker processes as members of the installation (contract, api §21)."""

from datetime import timedelta
from uuid import uuid4

from orchestrator.settings import Settings
from tests.contract.client import Api
from workers.runtime import Identity
from workers.supervisor import Supervisor


def test_api_21_nodes_are_listed_and_drained(api: Api, settings: Settings):
    left: list[bool] = []
    settings = settings.model_copy(update={"heartbeat": timedelta(0)})
    identity = Identity.new("w1@host", ["default"])
    worker = Supervisor(api.engine, identity, ["noop"], 4, settings, leave=lambda: left.append(True))
    worker.register()
    (node,) = api.http.get("/cluster/nodes").json()
    assert node == {
        "id": str(identity.id),
        "name": "w1@host",
        "status": "active",
        "registered_at": node["registered_at"],
        "last_heartbeat_at": node["last_heartbeat_at"],
        "drain": False,
        "queues": ["default"],
        "slots": 4,
    }
    worker.tick()
    assert left == []
    path = f"/cluster/nodes/{identity.id}/drain"
    for _ in range(2):
        answer = api.http.post(path)
        assert (answer.status_code, answer.json()["status"], answer.json()["drain"]) == (200, "draining", True)
        worker.tick()
    assert left == [True]


def test_api_21_node_that_is_silent_has_stopped_and_unknown_ones_are_404(api: Api, settings: Settings):
    identity = Identity.new("w", ["default"])
    Supervisor(api.engine, identity, ["noop"], 4, settings).register()
    api.poll()
    with api.engine.store.transaction() as tx:
        tx.execute("UPDATE workers SET heartbeat_at = clock_timestamp() - interval '1 hour'")
    assert [(each["name"], each["status"]) for each in api.http.get("/cluster/nodes").json()] == [("w", "stopped")]
    with api.engine.store.transaction() as tx:
        poller = tx.query("SELECT id FROM workers WHERE kind = 'http'")[0][0]
    for unknown in (uuid4(), poller):
        assert api.http.post(f"/cluster/nodes/{unknown}/drain").status_code == 404
    assert api.http.post("/cluster/nodes/x/drain").status_code == 400
