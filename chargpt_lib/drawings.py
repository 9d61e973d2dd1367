"""Drawings: the architecture as it grows from lesson to lesson, and one head with its numbers.

A drawing is a list of nodes and arrows on a sheet measured in inches, the origin at the lower left.
"""

from dataclasses import dataclass, field

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from matplotlib.path import Path

from chargpt_lib.plots import visible

# Okabe and Ito's orange and blue, with a light tint of each to write on.
EDGE = {"parameters": "#D55E00", "operation": "#0072B2", "add": "#0072B2"}
TINT = {"parameters": "#FCE3B6", "operation": "#D3EBF9", "add": "#D3EBF9"}
KNOWN_EDGE = "#8A8A8A"
KNOWN_TINT = "#F2F2F2"
PANEL = "#FAFAFA"
ROAD = "#DADADA"
INK = "#000000"
KNOWN_INK = "#404040"
EMPHASIS = "#A04000"  # the orange of text: dark enough to read on white

LABEL_SIZE = 9
SMALL_SIZE = 8.5  # shapes and parameters


@dataclass
class Node:
    """One box, circle or word of a drawing; x and y are its centre."""

    name: str
    x: float
    y: float
    width: float
    height: float
    kind: str  # "parameters", "operation", "add" or "word"
    new: bool
    text: str = ""
    module: str = ""  # where the model has it: the path of a submodule
    parameters: dict = field(default_factory=dict)  # {name within the module: shape}

    def side(self, side):
        """The middle of one side: "left", "right", "top" or "bottom" -> (x, y)."""
        dx, dy = {"left": (-1, 0), "right": (1, 0), "top": (0, 1), "bottom": (0, -1)}[side]
        return self.x + dx * self.width / 2, self.y + dy * self.height / 2


@dataclass
class Arrow:
    """What flows from one node to another, with the shape that is written on it."""

    source: Node
    target: Node
    shape: str


class Drawing:
    """A sheet with nodes and arrows: matplotlib draws them at once, and the list becomes the alt text."""

    def __init__(self, width, height, title, summary):
        self.summary = summary
        self.nodes = []
        self.arrows = []
        self.width = width
        self.height = height
        self.figure = Figure(figsize=(width, height), facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(0, height))
        self.axes.axis("off")
        self.write(0.12, height - 0.2, title, size=11, weight="bold", ha="left")

    def write(self, x, y, text, size=SMALL_SIZE, color=INK, ha="center", va="center", **font):
        """Writes text at a place."""
        self.axes.text(x, y, text, fontsize=size, color=color, ha=ha, va=va, **font)

    def panel(self, left, bottom, right, top, title, zoomed=None):
        """A light ground for an enlarged part; zoomed is the node that it shows from inside."""
        shape = "round,pad=0,rounding_size=0.1"
        ground = FancyBboxPatch(
            (left, bottom), right - left, top - bottom, shape, fc=PANEL, ec="#CCCCCC", zorder=0
        )
        self.axes.add_patch(ground)
        self.write(left + 0.12, top - 0.17, title, LABEL_SIZE, ha="left", style="italic")
        if zoomed is not None:
            x, y = zoomed.side("bottom")
            half = zoomed.width / 2
            corners = [(x - half, y), (x + half, y), (x + half + 0.25, top), (x - half - 0.25, top)]
            self.axes.add_patch(Polygon(corners, fc="#EEEEEE", ec="none", zorder=-1))

    def frame(self, left, bottom, right, top):
        """A dashed frame around the parts of one module."""
        style = {"fill": False, "ec": KNOWN_EDGE, "lw": 0.9, "ls": (0, (4, 3))}
        self.axes.add_patch(Rectangle((left, bottom), right - left, top - bottom, **style))

    def word(self, name, x, y, width=0.4, text=""):
        """A word without a frame, where data enters or leaves."""
        node = Node(name, x, y, width, 0.25, "word", new=False)
        self.nodes.append(node)
        self.write(x, y, text or name, LABEL_SIZE)
        return node

    def box(self, name, x, y, width, height=0.4, new=False, text="", module="", parameters=None):
        """A box: with square corners where it has parameters, with round ones where it has none.

        text: where it is not the name. parameters: {name within the module: shape}.
        """
        parameters = parameters or {}
        # The parameters of a module may be further inside.
        kind = "parameters" if module else "operation"
        text = text or name
        node = Node(name, x, y, width, height, kind, new, text, module, parameters)
        self.nodes.append(node)
        frame = FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            "square,pad=0" if kind == "parameters" else "round,pad=0,rounding_size=0.12",
            fc=TINT[kind] if new else KNOWN_TINT,
            ec=EDGE[kind] if new else KNOWN_EDGE,
            linewidth=1.6 if new else 0.9,
            zorder=3,
        )
        self.axes.add_patch(frame)
        ink = INK if new else KNOWN_INK
        # The name, and one line below it for each parameter: as a whole in the middle of the box.
        line = 0.145
        top = y + line * (len(parameters) + text.count("\n")) / 2
        name_y = top - line * text.count("\n") / 2
        self.write(x, name_y, text, LABEL_SIZE, ink, zorder=4, linespacing=1.05)
        for number, (key, shape) in enumerate(parameters.items(), start=1):
            below = top - line * (text.count("\n") + number) - 0.015
            self.write(x, below, f"{key} {shape}", 8, ink, zorder=4)
        return node

    def add(self, name, x, y, new=False):
        """A circle with a plus: here two tensors are added."""
        node = Node(name, x, y, 0.28, 0.28, "add", new)
        self.nodes.append(node)
        edge = EDGE["add"] if new else KNOWN_EDGE
        ground = TINT["add"] if new else KNOWN_TINT
        self.axes.add_patch(
            Circle((x, y), 0.14, fc=ground, ec=edge, lw=1.6 if new else 1, zorder=3)
        )
        for dx, dy in ((0.07, 0), (0, 0.07)):
            self.axes.plot([x - dx, x + dx], [y - dy, y + dy], color=INK, lw=1.3, zorder=4)
        return node

    def arrow(self, source, target, shape="", start="right", end="left", via=(), place=None):
        """An arrow between sides of two nodes, round the corners in via.

        The shape stands above the first stretch where that is level, to its right where it is upright, or at a place.
        """
        self.arrows.append(Arrow(source, target, shape))
        points = [source.side(start), *via, target.side(end)]
        self.line(points)
        (x1, y1), (x2, y2) = points[:2]
        if place is not None:
            self.write(*place, shape)
        elif y1 == y2:
            self.write((x1 + x2) / 2 - 0.02, y1 + 0.04, shape, va="bottom")
        else:
            self.write(x1 + 0.06, (y1 + y2) / 2, shape, ha="left")

    def line(self, points, color="#555555", style="-|>", width=1.1):
        """A line round corners; style is that of its end, and "-" has no head."""
        patch = FancyArrowPatch(
            path=Path(points),
            arrowstyle=style,
            mutation_scale=9,
            color=color,
            lw=width,
            joinstyle="miter",
            zorder=2,
        )
        if style == "-":
            patch.set_fill(False)
        self.axes.add_patch(patch)

    def grid(self, x, y, filled, color):
        """A little square table with its centre at (x, y); filled(row, column) says which cells have the colour."""
        count = 6
        cell = 0.1
        for row in range(count):
            for column in range(count):
                corner = (x + (column - count / 2) * cell, y + (count / 2 - 1 - row) * cell)
                ground = color if filled(row, column) else "white"
                frame = Rectangle(corner, cell, cell, fc=ground, ec=KNOWN_EDGE, lw=0.6, zorder=3)
                self.axes.add_patch(frame)

    def cards(self, left, bottom, right, top, ground="white", edge=KNOWN_EDGE, lw=0.9):
        """A stack of cards, the front one at these corners: one part is drawn, the others are like it."""
        for number in (2, 1, 0):
            corner = (left + 0.07 * number, bottom + 0.07 * number)
            card = Rectangle(corner, right - left, top - bottom, fc=ground, ec=edge, lw=lw)
            card.set_zorder(1 - 0.1 * number)
            self.axes.add_patch(card)

    def road(self, start, end, y):
        """The residual stream: a broad road at the height y."""
        self.axes.plot([start, end], [y, y], color=ROAD, lw=13, solid_capstyle="butt", zorder=1)

    def legend(self, known=True):
        """What the colours and the corners mean, in the title's line."""
        y = self.height - 0.2
        x = self.width - (3.8 if known else 2.95)
        for kind, meaning in (
            ("parameters", "new, has parameters"),
            ("operation", "new, has none"),
        ):
            style = {"fc": TINT[kind], "ec": EDGE[kind], "lw": 1.4}
            if kind == "parameters":
                self.axes.add_patch(Rectangle((x, y - 0.07), 0.22, 0.14, **style))
            else:
                form = "round,pad=0,rounding_size=0.06"
                self.axes.add_patch(FancyBboxPatch((x, y - 0.07), 0.22, 0.14, form, **style))
            self.write(x + 0.29, y, meaning, ha="left")
            x += 1.72 if kind == "parameters" else 1.32
        if known:
            grey = {"fc": KNOWN_TINT, "ec": KNOWN_EDGE}
            self.axes.add_patch(Rectangle((x, y - 0.07), 0.22, 0.14, **grey))
            self.write(x + 0.29, y, "known", ha="left")

    def alt(self):
        """The drawing in words: what it shows, then each arrow with its shape, then the parameters."""
        flows = []
        for arrow in self.arrows:
            shape = f", {arrow.shape}" if arrow.shape else ""
            flows.append(f"{arrow.source.name} to {arrow.target.name}{shape}")
        owned = []
        for node in self.nodes:
            for name, shape in node.parameters.items():
                owned.append(f"{node.name} {name} {shape}")
        new = [node.name for node in self.nodes if node.new]
        parts = [self.summary, f"Arrows: {'; '.join(flows)}.", f"Parameters: {'; '.join(owned)}."]
        if new:
            parts.append(f"New: {', '.join(new)}.")
        return " ".join(parts)


# ---------------------------------------------------------------- what the lessons draw


def _bigram():
    """Lesson 02: a table, and what the loss does with its logits."""
    d = Drawing(
        9,
        2.5,
        "The bigram model",
        "The bigram model as a row of boxes, from ids to the loss; softmax, −log p(target) and mean are together "
        "F.cross_entropy. Below the table a grid with one row in colour.",
    )
    d.legend(known=False)
    y = 1.45
    ids = d.word("ids", 0.35, y)
    table = d.box(
        "table", 1.85, y, 1.15, 0.6, new=True, module="table", parameters={"weight": "(V, V)"}
    )
    softmax = d.box("softmax", 3.95, y, 0.9, new=True)
    nats = d.box("−log p(target)", 5.9, y, 1.2, new=True)
    mean = d.box("mean", 7.55, y, 0.7, new=True)
    loss = d.word("loss", 8.6, y)
    targets = d.word("targets", 5.9, 0.45, 0.6)
    d.grid(1.57, 0.55, lambda row, column: row == 2, TINT["parameters"])
    d.write(1.2, 0.6, "i", ha="right", style="italic")
    d.write(2.0, 0.55, "row i: the logits of\nwhat follows character i", ha="left")
    d.arrow(ids, table, "(B, T)")
    d.arrow(table, softmax, "(B, T, V)")
    d.write(2.95, y - 0.05, "logits", va="top")
    d.arrow(softmax, nats, "(B, T, V)")
    d.write(4.83, y - 0.05, "p", va="top")
    d.arrow(targets, nats, "(B, T)", "top", "bottom")
    d.arrow(nats, mean, "(B, T)")
    d.arrow(mean, loss, "()")
    d.line([(3.5, y + 0.33), (3.5, y + 0.41), (7.9, y + 0.41), (7.9, y + 0.33)], style="-")
    d.write(5.7, y + 0.5, "F.cross_entropy")
    return d


def _weight_and_bias(weight, bias, has_bias):
    """The shapes of a layer's parameters, by name."""
    if has_bias:
        return {"weight": weight, "bias": bias}
    return {"weight": weight}


def _embeddings(d, y, new=False):
    """The left end of a model's row: what each character is plus where it stands -> (token embedding, add)."""
    ids = d.word("ids", 0.24, y, 0.32)
    parameters = {"weight": "(V, C)"}
    token = d.box(
        "token embedding", 1.45, y, 1.25, 0.5, new, module="token_embedding", parameters=parameters
    )
    below = y - 0.66
    parameters = {"weight": "(block_size, C)"}
    position = d.box(
        "position embedding",
        1.45,
        below,
        1.5,
        0.5,
        new,
        module="position_embedding",
        parameters=parameters,
    )
    plus = d.add("add", 2.85, y, new)
    d.arrow(ids, token, "(B, T)")
    d.arrow(token, plus, "(B, T, C)")
    d.arrow(position, plus, "(T, C)", "right", "bottom", [(2.85, below)], place=(2.53, below + 0.1))
    return token, plus


def _readout(d, y, new=False, bias=True):
    """The right end of a model's row, from lm_head to the loss -> lm_head."""
    parameters = _weight_and_bias("(V, C)", "(V)", bias)
    lm_head = d.box("lm_head", 6.72, y, 0.9, 0.62, new, module="lm_head", parameters=parameters)
    entropy = d.box("cross-entropy", 8.1, y, 0.68, 0.45, text="cross-\nentropy")
    loss = d.word("loss", 8.8, y, 0.3)
    d.arrow(lm_head, entropy, "(B, T, V)")
    d.arrow(entropy, loss)
    return lm_head


def _single_head():
    """Lesson 03: two embeddings and one head."""
    d = Drawing(
        9,
        4.6,
        "The model with one head",
        "The model with one head as a row of boxes, from ids to the loss; below it the head, enlarged.",
    )
    d.legend()
    y = 3.85
    plus = _embeddings(d, y, new=True)[1]
    lm_head = _readout(d, y, new=True)
    head = d.box("one head", 4.72, y, 1.0, 0.5, new=True, module="attention")
    d.arrow(plus, head, "(B, T, C)")
    d.arrow(head, lm_head, "(B, T, C)")
    d.panel(
        0.12,
        0.12,
        8.88,
        2.75,
        "one head, enlarged: C = n_embd, D = head_size; in this model D = C",
        head,
    )
    x = d.word("x", 0.35, 1.3, 0.2)
    lanes = []
    for name, lane in (("query", 2.15), ("key", 1.3), ("value", 0.5)):
        parameters = {"weight": "(D, C)"}
        box = d.box(
            name, 1.85, lane, 0.95, 0.5, new=True, module=f"attention.{name}", parameters=parameters
        )
        lanes.append(box)
    query, key, value = lanes
    corner = 0.58
    d.arrow(x, key, "(B, T, C)", place=(0.97, 1.4))
    d.arrow(x, query, via=[(corner, 1.3), (corner, 2.15)])
    d.arrow(x, value, via=[(corner, 1.3), (corner, 0.5)])
    shapes = ("(B, T, D)", "(B, T, T)")
    attended = _attend(d, query, key, value, (3.6, 5.1, 6.6, 8.1), shapes, new=True)
    d.grid(5.1, 1.08, lambda row, column: column <= row, TINT["operation"])
    d.write(5.5, 1.08, "row t sees\ncolumns s ≤ t", ha="left")
    out = d.word("out", 8.1, 2.45, 0.4)
    d.arrow(attended, out, "(B, T, D)", "top", "bottom")
    return d


def _attend(d, q, k, v, columns, shapes, widths=(0.92,) * 4, new=False, dropout=False):
    """From queries, keys and values to the attended values -> the last of the four boxes.

    columns, widths: of the boxes. shapes: of q, k and v, and of the scores; where the boxes stand close,
    the latter is written once.
    """
    values_shape, scores_shape = shapes
    close = columns[1] - columns[0] < 1.2
    y = (q.y + k.y) / 2
    texts = {"scores": "q @ kᵀ / √D", "causal mask": "", "softmax": "", "weights @ v": ""}
    if close:
        texts["causal mask"] = "causal\nmask"
    if dropout:
        texts["softmax"] = "softmax,\ndropout"
    boxes = []
    for (name, text), x, width in zip(texts.items(), columns, widths):
        # The softmax is known since lesson 02.
        boxes.append(d.box(name, x, y, width, 0.4, new and name != "softmax", text))
    scores, mask, softmax, attended = boxes
    d.arrow(q, scores, values_shape, "right", "top", [(scores.x, q.y)])
    d.arrow(k, scores, values_shape, "right", "bottom", [(scores.x, k.y)])
    d.arrow(v, attended, values_shape, "right", "bottom", [(attended.x, v.y)])
    if close:
        d.arrow(scores, mask)
        d.arrow(mask, softmax, scores_shape, place=((mask.x + softmax.x) / 2, y + 0.3))
        d.arrow(softmax, attended)
    else:
        d.arrow(scores, mask, scores_shape)
        d.arrow(mask, softmax, scores_shape)
        d.arrow(softmax, attended, scores_shape)
    return attended


def _heads(d, top, zoomed, module, new=False, bias=True, dropout=False):
    """Many heads from the inside, on a panel below a height; only what lesson 04 adds may be new."""
    title = "multi-head attention, enlarged: H = n_head, D = C / H"
    d.panel(0.12, top - 2.15, 8.88, top, title, zoomed)
    left, right = 1.12, 8.1
    x = d.word("x", 0.3, top - 0.65, 0.16)
    parameters = {"weight": "(3C, C)"}
    qkv = d.box(
        "qkv", left, top - 0.65, 0.95, 0.5, new, module=f"{module}.qkv", parameters=parameters
    )
    split = d.box("split", left, top - 1.5, 0.95, 0.5, new, text="split into\nH heads")
    d.cards(2.5, top - 2.02, 6.66, top - 0.42)
    lanes = [d.word(name, 2.62, top - y, 0.16) for name, y in zip("qkv", (0.65, 1.2, 1.65))]
    shapes = ("", "(B, H, T, T)")
    columns = (3.25, 4.26, 5.14, 6.1)
    widths = (0.86, 0.62, 0.68, 0.9)
    attended = _attend(d, *lanes, columns, shapes, widths, dropout=dropout)
    d.write(4.58, top - 1.87, "F.scaled_dot_product_attention computes all H heads at once")
    concatenate = d.box("concatenate", right, attended.y, 0.95, 0.34, new)
    parameters = _weight_and_bias("(C, C)", "(C)", bias)
    height = 0.5 if bias else 0.35
    proj = d.box(
        "proj", right, top - 1.54, 0.95, height, new, module=f"{module}.proj", parameters=parameters
    )
    out = d.word("out", right, top - 2.04, 0.3)
    d.arrow(x, qkv)
    d.arrow(qkv, split, "(B, T, 3C)", "bottom", "top", place=(left - 0.42, top - 1.08))
    for lane in lanes:
        corners = [(1.7, split.y), (1.7, lane.y)]
        d.arrow(split, lane, "(B, H, T, D)", via=corners, place=(2.08, lane.y + 0.1))
    d.arrow(attended, concatenate, "(B, H, T, D)", place=(7.22, attended.y + 0.1))
    d.arrow(concatenate, proj, "(B, T, C)", "bottom", "top")
    d.arrow(proj, out, "", "bottom", "top")


def _multi_head():
    """Lesson 04: the head of lesson 03, H times."""
    d = Drawing(
        9,
        4.15,
        "The model with many heads",
        "The model of lesson 03 with multi-head attention in the place of one head; below it the attention, "
        "enlarged: a stack of H cards, and on each of them the inside of one head.",
    )
    d.legend()
    y = 3.4
    plus = _embeddings(d, y)[1]
    lm_head = _readout(d, y)
    attention = d.box(
        "multi-head attention",
        4.72,
        y,
        1.0,
        0.5,
        new=True,
        text="multi-head\nattention",
        module="attention",
    )
    d.arrow(plus, attention, "(B, T, C)")
    d.arrow(attention, lm_head, "(B, T, C)")
    _heads(d, 2.3, attention, "attention", new=True)
    return d


def _block(d, top, zoomed, new=False, bias=True):
    """A block from the inside, on a panel below a height: the residual stream as a road.

    Without biases the boxes are lower; the attention's parameters are then left to a panel of its own.
    """
    depths = (0.77, 1.5, 2.05, 2.4) if bias else (0.6, 1.13, 1.63, 1.92)
    upper, lower, road, bottom = (top - depth for depth in depths)
    d.panel(0.12, bottom, 8.88, top, "one of the L = n_layer blocks, enlarged", zoomed)
    d.road(0.25, 8.75, road)

    height = 0.5 if bias else 0.35
    stream = d.word("x", 0.42, road, 0.16)
    norms = []
    for name, x in (("norm_1", 1.05), ("norm_2", 4.2)):
        parameters = _weight_and_bias("(C)", "(C)", bias)
        norm = d.box(
            name, x, lower, 0.85, height, new, module=f"blocks.0.{name}", parameters=parameters
        )
        norms.append(norm)
    inside = {}
    if bias:
        inside = {"qkv.weight": "(3C, C)", "proj.weight": "(C, C)", "proj.bias": "(C)"}
    attention = d.box(
        "multi-head attention",
        2.8,
        upper,
        1.42,
        0.76 if bias else 0.4,
        module="blocks.0.attention",
        parameters=inside,
    )
    dropout_1 = d.box("dropout_1", 2.8, lower, 0.75, 0.32, new, text="dropout")
    path = "blocks.0.feed_forward"
    parameters = _weight_and_bias("(4C, C)", "(4C)", bias)
    fc = d.box("fc", 5.5, upper, 1.0, height, new, module=f"{path}.fc", parameters=parameters)
    gelu = d.box("GELU", 7.0, upper, 0.55, 0.36, new)
    parameters = _weight_and_bias("(C, 4C)", "(C)", bias)
    proj = d.box(
        "feed-forward proj",
        8.1,
        upper,
        1.0,
        height,
        new,
        text="proj",
        module=f"{path}.proj",
        parameters=parameters,
    )
    dropout_2 = d.box("dropout_2", 8.1, lower, 0.75, 0.32, new, text="dropout")
    plus_1 = d.add("add_1", 2.8, road, new)
    plus_2 = d.add("add_2", 8.1, road, new)
    d.arrow(stream, plus_1)
    d.arrow(stream, norms[0], "", "right", "bottom", [(1.05, road)])
    d.arrow(norms[0], attention, "(B, T, C)", "top", "left", [(1.05, upper)], (1.55, upper + 0.1))
    d.arrow(attention, dropout_1, "", "bottom", "top")
    d.arrow(dropout_1, plus_1, "(B, T, C)", "bottom", "top", place=(plus_1.x + 0.43, road + 0.19))
    d.arrow(plus_1, plus_2)
    d.arrow(plus_1, norms[1], "", "right", "bottom", [(4.2, road)])
    d.arrow(norms[1], fc, "(B, T, C)", "top", "left", [(4.2, upper)], (4.6, upper + 0.1))
    d.arrow(fc, gelu, "(B, T, 4C)")
    d.arrow(gelu, proj)
    d.arrow(proj, dropout_2, "", "bottom", "top")
    d.arrow(dropout_2, plus_2, "(B, T, C)", "bottom", "top", place=(plus_2.x + 0.43, road + 0.19))
    onward = d.word("x of the next block", 8.64, road, 0.16, "x")
    d.arrow(plus_2, onward)
    d.frame(4.92, lower - 0.22, 8.68, upper + height / 2 + 0.1)
    d.write(5.02, lower - 0.12, "feed-forward, at each position by itself", ha="left")
    if new:
        d.write(1.95, lower, "also inside, on\nthe weights")
    d.write(6.0, road - 0.2, "residual stream (B, T, C)")


def _stack(d, y, x, plus, lm_head, new=False, bias=True):
    """The L blocks of a model's row, and the norm after them, between its two ends -> the blocks."""
    corners = (x - 0.4, y - 0.25, x + 0.4, y + 0.25)
    if new:
        d.cards(*corners, TINT["parameters"], EDGE["parameters"], 1.6)
    else:
        d.cards(*corners, KNOWN_TINT)
    blocks = d.box("L blocks", x, y, 0.8, 0.5, new, module="blocks")
    parameters = _weight_and_bias("(C)", "(C)", bias)
    height = 0.5 if bias else 0.35
    norm = d.box("norm", 5.72, y, 0.72, height, new, module="norm", parameters=parameters)
    d.arrow(plus, blocks, "(B, T, C)")
    d.arrow(blocks, norm)
    d.arrow(norm, lm_head)
    return blocks


def _blocks():
    """Lesson 05: blocks along a residual stream, with feed-forward, norm and dropout."""
    d = Drawing(
        9,
        4.4,
        "The model with blocks",
        "The model of lesson 04 with L blocks and a norm in the place of the attention; below it one block, "
        "enlarged: the residual stream is a broad road, from which each norm branches off, and to which "
        "attention and feed-forward are added.",
    )
    d.legend()
    y = 3.65
    plus = _embeddings(d, y)[1]
    lm_head = _readout(d, y)
    blocks = _stack(d, y, 4.3, plus, lm_head, new=True)
    _block(d, 2.55, blocks, new=True)
    return d


def _gpt():
    """Lesson 06: the whole GPT, by GPTConfig's defaults: no biases, lm_head tied."""
    d = Drawing(
        9,
        6.25,
        "The whole GPT",
        "The whole GPT as a row of boxes, from ids to the loss, without biases, with dropout after the "
        "embeddings, after the softmax, and after both parts of a block; an arc ties lm_head to the token "
        "embedding. Below it one of the L blocks, enlarged, and below that its attention, enlarged.",
    )
    d.legend()
    y = 5.25
    token, plus = _embeddings(d, y)
    lm_head = _readout(d, y, bias=False)
    dropout = d.box("dropout", 3.45, y, 0.68, 0.32, new=True)
    d.arrow(plus, dropout)
    blocks = _stack(d, y, 4.72, dropout, lm_head, bias=False)
    above = y + 0.5
    arc = [token.side("top"), (token.x, above), (lm_head.x, above), lm_head.side("top")]
    d.line(arc, color=EDGE["parameters"], style="<|-|>", width=1.6)
    d.write(4.1, above + 0.1, "tied: one parameter under two names, (V, C)", color=EMPHASIS)
    _block(d, 4.2, blocks, bias=False)
    _heads(d, 2.2, None, "blocks.0.attention", bias=False, dropout=True)
    return d


STAGES = {
    "bigram": _bigram,
    "single_head": _single_head,
    "multi_head": _multi_head,
    "blocks": _blocks,
    "gpt": _gpt,
}


def describe_model(stage):
    """The Drawing of a lesson's model. Raises: ValueError for a stage that has none."""
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r} has no drawing: take one of {list(STAGES)}")
    return STAGES[stage]()


def draw_model(stage):
    """A lesson's model, by the name of its module -> a matplotlib figure, and the alt text."""
    drawing = describe_model(stage)
    return drawing.figure, drawing.alt()


# ---------------------------------------------------------------- one head with its numbers


def head_steps(q, k, v):
    """q, k (T, D), v (T, E) -> {"scores", "masked", "weights" (T, T), "out" (T, E)}: each step of one causal head."""
    scores = q @ k.T / q.shape[1] ** 0.5
    future = torch.ones_like(scores, dtype=torch.bool).triu(1)
    masked = scores.masked_fill(future, float("-inf"))
    weights = masked.softmax(-1)
    return {"scores": scores, "masked": masked, "weights": weights, "out": weights @ v}


def number_text(number, digits):
    """A number as it stands in a cell, with a true minus sign."""
    # z: what rounds to zero has no sign.
    return f"{number:z.{digits}f}".replace("inf", "∞").replace("-", "−")


def _matrix(d, left, top, title, values, rows, columns=(), digits=2, ground=None, framed=True):
    """A labelled matrix with its numbers in the cells, and a frame round its last row, the one to follow.

    left, top: of its cells. ground(row, column): the colour of a cell.
    """
    width, height = 0.43, 0.27
    count = values.shape[1]
    d.write(left + count * width / 2, top + (0.33 if columns else 0.13), title, LABEL_SIZE)
    for number, column in enumerate(columns):
        d.write(left + (number + 0.5) * width, top + 0.11, column, family="DejaVu Sans Mono")
    for i, row in enumerate(values.tolist()):
        bottom = top - (i + 1) * height
        d.write(left - 0.12, bottom + height / 2, rows[i], family="DejaVu Sans Mono")
        for j, number in enumerate(row):
            colour = ground(i, j) if ground else "white"
            cell = Rectangle((left + j * width, bottom), width, height, fc=colour, ec=KNOWN_EDGE)
            d.axes.add_patch(cell)
            text = number_text(number, digits)
            d.write(left + (j + 0.5) * width, bottom + height / 2, text, LABEL_SIZE, zorder=4)
    if not framed:
        return
    last = Rectangle((left, bottom), count * width, height, fill=False)
    last.set(edgecolor=EDGE["parameters"], linewidth=1.8, zorder=3)
    d.axes.add_patch(last)


def _worked_example(q, k, v, steps):
    """The last character's first score, first weight and first number of out, term by term -> three lines."""
    query = q[-1].tolist()
    row = steps["masked"][-1].tolist()
    weights = steps["weights"][-1].tolist()
    score = number_text(steps["scores"][-1, 0].item(), 2)
    weight = number_text(steps["weights"][-1, 0].item(), 2)
    out = number_text(steps["out"][-1, 0].item(), 2)

    def products(ones, others, digits):
        terms = []
        for one, other in zip(ones, others):
            factors = [number_text(one, digits), number_text(other, 1)]
            terms.append(" · ".join(f"({text})" if text[0] == "−" else text for text in factors))
        return " + ".join(terms)

    powers = [f"exp({number_text(number, 2)})" for number in row]
    return [
        f"score   ({products(query, k[0].tolist(), 1)}) / √{len(query)} = {score}",
        f"weight   {powers[0]} / ({' + '.join(powers)}) = {weight}",
        f"out   {products(weights, v[:, 0].tolist(), 2)} = {out}",
    ]


def _in_words(title, values, digits):
    """A matrix for the alt text, row by row."""
    rows = []
    for row in values.tolist():
        rows.append(" ".join(number_text(number, digits) for number in row))
    return f"{title}: {'; '.join(rows)}."


def draw_head(text, q, k, v):
    """One causal head, computed from the q, k and v of a text's characters -> a matplotlib figure, and the alt text.

    Raises: ValueError where these are not three characters and three matrices (3, 2), for which the sheet has room.
    """
    q, k, v = (torch.as_tensor(matrix, dtype=torch.float32) for matrix in (q, k, v))
    if len(text) != 3 or any(matrix.shape != (3, 2) for matrix in (q, k, v)):
        raise ValueError("draw_head takes three characters, and q, k and v of the shape (3, 2)")
    signs = visible(text)
    steps = head_steps(q, k, v)
    title = f"One head, by hand: {' '.join(signs)}"
    d = Drawing(9, 4.15, title, "")

    def future(i, j):
        return ROAD if j > i else "white"

    def shaded(i, j):
        """From white to blue, the heavier the weight."""
        weight = steps["weights"][i, j].item()
        return (1 - 0.66 * weight, 1 - 0.29 * weight, 1 - 0.09 * weight)

    # q, k and v stand in three lanes, as in the drawing of the model.
    for name, matrix, top in (("q (T, D)", q, 3.5), ("k (T, D)", k, 2.35), ("v (T, D)", v, 1.2)):
        _matrix(d, 0.45, top, name, matrix, signs, digits=1, framed=matrix is q)
    _matrix(d, 2.8, 2.93, "scores (T, T)", steps["scores"], signs, signs)
    _matrix(d, 4.92, 2.93, "masked scores", steps["masked"], signs, signs, ground=future)
    _matrix(d, 7.2, 2.93, "weights (T, T)", steps["weights"], signs, signs, ground=shaded)
    _matrix(d, 7.42, 1.2, "out (T, D)", steps["out"], signs)
    middle = 2.93 - 1.5 * 0.27
    for lane in (3.5, 2.35):
        d.line([(1.36, lane - 1.5 * 0.27), (1.56, lane - 1.5 * 0.27), (1.56, middle)], style="-")
    d.line([(1.56, middle), (2.55, middle)])
    d.write(2.03, middle + 0.04, "q @ kᵀ / √D", LABEL_SIZE, va="bottom")
    d.line([(4.15, middle), (4.68, middle)])
    d.write(4.37, middle + 0.04, "mask", LABEL_SIZE, va="bottom")
    d.line([(6.27, middle), (6.97, middle)])
    d.write(6.57, middle + 0.04, "softmax", LABEL_SIZE, va="bottom")
    d.line([(7.85, 2.07), (7.85, 1.45)])
    d.write(7.93, 1.76, "weights @ v", LABEL_SIZE, ha="left")
    lane = 1.2 - 1.5 * 0.27
    d.line([(1.36, lane), (7.17, lane)])
    lines = _worked_example(q, k, v, steps)
    d.write(
        1.95,
        1.78,
        "the framed rows: the first number of each, term by term",
        color=EMPHASIS,
        ha="left",
    )
    for number, line in enumerate(lines):
        d.write(1.95, 1.52 - 0.22 * number, line, LABEL_SIZE, ha="left")
    matrices = [_in_words("q", q, 1), _in_words("k", k, 1), _in_words("v", v, 1)]
    matrices += [_in_words(name, matrix, 2) for name, matrix in steps.items()]
    words = "Small matrices with arrows between them: q and k give the scores, the mask the masked scores, softmax the"
    alt = f"{title}. {words} weights, and weights @ v the matrix out. {' '.join(matrices)} {'. '.join(lines)}."
    return d.figure, alt
