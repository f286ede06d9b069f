"""Remedies that add a term on the outputs: what the model says about the new texts stays near what it said before.

No old data are needed. A frozen copy of the model answers each batch of the new task too: one more forward pass.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgetlab.errors import ForgetlabError, flag, number, one_of
from forgetlab.models.heads import Head
from forgetlab.models.model import Model, copy_of
from forgetlab.tasks import Classification, LanguageModel, Tagging, Task
from forgetlab.tasks.encoding import asked
from forgetlab.training.method import Method, Run, Setting

HeadName = str | None  # None: the language-model head
Direction = Literal["reverse", "forward"]


class OutputPenalty(Method, ABC):
    """weight · mean over `heads` of a distance between the model's outputs and its frozen copy's.

    Places that are averaged over: each text (sequence heads), else each token that is not padding, marks such as
    [CLS] included. A masked language model is asked at every token of the text as the new task shows it, hidden or
    not; a causal one, of a prompt with its answer, where it predicts a token of the answer. Only batches of the new
    task count, not what a replay adds. The value in a record is the mean since the last.
    """

    family = "outputs held"

    @property
    @abstractmethod
    def weight(self) -> float:
        """The factor of the term; 0 switches it off."""

    @abstractmethod
    def heads(self, run: Run) -> Sequence[HeadName]:
        """The heads whose outputs are kept."""

    @abstractmethod
    def distance(self, now: Tensor, before: Tensor) -> Tensor:
        """The mean distance between two (places, classes) logits, a scalar; `before` carries no gradient."""

    def setup(self, run: Run) -> None:
        self._heads = self.heads(run)
        self._before = frozen_copy(run.model, run)
        self._values: list[Tensor] = []
        self._mean = torch.zeros(())

    def batch_penalty(self, task: Task, batch: Mapping[str, Tensor], run: Run) -> Tensor | None:
        if task is not run.task or not self.weight:
            return None
        hidden, mask = run.model.hidden(batch), batch["attention_mask"]
        at_words = asked(batch) if "scored" in batch else mask
        with torch.no_grad():
            hidden_before = self._before.hidden(batch)
        distances = []
        for head in self._heads:  # one after the other: a vocabulary's logits are large
            with torch.no_grad():
                before = head_logits(self._before, hidden_before, at_words if head is None else mask, head)
            now = head_logits(run.model, hidden, at_words if head is None else mask, head)
            distances.append(self.distance(now, before))
        value = self.weight * torch.stack(distances).mean()
        self._values.append(value.detach())
        return value

    def penalty(self, run: Run) -> Tensor:
        if self._values:
            self._mean = torch.stack(self._values).mean()
            self._values = []
        return self._mean

    def add_penalty_gradient(self, run: Run) -> None:
        """Nothing: the loss of each batch holds the term already."""

    def costs(self, run: Run) -> dict[str, float]:
        return {"bytes": float(sum(p.nbytes for p in (*self._before.parameters(), *self._before.buffers())))}


class LwF(OutputPenalty):
    """Learning without forgetting (self-distillation): the old heads keep their softened outputs on the new texts.

    L = L_task + λ T² mean over old heads, places of KL(q₀ ‖ q), with q = softmax(z/T) and q₀ the same before.

    old: tasks whose heads are kept, trained already and each head once; tasks without one (zero-shot probes) are
    left out, as is the new task itself. lam: λ ≥ 0. temperature: T > 0. t_squared: False drops the factor T².
    Raises ForgetlabError for other numbers, where no old head is left, or for a head that the model lacks.
    Source: Li & Hoiem 2016, eq. 2 and 3. They have the cross-entropy, which is the KL plus the entropy of q₀: the
    same gradient, but not 0 at the start; no T² (Hinton, Vinyals & Dean 2015, sec. 2: it keeps the gradient's size
    when T changes), so their λ = 1 at T = 2 is λ = 0.25 here; the sum over old tasks; and they train the new head
    alone first.

    >>> [first, *_, last] = finetune(model, new, methods=[LwF([old])], steps=2, every=1)
    >>> first.penalty.get("lwf"), last.penalty["lwf"] > 0
    (0.0, True)
    """

    name = "lwf"
    main = Setting("lam")

    def __init__(self, old: Sequence[Task], lam: float = 1.0, temperature: float = 2.0, t_squared: bool = True) -> None:
        self._old = [task for task in old if isinstance(task, Classification | Tagging | LanguageModel)]
        if not self._old:
            names = ", ".join(task.name for task in old) or "no task"
            raise ForgetlabError(f"no outputs to keep: {names} given, a task with a head expected")
        self.lam = number("lam", lam)
        self.temperature = number("temperature", temperature, 0, 1000, above=True)
        self.t_squared = flag("t_squared", t_squared)

    @property
    def weight(self) -> float:
        return self.lam * (self.temperature**2 if self.t_squared else 1.0)

    def heads(self, run: Run) -> list[HeadName]:
        names: dict[HeadName, None] = {}  # in order, each once
        for task in self._old:
            if task is run.task:
                continue
            if isinstance(task, LanguageModel):
                task.prepare(run.model)  # raises where the model's language-model head is of another kind, or missing
                names[None] = None
            elif isinstance(task, Classification | Tagging):
                if task.head not in run.model.heads:
                    raise ForgetlabError(f"{run.model.name} has no head {task.head!r} to keep: learn {task.name} first")
                names[task.head] = None
        if not names:
            raise ForgetlabError(f"no outputs to keep: {run.task.name} is the new task itself; give an old one")
        return list(names)

    def distance(self, now: Tensor, before: Tensor) -> Tensor:
        now, before = (now / self.temperature).log_softmax(-1), (before / self.temperature).log_softmax(-1)
        # KL(q₀ ‖ q) = Σ q₀ (log q₀ − log q); "batchmean" divides the sum by the places
        return F.kl_div(now, before, reduction="batchmean", log_target=True)


class KLAnchor(OutputPenalty):
    """Hold the model's predictions on the new texts near those before the fine-tune.

    L = L_task + β mean over places of KL(p_θ ‖ p_θ₀), or of KL(p_θ₀ ‖ p_θ) where direction is "forward": the
    language-model head's distribution at each token (causal: of the next one, after the end mark too). A model without
    such a head is held at the heads it was loaded with (`model.known_names`).

    beta: β ≥ 0. direction: "reverse" or "forward". Raises ForgetlabError for others, or for a model with neither kind
    of head.
    Source: the KL term of preference tuning (Ziegler et al. 2019, eq. 2), here in full at every token of the new
    texts instead of one sample's log-ratio in the reward. "reverse": the model comes first, other than in LwF: to say
    what the old model would not have said costs much, to stop saying something costs little. "forward": the old model
    comes first, as in LwF at T = 1, and what it said must go on being said.

    >>> [first, *_, last] = finetune(model, new, methods=[KLAnchor(beta=1)], steps=2, every=1)
    >>> first.penalty.get("kl-anchor"), last.penalty["kl-anchor"] > 0
    (0.0, True)
    """

    name = "kl-anchor"
    main = Setting("beta")

    def __init__(self, beta: float = 1.0, direction: Direction = "reverse") -> None:
        self.beta = number("beta", beta)
        one_of("direction", direction, get_args(Direction))
        self.direction = direction

    @property
    def weight(self) -> float:
        return self.beta

    def heads(self, run: Run) -> list[HeadName]:
        if run.model.lm_kind is not None:
            return [None]
        names: list[HeadName] = [n for n in run.model.heads if f"heads.{n}.linear.weight" in run.model.known_names]
        if not names:
            raise ForgetlabError(
                f"no outputs to hold: {run.model.name} has no language-model head and no other from before; "
                "train a head and call model.remember() first"
            )
        return names

    def distance(self, now: Tensor, before: Tensor) -> Tensor:
        now, before = now.log_softmax(-1), before.log_softmax(-1)
        if self.direction == "forward":  # KL(p₀ ‖ p) = Σ p₀ (log p₀ − log p)
            return F.kl_div(now, before, reduction="batchmean", log_target=True)
        # KL(p ‖ p₀) = Σ p (log p − log p₀)
        return F.kl_div(before, now, reduction="batchmean", log_target=True)


def frozen_copy(model: Model, run: Run | None = None) -> Model:
    """The model as it is now, in eval mode and without gradients, with the same tokenizer.

    Its weights are the run's anchor where they are equal to it, the others are copied: the model's own only where they
    lie still, as below a LoRA.
    """
    kept = [(p, copy_of(p, run.anchor[name])) for name, p in run.weights.items()] if run else []
    copies = {id(p): nn.Parameter(value, requires_grad=False) for p, value in kept} | {id(p): p for p in model.still}
    twin = copy.copy(model)
    twin._modules = copy.deepcopy(model._modules, copies)  # what is in `copies` by now is not copied again
    twin._undo = []  # what was inserted is the model's own to take out
    return twin.eval().requires_grad_(False)


def head_logits(model: Model, hidden: Tensor, mask: Tensor, head: HeadName) -> Tensor:
    """(places, classes) in float32 of one head: a place is a text for a sequence head, else a token, padding left out.

    hidden: (B, L, width). mask: (B, L), 1 at tokens and 0 at padding. head: None for the language-model head.
    """
    if head is None:
        return model.lm_logits(hidden[mask.bool()]).float()
    module = model.heads[head]
    assert isinstance(module, Head)
    return module(hidden[mask.bool()] if module.level == "token" else hidden, mask).float()
