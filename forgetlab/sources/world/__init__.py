"""The embedded world: a small language whose grammar we own, so that probabilities and entropies are exact."""

from forgetlab.sources.world.corpus import REGISTERS, broken, coherence, draw, fluency, parser, vocabulary

__all__ = ["REGISTERS", "broken", "coherence", "draw", "fluency", "parser", "vocabulary"]
