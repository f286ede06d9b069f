"""The terms are whole, cover the lessons, and are offered by level."""

from __future__ import annotations

import re
from html import unescape

import ipywidgets as widgets
import pytest

from forgetlab.errors import ForgetlabError
from forgetlab.teaching import table, terms
from forgetlab.teaching.glossary import LEVELS, Term, folded, glossary, offered
from forgetlab.teaching.notebook import WIDGET

LESSONS = [f"{number:02d}" for number in range(14)]
EVERY = pytest.mark.parametrize("term", glossary(), ids=lambda term: term.term)


def test_there_are_enough_terms_each_once() -> None:
    names = [term.term.casefold() for term in glossary()]
    assert len(names) >= 65
    assert len(set(names)) == len(names)
    assert names == sorted(names)


@EVERY
def test_a_term_is_defined_three_times_over(term: Term) -> None:
    definitions = [term.at(level) for level in LEVELS]
    assert len(set(definitions)) == 3
    assert all(len(definition) >= 30 for definition in definitions)
    assert all(definition == definition.strip() for definition in definitions)
    assert all(definition[-1] in '.?!"' for definition in definitions)
    assert term.upto in LEVELS
    assert re.search(r"\d{4}|this handbook", term.source)
    assert term.lessons
    assert set(term.lessons) <= set(LESSONS)


@EVERY
def test_beginners_get_no_formula(term: Term) -> None:
    assert not re.search(r"[=ΣθΔ∂²√∇λ]|\bexp\(|\blog\b", term.beginner)


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_has_terms_for_every_level_and_fewer_for_the_more_expert(lesson: str) -> None:
    beginner, practitioner, expert = (offered(level, lesson) for level in LEVELS)
    assert len(beginner) >= 5
    assert len(expert) >= 2
    assert set(expert) <= set(practitioner) <= set(beginner)
    assert len(expert) < len(beginner)


def test_of_all_terms_beginners_see_the_most() -> None:
    counts = [len(offered(level)) for level in LEVELS]
    assert counts[0] == len(glossary())
    assert counts[0] > counts[1] > counts[2] > 0


def test_an_unknown_level_or_lesson_is_said_in_words() -> None:
    with pytest.raises(ForgetlabError, match="level"):
        offered("wizard")
    with pytest.raises(ForgetlabError, match="lesson"):
        offered("beginner", "14")
    with pytest.raises(ForgetlabError, match="lesson"):
        terms("1")


# The formulas that people get wrong, as FORMULAS of the field have them.
@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("backward transfer (BWT)", "1/(T−1) Σ_{i<T} (R[T, i] − R[i, i])"),
        ("forward transfer (FWT)", "1/(T−1) Σ_{i≥2} (R[i−1, i] − b_i)"),
        ("forgetting measure", "max_{l<T} R[l, j] − R[T, j]"),
        ("average accuracy (ACC)", "(1/T) Σ_j R[T, j]"),
        ("perplexity", "exp(Σ NLL / Σ tokens)"),
        ("L2-SP", "(λ/2) Σ_i (θ_i − θ₀,i)²"),
        ("EWC (elastic weight consolidation)", "(λ/2) Σ_i F_i (θ_i − θ*_i)²"),
        ("online EWC", "F ← γF + F_t"),
        ("A-GEM", "g ← g − (g·r / r·r) r"),
        ("proximal step", "(θ + ηλF θ*) / (1 + ηλF)"),
        ("linear CKA", "‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F)"),
        ("discriminative (layer-wise) rates", "η_{l−1} = η_l / 2.6"),
    ],
)
def test_the_expert_formulas(name: str, formula: str) -> None:
    (term,) = [term for term in glossary() if term.term == name]
    assert formula in term.expert


# -- as it is used ----------------------------------------------------------------------------------


def listed(html: str) -> list[str]:
    return [unescape(name) for name in re.findall("<summary[^>]*>(.*?)</summary>", html)]


def test_the_selector_changes_what_is_listed() -> None:
    shown = terms("06")
    for level in LEVELS:
        shown.level.value = level
        assert listed(shown.listed.value) == [term.term for term in offered(level, "06")]
        assert unescape(shown.listed.value).count(offered("expert", "06")[0].at(level)) == 2  # on hover, and unfolded


def test_the_table_lists_all() -> None:
    assert listed(table().listed.value) == [term.term for term in glossary()]
    assert listed(table("expert").listed.value) == [term.term for term in offered("expert")]


def test_without_a_kernel_the_beginners_terms_stand_there() -> None:
    bundle = terms("03")._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", WIDGET}
    lines = bundle["text/plain"].splitlines()
    assert lines == [f"{term.term}: {term.beginner}" for term in offered("beginner", "03")]
    assert listed(bundle["text/html"]) == [term.term for term in offered("beginner", "03")]


def test_html_escapes_what_a_term_says() -> None:
    sharp = Term("<b>", 'a "quote" & <i>', "p", "x < y", "a & b", ("00",))
    html = folded([sharp], "beginner")
    assert "<b>" not in html
    assert "<i>" not in html
    assert 'title="a &quot;quote&quot; &amp; &lt;i&gt;"' in html
    assert "x &lt; y" in folded([sharp], "expert")
    assert "(a &amp; b)" in html


def test_only_widgets_that_both_generations_have() -> None:
    kinds = {type(child) for child in terms("00").children}
    assert kinds == {widgets.Dropdown, widgets.HTML}
