"""Where the models of a pair lie; a peft adapter is merged over its base, once, into a folder of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetlab.diff.models.stored import Stored, damage
from forgetlab.diff.order import ADAPTER
from forgetlab.errors import ForgetlabError
from forgetlab.models.loading import in_words, located
from forgetlab.models.model import quiet_transformers
from forgetlab.models.soundness import check_config, json_in
from forgetlab.sources.files import file_path


@dataclass(frozen=True)
class Folder:
    """A model on the disk. given: as the user writes it; place: its folder; origin: the same, or the adapter's."""

    given: str
    title: str
    place: Path
    origin: Path
    config: Any


def opened(given: str, before: Folder | None, spare: Path, notes: list[str]) -> Folder:
    """The folder of a model; an adapter is merged into `spare`. before: an adapter's base, unless it names its own.

    Raises ForgetlabError where there is no such model.
    """
    from transformers import AutoConfig

    own = file_path(given)
    if (own / ADAPTER).is_file():
        base = _base(own, given, before, notes)
        _merge(own, given, base, spare)
        place, origin, title = spare, own, own.absolute().name
    else:
        source, title, _ = located(given)
        place = origin = Path(source)
    with quiet_transformers(), damage(given), in_words(given):
        check_config(place, given)
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    return Folder(given, title, place, origin.resolve(), config)


def _base(own: Path, given: str, before: Folder | None, notes: list[str]) -> Path:
    """The folder that an adapter stands on: the one that its config names, where that is at hand, else BEFORE's."""
    named = str(json_in(own / ADAPTER, given).get("base_model_name_or_path") or "")
    found: Path | None = None
    if named and (before is None or named not in (before.given, str(before.place))):
        try:
            found = Path(located(named)[0])
        except ForgetlabError:
            if before is None:
                raise
    if before is None:
        if found is None:
            raise ForgetlabError(f"{given} is an adapter that does not name its base: give a whole model as BEFORE")
        return found
    if found is None:
        if named and named not in (before.given, str(before.place)):
            notes.append(f"{given}: its base {named} is not at hand; it is merged over BEFORE")
        return before.place
    if found.resolve() != before.place.resolve():
        notes.append(f"{given} is an adapter on {named}, which is not BEFORE: it is merged over that")
    return found


def _merge(own: Path, given: str, base: Path, spare: Path) -> None:
    """Write base + adapter as a transformers folder, merged by peft itself."""
    try:
        from peft import PeftConfig, PeftModel
    except ImportError:
        raise ForgetlabError(f"{given} is a peft adapter, and peft is not installed: pip install peft") from None
    import transformers

    kinds = {"SEQ_CLS": "SequenceClassification", "TOKEN_CLS": "TokenClassification", "CAUSAL_LM": "CausalLM"}
    with quiet_transformers(), damage(given), in_words(given):
        settings = PeftConfig.from_pretrained(str(own))
        task = str(getattr(settings.task_type, "value", settings.task_type) or "")
        config = transformers.AutoConfig.from_pretrained(base, trust_remote_code=False)
        options: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}
        if "CLS" in task and (count := _classes(own)):
            options["num_labels"] = count
        architecture = (config.architectures or [""])[0]
        made = f"AutoModelFor{kinds[task]}" if task in kinds else ""
        if not made or not hasattr(transformers, made):
            model = getattr(transformers, architecture, transformers.AutoModel).from_pretrained(base, **options)
        else:
            model = getattr(transformers, made).from_pretrained(base, **options)
        try:
            merged = PeftModel.from_pretrained(model, str(own)).merge_and_unload()
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1].strip()[:200]
            raise ForgetlabError(f"{given}: this adapter does not fit its base {base.name}: {reason}") from None
        merged.save_pretrained(spare)


def _classes(own: Path) -> int | None:
    """How many classes the classifier has that was trained and saved with an adapter."""
    shapes = Stored(own, str(own)).shapes
    ends = ("classifier.weight", "score.weight", "out_proj.weight")
    return next((shape[0] for name, shape in shapes.items() if name.endswith(ends)), None)
