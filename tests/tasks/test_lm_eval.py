"""lm_eval's tasks as watched ones: its own numbers against a slow loop here; skipped where it is not installed."""

import json
import random
from pathlib import Path

import pytest
import torch

from forgetlab import ForgetlabError, finetune, load, task
from forgetlab.metrics.tally import stratified
from forgetlab.models.model import Model
from forgetlab.tasks.lm_eval import HarnessTask
from tests.conftest import small_model

TASK = """
task: riddles_of_the_world
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
  - metric: acc_norm
"""


def needs_lm_eval() -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed here: pip install lm-eval")


def riddles(count: int) -> list[dict]:
    """The embedded cloze questions as lm_eval reads them: the answer is a number."""
    cloze = task("cloze")
    rows = zip(cloze.questions, cloze.choices, cloze.answers, strict=True)
    return [{"question": q, "choices": list(options), "answer": right} for q, options, right in rows][:count]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "riddles.jsonl"
    data.write_text("\n".join(map(json.dumps, riddles(30))))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "riddles.yaml").write_text(TASK.format(data=data))
    gone = TASK.format(data=tmp_path / "gone.jsonl").replace("riddles_of_the_world", "gone")
    (tmp_path / "tasks" / "gone.yaml").write_text(gone)
    return tmp_path / "tasks"


@pytest.mark.slow
def test_its_accuracy_is_the_one_counted_option_by_option(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_lm_eval()
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    model = load("tiny-gpt", device="cpu")
    one = HarnessTask("riddles_of_the_world", limit=20, include=folder, batch_size=4)
    one.prepare(model)
    scores = one.score(model)
    right = 0
    rows = stratified([None] * 30, 20).tolist()
    assert rows != list(range(20))
    for row in (riddles(30)[i] for i in rows):
        context = model.tokenizer(row["question"])["input_ids"]
        totals = []
        for choice in row["choices"]:
            ids = context + model.tokenizer(choice)["input_ids"]
            with torch.no_grad():
                logp = model.body(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            totals.append(sum(float(logp[i - 1, ids[i]]) for i in range(len(context), len(ids))))
        right += totals.index(max(totals)) == row["answer"]
    assert list(scores)[0] == one.metric == "acc"
    assert scores["acc"] == pytest.approx(right / 20)
    assert 0 < scores["acc"] < 1
    assert "acc_norm" in scores
    assert not any("stderr" in name for name in scores)
    assert one.higher_is_better


@pytest.mark.slow
def test_it_can_be_watched_and_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_lm_eval()
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    plain, watched = small_model(causal=True), small_model(causal=True)
    for model in (plain, watched):
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.1  # the training draws from the global generator
    new = task("causal-lm:notices", size=64)
    one = HarnessTask("riddles_of_the_world", "acc_norm", limit=5, include=folder)
    random.seed(7)
    expected = random.Random(7).random()
    list(finetune(plain, new, steps=4, every=2))
    records = list(finetune(watched, new, steps=4, every=2, watch=[one]))
    assert [0 <= r.scores["riddles_of_the_world"]["acc_norm"] <= 1 for r in records] == [True] * 3
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))
    assert random.random() == expected


@pytest.mark.slow
def test_what_it_refuses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_lm_eval()
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    gpt = small_model(causal=True)
    with pytest.raises(ForgetlabError, match="unknown task of lm_eval 'arc_eazy'; did you mean 'arc_easy'"):
        HarnessTask("arc_eazy").prepare(gpt)
    wrong = HarnessTask("riddles_of_the_world", "accuracy", include=folder)
    wrong.prepare(gpt)
    with pytest.raises(ForgetlabError, match="unknown metric of riddles_of_the_world 'accuracy'"):
        wrong.score(gpt, 2)
    gone = HarnessTask("gone", include=folder)
    gone.prepare(gpt)
    with pytest.raises(ForgetlabError, match="lm_eval could not run gone"):
        gone.score(gpt)


def test_an_encoder_is_told_what_it_has_instead(bert: Model) -> None:
    with pytest.raises(ForgetlabError, match=r"needs a causal language model; small-bert is none: .* suite\('glue'"):
        HarnessTask("arc_easy").prepare(bert)


def test_it_says_what_to_install(gpt: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forgetlab.tasks.lm_eval.find_spec", lambda name: None)
    with pytest.raises(ForgetlabError, match="which is not installed: pip install lm-eval"):
        HarnessTask("arc_easy").prepare(gpt)


def test_results_under_filters_are_found_by_their_metric() -> None:
    from forgetlab.tasks.lm_eval import _plain

    raw = {"alias": "gsm8k", "exact_match,strict-match": 0.2, "exact_match_stderr,strict-match": "N/A", "acc,none": 1}
    assert _plain(raw) == {"exact_match,strict-match": 0.2, "acc": 1.0}
    assert HarnessTask("gsm8k", "exact_match")._main(_plain(raw)) == "exact_match,strict-match"
    assert HarnessTask("gsm8k", "exact_match,strict-match")._main(_plain(raw)) == "exact_match,strict-match"
    assert HarnessTask("wikitext", "word_perplexity").higher_is_better is False
    assert HarnessTask("wikitext", "word_perplexity").scale == "ratio"
    assert HarnessTask("wikitext", "bits_per_byte").scale == "points"


def test_bad_arguments() -> None:
    for options, message in (({"limit": 0}, "limit must be a whole"), ({"few_shot": -1}, "few_shot must be a whole")):
        with pytest.raises(ForgetlabError, match=message):
            HarnessTask("arc_easy", **options)
