"""The repaired model as a folder that `forgetlab.load` and transformers open, with a card."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

import forgetlab
from forgetlab.diff.models.classifier import Classifier
from forgetlab.diff.models.pair import Pair
from forgetlab.diff.repair.found import Look, RepairFound, in_words, poured
from forgetlab.diff.repair.shown import HEAD, cells, said
from forgetlab.errors import ForgetlabError
from forgetlab.experiments.folders import MODEL_DRAFT, check_apart, check_model_folder
from forgetlab.experiments.model_card import in_a_line
from forgetlab.experiments.saving import FIRST, publish, versions
from forgetlab.models.soundness import json_in

DRAFT, WEIGHTS = f"{MODEL_DRAFT}repair", "model.safetensors"


def save_repaired(pair: Pair, found: RepairFound, out: str | Path) -> Path:
    """Write the model that `repair` has chosen as a transformers folder with its heads and a card; returns the folder.

    pair: the models that `found` is of; `pair.model`, the one in memory, is the repaired one afterwards. out: a new or
    empty folder, or one with a model that was saved like this.
    Raises ForgetlabError where nothing was chosen, for a folder that holds anything else, and where the disk refuses.
    """
    check_repair_folder(pair, out)
    if (chosen := found["chosen"]) is None:
        raise ForgetlabError(f"nothing to save in {out}: {found['reason']}")
    folder, after = Path(out).expanduser(), found["after"]
    draft = (folder if folder.exists() else folder.parent) / DRAFT
    try:
        shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
        draft.mkdir(parents=True)
        poured(pair, after, chosen["alpha"], chosen["layers"])
        _save(pair, after, draft)
        about = _about(pair, found)
        publish(draft, folder, _card(folder.name, found, chosen, about), about)
    except OSError as error:
        raise ForgetlabError(f"cannot save the model in {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _save(pair: Pair, after: str, draft: Path) -> None:
    """The model in memory; a classifier as AFTER's folder has it, with its own class names."""
    model, heads = pair.model, pair.model.heads
    own = next((head for head in heads.values() if isinstance(head, Classifier)), None)
    try:
        model.heads = nn.ModuleDict({name: h for name, h in heads.items() if not isinstance(h, Classifier)})
        model.save(draft)
    finally:
        model.heads = heads
    if own is not None:
        below, shell = own.shell.base_model_prefix, own.shell.state_dict()  # its pooler is below
        weights = {f"{below}.{name}": weight for name, weight in model.backbone.state_dict().items()} | shell
        save_file({n: w.contiguous().cpu() for n, w in weights.items()}, draft / WEIGHTS, metadata={"format": "pt"})
        shutil.copyfile(pair.folder(after) / FIRST, draft / FIRST)


def check_repair_folder(pair: Pair, out: str | Path) -> None:
    """Raise ForgetlabError where a repaired model may not be written: before anything is computed."""
    check_model_folder(out)
    check_apart(out, *(pair.folder(name) for name in pair.names))
    for name in pair.names[1:]:
        words = json_in(pair.folder(name) / FIRST, pair.given(name)).get("vocab_size")
        if words != pair.model.config.vocab_size:
            raise ForgetlabError(
                f"{pair.given(name)} has {words} words and BEFORE {pair.model.config.vocab_size}: no model between "
                "them has all of these; resize BEFORE's embeddings to as many first"
            )


def _about(pair: Pair, found: RepairFound) -> dict[str, Any]:
    """What stands in forgetlab.json, but for the names of the files."""
    models = {"before": pair.names[0], "after": found["after"]}
    return {
        "forgetlab": forgetlab.__version__,
        "repair": {**found, "after": _name(pair.given(found["after"]))},
        "models": {w: {"name": _name(pair.given(n)), "weights": weights_hash(pair, n)} for w, n in models.items()},
        "versions": {
            "forgetlab": forgetlab.__version__,
            **versions("torch", "transformers", "tokenizers", "safetensors"),
        },
    }


def weights_hash(pair: Pair, which: str) -> str:
    """SHA-256 of a model's weights, one after the other with their names, as `Pair.weights` gives them."""
    sha = hashlib.sha256()
    for name, weight in pair.weights(which):
        sha.update(name.encode())
        sha.update(weight.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def _card(title: str, found: RepairFound, chosen: Look, about: Mapping[str, Any]) -> str:
    """The Markdown of README.md."""
    rows = [HEAD, ("---",) * len(HEAD), *(cells(one, i == 0) for i, one in enumerate(found["tasks"]))]
    models = about["models"]
    before, after = (in_a_line(models[which]["name"]) for which in ("before", "after"))
    told = said({**found, "after": models["after"]["name"]})
    lines = [
        *("---", "library_name: transformers", "tags:", "- forgetlab", "---", "", f"# {in_a_line(title)}", ""),
        f"{after}, a fine-tune of {before}, in part undone: its",
        f"weights are θ_before + α (θ_after − θ_before) with {in_words(chosen)} (Wortsman et al. 2022). A head that",
        "only the fine-tune had is its own.",
        *("", "## Scores", "", *(f"{line[0].upper()}{line[1:]}.\n" for line in told)),
        *(f"| {' | '.join(in_a_line(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in rows),
        *("", "In brackets: 95 % intervals for the choice of the test items.", "", "## To load it", ""),
        *("```python", "from forgetlab import load", "", 'model = load("PATH OF THIS FOLDER")', "```", ""),
        *("## Made from", "", "| | SHA-256 |", "|---|---|"),
        *(f"| weights of {in_a_line(one['name'])} | `{one['weights']}` |" for one in models.values()),
        *(
            f"| {in_a_line(task)}, {side} | `{sha}` |"
            for task, sides in found["data"].items()
            for side, sha in sides.items()
        ),
        *("", ", ".join(f"{name} {value}" for name, value in about["versions"].items()) + "."),
    ]
    return "\n".join(lines) + "\n"


def _name(given: str) -> str:
    """What a card calls a model: a folder by its last name, as the way to it is nobody else's business."""
    return Path(given).resolve().name if Path(given).exists() else given
