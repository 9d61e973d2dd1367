"""Writing: the sampling parameters against transformers', the cache against reading anew, and everything that may go wrong."""

import contextlib
import itertools
import re
import threading
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from chargpt_lib.attention_maps import ablate_heads
from chargpt_lib.bigram import BigramLanguageModel
from chargpt_lib.blocks import Block, BlockLanguageModel
from chargpt_lib.data import CharTokenizer
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.multi_head import CausalSelfAttention, MultiHeadLanguageModel
from chargpt_lib.playhouse import write
from chargpt_lib.sampling import (
    IncrementalDecoder,
    Int8Linear,
    KVCache,
    SplitKLinear,
    _takes_cache,
    apply_repetition_penalty,
    generate,
    next_token_probs,
    prepare_for_sampling,
    sample_from,
)
from chargpt_lib.single_head import SingleHeadLanguageModel
from chargpt_lib.text_stream import TextStream

TEXT = write(min_chars=200).text[:120]
TOKENIZER = CharTokenizer.from_text(TEXT)
V, BLOCK = TOKENIZER.vocab_size, 16


def sharp(model, factor=8):
    """Large matrices, and biases and norms that count, so that no two characters are equally likely."""
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(factor) if weights.dim() > 1 else weights.add_(
                0.3 * torch.randn(weights.shape)
            )
    return model.eval()


def gpt(**changes):
    return sharp(
        GPT(
            GPTConfig(
                V, **{"block_size": BLOCK, "n_layer": 2, "n_head": 4, "n_embd": 32, **changes}
            )
        )
    )


def small(config):
    return lambda: sharp(
        GPT(replace(config, vocab_size=V, block_size=BLOCK, n_layer=2, n_head=4, n_embd=32))
    )


MODELS = {
    "bigram": lambda: sharp(BigramLanguageModel(V), 60),
    "bigram with a block": lambda: sharp(BigramLanguageModel(V, BLOCK), 60),
    "single head": lambda: sharp(SingleHeadLanguageModel(V, BLOCK, 16), 30),
    "multi-head": lambda: sharp(MultiHeadLanguageModel(V, BLOCK, 16, 4), 30),
    "blocks": lambda: sharp(BlockLanguageModel(V, BLOCK, 16, 4, 2)),
    **{preset: small(getattr(GPTConfig, preset)(V)) for preset in ("lecture", "oz", "baby", "cpu")},
    "gpt2": small(GPTConfig.gpt2()),
    "biases, not tied": lambda: gpt(bias=True, qkv_bias=True, tied=False),
    "one layer, one head": lambda: gpt(n_layer=1, n_head=1),
}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
every_window_step = pytest.mark.parametrize("window_stride", [1, 5, BLOCK])


def window(ids, block_size, window_stride=1):
    start = 0
    while len(ids) - start > block_size:
        start += window_stride
    return ids[start:]


@torch.no_grad()
def greedy(model, ids, steps, window_stride=1):
    """The loop of lesson 01 with the likeliest character in the place of a draw."""
    for _ in range(steps):
        logits = model(window(ids, model.block_size, window_stride)[None])[0]
        ids = torch.cat([ids, logits[0, -1].argmax()[None]])
    return ids


def as_list(texts):
    return [texts] if isinstance(texts, str) else list(texts)


def written(model, prompt, steps, **sampling):
    return generate(model, prompt, steps, tokenizer=TOKENIZER, **sampling)


# ---------------------------------------------------------------- one draw


@pytest.mark.parametrize(
    "share",
    [(1,), (1, 1), (0, 3, 0, 5, 0, 0, 8, 0), (97, 1, 2), (0, 0, 7), (7, 0, 0), tuple(range(20))],
)
def test_an_even_grid_of_draws_gives_each_exactly_its_share(share):
    n = sum(share)
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    ids = sample_from(torch.tensor(share, dtype=torch.float64).expand(n, -1) / n, u)
    assert torch.bincount(ids, minlength=len(share)).tolist() == list(share)
    assert (ids.diff() >= 0).all(), "the alphabet lies in order from 0 to 1"


def test_no_draw_finds_what_is_impossible():
    torch.manual_seed(0)
    impossible = torch.rand(3000, V) < 0.7
    impossible[torch.arange(3000), torch.randint(V, (3000,))] = False
    for dtype in (torch.float32, torch.float64):
        p = (
            torch.randn(3000, V, dtype=dtype)
            .mul(5)
            .masked_fill(impossible, float("-inf"))
            .softmax(-1)
        )
        for u in (0.0, 1e-300, 0.5, 1 - 2**-53, 1.0):
            ids = sample_from(p, torch.full((3000,), u, dtype=torch.float64))
            assert (p.gather(1, ids[:, None]) > 0).all()


def test_each_row_has_its_own_draw():
    p, draws = (
        torch.rand(200, 7, dtype=torch.float64).softmax(-1),
        torch.rand(200, dtype=torch.float64),
    )
    for row, u, found in zip(p.tolist(), draws.tolist(), sample_from(p, draws).tolist()):
        ends = list(itertools.accumulate(row))
        assert found == next(i for i, end in enumerate(ends) if u < end)


# ---------------------------------------------------------------- the parameters, against transformers


def theirs(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """transformers' own warpers, in the order in which its `generate` calls them."""
    from transformers import (
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    chain = [TemperatureLogitsWarper(float(temperature))]
    chain += [TopKLogitsWarper(top_k)] if top_k is not None else []
    chain += [TopPLogitsWarper(top_p)] if top_p is not None else []
    chain += [MinPLogitsWarper(min_p)] if min_p is not None else []
    for warp in chain:
        logits = warp(None, logits)
    return logits.softmax(-1)


SAMPLING = [
    dict(zip(("temperature", "top_k", "top_p", "min_p"), values))
    for values in itertools.product(
        (0.3, 1.0, 1.7), (None, 1, 5, 1000), (None, 0.05, 0.9), (None, 0.0, 0.2, 1.0)
    )
]


@pytest.mark.parametrize("width", [0.1, 1, 10])
def test_the_parameters_do_what_those_of_transformers_do(width):
    logits = width * torch.randn(100, V, dtype=torch.float64)
    for sampling in SAMPLING:
        ours, wanted = next_token_probs(logits, **sampling), theirs(logits, **sampling)
        assert torch.equal(ours > 0, wanted > 0), sampling
        assert torch.allclose(ours, wanted, rtol=0, atol=1e-12), sampling


def test_what_cannot_come_stays_impossible():
    logits = torch.randn(50, V, dtype=torch.float64).masked_fill(
        torch.rand(50, V) < 0.5, float("-inf")
    )
    for sampling in SAMPLING:
        assert torch.allclose(
            next_token_probs(logits, **sampling), theirs(logits, **sampling), rtol=0, atol=1e-12
        ), sampling


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3, 10.0])
def test_the_penalty_is_that_of_transformers(penalty):
    from transformers import RepetitionPenaltyLogitsProcessor

    logits, ids = torch.randn(60, V, dtype=torch.float64), torch.randint(V, (60, 9))
    logits[:, 3] = 0
    seen = F.one_hot(ids, V).sum(1) > 0
    assert torch.equal(
        apply_repetition_penalty(logits, seen, penalty),
        RepetitionPenaltyLogitsProcessor(penalty)(ids, logits),
    )


def test_equals_of_the_last_that_stays():
    even = torch.zeros(1, 8, dtype=torch.float64)
    assert (next_token_probs(even, top_k=3) == 1 / 8).all(), "equals of the k-th stay"
    assert next_token_probs(even, top_p=0.5).tolist() == [[0.25] * 4 + [0] * 4]
    many = torch.arange(64, dtype=torch.float64)[None] % 2
    kept = next_token_probs(many, top_p=0.5)[0].nonzero()[:, 0].tolist()
    assert kept == list(range(1, 2 * len(kept), 2)), "of equals the first in the alphabet"
    assert next_token_probs(even, min_p=1.0).tolist() == [[1 / 8] * 8]
    two = torch.tensor([[0.0, 2, 1, 2, 1]])
    assert next_token_probs(two, temperature=0).tolist() == [[0, 1, 0, 0, 0]]
    assert (next_token_probs(two, top_k=3) > 0).tolist() == [[False, True, True, True, True]]


@pytest.mark.parametrize("temperature", [1e-3, 1e-300, 5e-324])
def test_almost_no_temperature_is_none(temperature):
    logits = torch.stack([torch.randperm(V) for _ in range(20)]).double()
    assert torch.equal(next_token_probs(logits, temperature), next_token_probs(logits, 0))


@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 0.5}, {"top_k": 4}, {"top_p": 0.8, "min_p": 0.05}]
)
def test_characters_come_as_often_as_they_should(sampling):
    model, rows = sharp(BigramLanguageModel(V), 60), 4000
    prompt = torch.full((rows, 1), 5)
    p = theirs(model.table.weight[5].detach()[None].double(), **sampling)[0]
    for seed in (0, 10_000):
        new = generate(model, prompt, 1, seed=seed, **sampling)[:, 1]
        counts, wanted = torch.bincount(new, minlength=V), rows * p
        possible = p > 0
        assert not counts[~possible].any()
        misfit = ((counts - wanted) ** 2 / wanted)[possible].sum()
        assert misfit < possible.sum() + 5 * (2 * possible.sum()) ** 0.5


def test_draws_one_after_another_do_not_know_of_each_other():
    model = BigramLanguageModel(2)
    torch.nn.init.zeros_(model.table.weight)
    new = (
        generate(model, torch.zeros(64, 1, dtype=torch.int64), 128, seed=0)[:, 1:].double() * 2 - 1
    )
    assert abs((new[:, 1:] * new[:, :-1]).mean()) < 0.05, "along a text"
    assert abs((new[1:] * new[:-1]).mean()) < 0.05, "between neighbours, whose seeds are neighbours"


@pytest.mark.parametrize("penalty", [None, 1.3])
def test_greedy_texts_are_those_of_transformers(penalty):
    from tests.benchmarks.step import HuggingFaceGPT2, copy_weights

    model = gpt(block_size=48)
    other = HuggingFaceGPT2(model.config)
    copy_weights(model, other)
    prompt = TOKENIZER.encode(TEXT)[:24].view(3, 8)
    wanted = other.gpt2.eval().generate(
        prompt,
        do_sample=False,
        max_new_tokens=40,
        repetition_penalty=penalty,
        attention_mask=torch.ones_like(prompt),
        pad_token_id=0,
    )
    assert torch.equal(
        generate(model, prompt, 40, temperature=0, repetition_penalty=penalty), wanted
    )


# ---------------------------------------------------------------- with and without a cache


@every_window_step
@every_model
def test_logits_with_the_cache_are_those_without(make, window_stride):
    model = make()
    window_stride = min(window_stride, model.block_size)
    rows = [TOKENIZER.encode(TEXT[start : start + 50]) for start in (0, 20, 41, 60)]
    pads = [0, 7, 3, 18]  # the first prompt is longer than the block, the last one is inside
    ids = torch.stack([F.pad(row[: 50 - pad], (pad, 0)) for row, pad in zip(rows, pads)])
    decoder = IncrementalDecoder(model, window_stride, _takes_cache(model))
    for n in (*range(20, 29), *range(35, 51)):
        logits = decoder(ids[:, :n], pads)
        for got, row, pad in zip(logits, ids, pads):
            wanted = model(window(row[pad:n], model.block_size, window_stride)[None])[0][0, -1]
            assert torch.allclose(got, wanted, rtol=0, atol=1e-5), f"{n - pad} characters"


@every_window_step
@every_model
def test_greedy_texts_are_those_of_the_plain_loop(make, window_stride):
    model = make()
    window_stride = min(window_stride, model.block_size)
    for length, steps in ((1, 22), (BLOCK, 8), (40, 8)):
        ids = TOKENIZER.encode(TEXT[:length])
        wanted = greedy(model, ids, steps, window_stride)
        for use_cache in (None, False):
            assert torch.equal(
                generate(
                    model,
                    ids[None],
                    steps,
                    temperature=0,
                    window_stride=window_stride,
                    use_cache=use_cache,
                )[0],
                wanted,
            )


@pytest.mark.parametrize("use_cache", [None, False])
@every_model
def test_texts_of_different_lengths_are_written_as_one_by_one(make, use_cache):
    model, texts = make(), [TEXT[3:4], TEXT[:30], "", TEXT[20:31], TEXT[7:8]]
    sampling = {
        "temperature": 1.1,
        "top_k": 20,
        "top_p": 0.95,
        "min_p": 0.01,
        "repetition_penalty": 1.2,
        "use_cache": use_cache,
    }
    together = written(model, texts, 25, seed=3, **sampling)
    assert together == [
        written(model, text, 25, seed=3 + i, **sampling) for i, text in enumerate(texts)
    ]
    assert all(len(new) == len(text) + 25 for new, text in zip(together, texts))


@pytest.mark.parametrize("pads", [None, [0, 2]])
@pytest.mark.parametrize("sizes", [(13,), (1,) * 13, (5, 1, 4, 3), (12, 1)])
def test_a_text_may_be_read_in_pieces(pads, sizes):
    model, ids = gpt(), TOKENIZER.encode(TEXT[:26]).view(2, 13)
    cache = KVCache(BLOCK, pads and torch.tensor(pads))
    with torch.no_grad():
        logits = torch.cat([model(piece, cache=cache)[0] for piece in ids.split(sizes, 1)], 1)
    assert cache.length == 13
    for row, got, pad in zip(ids, logits, pads or [0, 0]):
        assert torch.allclose(got[pad:], model(row[None, pad:])[0][0], rtol=0, atol=1e-5)


def passes(model):
    """The shapes of what the model is called with, as they come."""
    shapes = []
    model.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape)))
    return shapes


def test_the_cache_spares_reading_what_was_read():
    model = gpt()
    shapes = passes(model)
    written(model, TEXT[:3], 10, use_cache=True)
    assert shapes == [(1, 3)] + [(1, 1)] * 9
    shapes.clear()
    written(model, TEXT[:3], 10, use_cache=False)
    assert shapes == [(1, 3 + n) for n in range(10)]


def test_a_full_cache_says_so():
    model, cache = gpt(), KVCache(BLOCK)
    with torch.no_grad():
        model(TOKENIZER.encode(TEXT[: BLOCK - 2])[None], cache=cache)
        with pytest.raises(ValueError, match=f"{BLOCK - 2} of {BLOCK} positions used, 3 more"):
            model(TOKENIZER.encode(TEXT[:3])[None], cache=cache)
    with pytest.raises(ValueError, match="got 2 new keys, .* made room for 0: .*cache.extend"):
        KVCache(BLOCK).update(object(), torch.zeros(1, 4, 2, 8), torch.zeros(1, 4, 2, 8))


def test_two_caches_know_nothing_of_each_other():
    model = gpt()
    one, other = KVCache(BLOCK), KVCache(BLOCK)
    with torch.no_grad():
        model(TOKENIZER.encode(TEXT[:5])[None], cache=one)
        logits, _ = model(TOKENIZER.encode(TEXT[5:8])[None], cache=other)
        wanted, _ = model(TOKENIZER.encode(TEXT[5:8])[None])
    assert torch.allclose(logits, wanted, rtol=0, atol=1e-5)


class FromTheEnd(GPT):
    """Counts positions from the end: they all change when a character comes, so that no key can be kept."""

    def compute_logits(self, idx):
        x = self.token_embedding(idx) + self.position_embedding.weight[: idx.shape[1]].flip(0)
        for block in self.blocks:
            x = block(x)
        return self.lm_head(self.norm(x))


class WithTheMean(GPT):
    """Adds what all characters so far have in common, which no cache holds."""

    def embed(self, idx, cache=None):
        x = super().embed(idx)
        return 2 * x - x.cumsum(1) / torch.arange(1, idx.shape[1] + 1)[:, None]

    def compute_logits(self, idx):
        return super().compute_logits(idx)


class Shortsighted(Block):
    """The first five characters see each other, and so do the next five."""

    def forward(self, x, cache=None):
        return torch.cat([super(Shortsighted, self).forward(part) for part in x.split(5, 1)], 1)


class WithShortsightedBlocks(GPT):
    def __init__(self, config):
        super().__init__(config)
        for block in self.blocks:
            block.__class__ = Shortsighted

    def compute_logits(self, idx):
        return super().compute_logits(idx)


class Backwards(GPT):
    def compute_logits(self, idx, cache=None):
        x = self.embed(idx, cache)
        for block in reversed(self.blocks):
            x = block(x, cache)
        return self.lm_head(self.norm(x))


class Cooled(GPT):
    def compute_logits(self, idx, cache=None):
        return super().compute_logits(idx, cache).tanh()


class SideBySide(Block):
    """Attention and feed-forward layer read the same."""

    def forward(self, x, cache=None):
        return x + self.attention(self.norm_1(x), cache) + self.feed_forward(self.norm_2(x))


class WithBlocksSideBySide(GPT):
    def __init__(self, config):
        super().__init__(config)
        for block in self.blocks:
            block.__class__ = SideBySide


class Together(CausalSelfAttention):
    """All heads share one key and one value: the cache holds what the attention gives it."""

    def forward(self, x, cache=None):
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, self.head_size).permute(2, 0, 3, 1, 4)
        k, v, mask = k[:, :1], v[:, :1], None
        if cache is not None:
            k, v, mask = cache.update(self, k, v)
        out = F.scaled_dot_product_attention(
            q,
            k.expand(-1, self.n_head, -1, -1),
            v.expand(-1, self.n_head, -1, -1),
            mask,
            is_causal=mask is None and k.shape[2] == T,
        )
        return self.proj(out.transpose(1, 2).reshape(B, T, C))


class WithSharedKeys(GPT):
    def __init__(self, config):
        super().__init__(config)
        for block in self.blocks:
            block.attention.__class__ = Together


OTHERS = {  # name: (the class, whether it takes a cache)
    "from the end": (FromTheEnd, False),
    "with the mean": (WithTheMean, False),
    "shortsighted": (WithShortsightedBlocks, False),
    "backwards": (Backwards, True),
    "cooled": (Cooled, True),
    "side by side": (WithBlocksSideBySide, True),
    "shared keys": (WithSharedKeys, True),
}


@pytest.mark.parametrize("length", [1, 3, 12])
@pytest.mark.parametrize("kind, cached", OTHERS.values(), ids=OTHERS)
def test_models_put_together_in_another_way_write_what_the_plain_loop_writes(kind, cached, length):
    model = sharp(kind(GPTConfig(V, block_size=BLOCK, n_layer=2, n_head=4, n_embd=32)))
    assert _takes_cache(model) == cached
    ids = TOKENIZER.encode(TEXT[:length])
    for seed, temperature in ((0, 0), (1, 1)):
        texts = [
            generate(model, ids[None], 20, temperature, seed=seed, use_cache=use_cache)
            for use_cache in (None, False)
        ]
        assert torch.equal(*texts)
        assert temperature or torch.equal(texts[0][0], greedy(model, ids, 20))


@pytest.mark.parametrize("name", ["bigram", "single head", "multi-head", "blocks"])
def test_a_cache_is_refused_where_there_can_be_none(name):
    model = MODELS[name]()
    assert not _takes_cache(model)
    shapes = passes(model)
    with pytest.raises(ValueError, match=rf"{type(model).__name__} .*cache=None.*use_cache=False"):
        written(model, TEXT[:3], 5, use_cache=True)
    assert not shapes, "no time is spent"


def test_a_model_that_takes_the_cache_and_forgets_it():
    class Forgetful(GPT):
        def compute_logits(self, idx, cache=None):
            return super().compute_logits(idx)

    model = Forgetful(gpt().config)
    with pytest.raises(ValueError, match="Forgetful accepts cache=.*use_cache=False"):
        written(model, TEXT[:3], 5)
    assert len(written(model, TEXT[:3], 5, use_cache=False)) == 8


@pytest.mark.parametrize("length", [1, 12])
def test_heads_that_are_off_stay_off(length):
    model, prompt = gpt(), TOKENIZER.encode(TEXT[:length])
    with ablate_heads(model, [(0, 0), (1, 2)]):
        wanted = greedy(model, prompt, 25)
        assert torch.equal(generate(model, prompt[None], 25, temperature=0)[0], wanted)
    assert not torch.equal(greedy(model, prompt, 25), wanted)


# ---------------------------------------------------------------- texts


@every_model
def test_what_goes_in_comes_out(make):
    model, prompt = make(), TOKENIZER.encode(TEXT[:12]).view(3, 4)
    ids = generate(model, prompt, 7, seed=0)
    assert ids.dtype == torch.int64 and ids.shape == (3, 11) and torch.equal(ids[:, :4], prompt)
    texts = [TOKENIZER.decode(row) for row in prompt]
    assert written(model, texts, 7, seed=0) == [TOKENIZER.decode(row) for row in ids]
    assert written(model, texts[1], 7, seed=1) == TOKENIZER.decode(ids[1])
    assert written(model, texts[:1], 7, seed=0) == [TOKENIZER.decode(ids[0])]


@pytest.mark.parametrize(
    "more", [{}, {"temperature": 0}, {"stop": TEXT[4:5]}, {"window_stride": 4, "top_k": 3}]
)
@pytest.mark.parametrize("prompt", ["", TEXT[:5], TEXT[:40]])
def test_a_stream_is_the_text_bit_by_bit(prompt, more):
    model = gpt()
    first, *pieces = written(model, prompt, 40, seed=7, stream=True, **more)
    assert first == prompt and all(len(piece) == 1 for piece in pieces)
    assert "".join([first, *pieces]) == written(model, prompt, 40, seed=7, **more)


def test_a_stream_of_ids():
    model, prompt = gpt(), TOKENIZER.encode(TEXT[:12]).view(3, 4)
    first, *pieces = generate(model, prompt, 20, seed=7, stream=True)
    assert torch.equal(first, prompt) and all(piece.shape == (3, 1) for piece in pieces)
    assert torch.equal(torch.cat([first, *pieces], 1), generate(model, prompt, 20, seed=7))


def test_a_stream_writes_no_faster_than_it_is_read():
    model = gpt()
    calls = passes(model)
    stream = written(model, TEXT[:3], 200, stream=True, use_cache=False)
    assert next(stream) == TEXT[:3] and not calls
    next(stream), next(stream)
    assert len(calls) <= 3


@pytest.mark.parametrize("stop", [" ", "\n", ["\n\n", ". "], ("e", "t", " ")])
@pytest.mark.parametrize("prompt", [TEXT[:20], ["", TEXT[:30], TEXT[:1]]])
def test_a_text_ends_with_its_first_stop_string(prompt, stop):
    model, ends = BigramLanguageModel(V), as_list(stop)
    for seed in range(3):
        whole, short = (
            as_list(written(model, prompt, 200, seed=seed, stop=end)) for end in (None, stop)
        )
        for before, text, cut in zip(as_list(prompt), whole, short, strict=True):
            new = text[len(before) :]
            places = [new.find(end) + len(end) for end in ends if end in new]
            assert cut == before + new[: min(places, default=200)]


def test_a_stop_string_in_the_prompt_stops_nothing():
    model = BigramLanguageModel(V)
    assert len(written(model, "\n\n", 5, stop="\n\n", seed=0)) > 2


def test_an_empty_prompt_is_the_start_of_a_line():
    model = gpt()
    assert "\n" + written(model, "", 30, seed=1) == written(model, "\n", 30, seed=1)


@pytest.mark.parametrize("prompt", ["", TEXT[:3], ["", TEXT[:30]]])
def test_nothing_new_is_the_prompt(prompt):
    assert written(gpt(), prompt, 0) == prompt


def test_an_empty_list_has_no_texts_or_is_called_a_bad_prompt():
    try:
        assert written(gpt(), [], 5) == []
    except (ValueError, TypeError) as error:
        assert "prompt" in str(error)


def test_the_seed_decides_and_nothing_else():
    model, state = gpt(), torch.get_rng_state()
    texts = [written(model, TEXT[:3], 40, seed=seed) for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(torch.get_rng_state(), state), "a seed leaves torch's own generator alone"
    assert written(model, TEXT[:3], 20, seed=5) == texts[0][:23], (
        "a shorter text is the beginning of a longer one"
    )
    assert written(model, TEXT[:3], 40) != written(model, TEXT[:3], 40)
    again = []
    for _ in range(2):
        torch.manual_seed(4)
        again.append(written(model, TEXT[:3], 40))
    assert again[0] == again[1]


def test_equals_are_taken_in_the_order_of_the_alphabet():
    model = BigramLanguageModel(V)
    torch.nn.init.zeros_(model.table.weight)
    assert written(model, "", 9, temperature=0) == 9 * TOKENIZER.alphabet[0]
    with torch.no_grad():
        model.table.weight[:, [4, 9]] = 1
    assert written(model, "", 9, temperature=0) == 9 * TOKENIZER.alphabet[4]
    assert set(written(model, "", 60, top_k=1)) == {TOKENIZER.alphabet[4], TOKENIZER.alphabet[9]}


def test_the_prompt_itself_stays_as_it_is():
    prompt = TOKENIZER.encode(TEXT[:4])[None]
    kept = prompt.clone()
    generate(gpt(), prompt, 20)
    assert torch.equal(prompt, kept)


# ---------------------------------------------------------------- Ctrl-C and other ends


def interrupted(model, after=150, error=KeyboardInterrupt):
    """The parts of the model count their calls; this one ends it."""
    calls = itertools.count()

    def stop(module, inputs, output):
        if next(calls) == after:
            raise error

    for part in model.modules():
        part.register_forward_hook(stop)
    return model


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(
    "prompt",
    [TEXT[:5], [TEXT[:5], "", TEXT[:9]], TOKENIZER.encode(TEXT[:6]).view(2, 3)],
    ids=["text", "texts", "ids"],
)
def test_ctrl_c_gives_what_was_written_so_far(prompt, use_cache):
    model = gpt()
    whole = written(model, prompt, 100, seed=2, use_cache=use_cache)
    part = written(interrupted(model.train()), prompt, 100, seed=2, use_cache=use_cache)
    assert model.training and type(part) is type(whole)
    if isinstance(prompt, torch.Tensor):
        new = part.shape[1] - prompt.shape[1]
        assert torch.equal(part, whole[:, : part.shape[1]])
    else:
        starts, parts, wholes = map(as_list, (prompt, part, whole))
        news = {len(text) - len(start) for start, text in zip(starts, parts)}
        assert len(news) == 1 and all(
            text.startswith(beginning) for beginning, text in zip(parts, wholes)
        )
        new = news.pop()
    assert 0 < new < 100


def test_ctrl_c_before_the_first_character_gives_the_prompt():
    assert written(interrupted(gpt(), 0), TEXT[:5], 9) == TEXT[:5]
    assert written(interrupted(gpt(), 0), ["", TEXT[:5]], 9) == ["", TEXT[:5]]


def broken():
    model = gpt()
    model.lm_head = torch.nn.Linear(32, V)
    torch.nn.init.constant_(model.lm_head.bias, float("nan"))
    return model


ENDS = {
    "the last character": lambda model: written(model, TEXT[:3], 9),
    "nothing to do": lambda model: written(model, TEXT[:3], 0),
    "a stop string": lambda model: written(model, TEXT[:3], 500, stop=list("aeiou \n")),
    "Ctrl-C": lambda model: written(interrupted(model), TEXT[:3], 100),
    "an error": lambda model: written(interrupted(model, error=OSError), TEXT[:3], 100),
    "bad input": lambda model: written(model, TEXT[:3], 9, temperature=-1),
    "a stream that is read": lambda model: list(written(model, TEXT[:3], 9, stream=True)),
    "a stream that is not": lambda model: written(model, TEXT[:3], 9, stream=True),
    "a stream that is left": lambda model: [
        *itertools.islice(written(model, TEXT[:3], 90, stream=True), 4)
    ],
    "Ctrl-C in a stream": lambda model: list(
        written(interrupted(model), TEXT[:3], 90, stream=True)
    ),
    "an error in a stream": lambda model: list(
        written(interrupted(model, error=OSError), TEXT[:3], 90, stream=True)
    ),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_the_training_mode_is_restored(end, use_cache, training):
    model = gpt(dropout=0.5).train(training)
    with contextlib.suppress(ValueError, OSError, KeyboardInterrupt):
        end(model)
    assert all(part.training == training for part in model.modules())


def test_dropout_does_not_reach_the_text():
    model = gpt(dropout=0.5)
    calm = written(model, TEXT[:3], 40, seed=0)
    for use_cache in (True, False):
        assert written(model.train(), TEXT[:3], 40, seed=0, use_cache=use_cache) == calm


def test_no_gradient_is_kept():
    for use_cache in (True, False):
        assert not generate(
            gpt(), torch.zeros(1, 3, dtype=torch.int64), 20, use_cache=use_cache
        ).requires_grad


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_logits_that_are_no_numbers(value, temperature):
    model, start, after = BigramLanguageModel(V), TEXT[0], TOKENIZER.stoi[TEXT[1]]
    with torch.no_grad():
        model.table.weight[:, after] = 1000
        model.table.weight[after, 2] = float(value)
    with pytest.raises(FloatingPointError, match=f"{value} as a logit after 1 generated"):
        written(model.train(), start, 9, temperature=temperature)
    assert model.training


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_model_that_gives_nothing_but_nan(use_cache):
    with pytest.raises(FloatingPointError, match="nan"):
        written(broken(), TEXT[:3], 9, use_cache=use_cache)


def test_impossible_characters_are_no_fault():
    model = BigramLanguageModel(V)
    with torch.no_grad():
        model.table.weight[:, 3:] = float("-inf")
    assert set(written(model, "", 50)) == set(TOKENIZER.alphabet[:3])


# ---------------------------------------------------------------- bad input


def untouchable():
    """A model that must not be asked anything."""

    def spent(module, inputs):
        raise AssertionError("time was spent before the input was looked at")

    model = gpt()
    for part in model.modules():
        part.register_forward_pre_hook(spent)
    return model


def refused(prompt, message, **sampling):
    """The call itself fails, even where nothing would be read from the stream."""
    sampling = {"max_new_tokens": 9, "tokenizer": TOKENIZER, **sampling}
    for stream in (False, True):
        if not (stream and isinstance(prompt, list)):
            with pytest.raises((ValueError, TypeError), match=message):
                generate(untouchable(), prompt, **sampling, stream=stream)


BAD = [
    ("temperature", -0.1),
    ("temperature", float("nan")),
    ("temperature", "hot"),
    ("temperature", None),
    ("top_k", 0),
    ("top_k", -3),
    ("top_k", 2.5),
    ("top_k", "3"),
    ("top_k", float("nan")),
    ("top_k", float("inf")),
    ("top_p", 0),
    ("top_p", 1.01),
    ("top_p", -1),
    ("top_p", float("nan")),
    ("top_p", "most"),
    ("min_p", -0.1),
    ("min_p", 1.5),
    ("min_p", float("nan")),
    ("min_p", "some"),
    ("repetition_penalty", 0),
    ("repetition_penalty", -1),
    ("repetition_penalty", float("nan")),
    ("repetition_penalty", float("inf")),
    ("repetition_penalty", "much"),
    ("max_new_tokens", -1),
    ("max_new_tokens", 2.5),
    ("max_new_tokens", None),
    ("max_new_tokens", "9"),
    ("window_stride", 0),
    ("window_stride", BLOCK + 1),
    ("window_stride", 1.5),
    ("window_stride", None),
    ("seed", "lucky"),
    ("seed", 1.5),
    ("seed", 2**70),
]


@pytest.mark.parametrize("name, value", BAD)
@pytest.mark.parametrize(
    "prompt",
    [TEXT[:3], [TEXT[:3]], torch.zeros(2, 3, dtype=torch.int64)],
    ids=["text", "texts", "ids"],
)
def test_a_parameter_is_called_by_its_name(name, value, prompt):
    refused(prompt, rf"(?s)\b{name}\b.*{re.escape(str(value))}", **{name: value})


@pytest.mark.parametrize(
    "stop, message",
    [
        ("", "stop"),
        (["\n", ""], "stop"),
        ("Ω", "Ω"),
        (["\n", "aΩ"], "Ω"),
        (3, "stop"),
        ([3], "stop"),
        ([None], "stop"),
    ],
)
def test_a_stop_string_that_cannot_come(stop, message):
    for prompt in (TEXT[:3], [TEXT[:3]]):
        refused(prompt, message, stop=stop)


def test_ids_have_no_stop_strings():
    """Without a tokenizer nobody knows what they are: an error, and no text that goes on past them."""
    refused(torch.zeros(1, 3, dtype=torch.int64), "stop", stop="\n", tokenizer=None)


@pytest.mark.parametrize("prompt", [TEXT[:3], "", [TEXT[:3]]])
def test_a_text_needs_a_tokenizer(prompt):
    refused(prompt, "tokenizer", tokenizer=None)


def test_a_tokenizer_of_another_alphabet():
    refused("abc", "vocab_size|alphabet|tokenizer", tokenizer=CharTokenizer("abc\n"))
    refused("abc", "vocab_size|alphabet|tokenizer", tokenizer=CharTokenizer(map(chr, range(2000))))


SHAKESPEARE = CharTokenizer(
    "\n !$&',-.3:;?" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "abcdefghijklmnopqrstuvwxyz"
)


@pytest.mark.parametrize(
    "char, guess",
    [
        ("’", "'"),
        ("‘", "'"),
        ("—", "-"),
        ("–", "-"),
        ("…", "."),
        ("é", "e"),
        ("Ü", "U"),
        ("ﬁ", "f"),
        ("\t", " "),
        ("\u00a0", " "),
        ("\r", " "),
    ],
)
def test_a_character_that_is_not_in_the_alphabet_and_what_is(char, guess):
    model = BigramLanguageModel(SHAKESPEARE.vocab_size)
    for prompt in (f"No{char}", ["Yes", f"No{char}"]):
        named = f"(?s)^character {re.escape(repr(char))} at position 2 "
        with pytest.raises(ValueError, match=named) as caught:
            generate(model, prompt, 3, tokenizer=SHAKESPEARE)
        assert f"did you mean {guess!r}" in str(caught.value)


def test_a_strange_character_is_noticed_before_anything_is_written():
    for prompt in (TEXT[:3] + "Ω", "Ω" + TEXT[:50], [TEXT[:3], "Ω"]):
        refused(prompt, "Ω")


def test_a_small_letter_for_a_large_one():
    capitals, model = CharTokenizer("ABC\n"), BigramLanguageModel(4)
    with pytest.raises(ValueError, match="(?s)'b'.*did you mean 'B'"):
        generate(model, "Ab", 3, tokenizer=capitals)
    with pytest.raises(ValueError, match="'#'") as caught:
        generate(model, "A#", 3, tokenizer=capitals)
    assert "did you mean" not in str(caught.value)


def test_an_empty_prompt_where_no_line_ends():
    """Either it is written all the same, or the message speaks of the empty prompt."""
    try:
        text = generate(BigramLanguageModel(3), "", 9, tokenizer=CharTokenizer("abc"))
        assert len(text) == 9 and set(text) <= set("abc")
    except ValueError as error:
        assert "empty" in str(error)


@pytest.mark.parametrize(
    "prompt",
    [
        torch.zeros(1, 0, dtype=torch.int64),
        torch.zeros(0, 3, dtype=torch.int64),
        torch.zeros(3, dtype=torch.int64),
        torch.zeros(1, 2, 3, dtype=torch.int64),
        torch.zeros(1, 3),
        torch.tensor([[0, V]]),
        torch.tensor([[0, -1]]),
        torch.tensor([[V] + 40 * [0]]),
        3,
        None,
        b"bytes",
        [3],
        ["a", None],
        [b"a"],
    ],
    ids=lambda prompt: str(prompt)[:40],
)
def test_a_prompt_that_is_none(prompt):
    refused(prompt, r"prompt|ids|idx")


def test_what_the_check_of_a_model_returns_is_no_prompt():
    class Affirmative(BigramLanguageModel):
        def check(self, idx):
            super().check(idx)
            return True

    prompt = torch.zeros(2, 3, dtype=torch.int64)
    assert generate(Affirmative(V), prompt, 4).shape == (2, 7)


def test_many_texts_make_no_stream():
    with pytest.raises((ValueError, TypeError), match="stream"):
        written(untouchable(), [TEXT[:3], TEXT[:5]], 9, stream=True)


# ---------------------------------------------------------------- a prepared copy


def prepared_layer(layer, precision="fp32"):
    """What `prepare_for_sampling` puts in the place of a layer."""
    return prepare_for_sampling(torch.nn.Sequential(layer), precision)[0]


@pytest.mark.parametrize("rows", [(1,), (1, 1), (2, 3), (32,), (33,), (4, 40)])
@pytest.mark.parametrize(
    "K, N, bias", [(1, 3, True), (3, 1, False), (8, 65, True), (6, 8, False), (20, 12, True)]
)
def test_the_pieces_of_a_matrix_make_the_whole_product(rows, K, N, bias):
    layer, x = torch.nn.Linear(K, N, bias=bias), torch.randn(*rows, K)
    expected = x.double() @ layer.weight.double().T + (layer.bias.double() if bias else 0)
    with torch.no_grad():
        for some in (SplitKLinear(layer), prepared_layer(layer)):
            out = some(x)
            assert out.shape == (*rows, N) and torch.allclose(out.double(), expected, atol=1e-5)


def test_few_rows_go_by_the_pieces_and_many_by_the_whole_matrix():
    layer, x = torch.nn.Linear(8, 3), torch.randn(33, 8)
    split = SplitKLinear(layer)
    split.pieces.zero_()
    with torch.no_grad():
        assert torch.equal(split(x[:32]), layer.bias.expand(32, 3))
        assert torch.equal(split(x), layer(x))


def test_only_plain_matrices_of_the_cpu_are_replaced():
    class Other(torch.nn.Linear):
        def forward(self, x):
            return -super().forward(x)

    plain, heard, wide = (
        torch.nn.Linear(8, 2),
        torch.nn.Linear(8, 2),
        torch.nn.Linear(8, 2).double(),
    )
    handle = heard.register_forward_hook(lambda layer, inputs, out: 2 * out)
    model = torch.nn.Sequential(
        plain, heard, Other(2, 3), wide, torch.nn.Linear(2, 2, device="meta")
    )

    def replaced():
        return [i for i, x in enumerate(prepare_for_sampling(model)) if type(x) is SplitKLinear]

    assert replaced() == [0]
    handle.remove()
    assert replaced() == [0, 1]
    assert [type(layer) for layer in model][:2] == [torch.nn.Linear] * 2, "the model itself stays"


@every_model
def test_a_prepared_copy_writes_the_same(make):
    model = make()
    copy = prepare_for_sampling(model.train())
    assert model.training and not any(part.training for part in copy.modules())
    assert _takes_cache(copy) == _takes_cache(model)
    for prompt in (TEXT[:5], [TEXT[:3], TEXT[:30]]):
        assert written(copy, prompt, 25, seed=1) == written(model.eval(), prompt, 25, seed=1)


def test_a_prepared_copy_of_a_gpt_has_no_plain_matrix_left_and_cannot_be_trained():
    model = gpt(tied=False)
    for precision, kind in (("fp32", SplitKLinear), ("int8", Int8Linear)):
        copy = prepare_for_sampling(model, precision)
        kinds = [type(part) for part in copy.modules()]
        assert kinds.count(kind) == 2 * 4 + 1 and torch.nn.Linear not in kinds
        assert not any(weight.requires_grad for weight in copy.parameters())
    assert all(weight.requires_grad for weight in model.parameters())
    with pytest.raises(ValueError, match=r"precision is 'int4'.*'fp32', 'int8'"):
        prepare_for_sampling(model, "int4")


def test_int8_rounds_each_row_of_a_matrix_by_its_own_scale():
    torch.manual_seed(0)
    model = gpt(dropout=0.2).train()
    copy = prepare_for_sampling(model, "int8")
    assert (
        model.training
        and not copy.training
        and isinstance(model.blocks[1].attention.qkv, torch.nn.Linear)
    )
    for name in ("attention.qkv", "attention.proj", "feed_forward.fc", "feed_forward.proj"):
        for block, rounded in zip(model.blocks, copy.blocks):
            weight = block.get_submodule(name).weight
            steps = weight.abs().amax(1, keepdim=True) / 127
            packed = rounded.get_submodule(name).packed
            error = torch.ops.quantized.linear_unpack(packed)[0].dequantize() - weight
            assert (error.abs() <= 0.52 * steps).all() and error.abs().max() > 0


def test_int8_keeps_a_row_of_zeros_and_a_bias():
    layer = torch.nn.Linear(8, 3)
    torch.nn.init.zeros_(layer.weight)
    with torch.no_grad():
        out = prepared_layer(layer, "int8")(torch.randn(2, 5, 8))
    assert torch.allclose(out, layer.bias.expand(2, 5, 3))


def test_int8_writes_with_the_cache_nearly_what_the_model_says():
    torch.manual_seed(0)
    model, ids = sharp(gpt(), 0.3), TOKENIZER.encode(TEXT)[None]
    copy = prepare_for_sampling(model, "int8")
    assert _takes_cache(copy)
    cache = KVCache(BLOCK)
    with torch.no_grad():
        pieces = [copy(ids[:, t : t + 1], cache=cache)[0] for t in range(BLOCK)]
        one_by_one = torch.cat(pieces, 1)
        whole = model(ids[:, :BLOCK])[0]
    assert 0 < (one_by_one - whole).std() < 0.05 * whole.std()
    assert len(generate(copy, "O", 3 * BLOCK, seed=1, tokenizer=TOKENIZER)) == 3 * BLOCK + 1


def test_a_model_that_takes_no_cache_takes_none_in_int8_either():
    copy = prepare_for_sampling(FromTheEnd(gpt().config), "int8")
    assert not _takes_cache(copy)
    assert len(written(copy, TEXT[:3], 5)) == 8


def test_int8_of_a_model_that_is_not_on_the_cpu():
    with pytest.raises(ValueError, match="cpu"):
        prepare_for_sampling(gpt().to("meta"), "int8")


# ---------------------------------------------------------------- while the model is trained


def test_a_stream_leaves_a_model_in_training_alone():
    """Between two pieces, the notebook's other cells may train: with dropout, with gradients, with other weights."""
    model = gpt(dropout=0.5)
    wanted = written(model, TEXT[:3], 30, seed=0)
    model.train()
    stream = written(model, TEXT[:3], 30, seed=0, stream=True)
    text = next(stream) + next(stream)
    for piece in stream:
        text += piece
        assert all(part.training for part in model.modules()) and torch.is_grad_enabled()
        _, loss = model(TOKENIZER.encode(TEXT[:9])[None], TOKENIZER.encode(TEXT[1:10])[None])
        loss.backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight -= weight.grad
    assert text == wanted, "what is written is written by the model as it was when it began"


def test_another_thread_may_train_the_model_that_writes():
    model = gpt(dropout=0.5).train()
    x, y = TOKENIZER.encode(TEXT[:12])[None], TOKENIZER.encode(TEXT[1:13])[None]
    modes, finished = [], threading.Event()

    def note(block, inputs):
        if block is model.blocks[0]:
            modes.append(block.training)

    model.blocks[0].register_forward_pre_hook(note)

    def train():
        while not finished.is_set():
            model(x, y)[1].backward()

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for seed in range(20):
            written(model, TEXT[:3], 20, seed=seed)
    finally:
        finished.set()
        thread.join()
    assert modes and all(modes), f"{modes.count(False)} of {len(modes)} steps had no dropout"
    assert model.training and all(weight.requires_grad for weight in model.parameters())


# ---------------------------------------------------------------- a tokenizer of another kind


class ByteTokenizer:
    """One id for each byte of UTF-8: half a character is no text yet."""

    vocab_size = 256

    def encode(self, text):
        return torch.tensor(list(text.encode()), dtype=torch.int64)

    def decode(self, ids):
        return bytes(torch.as_tensor(ids).tolist()).decode(errors="replace")


def writes(text):
    """A model that writes one text, byte by byte, whatever the prompt says at its end."""
    ids = ByteTokenizer().encode(text).tolist()
    assert len(set(ids)) == len(ids), "each byte has to tell which one comes next"
    model = BigramLanguageModel(256)
    with torch.no_grad():
        for before, after in zip(ids, ids[1:]):
            model.table.weight[before, after] = 100
    return model


def test_a_character_of_several_ids_comes_when_it_is_whole():
    tokenizer, text = ByteTokenizer(), "naïve 日!"
    how = {"temperature": 0, "tokenizer": tokenizer}
    steps = len(text.encode()) - 1
    pieces = list(generate(writes(text), "n", steps, stream=True, **how))
    assert "".join(pieces) == text and not any("\ufffd" in piece for piece in pieces)
    assert generate(writes(text), "n", steps, **how) == text
    assert generate(writes(text), "n", steps, stop="ïv", **how) == "naïv"
    assert generate(writes(text), ["n", "a"], steps, stop="日", **how) == ["naïve 日", "aïve 日"]
    cut = generate(writes(text), "n", 2, **how)
    assert cut == "na\ufffd", "what never became whole is not lost"


def test_half_a_character_at_the_end_of_a_token_waits_alone():
    tokens = [b"caf", b" \xc3", b"\xa9!", b"\xf0", b"\x9f", b"\xff", b"x"]

    class Tokens(ByteTokenizer):
        def decode(self, ids):
            whole = b"".join(tokens[i] for i in torch.as_tensor(ids).tolist())
            return whole.decode(errors="replace")

    for ids in ([0, 1, 2], [0, 3, 4, 6], [5, 6, 5, 5, 6], [1, 1, 2], [0, 1], [3, 4], [5, 5, 0]):
        stream = TextStream(Tokens(), [])
        pieces = [stream.add(i) for i in ids]
        assert "".join([*pieces, stream.flush()]) == Tokens().decode(ids)
    stream = TextStream(Tokens(), ["é!"])
    assert [stream.add(i) for i in (0, 1, 2)] == ["caf", " ", "é!"] and stream.ended


def test_a_piece_of_several_characters_is_cut_after_the_stop_string():
    class Pairs(ByteTokenizer):
        vocab_size = 4

        def encode(self, text):
            return torch.tensor([["ab", "cd", "ef", "\n"].index(text)])

        def decode(self, ids):
            return "".join(["ab", "cd", "ef", "\n"][i] for i in torch.as_tensor(ids).tolist())

    model = BigramLanguageModel(4)
    with torch.no_grad():
        model.table.weight[[0, 1, 2], [1, 2, 0]] = 100
    assert generate(model, "ab", 5, temperature=0, tokenizer=Pairs()) == "abcdefabcdef"
    for stop, wanted in (("de", "abcde"), ("c", "abc"), (["fa", "ef"], "abcdef")):
        stream = TextStream(Pairs(), [stop] if isinstance(stop, str) else stop)
        assert "ab" + "".join(stream.add(i) for i in (1, 2, 0, 1)) == wanted and stream.ended
