"""The only SQL of the engine: one query, one home."""
