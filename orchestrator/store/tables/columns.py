"""What the tables are made with: their registry, and columns that many of them have."""

from typing import Any

from sqlalchemy import Column, DateTime, Integer, MetaData, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)


def moment(name: str, *, nullable: bool = True) -> Column[Any]:
    """Make the column of an aware point in time."""
    return Column(name, DateTime(timezone=True), nullable=nullable)


def node_key() -> tuple[Column[Any], ...]:
    """Make the columns that name a node: its block and the iterations of the loops around it, outermost first."""
    return (
        Column("instance_id", Uuid, nullable=False),
        Column("block_id", Text, nullable=False),
        Column("iteration", ARRAY(Integer), nullable=False),
    )
