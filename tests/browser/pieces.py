"""Pages as lesson 07 makes them, of any weights, with something smaller than the wall of maps standing still in them."""

from html import escape
from pathlib import Path

import torch

from chargpt_lib.plots import LEVELS, interactive_page, weights_as_text

ASSETS = Path(__file__).resolve().parents[2] / "chargpt_lib" / "assets"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def attention_html(weights, text, **more):
    """weights: (L, H, T, T); text: T characters, or a list of T tokens; more: further data of the page."""
    L, H, _, _ = weights.shape
    data = {
        "text": text,
        "layers": list(range(L)),
        "heads": list(range(H)),
        "levels": LEVELS,
        "weights": weights_as_text(torch.as_tensor(weights.copy())),
        **more,
    }
    still = (
        f'<img alt="every head" width="300" height="300" src="data:image/png;base64,{PIXEL}">'
        f"<details><summary>strongest looks</summary><table><tr><td>{escape(''.join(text))}</td></tr></table></details>"
    )
    return interactive_page("attention", data, still).html
