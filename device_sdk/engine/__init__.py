"""What every client does, whatever drives it: life cycle, outgoing queue, routing, reconnect policy."""
