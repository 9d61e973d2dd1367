# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 07 · Attention maps: what each head looks at
#
# > What each head looks at: attention recorded, drawn, shown live; heads ablated.
#
# You will build: a recorder of attention weights that works for any model, pictures of these weights (one you can move through), a switch that turns single heads off, and a small model in which two heads together learn to copy.
# You need lesson 06. On two CPU cores the page takes about a minute; with `TRAIN = True`, below, about three more the first time.
#
# The model writes `Meg:` at the beginning of a line, and Meg is on the cast list. Where did the model get her from? At the end of this page you can point to the heads that fetched her, switch them off, and watch strangers begin to speak.

# %%
from collections import Counter

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.devices import pick_device, pick_scale
from chargpt_lib.exercises import NotAttempted, check, progress
from chargpt_lib.gpt import GPT, PLAYHOUSE, GPTConfig, load_pretrained
from chargpt_lib.plots import heatmap, show, visible
from chargpt_lib.single_head import causal_mask, scaled_dot_product_attention
from chargpt_lib.training import load_or_fit

# %%
CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
TRAIN = False  # True: train your own model here, three minutes on two CPU cores
CACHE_DIR = None  # or a folder that outlives the session: "/content/drive/MyDrive/chargpt", "/kaggle/working" (see RUNNING_ELSEWHERE.md)
corpus, device = load_corpus(CORPUS), pick_device()
scale = pick_scale(device)  # 1 on a CPU: see lesson 00
RECORDED = CORPUS == "playhouse" and not TRAIN

# %% [markdown]
# Which head does what differs from model to model, even if only the seed has changed. So this page opens the model that comes with the course (lesson 06): it has lesson 06's size, was trained for longer, and is the same on every machine. All statements below about single heads are about that model.
#
# With `TRAIN = True`, or with another `CORPUS`, you train a model of your own here, for 3,600 steps, and the same cells look into it. The sentences about single heads then need not hold: in your model other heads will do these things, and some things no head will do. During training, `load_or_fit` calls `callback(step, model)` before each step. Our `keep_copy` saves the model before some of the steps, in a folder `album`, for the end of the page.

# %%
from pathlib import Path

from safetensors.torch import load_file, save_model
from safetensors.torch import load_model as load_weights

from chargpt_lib.files import bundled_dir, cache_dir
from chargpt_lib.training import cache_file_name, cache_key

# The steps before which your own model is saved.
SNAPSHOTS = (0, 100, 200, 300, 400, 500, 600, 800, 1000, 1400, 2000, 3000)


def keep_copy(step, model):
    if step in SNAPSHOTS:
        album.mkdir(exist_ok=True)
        save_model(model, str(album / f"{step}.safetensors"))

# %%
if RECORDED:
    model, tokenizer, result = load_pretrained("playhouse")
    model.to(device)
    print(
        f"recorded by the authors of the course on {result['date']}, with PyTorch {result['machine']['torch']}"
    )
else:
    tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
    torch.manual_seed(1337)
    model = GPT(GPTConfig.cpu(tokenizer.vocab_size, **PLAYHOUSE)).to(device)
    settings = {"steps": 3600, "batch_size": 6 * scale, "lr": 5e-3}
    key = cache_key("heads", model, corpus, settings)
    album = Path(CACHE_DIR or cache_dir()) / f"album-{cache_file_name(key)}"
    result = load_or_fit(
        "heads", model, corpus, cache_dir=CACHE_DIR, callback=keep_copy, **settings
    )
    album.mkdir(exist_ok=True)
    save_model(model, str(album / f"{settings['steps']}.safetensors"))

# %%
steps = result["steps"] if RECORDED else settings["steps"]
print(f"4 layers of 6 heads, {model.num_params():,} parameters, trained for {steps:,} steps")
print(f"exact loss {result['loss']:.3f} nats per character")
assert result["loss"] < 2.5 and not model.training

# %%
PLAY = (
    "A barn. Enter Meg and Hal with a damp goose.\nHal: The owl sings.\nMeg: Who hid the owl, Hal?\n"
    "Hal: Not I, Meg.\nExit Hal, licking the goose.\n\n"
)
SCENE = PLAY if corpus.name == "playhouse" else corpus.val[: len(PLAY)]
print(SCENE)

# %% [markdown]
# ## The fused kernel does not return its weights
#
# The fused kernel of lesson 04 takes $Q$, $K$, $V$ and returns $A V$, where $A$ holds the weights, $A = \operatorname{softmax}(Q K^\top / \sqrt d)$ with the mask. It never returns $A$ itself; that is why it is fast.
#
# **Predict:** which $V$ would you give the kernel, so that its result *is* $A$?

# %%
torch.manual_seed(1337)
q, k = torch.randn(2, 1, 5, 4)  # 5 positions, a head of size 4
identity = torch.eye(5)[None]  # (1, 5, 5)
A = F.scaled_dot_product_attention(q, k, identity, is_causal=True)  # V = I, so A V = A
by_hand = scaled_dot_product_attention(q, k, q, causal_mask(5))[1]  # lesson 03
for row in A[0]:
    print("  ".join(f"{weight:.2f}" for weight in row.tolist()), f"  sum {row.sum():.2f}")
print(f"largest difference from lesson 03's weights: ≈ {(A - by_hand).abs().max():.0e}")
assert torch.allclose(A, by_hand, atol=1e-6)

# %% [markdown]
# The answer is the identity matrix: row $s$ of $I$ says "I am position $s$ and nothing else", and a weighted average of such rows says how much of each went in.
#
# ## Recording every head
#
# In a model, $q$ and $k$ live for a moment inside a layer. How do we get at them without rewriting the model? PyTorch can report every function that a model calls. The module `chargpt_lib/attention_calls.py` listens, and picks out two kinds of call: the fused kernel, and a softmax whose result is square. Nearly all attention goes through one of them, whatever the classes are called. For each call, its `AttentionInterceptor` calls our function `on_call` with four things: the layer, the numbers of the heads, the result of the call, and a function that computes the weights of the heads we want. After the pass it calls `on_end` with the number of heads in each layer. (How it listens is plumbing: you need not read it.)
#
# The class below holds the weights, and the function after it is the recorder: it keeps the weights that pass by, and returns every result unchanged.

# %%
#| export
import base64
import re
from contextlib import contextmanager
from html import escape
from io import BytesIO

import torch
from matplotlib import colors
from matplotlib import pyplot as plt

from chargpt_lib.attention_calls import (
    AttentionInterceptor,
    check_has_attention,
    check_heads,
    check_selection,
)
from chargpt_lib.plots import (
    LEVELS,
    heatmap,
    interactive_page,
    prepare_texts,
    visible,
    weights_as_text,
)


class AttentionMaps:
    """The weights that `record_attention` recorded, a list of (B, H, T, T), with the numbers of their layers and heads."""

    def __init__(self):
        self.weights = []
        self.layers = []
        self.heads = []
        self.has_all_heads = False  # whether every layer and head was recorded

    def for_text(self, text):
        """(L, H, T, T), on the CPU. text: T characters, or a list of T tokens.

        Raises: ValueError where these are not the maps of this one text.
        """
        if not self.weights:
            raise ValueError(
                "nothing was recorded: run the model inside `with record_attention(model) as maps:`"
            )
        B, _, T, columns = self.weights[0].shape
        if not (B == 1 and T == columns == len(text)):
            raise ValueError(
                f"the maps have batch size {B} and {T} x {columns} positions, but this text needs "
                f"1 and {len(text)} x {len(text)}: record a pass over exactly this text (where "
                f"positions are tokens, give it as token_texts(tokenizer, text))"
            )
        return torch.cat(self.weights).float().cpu()

# %%
#| export
@contextmanager
def record_attention(model, layers=None, heads=None):
    """with record_attention(model) as maps: model(idx) -> maps.weights, a list of (B, H, T, T), of the last pass.

    layers, heads: lists of the numbers to record; None records all. The model and its results do not change.

    Raises: ValueError where a model has no attention, IndexError where it has no such layer or head.
    """
    check_selection(layers, heads)
    maps = AttentionMaps()
    recorded = {}  # layer: the weights of its calls

    def on_call(layer, numbers, out, weights):
        if layer == 0 and numbers[0] == 0:
            recorded.clear()  # a new pass begins: only the last one is kept
        some = [i for i, head in enumerate(numbers) if heads is None or head in heads]
        if some and (layers is None or layer in layers):
            recorded.setdefault(layer, []).append(weights(some))
        return out

    def on_end(counts):
        check_has_attention(model, counts)
        wanted_layers = range(len(counts)) if layers is None else layers
        wanted_heads = [0] if heads is None else heads
        check_heads(counts, [(layer, head) for layer in wanted_layers for head in wanted_heads])
        # One tensor stays as it is: joining it with nothing would copy it.
        maps.weights = [
            calls[0] if len(calls) == 1 else torch.cat(calls, dim=1) for calls in recorded.values()
        ]
        maps.layers = list(recorded)
        maps.heads = list(range(counts[0])) if heads is None else sorted(set(heads))
        maps.has_all_heads = layers is None and heads is None

    with AttentionInterceptor(model, on_call, on_end):
        yield maps

# %% [markdown]
# Record every head of every layer, on our scene. Does each row sum to 1, has the future no weight, and are the logits the same as without the recorder?

# %%
idx = tokenizer.encode(SCENE).to(device)[None]  # (1, T)
with torch.no_grad(), record_attention(model) as maps:
    recorded_logits, _ = model(idx)
for weights in maps.weights:
    sums = weights.sum(-1)
    print(
        tuple(weights.shape),
        f"rows sum to {sums.min():.4f} up to {sums.max():.4f},",
        "largest weight on a later position:",
        weights.triu(1).max().item(),
    )
with torch.no_grad():
    difference = (recorded_logits - model(idx)[0]).abs().max()
print(f"largest difference between logits with and without the recorder: ≈ {difference:.1g}")
assert difference < 1e-4

# %% [markdown]
# Lesson 04's loop over heads is attention written in another way: one softmax for each head, and no kernel. The same recorder finds its two heads.

# %%
from chargpt_lib.multi_head import MultiHeadAttention

loop = MultiHeadAttention(8, 2)
with record_attention(loop) as of_loop:
    loop(torch.randn(1, 5, 8))
print([tuple(weights.shape) for weights in of_loop.weights])
assert torch.equal(of_loop.weights[0][:, 0], loop.heads[0].weights)

# %% [markdown]
# ## One map
#
# Rows are the positions that look, columns those looked at. Most weights are small, so the colours follow the square root of the weight: the scale beside the map says which colour is which weight. In a text of up to 80 characters each character is written on both axes, the space as `␣` and the end of a line as `⏎`; in a longer text only the first word of each line is. With lesson 14's tokenizer the positions are tokens, and so are the labels.

# %%
#| export
LONG_TEXT = 80  # positions: beyond it, only the beginnings of lines are marked
LONG_LABEL = 12  # characters: a longer token is cut
FONT = "DejaVu Sans Mono"


def token_texts(tokenizer, text):
    """A text in the form that the pictures take: a string where each id is a character, else a list of the tokens' texts.

    A token need not hold whole characters. Bytes that are only a part of one are written as in \\xe2. A tokenizer of
    tokens has to have `tokens`, the bytes of each id.
    """
    if tokenizer.unit == "character":
        return text
    ids = tokenizer.encode(text).tolist()
    return [tokenizer.tokens[i].decode("utf-8", errors="backslashreplace") for i in ids]


def _position_labels(text):
    """A label for each position of a text, T characters or a list of T tokens -> T labels, of bounded length."""
    labels = []
    for piece in text:
        label = "".join(visible(piece))
        if len(label) > LONG_LABEL:
            label = label[: LONG_LABEL - 1] + "…"
        labels.append(label)
    return labels


def _is_line_start(text, t):
    """Whether a line that is not empty begins at position t."""
    return t == 0 or ("\n" in text[t - 1] and not text[t].startswith("\n"))


def _first_word(text, t):
    """The beginning of the word that stands at position t, or after the spaces there."""
    ahead = "".join(text[t:]).lstrip(" ")
    return re.match(r"[^\s:]{0,8}", ahead)[0]


def draw_weights(ax, weights, text, labels=True):
    """Draws (T, T) weights into matplotlib axes, with the text on both -> the image.

    text: T characters, or a list of T tokens.
    """
    image = heatmap(ax, weights)
    image.set_norm(colors.PowerNorm(0.5, vmin=0, vmax=1))  # most weights are small
    is_long = len(text) > LONG_TEXT
    if not labels:
        places = []
        names = []
    elif is_long:
        places = [t for t in range(len(text)) if _is_line_start(text, t)]
        names = [_first_word(text, t) for t in places]
    else:
        places = range(len(text))
        names = _position_labels(text)
    size = 8 if is_long else min(9, 430 / len(text))
    # Words side by side would overlap; characters do not.
    rotation = 90 if is_long or any(len(name) > 1 for name in names) else 0
    ax.set_xticks(places, names, rotation=rotation, fontfamily=FONT, fontsize=size)
    ax.set_yticks(places, names, fontfamily=FONT, fontsize=size)
    return image


def add_colorbar(fig, image, axes):
    """The colours of weights, explained beside the axes."""
    ticks = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1]
    fig.colorbar(image, ax=axes, label="attention weight", ticks=ticks, format="{x:g}")

# %%
#| export
def _find_head(maps, layer, head):
    """Where a head's weights stand among the recorded ones: (row, column). Raises: IndexError if it was not recorded."""
    if layer not in maps.layers or head not in maps.heads:
        raise IndexError(
            f"layer {layer}, head {head} was not recorded: layers {maps.layers}, heads {maps.heads} were"
        )
    return maps.layers.index(layer), maps.heads.index(head)


def plot_attention(maps, text, layer=0, head=0):
    """The map of one head, with the text on both axes -> matplotlib figure.

    text: T characters, or a list of T tokens, as `token_texts` makes it.

    Raises: IndexError for a layer or head that was not recorded.
    """
    weights = maps.for_text(text)  # (L, H, T, T)
    row, column = _find_head(maps, layer, head)
    # Inches: room for each position and the longest label, and a page that still fits a screen.
    longest = max(len(label) for label in _position_labels(text))
    side = min(max(0.125 * len(text) + 1 + 0.075 * (longest - 1), 3.2), 9)
    fig, ax = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    image = draw_weights(ax, weights[row, column], text)
    ax.set(xlabel="looks at", ylabel="position", title=f"layer {layer}, head {head}")
    add_colorbar(fig, image, ax)
    prepare_texts(
        fig
    )  # a dollar sign in the text would begin a formula, and its font may lack a letter
    return fig


def plot_heads(maps, text):
    """The maps of all recorded heads, a row for each layer -> matplotlib figure."""
    weights = maps.for_text(text)  # (L, H, T, T)
    n_layer, n_head = weights.shape[:2]
    fig, axes = plt.subplots(
        n_layer,
        n_head,
        squeeze=False,
        layout="constrained",
        figsize=(1.45 * n_head + 1.5, 1.45 * n_layer + 0.6),
    )
    for row in range(n_layer):
        for column in range(n_head):
            image = draw_weights(axes[row, column], weights[row, column], text, labels=False)
    for column, head in enumerate(maps.heads):
        axes[0, column].set_title(f"head {head}")
    for row, layer in enumerate(maps.layers):
        axes[row, 0].set_ylabel(f"layer {layer}")
    add_colorbar(fig, image, axes)
    return fig

# %% [markdown]
# Below is the last layer's first head, on the first 50 characters. The white lines mark the row of the `⏎` after `goose.`: the first line has ended, and somebody from the cast list has to speak. **Predict:** which columns would help to write the next character?

# %%
#| export
def compute_attention_maps(model, tokenizer, text, layers=None, heads=None):
    """Lets the model read a text -> its AttentionMaps. layers, heads: as for `record_attention`.

    Raises: ValueError for a text that is empty or longer than a block.
    """
    ids = tokenizer.encode(text)  # (T,)
    if not 0 < len(ids) <= model.block_size:
        raise ValueError(
            f"the text has {len(ids)} {tokenizer.unit}s; this model reads from 1 to {model.block_size} at once"
        )
    device = next(model.parameters()).device
    idx = ids[None].to(device)  # (1, T)
    was_training = model.training
    model.eval()  # dropout would change the weights
    try:
        with torch.no_grad(), record_attention(model, layers, heads) as maps:
            model(idx)
    finally:
        model.train(was_training)
    return maps

# %%
start, t = SCENE[:50], SCENE.index("\n")
first_maps = compute_attention_maps(model, tokenizer, start)
fig = plot_attention(first_maps, start, layer=3, head=0)
for edge in (t - 0.5, t + 0.5):
    fig.axes[0].axhline(edge, color="white", linewidth=0.5)
show(
    fig,
    "A triangular map with a character at each row and column, and a few bright points far from the diagonal. "
    "White lines mark the row of the line's end.",
)

# %% [markdown]
# What do its five neighbours in the same layer do? For each head, the next cell prints the place that this row looks at most:

# %%
for head, row in enumerate(first_maps.for_text(start)[3, :, t]):
    s = row.argmax().item()
    print(
        f"layer 3, head {head}: {row[s]:4.0%} on the {start[s]!r} in {start[max(s - 4, 0) : s + 5]!r}"
    )

# %% [markdown]
# In the recorded model three of the six, heads 0, 4 and 5, look most at a letter of a name: one of the two names has to be written next. Head 3 looks at the very first character, as many heads do when they have no job at this place (Xiao et al., 2024, call such a character an *attention sink*). But one line is not the rule. Over many scenes, below, heads 2 and 3 look at the cast list as well.

# %% [markdown]
# ## All heads
#
# Here are all 24 heads on the same 50 characters. The tick `⏎` marks the row of the line's end. Find two heads that look at the same text in quite different ways, and a head whose row has its point on the cast list.

# %%
fig = plot_heads(first_maps, start)
for ax in fig.axes[:-1]:  # the last one is the scale
    ax.set_yticks([t], ["⏎"], fontfamily=FONT, fontsize=12)
assert len(maps.weights) == 4 and all(weights.shape[1] == 6 for weights in maps.weights)
show(
    fig,
    "Triangular maps, four layers of six heads: the first layer is spread over the neighbourhood, in later "
    "layers single points and stripes stand far from the diagonal.",
)

# %% [markdown]
# ## An interactive page
#
# A wall of maps shows that heads differ. To see what one of them does, you need a map that you can move through. The page below is one piece of HTML with its script inside. It loads nothing from the network, so it also works offline, in a saved notebook, or as an attachment to a mail. A site that removes scripts, such as GitHub, shows the wall of maps instead.
#
# `chargpt_lib/plots.py` shows how a page carries its numbers and its script. The next cell fills the page with the weights, the wall of maps, and a table with each head's look back that is furthest above chance.

# %%
#| export
def _farthest_looks(maps, text):
    """The look back furthest above chance of each head: (layer, head, position, position looked at, weight)."""
    T = len(text)
    # Position t has t + 1 places to look at, so chance gives each of them 1 / (t + 1).
    above_chance = maps.for_text(text).tril(-1) * torch.arange(1, T + 1)[:, None]  # (L, H, T, T)
    found = []
    for layer, of_layer in zip(maps.layers, above_chance):
        for head, ratios in zip(maps.heads, of_layer):
            t, s = divmod(ratios.argmax().item(), T)
            found.append((layer, head, t, s, ratios[t, s].item() / (t + 1)))
    return found


def _still_picture(maps, text):
    """The wall of maps as an image, and a table of each head's look that is furthest above chance -> HTML."""
    picture = BytesIO()
    fig = plot_heads(maps, text)
    fig.savefig(picture, dpi=70, format="webp", pil_kwargs={"quality": 75})
    plt.close(fig)
    # The table serves readers who cannot see the picture, and sites that run no scripts.
    unit = "character" if isinstance(text, str) else "token"
    labels = _position_labels(text)
    rows = []
    for layer, head, t, s, weight in _farthest_looks(maps, text):
        looker = escape(labels[t])
        seen = escape(labels[s])
        rows.append(
            f"<tr><td>{layer}<td>{head}<td>{looker} at {t}<td>{seen} at {s}<td>{weight:.0%}"
        )
    return (
        f'<img alt="Attention maps, a row for each layer, a column for each head" style="max-width: 100%" '
        f'src="data:image/webp;base64,{base64.b64encode(picture.getvalue()).decode()}">\n'
        f"<details><summary>Each head's look back that is furthest above chance</summary>\n"
        f"<table><thead><tr><th>layer<th>head<th>{unit}<th>looks at<th>weight"
        f"<tbody>{''.join(rows)}</table></details>"
    )


def attention_html(maps, text, layer=None, head=None, position=-1):
    """The maps as a page to move through -> HtmlPage. text: T characters, or a list of T tokens.

    layer, head, position: what is selected when the page opens; without them the first recorded head, and the last position.

    Raises: ValueError for a model that looks at the future; IndexError for a head that was not recorded, or a position outside the text.
    """
    weights = maps.for_text(text)  # (L, H, T, T)
    first_layer = maps.layers[0] if layer is None else layer
    first_head = maps.heads[0] if head is None else head
    row, column = _find_head(maps, first_layer, first_head)
    position = range(len(text))[position]
    # The page stores the lower triangle only: half the size.
    if weights.triu(1).any():
        raise ValueError(
            "the weights contain nan or attend to the future, which this page cannot show: use "
            "plot_attention"
        )
    data = {
        "text": text,
        "layers": maps.layers,
        "heads": maps.heads,
        "levels": LEVELS,
        "weights": weights_as_text(weights),
        "selected": {"row": row, "column": column, "position": position},
    }
    return interactive_page("attention", data, _still_picture(maps, text))


def save_attention_page(model, tokenizer, text, path):
    """Writes the page of a text's attention maps to a file. Raises: ValueError, OSError."""
    maps = compute_attention_maps(model, tokenizer, text)
    attention_html(maps, token_texts(tokenizer, text)).save(path)

# %% tags=["nbval-ignore-output"]
attention_html(maps, SCENE, layer=3, head=5, position=SCENE.index("\n"))

# %%
import re

page = attention_html(maps, SCENE).html
requests = re.findall(r"(?:src|href)=.?(?:https?:|//)|@import|fetch\(", page)
print("addresses from which the page loads something:", len(requests))
assert len(page) < 500_000

# %% [markdown]
# The page opens at the `⏎` after `damp goose.`, in layer 3, head 5: in the recorded model this head looks at the `a` of `Hal`. Move over a character, or click one and use the arrow keys. Each button is a head and says what that head looks at most; the last row and column are means. `attention_html(maps, SCENE).save("attention.html")` writes the page to a file.
#
# Look for three things. First, stay at this `⏎` and go through the heads of layer 3: which look at a name on the cast list? Then click the `⏎` after `the owl, Hal?`: the line has named the next speaker. Do the same heads look at the name, and at which of its two places? Last, click the space after `licking the`: which heads look at the goose? (In the recorded model: first heads 0, 4 and 5; then these and head 2, and only at the second place; last heads 1 and 5.)

# %% [markdown]
# ## What does a head look for?
#
# One scene is easily over-interpreted, so we count. For each position $t$ we list the places where a head might look. Then we measure how much of the weight of row $t$ lies there, on average over all $t$ that have such a place:
#
# - the **previous** character
# - the **word's start** and the **line's start**, or the character before it
# - the **same** character, where it last occurred
# - **after the same**: what followed it there. A head that looks there can say "it went on like this last time". Such heads are called *induction heads* (Olsson et al., 2022); below, we build one
# - the **speaker**: the name before the colon of this line
# - the **cast list** of the scene

# %%
def places(text, t):
    """{what a head at position t may look for: the positions where that stands}; no positions where it is absent."""
    line, same = text.rfind("\n", 0, t) + 1, text.rfind(text[t], 0, t)
    words = [match.start() for match in re.finditer(r"\w+", text[: t + 1])]
    speaker = re.match(r"\w+(?=:)", text[line:t])
    cast = [match.span(1) for match in re.finditer("Enter (.*) with ", text[: t + 1])]
    near = lambda start: range(max(start - 1, 0), start + 1)  # a start, and the character before it
    return {
        "previous": range(max(t - 1, 0), t),
        "word's start": near(words[-1]) if words else [],
        "line's start": near(line),
        "same": [same] if same >= 0 else [],
        "after the same": [same + 1] if 0 <= same < t - 1 else [],
        "speaker": range(line, line + speaker.end()) if speaker else [],
        "cast list": range(*cast[-1]) if cast else [],
    }

# %%
owl = PLAY.index("owl, Hal")
for name, positions in places(PLAY, owl).items():
    print(f"{name:15}", [PLAY[s] for s in positions])

# %% [markdown]
# These are the places for the `o` of the second `owl`. It stands after a space and begins its word; Meg is speaking; and the last `o` was that of `Who`, with a space after it. Each start includes the space or the line end before it.

# %% [markdown]
# ### Exercise: induction with a longer memory
# ★★ · 8 minutes · Induction (Olsson et al., 2022) by one character mostly finds coincidences; the more has to be the same, the better the guess.
#
# A head that does induction looks for the last earlier place where the text was as it is now, and at the character that came next there. In `goose goo` the last `o` stands at position 8; the `o` before it stands at 7, so the next position is 8 itself. That says little. Now compare the last `n` characters, not one. With `n` = 2, position 8 ends `oo`. The last earlier `oo` ends at position 2, so the target is 3: the `s`.
#
# Find the target of each position $t$: take the $n$ characters that end at $t$; find the largest $j < t$ at which the same $n$ characters end; the target is $j + 1$. The two stretches may overlap, and the target may be $t$ itself. If there is no such $j$, or fewer than $n$ characters so far, the target is −1.
#
# For `goose goo`: with `n` = 1 the targets are −1 −1 2 −1 −1 −1 1 3 8, with `n` = 2 they are −1 −1 −1 −1 −1 −1 −1 2 3.

# %% tags=["exercise"] exercise="induction_targets"
def induction_targets(ids, n):
    """ids (T,) int64, n >= 1 -> (T,) int64: for each position the target of induction by n characters, or -1."""
    ### BEGIN SOLUTION
    targets = torch.full_like(ids, -1)
    for t in range(n, len(ids)):
        for j in range(n - 1, t):
            if torch.equal(ids[j - n + 1 : j + 1], ids[t - n + 1 : t + 1]):
                targets[t] = j + 1
    return targets
    ### END SOLUTION

# %%
check("induction_targets", induction_targets)

# %% [markdown]
# We compare every head with one that cannot choose, and so looks at all positions equally (lesson 03's average). Below, each number is divided by what such a head would get: 1 is chance.

# %% [markdown]
# ### Exercise: what chance gives
# ★ · 4 minutes · A share of 0.1 may be small or large: it depends on what a head gets that looks everywhere equally.
#
# A head that has learned nothing gives the same weight to every position that it may see. **Predict** its share for the position `back` characters before: `back` = 1 is the previous character, `back` = 0 the position itself. As above, a share is the mean over the positions that have such a target. With T = 3 and `back` = 1, position 0 has no target, position 1 gives its target 1/2, and position 2 gives its target 1/3. The share is 5/12 = 0.417.

# %% tags=["exercise"] exercise="chance_share"
def chance_share(T, back):
    """T positions, 0 <= back < T, whole numbers -> float: mean weight of an even head, `back` before."""
    ### BEGIN SOLUTION
    shares = [1 / (t + 1) for t in range(back, T)]
    return sum(shares) / len(shares)
    ### END SOLUTION

# %%
check("chance_share", chance_share)

# %% [markdown]
# What does your formula say for T = 64, with `back` = 1 and with `back` = 10? Here is a head with queries and keys as small as those of an untrained model.

# %%
q, k, v = 0.02 * torch.randn(3, 64, 16, generator=torch.Generator().manual_seed(1337))
untrained = scaled_dot_product_attention(q, k, v, causal_mask(64))[1]  # (T, T)
for back in (1, 10):
    print(f"{back:2} before: {untrained.diagonal(-back).mean():.3f}")  # row t, column t - back

# %% [markdown]
# So a head that gives six hundredths to the previous character has found nothing. The character ten before gets less, because the early positions, which have few places to choose from, have no such target.

# %%
def profile(weights, text):
    """What heads look for: weights (..., T, T) -> {place: mean share of the weight that lies there (...)}."""
    found, t = [places(text, t) for t in range(len(text))], torch.arange(len(text))
    shares = {}
    for name in found[0]:
        # (T, T)
        there = torch.tensor([[s in row[name] for s in range(len(text))] for row in found])
        shares[name] = (weights * there).sum(-1)[..., there.any(-1)].mean(-1)
    # -p ln p, summed over a row, in nats.
    shares["entropy"] = torch.special.entr(weights).sum(-1).mean(-1)
    shares["distance"] = (weights * (t[:, None] - t)).sum(-1).mean(-1)  # in characters
    return shares

# %% tags=["nbval-ignore-output"]
import sys

from tqdm import tqdm

scenes = [scene + "\n\n" for scene in corpus.val.split("\n\n") if 60 < len(scene) < 190][:30]
# For a text without empty lines: stretches of 150 characters.
scenes = scenes or [corpus.val[i : i + 150] for i in range(0, 4500, 150)]
even = causal_mask(192).float() / torch.arange(1, 193)[:, None]  # the average of the past
profiles, chances = [], []
for scene in tqdm(scenes, unit="scene", mininterval=0.5, file=sys.stdout):
    T = len(scene)
    profiles.append(profile(compute_attention_maps(model, tokenizer, scene).for_text(scene), scene))
    chances.append(profile(even[:T, :T], scene))

# %%
def mean(rows, name):
    return torch.stack([row[name] for row in rows]).nanmean(0)


shares = {name: mean(profiles, name) for name in profiles[0]}  # {place: (layers, heads)}
chance = {name: mean(chances, name) for name in profiles[0]}  # {place: a number}
names = (
    "previous",
    "word's start",
    "line's start",
    "same",
    "after the same",
    "speaker",
    "cast list",
)
lift = torch.stack([shares[name] / chance[name] for name in names], dim=-1)
lift = lift.flatten(0, 1)  # (heads, places)
heads = [(layer, head) for layer in maps.layers for head in maps.heads]
assert (shares["previous"] <= 1).all() and 0 < chance["previous"] < 0.5

# %%
for name, column in zip(names, lift.T):
    best = column.nan_to_num().argmax().item()
    print(
        f"{name:15} {column[best]:5.1f} times chance: layer {heads[best][0]}, head {heads[best][1]}"
    )
for name, unit in (("entropy", "nats"), ("distance", "characters")):
    print(
        f"{name:15} {shares[name].min():5.1f} to {shares[name].max():.1f} {unit}, by chance {chance[name]:.1f}"
    )

# %% [markdown]
# No head gives the cast list as much as chance. But these are means over all positions, and a head may look at the cast list from one kind of place only, such as the ends of lines (below).

# %%
choosy = (shares["entropy"] < chance["entropy"]).sum().item()
print(
    f"{choosy} of {len(heads)} heads have rows of lower entropy than a head that looks everywhere equally"
)
print(f"largest weight on the previous character: {lift[:, 0].max():.0f} times chance")
assert (choosy == 24 and lift[:, 0].max() > 3) or not RECORDED

# %% [markdown]
# ### Exercise: by place, or by text?
# ★★ · 7 minutes · A mean of maps over many texts may show what is true of none of them.
#
# A mean of maps can be blurred for two reasons. Either the head spreads its weight in every text, or it looks at a single place in each text, but at a different place from text to text. Tell the two apart. You have the weights of one head on $N$ texts, so position $t$ has $N$ rows. With $H$ for the entropy in nats,
#
# $$J_t = H(\text{the mean of the } N \text{ rows}) - \text{the mean of the } N \text{ entropies} .$$
#
# $J_t$ is 0 if the rows are the same in all texts: such a head goes by place. The more the head's choice depends on the text, the larger $J_t$ is. The rows (1, 0) and (0, 1) give $\ln 2 - 0 = 0.693$; twice (0.5, 0.5) gives $\ln 2 - \ln 2 = 0$, though the mean is the same. A weight of 0 adds nothing to an entropy (lesson 03).

# %% tags=["exercise"] exercise="text_dependence"
def text_dependence(weights):
    """weights (N, T, T) of one head, N texts, rows sum to 1 -> (T,), in its dtype: J of each position, in nats."""
    ### BEGIN SOLUTION
    entropy = lambda rows: torch.special.entr(rows).sum(-1)
    return entropy(weights.mean(0)) - entropy(weights).mean(0)
    ### END SOLUTION

# %%
check("text_dependence", text_dependence)

# %% [markdown]
# ## Ablating heads
#
# A weight says where a head looks. It does not say that the look matters: later layers may ignore what the head writes. So **ablate** the head, that is, silence it, and see what the model can no longer do. Zeros replace the head's result before the projection mixes the heads; everything else goes on.

# %%
#| export
@contextmanager
def ablate_heads(model, heads):
    """with ablate_heads(model, [(layer, head), ...]): inside, zeros take the place of what these heads write.

    Raises: TypeError where heads is no list of pairs, IndexError where the model has no such layer or head.
    """
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in heads):
        raise TypeError(f"heads is {heads!r}; it has to be a list of (layer, head), [(3, 0)]")
    heads = [tuple(pair) for pair in heads]  # a list is never equal to a tuple

    def on_call(layer, numbers, out, weights):
        ablated = [(layer, head) in heads for head in numbers]
        mask = torch.tensor(ablated, device=out.device)[:, None, None]  # (H, 1, 1)
        return out.masked_fill(mask, 0)

    with AttentionInterceptor(model, on_call, lambda counts: check_heads(counts, heads)):
        yield

# %%
from chargpt_lib.playhouse import excess_by_kind
from chargpt_lib.training import per_token_loss


def excess_without(off, start, end):
    """{kind: nats per character above the floor} on a stretch, with heads off; {"all": loss} where there is no floor."""
    with ablate_heads(model, off):
        # Each character has at least 96 characters before it.
        nats = per_token_loss(model, val_ids[start:end], stride=96).tolist()
    spans = [span for span in corpus.val_spans or [] if start <= span.start and span.end <= end]
    return (
        excess_by_kind([None] * (start + 1) + nats, spans)
        if spans
        else {"all": sum(nats) / len(nats)}
    )

# %% [markdown]
# We silence one head after the other on a first stretch of 20,000 characters of validation text, and keep a second stretch for later. Lesson 00's kinds of text say *what* got worse, in nats per character of the whole text. (About half a minute.)

# %% tags=["nbval-ignore-output"]
val_ids = tokenizer.encode(corpus.val[:40_000])
half = len(val_ids) // 2
whole = excess_without([], 0, half)
damage = []  # a row for each head
for head in tqdm(heads, unit="head", file=sys.stdout):
    without = excess_without([head], 0, half)
    damage.append([without[kind] - whole[kind] for kind in whole])
damage = torch.tensor(damage)  # (heads, kinds), nats per character

# %%
kinds = list(whole)
order = damage.sum(1).argsort(descending=True).tolist()
print(f"{'thousandths of a nat lost':27}" + "".join(f"{kind:>13}" for kind in kinds))
for i in order[:3] + order[-3:]:
    label = "without layer {}, head {}".format(*heads[i])
    print(f"{label:27}" + "".join(f"{round(1000 * x):13}" for x in damage[i].tolist()))

# %%
first = damage.view(len(maps.layers), -1, len(kinds))[0, :, 0].sum() / damage[:, 0].sum()
print(f"of what the heads cost in {kinds[0]}, one by one and added up, layer 0 has {first:.0%}")
worst, second = (1000 * damage[:, 0].topk(2).values).tolist()
print(f"thousandths of a nat: {round(worst)} for the costliest head, {round(second)} for the next")
assert (worst > 3 * second and first > 0.25) or not RECORDED
assert len(damage) == 24

# %%
def table(ax, values, rows, vmax):
    heatmap(ax, values, rows, vmax=vmax, cells=[[f"{x:.1f}" for x in row] for row in values])


fig, axes = plt.subplots(1, 2, figsize=(10, 6.6), layout="constrained", sharey=True)
rows = [f"layer {layer}, head {head}" for layer, head in (heads[i] for i in order)]
table(axes[0], lift[order], rows, vmax=8)
table(axes[1], 1000 * damage[order], rows, vmax=20)
titles = (
    "weight, times chance (yellow: 8 and more)",
    "switched off: loss in nats / 1000 (yellow: 20 and more)",
)
fig.suptitle("All heads, the costliest first", fontsize=10)
for ax, columns, title in zip(axes, (names, kinds), titles):
    ax.set_xticks(range(len(columns)), columns, rotation=40, ha="right", fontsize=9)
    ax.set_title(title, fontsize=10)
show(
    fig,
    "Two tables side by side, a row for each head, the costliest first: where each head looks, and what gets "
    "worse without it.",
)

# %% [markdown]
# One head in layer 0 stands out: without it the model misspells words. You could remove some heads and lose hardly anything. And for a few heads, most of the loss stands in the columns that have to do with names (lesson 00: the *addressee* is the character spoken to, a *closing* ends the scene).
#
# ## The heads that fetch a name
#
# A line has ended. Who speaks next? Unless the line has addressed somebody by name, anybody on the cast list may. So at the end of a line that names nobody, a head that fetches names has to look at the cast list. The left table shows how much of each head's weight lies there, at the ends of such lines; the right table shows how much the loss on copied names grows when the head is off.

# %%
def on_cast(weights, scene):
    """(..., T, T) -> (...): mean weight on the cast list, at the ends of lines that name nobody."""
    cast, asked = re.search("Enter (.*) with ", scene), r", [A-Z]\w+\W\n"
    lines = [line for line in re.finditer(r".*\n(?=\w+:)", scene) if not re.search(asked, line[0])]
    if not cast or not lines:
        return weights.mean((-2, -1))  # another corpus
    return (
        weights[..., [line.end() - 1 for line in lines], cast.start(1) : cast.end(1)]
        .sum(-1)
        .mean(-1)
    )


kind = "copied name" if "copied name" in kinds else "all"
lost = damage[:, kinds.index(kind)].view(4, 6)
fetched = torch.stack(
    [
        on_cast(compute_attention_maps(model, tokenizer, scene).for_text(scene), scene)
        for scene in scenes
    ]
).mean(0)
by_chance = torch.stack(
    [on_cast(even[: len(scene), : len(scene)], scene) for scene in scenes]
).mean()

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 2.9), layout="constrained")
seen = f"weight on the cast list, at ends of lines (chance: {by_chance:.2f})"
for ax, values, title, digits in (
    (axes[0], fetched, seen, 2),
    (axes[1], 1000 * lost, "switched off: nats / 1000 lost on copied names", 1),
):
    image = heatmap(
        ax, values, vmax=values.max(), cells=[[f"{x:.{digits}f}" for x in row] for row in values]
    )
    ax.set(xlabel="head", ylabel="layer", yticks=range(4))
    ax.set_title(title, fontsize=10)
    fig.colorbar(image, ax=ax)
show(
    fig,
    "Two tables of layers and heads. In the last layer, copied names get worse without the heads that look at "
    "the cast list; in the layer below, one head looks there as much and costs less.",
)

# %%
print("head of the last layer        ", "".join(f"{head:6}" for head in range(6)))
print("weight on the cast list       ", "".join(f"{x:6.2f}" for x in fetched[-1].tolist()))
print("off: thousandths of a nat lost", "".join(f"{round(1000 * x):6}" for x in lost[-1].tolist()))
together = torch.corrcoef(torch.stack([fetched[-1], lost[-1]]))[0, 1]
print(f"correlation of the two: {together:.2f}")
assert together > 0.5 or not RECORDED

# %% [markdown]
# In the last layer of the recorded model five heads look at the cast list. Switch off any one of them, and the names get worse; switch off the one that looks elsewhere, and the names hardly get worse. The correlation comes from this one difference. Among the five, more weight does not mean more loss.
#
# Lower layers, too, have heads that look at the cast list. Is looking enough? We switch off three pairs, chosen on the first stretch of text and measured on the second:
#
# - the *fetchers*: the two heads without which the names suffer most and the spelling least (spelling counts five times, so that no head is chosen for a loss that is mostly spelling)
# - the *onlookers*: two heads with much weight on the cast list, without which the names hardly suffer. They may sit in another layer
# - the *neighbours*, a control for the layer: of the other heads in the fetchers' last layer, the two without which the names suffer least.
#
# **Predict:** which pair costs the copied names most, and does the control cost nothing?

# %%
def two_best(score):
    """The two (layer, head) with the largest score; score (layers, heads)."""
    return [heads[i] for i in score.flatten().topk(2).indices.tolist()]


spelling = damage[:, 0].view(4, 6) if kind == "copied name" else 0 * lost
fetchers, onlookers = two_best(lost - 5 * spelling), two_best(fetched - 100 * lost.clamp(min=0))
candidates = torch.full_like(lost, float("-inf"))  # only heads of the last layer may be chosen
candidates[-1] = -lost[-1]
for head in fetchers:
    candidates[head] = float("-inf")
neighbours = two_best(candidates)
off = {"no head": [], "fetchers": fetchers, "onlookers": onlookers, "neighbours": neighbours}

# %%
rows = {label: excess_without(some, half, len(val_ids)) for label, some in off.items()}
print(f"{'off (thousandths of a nat)':28}" + "".join(f"{kind:>13}" for kind in kinds))
for label, row in rows.items():
    numbers = "".join(f"{round(1000 * nats):13}" for nats in row.values())
    print(f"{label:11}{str(off[label]):17}" + numbers)

# %%
before, after, beside, control = (row[kind] for row in rows.values())
print(
    f"{kind}, above the floor: without the fetchers {after / before:.1f} times as much, without the onlookers "
    f"{beside / before:.1f} times, without the neighbours {control / before:.1f} times"
)
assert (after > 2 * before and after > 2 * beside) or not RECORDED

# %% [markdown]
# The names need the onlookers far less than the fetchers, although both pairs look at the cast list; the onlookers seem to work for something else as well (see the spelling and the closings). A map alone does not tell the two pairs apart. But the neighbours answer the second question: they cost the names nearly as much as the fetchers do. So part of the difference between fetchers and onlookers is the layer, or else one of the neighbours fetches names, too. In the recorded model they are heads 1 and 5; head 1 looks elsewhere, and head 5 was seen at the `a` of `Hal`.
#
# The total does not say *which* name is lost. So put the pairs on stage, in fifty scenes that begin like ours, with Meg and Hal on the cast list. Who speaks?

# %%
def stage(some, plays=50, chars=100):
    """Scenes that begin with the first line of ours, written with some heads off."""
    opening = tokenizer.encode(PLAY[: PLAY.index("\n") + 1]).repeat(plays, 1).to(device)
    with ablate_heads(model, some):
        written = model.generate(opening, chars, torch.Generator(device).manual_seed(1337))
    return [tokenizer.decode(row.cpu()).split("\n\n")[0] for row in written]


def speakers(text):
    return re.findall(r"^(\w+):", text, re.M)

# %% tags=["nbval-ignore-output"]
shares_of, stages = {}, []
for label in off if corpus.name == "playhouse" else ():
    stages.append(stage(off[label]))
    said = Counter(name for play in stages[-1] for name in speakers(play))
    shares_of[label] = {name: said[name] / said.total() for name in ("Meg", "Hal")}
    print(f"off: {label}, {off[label]}\n   ≈ {said.total()} speeches: {dict(said.most_common(6))}")

# %%
print("share of the speeches    Meg     Hal     both")
spoken = [sum(pair.values()) for pair in shares_of.values()]
for (label, pair), both in zip(shares_of.items(), spoken):
    print(f"off: {label:14}    ≈ {pair['Meg']:.2f}  ≈ {pair['Hal']:.2f}  ≈ {both:.2f}")
if RECORDED:
    assert spoken[1] < spoken[0] - 0.1 and spoken[1] < spoken[2] - 0.1
    assert shares_of["fetchers"]["Meg"] < 0.2 and shares_of["neighbours"]["Hal"] < 0.2

# %% [markdown]
# Here is one of the scenes in which somebody who never came in speaks:

# %% tags=["nbval-ignore-output"]
strange = [play for play in (stages[1] if stages else []) if set(speakers(play)) - {"Meg", "Hal"}]
# Scenes whose first speaker is a stranger come first.
strange.sort(key=lambda play: speakers(play)[0] in ("Meg", "Hal"))
for line in (strange or [SCENE])[0].splitlines():
    print("   " if set(speakers(line)) <= {"Meg", "Hal"} else "→  ", line)

# %%
print(f"somebody who never came in speaks in ≈ {len(strange)} of 50 scenes")
assert strange or not RECORDED

# %% [markdown]
# Lines are still lines, and words are mostly words; see the spelling column above. But the model no longer knows who may speak, and who is spoken to: these heads fetch names.
#
# The table of shares shows more. In the recorded model Meg, the first on the cast list, hardly speaks without the fetchers, while Hal, the second, speaks as often as before. Without the neighbours it is the other way round. The map of the first line shows why: at the end of a line head 0, a fetcher, looks at the `M` of `Meg`, and head 5, a neighbour, at the `a` of `Hal`. Each fetches one of the two names. So the neighbours were no clean control for the copied names: one of them does the same work for another name. To see what happens without both heads, write `"fetchers": fetchers + [(3, 5)]` in `off` and run the page from there.
#
# You can also switch heads off by hand, in the page below (lesson 06 introduced it). Its switches do what `ablate_heads` does. The text is the first line of our scene, and the caret stands where the first speaker's name begins. The bars show which letter the model expects there. **Predict:** with the two fetchers off, what happens to the bar of the `M`? And with the two onlookers off instead?
#
# Then switch off layer 3, heads 0 and 5, and press *Write*: does somebody who never came in speak? Press *Back to the prompt* before each new try; the random numbers are then the same.

# %% tags=["nbval-ignore-output"]
from chargpt_lib.playground import as_packed, playground

opening_line = PLAY[: PLAY.index("\n") + 1]
print("fetchers:", fetchers, "onlookers:", onlookers)
playground(model, tokenizer, opening_line, corpus.val_entropy)

# %%
on_page = as_packed(model)  # the page's weights, rounded to 8 bits
pair = []
for one in (model, on_page):
    with torch.no_grad(), ablate_heads(one, fetchers):
        pair.append(one(val_ids[None, :192].to(device))[0].softmax(-1))
moved = (pair[0] - pair[1]).abs().max()
print(f"without the fetchers, rounding changes a probability by ≈ {moved:.2f} at most")
assert moved < 0.05 or not RECORDED

# %% [markdown]
# ### Exercise: off, but how?
# ★★ · 8 minutes · A zero may be far from all that the later layers have ever been given; then one measures their surprise, not the head's work (Wang et al., 2022).
#
# A head that always writes nearly the same vector tells nothing, and yet the loss rises when this vector is set to zero: the later layers are used to it. A kinder way is to put the head's mean in its place: one vector of D numbers, the mean over all texts and positions, the same for every place. What the head had to say about *this* place is gone; what it always says stays.
#
# `heads` holds the results of the heads, before the projection. Replace those of head $h$ by their mean, and return what the layer then returns: heads side by side, then the projection with its bias. `W_o` and `bias` are stored as in `nn.Linear`.
#
# With one text, two positions, one head with the results (1, 0) and (3, 0), `W_o = [[1, 0], [0, 1]]` and the bias (0, 5), the layer gives (2, 5) at both.

# %% tags=["exercise"] exercise="mean_ablation"
def mean_ablation(heads, W_o, bias, h):
    """heads (B, H, T, D), W_o (C, C), bias (C,), C = H * D, h from 0 to H - 1 -> (B, T, C)."""
    ### BEGIN SOLUTION
    heads = heads.clone()
    heads[:, h] = heads[:, h].mean((0, 1))  # (D,)
    return F.linear(heads.transpose(1, 2).flatten(2), W_o, bias)
    ### END SOLUTION

# %%
check("mean_ablation", mean_ablation)

# %% [markdown]
# ## An induction head and the head below it
#
# What follows a symbol that you have seen before? An induction head answers "what followed it last time". It has to look at the position *after* the earlier occurrence. But nothing at that position says which symbol came before it, unless a head in a lower layer has written it there. So the mechanism needs two parts (Elhage et al., 2021; Olsson et al., 2022): a **previous-token head** in the lower layer copies each symbol to the next position, and the **induction head** above it looks for positions that carry a copy of the current symbol.
#
# To see both parts alone, we train a tiny model on nothing but repetition: 16 random symbols, then the same 16 once more, beginning at a random place. The second half can be predicted from the first, and no other knowledge helps.

# %%
import math
import string

SYMBOLS = string.ascii_letters + string.digits + "+-"  # 64
HALF = 16


def repeated(count, rng):
    """-> sequences (B, 32) of symbol ids; sources (B, 16), where in the first half each later symbol stands."""
    first = torch.randint(len(SYMBOLS), (count, HALF), generator=rng)
    start = torch.randint(HALF, (count, 1), generator=rng)
    sources = (start + torch.arange(HALF)) % HALF
    return torch.cat([first, first.gather(1, sources)], dim=1), sources


rng = torch.Generator().manual_seed(1337)
for sequence in repeated(3, rng)[0]:
    symbols = "".join(SYMBOLS[i] for i in sequence)
    print(symbols[:HALF], symbols[HALF:])

# %% [markdown]
# The model is lesson 06's GPT with two layers of four heads and no feed-forward layers, so that only attention can do the work. The loss counts the second half only. (A few seconds.)

# %%
from chargpt_lib.training import lr_multiplier


class Nothing(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


def second_half_loss(sequences):
    logits, _ = small(sequences)  # (B, 32, 64)
    return F.cross_entropy(logits[:, HALF:-1].flatten(0, 1), sequences[:, HALF + 1 :].flatten())


# %% tags=["nbval-ignore-output"]
torch.manual_seed(1337)
small = GPT(GPTConfig(len(SYMBOLS), block_size=2 * HALF, n_layer=2, n_head=4, n_embd=64))
for block in small.blocks:
    block.feed_forward = Nothing()
optimizer = torch.optim.AdamW(small.parameters(), lr=5e-3, betas=(0.9, 0.98), weight_decay=0)
for step in tqdm(range(600), unit="step", mininterval=0.5, file=sys.stdout):
    optimizer.param_groups[0]["lr"] = 5e-3 * lr_multiplier(step, 600)
    optimizer.zero_grad()
    second_half_loss(repeated(32, rng)[0]).backward()
    nn.utils.clip_grad_norm_(small.parameters(), 1.0)
    optimizer.step()

# %% [markdown]
# Two numbers say what a head does. Let $\alpha_{ts}$ be its weights, $P = 16$ the length of a half, and $j(t)$ the place in the first half where the symbol at $t$ stands. The previous-token score and the induction score are
#
# $$\frac{1}{P-1} \sum_{t=1}^{P-1} \alpha_{t,\,t-1} \qquad \text{and} \qquad \frac{1}{P} \sum_{t=P}^{2P-1} \alpha_{t,\,j(t)+1} .$$

# %%
def two_scores(weights, sources):
    """weights (B, H, 32, 32) of a layer, sources (B, 16) -> previous-token and induction score of each head, (H,)."""
    previous = weights[:, :, :HALF].diagonal(-1, dim1=-2, dim2=-1).mean((0, -1))
    target = (sources + 1)[:, None, :, None].expand(-1, weights.shape[1], -1, -1)  # (B, H, 16, 1)
    induction = weights[:, :, HALF:].gather(-1, target).mean((0, 2, 3))
    return previous, induction


sequences, sources = repeated(256, rng)
with torch.no_grad(), record_attention(small) as small_maps:
    loss = second_half_loss(sequences).item()
no_idea = math.log(len(SYMBOLS))
print(f"loss on the second half: ≈ {loss:.2f} nats, by guessing {no_idea:.2f}")
scores = [two_scores(weights, sources) for weights in small_maps.weights]  # of each layer
for name, pair in zip(("previous-token", "induction"), zip(*scores)):
    for layer, values in enumerate(pair):
        print(f"{name:14} score, layer {layer}:", "".join(f"  ≈ {x:.2f}" for x in values.tolist()))
assert loss < 1
assert scores[0][0].max() > 0.8
assert scores[1][1].max() > 0.5

# %% [markdown]
# Previous-token heads stand in layer 0, induction heads in layer 1. (A score of 1 is out of reach: some symbols occur twice in the first half, and after its last symbol the repetition goes on with the first.) Here is one head of each kind, on one sequence. The white lines separate the halves.

# %%
lower, upper = scores[0][0].argmax().item(), scores[1][1].argmax().item()
symbols = "".join(SYMBOLS[i] for i in sequences[0])
fig, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained", sharey=True)
for ax, layer, head, name in (
    (axes[0], 0, lower, "previous token"),
    (axes[1], 1, upper, "induction"),
):
    image = draw_weights(ax, small_maps.weights[layer][0, head], symbols)
    ax.axhline(HALF - 0.5, color="white", linewidth=0.6)
    ax.axvline(HALF - 0.5, color="white", linewidth=0.6)
    ax.set(xlabel="looks at", title=f"layer {layer}, head {head}: {name}")
axes[0].set_ylabel("position")
add_colorbar(fig, image, axes)
show(
    fig,
    "Two maps of a sequence and its repetition. Left, a line just below the diagonal: each position looks at the one "
    "before it. Right, in the lower half, a line in the left columns: each symbol looks at what followed it.",
)

# %% [markdown]
# Does the upper part need the lower one? We switch off each head of layer 0 alone, and then all of its previous-token heads together (those with a score above 0.5; a model may have learned a spare one). The control is the head of the same layer with the lowest score. **Predict:** nothing in layer 1 is switched off. What becomes of its induction scores, and of the loss?

# %%
previous_scores = scores[0][0]  # (4,)
copiers = (previous_scores > 0.5).nonzero().flatten().tolist()
control = previous_scores.argmin().item()
trials = {"no head": [], **{f"head {h}": [h] for h in range(4)}, "previous-token heads": copiers}
found = {}
print(
    f"previous-token heads: ≈ {len(copiers)} of 4; control: the head with ≈ {previous_scores.min():.2f}"
)
for label, some in trials.items():
    pairs = [(0, h) for h in some]
    with torch.no_grad(), ablate_heads(small, pairs), record_attention(small) as after_ablation:
        loss = second_half_loss(sequences).item()
    induction = two_scores(after_ablation.weights[1], sources)[1].max().item()
    found[label] = induction, loss
    print(f"layer 0 off: {label:20}  largest induction score ≈ {induction:.2f}, loss ≈ {loss:.2f}")

# %%
without, beside = found["previous-token heads"], found[f"head {control}"]
print(
    f"induction score: ≈ {without[0]:.2f} without the previous-token heads, ≈ {beside[0]:.2f} without the control"
)
print(f"loss: ≈ {without[1]:.2f} and ≈ {beside[1]:.2f}; by guessing {no_idea:.2f}")
assert without[0] < 0.25 and beside[0] > 0.35
assert without[1] - beside[1] > 1

# %% [markdown]
# The induction heads are still switched on, but without the previous-token heads they no longer find their place. Without the control they look at the right place a little less. Where several heads copy the previous symbol, each can replace the others, so only switching off all of them shows what they do (and a control of one head is then smaller than what it is compared with). The loss may rise there, too: layer 1 then reads vectors that lack something it is used to. So the score, which says where a head looks, shows the dependence more plainly than the loss.

# %% [markdown]
# ## Attention rollout
#
# A head in layer 3 looks at a position. But the vector there is no longer that character alone: three layers have written into it. Abnar and Zuidema (2020) multiply the layers together. In each layer a position keeps half of itself (the residual) and takes half from where its heads look on average, $\tilde A_l = \frac12 I + \frac12 \bar A_l$; the product of all layers is
#
# $$\tilde A_L \cdots \tilde A_2 \, \tilde A_1 .$$
#
# The last layer stands on the left: we start from where the last layer looks, then trace what it found through the layers below. Rows still sum to 1.

# %%
#| export
def attention_rollout(maps):
    """Which share of each position may come from which position, through all layers: (B, T, T). Abnar and Zuidema, 2020.

    Raises: ValueError where not every layer and head was recorded.
    """
    if not maps.has_all_heads:
        raise ValueError(
            "a rollout needs every layer and head: record without `layers=` and `heads=`"
        )
    T = maps.weights[0].shape[-1]
    identity = torch.eye(T, device=maps.weights[0].device)
    rollout = identity
    for weights in maps.weights:  # (B, H, T, T)
        # Half of a layer's output counts as the residual connection's, half as attention's (the mean over its heads).
        rollout = (identity + weights.mean(1)) / 2 @ rollout
    return rollout

# %%
rollout = attention_rollout(maps)[0].cpu()
place = SCENE.index("\n")  # the end of the first line
seen = range(place + 1)
last_layer = maps.for_text(SCENE)[-1].mean(0)  # (T, T)
fig, axes = plt.subplots(2, 1, figsize=(8.5, 3.6), layout="constrained", sharex=True)
for ax, weights, title in (
    (axes[0], last_layer, "where the last layer looks, mean of its heads"),
    (axes[1], rollout, "rollout: where this may have come from, through all layers"),
):
    ax.bar(seen, weights[place, : place + 1], color="#0072B2")
    ax.set_title(title, fontsize=10)
    ax.set_ylabel("share")
    ax.margins(x=0.01)
axes[1].set_xticks(seen, visible(SCENE[: place + 1]), fontfamily="DejaVu Sans Mono", fontsize=9)
show(
    fig,
    "Bars over the characters of the first line, for the position of the line's end. Above, the last layer: a few "
    "tall bars on the names. Below, the rollout: lower and spread over the line; the first character and the end itself have the largest shares.",
)

# %%
print(f"rows sum to {rollout.sum(-1).min():.4f} up to {rollout.sum(-1).max():.4f}")
print("largest share from a later position:", rollout.triu(1).max().item())
assert (
    torch.allclose(rollout.sum(-1), torch.ones(len(SCENE)), atol=1e-4)
    and rollout.triu(1).max() == 0
)

# %% [markdown]
# The first letters of the names still rise above their neighbours, but so do other places, and the rest of the line has its share, because the vectors at the names already hold parts of it. A rollout says what *can* have arrived. No map says whether it did arrive, or what the model made of it, because a map leaves out the values and the feed-forward layers. To find that out, switch heads off.

# %% [markdown]
# ## The rollout of one position
#
# The rollout of the last position alone is cheaper than the rollout of all positions: a row of numbers goes down through the layers, and no two matrices are ever multiplied. Besides, Abnar and Zuidema's half is a guess. For each layer one can measure which part of its vector a position keeps (Kobayashi et al., 2021). This number, `keep`, replaces the 0.5 before $I$, and `1 - keep` replaces the 0.5 before $A$. Here is a version of the kind that you find on the internet.

# %%
def rollout_of_last(weights, keeps):
    """weights (L, T, T), heads averaged, lowest layer first, keeps (L,) -> (T,): where the last vector comes from."""
    share = torch.zeros_like(weights[0, -1])
    share[-1] = 1
    for A, keep in zip(weights, keeps):
        share = share @ ((1 - keep) * A)
    return share / share.sum()


two_layers = torch.eye(4).repeat(2, 1, 1)  # all positions look at themselves, except two
two_layers[0, 2] = torch.tensor([1.0, 0, 0, 0])  # in the lower layer, 2 looks at 0
two_layers[1, 3] = torch.tensor([0, 0, 1.0, 0])  # in the upper layer, 3 looks at 2
print(rollout_of_last(two_layers, torch.tensor([0.5, 0.5])).tolist())

# %% [markdown]
# ### Exercise: a rollout that lost two things
# ★★ · 8 minutes · A rollout is a picture, and nobody sees in a picture that it is wrong.
#
# Follow the example by hand. The lower layer brings what stood at 0 to 2, and the upper layer brings it on to 3. Position 3 keeps half of its own vector, twice. But the function says that everything comes from position 2, nothing from 0, and nothing from 3 itself. There are two bugs. If you fix only one you get `[1, 0, 0, 0]` or `[0, 0, 0.5, 0.5]`. Both look sensible, because the last line scales anything to the sum 1. Fix both; the shares then sum to 1 without the last line.

# %% tags=["exercise"] exercise="mended_rollout"
def mended_rollout(weights, keeps):
    """weights (L, T, T), rows sum to 1, keeps (L,) from 0 to 1 -> (T,): what rollout_of_last should return."""
    ### BEGIN SOLUTION
    share = torch.zeros_like(weights[0, -1])
    share[-1] = 1
    for A, keep in zip(weights.flip(0), keeps.flip(0)):  # from the highest layer down
        share = keep * share + (1 - keep) * share @ A
    return share
    ### END SOLUTION

# %%
check("mended_rollout", mended_rollout)

# %% [markdown]
# ## How heads form during training
#
# No head begins with a purpose. How much of the weight at the ends of lines lay on the cast list before step 0, 100, 200 ...? Copies of a model were saved while it trained; the last copy is the finished model. The next cell measures a folder of such copies, on only eight of the scenes, to be quick.

# %%
def measure_growth(album):
    """What the heads of each copy look at: steps (S,), on_cast (S, layers, heads), maps (S, T, T) of one fetcher."""
    layer, head = fetchers[0]
    steps = sorted(int(copy.stem) for copy in album.glob("*.safetensors"))
    assert len(steps) > 1, 'the copies are gone: add "seed": 1 to the settings, and train again'
    young, shares, pictures = GPT(model.config).to(device), [], []
    for step in steps:
        load_weights(young, album / f"{step}.safetensors")
        seen = [
            compute_attention_maps(young, tokenizer, scene).for_text(scene) for scene in scenes[:8]
        ]
        shares.append(
            torch.stack([on_cast(weights, scene) for weights, scene in zip(seen, scenes)]).mean(0)
        )
        pictures.append(seen[0][layer, head, :100, :100].contiguous())
    return {
        "steps": torch.tensor(steps),
        "head": torch.tensor([layer, head]),
        "on_cast": torch.stack(shares),
        "maps": torch.stack(pictures).half(),
    }

# %% [markdown]
# The copies of the recorded model take thirteen times its size. So the course comes without the copies, but with the numbers that this function found in them. With `TRAIN = True` the function measures your own copies.

# %%
if RECORDED:
    growth = load_file(bundled_dir() / "models" / "playhouse" / "growth.safetensors")
else:
    growth = measure_growth(album)
when, on_names = growth["steps"].tolist(), growth["on_cast"]  # (S,), (S, layers, heads)
layer, head = growth["head"].tolist()
print("copies before steps", when[:-1], "and the finished model, after", when[-1])

# %%
fig, axes = plt.subplots(1, 5, figsize=(11, 2.7), layout="constrained", sharey=True)
chosen = torch.linspace(0, len(when) - 1, 5).round().int().tolist()  # five, first to last
cast = re.search("Enter (.*) with ", scenes[0])
size = scenes[0].find("\n") + 1 if cast else 50  # the first line of a play
for ax, n in zip(axes, chosen):
    young_map = growth["maps"][n, :size, :size].float()
    image = draw_weights(ax, young_map, scenes[0][:size], labels=False)
    ax.set_title(f"step {when[n]}", fontsize=10)
    if cast:
        ax.axvspan(cast.start(1) - 0.5, cast.end(1) - 0.5, fill=False, edgecolor="white")
        ax.set_xticks([sum(cast.span(1)) / 2], ["cast list"], fontsize=9)
axes[0].set_yticks([size - 1], ["⏎"], fontfamily=FONT, fontsize=12)
add_colorbar(fig, image, axes)
fig.suptitle(f"layer {layer}, head {head}, on the first line of a scene", fontsize=10)
show(
    fig,
    "Five maps of one head, from step 0 to the end of the training: even at first, then stripes, then a few bright "
    "points. White lines mark the columns of the cast list.",
)

# %%
fig, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
for row in on_names.flatten(1).T:
    ax.plot(when, row, color="#BBBBBB", linewidth=0.8)
ax.plot(when, on_names[:, layer, head], "o-", color="#0072B2", label=f"layer {layer}, head {head}")
ax.axhline(by_chance, color="#D55E00", linestyle="--", label="chance")
ax.set(
    xlabel="step",
    ylabel="mean weight",
    ylim=0,
    title="Weight on the cast list, at ends of lines: every head",
)
fig.legend(loc="outside right upper", frameon=False)
show(
    fig,
    "All heads begin at chance. A few, the blue one among them, rise far above it within the first thousand steps; "
    "more heads fall below it.",
)

# %%
first, last = on_names[0], on_names[-1]  # (layers, heads)
print(
    f"layer {layer}, head {head}: {first[layer, head]:.2f} at initialisation, {last[layer, head]:.2f} at the end"
)
print(
    f"of {last.numel()} heads {(last > 2 * first).sum()} end with more than twice their first weight, "
    f"{(last < first / 2).sum()} with less than half"
)
assert last[layer, head] > 2 * first[layer, head] or not RECORDED

# %% [markdown]
# At the start every head looks at all positions equally. In the recorded model the heads drift apart after the first hundred steps, most of them away from the cast list, the blue one too. Between steps 500 and 1,000 a few turn to the cast list, and stay there. Nobody told the blue one to look there: it only followed the gradient of the loss.
#
# ## Mistakes people make
#
# - **Taking a weight for an effect.** The picture shows where a head looks. The head may write nothing. Switch it off and measure.
# - **Comparing maps with different scales.** A map whose colours end at its own largest weight always looks sharp. Here all end at 1.
# - **Averaging before looking.** The mean over heads hides that each head looks somewhere else.
# - **Taking a position for its character.** From layer 1 on, position 20 holds what earlier layers fetched to it.
# - **One scene.** On one text, every head tells a story. Count over many texts, and compare with chance.
# - **A control that is none.** A head of another layer differs in its layer, too; a head of the same layer may do the same work.
#
# ## Exercises

# %% [markdown]
# ### Exercise: what a head writes
# ★★★ · 15 minutes · Where a head looks is one half of it; the other half is what it does with what it sees (Elhage et al., 2021, call it the OV circuit).
#
# A head at position $t$ looks at positions $s$ with the weights $\alpha_{ts}$. What stands there is $x_s$; its value is $v_s = W_V x_s$, and the head writes $W_O \sum_s \alpha_{ts} v_s$. Once the weights are fixed, all of this is linear. So we may ask about each character alone: if the head gives it the whole weight 1, by how much does the head change each logit?
#
# Take for $x_s$ the character's row of the table $E$ and nothing else (no position, no norm), and let the last matrix $W_U$ read what the head has written: the logits are $W_U$ times this vector. Return two things.
#
# `table` (V, V): row $c$, column $u$ is the change of the logit of $u$ when the head looks at $c$.
#
# `margin` (V,): for each $c$, the change of $c$'s own logit minus the largest change of any *other* logit. If the margin is positive, a head that looks at $c$ says $c$: it copies.
#
# `W_v` (D, C) and `W_u` (V, C) are stored as in `nn.Linear`; so is `W_o` (C, D), those columns of the projection that multiply this head's D numbers (lesson 04). With V = 3, C = 2, D = 1, `E = W_u = [[1, 0], [0, 1], [1, 1]]`, `W_v = [[2, 1]]` and `W_o = [[1], [-1]]`: the values are 2, 1 and 3, the head writes (2, −2), (1, −1) and (3, −3), `table` is `[[2, -2, 0], [1, -1, 0], [3, -3, 0]]`, and `margin` is `[2, -2, -3]`. This head copies character 0, and says 0 whatever it sees.

# %% tags=["exercise"] exercise="ov_circuit"
def ov_circuit(E, W_v, W_o, W_u):
    """E, W_u (V, C), W_v (D, C), W_o (C, D), V >= 2 -> [table (V, V), margin (V,)], in the dtype of E."""
    ### BEGIN SOLUTION
    table = E @ W_v.T @ W_o.T @ W_u.T
    itself = torch.eye(len(E), dtype=torch.bool)
    best_other = table.masked_fill(itself, float("-inf")).amax(-1)
    return [table, table.diagonal() - best_other]
    ### END SOLUTION

# %%
check("ov_circuit", ov_circuit)

# %% [markdown]
# The table holds V · V numbers, but all of them went through the D numbers of the value, so the table's rank is at most D: a head can say at most D kinds of things. Whether it *does* copy in the text is another question; it also has to look at the right place. `margin` says what the head would write if it did.

# %% [markdown]
# How far you are:

# %%
progress()

# %% [markdown]
# ## Summary
#
# `record_attention`, `plot_attention`, `plot_heads`, `attention_html`, `ablate_heads` and `attention_rollout`, in `chargpt_lib/attention_maps.py`. They work for every model of this course, and for any model of yours that calls the kernel or a softmax itself.
#
# Next: [08 · Sampling](08_sampling.ipynb), from probabilities to text. Or put a text of yours behind `CORPUS = `, and ask which of its habits has a head of its own.
