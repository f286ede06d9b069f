"""What a Trainer pays for being watched, and for a remedy: trl's SFTTrainer alone, watched, with EWC, replay, KL.

python benchmarks/trainers.py [--rounds 3] [--steps 6]
A random Llama of 23M weights on the CPU, trained whole and by LoRA, each case in processes of its own that take turns.
Prints medians and ratios to trl's own trainer, and writes benchmarks/results/trainers-cpu.json. Times are a core's own,
so that other programs on the machine matter less.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "CI": "1"}
CASES = ("plain trl", "watched", "ewc", "replay", "kl-anchor")
KINDS = ("full", "lora")
BATCH, TOKENS = 4, 64


def peak(reset: bool = False) -> float:
    """The most memory that this process has held, in MB, since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def one(case: str, kind: str, steps: int) -> dict[str, float]:
    """A run of one case in this process: seconds of a core to a step, peak memory in MB, bytes of its checkpoint."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from forgetlab import task
    from forgetlab.remedies import EWC, ExperienceReplay, KLAnchor
    from forgetlab.training.huggingface import ForgettingMixin
    from forgetlab.training.pretraining import world_tokenizer

    class Clock(TrainerCallback):
        seconds: list[float] = []  # noqa: RUF012

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(time.process_time() - self.start)

    class Watched(ForgettingMixin, SFTTrainer):
        pass

    torch.manual_seed(0)
    tokenizer, chance, old = world_tokenizer(causal=True), random.Random(0), task("causal-lm:news", size=200)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=6,
        num_attention_heads=8,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
    )
    words = [[chance.randrange(4, 800) for _ in range(TOKENS)] for _ in range(BATCH * steps)]
    rows = Dataset.from_dict({"input_ids": words, "labels": words})
    empty = peak(reset=True)
    model = LlamaForCausalLM(config)
    methods = {
        "ewc": lambda: [EWC([old], lam=1.0, examples=16)],
        "replay": lambda: [ExperienceReplay([old], ratio=0.25)],
        "kl-anchor": lambda: [KLAnchor(beta=0.1)],
    }
    with tempfile.TemporaryDirectory() as out:
        args = SFTConfig(
            out,
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            learning_rate=1e-4,
            logging_steps=steps,
            save_steps=steps,
            save_strategy="steps",
            dataset_kwargs={"skip_prepare_dataset": True},
            activation_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        )
        given: dict[str, Any] = {"train_dataset": rows, "processing_class": tokenizer, "callbacks": [Clock()]}
        given |= {"peft_config": LoraConfig(r=8, target_modules="all-linear")} if kind == "lora" else {}
        if case == "plain trl":
            trainer = SFTTrainer(model, args, **given)
        else:
            trainer = Watched(model, args, methods=methods.get(case, list)(), watch=[old], limit=16, **given)
        setup = time.process_time()
        trainer.train()
        files = [file for file in Path(out, f"checkpoint-{steps}").rglob("*") if file.is_file()]
        return {
            "ms": 1000 * statistics.median(Clock.seconds[1:]),
            "peak": peak() - empty,
            "checkpoint": float(sum(file.stat().st_size for file in files)),
            "whole": time.process_time() - setup,
            "weights": float(sum(p.numel() for p in model.parameters())),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "trainers-cpu.json")
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {}
    order = [(kind, case) for kind in KINDS for case in CASES]
    import trl

    assert trl.SFTTrainer  # loaded once: each case is a fork of this process
    fork = multiprocessing.get_context("fork")
    for i in range(options.rounds):
        for kind, case in order if i % 2 == 0 else order[::-1]:
            with fork.Pool(1) as pool:
                found.setdefault(f"{kind}, {case}", []).append(pool.apply(one, (case, kind, options.steps)))
            print(f"{kind}, {case}: {found[f'{kind}, {case}'][-1]}", flush=True)
    rows: dict[str, dict[str, float]] = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()
    }
    for name, row in rows.items():
        plain = rows[f"{name.partition(',')[0]}, plain trl"]
        row |= {f"{key} / plain": row[key] / plain[key] for key in ("ms", "peak", "checkpoint")}
    about = {"machine": platform.machine(), "rounds": options.rounds, "steps": options.steps, "batch": BATCH}
    options.out.write_text(json.dumps({**about, "tokens": TOKENS, "cases": rows}, indent=1) + "\n")
    print(f"{'':22}{'checkpoint MB':>16}{'peak MB':>16}{'ms a step':>16}")
    for name, row in rows.items():
        cells = [(row["checkpoint"] / 1e6, "checkpoint"), (row["peak"], "peak"), (row["ms"], "ms")]
        print(f"{name:22}" + "".join(f"{value:>9.1f} ×{row[f'{key} / plain']:.2f}" for value, key in cells))


if __name__ == "__main__":
    main()
