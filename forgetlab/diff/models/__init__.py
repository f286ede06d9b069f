"""Two models, of which one is in memory at a time."""
