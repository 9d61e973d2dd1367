# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A · Pages: a picture to move through, in one piece
#
# You will build: what lesson 07 uses to put a living picture into a notebook. You need none of it to understand the model.
# The page runs in seconds.
#
# Pictures of attention that answer to the mouse usually fetch a script from somewhere. On a train, behind a firewall, or in a notebook saved two years ago there is nobody to fetch it from, and the picture is blank. So ours carries all it needs: its numbers, its script, its style.

# %%
#| default_exp pages

# %% [markdown]
# ## One character for each weight
#
# How many weights are there to carry? Take six layers of six heads on 128 characters, somewhat more than our model has. Only the past counts, so row $t$ has $t + 1$ of them.

# %%
import torch

T = 128
print(f"{6 * 6 * T * (T + 1) // 2:,} weights")

# %% [markdown]
# Written out as `0.0312` that would be two megabytes. For a colour far less will do: ninety steps. And since most weights are small, the steps are taken of the square root, so that they are finer near 0. Each step has a printable character; `<` and `\` are left out, because they mean something to a browser.

# %%
#| export
import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

import torch

LEVELS = "".join(chr(code) for code in range(35, 127) if chr(code) not in "<\\")


def weights_as_text(weights):
    """Causal weights (..., T, T) from 0 to 1 -> one character for each, row by row, the future left out."""
    past = torch.ones(weights.shape[-2:], dtype=torch.bool).tril()
    steps = (weights.sqrt() * (len(LEVELS) - 1)).round().long()[..., past].flatten()
    return torch.tensor(list(LEVELS.encode()), dtype=torch.uint8)[steps].numpy().tobytes().decode()

# %%
print(len(LEVELS), "steps:", LEVELS)
A = torch.tensor([[1.0, 0.0, 0.0], [0.3, 0.7, 0.0], [0.01, 0.0, 0.99]])
text = weights_as_text(A)
back = [(LEVELS.index(char) / (len(LEVELS) - 1)) ** 2 for char in text]
print(text, [round(weight, 2) for weight in back])

# %% [markdown]
# What that does near 0, against ninety even steps:

# %%
import matplotlib.pyplot as plt

from chargpt_lib.data import show

w = torch.linspace(0, 0.05, 1001)
fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
ax.plot(w, (w * 89).round() / 89, color="#D55E00", linestyle="--", label="even steps")
ax.plot(w, ((w.sqrt() * 89).round() / 89) ** 2, color="#0072B2", label="even steps of the root")
ax.set(xlabel="weight", ylabel="weight that arrives", title="Ninety steps, near 0")
ax.legend(frameon=False)
show(fig, "Two staircases: with even steps, all below half a percent arrives as 0; with steps of the root, "
     "the stairs near 0 are tiny.")

# %% [markdown]
# How far off can it be? Half a step of the root, which is most for large weights:

# %%
w = torch.linspace(0, 1, 10_001)
back = ((w.sqrt() * (len(LEVELS) - 1)).round() / (len(LEVELS) - 1)) ** 2
off = (back - w).abs()
print(f"at most {off.max():.1%} of the whole; for weights below 1%, at most {off[w < 0.01].max():.2%}")

# %% [markdown]
# ## A still picture that comes to life
#
# The page is a box with something still in it, a picture and a table, and after it a script. Where scripts run, it builds the living picture in the box and hides the still one. Where they are cut out, as on GitHub, the still one remains.
#
# The numbers travel as JSON inside of the script. One trap: a text that is shown may itself hold `</script>`, and a browser would end the script there, in the middle of a string. JSON may write any character as a number, so `<` is written `\u003c`.

# %%
#| export
class Page:
    """A piece of HTML that needs nothing else: a notebook shows it, and it can be saved as a page."""

    def __init__(self, html):
        self.html = html

    def _repr_html_(self):
        return self.html

    def save(self, path):
        """Writes a page that opens by itself, and that the browser forbids to ask for anything else."""
        policy = "default-src 'none'; img-src data:; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
        Path(path).write_text(
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>chargpt</title>\n'
            f'<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}"></head>\n'
            f'<body style="font: 15px/1.4 system-ui, sans-serif; max-width: 75rem; margin: 1rem auto; padding: 0 1rem">'
            f"\n{self.html}\n</body></html>\n", encoding="utf-8")


def live_page(name, data, still):
    """A page whose box holds still HTML until the script of this name, in the assets, brings data to life in it."""
    assets = Path(find_spec("chargpt_lib").origin).parent / "assets"
    script, style = ((assets / f"{name}.{ending}").read_text(encoding="utf-8").strip() for ending in ("js", "css"))
    key = hashlib.sha256(json.dumps([data, still]).encode()).hexdigest()[:8]
    packed = json.dumps({**data, "key": key, "style": style}).replace("<", "\\u003c")
    return Page(f'<div class="chargpt-{name}" data-key="{key}" data-lm-suppress-shortcuts="true">\n{still}\n</div>\n'
                f"<script>({script})({packed});</script>")

# %%
risky = live_page("attention", {"text": "</script><b>", "layers": [0], "heads": [0], "levels": LEVELS,
                                "weights": weights_as_text(torch.full((12, 12), 1 / 12).tril())}, "<p>still</p>")
print("scripts that begin and end:", risky.html.count("<script>"), risky.html.count("</script>"))
print("the still part is there:", "<p>still</p>" in risky.html)

# %% [markdown]
# The key is a fingerprint of what is shown: the script finds its box by it, also where a notebook shows several, and a page made twice is the same to the last character.
#
# The script and the style themselves are the one part of the library that is written by hand and not in a lesson: `chargpt_lib/assets/attention.js` and `attention.css`. They are meant to be read, too.
#
# ## What you have
#
# `weights_as_text`, `Page` and `live_page`, in `chargpt_lib/pages.py`. Lesson [07](07_attention_maps.ipynb) fills the box.
