"""Linear layers that multiply few rows faster on a CPU: split-K in 32 bits, and int8. Lesson 08 puts them into a copy."""

import warnings
from math import gcd

import torch
from torch import nn
from torch.nn import functional as F


class SplitKLinear(nn.Module):
    """An `nn.Linear` for few rows on a CPU; its matrix lies in pieces, one for each core: (..., K) -> (..., N).

    The pieces are a copy: a layer that is still trained must not be replaced by this one.
    """

    MAX_ROWS = 32  # more rows keep all cores busy: the plain product is as fast, or faster

    def __init__(self, layer):
        super().__init__()
        self.weight = layer.weight  # (N, K)
        self.bias = layer.bias
        n_pieces = gcd(4, layer.in_features)
        pieces = layer.weight.detach().T.reshape(n_pieces, -1, layer.out_features)
        self.register_buffer("pieces", pieces.contiguous(), persistent=False)  # (4, K / 4, N)

    def forward(self, x):
        rows = x.numel() // x.shape[-1]
        if rows > self.MAX_ROWS:
            return F.linear(x, self.weight, self.bias)
        parts = x.reshape(rows, len(self.pieces), -1).transpose(0, 1)  # (4, rows, K / 4)
        out = torch.bmm(parts, self.pieces).sum(0)  # (rows, N)
        out = out.view(*x.shape[:-1], -1)
        return out if self.bias is None else out + self.bias


class Int8Linear(nn.Module):
    """An `nn.Linear` on a CPU with one byte a weight: (..., K) -> (..., N). It cannot be trained."""

    def __init__(self, layer):
        super().__init__()
        weight = layer.weight.detach()
        largest = weight.abs().amax(1).clamp(min=1e-30)  # a row of zeros needs a scale, too
        scales = largest.double() / 127  # one for each row
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        with warnings.catch_warnings():
            # PyTorch warns that this function will move to another package; linear_dynamic stays.
            warnings.filterwarnings("ignore", message=".*quantize_per_channel.*")
            rounded = torch.quantize_per_channel(weight, scales, zeros, axis=0, dtype=torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(rounded, layer.bias)

    def forward(self, x):
        # reduce_range: 7 bits for x, or sums of two products could overflow on CPUs without VNNI.
        return torch.ops.quantized.linear_dynamic(x, self.packed, reduce_range=True)


def is_plain_linear(layer):
    """Whether a layer is an `nn.Linear` in 32 bits on the CPU, without hooks, which a replacement would not call."""
    return (
        type(layer) is nn.Linear
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
    )
