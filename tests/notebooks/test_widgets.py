"""Every lab in a real kernel, moved by the messages that a page sends: on this generation of widgets, and on Colab's.

`make test-colab` runs the same file with ipywidgets 7.7.1, ipython 7.34 and ipykernel 6.17.1.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest

from forgetlab.labs import LABS
from tests.notebooks.kernel import LOST, Kernel
from tests.notebooks.test_notebooks import COLAB

pytestmark = pytest.mark.slow

SHORT = "forgetlab 1 watch: lr=0.001, steps=20, similarity=1, seed=9"  # of which no run is recorded
SHORT_DONE = "A kept result|After 20 steps"
INSIDE = """
def _ids(lab):
    import json
    ids = {kind: {n: w.model_id for n, w in getattr(lab, kind).items()} for kind in ("training", "buttons")}
    print(json.dumps({**ids, "notes": {n: getattr(lab, n).model_id for n in ("message", "picture", "line")}}))
"""


class Page:
    """A lab as a page shows it: what it says, its picture, its controls. All of it through messages."""

    def __init__(self, kernel: Kernel, lab: str, name: str = "lab") -> None:
        self.kernel, self.lab, self.name = kernel, lab, name
        ids = json.loads(kernel.run(f"from forgetlab import labs\n{name} = labs.{lab}.show()\n{INSIDE}\n_ids({name})"))
        self.controls: dict[str, str] = ids["training"]
        self.buttons: dict[str, str] = ids["buttons"]
        self.notes: dict[str, str] = ids["notes"]

    def state(self, control: str) -> dict[str, Any]:
        return self.kernel.widgets[self.controls[control]]

    @property
    def says(self) -> str:
        return unescape(re.sub("<[^>]*>", "", self.kernel.widgets[self.notes["message"]]["value"]))

    @property
    def picture(self) -> str:
        return str(self.kernel.widgets[self.notes["picture"]]["value"])

    @property
    def alt(self) -> str:
        found = re.search('alt="([^"]*)"', self.picture)
        return unescape(found[1]) if found else ""

    def drawn(self, before: str) -> bool:
        """Whether a picture is there that is not the one before, nor that one faintly while a run is prepared."""
        return self.picture != before and "opacity" not in self.picture

    @property
    def line(self) -> str:
        return str(self.kernel.widgets[self.notes["line"]]["value"])

    def move(self, control: str, value: Any, subshell: str | None = None) -> str:
        """Send a move, and do not wait for what comes of it. What was said before is wiped: new words are an answer."""
        self._wipe(subshell)
        trait = "index" if "index" in self.state(control) else "value"
        return self.kernel.send(self.controls[control], subshell=subshell, **{trait: value})

    def press(self, label: str, subshell: str | None = None) -> str:
        if label != "Stop":
            self._wipe(subshell)
        return self.kernel.click(self.buttons[label], subshell=subshell)

    def paste(self, line: str) -> str:
        self._wipe()
        return self.kernel.send(self.notes["line"], value=line)

    def until(self, words: str) -> None:
        """Wait for words in the message; not for those that were there before the last move."""
        self.kernel.wait(lambda: re.search(words, self.says), what=f"“{words}” in {self.lab}")

    def close(self) -> None:
        self.kernel.taken(self.press("Stop") if "Stop" in self.buttons else self.press("Reset"))
        self.kernel.run(f"{self.name}._runner.stop(); del {self.name}")

    def _wipe(self, subshell: str | None = None) -> None:
        """In the kernel too: a widget sends only what changes, so the same words said again would not come."""
        asked = self.kernel.send(self.notes["message"], subshell=subshell, value="")
        if subshell:  # may be handled in another thread than what comes next
            self.kernel.taken(asked)


def kept(kernel: Kernel, lab: str) -> list[dict[str, Any]]:
    """The settings of the runs that came to their end."""
    return [json.loads(file.read_text())["settings"] for file in kernel.cache.glob(f"lab-{lab}-*.json")]


def in_kernel(tmp_path_factory: pytest.TempPathFactory, driver: str = "") -> Iterator[Kernel]:
    kernel = Kernel(tmp_path_factory.mktemp("kernel"), {"FORGETLAB_DRIVER": driver})
    yield kernel
    kernel.close()


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """The driver that is picked in a kernel: a thread."""
    yield from in_kernel(tmp_path_factory)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """The driver of Colab."""
    yield from in_kernel(tmp_path_factory, "inline")


@pytest.fixture
def watch(kernel: Kernel) -> Iterator[Page]:
    page = Page(kernel, "watch")
    yield page
    page.close()


def test_an_ignored_interrupt_is_no_error_of_the_kernel_and_all_else_is() -> None:
    """What Python really says, for an interrupt and for an error, of which one must not hide the other."""
    code = """
import weakref
class Thing:
    def go(self): pass
def back(_): raise {}
thing = Thing()
ref = weakref.WeakMethod(thing.go, back)
del thing
"""
    said = {}
    for error in ("KeyboardInterrupt()", "ValueError('lost')"):
        made = subprocess.run([sys.executable, "-c", code.format(error)], capture_output=True, text=True, check=True)
        said[error] = made.stderr
        assert "Exception ignored" in made.stderr
    interrupt, other = said.values()
    assert LOST.sub("", interrupt) == ""
    assert LOST.sub("", other) == other
    assert LOST.sub("", interrupt + other + interrupt) == other
    raised = 'Traceback (most recent call last):\n  File "x", line 1\nKeyboardInterrupt\n'
    assert LOST.sub("", raised) == raised  # one that was not ignored


# -- every lab --------------------------------------------------------------------------------------


# one of each kind; the others long where the pages of all are opened in the process too, by tests/labs
KINDS = ("watch", "own", "cloud", "ask", "reward", "frontier")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if COLAB or name in KINDS else pytest.mark.long) for name in LABS]
)
def test_every_lab_opens_moves_and_resets(kernel: Kernel, name: str) -> None:
    page = Page(kernel, name)
    begin = page.line
    assert begin.startswith(f"forgetlab 1 {name}: ")
    instant = "Train" not in page.buttons
    assert page.picture if instant else page.picture or "Press Train" in page.says

    shown = page.picture
    page.paste(f"{begin}, nonsense=1")
    page.until("Nothing was changed")
    assert "unknown setting 'nonsense'" in page.says
    assert (page.line, page.picture) == (begin, shown)

    control = next(name for name in ("seed", *page.controls) if name in page.controls)
    page.move(control, page.state(control)["max"] if control == "seed" else other_value(page.state(control)))
    if not instant and page.lab == "own":  # its moves only check
        page.until("Press Train")
        page.press("Train")
    page.kernel.wait(lambda: page.drawn(shown), what=f"a new picture of {name}")
    assert re.search('<img [^>]*alt="[^"]{20,}"|aria-label="[^"]{10,}"', page.picture)
    assert not page.says.startswith("error")
    assert page.line != begin
    if not instant:
        page.press("Stop")
        page.until(r"\.\)?$")  # a sentence, not the progress of a run
        assert not page.says.startswith("error")
    kernel.taken(page.press("Reset"))
    assert page.line == begin
    assert not page.says.startswith("error")
    page.close()


def other_value(control: dict[str, Any]) -> Any:
    """A value beside the present one."""
    if "index" in control:
        return 1 if control["index"] == 0 else 0
    if "base" in control:
        return control["base"] ** control["min"]
    value, step = control["value"], control["step"]
    return value + step if value + step <= control["max"] else value - step


# -- a training lab, thoroughly ---------------------------------------------------------------------


def test_a_run_grows_and_ends_with_its_scores(watch: Page) -> None:
    kernel = watch.kernel
    kernel.taken(watch.paste(SHORT))
    watch.until("After 20 steps")
    assert re.search(r"After 20 steps: sentiment 0\.\d\d → 0\.\d\d, masked-lm \d+\.\d+ → \d+\.\d+", watch.says)
    assert watch.alt.startswith("After 20 steps")
    assert watch.line == SHORT
    first = watch.says
    kernel.taken(watch.press("Train"))
    watch.until("After 20 steps")
    assert watch.says == first  # the same run twice: the same numbers


def test_five_quick_moves_cost_one_training(watch: Page) -> None:
    kernel, longer = watch.kernel, SHORT.replace("steps=20", "steps=200")  # none ends before the next move has come
    watch.paste(longer.replace("seed=9", "seed=3"))
    watch.until("training|step")
    before = kept(kernel, "watch")
    for seed in (4, 5, 6, 7, 8):
        watch.move("seed", seed)
    watch.until("After 200 steps")
    assert [s["seed"] for s in kept(kernel, "watch") if s not in before] == [8]
    assert watch.state("seed")["value"] == 8
    assert watch.line == longer.replace("seed=9", "seed=8")


def test_stop_keeps_the_part_and_the_next_run_is_right(watch: Page) -> None:
    kernel = watch.kernel
    watch.paste(SHORT)
    watch.until(SHORT_DONE)
    whole = re.search(r"After 20 steps: [^(]*", watch.alt)[0]
    watch.move("steps", 300)
    watch.until("step [1-9]")
    kernel.taken(watch.press("Stop"))
    watch.until("what was reached stays")
    reached = int(re.search(r"After (\d+) steps", watch.alt)[1])
    assert 0 < reached < 300
    assert 300 not in [s["steps"] for s in kept(kernel, "watch")]
    kernel.taken(watch.paste(SHORT))
    watch.until(SHORT_DONE)
    kernel.taken(watch.press("Train"))
    watch.until("After 20 steps")
    assert whole in watch.says


def test_an_interrupt_keeps_the_part_and_the_next_run_is_right(watch: Page) -> None:
    kernel = watch.kernel
    watch.move("steps", 300)
    watch.until("step [1-9]")
    kernel.interrupt()
    watch.until("what was reached stays")
    assert 0 < int(re.search(r"After (\d+) steps", watch.alt)[1]) < 300
    kernel.taken(watch.paste(SHORT))
    watch.until(SHORT_DONE)
    whole = watch.alt
    kernel.taken(watch.press("Train"))
    watch.until("After 20 steps")
    assert watch.alt == whole


def test_an_error_is_said_and_the_controls_stay_usable(watch: Page) -> None:
    kernel, name = watch.kernel, watch.name
    kernel.run(f"""
def broken(settings):
    yield from ()
    raise ZeroDivisionError("on purpose")
whole, {name}._work = {name}._work, broken""")
    watch.paste(SHORT.replace("seed=9", "seed=7"))
    watch.until("error: ZeroDivisionError: on purpose")
    kernel.run(f"{name}._work = whole")
    kernel.taken(watch.press("Train"))
    watch.until("After 20 steps")


def test_two_labs_do_not_talk(watch: Page) -> None:
    kernel = watch.kernel
    other = Page(kernel, "watch", "other")
    begin, shown = other.line, other.picture
    watch.paste(SHORT.replace("lr=0.001", "lr=0.0001"))
    watch.until("step|training")
    other.paste(SHORT.replace("lr=0.001", "lr=0.01"))  # while the first one is at work
    watch.until("After 20 steps")
    other.until("After 20 steps")
    both = watch.says, other.says
    assert both[0] != both[1]
    for page, alone in zip((watch, other), both, strict=True):
        kernel.taken(page.press("Train"))
        page.until("After 20 steps")
        assert page.says == alone  # neither run has touched the other's model
    kernel.taken(other.press("Reset"))
    assert (other.line, watch.line) == (begin, SHORT.replace("lr=0.001", "lr=0.0001"))
    assert shown == "" or other.picture
    other.close()


def test_a_subshell_runs_a_lab_as_the_main_thread_does(watch: Page) -> None:
    """JupyterLab sends a widget's messages to a thread of their own, where the kernel has such."""
    kernel = watch.kernel
    subshell = kernel.subshell()
    if not subshell:
        pytest.skip("this kernel has no subshells")
    watch.paste(SHORT)
    watch.until(SHORT_DONE)
    kernel.taken(watch.press("Train"))
    watch.until("After 20 steps")
    main = watch.says
    kernel.taken(watch.press("Train", subshell))
    watch.until("After 20 steps")
    assert watch.says == main
    before = kept(kernel, "watch")
    for steps in (300, 280, 260, 240, 40):  # a page too sends a control's next move when the last one is taken,
        kernel.taken(watch.move("steps", steps, subshell))  # for the kernel may give the two to different threads
    watch.until("After 40 steps")
    assert [s["steps"] for s in kept(kernel, "watch") if s not in before] == [40]
    kernel.taken(watch.move("steps", 300, subshell))
    watch.until("step [1-9]")
    kernel.taken(watch.press("Train"))  # from the main thread, while the other one is at work
    watch.until("step [1-9]")
    watch.press("Stop", subshell)
    watch.until("what was reached stays")


def test_moves_train_and_stop_are_answered_while_a_cell_computes(watch: Page) -> None:
    """By messages that ask for a thread of their own, as JupyterLab's do; the cell computes until it may end."""
    kernel = watch.kernel
    subshell = kernel.subshell()
    if not subshell:
        pytest.skip("this kernel has no subshells")
    kernel.taken(watch.paste(SHORT))
    watch.until(SHORT_DONE)
    over = kernel.terminal.parent / "over"
    loop = f"while not Path({str(over)!r}).exists():\n    sum(range(10_000))"
    cell = kernel.client.execute(f"from pathlib import Path\n{loop}")
    watch.move("steps", 300, subshell)
    watch.until("step [1-9]")
    for answer in ("Stop", "Train", "Stop"):
        watch.press(answer, subshell)
        watch.until("step [1-9]" if answer == "Train" else "what was reached stays")
    over.touch()
    kernel.taken(cell)


def test_stop_breaks_off_a_piece_that_never_ends_while_a_cell_computes(watch: Page) -> None:
    """A page's messages and a lab's run have threads of their own: neither waits for the other, nor for the cell."""
    kernel, name = watch.kernel, watch.name
    subshell = kernel.subshell()
    if not subshell:
        pytest.skip("this kernel has no subshells")
    kernel.taken(watch.paste(SHORT))
    watch.until(SHORT_DONE)
    kernel.run(f"""
def endless(settings):
    for state in whole(settings):
        yield state
        while True:
            sum(range(100))
whole, {name}._work = {name}._work, endless""")
    over = kernel.terminal.parent / "over too"
    loop = f"while not Path({str(over)!r}).exists():\n    sum(range(10_000))"
    cell = kernel.client.execute(f"from pathlib import Path\n{loop}")
    watch.press("Train", subshell)
    watch.until("step 0 of 20")
    watch.press("Stop", subshell)
    watch.until("stopping …|what was reached stays")
    watch.until("what was reached stays")
    assert watch.alt.startswith("After 0 steps")
    over.touch()
    kernel.taken(cell)
    kernel.run(f"{name}._work = whole")


# -- as on Colab ------------------------------------------------------------------------------------


def test_inline_a_move_an_interrupt_and_the_next_run(patient: Kernel) -> None:
    page = Page(patient, "watch")
    patient.taken(page.paste(SHORT))
    assert "After 20 steps" in page.says  # when the message is handled, the run is done
    whole = page.says
    page.move("steps", 300)
    page.until("step [1-9]")
    patient.interrupt()
    page.until("what was reached stays")
    assert 0 < int(re.search(r"After (\d+) steps", page.alt)[1]) < 300
    assert [s["steps"] for s in kept(patient, "watch")] == [20]
    patient.taken(page.paste(SHORT))
    patient.taken(page.press("Train"))
    assert page.says == whole
    for steps in (40, 20, 40, 20):  # kept by now: a queue of moves ends at the last
        last = page.move("steps", steps)
    patient.taken(last)
    assert page.line == SHORT
    assert "20 steps" in page.alt
    page.close()


@pytest.mark.parametrize("name", ["pull", "cloud"])
def test_inline_other_labs(patient: Kernel, name: str) -> None:
    page = Page(patient, name)
    shown = page.picture
    page.move("seed", 9)
    page.kernel.wait(lambda: page.drawn(shown), what="a new picture")
    if name == "pull":
        patient.interrupt()
        page.until("what was reached stays")
    patient.taken(page.press("Reset"))
    assert "seed=0" in page.line
    assert not page.says.startswith("error")
    page.close()
