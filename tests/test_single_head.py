"""Lesson 03: attention against PyTorch's own, against plain loops, and against the arrow of time."""

import copy
from math import e, exp, log

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian
from torch.nn import functional as F

from chargpt_lib.single_head import (
    Head,
    SingleHeadLanguageModel,
    causal_mask,
    init_weights,
    scaled_dot_product_attention,
)


@pytest.mark.parametrize("T", [1, 2, 7])
def test_nobody_sees_the_future(T):
    mask = causal_mask(T)
    assert mask.dtype == torch.bool and mask.tolist() == [
        [s <= t for s in range(T)] for t in range(T)
    ]
    assert causal_mask(T, "meta").device.type == "meta"


def attend(q, k, v, allowed):
    """Attention for one text, in plain numbers."""
    out, weights = [], []
    for t, query in enumerate(q):
        scores = [
            exp(sum(a * b for a, b in zip(query, key)) / len(query) ** 0.5) * allowed(t, s)
            for s, key in enumerate(k)
        ]
        weights.append([score / sum(scores) for score in scores])
        out.append(
            [sum(w * value[i] for w, value in zip(weights[-1], v)) for i in range(len(v[0]))]
        )
    return torch.tensor(out), torch.tensor(weights)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_what_the_loops_say(causal):
    q, k, v = torch.randn(5, 3), torch.randn(5, 3), torch.randn(5, 2)
    found = scaled_dot_product_attention(q, k, v, causal_mask(5) if causal else None)
    expected = attend(q.tolist(), k.tolist(), v.tolist(), lambda t, s: s <= t or not causal)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("shape", [(4, 8, 16), (2, 3, 8, 16)])
def test_attention_is_what_pytorch_says(shape, causal):
    q, k, v = torch.randn(3, *shape)
    out, weights = scaled_dot_product_attention(q, k, v, causal_mask(8) if causal else None)
    torch.testing.assert_close(out, F.scaled_dot_product_attention(q, k, v, is_causal=causal))
    torch.testing.assert_close(weights.sum(-1), torch.ones(shape[:-1]))
    assert not causal or (weights.triu(1).eq(0).all() and weights[..., 0, 0].eq(1).all())


@pytest.mark.parametrize("d", [1, 4, 64])
def test_scores_are_divided_by_the_root_of_the_head_size(d):
    query, keys = (
        torch.full((1, d), d**-0.25),
        torch.stack([torch.full((d,), d**-0.25), torch.zeros(d)]),
    )  # scores 1 and 0
    _, weights = scaled_dot_product_attention(query, keys, torch.zeros(2, 1))
    assert weights[0, 0].item() == pytest.approx(e / (e + 1))
    q, k = torch.randn(2, 2000, d)
    _, weights = scaled_dot_product_attention(
        q[:, None],
        k.view(-1, 1, d).expand(-1, 2, -1) * torch.tensor([[[1.0], [0.0]]]),
        torch.zeros(2000, 2, 1),
    )
    assert weights[..., 0].logit().std().item() == pytest.approx(1, abs=0.15)


def test_a_head_is_pytorchs_attention_of_its_three_matrices():
    head, x = Head(12, 5), torch.randn(2, 7, 12)
    q, k, v = (x @ layer.weight.T for layer in (head.query, head.key, head.value))
    torch.testing.assert_close(head(x), F.scaled_dot_product_attention(q, k, v, is_causal=True))
    assert sum(p.numel() for p in head.parameters()) == 3 * 12 * 5 and head.weights.shape == (
        2,
        7,
        7,
    )


def test_the_gradients_of_a_head_flow_only_from_the_past():
    head = Head(4, 3)
    flows = jacobian(head, torch.randn(1, 6, 4)).abs().sum((0, 2, 3, 5))  # (T out, T in)
    assert torch.equal(flows > 0, causal_mask(6))


def test_a_head_that_has_looked_can_be_copied():
    head, x = Head(4, 4), torch.randn(1, 3, 4)
    head(x)
    torch.testing.assert_close(copy.deepcopy(head)(x), head(x))


# ---------------------------------------------------------------- the model


def test_init_weights_are_small():
    model = nn.Sequential(
        nn.Embedding(300, 200),
        nn.Linear(200, 300),
        nn.Linear(300, 200, bias=False),
        nn.LayerNorm(200),
    )
    for layer in model.apply(init_weights)[:3]:
        assert (
            layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
            and abs(layer.weight.mean().item()) < 0.0005
        )
    assert model[1].bias.eq(0).all() and model[3].weight.eq(1).all() and model[3].bias.eq(0).all()


def loud(*sizes):
    """A model whose weights are large enough to matter."""
    model = SingleHeadLanguageModel(*sizes)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    return model


def test_the_model_is_the_sum_of_its_parts():
    model, idx = loud(11, 8, 6), torch.randint(11, (3, 5))
    parts = dict(model.named_parameters())
    x = parts["token_embedding.weight"][idx] + parts["position_embedding.weight"][:5]
    q, k, v = (x @ parts[f"attention.{name}.weight"].T for name in ("query", "key", "value"))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(
        model(idx)[0], out @ parts["lm_head.weight"].T + parts["lm_head.bias"]
    )


def test_a_later_character_changes_nothing_before_it():
    model, idx = loud(11, 8, 6), torch.randint(11, (1, 8))
    before = model(idx)[0][0]
    for at in range(8):
        changed = idx.clone()
        changed[0, at] = (changed[0, at] + 1) % 11
        moved = (model(changed)[0][0] - before).abs().amax(1)
        assert (moved > 1e-5).tolist() == [t >= at for t in range(8)]


def test_without_positions_a_head_reads_a_bag_of_characters():
    model, idx = loud(11, 6, 6), torch.tensor([[1, 2, 3, 4, 5, 6], [4, 2, 5, 1, 3, 6]])
    ordered, shuffled = model(idx)[0][:, -1]
    assert (ordered - shuffled).abs().max() > 1e-3
    nn.init.zeros_(model.position_embedding.weight)
    torch.testing.assert_close(*model(idx)[0][:, -1])


@pytest.mark.parametrize("sizes", [(65, 64, 128), (74, 8, 32), (2, 1, 1)])
def test_an_untrained_model_knows_nothing(sizes):
    idx, targets = torch.randint(sizes[0], (2, 32, sizes[1]))
    assert SingleHeadLanguageModel(*sizes)(idx, targets)[1].item() == pytest.approx(
        log(sizes[0]), abs=0.1
    )
