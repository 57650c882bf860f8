"""Live events: checked as they come in, written to a durable log, read back in order."""
