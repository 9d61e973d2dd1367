"""A model as one HTML file that computes it: its weights in 8 bits, and a program in JavaScript and WebAssembly."""

import base64
import copy
from html import escape
from io import BytesIO

import torch
from torch.nn import functional as F

from chargpt_lib.checkpoints import build_model, model_spec, unwrap
from chargpt_lib.plots import (
    LEVELS,
    POLICY,
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
    """The library's own GPT or ModernGPT with the model's weights, on the CPU, in float32.

    The page's program computes these two; of a model that computes anything else it would show wrong numbers.
    Raises: ValueError for such a model, or one that is too large.
    """
    model = unwrap(model)
    model_spec(model, tokenizer)
    size = sum(weight.numel() for weight in model.parameters())
    if size > MAX_PARAMETERS:
        raise ValueError(
            f"the model has {size:,} parameters; a page holds at most {MAX_PARAMETERS:,}: train a smaller one"
        )
    model = copy.deepcopy(model).float().cpu().eval()
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise ValueError("a weight is nan or infinite: train the model again, with a smaller rate")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        own = build_model(model.config).eval()
        ids = torch.randint(own.vocab_size, (1, own.block_size))
    try:
        own.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise ValueError(
            f"{type(model).__name__} has other weights than the {type(own).__name__} of its config, so the page "
            f"cannot compute it ({str(error).splitlines()[-1].strip()})"
        ) from None
    logits = own(ids)[0]
    difference = (model(ids)[0] - logits).abs().max().item()
    # Sums in another order differ by less.
    if not difference <= 1e-3 * logits.abs().max().item():
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


def _whole_pieces(tokenizer, ids, costs):
    """The texts of whole characters that the ids make, and what each costs, None where nothing predicts it -> two lists.

    The bytes of a token may be only a part of a character.
    """
    pieces = []
    piece_costs = []
    waiting = []
    cost = 0.0
    for i, nats in zip(ids.tolist(), costs):
        waiting.append(i)
        cost = None if nats is None or cost is None else cost + nats
        text = tokenizer.decode(waiting)
        if not text.endswith("\ufffd") or len(waiting) == 4:
            pieces.append(text)
            piece_costs.append(cost)
            waiting = []
            cost = 0.0
    if waiting:
        pieces.append(tokenizer.decode(waiting))
        piece_costs.append(cost)
    return pieces, piece_costs


LINE_WIDTH = 64  # characters in a line of the still picture


def _still_picture(pieces, costs, loss, floor, unit):
    """A text of at most one window on grounds that show its costs, as an image, and a sentence -> HTML.

    loss: nats per token, None where there is nothing to predict. floor: nats per character.
    """
    from matplotlib.patches import Rectangle
    from matplotlib.pyplot import close, subplots

    cells = []  # (row, column, character, cost)
    row = 0
    column = 0
    for piece, cost in zip(pieces, costs):
        excess = 0.0 if cost is None else max(0.0, cost - floor * len(piece))
        for char in piece:
            cells.append((row, column, char, excess))
            column += 1
            if char == "\n" or column == LINE_WIDTH:
                row += 1
                column = 0
    rows = cells[-1][0] + 1 if cells else 1
    fig, ax = subplots(figsize=(9, 0.25 * rows + 0.3), layout="constrained")
    for row, column, char, excess in cells:
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

    if loss is None:
        said = "The text is too short to predict anything in it."
    else:
        worst = max(range(1, len(costs)), key=lambda n: costs[n])
        before = "".join(visible("".join(pieces[:worst])[-20:]))
        said = (
            f"The model's loss on the text in the picture is {loss:.2f} nats per {unit}. It was most surprised by "
            f"“{''.join(visible(pieces[worst]))}” after “{before}”: {costs[worst]:.1f} nats."
        )
    return (
        f'<img alt="The text; the darker the ground of a {unit}, the more it surprised the model" '
        f'style="max-width: 100%" src="data:image/webp;base64,{image}">\n'
        f"<p>{escape(said)} Where scripts may run, the model computes here: run the cell, or open the page "
        f"in a browser.</p>"
    )


def playground(model, tokenizer, text=None, floor=None):
    """A page that computes the model: type a text and see what surprises it, let it write, switch heads off -> HtmlPage.

    model: a GPT or a ModernGPT. text: what the page shows at first; by default the model writes something. floor: the
    irreducible loss of the corpus in nats per character, where the colours begin. The page computes with the weights
    in 8 bits; `as_packed` makes the same model for PyTorch.

    Raises: ValueError for a model that the page cannot compute, and for a text that the tokenizer cannot encode.
    """
    own = _library_model(model, tokenizer)
    packed = as_packed(own)
    if text is None:
        text = _first_text(packed, tokenizer)
    # As a text field does.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    ids = tokenizer.encode(text)[: own.block_size]
    costs = _token_costs(packed, ids)
    loss = None
    if len(ids) > 1:
        loss = sum(costs[1:]) / (len(ids) - 1)
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
        read_asset("connection.js"),
        read_asset("tokenizers.js"),
        read_asset("attention.js"),
    ]
    pieces, piece_costs = _whole_pieces(tokenizer, ids, costs)
    still = _still_picture(
        pieces, piece_costs, loss, 0.0 if floor is None else floor, tokenizer.unit
    )
    # A worker's program stands in the page itself, as a blob, and so does its WebAssembly.
    scripts = POLICY.replace("script-src", "script-src 'wasm-unsafe-eval'")
    return interactive_page(
        "playground",
        data,
        still,
        helpers="\n".join(helpers),
        title="chargpt: a live model",
        policy=f"{scripts}; worker-src blob:",
    )


def save_playground(model, tokenizer, path, text=None, floor=None):
    """Writes the live page of a model to a file. Raises: ValueError, OSError."""
    playground(model, tokenizer, text, floor).save(path)
