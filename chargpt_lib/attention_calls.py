"""Finds the attention calls of any model while it runs, with hooks and a TorchFunctionMode, and computes their weights."""

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# The functions by which a model can compute attention: the fused kernel, or a softmax over scores.
FUSED = F.scaled_dot_product_attention
SOFTMAX = (torch.softmax, torch.Tensor.softmax, F.softmax)
FUSED_PARAMETERS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


class AttentionInterceptor(TorchFunctionMode):
    """Intercepts every attention of a model: a call of the fused kernel, or a softmax with a square result.

    For each call, on_call(layer, heads, out, weights) returns what takes the place of the result `out`; weights(some)
    computes the weights of some of the call's heads, (B, H, T, T). At the end of a forward pass, on_end(counts)
    receives the number of heads of each layer.

    What happens inside one call of PyTorch stays hidden: `nn.MultiheadAttention` is such a call.
    """

    def __init__(self, model, on_call, on_end):
        super().__init__()
        self.model = model
        self.on_call = on_call
        self.on_end = on_end
        self.inputs = []  # the input of each running module, the innermost last

    def __enter__(self):
        # Modules without children (linear layers, norms) compute no attention; hooks there would only cost time.
        parts = []
        for part in self.model.modules():
            if part is self.model or list(part.children()):
                parts.append(part)
        self.hooks = [part.register_forward_pre_hook(self.before) for part in parts]
        self.hooks += [part.register_forward_hook(self.after, always_call=True) for part in parts]
        return super().__enter__()

    def __exit__(self, *error):
        for hook in self.hooks:
            hook.remove()
        return super().__exit__(*error)

    def before(self, part, inputs):
        """Hook: a module begins. A new pass begins with the model itself."""
        if part is self.model:
            self.inputs = []
            self.counts = []
            self.source = None
        self.inputs.append(inputs[0] if inputs else part)

    def after(self, part, inputs, out):
        """Hook: a module has ended. Without a result it ended in an error."""
        self.inputs.pop()
        if part is self.model and out is not None:
            self.on_end(self.counts)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        is_square = func in SOFTMAX and out.dim() > 2 and out.shape[-1] == out.shape[-2]
        if not self.inputs or not (is_square or func is FUSED):
            return out
        # (B, T, T) are the weights of a single head. Single heads that read the same tensor, one after the other,
        # are one layer, as in lesson 04's loop. A result (B, H, T, ...) is a layer by itself.
        source = self.inputs[-1] if out.dim() == 3 else None
        if source is None or source is not self.source:
            self.counts.append(0)
        self.source = source
        first = self.counts[-1]
        self.counts[-1] += 1 if out.dim() == 3 else out.shape[1]
        heads = range(first, self.counts[-1])

        def weights(some):
            return _attention_weights(some, func, out, args, kwargs)

        return self.on_call(len(self.counts) - 1, heads, out, weights)


@torch.no_grad()
def _attention_weights(some, func, out, args, kwargs):
    """The weights in a call of func (the kernel or a softmax) that returned out: of some of its heads, (B, H, T, T).

    The result of a softmax is the weights. For the kernel they are computed from its own q and k: the kernel with
    V = I would return them, too, but far more slowly.
    """

    def take(x):
        """The wanted heads of (B, H, T, ...); of a single head's (B, T, ...) a copy with an axis for it."""
        return x[:, some] if out.dim() == 4 else x[:, None].clone()

    if func is not FUSED:
        return take(out)
    call = dict(zip(FUSED_PARAMETERS, args)) | kwargs
    q = call["query"]
    k = call["key"]
    scale = call.get("scale")
    if scale is None:
        scale = q.shape[-1] ** -0.5
    mask = call.get("attn_mask")
    if call.get("is_causal"):
        T = q.shape[-2]
        mask = torch.ones(T, T, dtype=torch.bool, device=q.device).tril()
    scores = take(q) * scale @ take(k).mT  # (B, H, T, T)
    if mask is not None:
        if mask.dim() > 2:
            mask = take(mask.expand(*q.shape[:-1], -1))
        # A mask is either boolean, or numbers that are added to the scores.
        scores += torch.where(mask, 0.0, float("-inf")) if mask.dtype == torch.bool else mask
    # In place: at long texts the scores are the largest tensor.
    return torch.softmax(scores, -1, out=scores)


def check_selection(layers, heads):
    """Raises TypeError unless layers and heads are None or non-empty lists of numbers."""
    for chosen in (layers, heads):
        if chosen is None:
            continue
        if not isinstance(chosen, (list, tuple, range)) or not len(chosen):
            raise TypeError(
                f"layers={layers!r}, heads={heads!r}: pass a non-empty list of integers, "
                f"e.g. heads=[3], or None for all"
            )


def check_heads(counts, heads):
    """Raises IndexError where a model has no such (layer, head). counts: the number of heads of each layer."""
    for layer, head in heads:
        if layer not in range(len(counts)) or head not in range(counts[layer]):
            raise IndexError(
                f"there is no layer {layer}, head {head}: the {len(counts)} layers have {counts} heads"
            )


def check_has_attention(model, counts):
    """Raises ValueError where a pass of the model made no attention call. counts: as for `check_heads`."""
    if not counts:
        raise ValueError(
            f"{type(model).__name__} has no attention that can be recorded: no call of "
            f"F.scaled_dot_product_attention, no square softmax (calls inside "
            f"nn.MultiheadAttention are hidden); use F.scaled_dot_product_attention in the model"
        )
