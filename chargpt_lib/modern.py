# Made from notebooks/source/16_modern_gpt.py by notebooks/tools/build.py. Edit that text, not this file.
"""The modern GPT: RMSNorm, rotary positions, SwiGLU, grouped heads, QK-norm, n-gram embeddings, Muon."""

from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.bigram import LanguageModel
from chargpt_lib.blocks import ACTIVATIONS, FeedForward, scale_residual_init
from chargpt_lib.multi_head import head_size
from chargpt_lib.sampling import KVCache
from chargpt_lib.single_head import init_weights
from chargpt_lib.training import param_groups

__all__ = [
    "rope_angles",
    "apply_rope",
    "rope_cos_sin",
    "make_norm",
    "swiglu_width",
    "SwiGLU",
    "GroupedAttention",
    "SlidingKVCache",
    "NGramEmbedding",
    "CHOICES",
    "ModernConfig",
    "ModernBlock",
    "ModernGPT",
    "orthogonalize",
    "Muon",
    "muon_param_groups",
    "make_muon",
]


def rope_angles(positions, head_size, base=10_000.0):
    """How far RoPE turns each pair (Su et al., 2021): positions (...) -> angles (..., head_size / 2) in radians.

    Pair i turns by base ** (-2 i / head_size) radians a position: the first by one, the last hardly at all.
    """
    pairs = torch.arange(head_size // 2, device=positions.device)
    speeds = base ** (-2 * pairs / head_size)  # radians a position, (head_size / 2,)
    return positions[..., None] * speeds


def apply_rope(x, cos, sin):
    """Turns each pair of numbers of x (..., head_size) by its angle; cos and sin (..., head_size) from `rope_cos_sin`.

    A pair is number i of the first half and number i of the second half, as in Llama.
    """
    # With the halves of x swapped, each number meets the other number of its pair.
    other = x.roll(x.shape[-1] // 2, dims=-1)
    return (x * cos + other * sin).to(x.dtype)  # the angles have 32 bits; x may have 16


def rope_cos_sin(positions, head_size):
    """What `apply_rope` needs: positions (...) -> cos and sin (..., head_size), a number for each member of a pair.

    Pair (a, b) becomes (a cos - b sin, b cos + a sin), so the sines of the first half have a minus.
    """
    angles = rope_angles(positions, head_size)
    cos = angles.cos()
    sin = angles.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def make_norm(kind, size):
    """A norm over the last dimension, without biases: RMSNorm (Zhang and Sennrich, 2019) or layer norm."""
    if kind == "rms":
        return nn.RMSNorm(size, eps=1e-5)
    return nn.LayerNorm(size, bias=False)


def swiglu_width(n_embd):
    """The width inside SwiGLU: about 8/3 of the model's, and a multiple of 8."""
    return max(8 * round(n_embd / 3), 8)


class SwiGLU(nn.Module):
    """A gated feed-forward layer (Shazeer, 2020): (B, T, C) -> (B, T, C).

    It has three matrices in place of two. At an inner width of 8/3 C in place of 4 C they have as many parameters.
    """

    def __init__(self, n_embd, dropout=0.0):
        super().__init__()
        width = swiglu_width(n_embd)
        self.gate = nn.Linear(n_embd, width, bias=False)
        self.up = nn.Linear(n_embd, width, bias=False)
        self.proj = nn.Linear(width, n_embd, bias=False)
        self.dropout = dropout

    def forward(self, x):
        x = self.proj(F.silu(self.gate(x)) * self.up(x))
        return F.dropout(x, self.dropout, self.training)


class GroupedAttention(nn.Module):
    """Causal attention whose heads share keys and values (Ainslie et al., 2023): (B, T, C) -> (B, T, C)."""

    def __init__(self, config):
        super().__init__()
        self.n_head = config.n_head
        self.n_kv_head = config.kv_heads
        self.head_size = head_size(config.n_embd, config.n_head)
        self.dropout = config.dropout
        self.q = nn.Linear(config.n_embd, config.n_head * self.head_size, bias=False)
        self.k = nn.Linear(config.n_embd, self.n_kv_head * self.head_size, bias=False)
        self.v = nn.Linear(config.n_embd, self.n_kv_head * self.head_size, bias=False)
        self.proj = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.qk_norm = config.qk_norm

    def forward(self, x, rotation=None, cache=None):
        """x (B, T, C) -> (B, T, C). rotation: RoPE's cos and sin; None where positions are learned."""
        B, T, C = x.shape
        # Queries and keys are normed and turned in the same way, so both go through as one tensor.
        qk = torch.cat([self.q(x), self.k(x)], dim=-1).view(B, T, -1, self.head_size)
        if self.qk_norm:
            qk = F.rms_norm(qk, (self.head_size,))
        if rotation is not None:
            cos, sin = rotation
            qk = apply_rope(qk, cos, sin)
        q, k = qk.split([self.n_head, self.n_kv_head], dim=2)
        v = self.v(x).view(B, T, self.n_kv_head, self.head_size)
        q = q.transpose(1, 2)  # (B, H, T, head_size)
        k = k.transpose(1, 2)
        v = v.transpose(1, 2)
        mask = None
        if cache is not None:
            k, v, mask = cache.update(self, k, v)
        # Repeat each head of keys and values for all query heads of its group.
        group = self.n_head // self.n_kv_head
        if group > 1:
            k = k.repeat_interleave(group, dim=1)
            v = v.repeat_interleave(group, dim=1)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None and k.shape[2] == T,
            dropout_p=self.dropout if self.training else 0.0,
        )
        out = out.transpose(1, 2).reshape(B, T, C)
        return F.dropout(self.proj(out), self.dropout, self.training)


class SlidingKVCache(KVCache):
    """A KV cache that never fills: it keeps the last `window` columns, including those of the current pass.

    For models whose scores depend only on distances (RoPE): there an old key stays right while the window moves.
    """

    slides = True

    def __init__(self, window, pads=None):
        super().__init__(max_length=2 * window, pads=pads)
        self.window = window
        self.end = 0  # how many columns of the buffers are filled
        self.new = 0  # how many of them are of the current pass
        self.kept = 0  # how many earlier columns the current pass may see

    def extend(self, T, device=None):
        """Makes room for T more columns, at most `window` -> their positions, (T,), or (B, T) where rows have pads."""
        if T > self.window:
            raise ValueError(f"{T} columns at once, but the window has {self.window}")
        if self.end + T > self.max_length:
            # The last columns move to the front. With one token a step, that happens once in `window` steps.
            kept = min(self.end, self.window - 1)
            for keys, values in self.layers.values():
                keys[:, :, :kept] = keys[:, :, self.end - kept : self.end].clone()
                values[:, :, :kept] = values[:, :, self.end - kept : self.end].clone()
            self.end = kept
        self.kept = min(self.end, self.window - 1)
        self.new = T
        self.end += T
        self.start = self.length
        self.length += T
        rows = torch.arange(self.start, self.length, device=device)
        if T == 1 and self.pads is None:
            self.mask = None  # a single query may see every column that is kept
            return rows
        columns = torch.arange(self.start - self.kept, self.length, device=device)
        distance = rows[:, None] - columns  # (T, kept + T)
        seen = (distance >= 0) & (distance < self.window)
        if self.pads is None:
            self.mask = seen
            return rows
        pads = self.pads[:, None]  # (B, 1)
        first = torch.minimum(pads, rows)  # (B, T)
        self.mask = (seen & (columns >= first[..., None]))[:, None]
        return (rows - pads).clamp(min=0)

    def update(self, layer, k, v):
        """Adds a layer's new k and v, (B, H, T, head_size) -> the keys and values that may be seen, and the mask."""
        B, H, T, size = k.shape
        if T != self.new:
            raise ValueError(
                f"got {T} new keys, but extend() made room for {self.new}: call cache.extend once per forward pass, "
                f"before the first layer"
            )
        if layer not in self.layers:
            shape = (B, H, self.max_length, size)
            self.layers[layer] = (k.new_empty(shape), v.new_empty(shape))
        keys, values = self.layers[layer]
        begin = self.end - T
        keys[:, :, begin : self.end] = k
        values[:, :, begin : self.end] = v
        seen = slice(begin - self.kept, self.end)
        return keys[:, :, seen], values[:, :, seen], self.mask


class NGramEmbedding(nn.Module):
    """A vector for the last n tokens, for each n from 2 on: idx (B, T) -> their sum (B, T, C) (Pagnoni et al., 2024).

    There are more n-grams than rows, so a hash chooses the row, and some n-grams share one.
    """

    def __init__(self, n_gram, rows, n_embd):
        super().__init__()
        self.n_gram = n_gram
        self.rows = rows
        self.tables = nn.ModuleList(nn.Embedding(rows, n_embd) for _ in range(n_gram - 1))

    def hashes(self, idx, positions, before=None):
        """The rows of the n-grams that end at each token: idx (B, T) -> a list of (B, T), for n = 2, 3, ...

        positions (T,) or (B, T): how many tokens stand before each. before (B, S): the last tokens before idx.
        """
        T = idx.shape[1]
        text = idx if before is None else torch.cat([before, idx], dim=1)
        code = idx
        rows = []
        for distance in range(1, self.n_gram):
            earlier = F.pad(text, (distance, 0))[:, -T - distance : -distance]
            # Before the beginning of the text there is no token; -1 stands for that.
            earlier = torch.where(positions >= distance, earlier, -1)
            # The product may exceed 2 ** 63 and wrap around, which does no harm in a hash.
            code = code * 1_000_003 + earlier + 1
            # The remainder by a power of two depends on the low bits alone, so the high bits are mixed into them.
            rows.append((code ^ (code >> 17)) % self.rows)
        return rows

    def forward(self, idx, positions, before=None):
        out = 0
        for table, rows in zip(self.tables, self.hashes(idx, positions, before)):
            out = out + table(rows)
        return out


CHOICES = {
    "norm": ("rms", "layer"),
    "positions": ("rope", "learned"),
    "activation": ("swiglu", *ACTIVATIONS),
}


@dataclass
class ModernConfig:
    """The sizes of a modern GPT, and which of its parts it has. Raises: ValueError for sizes that no GPT can have.

    With `norm="layer"`, `positions="learned"`, `activation="gelu"`, `qk_norm=False` and `softcap=0.0` it is lesson 06's
    GPT.
    """

    vocab_size: int
    block_size: int = 256  # how many tokens it can see
    n_layer: int = 6  # blocks
    n_head: int = 6  # attention heads in a block
    n_kv_head: int = 0  # heads of keys and values, a divisor of n_head; 0: n_head
    n_embd: int = 384  # embedding width, a multiple of n_head
    dropout: float = 0.0  # the probability that training sets an activation to 0
    norm: str = "rms"  # rms or layer
    positions: str = "rope"  # rope or learned
    activation: str = "swiglu"  # swiglu, or one of ACTIVATIONS (lesson 05)
    qk_norm: bool = True  # norm queries and keys
    softcap: float = 15.0  # the logits stay within plus and minus this; 0: off
    n_gram: int = 0  # embeddings of the last 2 to n_gram tokens; 0: off
    n_gram_rows: int = 8192  # rows in each of their tables
    tied: bool = True  # tie lm_head to the token embedding

    model_type: ClassVar[str] = "modern"  # by which a saved model says what it is (lesson 09)

    def __post_init__(self):
        _check_modern_config(self)

    @property
    def kv_heads(self):
        """How many heads of keys and values there are."""
        return self.n_head if self.n_kv_head == 0 else self.n_kv_head

    def min_parameters(self):
        """The parameters in the large matrices and tables, counted without building them: the model has a few more."""
        C = self.n_embd
        attention = 2 * C * C + 2 * C * self.kv_heads * (C // self.n_head)
        feed_forward = 8 * C * C
        if self.activation == "swiglu":
            feed_forward = 3 * C * swiglu_width(C)
        tables = self.vocab_size * C
        if not self.tied:
            tables += self.vocab_size * C
        if self.positions == "learned":
            tables += self.block_size * C
        if self.n_gram > 0:
            tables += (self.n_gram - 1) * self.n_gram_rows * C
        return self.n_layer * (attention + feed_forward) + tables


def _check_modern_config(config):
    """Raises: ValueError for sizes that no GPT can have."""
    for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "n_gram_rows"):
        size = getattr(config, name)
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} is {size!r}; it must be an integer >= 1")
    for name in ("n_kv_head", "n_gram"):
        size = getattr(config, name)
        if not isinstance(size, int) or size < 0:
            raise ValueError(f"{name} is {size!r}; it must be an integer >= 0")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout must be >= 0 and < 1, got {config.dropout}")
    for name, choices in CHOICES.items():
        value = getattr(config, name)
        if value not in choices:
            raise ValueError(f"{name} is {value!r}; it is one of {', '.join(choices)}")
    if config.n_head % config.kv_heads:
        raise ValueError(
            f"n_head ({config.n_head}) must be divisible by n_kv_head ({config.n_kv_head}): each head of keys and "
            f"values serves equally many heads of queries"
        )
    size = head_size(config.n_embd, config.n_head)
    if config.positions == "rope" and size % 2:
        raise ValueError(
            f"n_embd / n_head is {size}, but RoPE turns pairs of numbers: take an even one"
        )
    if config.n_gram == 1 or config.n_gram > config.block_size:
        raise ValueError(
            f"n_gram is {config.n_gram}; it must be from 2 to the block_size, {config.block_size}, or 0 (off)"
        )
    if not 0 <= config.softcap < inf:
        raise ValueError(f"softcap is {config.softcap}; it must be a finite number >= 0 (0: off)")


class ModernBlock(nn.Module):
    """A transformer block whose parts the config chooses: (B, T, C) -> (B, T, C)."""

    def __init__(self, config):
        super().__init__()
        self.norm_1 = make_norm(config.norm, config.n_embd)
        self.attention = GroupedAttention(config)
        self.norm_2 = make_norm(config.norm, config.n_embd)
        if config.activation == "swiglu":
            self.feed_forward = SwiGLU(config.n_embd, config.dropout)
        else:
            self.feed_forward = FeedForward(
                config.n_embd, bias=False, activation=config.activation, dropout=config.dropout
            )

    def forward(self, x, rotation=None, cache=None):
        """x (B, T, C) -> (B, T, C). rotation: RoPE's cos and sin; cache: for the attention."""
        x = x + self.attention(self.norm_1(x), rotation, cache)
        return x + self.feed_forward(self.norm_2(x))


class ModernGPT(LanguageModel):
    """A GPT made of the parts that its config names."""

    def __init__(self, config):
        super().__init__(config.vocab_size, config.block_size)
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = None
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.n_gram_embedding = None
        if config.n_gram > 0:
            self.n_gram_embedding = NGramEmbedding(config.n_gram, config.n_gram_rows, config.n_embd)
        self.blocks = nn.ModuleList(ModernBlock(config) for _ in range(config.n_layer))
        self.norm = make_norm(config.norm, config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.token_embedding.weight
        self.apply(init_weights)
        scale_residual_init(self, config.n_layer)

    def make_cache(self, pads=None):
        """The cache for generation: one that slides, unless the model has a learned table of positions."""
        if self.position_embedding is None:
            return SlidingKVCache(self.block_size, pads)
        return KVCache(self.block_size, pads)

    def compute_logits(self, idx, cache=None):
        """idx (B, T) -> logits (B, T, V). cache: what was read before idx (lesson 08)."""
        T = idx.shape[1]
        if cache is None:
            positions = torch.arange(T, device=idx.device)
        else:
            positions = cache.extend(T, idx.device)
        x = self.token_embedding(idx)  # (B, T, C)
        if self.n_gram_embedding is not None:
            before = None
            if cache is not None:
                before = cache.last_ids
                read = idx if before is None else torch.cat([before, idx], dim=1)
                cache.last_ids = read[:, 1 - self.config.n_gram :]
            x = x + self.n_gram_embedding(idx, positions, before)
        rotation = None
        if self.position_embedding is None:
            # Computed once for all layers and heads: cos and sin (T, 1, head_size), or (B, T, 1, head_size).
            head_size = self.config.n_embd // self.config.n_head
            rotation = rope_cos_sin(positions[..., None], head_size)
        else:
            x = x + self.position_embedding(positions)
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x, rotation, cache)
        logits = self.lm_head(self.norm(x))
        if self.config.softcap > 0:
            # Small logits hardly change; large ones never leave the range.
            logits = self.config.softcap * torch.tanh(logits / self.config.softcap)
        return logits

    def num_params(self):
        """The number of parameters; a tied matrix counts once."""
        return sum(p.numel() for p in self.parameters())


def orthogonalize(matrices, steps=5):
    """Matrices with the same singular vectors and singular values near 1: Newton-Schulz (Jordan et al., 2024).

    (..., M, N) -> (..., M, N). Each step applies a polynomial to the singular values: small ones grow by a factor of 3.4,
    and those near 1 stay between 0.7 and 1.2.
    """
    a = 3.4445
    b = -4.7750
    c = 2.0315
    # Divided by the root of the sum of all squares, no singular value is above 1.
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    is_tall = x.shape[-2] > x.shape[-1]
    if is_tall:
        x = x.mT  # makes the product below the smaller of the two
    for _ in range(steps):
        product = x @ x.mT
        x = a * x + (b * product + c * product @ product) @ x
    if is_tall:
        x = x.mT
    return x


class Muon(torch.optim.AdamW):
    """Muon (Jordan et al., 2024) for the parameter groups with muon=True, whose parameters are matrices; AdamW for the rest.

    A matrix (M, N) moves by 0.2 sqrt(max(M, N)) times the learning rate in each of its directions, about as far as AdamW
    would move it (Liu et al., 2025). So both share a learning rate and a weight decay.
    """

    def __init__(self, groups, lr, betas, momentum=0.95, fused=False):
        # The momentum is stored in the groups, so it is saved with the optimizer's state.
        groups = [{"momentum": momentum, **group} for group in groups]
        super().__init__(groups, lr=lr, betas=betas, fused=fused)
        # In fp16 a step whose gradients overflowed must be skipped. AdamW's fused kernel offers to skip it, but only for
        # its own parameters. So the GradScaler skips it instead, for all parameters.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure=None):
        """One step. closure, if given, is called first and computes the loss again."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = {}
        for group in self.param_groups:
            if not group["muon"]:
                continue
            shapes = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    shapes.setdefault(matrix.shape, []).append(matrix)
                    gradients[matrix] = matrix.grad
            for matrices in shapes.values():
                self._step_matrices(matrices, group["lr"], group["weight_decay"], group["momentum"])
        # AdamW skips parameters without a gradient, so Muon's matrices hide theirs from it.
        for matrix in gradients:
            matrix.grad = None
        super().step()
        for matrix, gradient in gradients.items():
            matrix.grad = gradient
        return loss

    def _step_matrices(self, matrices, lr, weight_decay, momentum):
        """Muon's step for K matrices of one shape, (M, N), in one product: many small products would take longer."""
        for matrix in matrices:
            state = self.state[matrix]
            if not state:
                # AdamW counts its steps, and expects their number when a state is loaded.
                state["step"] = torch.tensor(0.0)
                state["momentum_buffer"] = torch.zeros_like(matrix)
            state["step"] += 1
        gradients = torch.stack([matrix.grad for matrix in matrices])  # (K, M, N)
        buffers = torch.stack([self.state[matrix]["momentum_buffer"] for matrix in matrices])
        buffers = buffers.lerp(gradients, 1 - momentum)  # the running mean of the gradients
        # Nesterov: the momentum as it would be if the next gradient were the same.
        ahead = gradients.lerp(buffers, momentum)
        M, N = matrices[0].shape
        directions = orthogonalize(ahead) * (0.2 * max(M, N) ** 0.5)
        for matrix, buffer, direction in zip(matrices, buffers, directions):
            self.state[matrix]["momentum_buffer"].copy_(buffer)
            matrix.mul_(1 - lr * weight_decay)
            matrix.add_(direction, alpha=-lr)


def muon_param_groups(model, weight_decay):
    """Parameter groups: one for Muon, with the matrices of the model's blocks, and two for AdamW, with the rest.

    Raises: ValueError for a model without blocks.
    """
    if not hasattr(model, "blocks"):
        raise ValueError(
            f"Muon is for the matrices in a model's .blocks, and {type(model).__name__} has none: take optimizer='adamw'"
        )
    matrices = [parameter for parameter in model.blocks.parameters() if parameter.dim() == 2]
    chosen = set(matrices)
    groups = [{"params": matrices, "weight_decay": weight_decay, "muon": True}]
    for group in param_groups(model, weight_decay):
        others = [parameter for parameter in group["params"] if parameter not in chosen]
        groups.append({"params": others, "weight_decay": group["weight_decay"], "muon": False})
    return groups


def make_muon(model, config):
    """The optimizer for `TrainConfig(optimizer="muon")`."""
    device = next(model.parameters()).device
    return Muon(
        muon_param_groups(model, config.weight_decay),
        lr=config.learning_rate,
        betas=tuple(config.betas),
        fused=device.type in ("cpu", "cuda"),
    )
