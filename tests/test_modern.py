"""Lesson 16 against others: transformers' Llama and Mistral, torch's Muon, the papers' formulas, lesson 06's GPT."""

import io
import itertools
import math
from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from chargpt_lib.attention_maps import ablate_heads, record_attention
from chargpt_lib.bigram import BigramLanguageModel
from chargpt_lib.blocks import ACTIVATIONS, FeedForward
from chargpt_lib.checkpoints import load_model, save_model
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.modern import (
    CHOICES,
    ModernConfig,
    ModernGPT,
    Muon,
    NGramEmbedding,
    SlidingKVCache,
    SwiGLU,
    apply_rope,
    make_muon,
    make_norm,
    muon_param_groups,
    orthogonalize,
    rope_cos_sin,
    swiglu_width,
)
from chargpt_lib.playhouse import write
from chargpt_lib.recipe import make_optimizer
from chargpt_lib.sampling import KVCache, generate, prepare_for_sampling
from chargpt_lib.trainer import train
from chargpt_lib.training import evaluate, fit
from tests.tiny import CORPUS, IDS, TOKENIZER, VAL, settings

V = 31
BLOCK = 12


def sharp(model, factor=8):
    """Large weights, so that attention is not even, and a mistake in it moves the logits; gains that are not 1."""
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.mul_(factor)
            else:
                weights.uniform_(0.5, 1.5)
    return model.eval()


def tiny(**changes):
    """A modern GPT of two layers, four heads of queries and two of keys."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": V,
        "block_size": BLOCK,
        "n_layer": 2,
        "n_head": 4,
        "n_kv_head": 2,
        "n_embd": 32,
        "n_gram_rows": 64,
    }
    return sharp(ModernGPT(ModernConfig(**sizes | changes)))


# Everything off: what is left is lesson 06's GPT.
PLAIN = {
    "n_kv_head": 0,
    "norm": "layer",
    "positions": "learned",
    "activation": "gelu",
    "qk_norm": False,
    "softcap": 0.0,
}

# Each part on and off, and the whole.
PARTS = {
    "whole": {"n_gram": 3},
    "plain": PLAIN,
    "no QK-norm": {"qk_norm": False},
    "no cap": {"softcap": 0.0},
    "a low cap": {"softcap": 0.5},
    "layer norm": {"norm": "layer"},
    "learned positions": {"positions": "learned", "n_gram": 2},
    "relu2": {"activation": "relu2"},
    "all heads alike": {"n_kv_head": 1},
    "each head its own": {"n_kv_head": 0},
    "4-grams, untied": {"n_gram": 4, "tied": False},
}


def random_ids(*shape):
    return torch.randint(V, shape)


# ---------------------------------------------------------------- the model, written again

# Another way to the same numbers: one text, in 64 bits, a head at a time, from nothing but the weights.


def rows_by_hand(ids, n, rows):
    """The table's row for the n tokens that end at each token, in Python's integers, cut to 64 bits at every step."""
    found = []
    for t in range(len(ids)):
        code = ids[t]
        for distance in range(1, n):
            earlier = -1
            if t >= distance:
                earlier = ids[t - distance]
            code = code * 1_000_003 + earlier + 1
            code = (code + 2**63) % 2**64 - 2**63
        found.append((code ^ (code >> 17)) % rows)
    return found


def norm_by_hand(x, gain, kind):
    if kind == "layer":
        x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain


def turn_by_hand(x):
    """RoPE as a product of complex numbers: x (T, head_size), a pair from the two halves is one number."""
    T, size = x.shape
    numbers = torch.complex(x[:, : size // 2], x[:, size // 2 :])
    angles = torch.empty(T, size // 2, dtype=torch.float64)
    for t in range(T):
        for pair in range(size // 2):
            angles[t, pair] = t / 10_000 ** (2 * pair / size)
    numbers = numbers * torch.exp(1j * angles)
    return torch.cat([numbers.real, numbers.imag], dim=-1)


def feed_forward_by_hand(x, weights, activation):
    if activation == "swiglu":
        gate = x @ weights["gate.weight"].T
        inner = gate / (1 + torch.exp(-gate)) * (x @ weights["up.weight"].T)
    else:
        inner = x @ weights["fc.weight"].T
        if activation == "relu2":
            inner = torch.where(inner > 0, inner * inner, 0.0)
        else:
            inner = inner * (1 + torch.erf(inner / 2**0.5)) / 2  # gelu
    return inner @ weights["proj.weight"].T


@torch.no_grad()
def by_hand(model, ids):
    """ids (T,) -> logits (T, V), and the attention weights of each layer, (L, H, T, T)."""
    config = model.config
    weights = {name: value.double() for name, value in model.state_dict().items()}

    def part(name):
        return {key.removeprefix(name): w for key, w in weights.items() if key.startswith(name)}

    T = len(ids)
    size = config.n_embd // config.n_head
    queries_for_each = config.n_head // (config.n_kv_head or config.n_head)
    future = torch.ones(T, T).triu(1) > 0
    x = weights["token_embedding.weight"][ids]
    for n in range(2, config.n_gram + 1):
        table = weights[f"n_gram_embedding.tables.{n - 2}.weight"]
        x = x + table[rows_by_hand(ids.tolist(), n, config.n_gram_rows)]
    if config.positions == "learned":
        x = x + weights["position_embedding.weight"][:T]
    maps = []
    for layer in range(config.n_layer):
        block = part(f"blocks.{layer}.")
        read = norm_by_hand(x, block["norm_1.weight"], config.norm)
        outs = []
        for head in range(config.n_head):
            shared = head // queries_for_each
            of_queries = slice(head * size, (head + 1) * size)
            of_keys = slice(shared * size, (shared + 1) * size)
            q = read @ block["attention.q.weight"][of_queries].T
            k = read @ block["attention.k.weight"][of_keys].T
            v = read @ block["attention.v.weight"][of_keys].T
            if config.qk_norm:
                q = q / q.square().mean(-1, keepdim=True).sqrt()
                k = k / k.square().mean(-1, keepdim=True).sqrt()
            if config.positions == "rope":
                q = turn_by_hand(q)
                k = turn_by_hand(k)
            scores = q @ k.T / size**0.5
            attention = scores.masked_fill(future, -math.inf).softmax(-1)
            maps.append(attention)
            outs.append(attention @ v)
        x = x + torch.cat(outs, dim=-1) @ block["attention.proj.weight"].T
        read = norm_by_hand(x, block["norm_2.weight"], config.norm)
        x = x + feed_forward_by_hand(read, part(f"blocks.{layer}.feed_forward."), config.activation)
    logits = norm_by_hand(x, weights["norm.weight"], config.norm) @ weights["lm_head.weight"].T
    if config.softcap > 0:
        logits = config.softcap * torch.tanh(logits / config.softcap)
    return logits, torch.stack(maps).view(config.n_layer, config.n_head, T, T)


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_the_logits_are_those_written_out(parts):
    model = tiny(**parts)
    idx = random_ids(3, BLOCK)
    with torch.no_grad():
        logits, _ = model(idx)
    for row, ids in enumerate(idx):
        expected, _ = by_hand(model, ids)
        torch.testing.assert_close(logits[row].double(), expected, atol=1e-5, rtol=0)
    assert logits.std() > 0.2, "logits near 0 would prove little"


# ---------------------------------------------------------------- Llama and Mistral

SIZES = {
    "2 layers, 4 heads on 2": {"n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 32},
    "3 layers, 6 heads on 2": {"n_layer": 3, "n_head": 6, "n_kv_head": 2, "n_embd": 96},
    "1 layer, 8 heads on 1": {"n_layer": 1, "n_head": 8, "n_kv_head": 1, "n_embd": 64},
}


def like_llama(**changes):
    """A modern GPT of the parts that Llama has, too."""
    return tiny(**{"qk_norm": False, "softcap": 0.0} | changes)


def to_transformers(model, family="Llama", **options):
    """A model of transformers with the weights of ours."""
    transformers = pytest.importorskip("transformers")
    config = model.config
    their_config = getattr(transformers, f"{family}Config")(
        vocab_size=config.vocab_size,
        hidden_size=config.n_embd,
        intermediate_size=swiglu_width(config.n_embd),
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        num_key_value_heads=config.n_kv_head,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        tie_word_embeddings=config.tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **options,
    )
    theirs = getattr(transformers, f"{family}ForCausalLM")(their_config)
    weights = {
        "model.embed_tokens.weight": model.token_embedding.weight,
        "model.norm.weight": model.norm.weight,
        "lm_head.weight": model.lm_head.weight,
    }
    for n, block in enumerate(model.blocks):
        layer = f"model.layers.{n}."
        weights[layer + "self_attn.q_proj.weight"] = block.attention.q.weight
        weights[layer + "self_attn.k_proj.weight"] = block.attention.k.weight
        weights[layer + "self_attn.v_proj.weight"] = block.attention.v.weight
        weights[layer + "self_attn.o_proj.weight"] = block.attention.proj.weight
        weights[layer + "mlp.gate_proj.weight"] = block.feed_forward.gate.weight
        weights[layer + "mlp.up_proj.weight"] = block.feed_forward.up.weight
        weights[layer + "mlp.down_proj.weight"] = block.feed_forward.proj.weight
        weights[layer + "input_layernorm.weight"] = block.norm_1.weight
        weights[layer + "post_attention_layernorm.weight"] = block.norm_2.weight
    theirs.load_state_dict(weights)  # strict: none is missing, none too many
    return theirs.eval()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@torch.no_grad()
def test_the_logits_are_llamas(sizes, tied):
    model = like_llama(tied=tied, **sizes)
    theirs = to_transformers(model)
    idx = random_ids(3, BLOCK)
    logits, _ = model(idx)
    assert logits.std() > 0.5
    torch.testing.assert_close(logits, theirs(idx).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_the_text_is_llamas_with_both_caches(sizes):
    model = like_llama(block_size=32, tied=False, **sizes)
    prompt = random_ids(2, 5)
    written = generate(model, prompt, 27, temperature=0)
    theirs = to_transformers(model).generate(prompt, max_new_tokens=27, do_sample=False)
    assert torch.equal(written, theirs)
    assert written[:, 5:].unique().numel() > 3, "one letter again and again would prove little"


@torch.no_grad()
def test_beyond_the_block_the_logits_are_those_of_mistrals_sliding_window():
    model = like_llama()
    theirs = to_transformers(model, "Mistral", sliding_window=BLOCK)
    idx = random_ids(2, 5 * BLOCK)
    cache = model.make_cache()
    pieces = [
        model(piece, cache=cache)[0] for piece in idx.split([7, 1, 12, 1, 1, 9, 12, 12, 5], 1)
    ]
    expected = theirs(idx).logits
    torch.testing.assert_close(torch.cat(pieces, 1), expected, atol=1e-5, rtol=0)
    # The window matters: a Llama with these weights, which sees all of the text, says something else.
    everything = to_transformers(model)(idx).logits
    assert (everything - expected)[:, :BLOCK].abs().max() < 1e-5
    assert (everything - expected)[:, BLOCK:].abs().max() > 1e-2


def test_beyond_the_block_the_text_is_mistrals_with_both_caches():
    model = like_llama(tied=False)
    prompt = random_ids(2, 5)
    written = generate(model, prompt, 50, temperature=0)
    theirs = to_transformers(model, "Mistral", sliding_window=BLOCK)
    assert torch.equal(written, theirs.generate(prompt, max_new_tokens=50, do_sample=False))
    assert written[:, 5:].unique().numel() > 3, "one letter again and again would prove little"


# ---------------------------------------------------------------- RoPE


@pytest.mark.parametrize("size", [2, 8, 64])
def test_rope_is_the_papers_matrix(size):
    """Su et al. (2021), equation 15: the matrix has a rotation for each pair of neighbours on its diagonal."""
    x = torch.randn(20, size, dtype=torch.float64)
    positions = torch.arange(20)
    turned = apply_rope(x, *rope_cos_sin(positions, size))
    # Our pair i is numbers i and i + size / 2; the paper's is numbers 2 i and 2 i + 1.
    order = []
    for pair in range(size // 2):
        order += [pair, pair + size // 2]
    for m in range(20):
        matrix = torch.zeros(size, size, dtype=torch.float64)
        for pair in range(size // 2):
            theta = 10_000 ** (-2 * pair / size)
            at = 2 * pair
            matrix[at, at] = math.cos(m * theta)
            matrix[at, at + 1] = -math.sin(m * theta)
            matrix[at + 1, at] = math.sin(m * theta)
            matrix[at + 1, at + 1] = math.cos(m * theta)
        torch.testing.assert_close(turned[m, order], matrix @ x[m, order], atol=1e-5, rtol=0)


def test_rope_is_transformers():
    transformers = pytest.importorskip("transformers")
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    q = torch.randn(2, 6, 30, 16)  # (B, H, T, head_size)
    k = torch.randn(2, 3, 30, 16)
    positions = torch.stack([torch.arange(30), torch.arange(400, 430)])
    config = transformers.LlamaConfig(hidden_size=96, num_attention_heads=6)
    rotary = llama.LlamaRotaryEmbedding(config)
    expected = llama.apply_rotary_pos_emb(q, k, *rotary(q, positions))
    cos, sin = rope_cos_sin(positions[:, None], 16)  # for all heads
    torch.testing.assert_close(apply_rope(q, cos, sin), expected[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(apply_rope(k, cos, sin), expected[1], atol=1e-4, rtol=0)


def test_only_distances_matter():
    q = torch.randn(16)
    k = torch.randn(16)

    def score(m, n):
        cos, sin = rope_cos_sin(torch.tensor([m, n]), 16)
        return (apply_rope(q, cos[0], sin[0]) @ apply_rope(k, cos[1], sin[1])).item()

    for m, n, shift in ((3, 1, 10), (7, 7, 100), (50, 2, 1000)):
        assert score(m + shift, n + shift) == pytest.approx(score(m, n), abs=1e-3)
    by_distance = [score(m, 0) for m in range(10)]
    assert min(abs(a - b) for a, b in itertools.pairwise(by_distance)) > 1e-2
    assert abs(score(5, 0) - score(0, 5)) > 1e-2, "before and behind are not the same"


def test_rope_moves_no_vector_at_position_0_and_none_changes_its_length():
    x = torch.randn(9, 16)
    turned = apply_rope(x, *rope_cos_sin(torch.arange(9), 16))
    assert torch.equal(turned[0], x[0])
    assert (turned[1:] - x[1:]).abs().amax(-1).min() > 0.1
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


# ---------------------------------------------------------------- norms and feed-forward layers


def test_rms_norm_is_the_papers_and_llamas():
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    norm = make_norm("rms", 24)
    theirs = llama.LlamaRMSNorm(24, eps=1e-5)
    torch.nn.init.uniform_(norm.weight, 0.5, 2)
    theirs.weight.data.copy_(norm.weight.data)
    x = torch.randn(5, 7, 24) * torch.logspace(-3, 3, 7)[:, None]  # small and large ones
    found = norm(x)
    torch.testing.assert_close(found, theirs(x))
    for b, t in itertools.product(range(5), range(7)):
        row = x[b, t].tolist()
        rms = math.sqrt(sum(number**2 for number in row) / 24 + 1e-5)
        expected = [number / rms * gain for number, gain in zip(row, norm.weight.tolist())]
        torch.testing.assert_close(found[b, t], torch.tensor(expected))


def test_layer_norm_is_the_papers_without_a_bias():
    norm = make_norm("layer", 24)
    torch.nn.init.uniform_(norm.weight, 0.5, 2)
    assert [name for name, _ in norm.named_parameters()] == ["weight"]
    row = (torch.randn(24) + 3).tolist()
    mean = sum(row) / 24
    variance = sum((number - mean) ** 2 for number in row) / 24
    expected = []
    for number, gain in zip(row, norm.weight.tolist()):
        expected.append((number - mean) / math.sqrt(variance + 1e-5) * gain)
    torch.testing.assert_close(norm(torch.tensor(row)), torch.tensor(expected))


def test_swiglu_is_the_papers_and_llamas():
    transformers = pytest.importorskip("transformers")
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    ours = sharp(SwiGLU(24), 3)
    config = transformers.LlamaConfig(
        hidden_size=24, intermediate_size=swiglu_width(24), num_attention_heads=1
    )
    theirs = llama.LlamaMLP(config)
    theirs.gate_proj.weight = ours.gate.weight
    theirs.up_proj.weight = ours.up.weight
    theirs.down_proj.weight = ours.proj.weight
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(ours(x), theirs(x))
    # Shazeer (2020), equation 6: (Swish(x W) * x V) W2, with Swish(z) = z / (1 + exp(-z)).
    expected = feed_forward_by_hand(x, ours.state_dict(), "swiglu")
    torch.testing.assert_close(ours(x), expected)


def test_swiglu_has_as_many_parameters_as_two_matrices():
    assert swiglu_width(384) == 1024
    assert swiglu_width(1) == 8
    for n_embd in range(1, 1025):
        width = swiglu_width(n_embd)
        assert width % 8 == 0
        assert abs(width - 8 * n_embd / 3) <= max(4, 8 - 8 * n_embd / 3)
    layers = {"swiglu": SwiGLU(384), "gelu": FeedForward(384, bias=False)}
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in layers.items()}
    assert counts["swiglu"] == counts["gelu"]


def test_relu2_is_the_square_of_relu():
    x = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0])
    assert ACTIVATIONS["relu2"](x).tolist() == [0, 0, 0, 0.25, 9]


# ---------------------------------------------------------------- QK-norm, the cap, grouped heads


def queries_and_keys(model, idx, monkeypatch):
    """What the kernel is given in each layer: a list of (q, k), each (B, H, T, head_size)."""
    kernel = F.scaled_dot_product_attention
    calls = []

    def spy(q, k, v, **options):
        calls.append((q, k))
        return kernel(q, k, v, **options)

    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(F, "scaled_dot_product_attention", spy)
        model(idx)
    return calls


@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_with_qk_norm_no_score_is_above_the_root_of_the_head_size(positions, monkeypatch):
    model = sharp(tiny(positions=positions), 100)
    size = 32 // 4
    calls = queries_and_keys(model, random_ids(2, BLOCK), monkeypatch)
    assert len(calls) == 2
    for q, k in calls:
        scores = q @ k.mT / size**0.5
        assert scores.abs().max() <= size**0.5 * (1 + 1e-5)
        # Each vector has the length sqrt(head_size), and so each score is sqrt(head_size) times a cosine.
        torch.testing.assert_close(q.norm(dim=-1), torch.full(q.shape[:-1], size**0.5))
        torch.testing.assert_close(k.norm(dim=-1), torch.full(k.shape[:-1], size**0.5))
    model = sharp(tiny(positions=positions, qk_norm=False), 100)
    for q, k in queries_and_keys(model, random_ids(2, BLOCK), monkeypatch):
        assert (q @ k.mT / size**0.5).abs().max() > 10 * size**0.5


@pytest.mark.parametrize("cap", [0.5, 15.0, 30.0])
@torch.no_grad()
def test_the_cap_is_its_formula(cap):
    idx = random_ids(2, BLOCK)
    for factor in (1, 5, 100):
        free = sharp(tiny(softcap=0.0), factor)
        capped = ModernGPT(ModernConfig(**vars(free.config) | {"softcap": cap})).eval()
        capped.load_state_dict(free.state_dict())
        logits, _ = free(idx)
        found, _ = capped(idx)
        assert found.abs().max() <= cap
        expected = [cap * math.tanh(x / cap) for x in logits.flatten().tolist()]
        torch.testing.assert_close(found.flatten(), torch.tensor(expected), atol=1e-5, rtol=1e-5)
    assert logits.abs().max() > 100, "the last of the factors has to reach the cap"


@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
@torch.no_grad()
def test_grouped_heads_are_all_heads_with_repeated_keys_and_values(n_kv_head):
    grouped = tiny(n_kv_head=n_kv_head)
    every = tiny(n_kv_head=0)
    weights = grouped.state_dict()
    for name, weight in weights.items():
        if name.endswith(("attention.k.weight", "attention.v.weight")):
            heads = []
            for head in range(4):
                shared = head * n_kv_head // 4
                heads.append(weight[8 * shared : 8 * (shared + 1)])
            weights[name] = torch.cat(heads)
    every.load_state_dict(weights)
    idx = random_ids(2, BLOCK)
    torch.testing.assert_close(grouped(idx)[0], every(idx)[0], atol=1e-5, rtol=0)


def test_grouped_heads_keep_fewer_keys():
    """The point of them: the cache is smaller by n_head / n_kv_head."""
    kept = {}
    for n_kv_head in (4, 2, 1):
        model = tiny(n_kv_head=n_kv_head)
        cache = model.make_cache()
        with torch.no_grad():
            model(random_ids(1, BLOCK), cache=cache)
        kept[n_kv_head] = sum(k.numel() + v.numel() for k, v in cache.layers.values())
    assert kept[4] == 2 * kept[2] == 4 * kept[1]


# ---------------------------------------------------------------- the configuration

WRONG = {
    "vocab_size": [0, -1, 3.0, "31"],
    "block_size": [0, 1.5],
    "n_layer": [0, None],
    "n_head": [0, 2.0],
    "n_embd": [0, "32"],
    "n_gram_rows": [0, 2.5],
    "n_kv_head": [-1, 3, 8, 2.0],  # 3 does not divide 4; 8 is more than 4
    "n_gram": [-1, 1, BLOCK + 1, 2.0],
    "dropout": [-0.1, 1, math.nan],
    "norm": ["RMS", None],
    "positions": ["sinusoidal", ""],
    "activation": ["swish", None],
    "softcap": [-1.0, math.inf, math.nan],
}


@pytest.mark.parametrize("name", WRONG)
def test_sizes_that_no_model_can_have(name):
    sizes = {"vocab_size": V, "block_size": BLOCK, "n_layer": 2, "n_head": 4, "n_embd": 32}
    ModernConfig(**sizes)
    for value in WRONG[name]:
        with pytest.raises(ValueError, match=name):
            ModernConfig(**sizes | {name: value})


def test_widths_that_do_not_fit_the_heads():
    with pytest.raises(ValueError, match=r"n_embd \(30\) must be divisible by n_head \(4\)"):
        ModernConfig(V, n_head=4, n_embd=30)
    with pytest.raises(ValueError, match="n_embd / n_head is 5, but RoPE turns pairs"):
        ModernConfig(V, n_head=4, n_embd=20)
    ModernConfig(V, n_head=4, n_embd=20, positions="learned")


def test_without_a_number_each_head_has_its_own_keys():
    assert ModernConfig(V, n_head=6).kv_heads == 6
    assert ModernConfig(V, n_head=6, n_kv_head=2).kv_heads == 2


def combinations():
    """All the choices that there are, as dicts."""
    options = CHOICES | {
        "qk_norm": (True, False),
        "n_kv_head": (0, 1, 2),
        "n_gram": (0, 2, 3),
        "tied": (True, False),
        "softcap": (0.0, 15.0),
    }
    for values in itertools.product(*options.values()):
        yield dict(zip(options, values))


def test_each_combination_can_be_built_and_has_the_least_parameters_that_it_says():
    some = list(combinations())[
        ::37
    ]  # 37 divides no number of choices: each of them is among these
    for choices in some:
        config = ModernConfig(V, BLOCK, 2, 4, n_embd=32, n_gram_rows=64, **choices)
        model = ModernGPT(config)
        logits, _ = model(random_ids(2, BLOCK))
        assert logits.shape == (2, BLOCK, V)
        gains = sum(weight.numel() for weight in model.parameters() if weight.dim() == 1)
        assert config.min_parameters() == model.num_params() - gains


def test_initial_weights():
    """Normal numbers of 0.02; what writes into the residual stream smaller by sqrt(2 n_layer); and a loss of log V."""
    torch.manual_seed(0)
    config = ModernConfig(V, BLOCK, n_layer=8, n_head=4, n_kv_head=2, n_embd=128, n_gram=2)
    model = ModernGPT(config)
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            assert torch.equal(weight, torch.ones_like(weight)), name
            continue
        expected = 0.02
        if name.endswith("proj.weight"):
            expected = 0.02 / 4
        assert weight.std().item() == pytest.approx(expected, rel=0.05), name
    idx = random_ids(32, BLOCK)
    _, loss = model(idx, random_ids(32, BLOCK))
    assert loss.item() == pytest.approx(math.log(V), abs=0.1)


# ---------------------------------------------------------------- lesson 06's GPT


def two_twins(**changes):
    """Lesson 06's GPT, and ours with everything off and the same weights."""
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(V, BLOCK, n_layer=3, n_head=4, n_embd=32, **changes))
    sharp(gpt)
    ours = ModernGPT(ModernConfig(V, BLOCK, n_layer=3, n_head=4, n_embd=32, **PLAIN | changes))
    weights = gpt.state_dict()
    for name in list(weights):
        if name.endswith("qkv.weight"):
            parts = weights.pop(name).chunk(3)
            for part, weight in zip("qkv", parts):
                weights[name.replace("qkv", part)] = weight
    ours.load_state_dict(weights)
    return gpt, ours.eval()


@pytest.mark.parametrize("activation", ["gelu", "relu", "gelu_tanh", "relu2"])
def test_with_everything_off_it_is_lesson_06s_gpt(activation):
    gpt, ours = two_twins(activation=activation)
    assert ours.num_params() == gpt.num_params()
    idx = random_ids(2, BLOCK)
    targets = random_ids(2, BLOCK)
    logits, loss = ours(idx, targets)
    expected, expected_loss = gpt(idx, targets)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    assert logits.std() > 0.5
    loss.backward()
    expected_loss.backward()
    for block, theirs in zip(ours.blocks, gpt.blocks):
        attention = block.attention
        gradients = [attention.q.weight.grad, attention.k.weight.grad, attention.v.weight.grad]
        torch.testing.assert_close(torch.cat(gradients), theirs.attention.qkv.weight.grad)
    torch.testing.assert_close(ours.token_embedding.weight.grad, gpt.token_embedding.weight.grad)


def test_with_everything_off_dropout_is_lesson_06s_too():
    gpt, ours = two_twins(dropout=0.3)
    idx = random_ids(2, BLOCK)
    found = []
    for model in (gpt, ours):
        model.train()
        torch.manual_seed(3)
        found.append(model(idx)[0])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=0)
    gpt.eval()
    assert (gpt(idx)[0] - found[0]).abs().max() > 0.1, "dropout has to do something"


@pytest.mark.parametrize("part", ["attention", "feed_forward", "embedding"])
def test_dropout_is_in_each_part(part):
    """With one kind of layer in training mode and the rest in evaluation mode, the logits are random."""
    model = tiny(dropout=0.5)
    modules = {
        "attention": [block.attention for block in model.blocks],
        "feed_forward": [block.feed_forward for block in model.blocks],
        "embedding": [model],
    }
    for module in modules[part]:
        module.training = True
    idx = random_ids(1, BLOCK)
    assert not torch.allclose(model(idx)[0], model(idx)[0])
    model.eval()
    assert torch.equal(model(idx)[0], model(idx)[0])


# ---------------------------------------------------------------- caches

KINDS = {
    "RoPE": {},
    "RoPE, 3-grams": {"n_gram": 3},
    "learned positions": {"positions": "learned"},
    "learned positions, 3-grams": {"positions": "learned", "n_gram": 3},
}
SPLITS = {
    "one by one": [1] * 12,
    "all at once": [12],
    "in threes": [3] * 4,
    "a prompt, then one by one": [7, 1, 1, 1, 1, 1],
    "one, then the rest": [1, 11],
    "any": [5, 1, 4, 2],
}


@torch.no_grad()
def read_in_pieces(model, idx, sizes, pads=None):
    """The logits (B, T, V) with a cache. pads: a list of B."""
    cache = model.make_cache(None if pads is None else torch.tensor(pads))
    pieces = [model(piece, cache=cache)[0] for piece in idx.split(sizes, dim=1)]
    return torch.cat(pieces, dim=1)


def test_each_model_has_its_cache():
    assert isinstance(tiny().make_cache(), SlidingKVCache)
    assert type(tiny(positions="learned").make_cache()) is KVCache


@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@torch.no_grad()
def test_inside_the_window_the_cache_changes_nothing(kind, sizes):
    model = tiny(**kind)
    idx = random_ids(2, BLOCK)
    found = read_in_pieces(model, idx, sizes)
    torch.testing.assert_close(found, model(idx)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@torch.no_grad()
def test_a_padded_row_is_the_row_alone(kind, sizes):
    model = tiny(**kind)
    pads = [3, 0, 7, 11]
    idx = random_ids(4, BLOCK)  # what stands in the place of a pad must not matter
    found = read_in_pieces(model, idx, sizes, pads)
    for row, pad in enumerate(pads):
        alone, _ = model(idx[row : row + 1, pad:])
        torch.testing.assert_close(found[row, pad:], alone[0], atol=1e-5, rtol=0)


class BandCache:
    """All keys in one pass, and a mask that shows each query the last `window` columns, the slow and simple way."""

    last_ids = None

    def __init__(self, window, pads):
        self.window = window
        self.pads = pads

    def extend(self, T, device=None):
        B = len(self.pads)
        self.mask = torch.zeros(B, 1, T, T, dtype=torch.bool)
        positions = torch.zeros(B, T, dtype=torch.int64)
        for b, pad in enumerate(self.pads):
            for t in range(T):
                positions[b, t] = max(t - pad, 0)
                self.mask[b, 0, t, t] = True
                for s in range(max(pad, t - self.window + 1), t):
                    self.mask[b, 0, t, s] = True
        return positions

    def update(self, layer, k, v):
        return k, v, self.mask


@pytest.mark.parametrize("pads", [None, [0, 3, 30]], ids=["no pads", "pads"])
@pytest.mark.parametrize("n_gram", [0, 3])
@pytest.mark.parametrize(
    "sizes", [[12] + [1] * 48, [12] * 5, [5] * 12, [1, 12, 7, 12, 1, 11, 12, 4]], ids=str
)
@torch.no_grad()
def test_a_cache_that_slides_is_attention_over_a_band(sizes, n_gram, pads):
    model = tiny(n_gram=n_gram)
    idx = random_ids(3, 60)
    found = read_in_pieces(model, idx, sizes, pads)
    pads = pads or [0, 0, 0]
    wanted = model.compute_logits(idx, BandCache(BLOCK, pads))
    for row, pad in enumerate(pads):
        torch.testing.assert_close(found[row, pad:], wanted[row, pad:], atol=1e-5, rtol=0)


def test_a_cache_that_slides_takes_a_window_at_most_and_one_extend_for_each_pass():
    cache = SlidingKVCache(4)
    with pytest.raises(ValueError, match="5 columns at once, but the window has 4"):
        cache.extend(5)
    cache.extend(2)
    keys = torch.zeros(1, 1, 3, 8)
    with pytest.raises(ValueError, match=r"got 3 new keys, but extend\(\) made room for 2"):
        cache.update("layer", keys, keys)


def test_a_cache_that_slides_has_two_windows_and_no_more():
    model = tiny()
    cache = model.make_cache()
    with torch.no_grad():
        for _ in range(100):
            model(random_ids(1, 1), cache=cache)
    assert cache.length == 100
    for keys, values in cache.layers.values():
        assert keys.shape[2] == values.shape[2] == 2 * BLOCK


def texts_model(**changes):
    return tiny(vocab_size=TOKENIZER.vocab_size, block_size=24, **changes)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_text_is_the_same_with_and_without_a_cache(kind):
    model = texts_model(**kind)
    prompts = [CORPUS.train[:1], CORPUS.train[20:29], CORPUS.train[40:45]]
    written = {}
    for use_cache in (True, False):
        written[use_cache] = generate(
            model, prompts, 15, seed=5, tokenizer=TOKENIZER, use_cache=use_cache
        )
    assert written[True] == written[False]
    # Each as if it were alone, too.
    for row, prompt in enumerate(prompts):
        alone = generate(model, prompt, 15, seed=5 + row, tokenizer=TOKENIZER)
        assert alone == written[True][row]


def test_with_learned_positions_the_text_is_the_same_beyond_the_block():
    model = texts_model(positions="learned", n_gram=3)
    prompts = [CORPUS.train[:1], CORPUS.train[20:59], CORPUS.train[40:45]]
    options = {"max_new_tokens": 40, "seed": 5, "tokenizer": TOKENIZER}
    cached = generate(model, prompts, use_cache=True, **options)
    assert cached == generate(model, prompts, use_cache=False, **options)


@pytest.mark.parametrize("prompt_length", [1, 12, 13, 50], ids=lambda n: f"a prompt of {n}")
def test_beyond_the_block_each_id_is_read_once(prompt_length):
    model = tiny(n_gram=3)
    compute_logits = model.compute_logits
    read = []

    def spy(idx, cache=None):
        read.append(idx.clone())
        return compute_logits(idx, cache)

    model.compute_logits = spy
    prompt = random_ids(2, prompt_length)
    written = generate(model, prompt, 60, seed=1)
    assert written.shape == (2, prompt_length + 60)
    # The last id that is written is never read.
    assert torch.equal(torch.cat(read, dim=1), written[:, :-1])
    assert max(piece.shape[1] for piece in read) <= BLOCK
    assert len(read) == math.ceil(prompt_length / BLOCK) + 59


def test_beyond_the_block_prompts_of_any_length_go_together():
    model = texts_model(n_gram=3)
    prompts = [CORPUS.train[:100], CORPUS.train[20:23], CORPUS.train[200:230]]
    together = generate(model, prompts, 60, seed=9, tokenizer=TOKENIZER)
    for row, prompt in enumerate(prompts):
        alone = generate(model, prompt, 60, seed=9 + row, tokenizer=TOKENIZER)
        assert together[row] == alone
        assert len(alone) == len(prompt) + 60


# ---------------------------------------------------------------- n-gram embeddings


@pytest.mark.parametrize("n_gram, rows, largest", [(2, 64, 5), (3, 8192, 60), (6, 1000, 50_257)])
def test_the_hashes_are_those_of_a_loop_in_python(n_gram, rows, largest):
    embedding = NGramEmbedding(n_gram, rows, 4)
    idx = torch.randint(largest, (3, 20))
    found = embedding.hashes(idx, torch.arange(20))
    assert len(found) == n_gram - 1
    for n, table in enumerate(found, start=2):
        expected = [rows_by_hand(ids, n, rows) for ids in idx.tolist()]
        assert table.tolist() == expected


def test_the_hashes_go_on_from_what_was_read_before():
    embedding = NGramEmbedding(4, 8192, 4)
    idx = torch.randint(60, (2, 20))
    whole = torch.stack(embedding.hashes(idx, torch.arange(20)))
    for first in range(1, 20):
        before = idx[:, max(first - 3, 0) : first]
        rest = embedding.hashes(idx[:, first:], torch.arange(first, 20), before)
        assert torch.equal(torch.stack(rest), whole[:, :, first:])


def test_the_first_tokens_of_a_text_have_no_predecessors():
    embedding = NGramEmbedding(3, 8192, 4)
    idx = torch.randint(60, (2, 10))
    # Row 0 begins at column 0; row 1 at column 4, behind pads, whatever these are.
    positions = torch.stack([torch.arange(10), torch.arange(10) - 4]).clamp(min=0)
    found = torch.stack(embedding.hashes(idx, positions))
    alone = torch.stack(embedding.hashes(idx[1:, 4:], torch.arange(6)))
    assert torch.equal(found[:, 1, 4:], alone[:, 0])
    before = torch.randint(60, (2, 2))
    again = torch.stack(embedding.hashes(idx, positions, before))
    assert torch.equal(again[:, 0], found[:, 0])
    assert torch.equal(again[:, 1, 4:], found[:, 1, 4:])
    # "No token" is no token's id: "0 a" is not "a" at the beginning.
    zero_first = torch.tensor([[0, 7]])
    alone = torch.tensor([[7]])
    follows = embedding.hashes(zero_first, torch.arange(2))[0][0, 1]
    begins = embedding.hashes(alone, torch.arange(1))[0][0, 0]
    assert follows != begins


def test_the_vector_is_the_sum_of_the_tables_rows():
    embedding = NGramEmbedding(3, 50, 4)
    idx = torch.randint(60, (1, 10))
    found = embedding(idx, torch.arange(10))
    for t in range(10):
        expected = 0
        for n, table in enumerate(embedding.tables, start=2):
            expected = expected + table.weight[rows_by_hand(idx[0].tolist(), n, 50)[t]]
        torch.testing.assert_close(found[0, t], expected)


@pytest.mark.parametrize("rows", [256, 500, 8192])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_n_grams_of_a_text_spread_evenly_over_the_rows(n, rows):
    text = write(min_chars=30_000).text
    ids = [ord(letter) % 60 for letter in text]
    different = torch.tensor(sorted(set(zip(*[ids[i:] for i in range(n)]))))  # (D, n)
    found = NGramEmbedding(n, rows, 1).hashes(different, torch.arange(n))[-1][:, -1]
    counts = torch.bincount(found, minlength=rows).double()
    expected = len(different) / rows
    # Chi-square of rows - 1 degrees of freedom, if each n-gram took any row with the same probability.
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    assert chi_square < rows - 1 + 5 * math.sqrt(2 * (rows - 1))


# ---------------------------------------------------------------- attention maps


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_the_recorded_weights_are_those_written_out(parts):
    model = tiny(**parts)
    ids = random_ids(BLOCK)
    with torch.no_grad(), record_attention(model) as maps:
        model(ids[None])
    found = torch.cat(maps.weights)
    _, expected = by_hand(model, ids)
    assert found.shape == (2, 4, BLOCK, BLOCK)  # a map for each head of queries
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 4, BLOCK))
    assert found.triu(1).abs().max() == 0
    assert found[..., -1, :].amax(-1).mean() > 2 / BLOCK, "an even map would prove little"


@torch.no_grad()
def test_a_head_off_is_a_matrix_of_zeros():
    model = tiny()
    idx = random_ids(2, BLOCK)
    for layer, heads in ((0, [2]), (1, [0, 3]), (1, [0, 1, 2, 3])):
        without = deepcopy(model)
        for head in heads:
            without.blocks[layer].attention.proj.weight[:, 8 * head : 8 * (head + 1)] = 0
        with ablate_heads(model, [(layer, head) for head in heads]):
            found, _ = model(idx)
        torch.testing.assert_close(found, without(idx)[0], atol=1e-5, rtol=0)
        assert (found - model(idx)[0]).abs().max() > 1e-2


@torch.no_grad()
def test_with_all_heads_off_attention_writes_nothing():
    model = tiny()
    written = []
    for block in model.blocks:
        block.attention.register_forward_hook(lambda module, inputs, out: written.append(out))
    with ablate_heads(model, [(1, head) for head in range(4)]):
        model(random_ids(2, BLOCK))
    assert written[0].abs().max() > 0.1
    assert written[1].abs().max() == 0


# ---------------------------------------------------------------- gradients, copies, training


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_each_parameter_has_a_gradient(parts):
    model = tiny(**parts)
    _, loss = model(random_ids(4, BLOCK), random_ids(4, BLOCK))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_gradient_is_that_of_the_formula():
    """Finite differences in 64 bits, through every part at once."""
    model = tiny(n_gram=3, softcap=2.0).double()
    idx = random_ids(2, 6)
    targets = random_ids(2, 6)
    _, loss = model(idx, targets)
    loss.backward()
    for name, parameter in model.named_parameters():
        place = parameter.grad.abs().argmax().item()
        numbers = parameter.data.view(-1)
        losses = []
        for change in (1e-4, -1e-4):
            numbers[place] += change
            losses.append(model(idx, targets)[1].item())
            numbers[place] -= change
        slope = (losses[0] - losses[1]) / 2e-4
        assert slope == pytest.approx(parameter.grad.view(-1)[place].item(), rel=1e-3), name


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@torch.no_grad()
def test_copies_say_the_same(kind):
    model = tiny(**kind)
    prepared = prepare_for_sampling(model, "fp32")
    idx = random_ids(2, BLOCK)
    expected, _ = model(idx)
    assert torch.equal(deepcopy(model)(idx)[0], expected)
    for sizes in ([12], [4, 1, 1, 1, 1, 1, 1, 1, 1]):  # many rows, and few, which go another way
        found = read_in_pieces(prepared, idx, sizes)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    rounded = read_in_pieces(prepare_for_sampling(model, "int8"), idx, [4, 1, 7])
    error = (rounded - expected).norm() / expected.norm()
    assert 1e-4 < error < 0.1


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("qk_norm", [True, False])
@torch.no_grad()
def test_with_weights_in_16_bits_it_says_about_the_same(kind, qk_norm):
    model = tiny(qk_norm=qk_norm, **kind)
    rounded = deepcopy(model).bfloat16()
    idx = random_ids(2, BLOCK)
    expected, _ = model(idx)
    found, _ = rounded(idx)
    cached = read_in_pieces(rounded, idx, [4, 1, 7])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = read_in_pieces(model, idx, [4, 1, 7])
    for logits in (found, cached, mixed):
        assert logits.dtype == torch.bfloat16
        assert (logits - expected).norm() < 0.05 * expected.norm()


def test_a_prepared_copy_writes_the_same_text():
    model = texts_model(n_gram=3)
    options = {"max_new_tokens": 60, "seed": 2, "tokenizer": TOKENIZER}
    prepared = prepare_for_sampling(model)
    assert generate(prepared, CORPUS.train[:5], **options) == generate(
        model, CORPUS.train[:5], **options
    )


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_a_saved_model_is_the_model(parts, tmp_path):
    model = texts_model(**parts)
    save_model(model, TOKENIZER, tmp_path)
    loaded, _ = load_model(tmp_path)
    assert loaded.config == model.config
    idx = IDS[None, :24]
    assert torch.equal(loaded(idx)[0], model(idx)[0])


def test_the_exact_loss_is_the_mean_of_the_windows():
    model = texts_model(n_gram=3)
    ids = VAL[:100]
    nats = []
    for start in range(0, 99, 24):
        window = ids[start : min(start + 24, 99)]
        logits, _ = by_hand(model, window)
        for t, target in enumerate(ids[start + 1 : start + 1 + len(window)].tolist()):
            nats.append(-logits[t].log_softmax(-1)[target].item())
    assert len(nats) == 99
    assert evaluate(model, ids) == pytest.approx(sum(nats) / 99, abs=1e-5)


def new_model(**changes):
    """As small as `texts_model`, but with initial weights as they are."""
    torch.manual_seed(0)
    config = ModernConfig(TOKENIZER.vocab_size, 24, 2, 4, 2, n_embd=32, n_gram_rows=64, **changes)
    return ModernGPT(config)


@pytest.mark.parametrize("parts", [{"n_gram": 3}, PLAIN | {"n_kv_head": 2}], ids=["whole", "plain"])
def test_it_learns(parts):
    torch.manual_seed(0)
    config = {"n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 32, "n_gram_rows": 64} | parts
    model = ModernGPT(ModernConfig(TOKENIZER.vocab_size, 24, **config))
    before = evaluate(model, VAL)
    losses = fit(model, IDS, 40, batch_size=8, lr=5e-3)
    assert before == pytest.approx(math.log(TOKENIZER.vocab_size), abs=0.15)
    assert losses[0].item() == pytest.approx(before, abs=0.2)
    assert evaluate(model, VAL) < before - 0.5


# ---------------------------------------------------------------- orthogonalizing

SHAPES = {
    "wide": (20, 30),
    "tall": (30, 20),
    "square": (24, 24),
    "a row": (1, 9),
    "a column": (9, 1),
}


def newton_schulz_by_hand(value):
    """What five steps make of one singular value: the polynomial of Jordan et al. (2024)."""
    for _ in range(5):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    return value


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_orthogonalizing_changes_the_singular_values_alone(shape):
    matrix = torch.randn(shape, dtype=torch.float64)
    made = orthogonalize(matrix)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ made @ v.T
    expected = [newton_schulz_by_hand(value / s.norm().item()) for value in s.tolist()]
    torch.testing.assert_close(
        inner, torch.diag(torch.tensor(expected).double()), atol=1e-6, rtol=0
    )


def test_orthogonalized_singular_values_are_near_1():
    for number in range(20):
        torch.manual_seed(number)
        values = torch.linalg.svdvals(orthogonalize(torch.randn(20, 30)))
        assert values.min() > 0.6
        assert values.max() < 1.25


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_orthogonalizing_one_by_one_in_a_batch_and_turned(shape):
    matrices = torch.randn(2, 3, *shape)
    batch = orthogonalize(matrices)
    assert batch.shape == matrices.shape
    for i, j in itertools.product(range(2), range(3)):
        alone = orthogonalize(matrices[i, j])
        torch.testing.assert_close(batch[i, j], alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(orthogonalize(matrices[i, j].T), alone.T, atol=1e-5, rtol=0)
        torch.testing.assert_close(orthogonalize(1e3 * matrices[i, j]), alone, atol=1e-4, rtol=0)
    assert orthogonalize(torch.zeros(shape)).abs().max() == 0


# ---------------------------------------------------------------- Muon

needs_torchs_muon = pytest.mark.skipif(
    not hasattr(torch.optim, "Muon"), reason="this torch has no Muon"
)
MATRICES = [(16, 16), (16, 16), (40, 16), (16, 40), (3, 50), (16, 16), (1, 8)]


def random_matrices():
    torch.manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape) / 4) for shape in MATRICES]


def steps_with(optimizer, parameters, steps=6, seed=2):
    """Steps with the same random gradients, at a learning rate that changes -> how far each step moved each matrix."""
    torch.manual_seed(seed)
    moves = []
    for step in range(steps):
        before = [parameter.detach().clone() for parameter in parameters]
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape) * 0.1 ** (step % 3)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (step + 1)
        optimizer.step()
        moves.append([parameter.detach() - old for parameter, old in zip(parameters, before)])
    return moves


def muon_twins(weight_decay):
    ours = random_matrices()
    theirs = random_matrices()
    group = {"params": ours, "weight_decay": weight_decay, "muon": True}
    our_optimizer = Muon([group], lr=0.01, betas=(0.9, 0.99))
    their_optimizer = torch.optim.Muon(
        theirs, lr=0.01, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return (our_optimizer, ours), (their_optimizer, theirs)


@needs_torchs_muon
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_muon_is_torchs_in_32_bits(weight_decay, monkeypatch):
    # torch's multiplies in bfloat16; here it must not.
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    (our_optimizer, ours), (their_optimizer, theirs) = muon_twins(weight_decay)
    steps_with(our_optimizer, ours)
    steps_with(their_optimizer, theirs)
    for matrix, expected, start in zip(ours, theirs, random_matrices()):
        torch.testing.assert_close(matrix, expected, atol=1e-5, rtol=0)
        assert (matrix - start).abs().max() > 0.01


@needs_torchs_muon
def test_muon_is_torchs_as_far_as_16_bits_go():
    (our_optimizer, ours), (their_optimizer, theirs) = muon_twins(0.1)
    our_moves = steps_with(our_optimizer, ours)
    their_moves = steps_with(their_optimizer, theirs)
    for our_step, their_step in zip(our_moves, their_moves):
        for ours, theirs in zip(our_step, their_step):
            assert (ours - theirs).norm() < 0.05 * theirs.norm()


def test_muons_step_by_hand():
    """Jordan et al. (2024), with Nesterov's momentum and the step of Liu et al. (2025), by a singular value decomposition."""
    matrix = torch.nn.Parameter(torch.randn(6, 10, dtype=torch.float64))
    group = {"params": [matrix], "weight_decay": 0.5, "muon": True}
    optimizer = Muon([group], lr=0.02, betas=(0.9, 0.99))
    expected = matrix.detach().clone()
    momentum = torch.zeros(6, 10, dtype=torch.float64)
    for _ in range(4):
        gradient = torch.randn(6, 10, dtype=torch.float64)
        matrix.grad = gradient.clone()
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        ahead = 0.95 * momentum + 0.05 * gradient
        u, s, v = torch.linalg.svd(ahead, full_matrices=False)
        values = [newton_schulz_by_hand(value / s.norm().item()) for value in s.tolist()]
        direction = u @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ v
        expected = expected * (1 - 0.02 * 0.5) - 0.02 * 0.2 * math.sqrt(10) * direction
        torch.testing.assert_close(matrix.detach(), expected, atol=1e-6, rtol=0)


def random_gradients(model, seed):
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape)


def others(model):
    """The parameters that Muon leaves to AdamW, by name."""
    found = {}
    for name, parameter in model.named_parameters():
        if not name.startswith("blocks.") or parameter.dim() != 2:
            found[name] = parameter
    return found


def test_the_rest_takes_adamws_step():
    ours = new_model(n_gram=3)
    theirs = deepcopy(ours)
    optimizer = make_optimizer(ours, settings(optimizer="muon", weight_decay=0.3))
    assert type(optimizer) is Muon
    rest = others(theirs).values()
    adamw = torch.optim.AdamW(
        [
            {"params": [p for p in rest if p.dim() > 1], "weight_decay": 0.3},
            {"params": [p for p in rest if p.dim() == 1], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=tuple(settings().betas),
        fused=True,
    )
    for step in range(5):
        random_gradients(ours, step)
        random_gradients(theirs, step)
        optimizer.step()
        adamw.step()
    start = dict(new_model(n_gram=3).named_parameters())
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if name in others(ours):
            assert torch.equal(parameter, expected[name]), name
        assert not torch.equal(parameter, start[name]), name


def test_a_step_of_muon_is_about_as_long_as_one_of_adamw():
    """Liu et al. (2025): the root of the mean square of an update is about 0.2, whatever the shape."""
    moved = steps_with(*muon_twins(0.0)[0], steps=1)[0]
    for move in moved[:5]:
        M, N = move.shape
        # A matrix with min(M, N) singular values near 1 has the mean square min(M, N) / (M N) = 1 / max(M, N).
        assert (move / 0.01).square().mean().sqrt().item() == pytest.approx(0.2, rel=0.3)


def test_after_a_step_the_gradients_are_still_there():
    model = new_model(n_gram=2)
    optimizer = make_muon(model, settings())
    random_gradients(model, 0)
    before = {name: parameter.grad for name, parameter in model.named_parameters()}
    values = {name: gradient.clone() for name, gradient in before.items()}
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is before[name], name
        assert torch.equal(parameter.grad, values[name]), name
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_without_a_gradient_a_parameter_stays():
    model = new_model()
    start = deepcopy(model)
    optimizer = make_muon(model, settings())
    random_gradients(model, 0)
    model.blocks[0].attention.q.weight.grad = None
    model.norm.weight.grad = None
    optimizer.step()
    assert torch.equal(model.blocks[0].attention.q.weight, start.blocks[0].attention.q.weight)
    assert torch.equal(model.norm.weight, start.norm.weight)
    assert not torch.equal(model.blocks[1].attention.q.weight, start.blocks[1].attention.q.weight)
    assert model.blocks[0].attention.q.weight.grad is None


def test_a_closure_is_called_once_and_first():
    model = new_model()
    plain = deepcopy(model)
    idx = IDS[None, :24]
    targets = IDS[None, 1:25]
    calls = []
    optimizer = make_muon(model, settings())

    def closure():
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        _, loss = model(idx, targets)
        loss.backward()
        calls.append(loss)
        return loss

    assert optimizer.step(closure) is calls[0]
    assert len(calls) == 1
    _, loss = plain(idx, targets)
    loss.backward()
    optimizer = make_muon(plain, settings())
    assert optimizer.step() is None
    for found, expected in zip(model.parameters(), plain.parameters()):
        assert torch.equal(found, expected)


def test_a_saved_optimizer_goes_on_as_if_nothing_had_been():
    model = new_model(n_gram=3)
    optimizer = make_muon(model, settings())
    for step in range(3):
        random_gradients(model, step)
        optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = deepcopy(model)
    forgetful = deepcopy(model)
    optimizers = {model: optimizer}
    for copy in (resumed, forgetful):
        optimizers[copy] = make_muon(copy, settings())
    optimizers[resumed].load_state_dict(torch.load(file, weights_only=True))
    for step in range(3, 6):
        for copy, its_optimizer in optimizers.items():
            random_gradients(copy, step)
            its_optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(resumed.get_parameter(name), parameter), name
        assert not torch.equal(forgetful.get_parameter(name), parameter), name


def muon_of_one_matrix(momentum):
    matrix = torch.nn.Parameter(torch.ones(4, 6))
    group = {"params": [matrix], "weight_decay": 0.0, "muon": True}
    return Muon([group], lr=0.1, betas=(0.9, 0.99), momentum=momentum)


def test_the_momentum_goes_with_a_copy_and_with_a_saved_state():
    loaded = muon_of_one_matrix(0.95)
    loaded.load_state_dict(muon_of_one_matrix(0.5).state_dict())
    optimizers = {
        "new": muon_of_one_matrix(0.5),
        "copied": deepcopy(muon_of_one_matrix(0.5)),
        "loaded": loaded,
        "another": muon_of_one_matrix(0.95),
    }
    ends = {}
    for name, optimizer in optimizers.items():
        (matrix,) = optimizer.param_groups[0]["params"]
        steps_with(optimizer, [matrix])
        ends[name] = matrix
    assert torch.equal(ends["copied"], ends["new"])
    assert torch.equal(ends["loaded"], ends["new"])
    assert not torch.equal(ends["another"], ends["new"])


def test_a_gradient_of_infinity_leaves_out_the_whole_step():
    """With float16 a GradScaler decides; it has to do so for Muon's matrices and AdamW's rest alike."""
    model = new_model()
    start = deepcopy(model)
    optimizer = make_muon(model, settings())
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for broken in ("token_embedding.weight", "blocks.0.attention.q.weight"):
        scaler.scale(model(IDS[None, :24], IDS[None, 1:25])[1]).backward()
        model.get_parameter(broken).grad[0, 0] = math.inf
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, start.get_parameter(name)), (broken, name)
    # A whole one is the step of the gradients before the scaling.
    scaler.scale(model(IDS[None, :24], IDS[None, 1:25])[1]).backward()
    scaler.step(optimizer)
    start(IDS[None, :24], IDS[None, 1:25])[1].backward()
    make_muon(start, settings()).step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, start.get_parameter(name), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: new_model(n_gram=3, tied=False),
        lambda: new_model(positions="learned", norm="layer", activation="relu2"),
        lambda: GPT(GPTConfig(V, BLOCK, 2, 4, 32, bias=True, qkv_bias=True)),
        lambda: GPT(GPTConfig.lecture(V, BLOCK, 32, 4, 2)),
    ],
    ids=["whole", "learned positions", "GPT-2", "lecture"],
)
def test_each_parameter_is_in_one_group(make):
    model = make()
    names = {parameter: name for name, parameter in model.named_parameters()}
    seen = []
    for group in muon_param_groups(model, 0.3):
        for parameter in group["params"]:
            name = names[parameter]
            seen.append(name)
            is_matrix_of_a_block = name.startswith("blocks.") and name.endswith(".weight")
            is_matrix_of_a_block = is_matrix_of_a_block and "norm" not in name
            assert group["muon"] == is_matrix_of_a_block, name
            assert group["weight_decay"] == (0.3 if parameter.dim() > 1 else 0.0), name
    assert sorted(seen) == sorted(names.values())


def test_a_model_without_blocks_is_not_for_muon():
    with pytest.raises(ValueError, match="BigramLanguageModel has none: take optimizer='adamw'"):
        muon_param_groups(BigramLanguageModel(V), 0.1)


def die_at_step(model, step):
    """Makes the model's training end in an error, in the forward pass of a step, counted from 1."""
    steps = []

    def hook(module, inputs):
        if module.training:
            steps.append(1)
        if len(steps) == step:
            raise MemoryError("the machine is gone")

    model.register_forward_pre_hook(hook)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_training_with_muon_that_was_killed_goes_on_to_the_last_bit(precision, tmp_path):
    options = {"optimizer": "muon", "precision": precision, "checkpoint_interval": 4}
    whole = new_model(n_gram=2, dropout=0.1)
    expected = train(whole, CORPUS, settings(**options))
    config = settings(out=str(tmp_path / "run"), **options)
    killed = new_model(n_gram=2, dropout=0.1)
    die_at_step(killed, 7)
    with pytest.raises(MemoryError):
        train(killed, CORPUS, config)
    resumed = new_model(n_gram=2, dropout=0.1)
    result = train(resumed, CORPUS, config, resume=True)
    assert result["steps"] == 12
    assert result["best_val_loss"] == expected["best_val_loss"]
    assert result["best_val_loss"] < math.log(TOKENIZER.vocab_size) - 0.5
    for name, parameter in whole.named_parameters():
        assert torch.equal(resumed.get_parameter(name), parameter), name
