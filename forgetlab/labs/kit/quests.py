"""Quests of a lab: small aims that tick themselves off when a finished run shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import ipywidgets as widgets

from forgetlab.plots import sides
from forgetlab.teaching import compat, page

TRIES = 3  # finished runs before the hints are shown
QUIET = "color:var(--jp-ui-font-color2, #6b6b6b)"


@dataclass(frozen=True)
class Quest:
    """An aim in words. done(states): whether the finished runs, the newest last, show it.

    hint: shown after TRIES runs without it. by: for each of the runs that reach it the settings to change, as a test
    runs them; the opening run alone does not reach it.
    """

    aim: str
    hint: str
    done: Callable[[Sequence[Any]], bool]
    by: tuple[Mapping[str, Any], ...]


def achieved(state: Mapping[str, Any], learn: float = 0.0, keep: float = 0.0) -> bool:
    """Whether a run ends with at least this new score and this kept share of the old ones, as `trade_off` has them."""
    lost, new = sides.end(state["tasks"], state["records"])
    return new >= learn and 1 - lost >= keep


def last(state: Mapping[str, Any], task: int, metric: str) -> float:
    """A score at the end of a run; task: its place, the new one 0."""
    return float(state["records"][-1]["scores"][state["tasks"][task]["name"]][metric])


def times(state: Mapping[str, Any], task: int) -> float:
    """How many times as high as at first a perplexity is at the end; task: as for `last`."""
    name = state["tasks"][task]["name"]
    first, final = (state["records"][i]["scores"][name]["perplexity"] for i in (0, -1))
    return float(final / first)


class Quests:
    """The quests of a lab as a folded list; ticks stay for as long as the lab is there, whatever is reset."""

    def __init__(self, quests: Sequence[Quest]) -> None:
        self._quests, self._states, self._open = tuple(quests), list[Mapping[str, Any]](), False
        self.done: set[str] = set()
        self.parts: tuple[widgets.Widget, ...] = ()
        if not quests:
            return
        self.button, self.list = compat.button("", compat.weakly(self.fold)), compat.note()
        self.button.style.button_color = "transparent"
        self.button.layout.align_self, self.button.layout.padding = "flex-start", "0"
        self.parts = self.button, self.list
        self._show()

    def see(self, state: Mapping[str, Any]) -> None:
        """Look at a finished run."""
        if not self._quests:
            return
        self._states.append(state)
        self.done |= {quest.aim for quest in self._quests if self._shown_by_runs(quest)}
        self._show()

    def _shown_by_runs(self, quest: Quest) -> bool:
        try:
            return quest.done(self._states)
        except (LookupError, TypeError, ValueError, ArithmeticError):  # a run that broke off lacks what is asked
            return False

    def fold(self) -> None:
        """Show the list, or hide it."""
        self._open = not self._open
        self._show()

    def _show(self) -> None:
        arrow = "▾" if self._open else "▸"
        self.button.description = f"Quests {len(self.done)}/{len(self._quests)} {arrow}"
        self.list.layout.display = None if self._open else "none"
        self.list.value = "".join(map(self._line, self._quests))

    def _line(self, quest: Quest) -> str:
        sign, color = page.SIGNS["right"] if quest.aim in self.done else ("○", "inherit")
        hinted = quest.aim not in self.done and len(self._states) >= TRIES
        hint = f'<div style="{QUIET}">Hint: {escape(quest.hint)}</div>' if hinted else ""
        words = f'<b style="color:{color}">{sign}</b> {escape(quest.aim)}{hint}'
        return f'<div style="line-height:1.3;padding-left:1.2em;text-indent:-1.2em">{words}</div>'
