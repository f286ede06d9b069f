"""Pulls that know which weights the old tasks need: from the Fisher information, or from how the outputs react."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError, number, one_of, whole
from forgetlab.importance import Estimator, Importance, check_importance, fisher_diagonal, mas_importance
from forgetlab.importance.cache import once
from forgetlab.remedies.regularizers.quadratic import Lam, Quadratic
from forgetlab.tasks.base import Task, trainable
from forgetlab.training.method import Run


class Measured(Quadratic):
    """A pull whose importance is measured on old tasks, or given: what EWC, MAS and their kin share.

    importance: {name: tensor}, or the old tasks, of which it is computed at the start from `examples` of each and the
    run's seed. The other arguments: see Quadratic. Raises ForgetlabError for tasks without training data.
    """

    def __init__(
        self,
        importance: Mapping[str, Tensor] | Sequence[Task],
        lam: Lam | None = None,
        *,
        anchor: Mapping[str, Tensor] | None = None,
        proximal: bool = False,
        examples: int = 200,
        strength: float = 1.0,
    ) -> None:
        super().__init__(lam, anchor, proximal, strength)
        given = importance
        self._given = given if isinstance(given, Mapping) else trainable(given, "measure the Fisher information on")
        self.examples = whole("examples", examples)
        self._how: tuple[object, ...] = ()  # what else it depends on

    def importance(self, run: Run) -> Importance:
        if isinstance(self._given, Mapping):
            return dict(self._given)
        how = type(self)._of_task.__qualname__, self.examples, self._how, run.seed
        return self.combine([once(run.model, task, how, partial(self._of_task, run, task)) for task in self._given])

    @abstractmethod
    def _of_task(self, run: Run, task: Task) -> Importance:
        """The importance to one old task."""

    def combine(self, parts: Sequence[Importance]) -> Importance:
        """One importance of the tasks' own, in their order: the sum."""
        return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}


class EWC(Measured):
    """Elastic weight consolidation: pull each weight as strongly as the old tasks' Fisher information says.

    L = L_task + (λ/2) Σ_i F_i (θ_i − θ*_i)².

    fisher: {name: tensor} from `fisher_diagonal` (several tasks: their sum), or the old tasks themselves, of which it
    is then computed at the start with `estimator`, `examples`, `draws` and the run's seed. The other arguments: see
    Quadratic.
    Raises ForgetlabError for a Fisher of another model (it names the parameter) and for tasks without training data.
    Source: Kirkpatrick et al. 2017, eq. 3. Differs from much public code by the per-example Fisher and the factor ½.

    >>> ones = {name: torch.ones_like(weight) for name, weight in model.named_parameters()}  # or [old]
    >>> [*_, last] = finetune(model, new, methods=[EWC(ones, lam=10)], steps=2)
    >>> round(last.penalty["ewc"] / (10 / 2 * last.drift**2), 3)
    1.0
    """

    name = "ewc"
    spread = True

    def __init__(
        self,
        fisher: Mapping[str, Tensor] | Sequence[Task],
        lam: Lam | None = None,
        *,
        anchor: Mapping[str, Tensor] | None = None,
        proximal: bool = False,
        estimator: Estimator = "auto",
        examples: int = 200,
        draws: int = 4,
        strength: float = 1.0,
    ) -> None:
        super().__init__(fisher, lam, anchor=anchor, proximal=proximal, examples=examples, strength=strength)
        one_of("estimator", estimator, get_args(Estimator))
        self.estimator: Estimator = estimator
        self.draws = whole("draws", draws)
        self._how = estimator, self.draws

    def _of_task(self, run: Run, task: Task) -> Importance:
        return fisher_diagonal(
            run.model, task, estimator=self.estimator, examples=self.examples, draws=self.draws, seed=run.seed
        )


class OnlineEWC(EWC):
    """EWC for a sequence: one anchor, and a Fisher that fades: F ← γ F + F_t after each task t.

    gamma: γ in [0, 1]; 1 is the plain sum. `consolidate(fisher)` adds the Fisher of a task just learned; the next
    run then anchors to its own start, where no anchor was given. Everything else, `more` too, as in EWC; given tasks
    count as a sequence in their order.
    Source: Schwarz et al. 2018 (Progress & Compress), eq. 8–9. Theirs pulls with γ F, this with F: their λ is ours / γ.

    >>> one = {"w": torch.ones(1)}
    >>> OnlineEWC(one, gamma=0.5).combine([one, one])  # γ F + F_t
    {'w': tensor([1.5000])}
    """

    name = "online-ewc"

    def __init__(
        self,
        fisher: Mapping[str, Tensor] | Sequence[Task],
        lam: Lam | None = None,
        gamma: float = 0.9,
        **more: Any,
    ) -> None:
        super().__init__(fisher, lam, **more)
        self.gamma = number("gamma", gamma, 0, 1)

    def combine(self, parts: Sequence[Importance]) -> Importance:
        faded = dict(parts[0])
        for part in parts[1:]:
            faded = {name: self.gamma * value + part[name] for name, value in faded.items()}
        return faded

    def consolidate(self, fisher: Mapping[str, Tensor]) -> None:
        """F ← γ F + F_t. fisher: F_t of the task just learned, for the same parameters as before."""
        if not isinstance(self._given, Mapping):
            raise ForgetlabError("consolidate needs a method that was given a Fisher, not tasks")
        given = {name: torch.empty_like(value) for name, value in self._given.items()}
        check_importance(fisher, given, needed=given)
        self._given = self.combine([dict(self._given), dict(fisher)])


class MAS(Measured):
    """Memory-aware synapses: the pull follows how much the old outputs react to each weight; no labels are used.

    L = L_task + (λ/2) Σ_i Ω_i (θ_i − θ*_i)²,  Ω = mean_x |∂‖f(x)‖² / ∂θ|.

    importance: {name: tensor} from `mas_importance`, or the old tasks (see EWC).
    Source: Aljundi et al. 2018, eq. 3–4; differs from it by the factor ½.

    >>> [*_, last] = finetune(model, new, methods=[MAS([old], examples=8)], steps=2)
    >>> last.penalty["mas"] > 0
    True
    """

    name = "mas"

    def _of_task(self, run: Run, task: Task) -> Importance:
        return mas_importance(run.model, task, examples=self.examples, seed=run.seed)
