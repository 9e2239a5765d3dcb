"""Event streams of instances (contract, api §12)."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest

from orchestrator.api import create_app, event_stream
from orchestrator.api import following as followers
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from orchestrator.store import following, removal
from orchestrator.store.following import Cursor
from orchestrator.store.postgres import PostgresStore, PostgresTransaction
from tests.contract.client import CALL, TENANT, Api, step
from tests.support.serving import Reception, serving
from tests.support.streams import Seen, stream
from tests.support.waiting import wait_until

OTHER = {"X-Tenant-Id": "other"}


def follow(api: Api, instance_id: str, query: str = "?poll_ms=100", **headers: str):
    return stream(api.http, f"/instances/{instance_id}/stream{query}", **headers)


def three_steps(api: Api) -> str:
    return api.start(step("a"), step("b"), step("c"))


def outputs_of(events: list[Seen | str]) -> list:
    return [each.data for each in events if isinstance(each, Seen) and each.name == "output"]


def test_api_12_a_stream_tells_of_states_and_outputs_and_how_it_ended(api: Api):
    instance_id = three_steps(api)
    api.complete({"n": 1})
    with follow(api, instance_id) as events:
        assert next(events) == Seen(name="state", data={"instance_id": instance_id, "state": "waiting"})
        assert next(events).data == api.outputs(instance_id)[0]
        api.complete({"n": 2})
        assert next(events).data == api.outputs(instance_id)[1]
        api.complete({"n": 3})
        rest = list(events)
    assert outputs_of(rest) == api.outputs(instance_id)[2:]
    assert [each.name for each in rest] == ["state", "output", "done"]
    assert rest[0].data == {"instance_id": instance_id, "state": "completed"}
    assert rest[-1] == Seen(name="done", data={"state": "completed"})


def test_api_12_data_are_one_line_however_lines_are_read(api: Api):
    said = "".join(map(chr, (*range(1, 0x20), 0x85, 0xA0, 0x2028, 0x2029, 0x2030))) + r"\u2028"
    instance_id = api.start(step("a"))
    api.complete({"text": said})
    with follow(api, instance_id) as events:
        assert outputs_of(list(events)) == api.outputs(instance_id)
    assert api.outputs(instance_id)[0]["output"] == {"text": said}
    text = api.http.get(f"/instances/{instance_id}/stream").text
    assert text.splitlines() == text.split("\n")[:-1]


def test_api_12_a_stream_of_what_has_ended_shows_everything_and_ends(api: Api):
    instance_id = three_steps(api)
    for n in range(2):
        api.complete({"n": n, "text": "line\nbreak é"})
    api.fail()
    with follow(api, instance_id, "") as events:
        seen = list(events)
    assert [each.name for each in seen] == ["state", "output", "output", "done"]
    assert outputs_of(seen) == api.outputs(instance_id)
    assert seen[-1].data == {"state": "failed"}


@pytest.mark.parametrize("poll_ms", ["1", "-5", "100", "99999999999"])
def test_api_12_an_interval_out_of_range_is_clamped(api: Api, poll_ms: str):
    instance_id = api.start(step("a", "noop"))
    api.run_builtins()
    with follow(api, instance_id, f"?poll_ms={poll_ms}") as events:
        assert list(events)[-1].name == "done"


def test_api_12_unknown_and_foreign_instances_have_no_stream(api: Api):
    instance_id = three_steps(api)
    for path, headers in ((uuid4(), {}), (instance_id, OTHER)):
        answer = api.http.get(f"/instances/{path}/stream", headers=headers)
        assert (answer.status_code, answer.json()) == (404, {"error": f"not found: instance {path}"})
    assert api.http.get("/instances/none/stream").status_code == 400
    assert api.http.get(f"/instances/{instance_id}/stream?poll_ms=soon").status_code == 400


def test_api_12_a_stream_of_an_instance_that_vanishes_says_so_and_ends(api: Api):
    instance_id = three_steps(api)
    with follow(api, instance_id) as events:
        assert next(events).name == "state"
        with api.engine.store.transaction() as tx:
            removal.remove_instances(tx, [UUID(instance_id)])
        assert list(events) == [Seen(name="error", data={"error": "instance not found"})]


def test_api_12_silence_is_filled_with_comments(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.05)
    with follow(api, three_steps(api)) as events:
        assert [next(events).name, next(events), next(events)] == ["state", ":", ":"]


def test_api_12_the_heads_of_streams_end_at_once(api: Api):
    answer = api.http.head(f"/instances/{three_steps(api)}/stream")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    assert api.http.get("/instances").status_code == 200


@pytest.fixture
def served_streams(reception: Reception, engine: Engine, settings: Settings):
    """A client of a server that keeps so many streams open."""

    @contextmanager
    def served(most: int) -> Iterator[Api]:
        address = reception.address(engine, settings.model_copy(update={"max_streams": most}))
        with httpx.Client(base_url=f"{address}/api/v1", headers={"X-Tenant-Id": TENANT}, **CALL) as http:
            yield Api(http, engine)

    return served


def test_api_12_a_server_keeps_as_many_streams_as_it_is_told(served_streams):
    with served_streams(2) as api:
        instance_id = three_steps(api)
        path = f"/instances/{instance_id}/stream"
        with follow(api, instance_id) as first, follow(api, instance_id) as second:
            assert next(first).name == next(second).name == "state"
            answer = api.http.get(path)
            assert (answer.status_code, answer.json()["error"][:13]) == (503, "unavailable: ")
        wait_until(lambda: api.http.head(path).status_code == 200, lambda: "a place for a stream")


# -- coming back -----------------------------------------------------------------------------------------------------


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of two rows, and two rows in memory: whatever is long in production is long here after three."""
    monkeypatch.setattr(following, "MAX_ROWS", 2)
    monkeypatch.setattr(followers, "MAX_KEPT_ROWS", 2)


def wide(api: Api, branches: int = 7) -> str:
    return api.start(
        {"type": "parallel", "id": "all", "branches": [[step(f"s{n}", "noop")] for n in range(branches)]}, step("last")
    )


@pytest.mark.parametrize("cut_after", range(9))
def test_api_12_a_client_that_comes_back_misses_nothing_and_sees_nothing_twice(api: Api, narrow: None, cut_after: int):
    instance_id = wide(api)
    api.run_builtins()
    if cut_after % 2:
        api.complete()
    first: list[Seen] = []
    with follow(api, instance_id) as events:
        while len(outputs_of(first)) < min(cut_after, 7 + cut_after % 2):
            first.append(next(events))
    if not cut_after % 2:
        api.complete()
    last = [each.id for each in first if each.id is not None]
    with follow(api, instance_id, **({"Last-Event-ID": last[-1]} if last else {})) as events:
        second = list(events)
    assert outputs_of(first) + outputs_of(second) == api.outputs(instance_id)
    assert second[0].name == "state"
    assert second[-1].name == "done"


def test_api_12_rows_of_one_commit_that_exceed_the_memory_are_read_again(api: Api, narrow: None):
    instance_id = wide(api)
    with follow(api, instance_id) as events:
        assert next(events).name == "state"
        api.run_builtins()
        api.complete()
        rest = list(events)
    assert sorted(each["id"] for each in outputs_of(rest)) == sorted(each["id"] for each in api.outputs(instance_id))
    assert rest[-1].name == "done"


@pytest.mark.parametrize("written", ["", "x", "1.2", "7.zz", f"{2**70}.{'0' * 32}", "0." * 3000, "١.٢"])
def test_api_12_an_unknown_cursor_shows_everything(api: Api, written: str):
    instance_id = api.start(step("a", "noop"))
    api.run_builtins()
    with api.http.stream(
        "GET", f"/instances/{instance_id}/stream", headers=[("last-event-id", written.encode())]
    ) as answer:
        assert answer.status_code == 200
        assert answer.read().count(b"event: output") == 1


def test_who_has_seen_no_row_yet_looks_for_the_next_ones_everywhere():
    nothing = Cursor().begin(1)
    assert nothing.end(1, nothing.at).begin(2) == Cursor(version=1, row=following.NEWEST_ID, until=2)


def test_a_row_of_a_later_commit_is_found_although_its_id_is_older(api: Api):
    instance_id = UUID(three_steps(api))
    api.complete()
    store = api.engine.store
    with store.transaction() as tx:
        head = following.head(tx, instance_id, None)
        [(newest,)] = tx.query("SELECT id FROM outputs WHERE instance_id = %s", (instance_id,))
        early = UUID(int=newest.int - (int(timedelta(seconds=20).total_seconds() * 1000) << 80))
        tx.execute(
            "INSERT INTO outputs SELECT instance_id, %s, 'late', iteration, lane, output, output_ref, output_size, "
            "attempt, created_at, %s FROM outputs WHERE id = %s",
            (early, head.version + 1, newest),
        )
    seen = Cursor(version=head.version, row=newest)
    with store.transaction() as tx:
        assert [row.id for row in following.later_rows(tx, [head])[instance_id]] == [early]
        assert [row.id for row in following.page(tx, instance_id, seen.begin(head.version + 1))[0]] == [early]
        assert following.page(tx, instance_id, seen.begin(head.version))[0] == []


# -- many ------------------------------------------------------------------------------------------------------------


class CountingStore(PostgresStore):
    """Counts its transactions."""

    transactions = 0

    def transaction(
        self, *, is_losable: bool = False, is_single: bool = False
    ) -> AbstractContextManager[PostgresTransaction]:
        """Open one."""
        self.transactions += 1
        return super().transaction(is_losable=is_losable, is_single=is_single)


async def read_stream(url: httpx.URL, path: str) -> list[str]:
    """Read a stream to its end over a bare connection; its events, as they were written."""
    reader, writer = await asyncio.open_connection(url.host, url.port, limit=2**20)
    writer.write(f"GET {path} HTTP/1.0\r\nHost: {url.host}\r\nX-Tenant-Id: {TENANT}\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200"), head
    writer.close()
    text = re.sub(r"(^|\r\n)[0-9a-f]+\r\n", "", body)  # without the lengths of chunks
    return [each for each in text.strip().split("\n\n") if not each.startswith(":")]


def watched(api: Api, instance_ids: list[str], act: Callable[[], None], open_streams: Callable[[], int]) -> list:
    """Read one stream for each of the ids, act once all are open, and give what each has shown."""

    async def read_all() -> list[list[str]]:
        path = "/api/v1/instances/{}/stream?poll_ms=100"
        return await asyncio.gather(*(read_stream(api.http.base_url, path.format(each)) for each in instance_ids))

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(asyncio.run, read_all())
        wait_until(lambda: reading.done() or open_streams() == len(instance_ids), lambda: f"{open_streams()} streams")
        act()
        return reading.result(120)


def test_api_12_many_streams_see_every_row_in_order_for_one_question_at_a_time(
    reception: Reception, database_url: str, settings: Settings
):
    store = CountingStore(database_url, pool_size=10, overflow=13)
    engine = Engine(store, lambda _hints: None, settings)
    address = reception.address(engine, settings.model_copy(update={"max_streams": 500}))
    services = reception.services(engine)
    with httpx.Client(base_url=f"{address}/api/v1", headers={"X-Tenant-Id": TENANT}, **CALL) as http:
        api = Api(http, engine)
        sequence = api.sequence(step("a"), step("b"), step("c"))
        ids = [api.start_of(sequence) for _ in range(5)]
        began, before = time.monotonic(), store.transactions

        def act() -> None:
            for _ in range(3):
                for task in api.poll(limit=10):
                    api.report(task, "complete", output={"block": task["block_id"]})

        streams = watched(api, ids * 100, act, lambda: services.streams.count)
        looks = store.transactions - before - 2 * len(streams)  # two reads of each: where it stands, what there is
        seconds = time.monotonic() - began
        expected = {each: api.outputs(each) for each in ids}
    store.close()
    assert looks <= seconds / followers.GRID_SECONDS + 100
    for instance_id, events in zip(ids * 100, streams, strict=True):
        rows = [each for each in events if each.startswith("event: output")]
        assert [row["id"] in written for row, written in zip(expected[instance_id], rows, strict=True)] == [True] * 3
        assert events[0].startswith("event: state")
        assert events[-1] == 'event: done\ndata: {"state":"completed"}'


def test_api_12_a_server_that_ends_ends_its_streams(engine: Engine, settings: Settings):
    app = create_app(engine, settings)
    with serving(app) as address:
        http = httpx.Client(base_url=f"{address}/api/v1", headers={"X-Tenant-Id": TENANT}, **CALL)
        opened = follow(Api(http, engine), three_steps(Api(http, engine)))
        events = opened.__enter__()
        assert next(events).name == "state"
        began = time.monotonic()
    assert list(events) == []
    assert time.monotonic() - began < 30
    opened.__exit__(None, None, None)
    http.close()
