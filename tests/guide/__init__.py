"""The guide is true: its commands are run against a server, and answer what it says they answer."""
