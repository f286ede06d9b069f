"""Conversations as tokens: the answers' tokens are those of trl's own preparation, template by template."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetlab import ForgetlabError, finetune, task_from
from forgetlab.importance import fisher_diagonal
from forgetlab.models.model import Model
from forgetlab.remedies import EWC, ExperienceReplay, KLAnchor
from forgetlab.remedies.replay import GenerativeReplay
from forgetlab.sources import Examples, read
from forgetlab.sources.messages import Turn
from forgetlab.tasks import CausalLM
from forgetlab.tasks.answers import Preferences
from forgetlab.tasks.chat import Refused, layout, tokens_of
from forgetlab.tasks.encoding import encode
from forgetlab.tasks.rehearsal import answered_anew

WORDS = "hello there how are you this fine day go on well then two and four be short say it again"
MARKS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<think>", "</think>")
CHATML = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
MARKED = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' }}{%- if m.role == 'assistant' %}"
    "{%- generation %}{{- m.content + '<|im_end|>\n' }}{%- endgeneration %}"
    "{%- else %}{{- m.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def bot(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


CHATS = [
    [system("be short"), user("hello there"), bot("fine day"), user("go on"), bot("well then")],
    [user("how are you"), bot("fine")],
    [user("say it again"), bot("it"), user("and again")],
]


def llama(template: str | None = CHATML, positions: int = 128, seed: int = 0) -> Model:
    """A random Llama whose tokenizer has this chat template."""
    import transformers as hf
    from tokenizers import ByteLevelBPETokenizer

    inner = ByteLevelBPETokenizer()
    inner.train_from_iterator([WORDS], vocab_size=320, special_tokens=list(MARKS), show_progress=False)
    marks = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    own = hf.PreTrainedTokenizerFast(tokenizer_object=inner._tokenizer, **marks)
    own.chat_template = template
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = hf.LlamaConfig(vocab_size=len(own), max_position_embeddings=positions, initializer_range=0.3, **shape)
        return Model(hf.LlamaForCausalLM(config).eval(), own, "llama")


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def chat(*conversations: list[dict[str, Any]]) -> Examples:
    turns = tuple(tuple(Turn(m["role"], m["content"], m["role"] == "assistant") for m in c) for c in conversations)
    return Examples("chat", tuple(c[0].text for c in turns), turns=turns)


def shown(model: Model, ids: list[int], scored: list[int]) -> str:
    """The tokens that count, as text, with a bar where others stand between them."""
    words, own = [""], model.tokenizer
    for token, one in zip(ids, scored, strict=True):
        if one:
            words[-1] += own.convert_ids_to_tokens(token).replace("Ġ", " ").replace("Ċ", "\n")
        elif words[-1]:
            words.append("")
    return "|".join(filter(None, words))


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_answers_with_their_ends_are_scored_and_nothing_else(template: str) -> None:
    model = llama(template)
    encoded = encode(chat(*CHATS), model.tokenizer, 128, begin=True)
    ids, scored = encoded.columns["input_ids"].tolist(), encoded.columns["scored"].tolist()
    expected = ["fine day<|im_end|>\n|well then<|im_end|>\n", "fine<|im_end|>\n", "it<|im_end|>\n"]
    assert [shown(model, *row) for row in zip(ids, scored, strict=True)] == expected
    whole = model.tokenizer.apply_chat_template(CHATS[0], tokenize=False)
    assert model.tokenizer.decode(ids[0][: encoded.lengths[0]]) == whole
    assert "scored" not in encode(Examples("text", ("fine",)), model.tokenizer, 128, begin=True).columns


def test_without_a_template_turns_have_their_names() -> None:
    model = llama(None)
    ids, scored = tokens_of(chat(CHATS[0]).turns[0], model.tokenizer, [0], [1])
    text = "<s>System: be short\n\nUser: hello there\n\nAssistant: fine day\n\nUser: go on\n\nAssistant: well then</s>"
    assert model.tokenizer.decode(ids) == text
    assert shown(model, ids, scored) == " fine day|well then</s>"
    assert sum(tokens_of(chat(CHATS[2]).turns[0], model.tokenizer, [0], [1])[1][-2:]) == 0  # the user has the last word
    assert "has no chat template" in layout("chat", model.tokenizer)


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_only_what_is_to_be_learned_counts_in_the_prompt(template: str) -> None:
    """A conversation as the prompt, with an answer to learn at its end; OpenAI's weight 0 says the same."""
    model = llama(template)
    turns = chat(CHATS[0]).turns[0]
    first_unlearned = [turn._replace(scored=turn.scored and turn.text != "fine day") for turn in turns]
    ids, scored = tokens_of(first_unlearned, model.tokenizer, [], [])
    assert shown(model, ids, scored) == "well then<|im_end|>\n"


# --- against trl ---


def trl_labels(model: Model, rows: list[dict[str, Any]], tmp_path: Path, **options: Any) -> list[list[int]]:
    """The labels of SFTTrainer's collator, without padding."""
    datasets = pytest.importorskip("datasets", reason="trl's trainers take its data sets")
    trl = pytest.importorskip("trl", reason="the masks are compared with trl's own: pip install trl")
    rows = [trl.maybe_convert_to_chatml(copy.deepcopy(row)) for row in rows]
    config = trl.SFTConfig(str(tmp_path / "trl"), report_to=[], use_cpu=True, bf16=False, **options)
    data = datasets.Dataset.from_list(rows)
    trainer = trl.SFTTrainer(model.body, config, train_dataset=data, processing_class=model.tokenizer)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(trainer.train_dataset))])
    mask = batch["attention_mask"].bool()
    return [row[own].tolist() for row, own in zip(batch["labels"], mask, strict=True)]


def labels(model: Model, path: Path, **options: Any) -> list[list[int]]:
    """The same of ours: the id where a token counts, else −100."""
    examples = read(path, **options)
    encoded = encode(examples, model.tokenizer, model.max_length, begin=True, end=model.end_mark)
    ids, scored = encoded.columns["input_ids"], encoded.columns["scored"].bool()
    found = ids.masked_fill(~scored, -100)
    return [row[:length].tolist() for row, length in zip(found, encoded.lengths.tolist(), strict=True)]


STRINGS = [("how are you?", " fine day"), ("two and two:", " four"), ("say it: ", "again"), ("go on\n", "well, then")]
ROWS: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any]]] = {
    "messages": (MARKED, [{"messages": one} for one in CHATS], {"assistant_only_loss": True}),
    "ShareGPT": (
        MARKED,
        [{"conversations": [{"from": m["role"], "value": m["content"]} for m in one]} for one in CHATS],
        {"assistant_only_loss": True},
    ),
    "prompt and completion, messages": (CHATML, [{"prompt": c[:-1], "completion": c[-1:]} for c in CHATS[:2]], {}),
    "the same with marks": (
        MARKED,
        [{"prompt": c[:-1], "completion": c[-1:]} for c in CHATS[:2]],
        {"assistant_only_loss": True},
    ),
    "prompt and completion, strings": (CHATML, [{"prompt": p, "completion": c} for p, c in STRINGS], {}),
    "cut": (MARKED, [{"messages": one} for one in CHATS[:2]], {"assistant_only_loss": True, "max_length": 50}),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", ROWS)
def test_masked_tokens_are_those_of_trl(form: str, tmp_path: Path) -> None:
    template, rows, options = ROWS[form]
    model = llama(template, positions=options.get("max_length", 128))
    model.config.end_mark = True  # trl closes strings with the end token
    found = labels(model, write(tmp_path / "rows.jsonl", rows))
    expected = trl_labels(model, rows, tmp_path, **{"max_length": 128, **options})
    if form == "prompt and completion, strings":  # trl lets the tokenizer add its begin token, and this one adds none
        found = [row[1:] for row in found]
    assert found == expected
    assert all(any(label != -100 for label in row) for row in found)


@pytest.mark.slow
def test_answers_are_found_without_marks_in_the_templates_that_trl_has_marked() -> None:
    """trl keeps templates of many models as they are, and with marks: theirs are what the difference finds.

    Some of its marks begin within the header that asks for an answer; the end is the same.
    """
    trl = pytest.importorskip("trl", reason="its templates are what is compared: pip install trl")
    folder = Path(trl.__file__).parent / "chat_templates"
    own, messages = llama().tokenizer, CHATS[0][1:]
    alike, wider = [], []
    for marked in sorted(folder.glob("*_training.jinja")):
        name = marked.stem.removesuffix("_training")
        if name in ("gptoss", "llava_next") or not (folder / f"{name}.jinja").is_file():
            continue  # another mark ends its last turn; its messages are lists of parts
        options = {"return_dict": True, "return_assistant_tokens_mask": True}
        theirs = own.apply_chat_template(messages, chat_template=marked.read_text(), **options)
        own.chat_template = (folder / f"{name}.jinja").read_text()
        ids, scored = tokens_of(chat(messages).turns[0], own, [], [])
        if ids != theirs["input_ids"]:
            continue  # trl says something else there
        if scored == theirs["assistant_masks"]:
            alike.append(name)
            continue
        wider.append(name)
        spans, others = shown_spans(scored), shown_spans(theirs["assistant_masks"])
        assert [end for _, end in spans] == [end for _, end in others]
        assert all(start > other for (start, _), (other, _) in zip(spans, others, strict=True))
    assert {"llama3", "gemma3", "phi3", "cohere", "lfm2", "qwen3_instruct_2507", "qwen3_vl"} <= {*alike}
    assert len(alike) > len(wider)


def shown_spans(scored: list[int]) -> list[tuple[int, int]]:
    """Where runs of ones begin and end."""
    edges = [i for i, (a, b) in enumerate(zip([0, *scored], [*scored, 0], strict=True)) if a != b]
    return [*zip(edges[::2], edges[1::2], strict=True)]


# --- templates that are not simple ---

THINKING = CHATML.replace(
    "+ m.content", "+ ('<think></think>' if loop.last and m.role == 'assistant' else '') + m.content"
)
ENDED = CHATML + "{%- if not add_generation_prompt %}{{- '</s>' }}{%- endif %}"
STRICT = "{%- if messages[0].role == 'system' %}{{- raise_exception('no system turns here') }}{%- endif %}" + CHATML


def test_what_a_template_says_in_the_last_turn_only_is_left_aside_before() -> None:
    for template, last in ((THINKING, "<think></think>well then<|im_end|>\n"), (ENDED, "well then<|im_end|>\n</s>")):
        model = llama(template)
        found = shown(model, *tokens_of(chat(CHATS[0]).turns[0], model.tokenizer, [], []))
        assert found == f"fine day<|im_end|>\n|{last}"


def test_a_template_that_refuses_or_rewrites_is_quoted(tmp_path: Path) -> None:
    model = llama(STRICT)
    with pytest.raises(Refused, match="its chat template says 'no system turns here'"):
        tokens_of(chat(CHATS[0]).turns[0], model.tokenizer, [], [])
    rewriting = llama(
        "{{ messages | length }}{% for m in messages %}{{ m.content[: 3 - messages | length] }}{% endfor %}"
    )
    with pytest.raises(Refused, match="changes earlier answers"):
        tokens_of(chat(CHATS[0]).turns[0], rewriting.tokenizer, [], [])
    rows = [{"messages": [system("be short")] * (i % 2) + [user(f"go on {i}"), bot("well")]} for i in range(12)]
    task = task_from(write(tmp_path / "mine.jsonl", rows), model)
    notes = [note for side in (task.train, task.test) if side for note in side.notes]
    assert task.size() + len(task.test) == 6
    assert all(
        "left out on llama" in note and "its chat template says 'no system turns here'" in note for note in notes
    )
    assert sum(int(note.split()[0]) for note in notes) == 6
    with pytest.raises(ForgetlabError, match="all: .* of .* examples left out on llama: .*no system turns here"):
        task_from(write(tmp_path / "all.jsonl", rows[1::2]), model)


# --- as a task ---


def test_perplexity_and_loss_are_of_the_answers_tokens() -> None:
    """Against transformers' own forward pass, one token at a time."""
    model = llama()
    one = CausalLM("mine", chat(*CHATS), chat(*CHATS))
    nats = []
    for turns in chat(*CHATS).turns or ():
        ids, scored = tokens_of(turns, model.tokenizer, [], [])
        for place in (i for i, counts in enumerate(scored) if counts):
            with torch.no_grad():
                logits = model.body(input_ids=torch.tensor([ids[:place]])).logits[0, -1]
            nats.append(-float(logits.double().log_softmax(-1)[ids[place]]))
    scores, tally = one.scored(model)
    assert scores["perplexity"] == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-5)
    assert "end" not in scores  # the template has an end of its own
    assert tally is not None
    assert tally.items[:, 1].sum() == len(nats)
    batch = one.batch(model, torch.arange(3), torch.Generator())
    assert float(one.loss(model, batch)) == pytest.approx(sum(nats) / len(nats), rel=1e-5)
    says = "mine: turns are laid out by the chat template, answers told by what it adds to the turns before them; only "
    assert one.remarks(model, "train", "test") == [
        f"{says}the answers count, {len(nats)} of 157 train and {len(nats)} of 157 test tokens"
    ]


def test_an_answer_that_is_cut_off_is_left_out_and_counted(tmp_path: Path) -> None:
    model = llama(positions=40)
    rows = [[user(f"how are you {i}"), bot("fine day")] for i in range(9)]
    rows += [[user(f"{WORDS} {i}"), bot("fine day")] for i in range(3)]
    task = task_from(write(tmp_path / "mine.jsonl", [{"messages": row} for row in rows]), model, test=None)
    notes = [note for side in (task.train, task.test) if side for note in side.notes]
    assert task.size() + len(task.test) == 9
    assert sum(int(note.split(" ")[0]) for note in notes) == 3
    assert all("examples left out on llama" in n and "the answer begins after 40 tokens" in n for n in notes)
    alone = CausalLM("alone", chat(rows[-1]), chat(rows[0], rows[-1]))  # made by hand, nothing is left out
    assert float(alone.loss(model, alone.batch(model, torch.tensor([0]), torch.Generator()))) != float("nan")
    assert "1 of 2 test examples have no answer" in " ".join(alone.remarks(model, "test"))
    assert math.isfinite(alone.score(model)["perplexity"])


def test_chats_train_with_every_kind_of_remedy() -> None:
    model = llama()
    old, new = CausalLM("old", chat(CHATS[0]), chat(CHATS[0])), CausalLM("new", chat(*CHATS[1:]), chat(*CHATS[1:]))
    methods = [EWC([old], lam=1, examples=2), ExperienceReplay([old], ratio=0.5), KLAnchor(0.1)]
    [first, last] = finetune(model, new, methods=methods, watch=[old], steps=2, batch_size=2, every=2)
    assert last.penalty["kl-anchor"] > 0
    assert first.scores["old"] != last.scores["old"]
    model.restore()
    dreams = GenerativeReplay([old], ratio=0.5, size=8, max_tokens=12, temperature=1.0)
    [*_, last] = finetune(model, new, methods=[dreams], steps=2, batch_size=2)
    assert last.status == "done"
    model.restore()
    only = fisher_diagonal(model, old, examples=1, estimator="empirical", method="loop")
    batch = old.batch(model, torch.tensor([0]), torch.Generator())
    model.zero_grad()
    (old.loss(model, batch) * len(batch["targets"])).backward()
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            assert torch.allclose(only[name], weight.grad.square(), rtol=1e-4, atol=1e-8)
    model.zero_grad()
    [*_, last] = finetune(model, new, steps=60, batch_size=2, lr=1e-2)
    assert last.scores["new"]["perplexity"] < 2  # learned by heart


def test_generative_replay_answers_the_prompts_anew() -> None:
    """What a model knows by heart it answers as in the data, to the mark that ends an answer there, and no further."""
    model = llama()
    rows = [[user(f"say {word}"), bot(word), user("again"), bot("no")] for word in ("fine day", "well", "two and two")]
    old = CausalLM("old", chat(*rows), chat(*rows))
    list(finetune(model, old, steps=80, batch_size=3, lr=1e-2))
    relived = answered_anew(old, model, 2, torch.Generator().manual_seed(0), 0.1, 20)
    encoded = relived.encoded(model, "train")
    assert relived.size() == len(encoded) == 2
    assert relived.train is not None
    for row, turns in enumerate(relived.train.turns or ()):
        ids, scored = (encoded.columns[name][row, : encoded.lengths[row]].tolist() for name in ("input_ids", "scored"))
        assert shown(model, ids, scored) == f"{turns[1].text}<|im_end|>"
        asked = model.tokenizer.apply_chat_template([user(turns[0].text)], tokenize=False, add_generation_prompt=True)
        assert model.tokenizer.decode(ids[: scored.index(1)]) == asked
    batch = relived.batch(model, torch.tensor([0, 1]), torch.Generator())
    assert int(batch["scored"].sum()) == len(batch["targets"])
    model.restore()
    again = answered_anew(old, model, 9, torch.Generator().manual_seed(0), 1.0, 5)  # a random model, cut off
    assert len(again.encoded(model, "train")) == 3
    assert int(again.encoded(model, "train").columns["scored"].sum()) == 15
    with pytest.raises(ForgetlabError, match="nothing to replay: watched given"):
        GenerativeReplay([CausalLM("watched", None, chat(*rows))])


def test_preferences_ask_which_answer_is_likelier(tmp_path: Path) -> None:
    model = llama()
    sides = [("fine day", "go on well"), ("well then", "two"), ("it", "again and again")]
    rows = [
        {"prompt": [user(f"say {i}")], "chosen": [bot(good)], "rejected": [bot(bad)]}
        for i, (good, bad) in enumerate(sides * 4)
    ]
    path = write(tmp_path / "mine.jsonl", rows)
    probe = task_from(path, model, kind="preferences")
    assert isinstance(probe, Preferences)

    def likelihoods(side: str) -> list[tuple[float, int]]:
        found = []
        for row in rows:
            one = CausalLM("one", None, chat([*row["prompt"], *row[side]]))
            scores, tally = one.scored(model)
            assert tally is not None
            found.append((-scores["loss"] * float(tally.items[0, 1]), int(tally.items[0, 1])))
        return found

    chosen, rejected = likelihoods("chosen"), likelihoods("rejected")
    sums = [a > b for (a, _), (b, _) in zip(chosen, rejected, strict=True)]
    means = [a / m > b / n for (a, m), (b, n) in zip(chosen, rejected, strict=True)]
    scores = probe.score(model)
    assert scores == pytest.approx({"accuracy": sum(sums) / 12, "per_token": sum(means) / 12})
    assert 0 < scores["accuracy"] < 1
    learned = task_from(path, model)
    assert type(learned) is CausalLM
    assert learned.train is not None
    assert "the rejected one not read: kind=preferences compares them" in learned.train.notes[-1]
    with pytest.raises(ForgetlabError, match="mine has no preferences; expected rows such as"):
        task_from(write(path, [{"prompt": "a", "completion": "b"}] * 5), model, kind="preferences")


def test_completions_are_one_text_as_in_trl_and_words_are_not_glued() -> None:
    model = llama()
    prompts, answers = ("go on", "say it: ", "go on "), (" well", "again", "")
    examples = Examples("completions", prompts[:2], answers[:2])
    encoded = encode(examples, model.tokenizer, 64, begin=True)
    texts = [
        shown(model, *row)
        for row in zip(encoded.columns["input_ids"].tolist(), encoded.columns["scored"].tolist(), strict=True)
    ]
    assert texts == [" well", " again"]  # the space before "again" is within its token
    glued = encode(Examples("completions", ("go on",), ("well",)), model.tokenizer, 64, begin=True)
    own = model.tokenizer
    assert glued.columns["input_ids"].tolist() == [
        [own.bos_token_id, *own("go on")["input_ids"], *own("well")["input_ids"]]
    ]


def test_an_encoder_is_told_what_chats_need(bert: Model, tmp_path: Path) -> None:
    with pytest.raises(ForgetlabError, match="mine has prompts and answers, which need a causal language model"):
        task_from(write(tmp_path / "mine.jsonl", [{"messages": [user(f"say {i}"), bot("it")]} for i in range(6)]), bert)
