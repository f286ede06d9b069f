"""Losses and scores against slow loops over single texts, and what tasks say about odd data."""

import copy
import gc
import math
import pickle
import random
from collections import Counter

import pytest
import torch

from forgetlab import ForgetlabError, load, suite, task
from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.tasks import CausalLM, Classification, MaskedLM, Tagging
from forgetlab.tasks.encoding import encode
from forgetlab.tasks.from_data import task_from
from forgetlab.tasks.probes import log_probabilities
from forgetlab.tasks.writing import write
from tests.conftest import small_model


def texts(*items: str) -> Examples:
    return Examples(kind="text", texts=items)


def labelled(items: list[str], labels: list[str]) -> Examples:
    return Examples(kind="labelled", texts=tuple(items), labels=tuple(labels))


@pytest.mark.parametrize("name", ["sentiment", "register", "entailment"])
def test_accuracy_text_by_text(bert: Model, name: str) -> None:
    one = task(name)
    one.prepare(bert)
    right = loss = 0.0
    n = 40
    for i in one.sample(n).tolist():
        pair = one.test.pairs[i] if one.test.pairs else None
        batch = bert.tokenizer(one.test.texts[i], pair, return_tensors="pt")
        with torch.no_grad():
            logits = bert.logits(batch, one.head)[0]
        target = one.labels.index(one.test.labels[i])
        right += int(logits.argmax()) == target
        loss -= float(logits.log_softmax(-1)[target])
    score = one.score(bert, n)
    assert score["accuracy"] == pytest.approx(right / n)
    assert score["loss"] == pytest.approx(loss / n, rel=1e-4)


def test_what_was_encoded_goes_with_the_model() -> None:
    """Loading a model again and again must not fill the memory with encoded texts."""
    one = task("sentiment")
    for _ in range(3):
        model = load("tiny-bert", device="cpu")
        one.prepare(model)
        score = one.score(model, 16)
    gc.collect()
    assert (len(one._encoded), len(one._ready)) == (1, 1)
    for again in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
        assert again.score(model, 16) == score


def test_scoring_is_without_dropout_whatever_mode_a_part_is_in() -> None:
    model, one = small_model(), task("sentiment")
    one.prepare(model)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    model.eval()
    expected = one.score(model, 40)["loss"]
    model.body.train()  # as a Trainer leaves it, with the model around it in eval mode
    assert one.score(model, 40)["loss"] == expected
    assert model.body.training
    assert not model.training


def test_pairs_have_two_segments(bert: Model) -> None:
    one = task("entailment")
    types = one.encoded(bert, "test").columns["token_type_ids"][0].tolist()
    first = len(one.test.texts[0].split()) + 2
    assert types[:first] == [0] * first
    assert types[first] == 1


def test_causal_perplexity_token_by_token(gpt: Model) -> None:
    one = task("causal-lm")
    one.prepare(gpt)
    tokenizer, total, count = gpt.tokenizer, 0.0, 0
    for text in (one.test.texts[i] for i in one.sample(30)):
        ids = [tokenizer.bos_token_id, *tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logp = gpt.body(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        total -= sum(float(logp[i, ids[i + 1]]) for i in range(len(ids) - 1))
        count += len(ids) - 1
        assert len(ids) - 1 == len(text.split()) + 1
    assert one.score(gpt, 30)["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)


def test_masked_perplexity_gap_by_gap(bert: Model) -> None:
    one = task("masked-lm")
    one.prepare(bert)
    tokenizer, total = bert.tokenizer, 0.0
    for i in one.sample(30).tolist():
        words, gap = one.test.texts[i].split(), int(one._gaps[i])
        answer = tokenizer.convert_tokens_to_ids(words[gap])
        batch = tokenizer(" ".join([*words[:gap], "[MASK]", *words[gap + 1 :]]), return_tensors="pt")
        with torch.no_grad():
            total -= float(bert.body(**batch).logits[0, gap + 1].log_softmax(-1)[answer])
    assert one.score(bert, 30)["perplexity"] == pytest.approx(math.exp(total / 30), rel=1e-4)


def test_masks_for_training(bert: Model) -> None:
    one = task("masked-lm", size=400)
    generator = torch.Generator().manual_seed(0)
    batch = one.batch(bert, torch.arange(400), generator)
    original = one.encoded(bert, "train").take(torch.arange(400))["input_ids"]
    inner = original > 4  # words, no special token
    assert torch.equal(batch["targets"], original.flatten()[batch["places"]])
    assert inner.flatten()[batch["places"]].all()
    share = len(batch["places"]) / int(inner.sum())
    assert 0.14 < share < 0.19  # 15 %, and at least one in each text
    now = batch["input_ids"].flatten()[batch["places"]]
    masked = (now == bert.tokenizer.mask_token_id).float().mean()
    kept = (now == batch["targets"]).float().mean()
    assert 0.77 < masked < 0.83
    assert 0.07 < kept < 0.13
    untouched = torch.ones(original.numel(), dtype=torch.bool)
    untouched[batch["places"]] = False
    assert torch.equal(batch["input_ids"].flatten()[untouched], original.flatten()[untouched])
    other = one.batch(bert, torch.arange(400), generator)
    assert not torch.equal(batch["places"], other["places"])


def test_entities_tags_stand_at_first_tokens(bert: Model) -> None:
    """With a sub-word tokenizer: each word counts once, at its first piece."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = {p: i for i, p in enumerate(["[PAD]", "[UNK]", "an", "##na", "is", "in", "par", "##is"])}
    raw = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]")
    tagged = Examples(
        kind="tags",
        texts=(),
        words=(("anna", "is", "in", "paris"), ("in",)),
        tags=(("B-PER", "O", "O", "B-LOC"), ("O",)),
    )
    encoded = encode(tagged, tokenizer, 16)
    assert encoded.words.tolist() == [[0, -100, 1, 2, 3, -100], [0, -100, -100, -100, -100, -100]]
    bert.tokenizer = tokenizer
    one = Tagging("tags", tagged, tagged)
    one.prepare(bert)
    batch = one.batch(bert, torch.tensor([0, 1]), torch.Generator())
    assert [one.labels[t] for t in batch["targets"]] == ["B-PER", "O", "O", "B-LOC", "O"]
    assert batch["places"].tolist() == [0, 2, 3, 4, 6]
    assert set(one.score(bert)) == {"precision", "recall", "f1", "accuracy", "loss"}


def test_minimal_pairs_and_cloze_by_hand(gpt: Model, bert: Model) -> None:
    two = ["anna is in the park .", "paris is in the park .", "anna is in the zzxq ."]  # an unknown word counts too
    tokenizer = gpt.tokenizer
    for model in (gpt, bert):
        got = log_probabilities(model, two)
        for text, value in zip(two, got.tolist(), strict=True):
            tokenizer = model.tokenizer
            words = tokenizer(text, add_special_tokens=False)["input_ids"]
            total = 0.0
            with torch.no_grad():
                if model.causal:
                    ids = [tokenizer.bos_token_id, *words, tokenizer.eos_token_id]
                    logp = model.body(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
                    total = sum(float(logp[i, ids[i + 1]]) for i in range(len(ids) - 1))
                else:
                    for i in range(len(words)):
                        ids = torch.tensor([[tokenizer.cls_token_id, *words, tokenizer.sep_token_id]])
                        ids[0, i + 1] = tokenizer.mask_token_id
                        total += float(model.body(input_ids=ids).logits[0, i + 1].log_softmax(-1)[words[i]])
            assert value == pytest.approx(total, rel=1e-4)
    cloze = task("cloze")
    cloze.prepare(gpt)
    score = cloze.score(gpt, 60)
    assert score["chance"] == pytest.approx(sum(1 / len(cloze.choices[i]) for i in cloze.sample(60)) / 60)
    assert 0 <= score["accuracy"] <= 1


def test_writing_is_seeded_and_stops_at_the_end(gpt: Model) -> None:
    assert write(gpt, 4, seed=3) == write(gpt, 4, seed=3)
    assert write(gpt, 4, seed=3) != write(gpt, 4, seed=4)
    assert all(len(text.split()) <= 48 for text in write(gpt, 4, seed=3))


def test_scores_respect_the_limit_and_leave_the_mode(bert: Model) -> None:
    one = task("register")
    one.prepare(bert)
    bert.train()
    assert one.score(bert, 10) != one.score(bert)
    assert bert.training


def test_the_floor_is_a_floor() -> None:
    """No shipped model scores below the exact floor by more than sampling error."""
    from forgetlab import load

    for model_name, name in (("tiny-bert", "masked-lm"), ("tiny-gpt", "causal-lm")):
        model = load(model_name, device="cpu")
        one = task(name)
        one.prepare(model)
        assert one.floor is not None
        assert one.score(model)["perplexity"] > 0.98 * one.floor


def test_suite(bert: Model) -> None:
    task("entities").prepare(bert)
    embedded = suite("embedded", bert)
    before = embedded.evaluate(bert, 16)
    assert list(before) == ["masked-lm", "entities", "minimal-pairs", "k-shot"]
    with torch.no_grad():
        for p in bert.parameters():
            p.add_(0.05)
    after = embedded.evaluate(bert, 16)
    table = embedded.table(before, after)
    ratio = after["masked-lm"]["perplexity"] / before["masked-lm"]["perplexity"]
    assert f"×{ratio:.2f}" in table
    assert all(name in table for name in before)


def test_texts_that_are_too_long_are_cut_and_counted(bert: Model) -> None:
    long = " ".join(["anna"] * 200)
    one = Classification("mine", labelled([long, "anna .", "boris ."], ["a", "b", "a"]), labelled(["anna ."], ["a"]))
    assert one.remarks(bert, "train") == ["mine: 1 of 3 train texts are longer than 64 tokens and were cut"]
    ids = one.encoded(bert, "train").columns["input_ids"]
    assert ids.shape[1] == 64
    assert ids[0, -1] == bert.tokenizer.sep_token_id
    gpt = small_model(causal=True)
    lm = CausalLM("mine", texts(long), texts("anna ."))
    lm.prepare(gpt)
    assert lm.encoded(gpt, "train").columns["input_ids"].shape[1] == 64
    tagged = Examples(kind="tags", texts=(), words=(("anna",) * 200,), tags=(("B-PER",) * 199 + ("O",),))
    tags = Tagging("tags", tagged, tagged)
    tags.prepare(bert)
    assert len(tags.batch(bert, torch.tensor([0]), torch.Generator())["targets"]) == 62


def test_unknown_words_are_counted(bert: Model) -> None:
    one = MaskedLM("mine", texts("zebras juggle anna ."), texts("zebras juggle anna ."))
    assert one.remarks(bert, "train")[0] == "mine: 33% of the train words are unknown to small-bert"


def test_labels_that_cannot_work() -> None:
    with pytest.raises(ForgetlabError, match="every label is 'a'; classification needs two classes"):
        Classification("mine", labelled(["x", "y"], ["a", "a"]), labelled(["x"], ["a"]))
    with pytest.raises(ForgetlabError, match="the test labels 'c' are not in the training data"):
        Classification("mine", labelled(["x", "y"], ["a", "b"]), labelled(["x"], ["c"]))
    plain = Examples(kind="tags", texts=(), words=(("x",),), tags=(("O",),))
    with pytest.raises(ForgetlabError, match="every tag is 'O'"):
        Tagging("mine", plain, plain)


def test_names() -> None:
    with pytest.raises(ForgetlabError, match="unknown task 'sentimant'; did you mean 'sentiment'"):
        task("sentimant")
    with pytest.raises(ForgetlabError, match="unknown register 'new'; did you mean 'news'"):
        task("causal-lm:new")
    with pytest.raises(ForgetlabError, match="only masked-lm and causal-lm take a register"):
        task("sentiment:news")
    with pytest.raises(ForgetlabError, match="similarity must be between 0 and 1"):
        task("sentiment", similarity=1.5)


def test_similarity_changes_the_words() -> None:
    from forgetlab.sources.world.corpus import grammar

    familiar = set(grammar(1.0).vocabulary())
    share = []
    for similarity in (1.0, 0.5, 0.0):
        words = [w for text in task("sentiment", similarity=similarity, size=200).train.texts for w in text.split()]
        share.append(sum(w not in familiar for w in words) / len(words))
    assert share[0] == 0 < share[1] < share[2]


def test_evaluation_order_does_not_matter(bert: Model) -> None:
    one = task("sentiment")
    one.prepare(bert)
    rows = list(range(len(one.test.texts)))
    random.Random(0).shuffle(rows)
    mixed = Classification(
        "sentiment", one.train, labelled([one.test.texts[i] for i in rows], [one.test.labels[i] for i in rows])
    )
    assert mixed.score(bert)["accuracy"] == one.score(bert)["accuracy"]


def test_labels_of_several_kinds_are_refused() -> None:
    rows = Examples("labelled", ("a", "b"), labels=("good", None))
    with pytest.raises(ForgetlabError, match=r"mine: labels of several kinds \(NoneType, str\); give all"):
        Classification("mine", rows, rows)


def test_a_tokenizer_with_one_mark_for_all_knows_every_word(gpt: Model) -> None:
    """As GPT-2's own: byte-level, and its unknown mark is the one that begins and ends texts."""
    gpt.tokenizer.unk_token = gpt.tokenizer.bos_token
    texts = Examples("text", ("anna is in the park .", "anna sings ."))
    assert not any("unknown" in note for note in CausalLM("mine", texts, texts).remarks(gpt, "test"))


# -- how many reviews are turned, and texts to choose on ---------------------------------------------------------


def _turns(text: str) -> bool:
    return any(f" {word} " in f" {text} " for word in ("not", "never", "far", "but", "although", "denied"))


@pytest.mark.parametrize("turned", [0.0, 0.25, 1.0])
def test_the_dial_is_the_share_of_turned_reviews(turned: float) -> None:
    one = task("sentiment", turned=turned)
    assert one.name == f"sentiment@turned={turned:g}"
    for side in (one.train, one.test):
        for label in ("positive", "negative"):
            texts = [text for text, own in zip(side.texts, side.labels, strict=True) if own == label]
            assert sum(map(_turns, texts)) == int(turned * len(texts))
    assert not {*one.train.texts} & {*one.test.texts}


def test_words_alone_decide_plain_reviews_and_no_turned_ones() -> None:
    """Every word votes with how often it stood in positive and in negative reviews (naive Bayes)."""

    def right(turned: float) -> float:
        one, seen = task("sentiment", turned=turned), {"positive": Counter(), "negative": Counter()}
        for text, label in zip(one.train.texts, one.train.labels, strict=True):
            seen[label].update(text.split())

        def vote(word: str) -> float:
            return math.log((seen["positive"][word] + 1) / (seen["negative"][word] + 1))

        said = ["positive" if sum(map(vote, text.split())) > 0 else "negative" for text in one.test.texts]
        return sum(a == b for a, b in zip(said, one.test.labels, strict=True)) / len(said)

    assert right(0) > 0.95
    assert right(0.25) < 0.9
    assert right(1) < 0.7


def test_plain_is_the_dial_at_zero_and_has_a_name_of_its_own(bert: Model) -> None:
    plain = task("plain")
    assert plain.name == plain.head == "plain"
    assert plain.train == task("sentiment", turned=0).train
    written = task_from("sentiment:turned=0.25", bert)
    assert (written.name, written.train) == ("sentiment@turned=0.25", task("sentiment", turned=0.25).train)
    assert task("sentiment", turned=0.5, similarity=0.5).name == "sentiment@0.5,turned=0.5"
    for wrong, said in (
        ("sentiment:turned=2", "turned must be between 0 and 1"),
        ("sentiment:turned=half", "turned must be a number between 0 and 1, got 'half'"),
        ("entities:turned=0", "turned is the dial of sentiment"),
        ("python-docs:turned=0", "turned is a dial of the embedded sentiment task, not of python-docs"),
    ):
        with pytest.raises(ForgetlabError, match=said):
            task_from(wrong, bert)


@pytest.mark.parametrize("name", ["sentiment", "plain", "masked-lm", "entities", "acceptability"])
def test_validation_texts_are_neither_trained_on_nor_tested(name: str) -> None:
    one, other = task(name), task(name, split="validation")
    assert other.train == one.train
    texts = [
        {*(" ".join(words) for words in side.words or ()), *side.texts} for side in (one.train, one.test, other.test)
    ]
    assert len(other.test) == 512
    assert not texts[2] & (texts[0] | texts[1])
