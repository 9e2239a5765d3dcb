"""The tables, as the migrations leave them:

* `definitions`, `instances`: what is to be done, and each time that it is done,
* `course`, `history`: how far an instance has come, and how it came there,
* `triggers`: what begins instances,
* `limits`, `workers`, `deliveries`: what steps share, who runs them, what is sent over HTTP,
* `access`, `installation`: who may call, and what the installation knows of itself.

Hot tables are narrow and lead with `instance_id`, so that they can be partitioned or distributed by it. There are no
foreign keys between hot tables: every write goes through one door under the instance's lock, and a check per inserted
row would cost more than it could ever find. JSON that must come back exactly as it was sent is `json`; only what is
searched is `jsonb`.
"""

from orchestrator.store.tables import (
    access,
    course,
    definitions,
    deliveries,
    history,
    installation,
    instances,
    limits,
    triggers,
    workers,
)
from orchestrator.store.tables.columns import metadata

__all__ = [
    "access",
    "course",
    "definitions",
    "deliveries",
    "history",
    "installation",
    "instances",
    "limits",
    "metadata",
    "triggers",
    "workers",
]
