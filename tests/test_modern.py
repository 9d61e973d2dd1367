"""Lesson 16: RoPE, RMSNorm, SwiGLU, grouped heads against formulas and transformers; a cache that slides; Muon."""

import math

import pytest
import torch
from torch.nn import functional as F

from chargpt_lib.modern import (
    ModernConfig,
    ModernGPT,
    SlidingKVCache,
    SwiGLU,
    apply_rope,
    make_norm,
    orthogonalize,
    rope_cos_sin,
)


def tiny(**changes):
    torch.manual_seed(0)
    config = {
        "vocab_size": 31,
        "block_size": 12,
        "n_layer": 2,
        "n_head": 4,
        "n_kv_head": 2,
        "n_embd": 32,
    }
    return ModernGPT(ModernConfig(**{**config, **changes})).eval()


def test_rope_is_a_rotation_of_complex_numbers():
    x = torch.randn(3, 5, 8)
    turned = apply_rope(x, *rope_cos_sin(torch.arange(5), 8))
    numbers = torch.complex(x[..., :4], x[..., 4:])
    expected = torch.stack(
        [numbers[:, t] * torch.exp(1j * t * 10_000.0 ** (-torch.arange(4) / 4)) for t in range(5)],
        1,
    )
    assert torch.allclose(turned[..., :4], expected.real, atol=1e-5)
    assert torch.allclose(turned[..., 4:], expected.imag, atol=1e-5)


def test_only_distances_matter():
    q = torch.randn(8)
    k = torch.randn(8)

    def score(m, n):
        cos, sin = rope_cos_sin(torch.tensor([m, n]), 8)
        return apply_rope(q, cos[0], sin[0]) @ apply_rope(k, cos[1], sin[1])

    for m, n, shift in ((3, 1, 10), (7, 7, 100), (50, 2, 1000)):
        assert score(m, n).item() == pytest.approx(score(m + shift, n + shift).item(), abs=1e-3)


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
def test_the_logits_are_llamas(heads):
    from transformers import LlamaConfig, LlamaForCausalLM

    n_head, n_kv_head = heads
    model = tiny(n_head=n_head, n_kv_head=n_kv_head, n_embd=8 * n_head, qk_norm=False, softcap=0.0)
    config = model.config
    width = model.blocks[0].feed_forward.gate.out_features
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=31,
            hidden_size=config.n_embd,
            intermediate_size=width,
            num_hidden_layers=2,
            num_attention_heads=n_head,
            num_key_value_heads=n_kv_head,
            max_position_embeddings=64,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            attention_bias=False,
        )
    ).eval()
    names = {
        "model.embed_tokens.weight": model.token_embedding.weight,
        "model.norm.weight": model.norm.weight,
    }
    for n, block in enumerate(model.blocks):
        at = f"model.layers.{n}."
        names[at + "self_attn.q_proj.weight"] = block.attention.q.weight
        names[at + "self_attn.k_proj.weight"] = block.attention.k.weight
        names[at + "self_attn.v_proj.weight"] = block.attention.v.weight
        names[at + "self_attn.o_proj.weight"] = block.attention.proj.weight
        names[at + "mlp.gate_proj.weight"] = block.feed_forward.gate.weight
        names[at + "mlp.up_proj.weight"] = block.feed_forward.up.weight
        names[at + "mlp.down_proj.weight"] = block.feed_forward.proj.weight
        names[at + "input_layernorm.weight"] = block.norm_1.weight
        names[at + "post_attention_layernorm.weight"] = block.norm_2.weight
    missing, unexpected = theirs.load_state_dict(names, strict=False)
    assert not unexpected and missing in ([], ["lm_head.weight"])
    idx = torch.randint(31, (2, 12))
    with torch.no_grad():
        assert (theirs(idx).logits - model(idx)[0]).abs().max() < 1e-5


@pytest.mark.parametrize("pads", [None, [0, 3]])
def test_a_cache_that_slides_is_attention_over_a_band(pads):
    model = tiny()
    N = 60
    ids = torch.randint(31, (1 if pads is None else 2, N))
    cache = model.make_cache(None if pads is None else torch.tensor(pads))
    with torch.no_grad():
        parts = [model(ids[:, :12], cache=cache)[0]]
        for t in range(12, N):
            parts.append(model(ids[:, t : t + 1], cache=cache)[0])
    found = torch.cat(parts, 1)

    class Band:
        """All keys, and a mask that shows each query the last 12 columns."""

        last_ids = None

        def extend(self, T, device=None):
            rows = torch.arange(T)
            distance = rows[:, None] - rows
            self.mask = (distance >= 0) & (distance < 12)
            if pads is None:
                return rows
            left = torch.tensor(pads)[:, None]
            first = torch.minimum(left, rows)
            self.mask = (self.mask & (rows >= first[..., None]))[:, None]
            return (rows - left).clamp(min=0)

        def update(self, layer, k, v):
            return k, v, self.mask

    with torch.no_grad():
        wanted = model.compute_logits(ids, Band())
    for row in range(len(ids)):
        pad = 0 if pads is None else pads[row]
        assert torch.allclose(found[row, pad:], wanted[row, pad:], atol=1e-5)


def test_orthogonalizing_keeps_the_singular_vectors():
    matrix = torch.randn(20, 30, dtype=torch.float64)
    made = orthogonalize(matrix)
    assert ((torch.linalg.svdvals(made) > 0.6) & (torch.linalg.svdvals(made) < 1.25)).all()
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ made @ v.T
    assert (inner - inner.diag().diag()).abs().max() < 1e-6
