# Made from notebooks/source/07_attention_maps.py by notebooks/tools/build.py. Edit that text, not this file.
"""What each head looks at: attention recorded, drawn, shown live; heads ablated."""

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

__all__ = [
    "AttentionMaps",
    "record_attention",
    "LONG_TEXT",
    "LONG_LABEL",
    "FONT",
    "token_texts",
    "draw_weights",
    "add_colorbar",
    "plot_attention",
    "plot_heads",
    "compute_attention_maps",
    "attention_html",
    "save_attention_page",
    "ablate_heads",
    "attention_rollout",
]


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
