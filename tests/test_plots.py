"""Pages that need nothing else: the numbers come back, and no text breaks the script."""

import io
import json
import re
import warnings
from html.parser import HTMLParser

import pytest
import torch

from chargpt_lib.attention_maps import attention_html, plot_attention, record_attention
from chargpt_lib.data import CharTokenizer
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.playhouse import KINDS
from chargpt_lib.plots import (
    LEVELS,
    HtmlPage,
    heatmap,
    interactive_page,
    plot_excess,
    prepare_texts,
    price_table,
    show,
    visible,
    weights_as_text,
)
from chargpt_lib.training import plot_ladder


def test_weights_come_back_in_their_order():
    weights = torch.rand(2, 3, 7, 7).tril()
    text = weights_as_text(weights)
    back = [(LEVELS.index(char) / (len(LEVELS) - 1)) ** 2 for char in text]
    wanted = [
        weights[layer, head, t, s].item()
        for layer in range(2)
        for head in range(3)
        for t in range(7)
        for s in range(t + 1)
    ]
    assert len(text) == 2 * 3 * 28
    assert max(abs(a - b) for a, b in zip(back, wanted)) < 0.012


@pytest.mark.parametrize("value, char", [(0.0, LEVELS[0]), (1.0, LEVELS[-1])])
def test_the_ends_of_the_scale_are_exact(value, char):
    assert weights_as_text(torch.full((1, 1), value)) == char


def test_the_levels_mean_nothing_to_a_browser():
    assert len(set(LEVELS)) == len(LEVELS) == 90
    assert not set(LEVELS) & set('<\\"') and LEVELS.isascii() and LEVELS.isprintable()


class Tags(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)


@pytest.mark.parametrize(
    "text",
    ["</script><img src=x onerror=alert(1)>", "<!-- <script>", "]]>", "\u2028\u2029", "'\"\\"],
)
def test_no_text_leaves_the_script(text):
    html = interactive_page("attention", {"text": text}, "<p>still</p>").html
    assert Tags(html).tags == ["div", "p", "script"]
    packed = re.search(r"\)\((\{.*\})\);\n\}\)\(\);</script>$", html, re.S)[1]
    assert "<" not in packed and json.loads(packed)["text"] == text


def test_the_same_page_twice_is_the_same_text():
    one, two, other = (
        interactive_page("attention", {"text": text}, "") for text in ("a", "a", "b")
    )
    assert one.html == two.html and one.html != other.html


def test_a_saved_page_is_whole_and_forbids_requests(tmp_path):
    HtmlPage("<p>ß</p>").save(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert (
        text.startswith("<!DOCTYPE html>") and "<p>ß</p>" in text and "default-src 'none'" in text
    )
    assert HtmlPage("<p>ß</p>")._repr_html_() == "<p>ß</p>"


# ---------------------------------------------------------------- figures of anybody's text

# A formula that matplotlib cannot parse, one that it can, letters that DejaVu lacks, and what nobody can see.
ODD_TEXTS = [
    "$$" + "a" * 79,
    "$$\\frac{$",
    "$x_1^2$ and $y$",
    "a\\$b\\$",
    "中文鵞 ひらがな",
    "हिन्दी",
    "😀👩‍👩‍👧",
    "\t\x07\x7f\u200b\u00a0\u2028",
    "é ü ☃ €",
]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    from matplotlib.pyplot import close

    close("all")


def drawn(fig):
    """The picture of a figure. An error where drawing it raises, or warns."""
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fig.savefig(picture)
    return picture.getvalue()


def words_in(fig):
    """All texts of a figure, as they were drawn."""
    from matplotlib.text import Text

    return [text.get_text() for text in fig.findobj(Text)]


@pytest.mark.parametrize("text", ODD_TEXTS)
@pytest.mark.parametrize("length", [1, 90])
def test_any_text_has_attention_maps(text, length):
    text = (text + "\n") * -(-length // len(text))
    tokenizer = CharTokenizer(text)
    model = GPT(GPTConfig(tokenizer.vocab_size, block_size=200, n_layer=1, n_head=2, n_embd=8))
    with record_attention(model.eval()) as maps:
        model(tokenizer.encode(text)[None])
    assert drawn(plot_attention(maps, text))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert attention_html(maps, text).html


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_any_text_may_be_a_title_a_label_and_a_name(text, tmp_path, monkeypatch):
    from matplotlib.pyplot import subplots

    fig, (left, right) = subplots(1, 2)
    heatmap(left, torch.eye(2), rows=[text, "b"], columns=["a", text], cells=[[text, ""], ["", ""]])
    left.set(title=text, xlabel=text)
    right.bar([text, "b"], [1, 1000], label=text)
    right.set_yscale("log")
    right.legend()
    fig.suptitle(text)
    prepare_texts(fig)
    assert drawn(fig)
    # matplotlib's own formulas are still drawn as such.
    assert any("mathdefault" in word for word in words_in(fig))

    assert drawn(
        plot_excess({text: dict.fromkeys(KINDS, 0.1), "b": dict.fromkeys(KINDS, 0.2)}, 0.3)
    )
    monkeypatch.setattr(
        "chargpt_lib.training.ladder",
        lambda corpus: {"bigram": {"loss": 2.0, "excess": {}, "floor": None, "recorded": False}},
    )
    assert drawn(plot_ladder(text))


def test_a_dollar_is_drawn_as_a_dollar():
    from matplotlib.pyplot import subplots

    pictures = []
    for title in ("$x$", "x"):
        fig, ax = subplots()
        ax.set(title=title)
        prepare_texts(fig)
        pictures.append(drawn(fig))
        assert title in words_in(fig)
    assert pictures[0] != pictures[1]  # as a formula, both would be an x, in italics or not


def test_a_letter_without_a_font_becomes_its_number(monkeypatch):
    from matplotlib.pyplot import subplots

    monkeypatch.setattr("chargpt_lib.plots._font_for", lambda char: None)
    fig, ax = subplots()
    ax.set_xticks([0, 1], ["鵞", "b"])
    ax.set(title="one 鵞")
    prepare_texts(fig)
    assert drawn(fig)
    assert {"one [9D5E]", "[9D5E]", "b"} <= set(words_in(fig))
    assert [label.get_rotation() for label in ax.get_xticklabels()] == [90, 90]


def test_a_letter_comes_from_a_font_that_has_it():
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font
    from matplotlib.pyplot import subplots

    fig, ax = subplots()
    # DejaVu Sans has the mathematical letters; its sister for typewriters has not.
    title = ax.set_title("𝔸", family="DejaVu Sans Mono")
    assert ord("𝔸") not in FT2Font(findfont("DejaVu Sans Mono")).get_charmap()
    prepare_texts(fig)
    assert drawn(fig)
    mono, *others = title.get_fontfamily()
    assert mono == "DejaVu Sans Mono" and title.get_text() == "𝔸"
    assert any(ord("𝔸") in FT2Font(findfont(family)).get_charmap() for family in others)


def test_what_cannot_be_seen_has_a_sign():
    assert visible("a \n\t") == ["a", "␣", "⏎", "⇥"]
    assert visible("\x07\u200b\u00a0") == ["[7]", "[200B]", "[A0]"]


def test_show_prepares_the_texts(monkeypatch):
    from matplotlib.pyplot import subplots

    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **settings: shown.append(data))
    fig, ax = subplots()
    ax.set(title="$$")
    show(fig, "two dollars")
    assert shown[0]["text/plain"] == "two dollars" and shown[0]["image/png"]


# ---------------------------------------------------------------- what a line costs


def test_a_price_table_has_a_line_for_each_next_character_and_the_mean():
    table = price_table("goo!", [0.5, 0.001, torch.tensor(1e-7)]).split("\n")
    assert len(table) == 5
    assert "'g'" in table[1] and "'o'" in table[1] and table[1].endswith("≈ 0.500  ≈  0.69 nats")
    assert table[2].endswith("≈ 0.001  ≈  6.91 nats")
    assert "'!'" in table[3] and table[3].endswith("≈ 1e-07  ≈ 16.12 nats")
    assert table[4].endswith("≈  7.91 nats") and "mean" in table[4]
    assert len({len(line) for line in table[1:]}) == 1  # the columns stand below each other


def test_a_price_table_fits_on_a_screen_and_takes_tokens_and_tensors():
    assert price_table("O damp goose!", torch.full((12,), 0.5)).count("\n") == 13
    assert "'damp '" in price_table(["O ", "damp ", "goose"], [0.5, 0.25])
    assert price_table("ab", torch.zeros(1)).endswith("inf nats")


@pytest.mark.parametrize("text, probabilities", [("abc", [0.5]), ("a", []), ("", []), ("ab", [])])
def test_a_price_table_wants_one_probability_for_each_next_character(text, probabilities):
    with pytest.raises(ValueError, match="one for each"):
        price_table(text, probabilities)
