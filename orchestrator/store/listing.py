"""Which instances a filter means, and which of them a page of a list shows.

A page is found by walking an index in the order of the list, no further than the page goes. Without metadata each state
has an order of its own (`listed_at`). Members of metadata are rows of `metadata_entries`, by the minute of
`updated_at`: what several members have in common is where their walks meet. Where another condition leaves few
instances, these are looked at one by one instead, as a walk might meet none of them for long.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from orchestrator.core.states import InstanceState
from orchestrator.store.session import Transaction

FEW: Final = 1000
"""So many instances are looked at one by one before a walk is begun: both take some milliseconds."""
PROBED: Final = 32
"""To look for an entry of one member takes as long as to walk so many of them."""
JOINED: Final = 3
"""So many members of metadata are walked together; planning takes longer with each. Others are looked up."""

STEP: Final = "5 seconds"
"""The steps of `listed_at`."""

# The walks are told, as the planner knows neither how new values are spread, nor those that came after its last look.
_BY_INDEX: Final = (
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL max_parallel_workers_per_gather = 0"
)
# The index is asked for the next name, as a walk would pass by all entries of a tenant.
_TENANTS_OF_ENTRY: Final = (
    "WITH RECURSIVE named AS (SELECT metadata_entry(%s, %s) AS entry), found AS ("
    "(SELECT n.entry, m.tenant_id FROM named n JOIN metadata_entries m ON m.entry = n.entry "
    "ORDER BY m.tenant_id LIMIT 1) UNION ALL SELECT f.entry, (SELECT m.tenant_id FROM metadata_entries m "
    "WHERE m.entry = f.entry AND m.tenant_id > f.tenant_id ORDER BY m.tenant_id LIMIT 1) "
    "FROM found f WHERE f.tenant_id IS NOT NULL) SELECT tenant_id FROM found WHERE tenant_id IS NOT NULL"
)
_ENTRIES: Final = "SELECT metadata_entry(u.key, u.text) FROM unnest(%s::text[], %s::text[]) AS u (key, text)"
_MERGED: Final = "SET LOCAL enable_nestloop = off; SET LOCAL enable_bitmapscan = off"
IN_ORDER: Final = "SET LOCAL enable_sort = off"

PAGE: Final = "current_setting('orchestrator.page')::uuid[]"
_FIND_PAGE: Final = (
    "SELECT set_config('orchestrator.page', "
    "coalesce((SELECT array_agg(page.id)::text FROM ({}) AS page), '{{}}'), true)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which instances a list shows; None means any."""

    tenant_id: str | None = None
    namespace: str | None = None
    sequence_id: UUID | None = None
    states: tuple[str, ...] | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    session_id: UUID | None = None


def find_page(tx: Transaction, which: Filter, *, offset: int, limit: int) -> None:
    """Let `PAGE` name the instances that a page shows, newest change first, for what follows in the transaction.

    That is sent with the next statement, so most lists are one message. The transaction is one of a single moment
    (`instances.freeze`), or a page may lack some of its rows.
    """
    tx.later(_BY_INDEX)
    if not which.metadata:
        query, values = _state_by_state(which, offset, limit)
    else:
        query, values = _by_metadata(tx, which, offset, limit)
    tx.later(_FIND_PAGE.format(query), values)


def _by_metadata(tx: Transaction, which: Filter, offset: int, limit: int) -> tuple[str, list[Any]]:
    """Look at each instance that one of several conditions leaves, where these are few; else walk the entries.

    Of several members the one whose entries are farthest apart is walked, and those of which there are many more are
    looked up.
    """
    sources, spans = _sources(which), dict[tuple[str, str], timedelta]()
    if len(sources) > 1:
        found = _survey(tx, sources)
        (count, _), fewest = min(zip(found, sources, strict=True), key=lambda pair: pair[0][0])
        if count < FEW:
            return _one_by_one(fewest, which, offset, limit)
        spans = {
            source.member: span for source, (_, span) in zip(sources, found, strict=True) if source.member and span
        }
    tx.later(_MERGED)
    tx.later(IN_ORDER)
    if which.tenant_id is None:
        return _tenant_by_tenant(tx, which, offset, limit)
    seldom_first = sorted(spans, key=spans.__getitem__, reverse=True)
    merged = sum(spans[each] * PROBED > spans[seldom_first[0]] for each in seldom_first)
    which = replace(which, metadata=(*seldom_first, *which.metadata))
    return _walk(which, "%s", [which.tenant_id], offset, limit, merged=merged or JOINED)


def _state_by_state(which: Filter, offset: int, limit: int) -> tuple[str, list[Any]]:
    """Ask the index of each state how far back the page goes, and read no further.

    `listed_at` is `updated_at` in steps, and never the later one of them: whatever stands in the page has been listed
    less than a step before the last of so many rows.
    """
    states = [str(state) for state in dict.fromkeys(InstanceState if which.states is None else which.states)]
    conditions, parameters = _conditions(replace(which, states=None))
    count = offset + limit
    newest = (
        "SELECT newest.listed_at FROM unnest(%s::text[]) AS one (state) CROSS JOIN LATERAL (SELECT i.listed_at "
        f"FROM instances i WHERE {conditions} AND i.state = one.state ORDER BY i.listed_at DESC LIMIT %s) AS newest "
        "ORDER BY newest.listed_at DESC LIMIT %s"
    )
    query = (
        f"SELECT i.id FROM instances i WHERE {conditions} AND i.state = ANY(%s::text[]) AND i.listed_at >= "
        f"(SELECT min(listed_at) - interval '{STEP}' FROM ({newest}) AS newest) "
        "ORDER BY i.updated_at DESC, i.id DESC OFFSET %s LIMIT %s"
    )
    return query, [*parameters, states, states, *parameters, count, count, offset, limit]


def _tenant_by_tenant(tx: Transaction, which: Filter, offset: int, limit: int) -> tuple[str, list[Any]]:
    query, values = _walk(which, "t.tenant_id", [], 0, offset + limit)
    tenants = [row[0] for row in tx.query(_TENANTS_OF_ENTRY, which.metadata[0])]
    query = (
        f"SELECT found.id FROM unnest(%s::text[]) AS t (tenant_id) CROSS JOIN LATERAL ({query}) AS found "
        "ORDER BY found.updated_at DESC, found.id DESC OFFSET %s LIMIT %s"
    )
    return query, [tenants, *values, offset, limit]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """What one condition leaves: one member of the metadata, or all that is not metadata.

    Args:
        query: Gives `id` and, of a member, `minute`.
        order: In which it is read when it is surveyed; empty for any.
    """

    query: str
    values: list[Any]
    order: str = ""
    member: tuple[str, str] | None = None


def _sources(which: Filter) -> list[_Source]:
    others = replace(which, metadata=())
    conditions, parameters = _conditions(others)
    query = f"SELECT i.id, NULL::timestamptz AS minute FROM instances i WHERE {conditions}"
    # The index of sequences is asked for in its order: a planner that is free may pass by a tenant's other sequences.
    order = "" if which.sequence_id is None else " ORDER BY i.state, i.listed_at"
    sources = (
        [] if others == Filter(tenant_id=which.tenant_id) else [_Source(query=query, values=parameters, order=order)]
    )
    of_tenant, tenant = ("", []) if which.tenant_id is None else (" AND m.tenant_id = %s", [which.tenant_id])
    query = (
        "SELECT m.instance_id AS id, m.minute FROM metadata_entries m "
        f"WHERE m.entry = metadata_entry(%s, %s){of_tenant}"
    )
    order = "" if which.tenant_id is None else " ORDER BY minute DESC"
    return sources + [
        _Source(query=query, values=[*member, *tenant], order=order, member=member)
        for member in _members(which)[:JOINED]
    ]


def _survey(tx: Transaction, sources: list[_Source]) -> list[tuple[int, timedelta | None]]:
    """Count what each source has, up to `FEW`, and tell how far these are apart; None of what has no minutes."""
    tables = [
        "(SELECT count(*) AS count, max(minute) - min(minute) AS span "
        f"FROM ({source.query}{source.order} LIMIT {FEW}) AS newest) AS source{number}"
        for number, source in enumerate(sources)
    ]
    values = [value for source in sources for value in source.values]
    [row] = tx.query(f"SELECT * FROM {', '.join(tables)}", values)
    return list(zip(row[::2], row[1::2], strict=True))


def _one_by_one(few: _Source, which: Filter, offset: int, limit: int) -> tuple[str, list[Any]]:
    """Look at all entries of each instance, which is short work whatever the planner has last seen, and at itself."""
    members = _members(which)
    having = (
        "SELECT m.instance_id FROM (SELECT m.instance_id, m.entry FROM metadata_entries m "
        f"WHERE m.instance_id = ANY(ARRAY(SELECT few.id FROM ({few.query}) AS few)) OFFSET 0) AS m "
        f"WHERE m.entry = ANY(ARRAY({_ENTRIES})) "
        "GROUP BY m.instance_id HAVING count(DISTINCT m.entry) = %s"
    )
    conditions, others = _conditions(replace(which, metadata=()))
    query = (
        f"SELECT i.id FROM instances i WHERE i.id = ANY(ARRAY({having})) AND {conditions} "
        "ORDER BY i.updated_at DESC, i.id DESC OFFSET %s LIMIT %s"
    )
    return query, [*few.values, *_texts(members), len(members), *others, offset, limit]


def _walk(
    which: Filter, tenant: str, values: list[Any], offset: int, limit: int, *, merged: int = JOINED
) -> tuple[str, list[Any]]:
    """Give the query, and its parameters, that walks the entries of all members in their common order.

    Where they meet, the instance is looked at by its id: an order is asked for that only this index has. When the
    planner has last seen few instances, it takes those of the whole tenant for as few, and would look at all of them
    for each entry.

    Args:
        merged: So many of the members are walked; it is looked whether the next ones have an entry there.
    """
    members = _members(which)
    walked, probed = members[:JOINED][:merged], members[merged:JOINED]
    entries, parameters = _entries(walked)
    conditions, others = _conditions(replace(which, metadata=tuple(members[JOINED:])))
    begins = "".join(f" AND m{number}.minute <= begin.minute" for number in range(len(walked)))
    probes = "".join(
        " CROSS JOIN LATERAL (SELECT FROM metadata_entries m WHERE m.entry = metadata_entry(%s, %s) "
        "AND m.tenant_id = m0.tenant_id AND m.minute = m0.minute AND m.instance_id = m0.instance_id "
        f"ORDER BY m.minute, m.instance_id LIMIT 1) AS p{number}"
        for number in range(len(probed))
    )
    met = (
        f"SELECT m0.minute, m0.instance_id FROM ({_begin(len(walked), tenant)}) AS begin, {entries}{probes} "
        f"WHERE m0.entry = metadata_entry(%s, %s) AND m0.tenant_id = {tenant}{begins} "
        "ORDER BY m0.minute DESC, m0.instance_id DESC"
    )
    query = (
        f"SELECT i.id, i.updated_at FROM ({met}) AS m0 CROSS JOIN LATERAL (SELECT i.id, i.updated_at FROM instances i "
        f"WHERE i.id BETWEEN m0.instance_id AND m0.instance_id AND {conditions} ORDER BY i.id LIMIT 1) AS i "
        "ORDER BY m0.minute DESC, i.updated_at DESC, i.id DESC OFFSET %s LIMIT %s"
    )
    newest = [value for member in walked for value in (*member, *values)]
    looked_up = [text for member in probed for text in member]
    return query, [*newest, *parameters, *looked_up, *members[0], *values, *others, offset, limit]


def _begin(members: int, tenant: str) -> str:
    """Ask for the minute in which walks of so many members begin: above the newest entry of each, none meet."""
    newest = (
        "(SELECT m.minute FROM metadata_entries m WHERE m.entry = metadata_entry(%s, %s) "
        f"AND m.tenant_id = {tenant} ORDER BY m.minute DESC LIMIT 1)"
    )
    return f"SELECT LEAST({', '.join([newest] * members)}) AS minute"


def _members(which: Filter) -> list[tuple[str, str]]:
    return list(dict.fromkeys(which.metadata))


def _entries(members: list[tuple[str, str]]) -> tuple[str, list[Any]]:
    """Join the entries of the first members, `m0` being those of the very first, whose own condition is not in it."""
    entries, parameters = "metadata_entries m0", list[Any]()
    for number, (key, text) in enumerate(members[1:JOINED], 1):
        entries += (
            f" JOIN metadata_entries m{number} ON m{number}.entry = metadata_entry(%s, %s) "
            f"AND m{number}.tenant_id = m0.tenant_id AND m{number}.minute = m0.minute "
            f"AND m{number}.instance_id = m0.instance_id"
        )
        parameters += [key, text]
    return entries, parameters


def ids(tx: Transaction, which: Filter, *, limit: int | None = None) -> list[UUID]:
    """Name the instances a filter matches, the oldest first; None for all of them."""
    return [row[0] for row in matching(tx, which, limit=limit)]


def newest_id(tx: Transaction, which: Filter) -> UUID | None:
    """Name the newest instance a filter matches; None if there is none."""
    rows = _in_order(tx, which, "i.id", "DESC", limit=1)
    return rows[0][0] if rows else None


def matching(
    tx: Transaction, which: Filter, *, limit: int | None = None, after: UUID | None = None, until: UUID | None = None
) -> list[tuple[UUID, str, UUID]]:
    """Read id, state and sequence of instances that a filter means, the oldest first.

    Args:
        limit: How many at the most; None for all.
        after: Only what comes behind this one.
        until: Only up to this one.
    """
    rows = _in_order(tx, which, "i.id, i.state, i.sequence_id", "ASC", limit=limit, after=after, until=until)
    return [(row[0], row[1], row[2]) for row in rows]


def _in_order(
    tx: Transaction,
    which: Filter,
    columns: str,
    direction: str,
    *,
    limit: int | None,
    after: UUID | None = None,
    until: UUID | None = None,
) -> list[tuple[Any, ...]]:
    """Read instances in the order of their ids: of those that have the metadata, or of all.

    Walks of entries are merged, and each instance is looked at by its id, as in a page.
    """
    bounds = [(sign, bound) for sign, bound in ((">", after), ("<=", until)) if bound is not None]
    within = "".join(f" AND {{}} {sign} %s" for sign, _ in bounds)
    limits = [bound for _, bound in bounds]
    members = _members(which)
    conditions, others = _conditions(replace(which, metadata=tuple(members[JOINED:])))
    if not members:
        return tx.query(
            f"SELECT {columns} FROM instances i WHERE {conditions}{within.format(*['i.id'] * len(bounds))} "
            f"ORDER BY i.id {direction} LIMIT %s",
            (*others, *limits, limit),
        )
    tx.later(_BY_INDEX)
    tx.later(_MERGED)
    entries, parameters = _entries(members)
    of_tenant = "" if which.tenant_id is None else " AND m0.tenant_id = %s"
    return tx.query(
        f"SELECT {columns} FROM (SELECT m0.instance_id FROM {entries} "
        f"WHERE m0.entry = metadata_entry(%s, %s){of_tenant}{within.format(*['m0.instance_id'] * len(bounds))} "
        f"ORDER BY m0.instance_id {direction}) AS meant CROSS JOIN LATERAL (SELECT * FROM instances i "
        f"WHERE i.id BETWEEN meant.instance_id AND meant.instance_id AND {conditions} ORDER BY i.id LIMIT 1) AS i "
        f"ORDER BY meant.instance_id {direction} LIMIT %s",
        (*parameters, *members[0], *([which.tenant_id] if of_tenant else []), *limits, *others, limit),
    )


def _conditions(which: Filter) -> tuple[str, list[Any]]:
    conditions: list[str] = ["true"]
    parameters: list[Any] = []
    for column, value in (
        ("i.tenant_id", which.tenant_id),
        ("i.namespace", which.namespace),
        ("i.sequence_id", which.sequence_id),
        ("i.session_id", which.session_id),
    ):
        if value is not None:
            conditions.append(f"{column} = %s")
            parameters.append(value)
    if which.states is not None:
        conditions.append("i.state = ANY(%s)")
        parameters.append(list(which.states))
    if members := _members(which):
        conditions.append(
            "(SELECT count(DISTINCT m.entry) FROM (SELECT m.entry FROM metadata_entries m WHERE m.instance_id = i.id "
            f"OFFSET 0) AS m WHERE m.entry = ANY(ARRAY({_ENTRIES}))) = %s"
        )
        parameters += [*_texts(members), len(members)]
    return " AND ".join(conditions), parameters


def _texts(members: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [key for key, _ in members], [text for _, text in members]
