"""Where data comes from: files in the usual formats, and the text that every Python machine holds."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from forgetlab.errors import ForgetlabError, unknown
from forgetlab.machine_text import DOCUMENTS

Kind = Literal["text", "labelled", "pairs", "tags"]
Column = str | int | None

PASSAGE_WORDS = 80
MOST_CLASSES = 50  # a column with more distinct values is not taken for labels unless it is named so

# Usual column names, the most telling first; compared without case, spaces and punctuation.
TEXT_NAMES = (
    "text sentence review reviewtext content tweet comment message body description document passage "
    "question query utterance premise sentence1 question1 text1 texta sentencea headline title"
)
LABEL_NAMES = (
    "labeltext labelname goldlabel label labels sentiment class category target polarity tag topic intent "
    "emotion stars rating score y"
)
PAIR_NAMES = (
    "premise hypothesis sentence1 sentence2 question1 question2 text1 text2 texta textb "
    "sentencea sentenceb question sentence question passage query passage"
)
USUAL_NAMES = {*TEXT_NAMES.split(), *LABEL_NAMES.split(), *PAIR_NAMES.split()}
TOKEN_NAMES = {"token", "tokens", "word", "words", "form", "text"}
TAG_NAMES = {"tag", "tags", "label", "labels", "ner", "nertag", "nertags", "pos", "upos", "bio", "iob"}

JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}
CSV_SUFFIXES = {".csv", ".tsv", ".tab", ".psv"}
CONLL_SUFFIXES = {".conll", ".conllu", ".iob", ".iob2", ".bio"}


@dataclass(frozen=True)
class Examples:
    """What was read: parallel tuples, one entry per example, and notes on what was done on the way."""

    kind: Kind
    texts: tuple[str, ...]  # empty for tags
    pairs: tuple[str, ...] | None = None  # the second sentence of each pair
    labels: tuple[str, ...] | None = None  # class names
    words: tuple[tuple[str, ...], ...] | None = None
    tags: tuple[tuple[str, ...], ...] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts if self.words is None else self.words)


def read(
    path: str | Path,
    *,
    text: Column = None,
    label: Column = None,
    pair: Column = None,
    kind: Kind | None = None,
    limit: int | None = None,
) -> Examples:
    """Read a file of CSV, TSV, JSON, JSON lines, CoNLL columns or plain text, whichever it is.

    text, label, pair: columns, by name or 0-based number; found by their usual names or their contents where
    left out (for CoNLL columns: `text` is the token, `label` the tag; first and last where left out).
    kind: what is wanted; the richest kind that the file has where left out.
    limit: the most examples to keep, spread evenly over the file (many files are sorted by class).
    Raises ForgetlabError for a file that cannot be read, is not text, or lacks what was asked for.
    """
    if kind is not None and kind not in get_args(Kind):
        raise unknown("kind of examples", kind, get_args(Kind))
    if limit is not None and limit < 1:
        raise ForgetlabError(f"limit={limit}: expected at least 1 example, or None for all")
    if (pair is not None and kind not in (None, "pairs")) or (label is not None and kind == "text"):
        raise ForgetlabError(f'kind="{kind}" has no {"label" if pair is None else "pair"}: leave it or the kind out')
    path = Path(path).expanduser()
    suffix = path.suffix.lower()
    content, notes = _decode(path, _load(path))
    lines = content.split("\n")
    table = kind in ("labelled", "pairs") or (text, label, pair) != (None, None, None)
    conll = suffix in CONLL_SUFFIXES or (suffix not in JSON_SUFFIXES and not table and _looks_like_conll(lines))
    if kind == "tags" or (conll and kind in (None, "text")):
        found = _read_conll(path, lines, text, label)
    elif suffix in JSON_SUFFIXES or isinstance(_parsed(content.strip().split("\n", 1)[0]), dict):
        found = _from_table(path, _json_table(path, content), text, label, pair, kind)
    else:
        named = [name for name in (text, label, pair) if isinstance(name, str) and not name.isdecimal()]
        asked = {_fold(name) for name in named} - {""}
        table = table or suffix in CSV_SUFFIXES
        content = re.sub(r"\Asep=.\n", "\n", content)  # Excel's first line
        mark = _delimiter(content, suffix, asked, table) if table or kind != "text" else None
        if mark is None:
            found = Examples("text", tuple(passages(content)))
        else:
            found = _from_table(path, _csv_table(path, content, mark, asked), text, label, pair, kind)
    if kind == "text" and found.words is not None:
        found = Examples("text", tuple(" ".join(words) for words in found.words), notes=found.notes)
    if not len(found):
        raise ForgetlabError(f"{path}: no examples found ({'; '.join(found.notes) or 'nothing below the header'})")
    if limit is not None and limit < len(found):
        notes.append(f"{limit} of {len(found)} examples kept, spread evenly over the file")
        found = _take(found, [i * len(found) // limit for i in range(limit)])
    return replace(found, notes=(*notes, *found.notes))


def split(examples: Examples, *, test: float = 0.2, valid: float = 0.0, seed: int = 0) -> tuple[Examples, ...]:
    """Split into (train, test), or (train, valid, test) where `valid` is above 0, by a hash of each text.

    test, valid: the shares, about. The hash decides, so that equal texts (but for case and spaces) stand on
    one side, and a text stands on the same side whatever else is in the file; only where a side would be
    empty, the text nearest to it moves. Pairs go by their first sentence.
    Raises ForgetlabError for shares that leave nothing to train on, and for fewer than 4 different texts.
    """
    if not (0 < test < 1 and valid >= 0 and test + valid < 1):
        raise ForgetlabError(f"test={test}, valid={valid}: expected shares with a sum below 1, such as 0.2, 0.1")
    texts = examples.texts if examples.words is None else [" ".join(words) for words in examples.words]
    keys = [" ".join(text.lower().split()) for text in texts]
    places = {key: _place(key, seed) for key in keys}
    if len(places) < 4:
        raise ForgetlabError(f"{_count(len(places), 'different text')}: expected at least 4 to split")
    tests = sum(place < test for place in places.values())
    tests = min(max(tests, 1), len(places) - (2 if valid else 1))
    held = sum(place < test + valid for place in places.values())
    held = min(max(held, tests + 1), len(places) - 1) if valid else tests
    ranked = sorted(places, key=places.__getitem__)
    side = {key: "test" if i < tests else "valid" if i < held else "train" for i, key in enumerate(ranked)}
    names = ("train", "valid", "test") if valid else ("train", "test")
    return tuple(_take(examples, [i for i, key in enumerate(keys) if side[key] == name]) for name in names)


def _place(key: str, seed: int) -> float:
    """A number from 0 to 1 that depends on nothing but these two."""
    digest = hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8, key=str(seed).encode()[:64])
    return int.from_bytes(digest.digest(), "big") / 2**64


def _take(examples: Examples, keep: Sequence[int]) -> Examples:
    columns: dict[str, Any] = {}
    for name in ("texts", "pairs", "labels", "words", "tags"):
        values = getattr(examples, name)
        columns[name] = values and tuple(values[i] for i in keep)
    return replace(examples, **columns)


def machine_text(name: str, *, limit: int = 300_000) -> Examples:
    """Real text from this machine: "python-docs" (English), "python-source" or "licences" (legal English).

    limit: the most words. Raises ForgetlabError for another name, and where this machine has no such text.
    """
    if name not in DOCUMENTS:
        raise unknown("machine text", name, DOCUMENTS)
    code = name == "python-source"  # in passages already: its line ends carry meaning
    found = (p for document in DOCUMENTS[name]() for p in ([document] if code else passages(document)))
    texts: dict[str, str] = {}  # by folded text: each passage once, in order
    words = 0
    for passage in found:
        key = " ".join(passage.lower().split())
        if key in texts or key.count(" ") < 3:  # scraps
            continue
        words += len(passage.split())
        if words > limit:
            break
        texts[key] = passage
    if not texts:
        raise ForgetlabError(f"{name}: this machine has no such text of up to {limit} words; give a file instead")
    return Examples("text", tuple(texts.values()))


def passages(content: str) -> list[str]:
    """Cut plain text into its paragraphs, and long paragraphs at sentence ends into pieces of about 80 words.

    content: paragraphs with blank lines between them; without any blank line, each line is a passage.
    """
    content = content.strip()
    blocks = re.split(r"\n\s*\n", content)
    if len(blocks) == 1:
        blocks = content.split("\n")
    return [piece for block in blocks if block.strip() for piece in _pieces(block)]


def _pieces(block: str) -> Iterable[str]:
    total = _length(block)
    aim = total / -(-total // PASSAGE_WORDS)  # even pieces, rather than full ones and a scrap
    piece, length = "", 0
    for unit in _units(block):
        if length and (length >= aim or length + _length(unit) > PASSAGE_WORDS):
            yield piece
            piece, length = "", 0
        piece = f"{piece} {' '.join(unit.split())}".strip()
        length += _length(unit)
    if piece:
        yield piece


# A sentence end; a line end; as the last resort any word, and very long "words" cut.
_CUTS = [
    re.compile(r".+?(?:[.!?…][\"'”’)\]]*(?=\s|$)|[。！？]|$)", re.S),
    re.compile(r".+"),
    re.compile(r"\S{1,800}"),
]


def _units(block: str, cuts: Sequence[re.Pattern[str]] = _CUTS) -> Iterable[str]:
    """The block in units that a piece never divides: sentences, else lines, else words."""
    if _length(block) <= PASSAGE_WORDS or not cuts:
        yield block
        return
    for part in cuts[0].findall(block):
        yield from _units(part, cuts[1:])


def _length(block: str) -> int:
    """Words; or a tenth of the characters, for scripts that put no spaces between words."""
    return max(len(block.split()), len(block) // 10)


# --- bytes ---

_BOMS = [
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),  # before UTF-16, whose mark it starts with
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
]
_BINARIES = {
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ": "an xz archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd archive; unpack it first",
    b"PK\x03\x04": "a zip archive (.xlsx, .docx and .pt files are too); unpack it, or save it as CSV or text",
    b"PAR1": "a Parquet file; save it as CSV or JSON lines",
    b"ARROW1": "an Arrow file; save it as CSV or JSON lines",
    b"%PDF-": "a PDF; save it as text",
    b"SQLite format 3": "an SQLite database; export a table as CSV",
}
_NOT_CP1252 = {0x81, 0x8D, 0x8F, 0x90, 0x9D}


def _load(path: Path) -> bytes:
    try:
        if path.is_dir():
            files = sorted(entry.name for entry in path.iterdir() if entry.is_file())
            raise ForgetlabError(f"{path} is a folder; give a file{f', such as {files[0]}' if files else ''}")
        if not path.exists():
            folder = path.parent
            if not folder.is_dir():
                raise ForgetlabError(f"no file {path}: there is no folder {folder}")
            names = sorted(entry.name for entry in folder.iterdir())
            near = get_close_matches(path.name, names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else "nothing there has a similar name"
            raise ForgetlabError(f"no file {path}; {hint}")
        if not path.is_file():
            raise ForgetlabError(f"{path} is not an ordinary file")
        return path.read_bytes()
    except OSError as error:
        raise ForgetlabError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error


def _decode(path: Path, raw: bytes) -> tuple[str, list[str]]:
    """The text with "\\n" line ends, and notes on how it was decoded."""
    notes = []
    looks_like = next((what for magic, what in _BINARIES.items() if raw.startswith(magic)), None)
    if raw[8:9] == b"{" and int.from_bytes(raw[:8], "little") < len(raw):
        looks_like = "a safetensors file: weights, not data"
    if looks_like is not None:
        raise ForgetlabError(f"{path} looks like {looks_like}")
    encoding = next((encoding for mark, encoding in _BOMS if raw.startswith(mark)), "utf-8")
    try:
        content = raw.decode(encoding)
    except UnicodeDecodeError:
        if encoding in ("utf-16", "utf-32"):
            raise ForgetlabError(f"{path} is marked as {encoding} but is not; save it as UTF-8") from None
        content = raw.decode("utf-8", "replace")
        broken = content.count("\ufffd")
        if sum(character > "\x7f" for character in content) > 10 * broken:
            notes.append(f"{_count(broken, 'broken byte')} in the UTF-8 read as \ufffd")
        else:
            encoding = "cp1252" if _NOT_CP1252.isdisjoint(raw) else "latin-1"
            content = raw.decode(encoding)
            notes.append(f"read as {encoding} (not UTF-8)")
    if "\0" in content:
        raise ForgetlabError(f"{path} looks like a binary file (it has NUL bytes); expected text, best in UTF-8")
    content = content.removeprefix("\ufeff")
    if not content.strip():
        raise ForgetlabError(f"{path} is empty")
    return content.replace("\r\n", "\n").replace("\r", "\n"), notes


# --- tables: CSV and JSON ---

Rows = list[tuple[int, list[str]]]  # with the line that each row starts on


@dataclass
class _Table:
    names: list[str]  # "0", "1", … where there is no header
    rows: Rows
    notes: list[str]
    header: bool = True
    nested: frozenset[str] = frozenset()  # columns that hold lists or objects (JSON)
    unit: str = "line"  # what the rows are numbered by

    def column(self, index: int) -> list[str]:
        return [row[index] for _, row in self.rows]

    def find(self, asked: Column) -> int | None:
        """The number of the column that was asked for by name or number."""
        if asked is None:
            return None
        if str(asked) in self.names:
            return self.names.index(str(asked))
        if str(asked).isdecimal() and int(asked) < len(self.names):
            return int(asked)
        if (index := self.usual([_fold(str(asked))])) is not None:
            return index
        error = unknown("column", asked, self.names)
        raise error if self.header else ForgetlabError(f"{error} (no header row seen: columns have numbers)")

    def usual(self, names: Iterable[str], taken: Iterable[int | None] = ()) -> int | None:
        """The first column with one of these folded names, the first name first."""
        folded = [_fold(name) for name in self.names]
        return next((i for n in names for i, f in enumerate(folded) if f == n and i not in taken), None)


def _fold(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


_END = "\ue000end"


def _rows(content: str, mark: str, width: int = 0) -> tuple[Rows, int, float]:
    """The rows, how many cells they have (`width`, or the usual number), and the share that has so many.

    Three ways of quoting are tried, as no file says which it has: "" in quotes, a backslash in quotes, quotes
    as plain letters (usual in TSV). A misread quote swallows delimiters, so the largest share wins.
    A last row whose quote is never closed comes back without cells.
    """
    best: tuple[Rows, int, float] = [], 0, -1.0
    most = 0
    quotings = ((None, True), ("\\", True), (None, False)) if '"' in content else ((None, False),)
    limit = csv.field_size_limit(2**31 - 1)  # the setting is global: put back below
    try:
        for escape, quotes in quotings:
            reader = csv.reader(
                io.StringIO(f"{content}\n{_END}", newline=""),
                delimiter=mark,
                quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
                escapechar=escape,
                skipinitialspace=mark != "\t",
            )
            rows: Rows = []
            line = 1
            for row in reader:
                if any(cell.strip() for cell in row):
                    rows.append((line, [cell.strip() for cell in row]))
                line = reader.line_num + 1
            number, last = rows.pop()
            if last != [_END]:  # the quote ran over the end
                rows.append((number, []))
            if not rows:
                continue
            cells = width or _usual_width(rows)
            good = sum(len(row) == cells for _, row in rows)
            if (good / len(rows), good) > (best[2], most):
                best, most = (rows, cells, good / len(rows)), good
    finally:
        csv.field_size_limit(limit)
    return best


def _usual_width(rows: Rows) -> int:
    return Counter(len(row) for _, row in rows).most_common(1)[0][0] if rows else 0


def _is_header(cells: list[str], asked: set[str]) -> bool:
    names = {_fold(cell) for cell in cells}
    return len(cells) > 1 and max(map(len, cells)) <= 40 and not names.isdisjoint(USUAL_NAMES | asked)


def _delimiter(content: str, suffix: str, asked: set[str], table: bool) -> str | None:
    """The character between columns; "\\x1f", which no text has, for a single one; None for no table.

    asked: folded names of columns. table: whether it must be a table, rather than plain text.
    """
    sample = content if len(content) < 200_000 else content[:200_000].rpartition("\n")[0] or content
    first = sample.lstrip("\n").split("\n", 1)[0]
    if table and not re.search("[,;\t|]", first) and _fold(first) in USUAL_NAMES | asked:
        return "\x1f"
    tabs = suffix in (".tsv", ".tab")
    common = "\t,;|" if tabs else ",;\t|"
    others = sorted(set(re.findall(r"[^\w\s\\\"'.-]", first)) - {*common})  # taken only between column names
    found = []
    for mark in [*common, *others]:
        rows, width, share = _rows(sample, mark) if mark in first else ([], 0, 0.0)
        if mark in first and _is_header(first.split(mark), asked):
            if table or (share >= 0.9 and len(rows) > 1):
                found.append((True, share, mark))
        elif width > 1 and mark in common:
            # Prose has commas too, and some lines have equally many: there, only tabs are proof.
            enough = 0.0 if tabs and mark == "\t" else 0.7 if table else 0.95 if mark == "\t" else 2.0
            if share >= enough:
                found.append((False, share, mark))
    return max(found, key=lambda item: item[:2])[2] if found else "\x1f" if table else None


def _csv_table(path: Path, content: str, mark: str, asked: set[str]) -> _Table:
    first = content.lstrip("\n").split("\n", 1)[0]
    named = _is_header(first.split(mark), asked)
    rows, width, _ = _rows(content, mark, len(next(csv.reader([first], delimiter=mark))) if named else 0)
    unclosed = [line for line, row in rows if not row]
    if unclosed:
        raise ForgetlabError(f'{path}: a quote (") opened at line {unclosed[0]} or below is never closed')
    shown = {"\t": "tab", "\x1f": "no delimiter"}.get(mark, mark)
    bad = [line for line, row in rows if len(row) != width]
    notes = _skipped(path, bad, len(rows), "line", f"{_count(width, 'cell')} with delimiter {shown!r}")
    rows = [(line, row) for line, row in rows if len(row) == width]
    if rows and _has_header([row for _, row in rows], asked):
        return _Table([" ".join(name.split()) for name in rows[0][1]], rows[1:], notes)
    notes.append("no header row seen: columns have numbers, from 0")
    return _Table([str(i) for i in range(width)], rows, notes, header=False)


def _has_header(rows: list[list[str]], asked: set[str]) -> bool:
    """Whether the first row names the columns; in doubt it does not: no row of data may be lost."""
    first, below = rows[0], rows[1:]
    names = {_fold(cell) for cell in first}
    if not names.isdisjoint(asked) or (len(first) > 1 and first == [str(i) for i in range(len(first))]):
        return True
    filled = [cell for cell in first if cell]
    if len({*filled}) < len(filled) or any(len(cell) > 40 or _is_number(cell) for cell in filled):
        return False
    columns = list(zip(*below, strict=True))
    if any(cell and cell in column for cell, column in zip(first, columns, strict=bool(below))):
        return False
    if not names.isdisjoint(USUAL_NAMES):
        return bool(below) or names <= USUAL_NAMES
    # No usual name: short cells over texts of several words, and a word over numbers or values that recur.
    if not any(sum(cell.count(" ") for cell in column) >= 2 * len(column) for column in columns):
        return False
    if any(cell and all(map(_is_number, column)) for cell, column in zip(first, columns, strict=True)):
        return True
    return not any(" " in cell for cell in first) and any(min(Counter(c).values()) > 1 for c in columns)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _parsed(content: str) -> Any:
    """The JSON value, or None where it is not JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _json_table(path: Path, content: str) -> _Table:
    whole = _parsed(content)
    lines = [(i, line) for i, line in enumerate(content.split("\n"), 1) if line.strip()]
    if isinstance(whole, list | dict):
        unit, items = "entry", list(enumerate(whole if isinstance(whole, list) else [whole], 1))
    else:
        unit, items = "line", [(i, _parsed(line)) for i, line in lines]
    objects = [(i, {"text": item} if isinstance(item, str) else item) for i, item in items]
    bad = [i for i, item in objects if not isinstance(item, dict)]
    notes = _skipped(path, bad, len(items), unit, 'objects such as {"text": "…", "label": "…"}')
    objects = [(i, item) for i, item in objects if isinstance(item, dict)]
    names = list(dict.fromkeys(name for _, item in objects for name in item))
    nested = frozenset(n for _, item in objects for n, value in item.items() if isinstance(value, list | dict))
    rows = [(i, [_cell(item.get(name)) for name in names]) for i, item in objects]
    return _Table(names, rows, notes, nested=nested, unit=unit)


def _cell(value: Any) -> str:
    if isinstance(value, str):  # JSON allows half a surrogate pair, which is no text
        return re.sub("[\ud800-\udfff]", "\ufffd", value).strip()
    return "" if value is None else json.dumps(value)


def _from_table(path: Path, table: _Table, text: Column, label: Column, pair: Column, kind: Kind | None) -> Examples:
    """The examples in the columns asked for, or else in the likeliest ones."""
    names, notes = table.names, table.notes
    listed = ", ".join([repr(name[:30]) for name in names[:10]] + ["…"] * (len(names) > 10))

    def missing(what: str, option: str) -> ForgetlabError:
        lists = " (lists and objects are not read)" if table.nested else ""
        return ForgetlabError(f"{path}: no {what} among {listed}{lists}; name it: {option}=NAME, --{option} NAME")

    at_text, at_label, at_pair = table.find(text), table.find(label), table.find(pair)
    if text is None and pair is None and kind in (None, "pairs"):
        firsts, seconds = PAIR_NAMES.split()[::2], PAIR_NAMES.split()[1::2]
        found = [(table.usual([a]), table.usual([b])) for a, b in zip(firsts, seconds, strict=True)]
        at_text, at_pair = next((places for places in found if None not in places), (None, None))
    if at_text is None:
        at_text = table.usual(TEXT_NAMES.split(), (at_label, at_pair))
    if at_text is None:
        free = [i for i in range(len(names)) if i not in (at_label, at_pair) and names[i] not in table.nested]
        if not free:
            raise missing("text column", "text")
        at_text = max(free, key=lambda i: sum(map(len, table.column(i))))
        if len(free) > 1:
            notes.append(f"text column {names[at_text]!r}: it has the longest texts")
    if at_label is None and kind != "text":
        at_label = table.usual(LABEL_NAMES.split(), (at_text, at_pair))
        if at_label is None and (at_label := _few_valued(table, (at_text, at_pair))) is not None:
            notes.append(f"label column {names[at_label]!r}: it has few different values")
    if kind == "pairs" and at_pair is None:
        raise missing("second sentence", "pair")
    if at_label is None and (kind in ("labelled", "pairs") or pair is not None):
        raise missing("label column", "label")
    if at_label is None or kind == "labelled":
        at_pair = None
    chosen = [i for i in (at_text, at_pair, at_label) if i is not None]
    if len({*chosen}) < len(chosen):
        raise ForgetlabError(f"{path}: text, label and pair must be different columns among {listed}")
    for i in chosen:
        if names[i] in table.nested:
            raise ForgetlabError(f"{path}: column {names[i]!r} holds lists or objects; expected plain strings")
    full = [row for _, row in table.rows if all(row[i] for i in chosen)]
    empty = [line for line, row in table.rows if not all(row[i] for i in chosen)]
    if empty:
        what = " or ".join(names[i] for i in chosen)
        notes.append(f"{_count(len(empty), 'row')} with empty {what} skipped (first: {table.unit} {empty[0]})")

    def column(i: int | None) -> tuple[str, ...] | None:
        return None if i is None else tuple(row[i] for row in full)

    given: Kind = "text" if at_label is None else "labelled" if at_pair is None else "pairs"
    return Examples(given, column(at_text) or (), column(at_pair), column(at_label), notes=tuple(notes))


def _few_valued(table: _Table, taken: Sequence[int | None]) -> int | None:
    """The column that looks most like labels: few values, each used again; names rather than numbers."""
    ranks = []
    for i, name in enumerate(table.names):
        values = {*table.column(i)} - {""}
        recur = 2 <= len(values) <= MOST_CLASSES and 2 * len(values) <= len(table.rows)
        if recur and i not in taken and name not in table.nested:
            ranks.append((all(map(_is_number, values)), len(values), i))
    return min(ranks)[2] if ranks else None


# --- CoNLL columns ---

_TAG = re.compile(r"[BILUESM][-_]\S+|[A-Z][A-Z0-9$_-]*|[^\w\s]+")


def _conll_shape(lines: list[str]) -> tuple[Rows, str | None, int]:
    """Numbered lines of cells without comments, the separator (None: spaces), the usual number of columns."""
    apart = ("-DOCSTART-", "# ")
    body = [(i, line) for i, line in enumerate(lines, 1) if line.strip() and not line.startswith(apart)]

    def usual(separator: str | None) -> bool:
        return sum(len(line.split(separator)) > 1 for _, line in body) > 0.9 * len(body)

    separator = next((s for s in ("\t", None, ",", ";", "|") if usual(s)), None)
    width = _usual_width([(i, line.rstrip().split(separator)) for i, line in body])
    return [(i, _cells(line, separator, width)) for i, line in body], separator, width


def _cells(line: str, separator: str | None, width: int) -> list[str]:
    # From the right, so that a token may hold the separator ("," between commas).
    cells = line.split() if separator is None else line.rstrip().rsplit(separator, width - 1)
    return [cell.strip() for cell in cells]


def _looks_like_conll(lines: list[str]) -> bool:
    rows, separator, width = _conll_shape(lines[:2000])
    if width < 2 or len(rows) < 2:
        return False
    tags = [row[-1] for _, row in rows]
    apart = rows[-1][0] - rows[0][0] >= len(rows) and separator in ("\t", None)  # blank lines between
    tag_like = sum(bool(_TAG.fullmatch(tag)) for tag in tags) >= 0.95 * len(rows)
    return (
        (apart or any(re.match(r"[BILUESM]-\S", tag) for tag in tags))
        and sum(len(row) == width for _, row in rows) >= 0.95 * len(rows)
        and sum(" " in row[0] for _, row in rows) <= 0.1 * len(rows)
        and (tag_like or tags.count("O") > 0.3 * len(rows))
    )


def _read_conll(path: Path, lines: list[str], token: Column, tag: Column) -> Examples:
    rows, separator, width = _conll_shape(lines)
    if width < 2 or sum(" " in row[0] for _, row in rows) > 0.5 * len(rows):
        raise ForgetlabError(f"{path}: expected lines of one token and its tag, blank lines between sentences")
    table = _Table([str(i) for i in range(width)], [], [], header=False)
    number, first = rows[0]
    if _fold(first[0]) in TOKEN_NAMES and _fold(first[-1]) in TAG_NAMES:
        table = _Table(first, [], [f"line {number} taken as the header"])
        lines = [*lines[: number - 1], "", *lines[number:]]
    conllu = path.suffix.lower() == ".conllu"  # its columns are fixed: number, form, lemma, tag, …
    at_token, at_tag = table.find(token), table.find(tag)
    at_token = at_token if at_token is not None else 1 if conllu else 0
    at_tag = at_tag if at_tag is not None else 3 if conllu else width - 1
    known = {row[-1] for _, row in rows}
    sentences: list[list[tuple[str, str] | None]] = [[]]
    bad = []
    for number, line in enumerate(lines, 1):
        cells = _cells(line, separator, width)
        if not line.strip() or line.startswith("-DOCSTART-"):
            sentences.append([])
        elif line.startswith("#") and (len(cells) != width or (line[1] == " " and cells[-1] not in known)):
            continue  # a comment; but "# O" is a token
        elif len(cells) != width or not (cells[at_token] and cells[at_tag]):
            sentences[-1].append(None)
            bad.append(number)
        elif not conllu or cells[0].isdecimal():  # "3-4" is a word that is given in parts too
            sentences[-1].append((cells[at_token], cells[at_tag]))
    kept = [[pair for pair in sentence if pair] for sentence in sentences if None not in sentence]
    kept = [sentence for sentence in kept if sentence]
    notes = table.notes + _skipped(path, bad, len(rows), "line", f"{width} columns", " with the sentence")
    words, tags = (tuple(tuple(pair[i] for pair in sentence) for sentence in kept) for i in (0, 1))
    return Examples("tags", (), words=words, tags=tags, notes=tuple(notes))


# --- messages ---


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _skipped(path: Path, bad: list[int], total: int, unit: str, expected: str, also: str = "") -> list[str]:
    """A note on the lines left out; an error where they are most of the file."""
    if not bad:
        return []
    units, first = "entries" if unit == "entry" else "lines", f"first: {unit} {bad[0]}"
    if 2 * len(bad) > total:
        raise ForgetlabError(f"{path}: {len(bad)} of {total} {units} do not fit ({first}); expected {expected}")
    return [f"{len(bad)} of {total} {units} do not fit, skipped{also} ({first})"]
