"""Pages that need nothing else: the numbers come back, and no text breaks the script."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch

from chargpt_lib.plots import LEVELS, HtmlPage, interactive_page, weights_as_text


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
    packed = re.search(r"\)\((\{.*\})\);</script>$", html, re.S)[1]
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
