"""Built-in handlers, by kind."""
