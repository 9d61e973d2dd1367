"""Lesson 07."""

import math

import torch
from torch.nn import functional as F

from tests.mistakes import right, wrong

# ---------------------------------------------------------------- chance_share


@right("chance_share")
def diagonal_of_the_average(T, back):
    A = torch.ones(T, T, dtype=torch.float64).tril()
    return (A / A.sum(1, keepdim=True)).diagonal(-back).mean().item()


@right("chance_share")
def difference_of_harmonic_numbers(T, back):
    harmonic = lambda n: sum(1 / i for i in range(n, 0, -1))
    return (harmonic(T) - harmonic(back)) / (T - back)


@right("chance_share")
def softmax_of_equal_scores(T, back):
    hidden = torch.ones(T, T).triu(1).bool()
    weights = torch.zeros(T, T).masked_fill(hidden, float("-inf")).softmax(-1)
    return float(sum(weights[t, t - back] for t in range(back, T)) / (T - back))


@wrong("chance_share", "only t + 1")
def one_of_all_positions(T, back):
    return 1 / T


@wrong("chance_share")
def without_itself(T, back):
    shares = [1 / t for t in range(back, T) if t > 0]
    return sum(shares) / len(shares) if shares else 0.0


@wrong("chance_share", "itself among them, not t")
def divides_by_t(T, back):
    return sum(1 / t for t in range(back, T)) / (T - back)


@wrong("chance_share", "neither as 0 nor in the divisor")
def mean_over_all_positions(T, back):
    total = 0.0
    for t in range(T):
        if t - back >= 0:
            total += 1 / (t + 1)
    return total / T


@wrong("chance_share", "are in the mean")
def any_target_at_all(T, back):
    return sum(1 / (t + 1) for t in range(T)) / T


@wrong("chance_share")
def right_divisor_whole_sum(T, back):
    return sum(1 / (t + 1) for t in range(T)) / (T - back)


@wrong("chance_share", "it is a sum")
def forgets_the_mean(T, back):
    return sum(1 / (t + 1) for t in range(back, T))


@wrong("chance_share", "1 over the mean number of places")
def inverse_of_the_mean(T, back):
    places = [t + 1 for t in range(back, T)]
    return len(places) / sum(places)


@wrong("chance_share")
def all_of_the_last_few(T, back):
    return sum(back / (t + 1) for t in range(back, T)) / (T - back)


@wrong("chance_share")
def starts_one_too_late(T, back):
    shares = [1 / (t + 1) for t in range(back + 1, T)]
    return sum(shares) / len(shares)


@wrong("chance_share")
def starts_one_too_late_with_the_right_divisor(T, back):
    return sum(1 / (t + 1) for t in range(back + 1, T)) / (T - back)


@wrong("chance_share")
def ends_one_too_early(T, back):
    return sum(1 / (t + 1) for t in range(back, T - 1)) / (T - back)


@wrong("chance_share")
def integral(T, back):
    return (math.log(T + 1) - math.log(back + 1)) / (T - back)


@wrong("chance_share")
def whole_division(T, back):
    return sum(1 // (t + 1) for t in range(back, T)) / (T - back)


@wrong("chance_share", "is there a `return`?")
def chance_without_return(T, back):
    shares = [1 / (t + 1) for t in range(back, T)]
    sum(shares) / len(shares)


# ---------------------------------------------------------------- induction_targets


@right("induction_targets")
def remembers_where_each_piece_ended(ids, n):
    seen, targets = {}, []
    for t in range(len(ids)):
        piece = tuple(ids[max(0, t + 1 - n) : t + 1].tolist())
        targets.append(seen.get(piece, -1) + (piece in seen))
        if len(piece) == n:
            seen[piece] = t
    return torch.tensor(targets)


@right("induction_targets")
def table_of_equal_pairs(ids, n):
    T = len(ids)
    same = ids[:, None] == ids[None]  # (T, T)
    run = same.clone()
    for back in range(1, n):
        shifted = torch.zeros_like(same)
        if back < T:
            shifted[back:, back:] = same[:-back, :-back]
        run &= shifted
    run = run.tril(-1)
    places = torch.arange(T).expand(T, T)
    last = torch.where(run, places, -1).amax(-1)
    return torch.where(last < 0, -1, last + 1)


@right("induction_targets")
def in_a_text(ids, n):
    text = "".join(chr(100 + i) for i in ids.tolist())
    targets = []
    for t in range(len(text)):
        found = text.rfind(text[t + 1 - n : t + 1], 0, t) if t >= n - 1 else -1
        targets.append(found + n if found >= 0 else -1)
    return torch.tensor(targets)


@wrong("induction_targets", "what came next there")
def the_earlier_place_itself(ids, n):
    targets = torch.full((len(ids),), -1)
    for t in range(n - 1, len(ids)):
        for j in range(n - 1, t):
            if (ids[j - n + 1 : j + 1] == ids[t - n + 1 : t + 1]).all():
                targets[t] = j
    return targets


@wrong("induction_targets", "the last one before t")
def first_earlier_place(ids, n):
    targets = torch.full((len(ids),), -1)
    for t in range(n - 1, len(ids)):
        for j in range(n - 1, t):
            if (ids[j - n + 1 : j + 1] == ids[t - n + 1 : t + 1]).all():
                targets[t] = j + 1
                break
    return targets


@wrong("induction_targets", "finds itself")
def finds_itself(ids, n):
    targets = torch.full((len(ids),), -1)
    for t in range(n - 1, len(ids)):
        for j in range(n - 1, t + 1):
            if (ids[j - n + 1 : j + 1] == ids[t - n + 1 : t + 1]).all():
                targets[t] = j + 1
    return targets


@wrong("induction_targets")
def never_itself(ids, n):
    targets = torch.full((len(ids),), -1)
    for t in range(len(ids)):
        for j in range(t - 2, n - 2, -1):
            if torch.equal(ids[j - n + 1 : j + 1], ids[t - n + 1 : t + 1]):
                targets[t] = j + 1
                break
    return targets


@wrong("induction_targets")
def no_overlap(ids, n):
    targets = torch.full((len(ids),), -1)
    for t in range(len(ids)):
        for j in range(n - 1, t - n + 1):
            if torch.equal(ids[j - n + 1 : j + 1], ids[t - n + 1 : t + 1]):
                targets[t] = j + 1
    return targets


@wrong("induction_targets", "-1, not 0")
def zero_for_none(ids, n):
    targets = torch.zeros_like(ids)
    for t in range(n, len(ids)):
        for j in range(n - 1, t):
            if torch.equal(ids[j - n + 1 : j + 1], ids[t - n + 1 : t + 1]):
                targets[t] = j + 1
    return targets


@wrong("induction_targets", "n of them have to be the same")
def one_character_only(ids, n):
    targets = torch.full_like(ids, -1)
    for t in range(len(ids)):
        for j in range(t):
            if ids[j] == ids[t]:
                targets[t] = j + 1
    return targets


@wrong("induction_targets")
def n_more_characters(ids, n):
    targets = torch.full_like(ids, -1)
    for t in range(n, len(ids)):
        for j in range(n, t):
            if torch.equal(ids[j - n : j + 1], ids[t - n : t + 1]):
                targets[t] = j + 1
    return targets


@wrong("induction_targets")
def start_of_the_piece(ids, n):
    targets = torch.full_like(ids, -1)
    for t in range(n - 1, len(ids)):
        for start in range(t - n + 1):
            if torch.equal(ids[start : start + n], ids[t - n + 1 : t + 1]):
                targets[t] = start
    return targets


@wrong("induction_targets")
def after_the_first_character(ids, n):
    targets = torch.full_like(ids, -1)
    for t in range(n - 1, len(ids)):
        for start in range(t - n + 1):
            if torch.equal(ids[start : start + n], ids[t - n + 1 : t + 1]):
                targets[t] = start + 1
    return targets


@wrong("induction_targets", "fewer than n characters so far")
def windows_that_are_shorter_at_the_beginning(ids, n):
    targets = torch.full_like(ids, -1)
    for t in range(len(ids)):
        for j in range(t):
            if torch.equal(ids[j - n + 1 : j + 1], ids[t - n + 1 : t + 1]):
                targets[t] = j + 1
    return targets


@wrong("induction_targets")
def never_the_first_piece(ids, n):
    targets = torch.full_like(ids, -1)
    for t in range(len(ids)):
        for j in range(n, t):
            if torch.equal(ids[j - n + 1 : j + 1], ids[t - n + 1 : t + 1]):
                targets[t] = j + 1
    return targets


@wrong("induction_targets", "has a later position as its target")
def searches_the_future(ids, n):
    targets = torch.full_like(ids, -1)
    for t in range(n - 1, len(ids)):
        for j in range(n - 1, len(ids)):
            if j != t and torch.equal(ids[j - n + 1 : j + 1], ids[t - n + 1 : t + 1]):
                targets[t] = j + 1
    return targets


@wrong("induction_targets", "has a later position as its target")
def the_character_there(ids, n):
    targets = torch.full_like(ids, -1)
    for t in range(n, len(ids)):
        for j in range(n - 1, t):
            if torch.equal(ids[j - n + 1 : j + 1], ids[t - n + 1 : t + 1]):
                targets[t] = ids[j + 1]
    return targets


@wrong("induction_targets")
def distance_of_the_target(ids, n):
    targets = torch.full_like(ids, -1)
    for t in range(n, len(ids)):
        for j in range(n - 1, t):
            if torch.equal(ids[j - n + 1 : j + 1], ids[t - n + 1 : t + 1]):
                targets[t] = t - j - 1
    return targets


@wrong("induction_targets")
def any_order(ids, n):
    targets = torch.full_like(ids, -1)
    for t in range(n, len(ids)):
        for j in range(n - 1, t):
            if sorted(ids[j - n + 1 : j + 1].tolist()) == sorted(ids[t - n + 1 : t + 1].tolist()):
                targets[t] = j + 1
    return targets


@wrong("induction_targets", "but a tensor (")
def a_list_of_numbers(ids, n):
    ids, targets = ids.tolist(), []
    for t in range(len(ids)):
        ends = [j for j in range(n - 1, t) if ids[j - n + 1 : j + 1] == ids[t - n + 1 : t + 1]]
        targets.append(ends[-1] + 1 if ends else -1)
    return targets


@wrong("induction_targets", "in place")
def writes_into_ids(ids, n):
    old, targets = ids.clone(), ids
    targets[:] = -1
    for t in range(n, len(ids)):
        for j in range(n - 1, t):
            if torch.equal(old[j - n + 1 : j + 1], old[t - n + 1 : t + 1]):
                targets[t] = j + 1
    return targets


@wrong("induction_targets", "RuntimeError")
def windows_by_unfold(ids, n):
    windows = ids.unfold(0, n, 1)  # fails where the text is shorter than n
    same = (windows[:, None] == windows).all(-1).tril(-1)
    last = torch.where(same, torch.arange(len(windows)), -1).amax(-1)
    return F.pad(torch.where(last < 0, -1, last + n), (n - 1, 0), value=-1)


@wrong("induction_targets", "is there a `return`?")
def targets_without_return(ids, n):
    targets = torch.full_like(ids, -1)
    for t in range(n, len(ids)):
        for j in range(n - 1, t):
            if torch.equal(ids[j - n + 1 : j + 1], ids[t - n + 1 : t + 1]):
                targets[t] = j + 1


# ---------------------------------------------------------------- text_dependence


@right("text_dependence")
def distance_from_the_mean(weights):
    """The mean Kullback-Leibler divergence of the texts' rows from their mean."""
    mean = weights.mean(0)
    return (torch.xlogy(weights, weights) - torch.xlogy(weights, mean)).sum(-1).mean(0)


@right("text_dependence")
def place_by_place(weights):
    N, T, _ = weights.shape
    h = lambda row: -sum(p * math.log(p) for p in row if p > 0)
    out = []
    for t in range(T):
        rows = weights[:, t].tolist()
        mean = [sum(column) / N for column in zip(*rows)]
        out.append(h(mean) - sum(map(h, rows)) / N)
    return torch.tensor(out, dtype=weights.dtype)


@right("text_dependence")
def information_of_text_and_place(weights):
    """I(text; place) = H(text) + H(place) - H(both), with every text as likely."""
    N = len(weights)
    both = weights / N
    log = lambda p: p.clamp_min(1e-30).log()
    return math.log(N) - (both.sum(0) * log(both.sum(0))).sum(-1) + (both * log(both)).sum((0, -1))


@wrong("text_dependence", "0 · ln 0")
def logarithm_as_it_is(weights):
    mean = weights.mean(0)
    return -(mean * mean.log()).sum(-1) + (weights * weights.log()).sum(-1).mean(0)


@wrong("text_dependence", "the entropy of the mean alone")
def blur_of_the_mean(weights):
    return torch.special.entr(weights.mean(0)).sum(-1)


@wrong("text_dependence", "the mean of the entropies alone")
def mean_blur(weights):
    return torch.special.entr(weights).sum(-1).mean(0)


@wrong("text_dependence", "the sign is reversed")
def the_other_way_round(weights):
    return torch.special.entr(weights).sum(-1).mean(0) - torch.special.entr(weights.mean(0)).sum(-1)


@wrong("text_dependence", "the sign is reversed")
def loses_the_minus(weights):
    h = lambda p: (p * p.clamp_min(1e-12).log()).sum(-1)
    return h(weights.mean(0)) - h(weights).mean(0)


@wrong("text_dependence", "are bits")
def in_bits(weights):
    h = lambda p: -(p * p.clamp_min(1e-12).log2()).sum(-1)
    return h(weights.mean(0)) - h(weights).mean(0)


@wrong("text_dependence")
def sums_the_entropies(weights):
    return torch.special.entr(weights.mean(0)).sum(-1) - torch.special.entr(weights).sum((0, -1))


@wrong("text_dependence", "of the columns")
def measures_columns(weights):
    return torch.special.entr(weights.mean(0)).sum(0) - torch.special.entr(weights).sum(1).mean(0)


@wrong("text_dependence")
def counts_places(weights):
    places = lambda p: torch.special.entr(p).sum(-1).exp()
    return places(weights.mean(0)) - places(weights).mean(0)


@wrong("text_dependence")
def one_for_each_text(weights):
    return torch.special.entr(weights.mean(0)).sum(-1) - torch.special.entr(weights).sum(-1)


@wrong("text_dependence")
def one_mean_of_all(weights):
    return torch.special.entr(weights.mean(0)).sum(-1) - torch.special.entr(weights).sum(-1).mean()


@wrong("text_dependence")
def mean_over_places(weights):
    return torch.special.entr(weights.mean(0)).mean(-1) - torch.special.entr(weights).mean(-1).mean(
        0
    )


@wrong("text_dependence", "in place")
def ones_for_zeros(weights):
    weights[weights == 0] = 1  # ln 1 is 0
    h = lambda p: -(p * p.log()).sum(-1)
    return h(weights.mean(0)) - h(weights).mean(0)


@wrong("text_dependence", "it returns a tensor (0,)")
def the_first_position_is_always_zero(weights):
    rows = weights[:, 1:]
    j = torch.special.entr(rows.mean(0)).sum(-1) - torch.special.entr(rows).sum(-1).mean(0)
    return torch.cat([torch.zeros_like(j[:1]), j])  # fails at T = 1


@wrong("text_dependence")
def variance_of_the_weights(weights):
    return weights.var(0, unbiased=False).sum(-1)


@wrong("text_dependence", "is there a `return`?")
def dependence_without_return(weights):
    torch.special.entr(weights.mean(0)).sum(-1) - torch.special.entr(weights).sum(-1).mean(0)


# ---------------------------------------------------------------- mean_ablation


@right("mean_ablation")
def moves_the_layers_result(heads, W_o, bias, h):
    """What head h adds is exchanged for its own mean, after the projection."""
    B, H, T, D = heads.shape
    whole = heads.permute(0, 2, 1, 3).reshape(B, T, H * D) @ W_o.T + bias
    added = heads[:, h] @ W_o[:, h * D : (h + 1) * D].T
    return whole - added + added.flatten(0, 1).mean(0)


@right("mean_ablation")
def head_by_head(heads, W_o, bias, h):
    B, H, T, D = heads.shape
    out = bias.repeat(B, T, 1)
    for i in range(H):
        part = W_o[:, i * D : (i + 1) * D]
        for b in range(B):
            for t in range(T):
                out[b, t] += part @ (
                    heads[:, i].sum((0, 1)) / (B * T) if i == h else heads[b, i, t]
                )
    return out


@right("mean_ablation")
def einsum_and_mask(heads, W_o, bias, h):
    B, H, T, D = heads.shape
    off = torch.zeros(H, 1, 1, dtype=heads.dtype)
    off[h] = 1
    replaced = heads * (1 - off) + heads.mean((0, 2), keepdim=True) * off
    return torch.einsum("bhtd,chd->btc", replaced, W_o.view(-1, H, D)) + bias


def project(heads, W_o, bias):
    return heads.transpose(1, 2).flatten(2) @ W_o.T + bias


@wrong("mean_ablation", "zeros replace the head")
def zero_ablation(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h] = 0
    return project(heads, W_o, bias)


@wrong("mean_ablation", "over the texts only")
def mean_over_texts(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h] = heads[:, h].mean(0)
    return project(heads, W_o, bias)


@wrong("mean_ablation", "over the positions only")
def mean_over_positions(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h] = heads[:, h].mean(dim=-2, keepdim=True)
    return project(heads, W_o, bias)


@wrong("mean_ablation", "a single number")
def one_number(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h] = heads[:, h].mean()
    return project(heads, W_o, bias)


@wrong("mean_ablation")
def mean_of_each_vector(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h] = heads[:, h].mean(-1, keepdim=True)
    return project(heads, W_o, bias)


@wrong("mean_ablation")
def average_head(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h] = heads.mean(1)
    return project(heads, W_o, bias)


@wrong("mean_ablation")
def mean_over_everything_else(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h] = heads.mean(dim=(0, 1, 2))
    return project(heads, W_o, bias)


@wrong("mean_ablation")
def mean_of_the_result(heads, W_o, bias, h):
    out = project(heads, W_o, bias)
    return out.mean((0, 1)).expand_as(out)


@wrong("mean_ablation")
def counts_from_one(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h - 1] = heads[:, h - 1].mean((0, 1))
    return project(heads, W_o, bias)


@wrong("mean_ablation")
def without_bias(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h] = heads[:, h].mean((0, 1))
    return heads.transpose(1, 2).flatten(2) @ W_o.T


@wrong("mean_ablation")
def bias_for_what_is_exchanged(heads, W_o, bias, h):
    D = heads.shape[-1]
    part = W_o[:, h * D : (h + 1) * D]
    kept = heads.clone()
    kept[:, h] = 0
    return project(kept, W_o, bias) + F.linear(heads[:, h].mean((0, 1)), part, bias)


@wrong("mean_ablation", "not transposed")
def multiplies_by_W_o(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h] = heads[:, h].mean((0, 1))
    return heads.transpose(1, 2).flatten(2) @ W_o + bias


@wrong("mean_ablation", "not exchanged before the heads are joined")
def reshape_alone(heads, W_o, bias, h):
    B, H, T, D = heads.shape
    heads = heads.clone()
    heads[:, h] = heads[:, h].mean((0, 1))
    return heads.reshape(B, T, H * D) @ W_o.T + bias


@wrong("mean_ablation")
def centres_the_head(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h] -= heads[:, h].mean((0, 1))
    return project(heads, W_o, bias)


@wrong("mean_ablation")
def keeps_only_this_head(heads, W_o, bias, h):
    means = heads.mean((0, 2), keepdim=True).repeat(heads.shape[0], 1, heads.shape[2], 1)
    means[:, h] = heads[:, h]
    return project(means, W_o, bias)


@wrong("mean_ablation")
def one_head_alone(heads, W_o, bias, h):
    only = torch.zeros_like(heads)
    only[:, h] = heads[:, h].mean((0, 1))
    return project(only, W_o, bias)


@wrong("mean_ablation")
def assigns_to_a_copy(heads, W_o, bias, h):
    head = heads[:, h].clone()
    head[:] = head.mean((0, 1))
    return project(heads, W_o, bias)


@wrong("mean_ablation", "in place")
def changes_the_heads(heads, W_o, bias, h):
    heads[:, h] = heads[:, h].mean((0, 1))
    return project(heads, W_o, bias)


@wrong("mean_ablation")
def first_axis_is_a_head(heads, W_o, bias, h):
    heads = heads.clone()
    heads[h] = heads[h].mean((0, 1))
    return project(heads, W_o, bias)


@wrong("mean_ablation", "but a tensor (")
def squeezes_one_text(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h] = heads[:, h].mean((0, 1))
    return project(heads, W_o, bias).squeeze(0)  # fails at B = 1


@wrong("mean_ablation", "is there a `return`?")
def ablation_without_return(heads, W_o, bias, h):
    heads = heads.clone()
    heads[:, h] = heads[:, h].mean((0, 1))
    project(heads, W_o, bias)


# ---------------------------------------------------------------- mended_rollout


@right("mended_rollout")
def whole_matrices_and_the_last_row(weights, keeps):
    whole = torch.eye(weights.shape[-1], dtype=weights.dtype)
    for A, keep in zip(weights, keeps):
        whole = (keep * torch.eye(len(A), dtype=A.dtype) + (1 - keep) * A) @ whole
    return whole[-1]


@right("mended_rollout")
def vectors_that_carry_their_origin(weights, keeps):
    """The network itself, with one-hot vectors and nothing but attention and residual."""
    x = torch.eye(weights.shape[-1], dtype=weights.dtype)
    for A, keep in zip(weights, keeps):
        x = torch.lerp(A @ x, x, keep)
    return x[-1]


@right("mended_rollout")
def gradient_of_the_last_vector(weights, keeps):
    x = torch.zeros(weights.shape[-1], dtype=weights.dtype, requires_grad=True)
    y = x
    for A, keep in zip(weights, keeps):
        y = keep * y + (1 - keep) * (A @ y)
    return torch.autograd.grad(y[-1], x)[0]


@right("mended_rollout")
def path_by_path(weights, keeps):
    def share(layer, t):  # of the vector of position t after so many layers
        if layer == 0:
            return F.one_hot(torch.tensor(t), weights.shape[-1]).to(weights.dtype)
        A, keep = weights[layer - 1], keeps[layer - 1]
        below = [share(layer - 1, s) for s in range(t + 1)]
        return keep * below[t] + (1 - keep) * sum(A[t, s] * below[s] for s in range(t + 1))

    return share(len(weights), weights.shape[-1] - 1)


@wrong("mended_rollout", "the order is still wrong")
def mends_the_residual_only(weights, keeps):
    share = torch.zeros_like(weights[0, -1])
    share[-1] = 1
    for A, keep in zip(weights, keeps):
        share = share @ ((1 - keep) * A) + keep * share
    return share / share.sum()


@wrong("mended_rollout", "the order is right now")
def mends_the_order_only(weights, keeps):
    share = torch.zeros_like(weights[0, -1])
    share[-1] = 1
    for A, keep in zip(reversed(weights), reversed(keeps)):
        share = share @ ((1 - keep) * A)
    return share / share.sum()


@wrong("mended_rollout", "both bugs are still there")
def as_it_was(weights, keeps):
    share = torch.zeros_like(weights[0, -1])
    share[-1] = 1
    for A, keep in zip(weights, keeps):
        share = share @ ((1 - keep) * A)
    return share / share.sum()


@wrong("mended_rollout", "shares do not sum to 1")
def takes_the_last_line_away(weights, keeps):
    share = torch.zeros_like(weights[0, -1])
    share[-1] = 1
    for A, keep in zip(weights, keeps):
        share = share @ ((1 - keep) * A)
    return share


@wrong("mended_rollout", "keep and 1 - keep are exchanged")
def exchanged(weights, keeps):
    share = torch.zeros_like(weights[0, -1])
    share[-1] = 1
    for A, keep in zip(weights.flip(0), keeps.flip(0)):
        share = (1 - keep) * share + keep * share @ A
    return share


@wrong("mended_rollout", "are reversed, but not `keeps`")
def keeps_in_the_old_order(weights, keeps):
    share = torch.zeros_like(weights[0, -1])
    share[-1] = 1
    for A, keep in zip(weights.flip(0), keeps):
        share = keep * share + (1 - keep) * share @ A
    return share


@wrong("mended_rollout")
def the_paper_as_it_is(weights, keeps):
    share = torch.zeros_like(weights[0, -1])
    share[-1] = 1
    for A in weights.flip(0):
        share = 0.5 * share + 0.5 * share @ A
    return share


@wrong("mended_rollout")
def adds_all_of_itself(weights, keeps):
    share = torch.zeros_like(weights[0, -1])
    share[-1] = 1
    for A, keep in zip(weights.flip(0), keeps.flip(0)):
        share = share + (1 - keep) * share @ A
    return share / share.sum()


@wrong("mended_rollout")
def adds_to_every_weight(weights, keeps):
    share = torch.zeros_like(weights[0, -1])
    share[-1] = 1
    for A, keep in zip(weights.flip(0), keeps.flip(0)):
        share = share @ (keep + (1 - keep) * A)
    return share / share.sum()


@wrong("mended_rollout")
def residual_on_top(weights, keeps):
    share = torch.zeros_like(weights[0, -1])
    share[-1] = 1
    for A, keep in zip(weights.flip(0), keeps.flip(0)):
        share = share @ (A + keep * torch.eye(len(A), dtype=A.dtype))
    return share / share.sum()


@wrong("mended_rollout", "shares do not sum to 1")
def matrix_times_column(weights, keeps):
    share = torch.zeros_like(weights[0, -1])
    share[-1] = 1
    for A, keep in zip(weights.flip(0), keeps.flip(0)):
        share = keep * share + (1 - keep) * A @ share
    return share


@wrong("mended_rollout")
def all_rows(weights, keeps):
    whole = torch.eye(weights.shape[-1], dtype=weights.dtype)
    for A, keep in zip(weights, keeps):
        whole = (keep * torch.eye(len(A), dtype=A.dtype) + (1 - keep) * A) @ whole
    return whole


@wrong("mended_rollout")
def averages_the_layers(weights, keeps):
    rows = torch.zeros_like(weights[:, -1])
    rows[:, -1] = 1
    return (keeps[:, None] * rows + (1 - keeps[:, None]) * weights[:, -1]).mean(0)


@wrong("mended_rollout", "shares do not sum to 1")
def adds_the_whole_vector_at_the_end(weights, keeps):
    share = torch.zeros_like(weights[0, -1])
    share[-1] = 1
    for A, keep in zip(weights.flip(0), keeps.flip(0)):
        share = share @ ((1 - keep) * A)
    share[-1] += keeps.prod()
    return share


@wrong("mended_rollout", "RuntimeError")
def always_float32(weights, keeps):
    share = torch.zeros(weights.shape[-1])
    share[-1] = 1
    for A, keep in zip(weights.flip(0), keeps.flip(0)):
        share = keep.float() * share + (1 - keep.float()) * (share @ A)
    return share


@wrong("mended_rollout", "in place")
def scales_the_weights_in_place(weights, keeps):
    weights *= (1 - keeps)[:, None, None]
    weights.diagonal(dim1=1, dim2=2).add_(keeps[:, None])
    share = weights[-1, -1]
    for A in weights[:-1].flip(0):
        share = share @ A
    return share


@wrong("mended_rollout", "but a tensor (1,)")
def squeezes_a_row(weights, keeps):
    share = torch.eye(weights.shape[-1], dtype=weights.dtype)[-1:]  # (1, T)
    for A, keep in zip(weights.flip(0), keeps.flip(0)):
        share = keep * share + (1 - keep) * share @ A
    return share.squeeze()  # fails at T = 1


@wrong("mended_rollout", "is there a `return`?")
def rollout_without_return(weights, keeps):
    share = torch.zeros_like(weights[0, -1])
    share[-1] = 1
    for A, keep in zip(weights.flip(0), keeps.flip(0)):
        share = keep * share + (1 - keep) * share @ A


# ---------------------------------------------------------------- ov_circuit


@right("ov_circuit")
def character_by_character(E, W_v, W_o, W_u):
    table, margin = torch.zeros(len(E), len(E), dtype=E.dtype), []
    for c, x in enumerate(E):
        table[c] = W_u @ (W_o @ (W_v @ x))
        margin.append(min(table[c, c] - table[c, u] for u in range(len(E)) if u != c))
    return [table, torch.stack(margin)]


@right("ov_circuit")
def gradient_by_the_weights(E, W_v, W_o, W_u):
    """The logits as a function of the weights, at equal weights: what changes if a weight grows."""
    V = len(E)
    logits = lambda weights: F.linear(F.linear(weights @ F.linear(E, W_v), W_o), W_u)
    weights = torch.full((V,), 1 / V, dtype=E.dtype)
    table = torch.autograd.functional.jacobian(logits, weights).T.contiguous()
    top = table.topk(2, dim=-1)
    first = top.indices[:, 0] == torch.arange(V)
    return table, table.diagonal() - torch.where(first, top.values[:, 1], top.values[:, 0])


@right("ov_circuit")
def one_sum(E, W_v, W_o, W_u):
    table = torch.einsum("ci,di,jd,uj->cu", E, W_v, W_o, W_u)
    others = (
        table.flatten()[1:].view(len(E) - 1, len(E) + 1)[:, :-1].reshape(len(E), -1)
    )  # without the diagonal
    return [table, (table.diagonal()[:, None] - others).amin(-1)]


@right("ov_circuit")
def modules(E, W_v, W_o, W_u):
    layers = torch.nn.Sequential(
        *(torch.nn.Linear(*W.shape[::-1], bias=False, dtype=E.dtype) for W in (W_v, W_o, W_u))
    )
    with torch.no_grad():
        for layer, W in zip(layers, (W_v, W_o, W_u)):
            layer.weight.copy_(W)
        table = layers(E)
    others = table - torch.eye(len(E), dtype=E.dtype) * 1e6
    return [table, table.diag() - others.max(-1).values]


def table_of(E, W_v, W_o, W_u):
    return E @ W_v.T @ W_o.T @ W_u.T


def best_other(table):
    return table.masked_fill(torch.eye(len(table)).bool(), float("-inf")).amax(-1)


@wrong("ov_circuit", "rows and columns of `table` are exchanged")
def from_the_left(E, W_v, W_o, W_u):
    table = W_u @ W_o @ W_v @ E.T
    return [table, table.diagonal() - best_other(table.T)]


@wrong("ov_circuit", "rows and columns of `table` are exchanged")
def from_the_left_all_along(E, W_v, W_o, W_u):
    table = W_u @ W_o @ W_v @ E.T
    return [table, table.diagonal() - best_other(table)]


@wrong("ov_circuit", "the own change alone")
def own_logit(E, W_v, W_o, W_u):
    table = table_of(E, W_v, W_o, W_u)
    return [table, table.diagonal()]


@wrong("ov_circuit", "c itself is among those")
def best_of_all(E, W_v, W_o, W_u):
    table = table_of(E, W_v, W_o, W_u)
    return [table, table.diagonal() - table.max(-1).values]


@wrong("ov_circuit")
def above_the_mean(E, W_v, W_o, W_u):
    table = table_of(E, W_v, W_o, W_u)
    return [table, table.diagonal() - table.mean(-1)]


@wrong("ov_circuit")
def above_the_mean_of_the_others(E, W_v, W_o, W_u):
    table = table_of(E, W_v, W_o, W_u)
    others = table.clone()
    others.fill_diagonal_(0)
    return [table, table.diagonal() - others.sum(-1) / (len(E) - 1)]


@wrong("ov_circuit", "counts as 0")
def zeros_on_the_diagonal(E, W_v, W_o, W_u):
    table = table_of(E, W_v, W_o, W_u)
    others = table.clone()
    others.fill_diagonal_(0)
    return [table, table.diagonal() - others.amax(-1)]


@wrong("ov_circuit")
def rivals_in_the_column(E, W_v, W_o, W_u):
    table = table_of(E, W_v, W_o, W_u)
    return [table, table.diagonal() - best_other(table.T)]


@wrong("ov_circuit", "here W_u is another matrix")
def tied_tables(E, W_v, W_o, W_u):
    table = table_of(E, W_v, W_o, E)
    return [table, table.diagonal() - best_other(table)]


@wrong("ov_circuit", "the residual bypasses the head")
def with_the_residual(E, W_v, W_o, W_u):
    table = (E + E @ W_v.T @ W_o.T) @ W_u.T
    return [table, table.diagonal() - best_other(table)]


@wrong("ov_circuit")
def scaled(E, W_v, W_o, W_u):
    table = table_of(E, W_v, W_o, W_u) / len(W_v) ** 0.5
    return [table, table.diagonal() - best_other(table)]


@wrong("ov_circuit")
def probabilities(E, W_v, W_o, W_u):
    table = table_of(E, W_v, W_o, W_u).softmax(-1)
    return [table, table.diagonal() - best_other(table)]


@wrong("ov_circuit")
def centred_rows(E, W_v, W_o, W_u):
    table = table_of(E, W_v, W_o, W_u)
    table = table - table.mean(-1, keepdim=True)
    return [table, table.diagonal() - best_other(table)]


@wrong("ov_circuit")
def largest_in_size(E, W_v, W_o, W_u):
    table = table_of(E, W_v, W_o, W_u)
    return [table, table.diagonal() - best_other(table.abs())]


@wrong("ov_circuit")
def does_it_copy(E, W_v, W_o, W_u):
    table = table_of(E, W_v, W_o, W_u)
    return [table, table.argmax(-1) == torch.arange(len(E))]


@wrong("ov_circuit", "RuntimeError")
def matrices_as_they_are_stored(E, W_v, W_o, W_u):
    table = E @ W_v @ W_o @ W_u
    return [table, table.diagonal() - best_other(table)]


@wrong("ov_circuit", "in place")
def multiplies_into_E(E, W_v, W_o, W_u):
    E.copy_(E @ W_v.T @ W_o.T)
    table = E @ W_u.T
    return [table, table.diagonal() - best_other(table)]


@wrong("ov_circuit", "lost its diagonal")
def hides_in_the_table_itself(E, W_v, W_o, W_u):
    table = table_of(E, W_v, W_o, W_u)
    own = table.diagonal().clone()
    best = table.fill_diagonal_(float("-inf")).amax(-1)
    return [table, own - best]


@wrong("ov_circuit", "a list of 2")
def only_the_table(E, W_v, W_o, W_u):
    return table_of(E, W_v, W_o, W_u)


@wrong("ov_circuit", "is there a `return`?")
def circuit_without_return(E, W_v, W_o, W_u):
    table = table_of(E, W_v, W_o, W_u)
    [table, table.diagonal() - best_other(table)]
