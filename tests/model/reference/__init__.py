"""The language once more, written from its contract alone, in plain recursive Python: a second opinion."""
