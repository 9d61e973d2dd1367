"""Lesson 04: the loop, the fused kernel and PyTorch's own module give the same numbers from the same weights."""

from math import log

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

from chargpt_lib.multi_head import (
    CausalSelfAttention,
    MultiHeadAttention,
    MultiHeadLanguageModel,
    head_size,
)


@pytest.mark.parametrize("n_head", [1, 2, 3, 4, 6, 12])
def test_heads_share_the_width(n_head):
    assert head_size(12, n_head) * n_head == 12


@pytest.mark.parametrize(
    "make",
    [
        head_size,
        MultiHeadAttention,
        CausalSelfAttention,
        lambda C, H: MultiHeadLanguageModel(5, 4, C, H),
    ],
)
@pytest.mark.parametrize("n_head", [5, 24, 0, -2])
def test_heads_that_do_not_divide_the_width(n_head, make):
    with pytest.raises(
        ValueError, match=rf"n_embd \(12\) .* n_head \({n_head}\); .* \[1, 2, 3, 4, 6, 12\]"
    ):
        make(12, n_head)


def same_weights(loop):
    """The fused module with the weights of the loop."""
    fused = CausalSelfAttention(loop.proj.in_features, len(loop.heads))
    fused.proj.load_state_dict(loop.proj.state_dict())
    rows = [getattr(head, name).weight for name in ("query", "key", "value") for head in loop.heads]
    fused.qkv.weight.data = torch.cat(rows).detach().clone()
    return fused


@pytest.mark.parametrize("C, H", [(12, 1), (12, 3), (32, 4), (6, 6)])
def test_the_fused_kernel_gives_what_the_loop_gives(C, H):
    loop, x, weights = MultiHeadAttention(C, H), torch.randn(3, 7, C), torch.randn(3, 7, C)
    fused, found = same_weights(loop), []
    for module in (loop, fused):
        inputs = x.clone().requires_grad_()
        out = module(inputs)
        (out * weights).sum().backward()
        found.append((out, inputs.grad, module.proj.weight.grad, module.proj.bias.grad))
    torch.testing.assert_close(*found)
    rows = [
        getattr(head, name).weight.grad for name in ("query", "key", "value") for head in loop.heads
    ]
    torch.testing.assert_close(fused.qkv.weight.grad, torch.cat(rows))


@pytest.mark.parametrize("bias, qkv_bias", [(True, True), (False, False), (True, False)])
def test_pytorchs_module_gives_the_same(bias, qkv_bias):
    ours, theirs = (
        CausalSelfAttention(12, 3, bias, qkv_bias),
        nn.MultiheadAttention(12, 3, batch_first=True),
    )
    assert (ours.proj.bias is not None, ours.qkv.bias is not None) == (bias, qkv_bias)
    theirs.in_proj_weight.data, theirs.out_proj.weight.data = (
        ours.qkv.weight.data,
        ours.proj.weight.data,
    )
    for there, here in (
        (theirs.in_proj_bias, ours.qkv.bias),
        (theirs.out_proj.bias, ours.proj.bias),
    ):
        there.data = torch.zeros(len(there)) if here is None else nn.init.normal_(here).data
    x = torch.randn(2, 9, 12)
    future = torch.ones(9, 9).triu(1).bool()
    torch.testing.assert_close(ours(x), theirs(x, x, x, attn_mask=future, need_weights=False)[0])


@pytest.mark.parametrize("make", [MultiHeadAttention, CausalSelfAttention])
def test_gradients_flow_only_from_the_past(make):
    flows = jacobian(make(8, 2), torch.randn(1, 6, 8)).abs().sum((0, 2, 3, 5))  # (T out, T in)
    assert torch.equal(flows > 0, torch.ones(6, 6).tril() > 0)


def test_the_order_of_the_heads_does_not_matter():
    one, other, x = (
        CausalSelfAttention(12, 3, qkv_bias=True),
        CausalSelfAttention(12, 3, qkv_bias=True),
        torch.randn(2, 5, 12),
    )
    channels = torch.arange(12).view(3, 4)[[2, 0, 1]].flatten()
    rows = torch.cat([channels, channels + 12, channels + 24])
    other.qkv.weight.data, other.qkv.bias.data = one.qkv.weight.data[rows], one.qkv.bias.data[rows]
    other.proj.weight.data, other.proj.bias.data = one.proj.weight.data, one.proj.bias.data
    assert (one(x) - other(x)).abs().max() > 0.01
    other.proj.weight.data = one.proj.weight.data[:, channels]
    torch.testing.assert_close(one(x), other(x))


# ---------------------------------------------------------------- dropout


def see_through(dropout):
    """Attention whose queries are zero and whose values and result are its input: each position averages its past."""
    module = CausalSelfAttention(16, 2, dropout=dropout)
    nn.init.zeros_(module.qkv.weight)
    nn.init.zeros_(module.proj.bias)
    module.qkv.weight.data[32:] = module.proj.weight.data = torch.eye(16)
    return module


def test_nothing_is_dropped_in_use():
    module, x = see_through(0.9).eval(), torch.randn(2, 6, 16)
    expected = x.cumsum(1) / torch.arange(1, 7)[:, None]
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(see_through(0.0).train()(x), expected)


def test_training_drops_whole_glances_and_single_numbers():
    module = see_through(0.25).train()
    heads = module(torch.ones(4000, 1, 16)).view(8000, 8)  # one position: each head has one weight
    dropped = heads.eq(0).all(1)
    assert dropped.float().mean().item() == pytest.approx(
        0.25, abs=0.03
    )  # the weights, in the kernel
    assert heads[~dropped].eq(0).float().mean().item() == pytest.approx(
        0.25, abs=0.02
    )  # the result
    assert heads[heads > 0].tolist() == pytest.approx([1 / 0.75**2] * int((heads > 0).sum()))


# ---------------------------------------------------------------- the model


def test_the_model_is_the_sum_of_its_parts():
    model, idx = MultiHeadLanguageModel(11, 8, 12, 3), torch.randint(11, (2, 5))
    for weight in model.parameters():
        nn.init.normal_(weight)
    loop = MultiHeadAttention(12, 3)
    loop.proj.load_state_dict(model.attention.proj.state_dict())
    for i, rows in enumerate(model.attention.qkv.weight.data.view(3, 3, 4, 12).unbind(1)):
        (
            loop.heads[i].query.weight.data,
            loop.heads[i].key.weight.data,
            loop.heads[i].value.weight.data,
        ) = rows
    x = model.token_embedding.weight[idx] + model.position_embedding.weight[:5]
    torch.testing.assert_close(
        model(idx)[0], loop(x) @ model.lm_head.weight.T + model.lm_head.bias, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("sizes", [(65, 64, 128, 4), (74, 8, 32, 32), (2, 1, 1, 1)])
def test_an_untrained_model_knows_nothing(sizes):
    idx, targets = torch.randint(sizes[0], (2, 32, sizes[1]))
    assert MultiHeadLanguageModel(*sizes)(idx, targets)[1].item() == pytest.approx(
        log(sizes[0]), abs=0.1
    )
