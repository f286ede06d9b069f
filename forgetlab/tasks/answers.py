"""Tasks on answers: learned and scored as a language model of them, or asked which of two is likelier."""

from __future__ import annotations

from dataclasses import replace

from forgetlab.errors import ForgetlabError
from forgetlab.metrics.tally import answers
from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.sources.conversations import SUCH
from forgetlab.sources.examples import take
from forgetlab.tasks.base import Scores, Tally
from forgetlab.tasks.chat import layout
from forgetlab.tasks.encoding import Encoded, encode, longer
from forgetlab.tasks.language import CausalLM
from forgetlab.tasks.likelihood import answer_log_probabilities
from forgetlab.tasks.probes import Probe, need_causal


def answer_task(name: str, train: Examples, test: Examples, model: Model) -> CausalLM:
    """The task of writing the answers of completions or chats; those whose answer this model cannot see are left out.

    Raises ForgetlabError for a model that does not write, and where no answer is left.
    """
    if model.lm_kind != "causal":
        raise ForgetlabError(
            f"{name} has prompts and answers, which need a causal language model; {model.name} is none: give a class "
            "for each text (kind='labelled')"
        )
    if train.rejected is not None:
        one_side = "the chosen side is learned and scored, the rejected one not read: kind=preferences compares them"
        train = replace(train, notes=(*train.notes, one_side), rejected=None)
    task = CausalLM(name, train, replace(test, rejected=None))
    encoded = [task.encoded(model, split) for split in ("train", "test")]
    if all(bool(side.answered.all()) for side in encoded):
        return task
    return CausalLM(name, _answered(name, train, encoded[0], model), _answered(name, task.test, encoded[1], model))


def _answered(name: str, examples: Examples, encoded: Encoded, model: Model) -> Examples:
    """The examples that have an answer, with a note on the others."""
    kept = encoded.answered.nonzero().squeeze(1).tolist()
    if len(kept) == len(examples):
        return examples
    told = ", ".join(f"{count} as {reason}" for reason, count in encoded.without.items())
    note = f"{len(examples) - len(kept)} of {len(examples)} examples left out on {model.name}: {told}"
    note += longer(model) if any("tokens" in reason for reason in encoded.without) else ""
    if not kept:
        raise ForgetlabError(f"{name}: {note}")
    return replace(take(examples, kept), notes=(*examples.notes, note))


class Preferences(Probe):
    """Share of preference pairs whose chosen answer the model finds likelier than the rejected one, after the prompt.

    "accuracy" compares Σ log p over the tokens of each answer, "per_token" their means: sums punish long answers. A tie
    counts as wrong. There is no reference model, as DPO's margins have: this is what the model itself would write.
    examples: completions or chats with their `rejected` side. Pairs of which a side has no token within the model's
    length are left out, and said when the task is prepared. Raises ForgetlabError for examples without that side.

    >>> worse = Examples("completions", ("the film",), (" good was .",))
    >>> Preferences("mine", Examples("completions", ("the film",), (" was good .",), rejected=worse)).items()
    1
    """

    metric = "accuracy"
    kind = "preferences"

    def __init__(self, name: str, examples: Examples) -> None:
        if examples.rejected is None:
            raise ForgetlabError(f"{name} has no preferences; expected rows such as {SUCH['chosen and rejected']}")
        super().__init__(name, None, examples)

    def prepare(self, model: Model, seed: int = 0) -> None:
        need_causal(f"the task {self.name}", model)

    def remarks(self, model: Model, *splits: str, limit: int | None = None) -> list[str]:
        told = f"{self.name}: {layout(self.test.kind, model.tokenizer).partition(' (')[0]}"
        return [*super().remarks(model, *splits, limit=limit), told]

    def guesser(self, model: Model, limit: int | None = None) -> float | None:
        return 0.5

    def _scored(self, model: Model, limit: int | None) -> tuple[Scores, Tally | None]:
        chosen = take(self.test, self.sample(limit).tolist())
        assert chosen.rejected is not None
        sums, tokens = zip(
            *(answer_log_probabilities(model, side, self.rows_at_once) for side in (chosen, chosen.rejected)),
            strict=True,
        )
        likelier = (sums[0] > sums[1]).double()
        tally = answers(likelier.masked_fill(sums[0].isnan() | sums[1].isnan(), float("nan")))
        means = [total / count for total, count in zip(sums, tokens, strict=True)]
        per_token = float((means[0] > means[1]).double().mean())
        return {"accuracy": float(self.main_score(tally.items.sum(0))), "per_token": per_token}, tally


def preferences(name: str, examples: Examples, model: Model) -> Preferences:
    """The probe on the pairs of which this model can see both answers."""
    task = Preferences(name, examples)
    task.prepare(model)
    assert examples.rejected is not None
    kept = [True] * len(examples)
    why = dict[str, int]()
    for side in (examples, examples.rejected):
        encoded = encode(side, model.tokenizer, model.max_length, begin=True, end=model.end_mark)
        kept = [a and b for a, b in zip(kept, encoded.answered.tolist(), strict=True)]
        why |= encoded.without
    if all(kept):
        return task
    note = f"{kept.count(False)} of {len(kept)} pairs left out on {model.name}: {'; '.join(why)}"
    if not any(kept):
        raise ForgetlabError(f"{name}: {note}")
    some = take(examples, [i for i, one in enumerate(kept) if one])
    return Preferences(name, replace(some, notes=(*some.notes, note)))
