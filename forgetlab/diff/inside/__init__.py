"""What the opened models say: where the weights moved, and whether a lost skill is gone or only out of reach."""
