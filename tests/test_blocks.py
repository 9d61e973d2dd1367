"""Lesson 05: a block against one written by hand, and what residuals, norms, dropout and the first weights do."""

from math import erf, log, pi, tanh

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.blocks import ACTIVATIONS, Block, BlockLanguageModel, FeedForward

FORMULAS = {
    "relu": lambda x: max(x, 0.0),
    "gelu": lambda x: x * (1 + erf(x / 2**0.5)) / 2,
    "gelu_tanh": lambda x: x / 2 * (1 + tanh((2 / pi) ** 0.5 * (x + 0.044715 * x**3))),
    "relu2": lambda x: max(x, 0.0) ** 2,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_activation_is_its_formula(name):
    x = torch.linspace(-4, 4, 81)
    torch.testing.assert_close(
        ACTIVATIONS[name](x), torch.tensor([FORMULAS[name](value) for value in x.tolist()])
    )


def test_the_formulas_differ():
    assert FORMULAS.keys() == ACTIVATIONS.keys() and len({f(2.0) for f in FORMULAS.values()}) == 4


def norm(x, weight, bias):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + (
        0 if bias is None else bias
    )


def linear(x, layer):
    return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


def by_hand(block, x, n_head, nonlinearity):
    """A block as in nanoGPT, in small steps: the mask, each head's softmax, the sums."""
    B, T, C = x.shape
    q, k, v = linear(norm(x, block.norm_1.weight, block.norm_1.bias), block.attention.qkv).split(
        C, dim=2
    )
    heads = []
    for q, k, v in zip(*(part.split(C // n_head, dim=2) for part in (q, k, v))):
        scores = q @ k.mT / (C // n_head) ** 0.5 + torch.full((T, T), float("-inf")).triu(1)
        heads.append(scores.exp() / scores.exp().sum(-1, keepdim=True) @ v)
    x = x + linear(torch.cat(heads, -1), block.attention.proj)
    hidden = linear(norm(x, block.norm_2.weight, block.norm_2.bias), block.feed_forward.fc)
    return x + linear(nonlinearity(hidden), block.feed_forward.proj)


@pytest.mark.parametrize("bias, qkv_bias", [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize(
    "activation, nonlinearity",
    [
        ("relu", torch.relu),
        ("gelu", F.gelu),
        ("gelu_tanh", nn.GELU("tanh")),
        ("relu2", lambda x: torch.relu(x) ** 2),
    ],
)
def test_a_block_is_the_block_one_writes_by_hand(bias, qkv_bias, activation, nonlinearity):
    block, x = (
        Block(12, 3, bias, qkv_bias, activation, dropout=0.5).eval(),
        torch.randn(2, 6, 12, requires_grad=True),
    )
    for weight in block.parameters():
        nn.init.normal_(weight, std=0.5)
    outs = block(x), by_hand(block, x, 3, nonlinearity)
    torch.testing.assert_close(*outs, atol=1e-4, rtol=1e-4)
    weights, inputs = torch.randn(2, 6, 12), [x, *block.parameters()]
    torch.testing.assert_close(
        *(torch.autograd.grad((out * weights).sum(), inputs) for out in outs), atol=1e-3, rtol=1e-3
    )
    names = {name for name, _ in block.named_parameters() if name.endswith("bias")}
    assert len(names) == 5 * bias + qkv_bias and ("attention.qkv.bias" in names) == qkv_bias


def test_what_came_in_goes_through():
    block, x = Block(8, 2), torch.randn(2, 5, 8)
    added = block(x) - x
    torch.testing.assert_close(
        block(x + 7) - (x + 7), added, atol=1e-4, rtol=1e-4
    )  # a norm comes first and takes the 7 away
    assert added.abs().mean() > 0.01
    for weight in (*block.attention.proj.parameters(), *block.feed_forward.proj.parameters()):
        nn.init.zeros_(weight)
    assert torch.equal(block(x), x)


def test_feed_forward_is_for_each_position_by_itself():
    layer, x = FeedForward(8), torch.randn(2, 5, 8)
    torch.testing.assert_close(layer(x)[:, [3, 1]], layer(x[:, [3, 1]]))
    assert layer.fc.weight.shape == (32, 8) and layer.proj.weight.shape == (8, 32)


def test_dropout_is_for_training_only():
    layer, x = FeedForward(64, dropout=0.25), torch.randn(50, 10, 64)
    trained, used = layer.train()(x), layer.eval()(x)
    assert used.ne(0).all() and trained.eq(0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(trained[trained != 0], used[trained != 0] / 0.75)


# ---------------------------------------------------------------- the model


@pytest.mark.parametrize("n_layer", [1, 2, 8])
def test_the_first_weights(n_layer):
    model = BlockLanguageModel(200, 64, 128, 4, n_layer)
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            assert weight.eq("norm" in name and name.endswith("weight")).all(), name
        else:
            std = 0.02 / (2 * n_layer) ** 0.5 if name.endswith("proj.weight") else 0.02
            assert weight.std().item() == pytest.approx(std, rel=0.04), name
    assert sum(name.endswith("proj.weight") for name, _ in model.named_parameters()) == 2 * n_layer


def test_the_model_is_the_sum_of_its_parts():
    model, idx = BlockLanguageModel(11, 8, 12, 3, n_layer=2), torch.randint(11, (2, 5))
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.5)
    x = model.token_embedding.weight[idx] + model.position_embedding.weight[:5]
    for block in model.blocks:
        x = by_hand(block, x, 3, F.gelu)
    expected = linear(norm(x, model.norm.weight, model.norm.bias), model.lm_head)
    torch.testing.assert_close(model(idx)[0], expected, atol=1e-4, rtol=1e-4)


def test_a_later_character_changes_nothing_before_it():
    model, idx = BlockLanguageModel(11, 8, 12, 3, n_layer=2), torch.randint(11, (1, 8))
    before = model(idx)[0][0]
    for at in range(8):
        changed = idx.clone()
        changed[0, at] = (changed[0, at] + 1) % 11
        assert ((model(changed)[0][0] - before).abs().sum(1) > 1e-6).tolist() == [
            t >= at for t in range(8)
        ]


@pytest.mark.parametrize("sizes", [(65, 64, 128, 4, 4), (74, 8, 32, 2, 8), (2, 1, 1, 1, 1)])
def test_an_untrained_model_knows_nothing(sizes):
    idx, targets = torch.randint(sizes[0], (2, 32, sizes[1]))
    assert BlockLanguageModel(*sizes)(idx, targets)[1].item() == pytest.approx(
        log(sizes[0]), abs=0.1
    )
