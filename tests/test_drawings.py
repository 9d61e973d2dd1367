"""The drawings of the architecture: legible, complete, and true to the modules that they show."""

from itertools import combinations

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from chargpt_lib.bigram import BigramLanguageModel
from chargpt_lib.blocks import BlockLanguageModel
from chargpt_lib.drawings import (
    STAGES,
    describe_model,
    draw_head,
    draw_model,
    head_steps,
    number_text,
)
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.multi_head import MultiHeadLanguageModel
from chargpt_lib.plots import prepare_texts, show
from chargpt_lib.single_head import (
    SingleHeadLanguageModel,
    causal_mask,
    scaled_dot_product_attention,
)

Q = [[1, 0], [0.5, 1], [2, -1.5]]
K = [[1, 0.5], [-1, 2], [1, 1]]
V = [[1, 0], [0, 2], [-1, 1]]
NUMBERS = [torch.tensor(matrix, dtype=torch.float32) for matrix in (Q, K, V)]
FIGURES = [*STAGES, "head"]
each_stage = pytest.mark.parametrize("stage", STAGES)

# No two letters have the same size, or a wrong letter might go unseen.
SIZES = {"B": 2, "T": 5, "C": 12, "H": 3, "D": 4, "V": 7, "block_size": 8, "3C": 36, "4C": 48}


def figure_of(name):
    if name == "head":
        return draw_head("goo", Q, K, V)[0]
    return draw_model(name)[0]


def text_boxes(figure):
    """{what is written: where, in pixels}: as pairs, because a text may stand in several places."""
    prepare_texts(figure)
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts]


def overlap(one, other):
    """By how many pixels two rectangles overlap, in the direction in which they do so less."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return min(width, height)


# ---------------------------------------------------------------- legible


@pytest.mark.parametrize("name", FIGURES)
def test_all_texts_lie_inside_the_figure(name):
    figure = figure_of(name)
    for text, place in text_boxes(figure):
        assert place.x0 >= 0 and place.y0 >= 0, text
        assert place.x1 <= figure.bbox.x1 and place.y1 <= figure.bbox.y1, text


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_lies_on_another(name):
    for (one, place), (other, there) in combinations(text_boxes(figure_of(name)), 2):
        assert overlap(place, there) <= 0, f"{one!r} on {other!r}"


@each_stage
def test_each_text_lies_within_a_box_or_outside_it(stage):
    drawing = describe_model(stage)
    dpi = drawing.figure.dpi
    for text, place in text_boxes(drawing.figure):
        for node in drawing.nodes:
            left, right = (node.side(side)[0] * dpi for side in ("left", "right"))
            bottom, top = (node.side(side)[1] * dpi for side in ("bottom", "top"))
            inside = (
                left <= place.x0 and place.x1 <= right and bottom <= place.y0 <= place.y1 <= top
            )
            outside = place.x1 <= left or right <= place.x0 or place.y1 <= bottom or top <= place.y0
            # A word has no frame; its own text is as wide as it is.
            assert inside or outside or node.kind == "word", f"{text!r} crosses {node.name!r}"


@pytest.mark.parametrize("name", FIGURES)
def test_texts_are_large_enough_and_figures_fit_a_laptop(name):
    figure = figure_of(name)
    assert min(text.get_fontsize() for text in figure.axes[0].texts) >= 8
    width, height = figure.get_size_inches()
    assert width == 9
    assert height <= (6.3 if name == "gpt" else 5)


# ---------------------------------------------------------------- true to the modules


def small_model(stage):
    torch.manual_seed(1337)
    vocab_size, block_size, n_embd, n_head = (
        SIZES[letter] for letter in ("V", "block_size", "C", "H")
    )
    if stage == "bigram":
        return BigramLanguageModel(vocab_size, block_size)
    if stage == "single_head":
        return SingleHeadLanguageModel(vocab_size, block_size, n_embd)
    if stage == "multi_head":
        return MultiHeadLanguageModel(vocab_size, block_size, n_embd, n_head)
    if stage == "blocks":
        return BlockLanguageModel(vocab_size, block_size, n_embd, n_head, n_layer=2)
    config = GPTConfig(vocab_size, block_size, n_layer=2, n_head=n_head, n_embd=n_embd)
    return GPT(config)


def size_of(shape, stage):
    """ "(B, T, C)" -> the numbers."""
    # The model of lesson 03 has a head as wide as the stream.
    sizes = SIZES | {"D": SIZES["C"]} if stage == "single_head" else SIZES
    letters = shape.strip("()")
    return tuple(sizes[letter] for letter in letters.split(", ")) if letters else ()


# The functions whose results are drawn as boxes without a module.
BOX_OF = {
    "__getitem__": "position embedding",
    "add": "add",
    "div": "scores",
    "masked_fill": "causal mask",
    "softmax": "softmax",
    "matmul": "weights @ v",
    "reshape": "concatenate",
    "dropout": "dropout",
    "gelu": "GELU",
}


class Recorder(TorchFunctionMode):
    """Notes the shape of what each function returned last."""

    def __init__(self):
        super().__init__()
        self.shapes = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.__name__ in BOX_OF and torch.is_tensor(result):
            self.shapes[BOX_OF[func.__name__]] = tuple(result.shape)
        return result


def recorded_shapes(model, monkeypatch):
    """{path of a module, or name of a box without one: the shape that came out of it} in one pass."""
    shapes = {}
    recorder = Recorder()

    def attend(q, k, v, attn_mask=None, is_causal=False, dropout_p=0.0):
        assert is_causal and attn_mask is None
        assert q.shape == k.shape == v.shape
        shapes["split"] = tuple(q.shape)
        return scaled_dot_product_attention(q, k, v, causal_mask(q.shape[-2]))[0]

    for path, module in model.named_modules():
        # The path as a default, because the loop's variable goes on.
        def note(module, inputs, output, path=path):
            shapes[path] = tuple(output.shape) if torch.is_tensor(output) else None
            if path == "attention":
                shapes["x"] = tuple(inputs[0].shape)

        module.register_forward_hook(note)
    ids = torch.randint(SIZES["V"], (SIZES["B"], SIZES["T"] + 1))
    idx, targets = ids[:, :-1], ids[:, 1:]
    _, fused = model(idx, targets)
    # The kernel's steps cannot be recorded: lesson 03's formula in its place, with the same result.
    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    with recorder:
        logits, loss = model(idx, targets)
    assert torch.allclose(loss, fused)
    shapes.update(recorder.shapes)
    shapes.update(
        {"ids": tuple(idx.shape), "targets": tuple(targets.shape), "mean": tuple(loss.shape)}
    )
    if isinstance(model, BigramLanguageModel):
        p = logits.softmax(-1)
        nats = -p.gather(-1, targets[..., None])[..., 0].log()
        assert torch.allclose(nats.mean(), loss)
        shapes["softmax"] = tuple(p.shape)
        shapes["−log p(target)"] = tuple(nats.shape)
    return shapes


@each_stage
def test_the_shapes_on_the_arrows_are_those_of_real_tensors(stage, monkeypatch):
    recorded = recorded_shapes(small_model(stage), monkeypatch)
    checked = 0
    for arrow in describe_model(stage).arrows:
        if not arrow.shape:
            continue
        source = arrow.source
        # No layer turns positions into vectors: the model takes the first T rows of its table.
        with_module = source.module and source.name != "position embedding"
        name = source.module if with_module else source.name.split("_")[0]
        assert size_of(arrow.shape, stage) == recorded[name], f"{source.name}: {arrow.shape}"
        checked += 1
    assert checked >= 6


@each_stage
def test_each_parameter_of_the_model_is_drawn_with_its_shape_and_no_other(stage):
    model = small_model(stage)
    real = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if not name.startswith("blocks.1."):  # one block stands for all of them
            real[name] = tuple(parameter.shape)
    drawn = {}
    for node in describe_model(stage).nodes:
        for name, shape in node.parameters.items():
            drawn[f"{node.module}.{name}"] = size_of(shape, stage)
    assert drawn == real


def test_lm_head_is_tied_where_the_drawing_says_so():
    for stage in STAGES:
        model = small_model(stage)
        written = " ".join(text.get_text() for text in describe_model(stage).axes.texts)
        tied = stage != "bigram" and model.lm_head.weight is model.token_embedding.weight
        assert ("tied" in written) == tied, stage


def test_what_is_new_was_not_drawn_before_and_what_is_grey_was():
    # Lesson 02 draws cross-entropy from inside.
    known = {"cross-entropy"}
    for stage in STAGES:
        boxes = [node for node in describe_model(stage).nodes if node.kind != "word"]
        for node in boxes:
            name = "add" if node.kind == "add" and not node.new else node.name
            assert (name in known) != node.new, f"{stage}: {node.name}"
        known |= {node.name for node in boxes}


# ---------------------------------------------------------------- in words


@each_stage
def test_the_alt_text_names_every_box_and_every_shape(stage):
    drawing = describe_model(stage)
    figure, alt = draw_model(stage)
    for node in drawing.nodes:
        assert node.name in alt
        for name, shape in node.parameters.items():
            assert f"{node.name} {name} {shape}" in alt
    for arrow in drawing.arrows:
        assert f"{arrow.source.name} to {arrow.target.name}" in alt
        assert arrow.shape in alt


@each_stage
def test_each_box_is_reached_by_an_arrow(stage):
    drawing = describe_model(stage)
    ends = {id(node) for arrow in drawing.arrows for node in (arrow.source, arrow.target)}
    assert [node.name for node in drawing.nodes if id(node) not in ends] == []


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_shows_it_on_white_with_its_words(name, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "IPython.display.display", lambda *args, **kwargs: shown.append((args, kwargs))
    )
    figure, alt = draw_head("goo", Q, K, V) if name == "head" else draw_model(name)
    show(figure, alt)
    (picture,), options = shown[0]
    assert len(picture["image/png"]) > 10_000
    assert options["metadata"]["image/png"]["alt"] == alt
    assert figure.get_facecolor() == (1, 1, 1, 1)


def test_an_unknown_stage_is_an_error():
    with pytest.raises(ValueError, match="'modern' has no drawing: take one of"):
        draw_model("modern")


# ---------------------------------------------------------------- one head by hand


def test_the_head_by_hand_computes_what_the_lesson_computes():
    q, k, v = NUMBERS
    out, weights = scaled_dot_product_attention(q, k, v, causal_mask(3))
    steps = head_steps(q, k, v)
    assert torch.equal(steps["weights"], weights)
    assert torch.equal(steps["out"], out)
    assert torch.allclose(
        steps["scores"],
        torch.tensor([[sum(a * b for a, b in zip(x, y)) / 2**0.5 for y in K] for x in Q]),
    )
    assert torch.equal(steps["masked"].isinf(), ~causal_mask(3))


def test_the_numbers_in_the_cells_are_computed():
    q, k, v = NUMBERS
    out, weights = scaled_dot_product_attention(q, k, v, causal_mask(3))
    scores = q @ k.T / 2**0.5
    masked = scores.masked_fill(~causal_mask(3), float("-inf"))
    wanted = []
    for matrix, digits in (
        (q, 1),
        (k, 1),
        (v, 1),
        (scores, 2),
        (masked, 2),
        (weights, 2),
        (out, 2),
    ):
        wanted += [number_text(number, digits) for number in matrix.flatten().tolist()]
    figure, alt = draw_head("goo", Q, K, V)
    written = [text.get_text() for text in figure.axes[0].texts]
    cells = [text for text in written if text.strip("−.0123456789∞") == ""]
    assert cells == wanted
    for number in wanted:
        assert number in alt


def test_the_worked_example_is_that_of_the_last_row():
    figure, alt = draw_head("goo", Q, K, V)
    written = "\n".join(text.get_text() for text in figure.axes[0].texts)
    steps = head_steps(*NUMBERS)
    for name, line in (("scores", "score"), ("weights", "weight"), ("out", "out")):
        found = [text for text in written.split("\n") if text.startswith(f"{line}   ")]
        assert len(found) == 1
        assert found[0].endswith(f" = {number_text(steps[name][-1, 0].item(), 2)}")
    assert "(2.0 · 1.0 + (−1.5) · 0.5) / √2 = 0.88" in written


@pytest.mark.parametrize(
    "number, text", [(-0.5, "−0.5"), (float("-inf"), "−∞"), (-0.04, "0.0"), (2, "2.0")]
)
def test_numbers_are_written_with_a_true_minus_sign_and_no_minus_zero(number, text):
    assert number_text(number, 1) == text


@pytest.mark.parametrize("text, q", [("go", Q), ("goo", Q[:2]), ("goo", [[1, 2, 3]] * 3)])
def test_a_head_that_does_not_fit_the_sheet_is_an_error(text, q):
    with pytest.raises(ValueError, match="three characters"):
        draw_head(text, q, K, V)
