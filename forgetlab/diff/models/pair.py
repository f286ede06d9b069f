"""A model before and after, of which one is in memory at a time; the others lie on the disk."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from forgetlab.diff.models.checks import check_config, check_tokenizer
from forgetlab.diff.models.classifier import SEVERAL, Classifier, level_of
from forgetlab.diff.models.folders import Folder, opened
from forgetlab.diff.models.stored import Stored, spill
from forgetlab.errors import ForgetlabError, one_of
from forgetlab.models.heads import Head
from forgetlab.models.loading import Precision, load, load_heads
from forgetlab.models.model import HEADS_FILE, Model

BEFORE, LM = "before", "language model"
Share = Callable[[str, Tensor, Tensor], Tensor]


class Pair:
    """BEFORE and one AFTER or several: `become` pours one of them into `model`, which is all that is in memory.

    before, afters: shipped names, transformers folders, hub ids, or folders with a peft adapter on BEFORE.
    `model` has BEFORE's structure: its backbone, its language-model head, its named heads. What an AFTER has no head
    of its own for is asked through BEFORE's: `lent` has their names. notes: what else is worth saying.
    Raises ForgetlabError for models of other shapes or words, damaged files, and the same folder twice.
    """

    def __init__(self, before: str, afters: Sequence[str], *, device: str = "auto", dtype: Precision = "float32"):
        self._place = tempfile.TemporaryDirectory(prefix="forgetlab-")
        self.notes: list[str] = []
        spare = Path(self._place.name)
        folders = [opened(before, None, spare / "0", self.notes)]
        for i, after in enumerate(afters, 1):  # adapters are merged now, while no other model is in memory
            folders.append(opened(after, folders[0], spare / str(i), self.notes))
        _refuse_twice(folders)
        self.names = tuple(_unique([BEFORE, *afters]))
        self._folders = dict(zip(self.names, folders, strict=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a classifier that is left out: here it becomes a head
            self.model: Model = load(str(folders[0].place), device=device, dtype=dtype, keep=False)
        self.model.name = folders[0].title
        self._body = cast(Any, self.model.body)
        self._tied = _tied(self._body)
        self._stored = {name: Stored(folder.place, folder.given) for name, folder in self._folders.items()}
        if any(self._find(BEFORE, name) is None for name in self._needed()):  # transformers renames some at loading
            (spare / "names").mkdir()
            spill(self._body.state_dict(), spare / "names")
            self._stored[BEFORE] = Stored(spare / "names", before)
        self._heads: dict[str, dict[str, Head]] = {BEFORE: {n: cast(Head, h) for n, h in self.model.heads.items()}}
        self.lent: dict[str, tuple[str, ...]] = {}
        for name in self.names[1:]:
            self._check(name)
            self._heads[name] = self._saved_heads(name)
        self._classifiers = {name: self._classifier(name) for name in self.names}
        self._present = BEFORE
        self._tell_lent()

    # -- one at a time ------------------------------------------------------------------------------

    def become(self, which: str) -> Model:
        """Pour a model's weights into `model`, in place; returns it in eval mode, every weight free to be trained."""
        one_of("model of the pair", which, self.names)
        own = self._body.state_dict()
        with torch.no_grad():
            for name, weight in self._read(which):
                own[name].copy_(weight)
        return self._now(which, self._of(which))

    def weights(self, which: str) -> Iterator[tuple[str, Tensor]]:
        """A model's weights one by one, on the CPU in float32, named as in `model.state_dict()`; tied ones once.

        Of a grown vocabulary the rows that BEFORE has.
        """
        one_of("model of the pair", which, self.names)
        for name, weight in self._read(which):
            yield f"body.{name}", weight
        for name, head in self._of(which).items():
            for part, weight in head.state_dict().items():
                yield f"heads.{name}.{part}", weight.detach().cpu()

    def between(self, after: str, share: Share) -> Model:
        """`model` with share(name, before, after) for each of the weights, which are as `weights` gives them.

        A head that only one of the two has, or that is of another shape, stays as it is in AFTER.
        """
        one_of("model after", after, self.names[1:])
        own = self._body.state_dict()
        with torch.no_grad():
            for (name, old), (_, new) in zip(self._read(BEFORE), self._read(after), strict=True):
                own[name].copy_(share(f"body.{name}", old, new))
            heads = {n: _mixed(n, self._heads[BEFORE].get(n), head, share) for n, head in self._of(after).items()}
        return self._now(f"between before and {after}", heads)

    def _now(self, which: str, heads: Mapping[str, Head]) -> Model:
        model = self.model
        copies = {name: copy.deepcopy(head).to(model.device) for name, head in heads.items()}  # trained, they stay ours
        model.heads = nn.ModuleDict(copies)
        model.requires_grad_(True).zero_grad()
        model.eval()
        model.remember()
        self._present = which
        return model

    # -- heads --------------------------------------------------------------------------------------

    def _of(self, which: str) -> dict[str, Head]:
        """The heads that a model answers with: its own, and BEFORE's where it has none."""
        return self._heads[BEFORE] | self._heads[which]

    def own_head(self, which: str, name: str) -> Head | None:
        """The head of this name that a model itself has."""
        return self._heads[which].get(name)

    def give(self, which: str, name: str, head: Head) -> None:
        """Have a model answer by this head; given to "before", it is lent to each AFTER without one of its own."""
        self._heads[which][name] = head
        if self._present in self.names:
            self._now(self._present, self._of(self._present))
        self._tell_lent()

    def classifier(self, which: str) -> Classifier | None:
        """What a model's transformers folder has above its backbone to classify with."""
        return self._classifiers[which]

    def given(self, which: str) -> str:
        """What the user calls a model."""
        return self._folders[which].given

    def folder(self, which: str) -> Path:
        """Where a model lies: its own folder, or that of the merged adapter."""
        return self._folders[which].place

    def _tell_lent(self) -> None:
        lm = self.model.lm_kind is not None
        for after in self.names[1:]:
            lacks = lm and not all(self._find(after, name) for name in self._needed() if not self._below(name))
            names = [name for name in self._heads[BEFORE] if name not in self._heads[after]]
            self.lent[after] = (*([LM] if lacks else []), *names)

    def _saved_heads(self, which: str) -> dict[str, Head]:
        """The named heads in a folder of forgetlab's. One whose labels are not BEFORE's counts as not there."""
        if not (self._folders[which].place / HEADS_FILE).exists():
            return {}
        held, self.model.heads = self.model.heads, nn.ModuleDict()
        try:
            load_heads(self.model, self._folders[which].place)
            found = {name: cast(Head, head) for name, head in self.model.heads.items()}
        finally:
            self.model.heads = held
        for name, head in list(found.items()):
            before = self._heads[BEFORE].get(name)
            if before and (before.labels, before.level) != (head.labels, head.level):
                self.notes.append(f"{self.given(which)}: its head {name} has other labels than BEFORE's: not used")
                del found[name]
        return found

    def _classifier(self, which: str) -> Classifier | None:
        config = self._folders[which].config
        if level_of(config) is None:
            if config.problem_type in SEVERAL:
                self.notes.append(f"{self.given(which)}: its head is for {config.problem_type}: it is not used")
            return None
        return Classifier(config, Stored(self._folders[which].place, self.given(which)))

    # -- weights ------------------------------------------------------------------------------------

    def _needed(self) -> list[str]:
        """Names of BEFORE's own weights, tied ones once; a pooler serves no score."""
        return [name for name in self._tied if "pooler" not in name]

    def _below(self, name: str) -> bool:
        """Whether a weight is the backbone's, not the language-model head's."""
        prefix = self._body.base_model_prefix
        return self._body.base_model is self._body or name.startswith(f"{prefix}.")

    def _find(self, which: str, name: str) -> str | None:
        return self._stored[which].find(self._tied[name], self._body.base_model_prefix)

    def _read(self, which: str) -> Iterator[tuple[str, Tensor]]:
        shapes = self._body.state_dict()
        for name in self._tied:
            source = which if self._find(which, name) is not None else BEFORE  # a head or a pooler that is lent
            if (found := self._find(source, name)) is not None:
                weight = self._stored[source].tensor(found)
                yield name, weight[: len(shapes[name])] if weight.dim() else weight

    def _check(self, which: str) -> None:
        """Raise ForgetlabError where an AFTER is not the same model with other weights."""
        folder, given, stored = self._folders[which], self.given(which), self._stored[which]
        check_config(self._folders[BEFORE].config, folder.config, given)
        check_tokenizer(self.model, folder.place, given, self.notes)
        if lacking := [n for n in self._needed() if self._below(n) and self._find(which, n) is None]:
            raise ForgetlabError(f"{given}: its file lacks {len(lacking)} of BEFORE's weights, such as {lacking[0]}")
        own, grown = self._body.state_dict(), 0
        words = len(cast(Any, self._body).get_input_embeddings().weight)
        for name in self._needed():
            if (found := self._find(which, name)) is None:
                continue
            here, there = tuple(own[name].shape), stored.shapes[found]
            if here != there:
                if not (here[:1] == (words,) and there[1:] == here[1:] and there[0] > words):
                    raise ForgetlabError(f"{given}: {found} has the shape {[*there]}, in BEFORE {[*here]}")
                grown = there[0] - words
            if not torch.isfinite(stored.tensor(found)).all():
                raise ForgetlabError(
                    f"{given}: {found} holds values that are not finite numbers: its training diverged, or its file is "
                    "damaged; give an earlier checkpoint"
                )
            tied = [one for n in self._tied[name] if (one := stored.find([n], self._body.base_model_prefix))]
            if any(not torch.equal(stored.tensor(one), stored.tensor(found)) for one in tied if one != found):
                raise ForgetlabError(f"{given}: {' and '.join(tied)} differ, which are one weight in BEFORE")
        if grown:
            self.notes.append(f"{given}: its vocabulary has grown by {grown} rows; those that BEFORE has are compared")


def _tied(body: Any) -> dict[str, list[str]]:
    """The names of a body's weights, each with all that it is known by: {first: [first, …]}."""
    held: dict[tuple[Any, ...], list[str]] = {}
    for name, weight in body.state_dict().items():
        held.setdefault((weight.data_ptr(), tuple(weight.shape)), []).append(name)
    return {names[0]: names for names in held.values()}


def _mixed(name: str, before: Head | None, after: Head, share: Share) -> Head:
    """A copy of AFTER's head with the shares of both; AFTER's own where BEFORE has none of its shape."""
    if before is None or before is after:
        return after
    old, new = before.state_dict(), after.state_dict()
    if {n: w.shape for n, w in old.items()} != {n: w.shape for n, w in new.items()}:
        return after
    mixed = copy.deepcopy(after)
    for part, weight in mixed.state_dict().items():
        if weight.is_floating_point():
            weight.copy_(share(f"heads.{name}.{part}", old[part].cpu(), new[part].cpu()))
    return mixed


def _unique(names: Sequence[str]) -> list[str]:
    taken: list[str] = []
    for name in names:
        number, free = 2, name
        while free in taken:
            number, free = number + 1, f"{name} ({number})"
        taken.append(free)
    return taken


def _refuse_twice(folders: Sequence[Folder]) -> None:
    for i, folder in enumerate(folders):
        if twin := next((other for other in folders[:i] if other.origin == folder.origin), None):
            same = folder.given if folder.given == twin.given else f"{twin.given} and {folder.given}"
            raise ForgetlabError(f"{same}: the same folder twice; expected a model BEFORE a fine-tune and one AFTER it")
