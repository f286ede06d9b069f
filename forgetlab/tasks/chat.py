"""Prompts and conversations as tokens, and which of these are the answers: by the tokenizer's chat template."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from forgetlab.errors import ForgetlabError
from forgetlab.sources.messages import Turn, plain_layout

Tokens = tuple[list[int], list[int]]  # ids, and 1 where an answer is to be written
AnswerRow = tuple[list[int], list[int], bool]  # the same, and whether it was cut
Marks = tuple[list[int], list[int]]  # what stands before and after a text


class Refused(Exception):
    """Why a chat template does not take a conversation, in its own words."""


def marks(tokenizer: Any, begin: bool, end: bool) -> Marks:
    """The begin and the end token, each where it is asked for and there is one."""
    first = [tokenizer.bos_token_id] if begin and tokenizer.bos_token_id is not None else []
    return first, [tokenizer.eos_token_id] if end and tokenizer.eos_token_id is not None else []


def completion_rows(
    texts: Sequence[tuple[str, str]], tokenizer: Any, max_length: int, around: Marks
) -> Iterator[AnswerRow]:
    """Prompts with what is written after them. One that is too long loses the beginning of its prompt first."""
    first, last = around
    for number, (prompt, answer) in enumerate(_joined(texts, tokenizer), 1):
        if not (answer or last) or not (first or prompt):
            side = "prompt" if answer or last else "answer"
            raise ForgetlabError(f"the {side} of completion {number} is empty: no token of it can be predicted")
        written = [*answer, *last][: max_length - 1]  # something stands before the first token that is predicted
        seen = [*first, *prompt[max(0, len(first) + len(prompt) + len(written) - max_length) :]]
        cut = len(first) + len(prompt) + len(answer) > max_length
        yield seen + written, [0] * len(seen) + [1] * len(written), cut


def _joined(texts: Sequence[tuple[str, str]], tokenizer: Any) -> Iterator[Tokens]:
    """The tokens of each prompt and of its answer, as they are in one text; one across the two is the answer's.

    Where a word would run on from the one into the other, each has its own tokens.
    """
    apart = [prompt[-1:].isalnum() and answer[:1].isalnum() for prompt, answer in texts]
    options = {"add_special_tokens": False, "return_offsets_mapping": True}
    whole = tokenizer([p if cut else p + a for (p, a), cut in zip(texts, apart, strict=True)], **options)
    answers = tokenizer([a if cut else "" for (_, a), cut in zip(texts, apart, strict=True)], **options)["input_ids"]
    for (prompt, _), ids, offsets, own in zip(texts, whole["input_ids"], whole["offset_mapping"], answers, strict=True):
        at = next((i for i, (_, stop) in enumerate(offsets) if stop > len(prompt)), len(ids))
        yield ids[:at], [*ids[at:], *own]


def chat_rows(
    chats: Sequence[Sequence[Turn]], tokenizer: Any, max_length: int, around: Marks
) -> tuple[list[AnswerRow], dict[str, int]]:
    """Conversations, and why some have no answer to learn, with how many. One that is too long loses its end."""
    rows, without = [], Counter[str]()
    for turns in chats:
        try:
            ids, scored = tokens_of(turns, tokenizer, *around)
        except Refused as reason:
            without[str(reason)] += 1
            ids, scored = [tokenizer.pad_token_id], [0]
        else:
            if not any(scored[1:max_length]):
                late = f"the answer begins after {max_length} tokens"
                without[late if any(scored[1:]) else "nothing stands before the answer"] += 1
        rows.append((ids[:max_length], scored[:max_length], len(ids) > max_length))
    return rows, dict(without)


def tokens_of(turns: Sequence[Turn], tokenizer: Any, begin: Sequence[int], end: Sequence[int]) -> Tokens:
    """The ids of a conversation, and 1 at the tokens of the answers that are to be learned, 0 elsewhere.

    By the tokenizer's chat template, which brings its own begin and end marks: its generation mask where it has one,
    else the difference between what it makes of the turns before an answer and with it, the end of the turn included.
    Without a template "User: …", "Assistant: …" (`plain_layout`) between `begin` and `end`.
    Raises Refused where the template raises, and where it changes earlier answers.
    """
    if not tokenizer.chat_template:
        return _plain(turns, tokenizer, begin, end)
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    answers = [i for i, turn in enumerate(turns) if turn.scored]
    try:
        if not marks_answers(tokenizer):
            return _by_difference(messages, answers, tokenizer)
        made = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        ids, marked = made["input_ids"], made["assistant_masks"]
        if len(answers) < sum(turn.role == "assistant" for turn in turns):
            _, own = _by_difference(messages, answers, tokenizer)
            marked = [a & b for a, b in zip(marked, own, strict=True)]
        return ids, marked
    except Refused:
        raise
    except Exception as error:  # a template is a program of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise Refused(f"its chat template says {reason!r}") from None


def marks_answers(tokenizer: Any) -> bool:
    """Whether the chat template says by itself what the assistant writes, by its keyword "generation"."""
    template = tokenizer.chat_template
    template = template.get("default", "") if isinstance(template, dict) else template or ""
    return re.search(r"\{%-?\s*generation\b", template) is not None


def mark_ids(tokenizer: Any) -> set[int]:
    """The ids that are marks rather than text: of special tokens and of those that were added."""
    return {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}


def layout(kind: str, tokenizer: Any) -> str:
    """How completions or chats become one text for this tokenizer, in words."""
    if kind == "completions":
        other = " (kind=chat puts them in the chat template)" if tokenizer.chat_template else ""
        return f"prompts and answers are joined as they are{other}"
    if not tokenizer.chat_template:
        return "turns are laid out as 'User: …', 'Assistant: …', as the tokenizer has no chat template"
    how = "its own marks" if marks_answers(tokenizer) else "what it adds to the turns before them"
    return f"turns are laid out by the chat template, answers told by {how}"


def _plain(turns: Sequence[Turn], tokenizer: Any, begin: Sequence[int], end: Sequence[int]) -> Tokens:
    ids, inside = _within(*plain_layout(turns), tokenizer)
    marks = [int(turns[-1].scored)] * len(end)
    return [*begin, *ids, *end], [*[0] * len(begin), *inside, *marks]


def _within(text: str, spans: Sequence[tuple[int, int]], tokenizer: Any) -> Tokens:
    """The tokens of a text, 1 where one reaches into a span of letters."""
    made = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    marked = [0] * len(made["input_ids"])
    for start, stop in spans:
        for i, (a, b) in enumerate(made["offset_mapping"]):
            if a < stop and b > start:
                marked[i] = 1
    return made["input_ids"], marked


def _by_difference(messages: list[dict[str, str]], answers: Sequence[int], tokenizer: Any) -> Tokens:
    """The answers are what the template adds to the turns before them, with the header that asks for an answer.

    An answer that nothing stands before is none. What a template says in the last turn only (an end token, an empty
    thought) is left aside in the earlier ones.
    """

    def text_of(count: int, ask: bool = False) -> str:
        return tokenizer.apply_chat_template(messages[:count], tokenize=False, add_generation_prompt=ask)

    def ids_of(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    whole, answers = text_of(len(messages)), [i for i in answers if i]
    around = [(text_of(i, ask=True), whole if i + 1 == len(messages) else text_of(i + 1)) for i in answers]
    if all(whole.startswith(before) and whole.startswith(after) for before, after in around):
        return _within(whole, [(len(before), len(after)) for before, after in around], tokenizer)
    ids = ids_of(whole)
    marked = [0] * len(ids)
    for before, after in (map(ids_of, both) for both in around):
        start, own = _alike(before, ids), after[_alike(before, after) :]
        length = _kept(own, ids[start:], mark_ids(tokenizer))
        marked[start : start + length] = [1] * length
    return ids, marked


def _kept(own: list[int], there: list[int], special: set[int]) -> int:
    """How many tokens of an answer at the end of a conversation, `own`, it has in the middle of one, `there`."""
    same = _alike(own, there)
    if same == len(own) or (same and special.issuperset(own[same:])):
        return same
    for dropped in range(1, len(own)):
        if there[: len(own) - dropped] == own[dropped:]:
            return len(own) - dropped
    raise Refused("its chat template changes earlier answers, so that they cannot be told apart")


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
