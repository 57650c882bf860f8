"""Live events: checked, written to a durable log, read back in order."""
