"""Real text that every machine with Python holds: its documentation, its source code, and licences."""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import re
import sys
import sysconfig
import textwrap
import tokenize
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from forgetlab.errors import ForgetlabError, one_of
from forgetlab.sources.examples import Examples, folded
from forgetlab.sources.paragraphs import passages

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

# Tests, tools and generated tables: not the text that people read.
_SKIPPED = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "encodings", "pydoc_data", "ensurepip"}
_SKIPPED |= {"__pycache__", "site-packages", "dist-packages", "lib-dynload"}
_WORD = re.compile(r"""[*"'(`]*[A-Za-z][a-z]*(?:[-'’][a-z]+)*[.,;:!?*"')`]*""")
_RULE = re.compile(r"[\s\-=*~^_#.+|]*\S")  # under a heading, around a table
_CODE_WORDS = 80  # per passage of source code; as long as a passage of prose
_LICENCE_NAME = re.compile(r"(licen[cs]e|copying|notice)", re.IGNORECASE)


def machine_text(name: str, *, limit: int = 300_000) -> Examples:
    """Real text from this machine: "python-docs" (English), "python-source" or "licences" (legal English).

    limit: the most words. Raises ForgetlabError for another name, and where this machine has no such text.

    >>> machine_text("python-source", limit=1000).kind
    'text'
    """
    one_of("machine text", name, _PASSAGES)
    texts: dict[str, str] = {}  # by folded text: each passage once, in order
    words = 0
    for passage in _PASSAGES[name]():
        key = folded(passage)
        if key in texts or key.count(" ") < 3:  # scraps
            continue
        words += len(passage.split())
        if words > limit:
            break
        texts[key] = passage
    if not texts:
        raise ForgetlabError(f"{name}: this machine has no such text of up to {limit} words; give a file instead")
    return Examples("text", tuple(texts.values()))


def _python_docs() -> Iterator[str]:
    """The prose of the language reference (`pydoc` topics), then of the standard library's docstrings."""
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:  # some distributions package it apart
        topics = {}
    for name in sorted(topics):
        yield from passages(" ".join(_prose(topics[name])))
    for _, tree in _modules():
        for node in _documented(tree):
            yield from passages(" ".join(_prose(ast.get_docstring(node) or "")))


def _python_source() -> Iterator[str]:
    """The functions of the standard library without their docstrings, long ones in several pieces."""
    for source, tree in _modules():
        lines = source.split("\n")
        for node in _documented(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _code(lines, node)


def _licences() -> Iterator[str]:
    """The licence texts of Python, of the system (where it keeps them), and of the installed packages."""
    folders = [Path(sysconfig.get_path("stdlib")), Path(sys.base_prefix), Path("/usr/share/common-licenses")]
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())]
    files = [file for file in files if _LICENCE_NAME.match(file.name) or file.parent == folders[2]]
    for file in files:
        yield from _licence(file)
    # Sorted: the packages come in the order in which the file system lists them.
    listed = {file for package in metadata.distributions() for file in package.files or []}
    for file in sorted(Path(str(file.locate())) for file in listed if _LICENCE_NAME.match(file.name)):
        yield from _licence(file)


def _licence(file: Path) -> Iterator[str]:
    if file.suffix.lower() in ("", ".txt", ".md", ".rst") and file.is_file():
        with contextlib.suppress(OSError):  # unreadable for this user: one licence less
            yield from passages("\n".join(_prose(file.read_text(encoding="utf-8", errors="replace"))))


# Generators of passages.
_PASSAGES: dict[str, Callable[[], Iterator[str]]] = {
    "python-docs": _python_docs,
    "python-source": _python_source,
    "licences": _licences,
}


def _modules() -> Iterator[tuple[str, ast.Module]]:
    """Source and syntax tree of each module of the standard library, read and never imported."""
    for folder, subfolders, files in os.walk(sysconfig.get_path("stdlib")):
        subfolders[:] = sorted(name for name in subfolders if name not in _SKIPPED)
        for name in sorted(files):
            if not name.endswith(".py"):
                continue
            try:
                with tokenize.open(os.path.join(folder, name)) as file:
                    source = file.read()
                with warnings.catch_warnings():  # old string escapes
                    warnings.simplefilter("ignore")
                    tree = ast.parse(source)
            except (OSError, SyntaxError, ValueError):
                continue
            yield source, tree


def _documented(node: Documented) -> Iterator[Documented]:
    """The module, its classes and their methods, its functions (not those inside functions)."""
    yield node
    for child in node.body if isinstance(node, ast.Module | ast.ClassDef) else []:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _documented(child)


def _prose(document: str) -> list[str]:
    """The paragraphs of English sentences, folded to a line each; no doctests, code, grammar or tables."""
    lines = [line.expandtabs() for line in document.split("\n") if not _RULE.fullmatch(line)]
    blocks = re.split(r"\n\s*\n", "\n".join(lines))
    return [" ".join(block.split()) for block in blocks if _is_prose(block)]


def _is_prose(block: str) -> bool:
    words = block.split()
    return (
        len(words) >= 6
        and not words[0][0].islower()  # the rest of a sentence around an example
        and not any(word.startswith(">>>") or word in ("::=", "...", "=") for word in words)
        and sum(bool(_WORD.fullmatch(word)) for word in words) >= 0.75 * len(words)
    )


def _code(lines: list[str], function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    start = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    kept = range(start, (function.end_lineno or start) + 1)
    apart = range(0)
    if ast.get_docstring(function, clean=False) is not None:  # that is documentation: another domain
        docstring = function.body[0]
        apart = range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1)
    code = [lines[i - 1] for i in kept if i not in apart]
    piece: list[str] = []
    length = 0
    for line in textwrap.dedent("\n".join(code)).split("\n"):
        if length and length + len(line.split()) > _CODE_WORDS:
            yield "\n".join(piece)
            piece, length = [], 0
        if line.strip():
            piece.append(line.rstrip())
            length += len(line.split())
    if length:
        yield "\n".join(piece)
