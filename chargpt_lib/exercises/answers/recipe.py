# Made from the exercises of notebooks/source/10_recipe.py by notebooks/tools/build.py. Edit that text, not this file.
"""The right answers to the exercises of 10 · The recipe: what goes into a step."""

from torch.nn import functional as F


def share_read_twice(n, batch_size, steps):
    """Three whole numbers >= 1, batch_size <= n -> float: the expected share, 0 to 1, of windows read twice or more."""
    p = batch_size / n
    return 1 - (1 - p) ** steps - steps * p * (1 - p) ** (steps - 1)


def inverse_root_rate(step, peak, warmup):
    """step from 0 on, peak a float, warmup a number of steps from 1 on -> float: the learning rate of this step."""
    k = step + 1
    return peak * min(k / warmup, (warmup / k) ** 0.5)


def accumulated_gradient(table, x, y, size):
    """table (V, V) floats, x and y (B, T) int64, -100 in y: no target -> (V, V): the gradient of the mean loss."""
    table = table.clone().requires_grad_()
    for a, b in zip(x.split(size), y.split(size)):
        loss = F.cross_entropy(table[a].flatten(0, 1), b.flatten())
        (loss * (b != -100).sum() / (y != -100).sum()).backward()
    return table.grad


def unscale_and_clip(gradients, scale, most):
    """gradients: a list of float16 tensors of any shapes; scale, most: floats above 0 -> list of float32 tensors."""
    if not all(g.isfinite().all() for g in gradients):
        return []
    gradients = [g.float() / scale for g in gradients]
    length = sum(g.square().sum() for g in gradients).sqrt()
    return [g * (most / length).clamp(max=1) for g in gradients]
