"""The pure core: what an event means for an instance. No I/O, clock, randomness or logging."""
