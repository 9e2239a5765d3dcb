"""The state machine service: instances, their store, and the loops that keep them moving."""
