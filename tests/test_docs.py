"""What the documentation says is true: its examples run, and it uses only what is public."""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import re
import runpy
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules, walk_packages
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import forgetlab
from forgetlab import finetune, load, suite, task
from forgetlab.__main__ import main
from forgetlab.remedies import METHODS
from forgetlab.training import Method
from tests.conftest import small_model

ROOT = Path(__file__).parents[1]
MODULES = sorted(found.name for found in walk_packages(forgetlab.__path__, "forgetlab."))
SHOWN = [name for name in MODULES if re.search(r"^\s*>>> ", inspect.getsource(import_module(name)), re.MULTILINE)]
# what README and the handbook promise by name; the other rooms serve these
PROMISED = (
    "forgetlab",
    "forgetlab.importance",
    "forgetlab.interference",
    "forgetlab.metrics",
    "forgetlab.models",
    "forgetlab.remedies",
    "forgetlab.simulators",
    "forgetlab.training.huggingface",
)
# results of a function that has the example, and parts of one
BESIDES = {"check_importance", "save_importance", "weights_of"} | {
    *("Drift", "Head", "ImportanceCloud", "Interference", "Measurement", "OneStep", "Place", "Quadrants"),
    "TwoTasks",
}
# the names that every example may use, as the package's docstring says
NAMES: dict[str, Callable[[], Any]] = {
    "model": lambda: load("tiny-bert"),
    "new": lambda: task("sentiment"),
    "old": lambda: task("entities"),
}


def public(module: ModuleType) -> list[str]:
    return list(getattr(module, "__all__", ()))


@pytest.mark.parametrize("name", SHOWN)
def test_the_examples_of_the_docstrings_run(name: str) -> None:
    module = import_module(name)
    given = {"torch": torch, "finetune": finetune, "load": load, "suite": suite, "task": task}
    examples, said = 0, list[str]()
    for test in doctest.DocTestFinder().find(module, name, globs=vars(module) | given):
        code = "".join(example.source for example in test.examples)
        test.globs |= {word: make() for word, make in NAMES.items() if re.search(rf"\b{word}\b", code)}
        failed = doctest.DocTestRunner(verbose=False).run(test, out=said.append).failed
        assert not failed, "".join(said)
        examples += len(test.examples)
    assert examples


@pytest.mark.parametrize("room", PROMISED)
def test_every_promised_name_has_an_example(room: str) -> None:
    module = import_module(room)
    things = {name: getattr(module, name) for name in public(module)}
    kinds = {name: thing for name, thing in things.items() if inspect.isfunction(thing) or inspect.isclass(thing)}
    without = {name for name, thing in kinds.items() if ">>> " not in (thing.__doc__ or "")}
    assert kinds
    assert without <= BESIDES, f"{room}: no example for {sorted(without - BESIDES)}"


def test_what_an_all_names_is_there() -> None:
    listed = [import_module(name) for name in ("forgetlab", *MODULES) if public(import_module(name))]
    assert len(listed) > 13
    for module in listed:
        assert not [name for name in public(module) if not hasattr(module, name)], module.__name__


def test_no_submodule_is_named_like_a_function_of_its_package() -> None:
    packages = [module for module in map(import_module, ["forgetlab", *MODULES]) if hasattr(module, "__path__")]
    for package in packages:
        below = {found.name for found in iter_modules(package.__path__)}
        functions = {name for name in public(package) if callable(getattr(package, name))}
        assert not below & functions, f"{package.__name__}: {below & functions}"


def code_of_the_documentation() -> Iterator[tuple[str, str]]:
    """(place, Python) of every cell and every block."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                yield path.name, re.sub(r"^[%!].*$", "", "".join(cell["source"]), flags=re.MULTILINE)
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        for block in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            yield path.name, block


def is_public(module: str, name: str) -> bool:
    if module.startswith("forgetlab.teaching.exercises."):
        return name.startswith("check_")
    room = import_module(module)
    thing = getattr(room, name)
    return name in public(room) or (inspect.ismodule(thing) and bool(public(thing)))


def test_readme_docs_and_lessons_import_only_what_is_public() -> None:
    imports = {
        (place, node.module, alias.name)
        for place, code in code_of_the_documentation()
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "forgetlab"
        for alias in node.names
    }
    assert {place for place, *_ in imports} >= {"README.md", "00_start_here.ipynb", "13_beyond_one_fine_tune.ipynb"}
    assert not sorted(found for found in imports if not is_public(*found[1:]))


def test_the_short_scripts_of_the_readme_run(capsys: pytest.CaptureFixture[str]) -> None:
    """All but the Trainer's, which tests/training/huggingface runs."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [
        block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "ForgettingTrainer" not in block
    ]
    linear = torch.nn.Linear(3, 2)
    given: dict[str, Any] = {"module": linear, "inputs": torch.ones(4, 3), "labels": torch.zeros(4, dtype=torch.long)}
    body, tokenizer = small_model().body, small_model().tokenizer
    given["classifier"] = AutoModelForSequenceClassification.from_config(cast(Any, body).config)
    batch = {**tokenizer(["the film", "the plot"], return_tensors="pt"), "labels": torch.tensor([0, 1])}
    given["trainer"] = SimpleNamespace(get_train_dataloader=lambda: [batch])
    seen: dict[str, Any] = {}
    for block in blocks:
        short = block.replace("watch=[", "steps=4, limit=8, watch=[").replace(
            "[(inputs, labels), ...]", "[(inputs, labels)]"
        )
        names = dict(given)
        exec(short, names)
        seen |= names
    assert len(blocks) >= 3
    assert re.match(r"0 \{'sentiment': ", capsys.readouterr().out)
    assert seen["fisher"]["weight"].shape == linear.weight.shape
    assert {name: value.shape for name, value in seen["more"].items()} == {
        name: p.shape for name, p in given["classifier"].named_parameters()
    }


def test_the_commands_of_the_readme_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    words = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md"))
    targets = set(
        re.findall(r"\bmake ([a-z][a-z-]*)", "\n".join(re.findall(r"^    make .*$|`make [^`]*`", words, re.M)))
    )
    assert {"lab", "demo", "test", "check", "book"} <= targets
    assert not [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)]
    for command, options in re.findall(r"python -m forgetlab (\w+)(.*)", words):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        told = capsys.readouterr().out
        assert not [option for option in re.findall(r"--[\w-]+", options) if f" {option}" not in told], command
    for folder in re.findall(r"\]\((?!http)([^)#]+)", words):
        assert (ROOT / folder).exists(), folder


def test_the_book_has_a_page_of_every_public_name() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "api.py"))["page"]()
    for room in PROMISED:
        things = [name for name in public(import_module(room)) if inspect.isroutine(getattr(import_module(room), name))]
        assert not [name for name in things if f"\n### {name}\n\n```python\n{name}(" not in page], room
    assert "\n### EWC\n\n```python\nEWC(fisher: Mapping[str, Tensor] | Sequence[Task], " in page
    assert "\n```pycon\n>>> rows = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])" in page
    assert "api.md" in (ROOT / "book" / "make.py").read_text(encoding="utf-8")


def test_contributing_says_where_every_room_is() -> None:
    words = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = [found.name for found in iter_modules(forgetlab.__path__)]
    assert len(rooms) > 13
    assert not [room for room in rooms if f"`{room}`" not in words]


def test_the_page_names_a_remedy_that_only_its_module_has(monkeypatch: pytest.MonkeyPatch) -> None:
    class Toy(Method):
        """A remedy that no list names."""

    monkeypatch.setitem(METHODS, "toy", Toy)
    page = runpy.run_path(str(ROOT / "docs" / "api.py"))["page"]()
    assert page.count("### Toy") == 1
    assert page.count("### EWC\n") == 1


def test_the_table_of_what_a_watched_trainer_costs_is_that_of_the_recorded_run() -> None:
    """docs/real-models.md against what benchmarks/trainers.py wrote: a row a case, in its order."""
    cases = json.loads((ROOT / "benchmarks/results/trainers-cpu.json").read_text(encoding="utf-8"))["cases"]
    page = (ROOT / "docs/real-models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:all weights|LoRA), [^|]* \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$", page, re.MULTILINE)
    wanted = [
        (
            f"{one['checkpoint'] / 1e6:.1f}",
            f"{one['peak']:.0f} (×{one['peak / plain']:.2f})",
            f"{one['ms']:.0f} (×{one['ms / plain']:.2f})",
        )
        for one in cases.values()
    ]
    assert rows == wanted


def test_what_a_run_holds_is_as_recorded() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "copies.json").read_text(encoding="utf-8"))["copies"]
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    told = {
        name: rest for name, *rest in re.findall(r"^\| ([\w ,-]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.M)
    }
    assert len(found) > 20
    for name, row in found.items():
        assert told[name] == [f"{row[column]:.1f}" for column in ("between steps", "in a step", "set-up")]
    plain = {name: row["between steps"] for name, row in found.items() if name.startswith("plain")}
    assert len(plain) == 3
    assert max(plain.values()) < 4.05  # watched or not: the weights, those before, and AdamW's two moments
