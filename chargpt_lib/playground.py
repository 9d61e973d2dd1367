"""A model as one HTML file in which it lives: its weights in 8 bits, and the program that computes with them."""

import base64
import copy
from html import escape
from io import BytesIO

import torch
from torch.nn import functional as F

from chargpt_lib.checkpoints import build_model, model_spec, unwrap
from chargpt_lib.plots import (
    LEVELS,
    interactive_page,
    prepare_texts,
    read_asset,
    visible,
)
from chargpt_lib.sampling import generate

# A file of more is too large for a browser's tab on a phone. It would have 4 bytes for each 3 parameters.
MAX_PARAMETERS = 50_000_000
START_LENGTH = 128  # characters or tokens of the text that the page shows at first


# ---------------------------------------------------------------- the weights


def quantize_rows(weight):
    """A matrix as 8-bit numbers and a scale for each row: (R, ...) -> int8 (R, ...), float32 (R,)."""
    rows = weight.detach().float().flatten(1)
    scales = (rows.abs().amax(1) / 127).clamp(min=1e-12)
    small = (rows / scales[:, None]).round().to(torch.int8)
    return small.view(weight.shape), scales


def is_quantized(weight):
    """Whether a parameter is kept in 8 bits: matrices and tables are, gains and biases are not."""
    return weight.dim() == 2


@torch.no_grad()
def as_packed(model):
    """A copy of the model with the weights that the page computes with."""
    packed = copy.deepcopy(model).float().eval()
    for weight in packed.parameters():
        if is_quantized(weight):
            small, scales = quantize_rows(weight)
            weight.copy_(small.float() * scales[:, None])
    return packed


def pack(model):
    """The model's config and tensors, and their bytes: {"config", "tensors": [{"name", "shape", "offset", "bits"}]}, bytes.

    A tensor of 8 bits is its rows' scales in float32, then its rows; one of 32 bits is float32. All little-endian.
    A tied lm_head is left out, because it is the token embedding.
    """
    tensors = []
    data = bytearray()
    for name, weight in model.named_parameters():
        # float32 begins at a multiple of four.
        data += b"\0" * (-len(data) % 4)
        row = {"name": name, "shape": list(weight.shape), "offset": len(data)}
        if is_quantized(weight):
            small, scales = quantize_rows(weight)
            data += scales.cpu().numpy().astype("<f4").tobytes()
            data += small.cpu().numpy().tobytes()
            row["bits"] = 8
        else:
            data += weight.detach().float().cpu().numpy().astype("<f4").tobytes()
            row["bits"] = 32
        tensors.append(row)
    config = {"model_type": model.config.model_type, **vars(model.config)}
    return {"config": config, "tensors": tensors}, bytes(data)


@torch.no_grad()
def _library_model(model, tokenizer):
    """The library's own GPT or ModernGPT with the model's weights, on the CPU.

    The page's program is written after these two. A model that computes anything else would look alive there, and lie.
    Raises: ValueError for such a model, or one that is too large.
    """
    model = unwrap(model)
    model_spec(model, tokenizer)
    size = sum(weight.numel() for weight in model.parameters())
    if size > MAX_PARAMETERS:
        raise ValueError(
            f"the model has {size:,} parameters; a page holds at most {MAX_PARAMETERS:,}: train a smaller one"
        )
    with torch.random.fork_rng(devices=[]):
        own = build_model(model.config)
        ids = torch.randint(tokenizer.vocab_size, (1, min(model.block_size, 32)))
    own.eval()
    device = next(model.parameters()).device
    try:
        own.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise ValueError(
            f"{type(model).__name__} has other weights than the {type(own).__name__} of its config, so the page "
            f"cannot compute it ({str(error).splitlines()[-1].strip()})"
        ) from None
    was_training = model.training
    model.eval()
    try:
        logits = model(ids.to(device))[0].float().cpu()
    finally:
        model.train(was_training)
    difference = (own(ids)[0] - logits).abs().max().item()
    if not difference < 0.05:
        raise ValueError(
            f"{type(model).__name__} computes something else than chargpt_lib's {type(own).__name__} with the same "
            f"weights: a logit differs by {difference:.2g}. The page computes only that one"
        )
    return own


# ---------------------------------------------------------------- the page


def _first_text(model, tokenizer):
    """What the page shows at first, if nothing else is asked for: a text that the model writes."""
    try:
        tokenizer.encode("\n")
        prompt = "\n"
    except ValueError:
        prompt = tokenizer.decode([0])
    length = min(START_LENGTH, model.block_size) - 1
    text = generate(model, prompt, max_new_tokens=length, tokenizer=tokenizer, seed=1337)
    # A line end at the beginning was only there to begin with.
    return text.lstrip("\n")


@torch.no_grad()
def _token_costs(model, ids):
    """What each of the ids (T,) costs, in nats, as a list; None for the first, which nothing predicts."""
    if len(ids) < 2:
        return [None] * len(ids)
    logits = model(ids[None, :-1])[0][0]
    return [None, *F.cross_entropy(logits, ids[1:], reduction="none").tolist()]


LINE_WIDTH = 64  # characters in a line of the still picture


def _still_picture(pieces, costs, floor, unit):
    """The text on grounds that show its costs, as an image, and a sentence -> HTML."""
    from matplotlib.patches import Rectangle
    from matplotlib.pyplot import close, subplots

    cells = []  # (row, column, character, cost)
    row = 0
    column = 0
    for piece, cost in zip(pieces, costs):
        for char in piece:
            cells.append((row, column, char, cost))
            column += 1
            if char == "\n" or column == LINE_WIDTH:
                row += 1
                column = 0
    rows = cells[-1][0] + 1 if cells else 1
    fig, ax = subplots(figsize=(9, 0.25 * rows + 0.3), layout="constrained")
    for row, column, char, cost in cells:
        excess = 0.0 if cost is None else max(0.0, cost - floor)
        alpha = 0.8 * min(1.0, excess / 6) ** 0.5
        ax.add_patch(Rectangle((column, row), 1, 1, color="#C45800", alpha=alpha, linewidth=0))
        label = visible(char)[0] if char != " " else ""
        ax.text(column + 0.5, row + 0.75, label, ha="center", fontfamily="DejaVu Sans Mono")
    ax.set(xlim=(0, LINE_WIDTH), ylim=(rows, 0))
    ax.axis("off")
    prepare_texts(fig)
    picture = BytesIO()
    fig.savefig(picture, dpi=80, format="webp", pil_kwargs={"quality": 75})
    close(fig)
    image = base64.b64encode(picture.getvalue()).decode()

    known = [cost for cost in costs if cost is not None]
    if known:
        said = f"This text costs the model {sum(known) / len(known):.2f} nats per {unit}."
        worst = max(range(1, len(costs)), key=lambda t: costs[t])
        before = "".join(visible("".join(pieces[:worst])[-20:]))
        said += (
            f" It was most surprised by “{''.join(visible(pieces[worst]))}” after “{before}”: "
            f"{costs[worst]:.1f} nats."
        )
    else:
        said = "The text is too short to predict anything in it."
    return (
        f'<img alt="The text; the darker the ground of a {unit}, the more it surprised the model" '
        f'style="max-width: 100%" src="data:image/webp;base64,{image}">\n'
        f"<p>{escape(said)} Where scripts may run, the model computes here: run the cell, or open the page "
        f"in a browser.</p>"
    )


def playground(model, tokenizer, text=None, floor=None):
    """The model, alive in a page: type a text and see what surprises it, let it write, switch heads off -> HtmlPage.

    model: a GPT or a ModernGPT. text: what the page shows at first; else the model writes something. floor: the
    irreducible loss of the corpus in nats per character, where the colours begin. The page computes with the weights
    in 8 bits; `as_packed` makes the same model for PyTorch.

    Raises: ValueError for a model that the page cannot compute, and for a text that the tokenizer cannot encode.
    """
    own = _library_model(model, tokenizer)
    packed = as_packed(own)
    if text is None:
        text = _first_text(packed, tokenizer)
    ids = tokenizer.encode(text)[: own.block_size]
    pieces = [tokenizer.decode([i]) for i in ids.tolist()]
    costs = _token_costs(packed, ids)
    spec, weights = pack(own)
    data = {
        "spec": spec,
        "size": sum(weight.numel() for weight in own.parameters()),
        "weights": base64.b64encode(weights).decode(),
        "tokenizer": tokenizer.to_dict(),
        "text": text,
        "floor": floor,
        "levels": LEVELS,
        "viewerStyle": read_asset("attention.css"),
    }
    windows = read_asset("windows.js")
    # What a worker computes with: in a function, so that the page can hand it over as a text, or call it itself.
    computing = "\n".join(
        [read_asset("kernel.js"), read_asset("model.js"), windows, read_asset("engine.js")]
    )
    helpers = [
        f"function computing() {{\n{computing}\nreturn serve;\n}}",
        windows,
        read_asset("tokenizers.js"),
        read_asset("attention.js"),
    ]
    still = _still_picture(pieces, costs, 0.0 if floor is None else floor, tokenizer.unit)
    return interactive_page(
        "playground", data, still, helpers="\n".join(helpers), title="chargpt: a live model"
    )


def save_playground(model, tokenizer, path, text=None, floor=None):
    """Writes the live page of a model to a file. Raises: ValueError, OSError."""
    playground(model, tokenizer, text, floor).save(path)
