"""What the labs share: the base, the runner, settings, runs and their curves."""
