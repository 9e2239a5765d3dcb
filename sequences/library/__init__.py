"""Ready definitions, one JSON document each, loaded by name."""
