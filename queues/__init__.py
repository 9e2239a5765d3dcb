"""Where work waits and how fast it may leave. Knows nothing of instances."""
