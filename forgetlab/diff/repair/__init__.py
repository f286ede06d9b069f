"""A model between the two: chosen on a few texts, scored on others, saved."""
