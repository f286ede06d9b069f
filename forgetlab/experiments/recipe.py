"""A recipe is a value: it says everything that defines a run, so that the same recipe gives the same numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import forgetlab
from forgetlab.errors import ForgetlabError, number, whole

if TYPE_CHECKING:
    from forgetlab.training.loop import Precision


def _option(default: Any, text: str | None = None, **more: Any) -> Any:
    """A field that the command line has too: its help, and what else argparse is to know of it."""
    return field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True)
class Recipe:
    """Everything that defines a run.

    new, watch (empty: what suits the model): each a source of `task_from`, that is, an embedded task's name, a file, a
    hub set, this machine's text, with options of its own where it needs them: "cola.tsv:text=3,label=1".
    methods: remedies, such as "none", "l2sp:lam=0.1" or "replay:ratio=0.3+l2sp". limit None: all test examples.

    >>> Recipe(new="sentiment", methods="ewc:lam=10").key() == Recipe(new="sentiment", methods="ewc:lam=20").key()
    False
    """

    model: str = _option("tiny-bert", "a shipped name, a transformers folder or a hub id (default: tiny-bert)")
    new: str = _option("", "what to learn (default: the embedded sentiment task)", metavar="TASK_OR_FILE")
    watch: tuple[str, ...] = _option(
        (), "what to watch, comma-separated: task names or files, with columns: cola.tsv:text=3,label=1", metavar="A,B"
    )
    methods: str = "none"
    steps: int = _option(300, "optimizer steps of a run (default: 300)")
    lr: float = _option(1e-3, "learning rate (default: 1e-3 for the tiny models, 5e-5 for others)")
    batch_size: int = _option(32, "examples in a step (default: 32)", flag="--batch", metavar="BATCH")
    seed: int = 0
    every: int = _option(20, "steps between evaluations (default: 20)")
    similarity: float = _option(
        1.0, "embedded reviews only: from 0 (unfamiliar) to 1 (as in pre-training, the default)"
    )
    learn_steps: int = _option(200, "steps for watched tasks that the model has no head for (default: 200)")
    limit: int | None = _option(512, "test examples per score (default: 512)")
    text: str | None = _option(None, "column of the new file's text", metavar="COLUMN")
    label: str | None = _option(None, "column of the new file's labels", metavar="COLUMN")
    kind: str | None = _option(
        None, "how to read the new file", choices=("text", "labelled", "pairs", "tags", "chat", "completions")
    )
    device: str = _option("auto", "auto, cpu, cuda, cuda:1, mps (default: auto)")
    precision: Precision = _option(  # noqa: RUF009
        "float32", "of the arithmetic (default: float32)", choices=("float32", "bfloat16", "float16")
    )
    max_length: int | None = _option(
        None, "tokens that a text is cut to (default: 512, or fewer where the model takes fewer)", metavar="TOKENS"
    )

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if hasattr(value, "item"):  # a rate from np.logspace: JSON knows Python's own numbers only
                object.__setattr__(self, name, value.item())
        object.__setattr__(self, "watch", tuple(self.watch))

    def check(self) -> None:
        """Raise ForgetlabError for numbers and names that no run can work with; nothing is loaded for it."""
        from forgetlab.sources.model_names import model_folder
        from forgetlab.tasks.source_names import check_source

        number("lr", self.lr, above=True)
        for name in ("steps", "batch_size", "every"):
            whole(name, getattr(self, name))
        if self.limit is not None:
            whole("limit", self.limit)
        if self.max_length is not None:
            whole("max_length", self.max_length, 2)
        number("similarity", self.similarity, 0, 1)
        model_folder(self.model)
        for name in filter(None, (self.new, *self.watch)):
            check_source(name)
        if self.new and self.new in self.watch:
            raise ForgetlabError(f"two tasks have the same name: {self.new} is the new task and watched too")

    def check_files(self) -> None:
        """Raise ForgetlabError for files that cannot be read as asked; torch is not loaded for it."""
        from forgetlab.tasks.readable import check_file

        if self.new:
            check_file(self.new, text=self.text, label=self.label, kind=self.kind)
        for name in self.watch:
            check_file(name)

    def content(self) -> dict[str, Any]:
        """What tells the recipe from others; runs kept before there was a `max_length` are known without it."""
        return {name: value for name, value in asdict(self).items() if name != "max_length" or value is not None}

    def key(self) -> str:
        """A stable name for the run: a hash of the recipe, its text files, the shipped data and forgetlab's version.

        A model folder is told apart by name only; a sweep looks at its files too (`sweeps.identity`).
        """
        from forgetlab.sources.json_files import digest
        from forgetlab.sources.shipped import inputs, sha256
        from forgetlab.tasks.source_names import source_files

        files = {str(path): sha256(path) for path in source_files((self.new, *self.watch))}
        return digest([self.content(), files, inputs(), forgetlab.__version__])[:16]


def check_device(device: str) -> None:
    """Raise ForgetlabError for a device that is not at hand; where one is named, torch is loaded for it."""
    if device not in ("auto", "cpu"):
        from forgetlab.models.device import pick_device

        pick_device(device)


def called(methods: str) -> str:
    """A recipe's methods as a sentence names them: "none" would read as the English word.

    >>> called("none"), called("none+ewc")
    ('plain fine-tuning', 'none+ewc')
    """
    return "plain fine-tuning" if methods == "none" else methods
