"""Data sets from the hub, served by a mirror on loopback in the hub's own formats."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from forgetlab import ForgetlabError, sources, suite, task_from
from forgetlab.experiments.recipes import Recipe, prepare
from forgetlab.models.model import Model
from forgetlab.tasks import Classification, MaskedLM, Tagging
from tests.conftest import small_model
from tests.hub.mirror import Mirror

datasets = pytest.importorskip("datasets", reason='needs `datasets`: pip install "forgetlab[hub]"')

SENTENCES = [f"the film number {i} is {'good' if i % 2 else 'bad'} ." for i in range(12)]


def parquet(path: Path, rows: dict[str, list[Any]], features: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(str(path))


def glue(folder: Path, *configs: str) -> Path:
    """A repository as nyu-mll/glue is: a folder of Parquet for each configuration, named in the README's head."""
    named = datasets.ClassLabel(names=["negative", "positive"])
    head = ["---", "configs:"]
    for config in configs:
        pair = config not in ("sst2", "cola")
        first = "sentence1" if pair else "sentence"
        for split in ("train", "validation", "test"):
            labels = [-1] * 4 if split == "test" else [i % 2 for i in range(12)]
            texts = SENTENCES[: len(labels)]
            rows = {first: texts, "label": labels, "idx": list(range(len(labels)))}
            features = {first: datasets.Value("string"), "label": named, "idx": datasets.Value("int32")}
            if pair:
                rows |= {"sentence2": [f"so {text}" for text in texts]}
                features |= {"sentence2": datasets.Value("string")}
            parquet(folder / config / f"{split}-00000-of-00001.parquet", rows, features)
        head += [f"- config_name: {config}", "  data_files:"]
        head += [f"  - split: {s}\n    path: {config}/{s}-*" for s in ("train", "validation", "test")]
    (folder / "README.md").write_text("\n".join([*head, "---", "# GLUE"]))
    return folder


def wikitext(folder: Path) -> Path:
    """A repository as Salesforce/wikitext is."""
    for split in ("train", "validation", "test"):
        rows = {"text": ["", " = Title = ", *SENTENCES]}
        path = folder / "wikitext-2-raw-v1" / f"{split}-00000-of-00001.parquet"
        parquet(path, rows, {"text": datasets.Value("string")})
    splits = "\n".join(f"  - split: {s}\n    path: wikitext-2-raw-v1/{s}-*" for s in ("train", "validation", "test"))
    head = f"---\nconfigs:\n- config_name: wikitext-2-raw-v1\n  data_files:\n{splits}\n---\n"
    (folder / "README.md").write_text(head)
    return folder


def test_a_glue_task_by_its_short_name(mirror: Mirror, tmp_path: Path) -> None:
    commit = mirror.add("nyu-mll/glue", glue(tmp_path / "repo", "sst2", "rte"), data=True)
    mirror.repos["datasets/nyu-mll/glue"].refs[sources.KNOWN["sst2"].revision] = commit
    found = sources.hub("sst2", split="validation")
    assert found.kind == "labelled"
    assert found.texts == tuple(SENTENCES)
    assert found.labels == ("negative", "positive") * 6
    few = sources.hub("sst2", limit=3)
    assert few.texts == (SENTENCES[0], SENTENCES[4], SENTENCES[8])
    assert "3 of 12 examples kept" in " ".join(few.notes)
    pairs = sources.hub("rte")
    assert pairs.kind == "pairs"
    assert pairs.pairs == tuple(f"so {text}" for text in SENTENCES)
    with pytest.raises(ForgetlabError, match="no examples found.*4 rows without a label left out"):
        sources.hub("sst2", split="test")
    train, test = sources.hub_sides("hub:sst2")
    assert len(train) == len(test) == 12  # its own validation side


def test_what_is_downloaded_serves_without_a_network(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.add("nyu-mll/glue", glue(tmp_path / "repo", "sst2"), data=True)
    first = sources.hub("nyu-mll/glue", "sst2")
    fetched = mirror.count(".parquet")
    assert sources.hub("nyu-mll/glue", "sst2") == sources.hub("nyu-mll/glue:sst2") == first
    assert mirror.count(".parquet") == fetched
    mirror.broken = True
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    assert sources.hub("nyu-mll/glue", "sst2").texts == first.texts


def test_lines_of_json_with_columns_of_any_name(mirror: Mirror, tmp_path: Path, bert: Model) -> None:
    folder = tmp_path / "repo"
    folder.mkdir()
    rows = [{"body": text, "kind": "ab"[i % 2], "score": i / 7} for i, text in enumerate(SENTENCES)]
    rows += [{"body": "", "kind": "a", "score": 1.0}, {"body": "long " * 30_000, "kind": "b", "score": 1.0}]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    mirror.add("someone/reviews", folder, data=True)
    found = sources.hub("someone/reviews", text="body", label="kind")
    assert found.labels is not None
    assert set(found.labels) == {"a", "b"}
    notes = " ".join(found.notes)
    assert "1 row with empty body or kind skipped" in notes
    assert "1 text longer than 100,000 characters cut" in notes
    assert max(map(len, found.texts)) <= 100_000
    train, test = sources.hub_sides("someone/reviews", text="body", label="kind", limit=12)
    assert train.texts
    assert test.texts
    assert not {*train.texts} & {*test.texts}  # it has one split: parted by a hash of each text
    with pytest.raises(ForgetlabError, match="unknown column 'bodi'; did you mean 'body'"):
        sources.hub("someone/reviews", text="bodi", label="kind")
    with pytest.raises(ForgetlabError, match="'score' holds real numbers, a regression"):
        sources.hub("someone/reviews", text="body", label="score")
    made = task_from("someone/reviews", bert, text="body", label="kind", limit=12)
    assert isinstance(made, Classification)
    assert made.name == "reviews"


def test_words_with_tags(mirror: Mirror, tmp_path: Path, bert: Model) -> None:
    tags = datasets.ClassLabel(names=["O", "B-PER", "I-PER"])
    features = {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(tags)}
    words = [["anna", "smith", "sings"], ["boris", "sleeps"], ["it", "rains", "."], ["carla", "reads"]]
    numbers = [[1, 2, 0], [1, 0], [0, 0, 0], [1]]  # the last one is spoilt
    for split in ("train", "validation"):
        parquet(tmp_path / "repo" / "data" / f"{split}-00000.parquet", {"tokens": words, "ner_tags": numbers}, features)
    commit = mirror.add("eriktks/conll2003", tmp_path / "repo", "refs/convert/parquet", data=True)
    mirror.repos["datasets/eriktks/conll2003"].refs["main"] = commit
    found = sources.hub("conll2003")
    assert found.kind == "tags"
    assert found.words == (("anna", "smith", "sings"), ("boris", "sleeps"), ("it", "rains", "."))
    assert found.tags == (("B-PER", "I-PER", "O"), ("B-PER", "O"), ("O", "O", "O"))
    assert "1 row without a tag for each word skipped" in found.notes
    assert isinstance(task_from("hub:conll2003", bert), Tagging)
    with pytest.raises(ForgetlabError, match="lists of words and one of tags; lists are: tokens, ner_tags"):
        sources.hub("eriktks/conll2003", label="pos", kind="tags")


def test_plain_text(mirror: Mirror, tmp_path: Path, bert: Model) -> None:
    commit = mirror.add("Salesforce/wikitext", wikitext(tmp_path / "repo"), data=True)
    mirror.repos["datasets/Salesforce/wikitext"].refs[sources.KNOWN["wikitext-2"].revision] = commit
    found = sources.hub("wikitext-2", split="test")
    assert found.kind == "text"
    assert found.texts == ("= Title =", *SENTENCES)
    assert isinstance(task_from("hub:wikitext-2", bert), MaskedLM)


def test_what_is_not_there_is_said_with_what_is(mirror: Mirror, tmp_path: Path) -> None:
    mirror.add("nyu-mll/glue", glue(tmp_path / "repo", "sst2", "rte"), data=True)
    mirror.add("someone/closed", glue(tmp_path / "closed", "sst2"), data=True, gated=True)
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')")
    mirror.add("someone/script", tmp_path / "script", data=True)
    for name, options, message in (
        ("sst3", {}, "unknown data set 'sst3'; did you mean 'sst2'"),
        ("nyu-mll/glue", {}, "several configurations: say which of"),
        ("nyu-mll/glue", {"config": "rtt"}, "unknown configuration of nyu-mll/glue 'rtt'; did you mean 'rte'"),
        ("nyu-mll/glue", {"config": "rte", "split": "dev"}, "unknown split of nyu-mll/glue 'dev'; known: \\w+"),
        ("nyu-mll/glue@v9", {"config": "rte"}, "unknown revision of nyu-mll/glue 'v9'"),
        ("someone/nothing", {}, "the hub has no dataset 'someone/nothing'"),
        ("someone/closed", {"config": "sst2"}, "gated"),
        ("someone/script", {}, "someone/script"),
        ("nyu-mll/glue", {"config": "rte", "limit": 0}, "limit must be a whole number above 0, got 0"),
    ):
        with pytest.raises(ForgetlabError, match=message):
            sources.hub(name, **options)
    assert not (tmp_path / "trace").exists()


CHATS = [
    {"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"number {i}"}]}
    for i in range(6)
]


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl.gz", "csv", "txt"])
def test_a_repository_in_any_format(suffix: str, mirror: Mirror, tmp_path: Path) -> None:
    folder = tmp_path / "repo"
    folder.mkdir()
    path = folder / f"train.{suffix}"
    if suffix == "parquet":
        datasets.Dataset.from_list(CHATS).to_parquet(str(path))
    elif suffix == "arrow":
        datasets.Dataset.from_list(CHATS).save_to_disk(str(tmp_path / "saved"))
        path.write_bytes((tmp_path / "saved" / "data-00000-of-00001.arrow").read_bytes())
    elif suffix == "csv":
        path.write_text("prompt,completion\n" + "\n".join(f"say {i},number {i}" for i in range(6)))
    elif suffix == "txt":
        path.write_text("\n".join(f"say {i}" for i in range(6)))
    else:
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, CHATS)).encode()))
    mirror.add("someone/chats", folder, data=True)
    found = sources.hub("someone/chats")
    assert found.kind == {"csv": "completions", "txt": "text"}.get(suffix, "chat")
    assert found.texts == tuple(f"say {i}" for i in range(6))
    if found.turns is not None:
        assert [turns[1].text for turns in found.turns] == [f"number {i}" for i in range(6)]
        assert found == sources.read(path)


def test_splits_of_other_names(mirror: Mirror, tmp_path: Path) -> None:
    for split in ("train_sft", "test_sft", "train_gen"):
        path = tmp_path / "repo" / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(CHATS[: 4 if split == "test_sft" else 6]).to_parquet(str(path))
    mirror.add("someone/ultra", tmp_path / "repo", data=True)
    with pytest.raises(ForgetlabError, match="unknown split of someone/ultra 'train'"):
        sources.hub_sides("someone/ultra")
    train, test = sources.hub_sides("someone/ultra", "train_sft")
    assert (len(train), len(test), test.kind) == (6, 4, "chat")
    gpt = small_model(causal=True)
    made = task_from("someone/ultra:split=train_sft", gpt)
    assert (made.size(), len(made.test), made.kind) == (6, 4, "causal-lm")
    (tmp_path / "a.csv").write_text("text,label\na,b\n")
    with pytest.raises(ForgetlabError, match=r"split=train is of a hub data set; .*a.csv is none"):
        task_from(f"{tmp_path / 'a.csv'}:split=train", gpt)


def test_half_a_file_is_not_kept(mirror: Mirror, tmp_path: Path) -> None:
    mirror.add("nyu-mll/glue", glue(tmp_path / "repo", "sst2"), data=True)
    mirror.faults["train-00000-of-00001.parquet"] = "cut"
    with pytest.raises(ForgetlabError, match="nyu-mll/glue"):
        sources.hub("nyu-mll/glue", "sst2")
    mirror.faults.clear()
    assert len(sources.hub("nyu-mll/glue", "sst2")) == 12


def test_without_network_and_cache_it_says_what_to_do(mirror: Mirror) -> None:
    mirror.broken = True
    with pytest.raises(ForgetlabError, match=r"could not be fetched .*hf download someone/data --repo-type dataset"):
        sources.hub("someone/data")


def test_a_recipe_and_a_suite_take_hub_data(mirror: Mirror, tmp_path: Path, bert: Model) -> None:
    names = ("cola", "sst2", "mrpc", "rte")
    commit = mirror.add("nyu-mll/glue", glue(tmp_path / "repo", *names), data=True)
    mirror.repos["datasets/nyu-mll/glue"].refs[sources.KNOWN["sst2"].revision] = commit
    made = suite("glue", bert, tasks=names)
    assert [task.name for task in made.tasks] == list(names)
    scores = made.evaluate(bert)
    assert {"matthews", "accuracy"} <= scores["cola"].keys()
    recipe = Recipe(new="hub:sst2", watch=("nyu-mll/glue:rte",), steps=2, batch_size=4, learn_steps=1, limit=8)
    bench = prepare(recipe)
    assert bench.new.name == "sst2"
    assert bench.watch[0].name == "glue-rte"
    assert [*bench.run(recipe)][-1].status == "done"


def test_the_lesson_with_distilbert_runs(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cell of lesson 11 that is switched off there, on a small model of the same name and family."""
    import nbformat
    import torch

    from forgetlab import finetune
    from forgetlab.remedies.replay import ExperienceReplay
    from tests.hub.test_models_from_hub import FAMILIES, write

    write(tmp_path / "model", *FAMILIES["distilbert"])
    mirror.add("distilbert/distilbert-base-uncased", tmp_path / "model")
    for name, commit in (
        ("nyu-mll/glue", mirror.add("nyu-mll/glue", glue(tmp_path / "glue", "sst2"), data=True)),
        ("Salesforce/wikitext", mirror.add("Salesforce/wikitext", wikitext(tmp_path / "wiki"), data=True)),
    ):
        short = "sst2" if "glue" in name else "wikitext-2"
        mirror.repos[f"datasets/{name}"].refs[sources.KNOWN[short].revision] = commit
    lesson = nbformat.read(Path(__file__).parents[2] / "notebooks" / "11_real_models_your_data.ipynb", 4)
    (cell,) = (c.source for c in lesson.cells if c.cell_type == "code" and "RUN_ON_GPU = bool(" in c.source)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    short = cell.replace('"steps": 200', '"steps": 2, "batch_size": 8')
    found = {"network": lambda: True, "gpu": lambda: "a card"}  # what the cell looks for
    exec(short, {"torch": torch, "finetune": finetune, "ExperienceReplay": ExperienceReplay, **found})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if "SST-2" in line] == [
        f"{name:<7} step   {step}" for name in ("none", "replay") for step in (0, 2)
    ]
