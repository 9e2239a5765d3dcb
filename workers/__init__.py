"""The hands: they claim ready steps, run handlers and report outcomes."""
