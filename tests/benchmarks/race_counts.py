"""What counting says of the next character: the training text's counts of n-grams, and those of the window itself.

A place of a text has a context of each order n: its own character and the n - 1 before it (order 0 is the empty
context). `NGramCounts` knows how often each character came after each context. From its counts `log_increments` makes
a chain of distributions, each backing off to the one of the order below it (Witten and Bell, 1991), and tells how much
each order changes the logarithms of the one below. A model that weighs these changes and adds them up is a product of
experts, as in the context mixing of PAQ (Mahoney, 2005).

Two things make the counts of a training text honest, and so good features for a model that is trained on that text:

- Each fold of the text, a tenth of it in one piece, is read with the counts of the other nine tenths. Leaving out only
  a place's own occurrence would not do: the rest of the same scene, with its names and its turns of phrase, would still
  be counted, and no new text has that advantage.
- A window is read by itself. A context that would begin before the window is no context.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

# Half the memory for the long contexts, whose counts are small; the short ones have counts above 2,048.
SHORT = 4


def context_codes(idx, order, vocab_size):
    """The contexts of each place as numbers to the base V: idx (..., T) -> (..., T), -1 where one would begin before idx."""
    T = idx.shape[-1]
    codes = torch.zeros_like(idx)
    for distance in range(order):
        earlier = F.pad(idx, (distance, 0))[..., :T]
        codes += earlier * vocab_size**distance
    codes[..., : max(order - 1, 0)] = -1
    return codes


class CountRows(nn.Module):
    """For each context that was seen a row of counts, (V,): how often each character came next.

    codes (N,), sorted or not: the numbers of context and next character together, context * V + next.
    """

    def __init__(self, codes, vocab_size, dtype):
        super().__init__()
        grams, counts = codes.unique(return_counts=True)
        owners = grams // vocab_size
        contexts = owners.unique_consecutive()
        # Row 0 is for all contexts that were never seen.
        table = torch.zeros(len(contexts) + 1, vocab_size, dtype=dtype)
        # Buffers go where the model goes. They are made anew from the text, not saved with the weights.
        self.register_buffer("contexts", contexts, persistent=False)
        self.register_buffer("table", table, persistent=False)
        counts = counts.to(dtype).clamp_max(torch.finfo(dtype).max)
        table[self.find(owners), grams % vocab_size] = counts

    def find(self, contexts):
        """The rows of contexts (...), 0 where one was never seen."""
        place = torch.searchsorted(self.contexts, contexts).clamp_max(len(self.contexts) - 1)
        return torch.where(self.contexts[place] == contexts, place + 1, 0)


class NGramCounts(nn.Module):
    """Counts of what came after each context of a text, for several orders, with and without a place's own fold.

    ids (N,) int64. Raises: ValueError where the contexts of an order have no numbers of 64 bits.
    """

    def __init__(self, ids, vocab_size, orders, n_folds=10):
        # The longest number: fold, context and next character.
        if n_folds * vocab_size ** (max(orders) + 1) > 2**63:
            raise ValueError(
                f"order {max(orders)} is too large for vocab_size {vocab_size}: the numbers of its "
                f"contexts would not fit into 64 bits"
            )
        super().__init__()
        self.vocab_size = vocab_size
        self.orders = orders
        n_places = len(ids) - 1  # nothing comes after the last id
        fold = torch.arange(n_places) * n_folds // n_places
        self.rows = nn.ModuleList()  # of each order: CountRows
        self.own_rows = nn.ModuleList()  # the same for each fold by itself
        places = torch.zeros(n_places, len(orders), dtype=torch.int32)  # each place's row
        own_places = torch.zeros(n_places, len(orders), dtype=torch.int32)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("own_places", own_places, persistent=False)
        for i, order in enumerate(orders):
            dtype = torch.float32 if order < SHORT else torch.float16
            first = max(order - 1, 0)  # the first place that has a whole context
            contexts = context_codes(ids[:-1], order, vocab_size)[first:]
            shift = vocab_size**order
            rows = CountRows(contexts * vocab_size + ids[first + 1 :], vocab_size, dtype)
            # The fold is one more digit in front.
            in_fold = fold[first:] * shift + contexts
            own_rows = CountRows(in_fold * vocab_size + ids[first + 1 :], vocab_size, dtype)
            places[first:, i] = rows.find(contexts)
            own_places[first:, i] = own_rows.find(in_fold)
            self.rows.append(rows)
            self.own_rows.append(own_rows)

    def in_windows(self, idx):
        """idx (B, T), any text -> counts of all the training text, (K, B, T, V), for K orders."""
        counts = []
        for order, rows in zip(self.orders, self.rows):
            found = rows.find(context_codes(idx, order, self.vocab_size))
            counts.append(rows.table[found].float())
        return torch.stack(counts)

    def in_training_windows(self, places):
        """places (B, T) of the training text, a window a row -> counts of the other folds, (K, B, T, V)."""
        T = places.shape[1]
        counts = []
        for i, order in enumerate(self.orders):
            row = self.places[places, i]
            own = self.own_places[places, i]
            others = self.rows[i].table[row].float() - self.own_rows[i].table[own].float()
            # Here, too, no context may begin before its window.
            others[:, : min(max(order - 1, 0), T)] = 0
            # Counts above 2,048 have been rounded, and so may be less than the fold's own.
            counts.append(others.clamp_min_(0))
        return torch.stack(counts)


def recent_counts(idx, order, vocab_size, n_recent=3):
    """What came after the last places of the window with the same context: idx (B, T) -> counts (B, T, V).

    The window's own n-grams: they know the names and words of the text at hand, which no other text can. Of each place
    the n_recent last occurrences of its context count. They end before it, so that what came next has been read.
    """
    B, T = idx.shape
    counts = torch.zeros(B, T, vocab_size, device=idx.device)
    if T < order:
        return counts
    codes = context_codes(idx, order, vocab_size)[:, order - 1 :]  # only whole contexts
    # Sorted, places with the same context are neighbours, in the order of the text.
    codes, sorted_places = codes.sort(dim=1, stable=True)
    sorted_places = sorted_places + order - 1
    for distance in range(1, n_recent + 1):
        if codes.shape[1] <= distance:
            break
        later = sorted_places[:, distance:]
        earlier = sorted_places[:, :-distance]
        same = codes[:, distance:] == codes[:, :-distance]
        # Only where two neighbours are not the same could this be past the end; they are not counted.
        came_next = idx.gather(1, (earlier + 1).clamp_max(T - 1))
        flat = later * vocab_size + came_next
        counts.view(B, -1).scatter_add_(1, flat, same.float())
    return counts


def log_increments(counts, n_chain):
    """What each order adds to log p: counts (K, B, T, V) -> changes (K, B, T, V), and the chain's last p (B, T, V).

    The first n_chain orders are a chain: each backs off to the one before it, the first to equal chances. The others
    (the window's own counts) all back off to the last of the chain.
    """
    V = counts.shape[-1]
    total = counts.sum(-1, keepdim=True)
    kinds = (counts > 0).sum(-1, keepdim=True)
    scale = 1 / (total + kinds).clamp_min(1)
    p = torch.full_like(counts[0], 1 / V)
    log_p = torch.full_like(counts[0], -math.log(V))
    changes = torch.zeros_like(counts)
    for k in range(len(counts)):
        mixed = (counts[k] + kinds[k] * p) * scale[k]
        # A context that was never seen has nothing to say.
        mixed = torch.where(total[k] > 0, mixed, p)
        log_mixed = mixed.log()
        changes[k] = log_mixed - log_p
        if k < n_chain:
            p = mixed
            log_p = log_mixed
    return changes, p


def confidence(counts):
    """How much is known of each context: counts (K, B, T, V) -> (B, T, 3 K).

    The logarithm of how often it was seen, the share of different characters after it, and that of the most frequent.
    """
    total = counts.sum(-1)
    at_least_one = total.clamp_min(1)
    kinds = (counts > 0).sum(-1) / at_least_one
    largest = counts.amax(-1) / at_least_one
    features = torch.stack([total.log1p(), kinds, largest], dim=-1)  # (K, B, T, 3)
    return features.permute(1, 2, 0, 3).flatten(2)
