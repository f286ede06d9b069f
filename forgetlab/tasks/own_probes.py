"""Probes for any model on a user's own texts: multiple choice by likelihood, and what a model writes, counted."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from forgetlab.errors import ForgetlabError, whole
from forgetlab.metrics.tally import stratified
from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.tasks import Scores, Tally
from forgetlab.tasks.likelihood import option_log_probabilities
from forgetlab.tasks.probes import ByLikelihood, Probe, answers, blocks, chance, sample


class MultipleChoice(ByLikelihood):
    """Share of questions whose right option is the most probable after the question, per token of the option.

    score(o) = log p(o | question) / tokens of o: the mean, so that long options are not punished (GPT-3: Brown et
    al. 2020, section 2.4; lm_eval's acc_norm divides by characters). "unnormalised" is the accuracy of the sums
    (lm_eval's acc), "chance" that of guessing. Masked models: each token of the option hidden in turn.

    questions: the texts before the options, may be empty. choices: two or more for each, joined on with a space.
    answers: for each the index of the right one, from 0. Raises ForgetlabError for anything else.
    """

    metric = "accuracy"
    kind = "choices"

    def __init__(
        self, name: str, questions: Sequence[str], choices: Sequence[Sequence[str]], answers: Sequence[int]
    ) -> None:
        if not (len(questions) == len(choices) == len(answers) and questions):
            counts = f"{len(questions)} questions, {len(choices)} lists of choices, {len(answers)} answers"
            raise ForgetlabError(f"{name}: {counts}; expected as many of each, at least one")
        for i, (options, answer) in enumerate(zip(choices, answers, strict=True), 1):
            if isinstance(options, str) or len(set(options)) < max(2, len(options)) or not all(options):
                raise ForgetlabError(f"{name}, question {i}: expected two or more different choices, got {options!r}")
            if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(options):
                raise ForgetlabError(
                    f"{name}, question {i}: the answer is {answer!r}; expected an index from 0 to {len(options) - 1}"
                )
        self.questions = [q for q, options in zip(questions, choices, strict=True) for _ in options]
        self.options = [option for options in choices for option in options]
        self.counts, self.answers = [len(options) for options in choices], list(answers)
        texts = tuple(f"{q} {o}".strip() for q, o in zip(self.questions, self.options, strict=True))
        super().__init__(name, None, Examples(kind="text", texts=texts))

    def remarks(self, model: Model, *splits: str, limit: int | None = None) -> list[str]:
        begun = all(self.questions)  # something stands before each option
        return (Probe if begun else ByLikelihood).remarks(self, model, *splits, limit=limit)

    def items(self) -> int:
        return len(self.counts)

    def guesser(self, model: Model, limit: int | None = None) -> float | None:
        """Chance: 1/K of K choices, averaged over the questions."""
        return chance([self.counts[i] for i in self.sample(limit).tolist()])

    def _scored(self, model: Model, limit: int | None) -> tuple[Scores, Tally | None]:
        asked = self.sample(limit).tolist()
        counts, own = [self.counts[i] for i in asked], blocks(self.counts, asked)
        questions, options = [self.questions[i] for i in own], [self.options[i] for i in own]
        sums, tokens = option_log_probabilities(model, questions, options, self.rows_at_once)
        answer = torch.tensor([self.answers[i] for i in asked])
        normalised, plain = (
            answers(torch.stack([part.argmax() for part in values.split(counts)]) == answer)
            for values in (sums / tokens.clamp_min(1), sums)
        )
        scores = {
            "accuracy": float(self.main_score(normalised.items.sum(0))),
            "unnormalised": float(self.main_score(plain.items.sum(0))),
            "chance": chance(counts),
        }
        return scores, normalised


class Generation(Probe):
    """What a causal model writes, counted without a judge: does it still vary its words, or repeat itself?

    distinct_1, distinct_2: different words, pairs of words / all of them, over every text (Li et al. 2016).
    repetition: share of 4-grams that stood in the same text before (seq-rep-4: Welleck et al. 2020).
    Both say how varied the writing is, not how right: noise is varied too, so watch a perplexity beside them.

    prompts: texts whose first `prompt_tokens` tokens are written on from, those that have so many (None: from the
    begin token). count: texts, or as many as there are prompts. tokens: the longest. Words are \\w+ and single marks.
    """

    metric = "distinct_2"
    kind = "generation"

    def __init__(
        self,
        name: str = "generation",
        prompts: Sequence[str] | None = None,
        *,
        count: int = 64,
        tokens: int = 48,
        prompt_tokens: int = 4,
    ) -> None:
        if prompts is not None and not prompts:
            raise ForgetlabError(f"{name}: no prompts given; leave them out to write from the begin token")
        super().__init__(name, None, Examples(kind="text", texts=tuple(prompts or ("",))))
        self.prompts = prompts
        self.count, self.tokens = whole("count", count), whole("tokens", tokens)
        self.prompt_tokens = whole("prompt_tokens", prompt_tokens)

    def prepare(self, model: Model, seed: int = 0) -> None:
        if model.lm_kind != "causal":
            raise ForgetlabError(
                f"the task {self.name} needs a causal language model; {model.name} is none: watch masked-lm, k-shot "
                "or minimal pairs on it"
            )
        if self.prompts is not None:
            self._start(model, 1)

    def remarks(self, model: Model, *splits: str, limit: int | None = None) -> list[str]:
        return []

    def write(self, model: Model, count: int) -> list[str]:
        """`count` texts at most, the same at each call for the same weights."""
        start = None if self.prompts is None else self._start(model, count)
        count = count if start is None else len(start)
        generator = torch.Generator().manual_seed(0)
        texts: list[str] = []
        while len(texts) < count:
            some = min(self.rows_at_once, count - len(texts))
            begin = None if start is None else start[len(texts) : len(texts) + some]
            texts += [t for t, _ in sample(model, some, generator, max_tokens=self.tokens, start=begin)]
        return texts

    def _start(self, model: Model, count: int) -> torch.Tensor:
        begin = [] if model.tokenizer.bos_token_id is None else [model.tokenizer.bos_token_id]
        ids = model.tokenizer(list(self.prompts or ()), add_special_tokens=False)["input_ids"]
        long = [[*begin, *row[: self.prompt_tokens]] for row in ids if len(row) >= self.prompt_tokens]
        if not long:
            raise ForgetlabError(
                f"{self.name}: no prompt has {self.prompt_tokens} tokens; expected longer texts, or prompt_tokens="
                f"{max(map(len, ids))}"
            )
        return torch.tensor(long)[stratified([None] * len(long), count)]

    def items(self) -> int:
        return self.count

    def _scored(self, model: Model, limit: int | None) -> tuple[Scores, Tally | None]:
        return variety(self.write(model, min(self.count, limit or self.count))), None


def variety(texts: Sequence[str]) -> Scores:
    """distinct_1, distinct_2 and repetition of texts, as in `Generation`; 0 where there is nothing to count.

    >>> variety(["a b a b a b"])
    {'distinct_1': 0.3333333333333333, 'distinct_2': 0.4, 'repetition': 0.3333333333333333}
    """
    words = [re.findall(r"\w+|[^\w\s]", text) for text in texts]

    def grams(text: Sequence[str], n: int) -> list[tuple[str, ...]]:
        return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]

    def distinct(n: int) -> float:
        found = [gram for text in words for gram in grams(text, n)]
        return len(set(found)) / max(1, len(found))

    fours = [found for text in words if (found := grams(text, 4))]
    repeated = [1 - len(set(found)) / len(found) for found in fours]
    return {
        "distinct_1": distinct(1),
        "distinct_2": distinct(2),
        "repetition": sum(repeated) / max(1, len(repeated)),
    }
