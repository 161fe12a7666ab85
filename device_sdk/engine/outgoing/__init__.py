"""The messages of the application on their way out: queue, pages on disk, deliveries."""
