"""The book's pages, from files, with every host blocked: terms, questions, links, without scripts and in print."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed: pip install -r requirements.txt")
pytest.importorskip("axe_playwright_python", reason="axe-core is not installed: pip install -r requirements.txt")

from playwright.sync_api import Browser, Page

from book.reading import cells
from forgetlab.teaching.glossary import glossary, offered
from forgetlab.teaching.questions import FINAL, Question, judge, questions
from tests.book.pages import opened
from tests.browser.axe import serious

LESSON, OTHER, QUIZ = "00_start_here.html", "06_regularising.html", "13_beyond_one_fine_tune.html"
TIP = "#forgetlab-tip"
WHERE = (*(f"{i:02}" for i in range(14)), FINAL)


class Read(HTMLParser):
    """What a page holds: its ids, where its links and pictures lead, pictures without words, its article's headings."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids, self.leads, self.silent, self.headings = set[str](), list[str](), list[str](), list[int]()
        self.article = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        own = dict(attributes)
        self.ids.update(filter(None, (own.get("id"), own.get("name") if tag == "a" else None)))
        self.leads += [where for key in ("href", "src") if (where := own.get(key)) and tag in ("a", "img", "script")]
        if tag == "img" and not own.get("alt"):
            self.silent.append(own.get("src") or "")
        self.article |= tag == "article"
        if self.article and re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        self.article &= tag != "article"


@pytest.fixture(scope="module")
def read(book: Path) -> dict[str, Read]:
    return {path.name: Read(path) for path in sorted(book.glob("*.html"))}


@pytest.fixture
def page(started: Browser, book: Path) -> Iterator[Page]:
    with opened(started, book / LESSON) as one:
        yield one


def test_every_link_leads_somewhere_and_every_page_is_led_to(book: Path, read: dict[str, Read]) -> None:
    assert {"index.html", "README.html", "glossary.html", "watch-it-forget.html", LESSON, QUIZ} <= set(read)
    broken, led = [], {"index.html"}
    for name, own in read.items():
        for where in own.leads:
            parts = urlsplit(where)
            if parts.scheme or not (parts.path or parts.fragment):
                continue
            target, place = unquote(parts.path) or name, unquote(parts.fragment)
            led |= {target} if target != name else set()
            known = target in read and (not place or place in read[target].ids)
            if not known and not (target not in read and (book / target).exists()):
                broken.append(f"{name}: {where}")
    assert broken == []
    assert set(read) - led == {"README.html", "search.html"}  # the old address, and where the search field leads
    assert "url=index.html" in (book / "README.html").read_text(encoding="utf-8")


def test_pictures_have_words_and_headings_their_order(read: dict[str, Read]) -> None:
    assert {name: own.silent for name, own in read.items() if own.silent} == {}
    for name, own in read.items():
        if own.headings:
            assert own.headings[0] == 1, name
            assert own.headings.count(1) == 1, name
            assert all(after <= before + 1 for before, after in itertools.pairwise(own.headings)), name


def test_terms_open_their_definition_by_pointer_and_stay_while_pointed_at(page: Page) -> None:
    term, tip = page.locator("article a.forgetlab-term", has_text="catastrophic forgetting").first, page.locator(TIP)
    (entry,) = [one for one in glossary() if one.term == "catastrophic forgetting"]
    assert not tip.is_visible()
    term.hover()
    tip.wait_for()
    assert entry.beginner in tip.inner_text()
    assert term.get_attribute("aria-describedby") == "forgetlab-tip"
    box = tip.bounding_box()
    assert box
    page.mouse.move(box["x"] + 20, box["y"] + box["height"] / 2, steps=5)
    page.wait_for_timeout(600)
    assert tip.is_visible()  # hoverable
    page.keyboard.press("Escape")
    assert not tip.is_visible()  # dismissable
    term.hover()
    tip.wait_for()
    page.mouse.move(5, 5)
    tip.wait_for(state="hidden")
    assert term.get_attribute("aria-describedby") is None


def test_terms_by_keyboard_and_at_the_level_that_is_remembered(page: Page) -> None:
    term, tip = page.locator("article a.forgetlab-term", has_text="catastrophic forgetting").first, page.locator(TIP)
    (entry,) = [one for one in glossary() if one.term == "catastrophic forgetting"]
    level = page.get_by_label("Terms for:").first
    level.focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        if tip.is_visible():
            break
    assert entry.beginner in tip.inner_text()
    assert term.evaluate("e => e === document.activeElement")
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert tip.is_visible()
    words = page.locator(".forgetlab-words a:visible")
    for chosen in ("practitioner", "expert"):
        level.select_option(chosen)
        assert page.evaluate("localStorage.getItem('forgetlab.level')") == chosen
        assert words.all_inner_texts() == [one.term for one in offered(chosen, "00")]
    assert term.get_attribute("href") is None  # plain to an expert
    page.goto(page.url.replace(LESSON, OTHER))
    assert page.get_by_label("Terms for:").first.input_value() == "expert"
    page.locator("article p a.forgetlab-term[href$=online-ewc]").first.hover()
    tip.wait_for()
    (online,) = [one for one in glossary() if one.term == "online EWC"]
    assert re.sub(r"\W", "", online.expert) in re.sub(r"\W", "", tip.inner_text())


def test_a_browser_that_refuses_storage_and_one_that_holds_nonsense(started: Browser, book: Path) -> None:
    refuses = """for (const way of ['getItem', 'setItem']) {
        const own = Storage.prototype[way];
        Storage.prototype[way] = function (key, ...more) {  // of us alone: the theme does not expect it
            if (key.startsWith('forgetlab')) throw new DOMException('refused', 'SecurityError');
            return own.call(this, key, ...more);
        };
    }"""
    for script in (refuses, "localStorage.setItem('forgetlab.level', 'wizard')"):
        with opened(started, book / "glossary.html", script=script) as page:
            level = page.get_by_label("Terms for:").first
            assert level.input_value() == "beginner"
            level.select_option("expert")
            assert page.evaluate("document.documentElement.dataset.forgetlabLevel") == "expert"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_tap_shows_the_tip_within_a_narrow_screen(started: Browser, book: Path, scheme: str) -> None:
    options: dict[str, Any] = {"viewport": {"width": 400, "height": 720}, "has_touch": True, "color_scheme": scheme}
    with opened(started, book / LESSON, **options) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        for term in page.locator("article p a.forgetlab-term").all()[:8]:
            page.keyboard.press("Escape")  # the last tip may lie over the next term
            term.tap()
            page.locator(TIP).wait_for()
            box = page.locator(TIP).bounding_box()
            assert box
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 400
            assert box["y"] >= 0
            assert box["y"] + box["height"] <= 720
            assert page.url.endswith(LESSON)
        assert serious(page, TIP, ".forgetlab-level", ".forgetlab-question", ".forgetlab-words") == []
        term.tap()
        page.wait_for_url("**/glossary.html#term-*")
        assert page.evaluate("document.querySelector(':target') !== null")


def answers(question: Question) -> list[int | list[int] | str | None]:
    """Right and wrong ones: every option, every choice of several, numbers in all the ways that they are written."""
    if question.kind == "single":
        return [None, *range(len(question.options))]
    if question.kind == "multiple":
        places = range(len(question.options))
        return [list(one) for size in range(len(places) + 1) for one in itertools.combinations(places, size)]
    right, near = question.answer, question.tolerance
    numbers = [
        right,
        right + near,
        right - near,
        right + 1.5 * near + 1e-6,
        right - 1.5 * near - 1e-6,
        -right,
        1000 * right,
    ]
    numbers += [wrong for wrong, _ in question.traps]
    written = [form.format(number) for number in numbers for form in ("{:.12g}", "{:,.3f}", " {:.6f} ", "{:.9e}")]
    written += [f"{right:.12g}{end}" for end in ("%", f" {question.unit}", question.unit, "%%", " apples")]
    odd = [
        "",
        "  ",
        "inf",
        "nan",
        "0x10",
        "1_000",
        "−2",
        "×3",
        "= .5",
        "5.",
        "+1",
        "1e",
        "--1",
        "1,2,3",
        "a" * 60,
        "😀" * 50,
    ]
    return [*written, *(text.replace(".", ",") for text in written), *odd]


def test_the_page_judges_as_the_widget_does(page: Page) -> None:
    """Every question, thousands of answers."""
    asked = [(one, answers(one)) for where in WHERE for one in questions(where)]
    assert {one.kind for one, _ in asked} == {"single", "multiple", "numeric"}
    given = [[json.loads(cells.data(one)), tried] for one, tried in asked]
    found = page.evaluate("given => given.map(([q, tried]) => tried.map((one) => forgetlab.judge(q, one)))", given)
    rights = 0
    for (question, tried), verdicts in zip(asked, found, strict=True):
        for answer, verdict in zip(tried, verdicts, strict=True):
            true = judge(question, answer)
            assert verdict == {"right": true.right, "words": true.words, "given": true.given}, (question.id, answer)
        rights += any(verdict["right"] for verdict in verdicts)
    assert rights == len(asked)


def test_a_question_answers_by_keyboard(page: Page) -> None:
    question = questions("00")[0]
    card = page.locator(".forgetlab-question").first
    says = card.get_by_role("status")
    wrong, right = (next(i for i, one in enumerate(question.options) if one.right is truth) for truth in (False, True))
    assert card.get_by_role("group", name=question.ask[:40]).count() == 1
    card.get_by_role("button", name="Answer").press("Enter")
    assert says.inner_text() == "Choose an answer first."
    card.get_by_role("radio").first.focus()
    page.keyboard.press("Space")
    for _ in range(wrong):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert says.inner_text() == f"✗ Wrong. {question.options[wrong].why}"
    assert says.get_attribute("data-verdict") == "wrong"
    card.get_by_role("radio").nth(right).check()
    assert says.inner_text() == ""  # it judged another choice
    page.keyboard.press("Enter")
    assert says.inner_text() == f"✓ Right. {question.options[right].why} {question.why}"
    card.get_by_role("button", name="Clear").press("Enter")
    assert card.locator(":checked").count() == 0
    assert says.inner_text() == ""


def test_the_final_quiz_counts_by_topic(started: Browser, book: Path) -> None:
    asked = questions(FINAL)
    with opened(started, book / QUIZ) as page:
        quiz = page.locator(".forgetlab-quiz")
        cards, score = quiz.locator(".forgetlab-question"), quiz.locator("table")
        assert cards.count() == len(asked)
        place, several = next((i, one) for i, one in enumerate(asked) if one.kind == "multiple")
        boxes = [i for i, option in enumerate(several.options) if option.right]
        card, topic = cards.nth(place), score.get_by_role("row", name=several.topic)
        card.get_by_role("checkbox").nth(boxes[0]).check()
        card.get_by_role("button", name="Answer").click()
        assert card.get_by_role("status").get_attribute("data-verdict") == ("not yet" if len(boxes) > 1 else "right")
        count = sum(one.topic == several.topic for one in asked)
        assert re.search(rf"0 of {count} right\s+{count - 1} unanswered", topic.inner_text())
        for box in boxes:
            card.get_by_role("checkbox").nth(box).check()
        card.get_by_role("button", name="Answer").click()
        assert "Right." in card.get_by_role("status").inner_text()
        assert re.search(rf"1 of {count} right\s+{count - 1} unanswered", topic.inner_text())
        assert f"Score: 1 of {len(asked)}" in score.inner_text()
        place, number = next((i, one) for i, one in enumerate(asked) if one.kind == "numeric")
        cards.nth(place).get_by_role("textbox").fill(f"{number.answer}")
        cards.nth(place).get_by_role("textbox").press("Enter")
        assert f"Score: 2 of {len(asked)}" in score.inner_text()
        quiz.get_by_role("button", name="Clear all answers").click()
        quiz.get_by_role("button", name="Really clear all?").click()
        assert f"Score: 0 of {len(asked)}" in score.inner_text()
        assert quiz.locator(":checked").count() == 0


def test_without_scripts_everything_can_be_read(started: Browser, book: Path) -> None:
    with opened(started, book / LESSON, java_script_enabled=False) as page:
        assert page.locator("article a.forgetlab-term[href^='glossary.html#term-']").count() > 30
        for i, question in enumerate(questions("00")):
            card = page.locator(".forgetlab-question").nth(i)
            assert question.ask in card.inner_text()
            assert [one.text for one in question.options] == card.locator("li").all_inner_texts()
            card.locator("summary").click()
            assert question.why in card.inner_text()
        setup = page.locator("details.hide", has=page.locator("summary", has_text="Set-up"))
        assert setup.get_attribute("open") is None
        assert not setup.locator("pre").first.is_visible()
        setup.locator("summary").click()
        assert "forgetlab" in setup.locator("pre").first.inner_text()
        assert page.locator("main#main-content article h1").count() == 1
        page.locator("article a.forgetlab-term", has_text="replay").first.click()
        assert "glossary.html#term-experience-replay" in page.url
        assert page.locator("#term-experience-replay").count() == 1
        (replay,) = [one for one in glossary() if one.term == "experience replay"]
        assert all(one in page.inner_text("article") for one in (replay.beginner, replay.practitioner, replay.expert))


def test_formulas_need_no_scripts(started: Browser, book: Path) -> None:
    with opened(started, book / OTHER, java_script_enabled=False) as page:
        assert page.locator("article math").count() > 100
        assert not re.search(r"\\(frac|theta|lambda|\()", page.inner_text("article"))
        ewc = page.locator("article math[display=block]", has_text="EWC").first
        assert [ewc.locator(part).count() for part in ("mfrac", "munder", "msup, msubsup")] == [1, 1, 2]
        box = ewc.bounding_box()
        assert box
        assert box["height"] > 30  # drawn, not written in a row


def test_printed_it_has_the_pictures_and_no_controls(page: Page) -> None:
    page.locator("article a.forgetlab-term").first.focus()
    page.emulate_media(media="print")
    for selector in (TIP, ".forgetlab-level", ".forgetlab-buttons"):
        assert not [one for one in page.locator(selector).all() if one.is_visible()], selector
    assert page.locator("article img").first.is_visible()
    assert page.locator(".forgetlab-question legend").first.is_visible()
    assert (
        page.locator("article a.forgetlab-term").first.evaluate("e => getComputedStyle(e).textDecorationLine") == "none"
    )
    assert page.pdf()[:5] == b"%PDF-"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_a_lesson(started: Browser, book: Path, scheme: str) -> None:
    with opened(started, book / LESSON, color_scheme=scheme) as page:
        card = page.locator(".forgetlab-question").first
        card.locator("input").first.check()
        card.get_by_role("button", name="Answer").click()
        parts = ("article > section > p", "details.hide", ".forgetlab-level", ".forgetlab-question", ".forgetlab-still")
        assert serious(page, *parts, "article p math", "nav.bd-docs-nav") == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_search_finds_a_term(started: Browser, book: Path) -> None:
    with opened(started, book / "search.html") as page:
        page.goto(f"{page.url}?q=reservoir+sampling")
        page.locator("#search-results li a").first.wait_for()
        assert "glossary.html" in " ".join(
            str(one.get_attribute("href")) for one in page.locator("#search-results li a").all()
        )
