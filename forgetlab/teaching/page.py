"""What a page is told about our widgets: one style sheet, and a script that names their parts for screen readers.

ipywidgets has no traits for `aria-label`, `aria-valuetext`, a live region or the width of the page, so a widget brings
a hidden `<style onload=…>` along: it works wherever ipywidgets does (JupyterLab 4, Notebook 7, Colab, VS Code), needs
no extension, is no output of a cell, and where a page forbids inline scripts nothing happens. The script is installed
once a page; from then on it looks after every widget of the class `forgetlab`:

- a slider's handle is named by its label, and its value read as its readout says it, without idle zeros;
- a question's card is a group named by the question, and so are its options;
- notes are live regions that stay, while their words change;
- a lab learns its width, and from BESIDE on its controls stand beside its picture: both are seen at one glance;
- a figure that a cell shows gets the words that its PNG carries as alt text, which JupyterLab does not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import ipywidgets as widgets
from matplotlib.figure import Figure

OURS, SAYS, ASKED, CHOICES, WIDTH, DRAWN = (
    f"forgetlab{part}" for part in ("", "-says", "-asked", "-choices", "-width", "-drawn")
)
BODY, HAND, MANY, SEEN, LINE, IS_BESIDE = (
    f"forgetlab-{part}" for part in ("body", "hand", "many", "seen", "line", "beside")
)
WIDE, NARROW = 704, 560  # px: of a figure; below that many figures are drawn in one column
BESIDE = 720  # px: from here on the controls of a lab stand to the left of its picture
LEFT, LEFT_OF_MANY, GAP = 264, 340, 14  # px: of the controls, of those of a lab with many, and to the picture
HIGH, LOWER, LARGEST = 420, 384, 840  # px: of a broad picture beside its controls, of another, and across at most:
BROAD = 656  # px across; words around a smaller picture need more lines, and all fits in JupyterLab at 1280 × 720
INCH = 82  # px of a figure there: letters of 11 pt are 12.5 px high
SIGNS = {"right": ("✓", "#2e8540"), "not yet": ("…", "#b26a00"), "wrong": ("✗", "#d8413a")}  # seen on light and dark
INVERTED = 0.93  # on a dark page a figure's white becomes nearly the page's black; colours keep their hue
DARK = ':is([data-jp-theme-light="false"], html[theme="dark"], .vscode-dark, .vscode-high-contrast)'
# Labels stand above, so that a track is as long as its place. Both generations of widgets give an option one line:
# a longer one is cut, or lies over the next. Here it wraps.
STYLE = f"""
.{OURS} :is(.widget-hslider, .widget-dropdown, .widget-text, .widget-textarea) {{flex-flow: row wrap; height: auto}}
.{OURS} :is(.widget-hslider, .widget-dropdown, .widget-text, .widget-textarea) > .widget-label
  {{flex: 1 0 100%; text-align: left; line-height: 22px; height: 22px}}
.{OURS} .widget-hslider > .widget-label {{flex: 1 1 0; order: -2; white-space: nowrap}}
.{OURS} .widget-hslider > .widget-readout
  {{flex: none; order: -1; text-align: right; line-height: 20px; height: 22px; min-width: 40px}}
.{OURS} .widget-hslider > .slider-container {{flex: 1 0 calc(100% - 20px); height: 18px; margin: 0 10px 4px}}
.{OURS} :is(.widget-dropdown > select, .widget-text > input, .widget-textarea > textarea)
  {{flex: 1 1 100%; min-width: 0; min-height: 28px}}
.{BODY}, .{BODY} > * {{overflow: visible}}
.{OURS}:not(.{IS_BESIDE}) :is(.{HAND}, .{SEEN}) {{display: contents}}
.{OURS}:not(.{IS_BESIDE}) .{LINE} {{order: 1}}
.{IS_BESIDE} > .{BODY} {{flex-flow: row; align-items: flex-start; gap: {GAP}px}}
.{IS_BESIDE} .{HAND} {{flex: none; width: {LEFT}px}}
.{IS_BESIDE} .{MANY} {{width: {LEFT_OF_MANY}px}}
.{IS_BESIDE} .{MANY} .widget-inline-hbox:not(.{LINE}) {{flex: 1 1 150px !important; min-width: 150px !important}}
.{IS_BESIDE} .{MANY} .widget-readout {{min-width: 20px !important; width: auto !important}}
.{IS_BESIDE} .{SEEN} {{flex: 1 1 0; min-width: 0}}
.{IS_BESIDE} .{SEEN} > .{SAYS} {{order: 1}}
.{IS_BESIDE} .{SAYS} div {{max-width: none !important}}
.{CHOICES}, .{CHOICES} label, .{CHOICES} span
  {{height: auto !important; white-space: normal !important; overflow: visible !important; line-height: 1.4}}
.{CHOICES} .widget-radio-box label, .{CHOICES} .widget-label-basic
  {{display: flex !important; align-items: flex-start; margin-bottom: 6px}}
.{CHOICES} .widget-radio-box label {{flex-direction: row-reverse; justify-content: flex-end}}
.{CHOICES} input {{flex: none; align-self: flex-start !important; margin: 1px 8px 0 2px !important}}
{DARK} .{DRAWN} {{filter: invert({INVERTED}) hue-rotate(180deg)}}
{DARK} .{DRAWN} .{DRAWN} {{filter: none}}
"""
SCRIPT = f"""
if (!window.forgetlab) {{
  const words = (element) => element ? element.textContent.trim() : '';
  const mark = (element, values) => {{
    for (const key in values)
      if (element && values[key] && element.getAttribute(key) !== values[key]) element.setAttribute(key, values[key]);
  }};
  const slider = (one) => {{
    const handle = one.querySelector('.noUi-handle, .ui-slider-handle'), readout = one.querySelector('.widget-readout');
    const label = words(one.querySelector('.widget-label'));
    if (!handle || !readout) return;
    const said = words(readout).replace(/([.][0-9]*?)0+$/, '$1').replace(/[.]$/, '');
    if (said !== readout.textContent && document.activeElement !== readout) readout.textContent = said;
    if (handle.matches('.ui-slider-handle'))  // ipywidgets 7 gives it no role; the place is in per cent
      mark(handle, {{role: 'slider', 'aria-valuemin': '0', 'aria-valuemax': '100',
        'aria-valuenow': `${{parseFloat(handle.style.left) || 0}}`}});
    mark(handle, {{'aria-label': label, 'aria-valuetext': said}});
    mark(readout, {{role: 'textbox', 'aria-label': `${{label}}, value`}});
  }};
  const tell = (root) => {{
    const box = root.querySelector(':scope > .{WIDTH} input'), width = Math.round(root.clientWidth);
    if (!box || !width) return;
    const told = Number(box.value), kind = (px) => (px >= {NARROW}) + (px >= {BESIDE});
    root.classList.toggle('{IS_BESIDE}', kind(width) === 2);
    if (kind(width) === kind(told) && (kind(width) < 2 || Math.abs(width - told) < 40)) return;
    box.value = width;
    box.dispatchEvent(new Event('change', {{bubbles: true}}));
  }};
  const sizes = new ResizeObserver((list) => list.forEach((entry) => tell(entry.target)));
  const seen = new WeakSet();
  const carried = (source) => {{  // PNG: length, "iTXt", "Description", five bytes of 0, words
    const bytes = atob(source.slice(22, 8022)), at = bytes.indexOf('iTXtDescription'), length = 4 + 16;
    if (at < 4) return '';
    const size = 256 * bytes.charCodeAt(at - 2) + bytes.charCodeAt(at - 1);
    const own = Uint8Array.from(bytes.slice(at + length, at + 4 + size), (c) => c.charCodeAt(0));
    return new TextDecoder().decode(own);
  }};
  const dress = () => {{
    for (const root of document.querySelectorAll('.{OURS}')) {{
      root.querySelectorAll('.widget-hslider').forEach(slider);
      if (!seen.has(root)) sizes.observe(root);
      seen.add(root);
      tell(root);
    }}
    for (const asked of document.querySelectorAll('.{ASKED}')) {{
      const card = asked.closest('.{OURS}'), name = words(asked);
      mark(card, {{role: 'group', 'aria-label': name}});
      if (card) card.querySelectorAll('.widget-radio-box').forEach(
        (box) => mark(box, {{role: 'radiogroup', 'aria-label': name}}));
    }}
    for (const note of document.querySelectorAll('.{SAYS} > .widget-html-content'))
      mark(note, {{role: 'status', 'aria-live': 'polite'}});
    for (const image of document.querySelectorAll('img[src^="data:image/png;base64,"]:not([alt])')) {{
      const told = seen.has(image) ? '' : carried(image.src);
      seen.add(image);
      mark(image, {{alt: told}});
      if (told) image.classList.add('{DRAWN}');
    }}
  }};
  window.forgetlab = new MutationObserver(dress);
  window.forgetlab.observe(document.documentElement,
    {{subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ['aria-valuetext']}});
  dress();
}}
"""


def judged(kind: str, words: str) -> str:
    """Words with the sign and the colour of a verdict (of SIGNS), as HTML: alike in questions, exercises and labs."""
    sign, color = SIGNS[kind]
    rule = f"border-left:3px solid {color};padding-left:8px;line-height:1.4;max-width:640px"
    return f'<div style="{rule}"><b aria-hidden="true" style="color:{color}">{sign}</b> {escape(words)}</div>'


@dataclass(frozen=True)
class Place:
    """Where a picture stands: as it was made; narrow, in one column; or beside its controls, `across` px wide."""

    narrow: bool = False
    across: int = 0

    @classmethod
    def of(cls, width: int, many: bool = False) -> Place:
        """The place in a lab so wide, in px. many: whether it has many controls."""
        if width < BESIDE:
            return cls(narrow=width < NARROW)
        return cls(across=min(width - (LEFT_OF_MANY if many else LEFT) - GAP, LARGEST))

    @property
    def room(self) -> tuple[float, float] | None:
        """Inches of a figure across and up; None: as it was made."""
        high = HIGH if self.across >= BROAD else LOWER
        return (self.across / INCH, high / INCH) if self.across else None

    @property
    def wide(self) -> int:
        """The most that it takes, in px."""
        return self.across or WIDE

    def shown(self, figure: Figure) -> int:
        """How wide a figure is shown at most, in px."""
        return self.across or round(figure.bbox.width)


def sheet() -> widgets.HTML:
    """Style and script as a widget that takes no room."""
    return widgets.HTML(f'<style onload="{escape(SCRIPT)}">{STYLE}</style>', layout={"display": "none"})


def width() -> widgets.IntText:
    """The width that a lab has on its page in px, told where it matters: WIDE until the page says otherwise."""
    made = widgets.IntText(WIDE, layout={"display": "none"})
    made.add_class(WIDTH)
    return made
