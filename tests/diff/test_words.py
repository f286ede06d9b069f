"""Classes of words, for word pieces and byte-level BPE, against what a reader says of a sentence."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers import decoders as tokenizer_decoders
from transformers import PreTrainedTokenizerFast

from forgetlab.diff.words import CLASSES, classes, with_rare

TEXT = 'We met Anna and O\'Hara in Paris. "Then I saw 12 dogs," said Zoë. Rain fell in 1999-2000: It was É-Town.'
# read by hand: a capital at a sentence's start is no name, nor is I; after a quotation mark a sentence begins
NAMES = {"Anna", "O", "Hara", "Paris", "Zoë", "É", "Town"}
NUMBERS = {"12", "1999", "2000"}


def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    if kind == "bpe":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = tokenizer_decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    else:
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer = normalizers.NFC()
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = tokenizer_decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=["[UNK]", "[PAD]"], show_progress=False)
    made.train_from_iterator([TEXT, "the dogs fell and met in the rain"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]" if kind != "bpe" else None)


@pytest.mark.parametrize("kind", ["bpe", "pieces"])
def test_names_and_numbers_are_those_of_a_reader(kind: str) -> None:
    made = tokenizer(kind)
    encoded = made(TEXT, return_offsets_mapping=True)
    (found,) = classes([encoded["input_ids"]], made)
    assert len(found) > 45  # words of several tokens are among them
    told: dict[str, list[tuple[str, int]]] = {name: [] for name in CLASSES}
    for (start, stop), number in zip(encoded["offset_mapping"], found, strict=True):
        words, piece = told[CLASSES[number]], TEXT[start:stop]
        if words and words[-1][1] == start and not piece.startswith(" "):
            words[-1] = (words[-1][0] + piece, stop)
        elif not words or words[-1][1] < stop:  # a letter of two tokens is there already
            words.append((piece.strip(), stop))
    assert {word for word, _ in told["names"]} == NAMES
    assert {word for word, _ in told["numbers"]} == NUMBERS


def test_the_rarest_tenth_is_rare_and_no_name_is() -> None:
    other, names = CLASSES.index("other"), CLASSES.index("names")
    tokens = torch.tensor([0] * 50 + [1] * 41 + [2, 2, 2, 3, 3, 4, 4, 5, 6])  # 9 of 100 stand there 3 times or less
    kinds = torch.full((100,), other)
    kinds[-1] = names
    rare = with_rare(kinds, tokens) == CLASSES.index("rare")
    assert rare.tolist() == [False] * 91 + [True] * 8 + [False]
    once = torch.arange(10)  # all stand there once
    assert (with_rare(torch.full((10,), other), once) == CLASSES.index("rare")).all()
