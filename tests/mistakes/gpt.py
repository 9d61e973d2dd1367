"""Lesson 06."""

import math
from itertools import accumulate

import torch
from torch import nn
from torch.nn import functional as F

from chargpt_lib.blocks import Block
from tests.mistakes import right, wrong


def size(module):
    return sum(p.numel() for p in module.parameters())


@right("gpt_parameters")
def builds_it(V, T, C, H, N, family):
    """All blocks are alike, so one of them is built; the model around it would take ten times as long."""
    bias = family != "nanoGPT"
    with torch.device("meta"):
        block = Block(C, H, bias=bias, qkv_bias=family == "GPT-2")
        others = [nn.Embedding(V, C), nn.Embedding(T, C), nn.LayerNorm(C, bias=bias)]
        others += [nn.Linear(C, V)] if family == "lecture" else []
    return N * size(block) + sum(size(part) for part in others)


@right("gpt_parameters")
def by_shapes(V, T, C, H, N, family):
    block = [(C,), (C,), (3 * C, C), (C, C), (4 * C, C), (C, 4 * C)]
    norm = [(C,)]
    if family != "nanoGPT":
        block += [(C,), (C,), (C,), (4 * C,), (C,)]
        norm += [(C,)]
    if family == "GPT-2":
        block += [(3 * C,)]
    last = [(V, C), (V,)] if family == "lecture" else []
    return sum(math.prod(shape) for shape in N * block + norm + last + [(V, C), (T, C)])


@right("gpt_parameters")
def powers_of_c(V, T, C, H, N, family):
    return {
        "nanoGPT": 12 * N * C**2 + (2 * N + 1 + V + T) * C,
        "GPT-2": 12 * N * C**2 + (13 * N + 2 + V + T) * C,
        "lecture": 12 * N * C**2 + (10 * N + 2 + 2 * V + T) * C + V,
    }[family]


@wrong("gpt_parameters", "counted twice")
def tied_counted_twice(V, T, C, H, N, family):
    return powers_of_c(V, T, C, H, N, family) + (0 if family == "lecture" else V * C)


@wrong("gpt_parameters", "position table is missing")
def no_positions(V, T, C, H, N, family):
    return powers_of_c(V, T, C, H, N, family) - T * C


@wrong("gpt_parameters")
def heads_of_full_width(V, T, C, H, N, family):
    qkv_bias = 3 * C if family == "GPT-2" else 0
    return powers_of_c(V, T, C, H, N, family) + N * (H - 1) * (3 * C * C + qkv_bias)


@wrong("gpt_parameters", "last norm")
def no_last_norm(V, T, C, H, N, family):
    return powers_of_c(V, T, C, H, N, family) - (C if family == "nanoGPT" else 2 * C)


@wrong("gpt_parameters")
def one_norm_in_a_block(V, T, C, H, N, family):
    return powers_of_c(V, T, C, H, N, family) - N * (C if family == "nanoGPT" else 2 * C)


@wrong("gpt_parameters", "have biases in GPT-2")
def qkv_bias_nowhere(V, T, C, H, N, family):
    return powers_of_c(V, T, C, H, N, family) - (3 * N * C if family == "GPT-2" else 0)


@wrong("gpt_parameters")
def beta_always(V, T, C, H, N, family):
    return powers_of_c(V, T, C, H, N, family) + ((2 * N + 1) * C if family == "nanoGPT" else 0)


@wrong("gpt_parameters")
def nanogpt_with_biases(V, T, C, H, N, family):
    return (
        12 * N * C**2 + (10 * N + 2 + V + T) * C
        if family == "nanoGPT"
        else powers_of_c(V, T, C, H, N, family)
    )


@wrong("gpt_parameters", "not tied")
def always_tied(V, T, C, H, N, family):
    return powers_of_c(V, T, C, H, N, family) - (V * C + V if family == "lecture" else 0)


@wrong("gpt_parameters", "not N")
def one_block(V, T, C, H, N, family):
    return powers_of_c(V, T, C, H, 1, family)


@wrong("gpt_parameters", "a bias is missing")
def no_bias_of_the_projection(V, T, C, H, N, family):
    return powers_of_c(V, T, C, H, N, family) - (0 if family == "nanoGPT" else N * C)


def parameters(
    V,
    T,
    C,
    H,
    N,
    family,
    gammas=True,
    betas=True,
    ff_bias=True,
    qkv=lambda family: family == "GPT-2",
):
    """Counted part by part, so that a part can be left out."""
    bias = family != "nanoGPT"
    norm = C * gammas + C * (bias and betas)
    block = 12 * C * C + 2 * norm + 3 * C * qkv(family) + bias * (C + (4 * C if ff_bias else C) + C)
    return V * C + T * C + N * block + norm + (C * V + V if family == "lecture" else 0)


@wrong("gpt_parameters")
def norms_are_biases(V, T, C, H, N, family):
    return parameters(V, T, C, H, N, family, gammas=family != "nanoGPT")


@wrong("gpt_parameters")
def no_norms(V, T, C, H, N, family):
    return parameters(V, T, C, H, N, family, gammas=False, betas=False)


@wrong("gpt_parameters")
def no_gamma_anywhere(V, T, C, H, N, family):
    return parameters(V, T, C, H, N, family, gammas=False)


@wrong("gpt_parameters")
def no_beta_anywhere(V, T, C, H, N, family):
    return parameters(V, T, C, H, N, family, betas=False)


@wrong("gpt_parameters")
def narrow_bias_in_the_feed_forward_layer(V, T, C, H, N, family):
    return parameters(V, T, C, H, N, family, ff_bias=False)


@wrong("gpt_parameters")
def qkv_bias_in_the_lecture_too(V, T, C, H, N, family):
    return parameters(V, T, C, H, N, family, qkv=lambda family: family != "nanoGPT")


@wrong("gpt_parameters")
def always_the_lecture(V, T, C, H, N, family):
    return by_shapes(V, T, C, H, N, "lecture")


@wrong("gpt_parameters")
def always_nanogpt(V, T, C, H, N, family):
    return by_shapes(V, T, C, H, N, "nanoGPT")


@wrong("gpt_parameters")
def always_gpt2(V, T, C, H, N, family):
    return by_shapes(V, T, C, H, N, "GPT-2")


@wrong("gpt_parameters")
def only_matrices_of_blocks(V, T, C, H, N, family):
    return 12 * N * C**2


def frozen(x, spread, gamma, w):
    return sum(g * v * (number - sum(x) / len(x)) / spread for number, g, v in zip(x, gamma, w))


@right("logit_contributions")
def without_each_part(parts, gamma, w):
    numbers = parts.double()
    x = numbers.sum(0)
    spread = math.sqrt(sum((number - x.mean()).item() ** 2 for number in x) / len(x) + 1e-5)
    whole = frozen(x, spread, gamma.double(), w.double())
    rows = [whole - frozen(x - part, spread, gamma.double(), w.double()) for part in numbers]
    return torch.stack(rows).to(parts.dtype)


@right("logit_contributions")
def one_direction(parts, gamma, w):
    C = len(w)
    centre = torch.eye(C, dtype=parts.dtype) - 1 / C
    x = centre @ parts.sum(0)
    return torch.einsum("lc,cd,d,d->l", parts, centre, gamma, w) / (x @ x / C + 1e-5) ** 0.5


@right("logit_contributions")
def shares_of_the_norm(parts, gamma, w):
    """LN(x) is linear in x - mean: the coefficients come from the library's own norm."""
    x = parts.sum(0)
    normed = F.layer_norm(x, x.shape)
    divisor = torch.dot(x - x.mean(), normed) / torch.dot(normed, normed)
    return torch.stack([torch.dot((part - part.mean()) / divisor, gamma * w) for part in parts])


@wrong("logit_contributions", "normed by itself")
def norms_each_part(parts, gamma, w):
    norm = nn.LayerNorm(parts.shape[1], bias=False, dtype=parts.dtype)
    norm.weight.data = gamma
    return (norm(parts) @ w).detach()


@wrong("logit_contributions", "steps of the logit lens")
def differences_of_the_lens(parts, gamma, w):
    before, shares, x = 0, [], torch.zeros_like(parts[0])
    for part in parts:
        x = x + part
        logit = F.layer_norm(x, x.shape, gamma) @ w
        shares.append(logit - before)
        before = logit
    return torch.stack(shares)


@wrong("logit_contributions")
def the_lens(parts, gamma, w):
    return torch.stack([F.layer_norm(x, x.shape, gamma) @ w for x in parts.cumsum(0)])


@wrong("logit_contributions", "the means are missing")
def forgets_the_mean(parts, gamma, w):
    x = parts.sum(0)
    return (parts * gamma / torch.sqrt(x.var(unbiased=False) + 1e-5)) @ w


@wrong("logit_contributions")
def mean_of_the_sum(parts, gamma, w):
    x = parts.sum(0)
    return ((parts - x.mean()) * gamma / torch.sqrt(x.var(unbiased=False) + 1e-5)) @ w


@wrong("logit_contributions", "gamma is missing")
def no_gamma(parts, gamma, w):
    return without_each_part(parts, torch.ones_like(gamma), w)


@wrong("logit_contributions", "divided by C - 1")
def default_variance(parts, gamma, w):
    return (parts - parts.mean(1, keepdim=True)) @ (gamma * w) / (parts.sum(0).var() + 1e-5).sqrt()


@wrong("logit_contributions")
def no_root(parts, gamma, w):
    return (
        (parts - parts.mean(1, keepdim=True))
        @ (gamma * w)
        / (parts.sum(0).var(unbiased=False) + 1e-5)
    )


@wrong("logit_contributions")
def no_divisor(parts, gamma, w):
    return (parts - parts.mean(1, keepdim=True)) @ (gamma * w)


@wrong("logit_contributions", "in place")
def centres_the_input(parts, gamma, w):
    spread = (parts.sum(0).var(unbiased=False) + 1e-5).sqrt()
    parts -= parts.mean(-1, keepdim=True)
    return parts @ (gamma * w) / spread


@wrong("logit_contributions")
def for_each_coordinate(parts, gamma, w):
    x = parts.sum(0)
    return (
        (parts - parts.mean(-1, keepdim=True)) * gamma * w / (x.var(unbiased=False) + 1e-5).sqrt()
    )


@wrong("logit_contributions", "fractions")
def fractions(parts, gamma, w):
    shares = without_each_part(parts, gamma, w)
    return shares / shares.sum()


@wrong("logit_contributions", "fractions")
def fractions_of_the_magnitudes(parts, gamma, w):
    return without_each_part(parts, gamma, w).abs().softmax(0)


@wrong("logit_contributions", "each share is wrong")
def mean_of_the_sum_split_evenly(parts, gamma, w):
    x = parts.sum(0)
    spread = torch.sqrt(x.var(unbiased=False) + 1e-5)
    return torch.stack([((part - x.mean() / len(parts)) / spread * gamma) @ w for part in parts])


@wrong("logit_contributions")
def leave_one_out(parts, gamma, w):
    x = parts.sum(0)
    whole = F.layer_norm(x, x.shape, gamma) @ w
    return torch.stack([whole - F.layer_norm(x - part, x.shape, gamma) @ w for part in parts])


@wrong("logit_contributions")
def gradient_times_part(parts, gamma, w):
    x = parts.sum(0).requires_grad_()
    (F.layer_norm(x, x.shape, gamma) @ w).backward()
    return parts @ x.grad


@wrong("logit_contributions", "each share is wrong")
def products_rescaled(parts, gamma, w):
    x, products = parts.sum(0), parts @ w
    return products / products.sum() * (F.layer_norm(x, x.shape, gamma) @ w)


@wrong("logit_contributions", "each share is wrong")
def products_with_gamma_rescaled(parts, gamma, w):
    x, products = parts.sum(0), (parts * gamma) @ w
    return products * (F.layer_norm(x, x.shape, gamma) @ w) / products.sum()


@wrong("logit_contributions", "each share is wrong")
def normed_parts_rescaled(parts, gamma, w):
    x, logits = parts.sum(0), F.layer_norm(parts, gamma.shape, gamma) @ w
    return logits * ((F.layer_norm(x, x.shape, gamma) @ w) / logits.sum())


@wrong("logit_contributions", "each share is wrong")
def the_same_for_each(parts, gamma, w):
    x = parts.sum(0)
    return (F.layer_norm(x, x.shape, gamma) @ w / len(parts)).repeat(len(parts))


@wrong("logit_contributions")
def no_epsilon(parts, gamma, w):
    return (parts - parts.mean(-1, keepdim=True)) / parts.sum(0).std(correction=0) @ (gamma * w)


@wrong("logit_contributions")
def epsilon_outside(parts, gamma, w):
    x = parts.sum(0)
    return (
        (parts - parts.mean(-1, keepdim=True)) / (x.var(correction=0).sqrt() + 1e-5) @ (gamma * w)
    )


@wrong("logit_contributions")
def std_as_it_comes(parts, gamma, w):
    return (parts - parts.mean(-1, keepdim=True)) / parts.sum(0).std() @ (gamma * w)


@wrong("logit_contributions", "float32")
def fills_a_float32_tensor(parts, gamma, w):
    shares = torch.zeros(len(parts))
    for i, share in enumerate(without_each_part(parts, gamma, w)):
        shares[i] = share
    return shares


@wrong("logit_contributions", "float32")
def from_a_list_of_numbers(parts, gamma, w):
    return torch.tensor([share.item() for share in without_each_part(parts, gamma, w)])


@wrong("logit_contributions")
def one_part_gets_nothing(parts, gamma, w):
    before = F.layer_norm(parts[:-1].sum(0), gamma.shape, gamma) @ w
    after = F.layer_norm(parts.sum(0), gamma.shape, gamma) @ w
    return torch.cat([parts.new_zeros(len(parts) - 1), (after - before)[None]])


@right("logit_contributions")
def fills_a_tensor_of_their_dtype(parts, gamma, w):
    x = parts.sum(0)
    shares = torch.zeros(len(parts), dtype=parts.dtype)
    for i, part in enumerate(parts):
        for c in range(len(x)):
            shares[i] += (
                gamma[c]
                * w[c]
                * (part[c] - part.mean())
                / (((x - x.mean()) ** 2).mean() + 1e-5).sqrt()
            )
    return shares


@right("bits_per_byte")
def spread_over_bytes(loss, text):
    bits = sum(loss / 0.6931471805599453 for _ in text)
    return bits / sum(1 + (ord(c) > 0x7F) + (ord(c) > 0x7FF) + (ord(c) > 0xFFFF) for c in text)


@right("bits_per_byte")
def by_the_change_of_base(loss, text):
    return -math.log2(math.exp(-loss)) / (len(bytes(text, "utf-8")) / len(text))


@wrong("bits_per_byte", "nats per byte")
def still_nats(loss, text):
    return loss * len(text) / len(text.encode())


@wrong("bits_per_byte", "bits per character")
def bits_per_character(loss, text):
    return loss / math.log(2)


@wrong("bits_per_byte", "multiplied by ln 2")
def wrong_way(loss, text):
    return loss * math.log(2) * len(text) / len(text.encode())


@wrong("bits_per_byte", "upside down")
def more_bytes_cost_more(loss, text):
    return loss / math.log(2) * len(text.encode()) / len(text)


@wrong("bits_per_byte")
def eight_bits(loss, text):
    return loss * len(text) / math.log(2) / (8 * len(text.encode()))


@wrong("bits_per_byte", "mean, not a sum")
def loss_taken_for_the_sum(loss, text):
    return loss / math.log(2) / len(text.encode())


@wrong("bits_per_byte", "whole text")
def all_of_the_bits(loss, text):
    return loss / math.log(2) * len(text)


@wrong("bits_per_byte")
def utf_16(loss, text):
    return loss / math.log(2) * len(text) / len(text.encode("utf-16-le"))


@wrong("bits_per_byte")
def logarithm_of_the_loss(loss, text):
    return math.log2(loss) * len(text) / len(text.encode())


@wrong("bits_per_byte")
def logarithm_of_the_loss_alone(loss, text):
    return math.log2(loss)


@wrong("bits_per_byte", "is there a `return`?")
def prints_it(loss, text):
    print(loss / math.log(2) * len(text) / len(text.encode()))


@wrong("bits_per_byte")
def first_character_is_not_asked(loss, text):
    return loss / math.log(2) * (len(text) - 1) / len(text[1:].encode())


@right("sample_continuation")
def one_text_at_a_time(table, positions, idx, u):
    texts = idx.tolist()
    for text, row in zip(texts, u.tolist()):
        for number in row:
            place = min(len(text), len(positions)) - 1
            weights = [
                math.exp(a + b) for a, b in zip(table[text[-1]].tolist(), positions[place].tolist())
            ]
            ends = accumulate(weight / sum(weights) for weight in weights)
            text.append(next(i for i, end in enumerate(ends) if end >= number))
    return torch.tensor(texts)


@right("sample_continuation")
def searchsorted(table, positions, idx, u):
    (B, T), size = idx.shape, positions.shape[0]
    out = torch.cat([idx, idx.new_zeros(u.shape)], dim=1)
    for t in range(T, T + u.shape[1]):
        window = out[:, max(0, t - size) : t]
        logits = (table[window] + positions[: window.shape[1]])[:, -1, :]
        p = torch.exp(logits - logits.logsumexp(-1, keepdim=True))
        found = torch.searchsorted(p.cumsum(-1), u[:, t - T, None].contiguous())
        out[:, t] = found.squeeze(1).clamp(max=len(table) - 1)
    return out


def write(table, positions, idx, u, front=False, axis=-1, at=-1):
    size = len(positions)
    for number in u.T:
        window = idx[:, :size] if front else idx[:, -size:]
        p = (table[window] + positions[: window.shape[1]])[:, at].softmax(axis)
        new = (p.cumsum(1)[:, :-1] < number[:, None]).sum(1)
        idx = torch.cat((idx, new[:, None]), 1)
    return idx


@wrong("sample_continuation", "cut from the beginning")
def only_the_softmax_mended(table, positions, idx, u):
    return write(table, positions, idx, u, front=True)


@wrong("sample_continuation", "over the batch")
def only_the_window_mended(table, positions, idx, u):
    return write(table, positions, idx, u, axis=0)


@wrong("sample_continuation", "both bugs are still there")
def as_it_was(table, positions, idx, u):
    return write(table, positions, idx, u, front=True, axis=0)


@wrong("sample_continuation")
def first_place(table, positions, idx, u):
    return write(table, positions, idx, u, at=0)


@wrong("sample_continuation", "longer than `positions`")
def window_one_too_long(table, positions, idx, u):
    for n in range(u.shape[1]):
        window = idx[:, -len(positions) - 1 :]
        logits = table[window] + positions[: window.shape[1]]
        ends = logits[:, -1].softmax(-1).cumsum(-1)
        idx = torch.cat([idx, (ends[:, :-1] < u[:, n : n + 1]).sum(-1, keepdim=True)], dim=1)
    return idx


@wrong("sample_continuation")
def only_the_last_character(table, positions, idx, u):
    for n in range(u.shape[1]):
        ends = (table[idx[:, -1:]] + positions[:1])[:, -1].softmax(-1).cumsum(-1)
        idx = torch.cat([idx, (ends[:, :-1] < u[:, n : n + 1]).sum(-1, keepdim=True)], dim=1)
    return idx


@wrong("sample_continuation")
def positions_from_the_end(table, positions, idx, u):
    for n in range(u.shape[1]):
        window = idx[:, -len(positions) :]
        ends = (table[window] + positions[-window.shape[1] :])[:, -1].softmax(-1).cumsum(-1)
        idx = torch.cat([idx, (ends[:, :-1] < u[:, n : n + 1]).sum(-1, keepdim=True)], dim=1)
    return idx


@wrong("sample_continuation", "longer than `positions`")
def window_removed(table, positions, idx, u):
    for n in range(u.shape[1]):
        logits = table[idx] + positions[: idx.shape[1]]
        ends = logits[:, -1].softmax(-1).cumsum(-1)
        idx = torch.cat([idx, (ends[:, :-1] < u[:, n : n + 1]).sum(-1, keepdim=True)], dim=1)
    return idx


@wrong("sample_continuation")
def greedy(table, positions, idx, u):
    for _ in range(u.shape[1]):
        window = idx[:, -len(positions) :]
        logits = table[window] + positions[: window.shape[1]]
        idx = torch.cat([idx, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    return idx


@wrong("sample_continuation")
def softmax_over_time(table, positions, idx, u):
    for n in range(u.shape[1]):
        window = idx[:, -len(positions) :]
        p = (table[window] + positions[: window.shape[1]]).softmax(1)
        ends = p[:, -1].cumsum(-1)
        idx = torch.cat([idx, (ends[:, :-1] < u[:, n : n + 1]).sum(-1, keepdim=True)], dim=1)
    return idx


@wrong("sample_continuation")
def without_the_prompt(table, positions, idx, u):
    return write(table, positions, idx, u)[:, -u.shape[1] :]


@wrong("sample_continuation")
def one_random_number(table, positions, idx, u):
    return write(table, positions, idx, u[:, :1].expand_as(u))


@wrong("sample_continuation")
def not_cumulative(table, positions, idx, u):
    for n in range(u.shape[1]):
        window = idx[:, -len(positions) :]
        p = (table[window] + positions[: window.shape[1]])[:, -1].softmax(-1)
        idx = torch.cat([idx, (p[:, :-1] < u[:, n : n + 1]).sum(-1, keepdim=True)], dim=1)
    return idx


@wrong("sample_continuation", "the text itself is cut")
def cuts_the_text(table, positions, idx, u):
    for n in range(u.shape[1]):
        idx = idx[:, -len(positions) :]
        logits = table[idx] + positions[: idx.shape[1]]
        ends = logits[:, -1].softmax(-1).cumsum(-1)
        idx = torch.cat([idx, (ends[:, :-1] < u[:, n : n + 1]).sum(-1, keepdim=True)], dim=1)
    return idx


@wrong("sample_continuation", "IndexError")
def squeezes_the_batch_away(table, positions, idx, u):
    for n in range(u.shape[1]):
        window = idx[:, -len(positions) :]
        p = (table[window] + positions[: window.shape[1]])[:, -1].softmax(-1)
        new = (p.cumsum(-1)[:, :-1] < u[:, n : n + 1]).sum(-1).squeeze()
        idx = torch.cat([idx, new[:, None]], dim=1)
    return idx


@wrong("sample_continuation", "must be continued alike")
def random_numbers_of_its_own(table, positions, idx, u):
    for _ in range(u.shape[1]):
        window = idx[:, -len(positions) :]
        logits = table[window] + positions[: window.shape[1]]
        idx = torch.cat([idx, torch.multinomial(logits[:, -1].softmax(-1), 1)], dim=1)
    return idx


@right("tied_gradient")
def autograd(E, idx, targets):
    E = E.clone().requires_grad_()
    F.cross_entropy(E[idx] @ E.T, targets).backward()
    return E.grad


@right("tied_gradient")
def loops(E, idx, targets):
    gradient = torch.zeros_like(E)
    for i, y in zip(idx.tolist(), targets.tolist()):
        weights = torch.exp(E @ E[i])
        for v, p in enumerate(weights / weights.sum()):
            gradient[v] += (p - float(v == y)) * E[i]
            gradient[i] += (p - float(v == y)) * E[v]
    return gradient / len(idx)


@right("tied_gradient")
def one_symmetric_matrix(E, idx, targets):
    """The logits are E E^T at (i, v): with G the gradient of that table of pairs, (G + G^T) E."""
    V, p = len(E), (E[idx] @ E.T).softmax(1)
    G = F.one_hot(idx, V).to(E.dtype).T @ (p - torch.eye(V, dtype=E.dtype)[targets]) / len(idx)
    return (G + G.T) @ E


@wrong("tied_gradient", "last matrix alone")
def last_matrix(E, idx, targets):
    W = E.clone().requires_grad_()
    F.cross_entropy(E[idx] @ W.T, targets).backward()
    return W.grad


@wrong("tied_gradient", "looked-up rows alone")
def lookup(E, idx, targets):
    W = E.clone().requires_grad_()
    F.cross_entropy(W[idx] @ E.T, targets).backward()
    return W.grad


def error_of(E, idx, targets):
    p = (E[idx] @ E.T).softmax(-1)
    p[torch.arange(len(idx)), targets] -= 1
    return p / len(idx)


@wrong("tied_gradient")
def stands_there_twice(E, idx, targets):
    return 2 * error_of(E, idx, targets).T @ E[idx]


@wrong("tied_gradient")
def looked_up_twice(E, idx, targets):
    return 2 * lookup(E, idx, targets)


@wrong("tied_gradient", "float32")
def fills_a_float32_table(E, idx, targets):
    error, gradient = error_of(E, idx, targets), torch.zeros(E.shape)
    for m, i in enumerate(idx.tolist()):
        gradient[i] += error[m] @ E
    return gradient + (error.T @ E[idx]).float()


@wrong("tied_gradient", "RuntimeError")
def adds_float64_to_float32(E, idx, targets):
    error = error_of(E, idx, targets)
    return torch.zeros(E.shape).index_add_(0, idx, error @ E) + error.T @ E[idx]


@wrong("tied_gradient", "keeps only one of its gradients")
def plus_equals_with_an_index(E, idx, targets):
    error = error_of(E, idx, targets)
    gradient = error.T @ E[idx]
    looked_up = torch.zeros_like(E)
    looked_up[idx] += error @ E
    return gradient + looked_up


@wrong("tied_gradient", "keeps only one of its gradients")
def added_to_the_sum_with_an_index(E, idx, targets):
    error = error_of(E, idx, targets)
    gradient = error.T @ E[idx]
    gradient[idx] += error @ E
    return gradient


@wrong("tied_gradient", "gradient of the sum")
def not_the_mean(E, idx, targets):
    E = E.clone().requires_grad_()
    F.cross_entropy(E[idx] @ E.T, targets, reduction="sum").backward()
    return E.grad


@wrong("tied_gradient")
def averages_the_two(E, idx, targets):
    return (last_matrix(E, idx, targets) + lookup(E, idx, targets)) / 2


@wrong("tied_gradient", "sign is reversed")
def downhill(E, idx, targets):
    return -autograd(E, idx, targets)


@wrong("tied_gradient", "targets are missing")
def belief_alone(E, idx, targets):
    p = (E[idx] @ E.T).softmax(-1) / len(idx)
    return (p.T @ E[idx]).index_add(0, idx, p @ E)


@wrong("tied_gradient")
def wrong_rows(E, idx, targets):
    error = error_of(E, idx, targets)
    return (error.T @ E[idx]).index_add(0, targets, error @ E)


@wrong("tied_gradient")
def softmax_over_the_text(E, idx, targets):
    error = ((E[idx] @ E.T).softmax(0) - F.one_hot(targets, len(E))) / len(idx)
    return (error.T @ E[idx]).index_add(0, idx, error @ E)


@wrong("tied_gradient")
def for_each_character(E, idx, targets):
    error = error_of(E, idx, targets)
    return error @ E + error.T.sum(0)[:, None] * E[idx]
