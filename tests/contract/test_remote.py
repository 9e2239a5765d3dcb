"""Tests that share an installation which is never emptied (`make contract URL=...`)."""

from dataclasses import replace

from tests.contract.client import TENANT, Api, step
from tests.contract.remote import Remote
from tests.contract.signing import signed


def test_two_tests_meet_nothing_of_each_other(address: str) -> None:
    remote = Remote.named() or Remote(url=address)
    with remote.administrator() as one, replace(remote, ending=b"-0fedcba9").administrator() as other:
        for api in (Api(one, None), Api(other, None)):
            sequence = api.http.get(f"/sequences/{api.sequence(step('a'))}").json()
            trigger = {"slug": "orders", "sequence_name": sequence["name"], "tenant_id": TENANT, "secret": "s3cret"}
            assert api.http.post("/triggers", json=trigger).status_code == 201
            credential = {"id": "mail", "tenant_id": TENANT, "name": "m", "kind": "basic", "value": "v"}
            assert api.http.post("/credentials", json=credential).json()["id"] == "mail"
            found = api.http.get("/triggers/orders").json()
            assert (found["slug"], found["tenant_id"]) == ("orders", TENANT)
            assert api.deliver("orders", b"{}", signed(b"{}")).status_code == 202
            (instance,) = api.http.get("/instances", params={"tenant_id": TENANT}).json()["items"]
            assert (instance["tenant_id"], instance["metadata"]["_trigger"]) == (TENANT, "orders")
            foreign = {"X-Tenant-Id": "other"}
            assert api.http.get("/instances", headers=foreign).json()["items"] == []
            assert api.http.delete("/credentials/mail").status_code == 204
            assert api.http.delete("/triggers/orders").status_code == 204
