"""Answers to one sentence, against the whole model's logits and against writing without a cache."""

import pytest
import torch

from forgetlab import ForgetlabError
from forgetlab.models import asking
from forgetlab.models.model import Model

SENTENCE = "Anna flew to paris ."


def everywhere(model: Model, ids: list[int]) -> torch.Tensor:
    """(L, vocabulary) probabilities by transformers' own forward."""
    with torch.no_grad():
        return model.body(input_ids=torch.tensor([ids])).logits[0].softmax(-1)


def test_each_word_is_hidden_in_its_turn(bert: Model) -> None:
    reading = asking.read(bert, SENTENCE)
    assert reading.words == ["Anna", "flew", "to", "paris", "."]
    assert reading.gaps == []
    for i, (word, guesses) in enumerate(asking.fills(bert, reading, top=3)):
        assert word == reading.words[i]
        ids = list(bert.tokenizer(SENTENCE)["input_ids"])
        ids[i + 1] = bert.tokenizer.mask_token_id  # after [CLS]
        best = everywhere(bert, ids)[i + 1].topk(3)
        assert [p for _, p in guesses] == pytest.approx(best.values.tolist(), rel=1e-4)
        assert [w for w, _ in guesses] == [bert.tokenizer.decode([i]) for i in best.indices]


def test_gaps_are_filled_all_at_once(bert: Model) -> None:
    reading = asking.read(bert, "[mask] flew to [MASK].")
    assert reading.gaps == [0, 3]
    first, second = (guesses[0][1] for _, guesses in asking.fills(bert, reading))
    chances = everywhere(bert, bert.tokenizer("[MASK] flew to [MASK] .")["input_ids"])
    assert [first, second] == pytest.approx([float(chances[1].max()), float(chances[4].max())], rel=1e-4)


def test_labels_of_a_word_and_of_a_text(bert: Model) -> None:
    bert.add_head("tags", ("A", "B", "C"), "token")
    bert.add_head("class", ("x", "y"), "sequence")
    reading = asking.read(bert, SENTENCE)
    with torch.no_grad():
        hidden = bert.backbone(input_ids=torch.tensor([reading.ids])).last_hidden_state[0]
        tags = bert.heads["tags"].linear(hidden).softmax(-1)[1:-1]
        whole = bert.heads["class"].linear(hidden.mean(0)).softmax(-1)
        found = asking.labels(bert, reading, "tags")
        (text,) = asking.labels(bert, reading, "class")
    assert len(found) == 5
    for row, chances in zip(found, tags, strict=True):
        assert [p for _, p in row] == sorted((p for _, p in row), reverse=True)
        assert dict(row) == pytest.approx(dict(zip("ABC", chances.tolist(), strict=True)), rel=1e-4)
    assert dict(text) == pytest.approx(dict(zip("xy", whole.tolist(), strict=True)), rel=1e-4)


def test_next_words_and_a_continuation(gpt: Model) -> None:
    found = asking.answer(gpt, "anna flew to [MASK] again", seed=3)  # it writes on from the gap
    assert found["words"] == ["anna", "flew", "to"]
    ids = [gpt.tokenizer.bos_token_id, *gpt.tokenizer("anna flew to")["input_ids"]]
    best = everywhere(gpt, ids)[-1].topk(5)
    assert [p for _, p in found["next"]] == pytest.approx(best.values.tolist(), rel=1e-4)
    generator, written = torch.Generator().manual_seed(3), []
    while len(written) < asking.WRITTEN:
        chosen = int(torch.multinomial(everywhere(gpt, ids + written)[-1], 1, generator=generator))
        if chosen == gpt.tokenizer.eos_token_id:
            break
        written.append(chosen)
    assert found["continuation"] == gpt.tokenizer.decode(written, skip_special_tokens=True).strip()
    assert found == asking.answer(gpt, "anna flew to", seed=3)
    assert found["continuation"] != asking.answer(gpt, "anna flew to", seed=4)["continuation"]


def test_a_causal_model_writes_from_nothing_and_after_a_long_text(gpt: Model) -> None:
    assert asking.answer(gpt, "[MASK]")["words"] == []
    found = asking.answer(gpt, "anna " * 190)
    assert len(found["words"]) == gpt.max_length - 1 - asking.WRITTEN
    assert "it read the first 39 words only" in found["notes"][0]


def test_unknown_words_and_long_texts_are_answered_with_a_note(bert: Model) -> None:
    found = asking.answer(bert, "Zebra loved the filmz , zebra !")
    assert found["words"][:2] == ["Zebra", "loved"]
    assert len(found["fills"]) == 7
    assert found["notes"] == ["not in small-bert's vocabulary: zebra, filmz (near: film), !"]
    found = asking.answer(bert, "anna " * 190)
    assert len(found["fills"]) == bert.max_length - 2
    assert found["notes"] == ["too long for small-bert: it read the first 62 words only"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the sentence is empty"),
        (" \n\t", "the sentence is empty"),
        ("a" * 10_000, "10,000 characters; up to 1,000"),
        ("anna [SEP] paris", r"\[SEP\] is a special mark of small-bert"),
    ],
)
def test_what_cannot_be_answered_is_said(bert: Model, text: str, message: str) -> None:
    with pytest.raises(ForgetlabError, match=message):
        asking.answer(bert, text)


@pytest.mark.parametrize("which", ["bert", "gpt"])
def test_a_diverged_model_has_no_answer(which: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(which)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(float("nan"))
    with pytest.raises(ForgetlabError, match="no longer finite"):
        asking.answer(model, SENTENCE)
