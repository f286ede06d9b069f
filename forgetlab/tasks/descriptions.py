"""The embedded tasks by name, and what each asks: known without torch, which building them takes."""

from __future__ import annotations

DESCRIPTIONS = {  # of every embedded task, what it asks
    "sentiment": "is a review positive or negative; negation and contrast decide; sentiment:turned=0.2 for a share",
    "plain": "is a review positive or negative, no word of which is turned: sentiment:turned=0",
    "register": "which of five registers a text is of",
    "acceptability": "is a text in the language or broken",
    "entailment": "does the second sentence follow from the first",
    "entities": "a BIO tag for each word; names are resolved by context only",
    "masked-lm": "fill a hidden word; masked-lm:REGISTER for one register",
    "causal-lm": "predict the next word; causal-lm:REGISTER for one register",
    "minimal-pairs": "prefer the good twin of a pair (zero-shot)",
    "cloze": "end a riddle with the right word (zero-shot)",
    "k-shot": "registers from 8 examples each on frozen features",
    "praise": "write praise for a reward; praise:hole has a flawed one, praise:like, :narrow, :strange demonstrations",
    "writing": "text that the model writes, scored by the parser (causal models)",
}
