"""What a causal model writes: sampling, and probes that score the texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError, number, whole
from forgetlab.metrics.tally import stratified
from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.tasks import Scores, Tally
from forgetlab.tasks.probes import Probe, need_causal


class Writing(Probe):
    """What a causal model of the embedded language writes: the parser scores it, no judge model is needed.

    fluency: share of sentences in the language. coherence: share of longer texts whose facts agree.
    """

    metric = "fluency"
    kind = "writing"

    def __init__(self, name: str = "writing", count: int = 200, texts: Sequence[str] = ("",)) -> None:
        super().__init__(name, None, Examples(kind="text", texts=tuple(texts)))
        self.count = whole("count", count)

    def prepare(self, model: Model, seed: int = 0) -> None:
        need_causal(f"the task {self.name}", model)

    def remarks(self, model: Model, *splits: str, limit: int | None = None) -> list[str]:
        return []

    def items(self) -> int:
        return self.count

    def _scored(self, model: Model, limit: int | None) -> tuple[Scores, Tally | None]:
        return self.judged(self.write(model, min(self.count, limit or self.count))), None

    def write(self, model: Model, count: int) -> list[str]:
        """`count` texts, the same at each call for the same weights."""
        return write(model, count, seed=0)

    def judged(self, texts: list[str]) -> Scores:
        """The scores of such texts."""
        from forgetlab.sources.world import coherence, fluency

        return {"fluency": fluency(texts), "coherence": coherence(texts)}


def write(
    model: Model, count: int, *, seed: int, temperature: float = 1.0, top_p: float = 1.0, max_tokens: int = 48
) -> list[str]:
    """`count` texts by a causal model; the arguments are those of `sample`.

    >>> len(write(load("tiny-gpt"), 2, seed=0, max_tokens=8))
    2
    """
    generator = torch.Generator().manual_seed(seed)
    return [text for text, _ in sample(model, count, generator, temperature, top_p, max_tokens)]


@torch.no_grad()
def sample(
    model: Model,
    count: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_tokens: int = 48,
    start: Tensor | None = None,
) -> list[tuple[str, bool]]:
    """Texts that a causal model writes from its begin token on, each with whether it came to its end token.

    A model whose weights are no longer finite writes nothing.
    start: (count, T) tokens to write on from, which are not returned (None: the begin token).
    generator: on the CPU, so that a seed gives the same text on every device. temperature: divides the logits, above 0.
    top_p: draw from the `nucleus` of that mass; 1: from every token. max_tokens: where a text is cut off.
    Raises ForgetlabError for a bad temperature or top_p, and for a tokenizer with no token to begin from.
    """
    number("temperature", temperature, 0, 1000, above=True)
    number("top_p", top_p, 0, 1, above=True)
    tokenizer = model.tokenizer
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if begin is None:
        raise ForgetlabError(f"{model.name} cannot write: its tokenizer has neither a begin nor an end token")
    ids = torch.full((count, 1), begin, device=model.device) if start is None else start.to(model.device)
    given = ids.shape[1]
    done = torch.zeros(count, dtype=torch.bool, device=model.device)
    past = None
    for _ in range(min(max_tokens, model.max_length - given + 1)):
        probabilities, past = _next_token(model, ids if past is None else ids[:, -1:], past, ids.shape[1], temperature)
        if not bool(probabilities.isfinite().all()):
            break
        if top_p < 1:
            probabilities = nucleus(probabilities, top_p)
        chosen = torch.multinomial(probabilities, 1, generator=generator).to(model.device)
        chosen = chosen.masked_fill(done.unsqueeze(1), tokenizer.pad_token_id)
        ids = torch.cat([ids, chosen], dim=1)
        done |= chosen.squeeze(1) == tokenizer.eos_token_id
        if done.all():
            break
    texts = tokenizer.batch_decode(ids[:, given:], skip_special_tokens=True)
    return [(text.strip(), ended) for text, ended in zip(texts, done.tolist(), strict=True)]


@torch.no_grad()
def rollouts(
    model: Model, starts: Tensor, which: Tensor, generator: torch.Generator, temperature: float, max_tokens: int
) -> list[Tensor]:
    """The tokens that a causal model writes after starts of one length, the end token among them, on the CPU.

    starts: (P, T) tokens, each read once. which: (N,) the start of each answer. Returns N answers of up to
    `max_tokens`. Other arguments and the weights that are no longer finite: as in `sample`. What has come to its end
    takes no further time, and a token costs one uniform draw u: it is the first one with p(it or one before) > u.
    """
    answers: list[list[int]] = [[] for _ in which]
    going, fresh, past, end = torch.arange(len(which)), starts.to(model.device), None, model.tokenizer.eos_token_id
    for place in range(max_tokens):
        probabilities, past = _next_token(model, fresh, past, starts.shape[1] + place, temperature)
        if not place:
            past.batch_select_indices(which.to(model.device))
            probabilities = probabilities[which]
        mass = probabilities.double().cumsum(-1)
        if not bool(mass[:, -1].isfinite().all()):
            break
        u = torch.rand(len(going), 1, generator=generator, dtype=torch.float64) * mass[:, -1:]
        chosen = (mass <= u).sum(-1).clamp(max=mass.shape[1] - 1)
        for answer, token in zip(going.tolist(), chosen.tolist(), strict=True):
            answers[answer].append(token)
        alive = (chosen != end).nonzero().squeeze(1) if end is not None else torch.arange(len(chosen))
        if not len(alive):
            break
        if len(alive) < len(going):
            past.batch_select_indices(alive.to(model.device))
        going, fresh = going[alive], chosen[alive].unsqueeze(1).to(model.device)
    return [torch.tensor(answer, dtype=torch.long) for answer in answers]


def _next_token(model: Model, fresh: Tensor, past: Any, length: int, temperature: float) -> tuple[Tensor, Any]:
    """(B, vocabulary) probabilities of the next token, on the CPU, and the keys and values so far.

    fresh: (B, n) the tokens that are not in `past` yet. length: how many tokens there are by now.
    """
    seen = fresh.new_ones(len(fresh), length)
    out = model.backbone(input_ids=fresh, attention_mask=seen, past_key_values=past, use_cache=True)
    logits = model.lm_logits(out.last_hidden_state[:, -1]).float()
    logits = logits - logits.max(dim=-1, keepdim=True).values  # so that no temperature overflows
    return (logits / max(temperature, 1e-6)).softmax(-1).cpu(), out.past_key_values


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """The probabilities with 0 outside the smallest set of tokens whose mass is `top_p` or more.

    probabilities: (B, V), rows with sum 1. Not scaled back to sum 1. Source: Holtzman et al. 2020, section 3.1.
    """
    ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ranked.cumsum(-1) - ranked  # the mass of the more probable tokens
    return torch.zeros_like(probabilities).scatter(-1, order, ranked.masked_fill(before >= top_p, 0.0))


class Generation(Writing):
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
        super().__init__(name, count, prompts or ("",))
        self.prompts = prompts
        self.tokens, self.prompt_tokens = whole("tokens", tokens), whole("prompt_tokens", prompt_tokens)

    def prepare(self, model: Model, seed: int = 0) -> None:
        need_causal(f"the task {self.name}", model, ": watch masked-lm, k-shot or minimal pairs on it")
        if self.prompts is not None:
            self._start(model, 1)

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

    def judged(self, texts: list[str]) -> Scores:
        return variety(texts)


def variety(texts: Sequence[str]) -> Scores:
    """distinct_1, distinct_2 and repetition of texts, as in `Generation`; 0 where there is nothing to count.

    >>> {name: round(share, 3) for name, share in variety(["a b a b a b"]).items()}
    {'distinct_1': 0.333, 'distinct_2': 0.4, 'repetition': 0.333}
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
