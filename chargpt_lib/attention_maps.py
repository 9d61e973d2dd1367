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
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from chargpt_lib.plots import LEVELS, heatmap, live_page, visible, weights_as_text
from chargpt_lib.single_head import causal_mask

__all__ = [
    "FUSED",
    "SOFTMAX",
    "Attentions",
    "weights_of",
    "check_heads",
    "Maps",
    "record_attention",
    "draw_weights",
    "colorbar",
    "plot_attention",
    "plot_heads",
    "look",
    "still_picture",
    "attention_html",
    "attend",
    "switch_off",
    "attention_rollout",
]


FUSED, SOFTMAX = F.scaled_dot_product_attention, (torch.softmax, torch.Tensor.softmax, F.softmax)


class Attentions(TorchFunctionMode):
    """Meets every attention of a model: a call of the fused kernel, or a softmax with square results.

    For each of these calls it asks see(layer, heads, out, weights) for what to put in its place. weights(some): the
    weights of some of the call's heads, (B, H, T, T). At the end of a pass, done(the number of heads of each layer).
    """

    def __init__(self, model, see, done):
        super().__init__()
        self.model, self.see, self.done, self.reading = model, see, done, []

    def __enter__(self):
        parts = [
            part for part in self.model.modules() if part is self.model or list(part.children())
        ]
        self.hooks = [part.register_forward_pre_hook(self.begin) for part in parts]
        self.hooks += [part.register_forward_hook(self.end, always_call=True) for part in parts]
        return super().__enter__()

    def __exit__(self, *error):
        for hook in self.hooks:
            hook.remove()
        return super().__exit__(*error)

    def begin(self, part, inputs):
        if part is self.model:
            self.reading, self.counts, self.source = [], [], None
        self.reading.append(
            inputs[0] if inputs else part
        )  # what each running part was given, the innermost last

    def end(self, part, inputs, out):
        self.reading.pop()
        if part is self.model and out is not None:
            self.done(self.counts)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        square = func in SOFTMAX and out.dim() > 2 and out.shape[-1] == out.shape[-2]
        if not self.reading or not (square or func is FUSED):
            return out
        source = self.reading[-1] if out.dim() == 3 else None
        if (
            source is None or source is not self.source
        ):  # single heads that read the same tensor are one layer
            self.counts.append(0)
        heads = range(self.counts[-1], self.counts[-1] + (out.shape[1] if source is None else 1))
        self.counts[-1], self.source = heads.stop, source
        return self.see(
            len(self.counts) - 1,
            heads,
            out,
            lambda some: weights_of(some, func, out, args, kwargs or {}),
        )


@torch.no_grad()
def weights_of(some, func, out, args, kwargs):
    """The weights in a call of the kernel or of softmax that gave out, of some of its heads: (B, len(some), T, T)."""
    take = (lambda x: x[:, some]) if out.dim() == 4 else (lambda x: x[:, None].clone())
    if func is not FUSED:
        return take(out)
    call = {
        **dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args)),
        **kwargs,
    }
    q, k = call["query"], call["key"]
    mask = causal_mask(q.shape[-2], q.device) if call.get("is_causal") else call.get("attn_mask")
    scores = (
        take(q) * (call.get("scale") or q.shape[-1] ** -0.5) @ take(k).mT
    )  # (B, len(some), T, T)
    if mask is not None:
        mask = mask if mask.dim() == 2 else take(mask.expand(*q.shape[:-1], -1))
        scores += torch.where(mask, 0.0, float("-inf")) if mask.dtype == torch.bool else mask
    return torch.softmax(scores, -1, out=scores)


def check_heads(counts, heads):
    """IndexError where a model has no such (layer, head). counts: the number of heads of each layer."""
    for layer, head in heads:
        if layer not in range(len(counts)) or head not in range(counts[layer]):
            raise IndexError(
                f"there is no layer {layer}, head {head}: the {len(counts)} layers have {counts} heads"
            )


class Maps:
    """The weights that `record_attention` saw: a list of (B, H, T, T), and which layers and heads they are of."""

    weights, layers, heads, complete = [], [], [], False

    def of(self, text):
        """(L, H, T, T), on the CPU. ValueError where these are not the maps of this one text."""
        if not self.weights:
            raise ValueError(
                "nothing was recorded: run the model inside `with record_attention(model) as maps:`"
            )
        B, _, T, columns = self.weights[0].shape
        if not (B == 1 and T == columns == len(text)):
            raise ValueError(
                f"the maps are of {B} texts, {T} x {columns}; this is one text of {len(text)} characters"
            )
        return torch.cat(self.weights).float().cpu()


@contextmanager
def record_attention(model, layers=None, heads=None):
    """with record_attention(model) as maps: model(idx) -> maps.weights, a list of (B, H, T, T), of the last pass.

    layers, heads: the numbers of those to keep; all without. The model and its results stay as they are. ValueError
    where a model shows no attention, IndexError where it has no such layer or head.
    """
    if any(
        x is not None and not (isinstance(x, (list, tuple, range)) and len(x))
        for x in (layers, heads)
    ):
        raise TypeError(
            f"layers={layers!r}, heads={heads!r}: give lists of numbers, as in heads=[3], or none at all"
        )
    maps, parts = Maps(), {}

    def see(layer, numbers, out, weights):
        if layer == numbers[0] == 0:
            parts.clear()
        some = [i for i, head in enumerate(numbers) if heads is None or head in heads]
        if some and (layers is None or layer in layers):
            parts.setdefault(layer, []).append(weights(some))
        return out

    def done(counts):
        if not counts:
            raise ValueError(
                f"{type(model).__name__} shows no attention: no call of F.scaled_dot_product_attention, "
                f"no square softmax (calls inside nn.MultiheadAttention cannot be heard)"
            )
        check_heads(
            counts,
            [(layer, head) for layer in layers or range(len(counts)) for head in heads or [0]],
        )
        maps.weights = [
            part[0] if len(part) == 1 else torch.cat(part, 1) for part in parts.values()
        ]
        maps.layers, maps.heads = (
            list(parts),
            list(range(counts[0])) if heads is None else sorted(set(heads)),
        )
        maps.complete = layers is None and heads is None

    with Attentions(model, see, done):
        yield maps


def draw_weights(ax, weights, text, labels=True):
    """Draws (T, T) weights into matplotlib axes, with the characters of the text on both -> the image."""
    image, long = heatmap(ax, weights), len(text) > 80
    image.set_norm(colors.PowerNorm(0.5, vmin=0, vmax=1))
    places = [
        t
        for t in range(len(text))
        if labels and (not long or t == 0 or text[t - 1] == "\n" != text[t])
    ]
    names = [re.match(r"[^\s:]{0,8}", text[t:])[0] if long else visible(text[t])[0] for t in places]
    font = {"fontfamily": "DejaVu Sans Mono", "fontsize": 8 if long else min(9, 430 / len(text))}
    ax.set_xticks(places, names, rotation=90 if long else 0, **font)
    ax.set_yticks(places, names, **font)
    return image


def colorbar(fig, image, axes):
    """The colours of weights, stated beside the axes."""
    fig.colorbar(
        image,
        ax=axes,
        label="attention weight",
        ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 1],
        format="{x:g}",
    )


def plot_attention(maps, text, layer=0, head=0):
    """The map of one head, with the characters on both axes -> matplotlib figure. IndexError for one not recorded."""
    weights = maps.of(text)
    if layer not in maps.layers or head not in maps.heads:
        raise IndexError(
            f"layer {layer}, head {head} was not recorded: layers {maps.layers}, heads {maps.heads} were"
        )
    side = min(max(0.125 * len(text) + 1, 3.2), 9)
    fig, ax = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    image = draw_weights(ax, weights[maps.layers.index(layer), maps.heads.index(head)], text)
    ax.set(xlabel="looks at", ylabel="position", title=f"layer {layer}, head {head}")
    colorbar(fig, image, ax)
    return fig


def plot_heads(maps, text):
    """The maps of all recorded heads, a row for each layer -> matplotlib figure."""
    weights = maps.of(text)
    fig, axes = plt.subplots(
        *weights.shape[:2],
        squeeze=False,
        layout="constrained",
        figsize=(1.45 * weights.shape[1] + 1.5, 1.45 * len(weights) + 0.6),
    )
    for layer, line in enumerate(axes):
        for head, ax in enumerate(line):
            image = draw_weights(ax, weights[layer, head], text, labels=False)
            ax.set(
                title=f"head {maps.heads[head]}" * (layer == 0),
                ylabel=f"layer {maps.layers[layer]}" * (head == 0),
            )
    colorbar(fig, image, axes)
    return fig


def look(model, tokenizer, text, **chosen):
    """Lets the model read a text -> Maps. chosen: layers and heads, as for `record_attention`."""
    if not 0 < len(text) <= model.block_size:
        raise ValueError(
            f"the text has {len(text)} characters; this model reads from 1 to {model.block_size} at once"
        )
    idx, was_training = (
        tokenizer.encode(text)[None].to(next(model.parameters()).device),
        model.training,
    )
    model.eval()
    try:
        with torch.no_grad(), record_attention(model, **chosen) as maps:
            model(idx)
    finally:
        model.train(was_training)
    return maps


def still_picture(maps, text):
    """The wall of maps as an image, and each head's look back that is furthest above chance as a table -> HTML."""
    picture, fig, rows = BytesIO(), plot_heads(maps, text), []
    fig.savefig(picture, dpi=70, format="webp", pil_kwargs={"quality": 75})
    plt.close(fig)
    for layer, heads in zip(
        maps.layers, maps.of(text).tril(-1) * torch.arange(1, len(text) + 1)[:, None]
    ):
        for head, weights in zip(maps.heads, heads):
            t, s = divmod(weights.argmax().item(), len(text))
            looks, at = (
                [escape(char) for char in visible(text[t] + text[s])],
                f"{weights[t, s] / (t + 1):.0%}",
            )
            rows.append(
                f"<tr><td>{layer}<td>{head}<td>{looks[0]} at {t}<td>{looks[1]} at {s}<td>{at}"
            )
    return (
        f'<img alt="Attention maps, a row for each layer, a column for each head" style="max-width: 100%" '
        f'src="data:image/webp;base64,{base64.b64encode(picture.getvalue()).decode()}">\n'
        f"<details><summary>Each head's look back that is furthest above chance</summary>\n"
        f"<table><thead><tr><th>layer<th>head<th>character<th>looks at<th>weight"
        f"<tbody>{''.join(rows)}</table></details>"
    )


def attention_html(maps, text):
    """The maps as a page to move through -> Page. ValueError for a model that looks at the future."""
    weights = maps.of(text)
    if weights.triu(1).any():
        raise ValueError(
            "weights on the future, or nan: the page shows only the past; draw them with plot_attention"
        )
    data = {"text": text, "layers": maps.layers, "heads": maps.heads, "levels": LEVELS}
    return live_page(
        "attention", {**data, "weights": weights_as_text(weights)}, still_picture(maps, text)
    )


def attend(model, tokenizer, text, path):
    """Writes the page of a text's attention maps to a file."""
    attention_html(look(model, tokenizer, text), text).save(path)


@contextmanager
def switch_off(model, heads):
    """Silences heads, a list of (layer, head), inside the block: zero stands in the place of what they hand over."""
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in heads):
        raise TypeError(f"heads is {heads!r}; it has to be a list of (layer, head), [(3, 0)]")
    heads = [tuple(pair) for pair in heads]

    def see(layer, numbers, out, weights):
        return out.masked_fill(
            torch.tensor([[[(layer, head) in heads]] for head in numbers], device=out.device), 0
        )

    with Attentions(model, see, lambda counts: check_heads(counts, heads)):
        yield


def attention_rollout(maps):
    """How much of each position may have come from each, through all layers: (B, T, T). Abnar and Zuidema, 2020."""
    if not maps.complete:
        raise ValueError(
            "a rollout needs every layer and head: record without `layers=` and `heads=`"
        )
    rollout = identity = torch.eye(maps.weights[0].shape[-1], device=maps.weights[0].device)
    for weights in maps.weights:
        rollout = (identity + weights.mean(1)) / 2 @ rollout
    return rollout
