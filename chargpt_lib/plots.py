"""Pictures: how figures are shown, heatmaps, tables of prices, the bars of where the nats go, and pages of HTML."""

import hashlib
import json
import math
from functools import lru_cache
from html import escape
from pathlib import Path

import torch

from chargpt_lib.files import library_dir
from chargpt_lib.playhouse import KINDS

SIGNS = {" ": "␣", "\n": "⏎", "\t": "⇥"}


@lru_cache
def _font_characters(path):
    """The numbers of the characters that a font can draw; none for a font that matplotlib cannot use."""
    from matplotlib.font_manager import get_font

    try:
        font = get_font(path)
        if not font.scalable:  # a font of pictures, such as emoji in colour
            return frozenset()
        return frozenset(font.get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@lru_cache
def _font_for(char):
    """The name of a font of this computer that can draw a character; None where no font can."""
    from matplotlib.font_manager import fontManager

    for font in fontManager.ttflist:
        # A font of the last resort draws every character, and all of them alike.
        if not font.name.startswith("Last Resort") and ord(char) in _font_characters(font.fname):
            return font.name
    return None


def _character_code(char):
    """What stands for a character that cannot be drawn: its number, as in [1F600]."""
    return f"[{ord(char):X}]"


def _drawable(text, characters):
    """A text that can be drawn, and the fonts that it needs besides one with these characters."""
    drawn = []
    fonts = []
    for char in text:
        if ord(char) not in characters and char != "\n":
            font = _font_for(char)
            if font is None:
                char = _character_code(char)
            elif font not in fonts:
                fonts.append(font)
        drawn.append(char)
    return "".join(drawn), fonts


def _prepare_text(text):
    """Makes one text of a figure drawable -> the text that it should have."""
    from matplotlib.font_manager import findfont

    text.set_parse_math(False)
    characters = _font_characters(findfont(text.get_fontproperties()))
    drawn, fonts = _drawable(text.get_text(), characters)
    if fonts:
        text.set_fontfamily([*text.get_fontfamily(), *fonts])
    return drawn


def _prepare_tick_labels(axis):
    """Makes the tick labels of an axis drawable, where they are words."""
    from matplotlib.ticker import LogFormatter, NullFormatter, ScalarFormatter

    if isinstance(axis.get_major_formatter(), (ScalarFormatter, LogFormatter, NullFormatter)):
        return
    labels = axis.get_ticklabels()
    drawn = [_prepare_text(label) for label in labels]
    if drawn != [label.get_text() for label in labels]:
        # Set as labels of the axis, because at every draw it writes its own into the texts.
        axis.set_ticks(axis.get_majorticklocs(), drawn)
        if axis.axis_name == "x":
            axis.set_tick_params(labelrotation=90)


def prepare_texts(fig):
    """Makes the texts of a matplotlib figure drawable as they are, whoever wrote them.

    A dollar sign begins no formula. A character that its font lacks comes from another font, or becomes its number.
    """
    from matplotlib.axis import Tick
    from matplotlib.text import Text

    for ax in fig.axes:
        _prepare_tick_labels(ax.xaxis)
        _prepare_tick_labels(ax.yaxis)
    in_ticks = set()
    for tick in fig.findobj(Tick):
        in_ticks.update((tick.label1, tick.label2))
    for text in fig.findobj(Text):
        if text not in in_ticks and text.get_text() != "":
            text.set_text(_prepare_text(text))


def show(fig, alt):
    """Displays a matplotlib figure; alt says in words what it shows."""
    from IPython.core.pylabtools import print_figure
    from IPython.display import display
    from matplotlib.pyplot import close

    prepare_texts(fig)
    picture = {"image/png": print_figure(fig, base64=True), "text/plain": alt}
    display(picture, raw=True, metadata={"image/png": {"alt": alt}})
    close(fig)


def visible(text):
    """The characters of a text as labels, with signs for what cannot be seen: the space, the end of the line, ..."""
    labels = []
    for char in text:
        if char in SIGNS:
            char = SIGNS[char]
        elif not char.isprintable():  # other spaces, and controls
            char = _character_code(char)
        labels.append(char)
    return labels


def heatmap(ax, values, rows=None, columns=None, cells=None, vmin=0, vmax=1):
    """Draws a matrix in colours -> the image, for a colorbar. rows, columns: labels; cells: a text for each field."""
    values = torch.as_tensor(values).detach().cpu().numpy()
    image = ax.imshow(values, cmap="cividis", vmin=vmin, vmax=vmax, aspect="auto")
    font = {"family": "DejaVu Sans Mono", "fontsize": 9}
    if rows:
        ax.set_yticks(range(len(rows)), rows, **font)
    if columns:
        ax.set_xticks(range(len(columns)), columns, **font)
    for i, row in enumerate(cells if cells is not None else []):
        for j, cell in enumerate(row):
            dark = image.norm(values[i, j].item()) < 0.5
            ax.text(
                j, i, cell, ha="center", va="center", color="white" if dark else "black", **font
            )
    return image


def price_table(text, probabilities):
    """A text, and the probability of each of its next characters -> a table to print, a line for each.

    text: T + 1 characters, or a list of T + 1 tokens. probabilities (T,), a tensor or a list: what the model gave to
    text[t + 1] at position t. The price is minus the logarithm; the last line is the mean. All numbers get the sign
    "≈" of numbers from a trained model.

    Raises: ValueError where there is not one probability for each character after the first.
    """
    if len(probabilities) != len(text) - 1 or len(text) < 2:
        raise ValueError(
            f"{len(probabilities)} probabilities for {len(text)} characters: expected one for each "
            f"character after the first"
        )
    labels = [repr(symbol) for symbol in text]
    width = max(len(label) for label in labels + ["here"])
    lines = [f" t  {'here':{width}}  {'next':{width}}  probability       price"]
    prices = []
    for t, p in enumerate(float(p) for p in probabilities):
        price = -math.log(p) if p > 0 else math.inf
        prices.append(price)
        # "0.000" would look like an infinite price; both forms are five characters wide.
        shown = f"{p:.3f}" if p >= 0.0005 or p == 0 else f"{p:.0e}"
        lines.append(
            f"{t:2}  {labels[t]:{width}}  {labels[t + 1]:{width}}      ≈ {shown}  ≈ {price:5.2f} nats"
        )
    mean = sum(prices) / len(prices)
    lines.append(f"    {'mean':{2 * width + 15}}  ≈ {mean:5.2f} nats")
    return "\n".join(lines)


COLOURS = dict(
    zip(KINDS, ("#56B4E9", "#E69F00", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2"))
)


def plot_excess(excesses, floor):
    """Stacked bars: {name of a model: {kind: nats per character above the floor}} -> matplotlib figure."""
    from matplotlib.pyplot import subplots

    fig, ax = subplots(figsize=(9, 1.3 + 0.4 * len(excesses)), layout="constrained")
    names, left = list(excesses), [floor] * len(excesses)
    ax.barh(names, left, color="#BBBBBB", label="the floor")
    for kind, colour in COLOURS.items():
        widths = [max(excesses[name][kind], 0) for name in names]
        ax.barh(
            names, widths, left=left, color=colour, label=kind, edgecolor="white", linewidth=0.5
        )
        left = [start + width for start, width in zip(left, widths)]
    for name, end in zip(names, left):
        ax.text(end, name, f" {floor + sum(excesses[name].values()):.2f}", va="center", fontsize=9)
    ax.set(xlabel="nats per character", title="Where the nats go", xlim=(0, 1.12 * max(left)))
    ax.invert_yaxis()
    fig.legend(
        *ax.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8
    )
    prepare_texts(fig)
    return fig


LEVELS = "".join(chr(code) for code in range(35, 127) if chr(code) not in "<\\")


def weights_as_text(weights):
    """Causal weights (..., T, T) from 0 to 1 -> one character for each, row by row, the future left out."""
    past = torch.ones(weights.shape[-2:], dtype=torch.bool).tril()
    steps = (weights.sqrt() * (len(LEVELS) - 1)).round().long()[..., past].flatten()
    return torch.tensor(list(LEVELS.encode()), dtype=torch.uint8)[steps].numpy().tobytes().decode()


# What a saved page may do: run the script and show the pictures that stand in it, and ask nobody for anything.
POLICY = (
    "default-src 'none'; img-src data:; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)


class HtmlPage:
    """A piece of HTML that needs nothing else: a notebook shows it, and it can be saved as a page."""

    def __init__(self, html, title="chargpt", policy=POLICY):
        self.html = html
        self.title = title
        self.policy = policy

    def _repr_html_(self):
        return self.html

    def save(self, path):
        """Writes a page that opens by itself, and that the browser forbids to ask for anything else."""
        Path(path).write_text(
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(self.title)}</title>\n'
            f'<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{self.policy}"></head>\n'
            f'<body style="font: 15px/1.4 system-ui, sans-serif; max-width: 75rem; margin: 1rem auto; padding: 0 1rem">'
            f"\n<main>\n{self.html}\n</main></body></html>\n",
            encoding="utf-8",
        )


def read_asset(name):
    """The text of a file in the library's assets, such as attention.js."""
    return (library_dir() / "assets" / name).read_text(encoding="utf-8").strip()


def interactive_page(name, data, still, helpers="", **page_options):
    """A page whose box holds still HTML until the script of this name, in the assets, shows data in it.

    helpers: JavaScript whose functions the script calls, besides those of words.js. page_options: as for HtmlPage.
    """
    key = hashlib.sha256(json.dumps([data, still]).encode()).hexdigest()[:8]
    style = read_asset(f"{name}.css")
    packed = json.dumps({**data, "key": key, "style": style}).replace("<", "\\u003c")
    program = [read_asset("words.js"), helpers, f"({read_asset(f'{name}.js')})({packed});"]
    # In a function of its own, so that no name of it meets one of another output of the notebook.
    script = "\n".join(['(() => {\n"use strict";', *program, "})();"])
    return HtmlPage(
        f'<div class="chargpt-{name}" data-key="{key}" data-lm-suppress-shortcuts="true">\n{still}\n</div>\n'
        f"<script>{script}</script>",
        **page_options,
    )
