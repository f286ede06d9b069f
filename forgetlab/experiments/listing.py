"""What the command line lists: models, tasks and methods by their names."""

from __future__ import annotations


def models() -> None:
    """The shipped models."""
    import json

    from forgetlab.sources.model_names import shipped_models
    from forgetlab.sources.shipped import data_folder

    for name in shipped_models():
        config = json.loads((data_folder() / "models" / name / "config.json").read_text(encoding="utf-8"))
        print(f"{name:<12}{config['architectures'][0]:<18}{data_folder() / 'models' / name}")
    print("any transformers folder or hub id works as well")


def tasks() -> None:
    """The embedded tasks and the other sources of data."""
    from forgetlab.tasks.descriptions import DESCRIPTIONS
    from forgetlab.tasks.source_names import MACHINE_TEXT

    for name, text in DESCRIPTIONS.items():
        print(f"{name:<16}{text}")
    print(f"{', '.join(MACHINE_TEXT)}: real text of this machine")
    print("any CSV, TSV, JSONL, Parquet, CoNLL or plain-text file works as well")


def methods() -> None:
    """The remedies, what their strength is and what else can be set."""
    import inspect

    from forgetlab.remedies.by_name import METHODS, settings

    for name, remedy in METHODS.items():
        takes = settings(name)
        usual = ""
        if main := remedy.main:
            value = takes.pop(main.name)
            usual = f"usual {main.name}={f'by the width of the model, {main.usual} here' if value is None else value}"
        shown = ", ".join(f"{key}={value}" for key, value in takes.items())
        text = "plain fine-tuning" if name == "none" else (inspect.getdoc(remedy) or "").splitlines()[0]
        print(f"{name:<20}{text}")
        if name != "none":
            print(f"{'':<20}{'; '.join(filter(None, (remedy.family, usual, shown)))}")
    print("strength=1 of a pull on the weights: λ = 0.02 / mean Ω, of its importance Ω; with lam=… it is that λ")
    print("several at once: replay:ratio=0.3+ewc:lam=100; in a list, methods and settings are parted by commas")
