"""Lesson 01: what all models share, the table, and n-grams against counting by hand."""

from itertools import product
from math import exp, log

import pytest
import torch

from chargpt_lib.bigram import BigramLanguageModel, LanguageModel, NGramModel


def nats(logits, target):
    """What one character costs, worked out with numbers."""
    return log(sum(exp(x) for x in logits)) - logits[target]


class Spy(LanguageModel):
    """Is sure that the first character it sees goes up by one; remembers how it was called."""

    def __init__(self, vocab_size, block_size):
        super().__init__(vocab_size, block_size)
        self.weight, self.seen = torch.nn.Parameter(torch.tensor(1e4)), []

    def compute_logits(self, idx):
        self.seen.append((idx.shape[1], self.training, torch.is_grad_enabled()))
        first = torch.nn.functional.one_hot((idx[:, :1] + 1) % self.vocab_size, self.vocab_size)
        return self.weight * first.expand(-1, idx.shape[1], -1)


def test_the_loss_is_the_mean_of_what_each_character_costs():
    model = BigramLanguageModel(5, block_size=4)
    torch.nn.init.normal_(model.table.weight, std=2.0)
    idx, targets, table = (
        torch.randint(5, (3, 4)),
        torch.randint(5, (3, 4)),
        model.table.weight.tolist(),
    )
    logits, loss = model(idx, targets)
    assert logits.shape == (3, 4, 5) and logits[2, 1].tolist() == table[idx[2, 1]]
    paid = [nats(table[i], t) for i, t in zip(idx.flatten().tolist(), targets.flatten().tolist())]
    assert loss.item() == pytest.approx(sum(paid) / 12, abs=1e-5)
    assert model(idx)[1] is None and torch.equal(model(idx)[0], logits)


@pytest.mark.parametrize("V", [2, 65, 1000])
def test_an_untrained_model_knows_nothing(V):
    idx, targets = torch.randint(V, (2, 64, 8))
    assert BigramLanguageModel(V, 8)(idx, targets)[1].item() == pytest.approx(log(V), abs=0.1)


@pytest.mark.parametrize(
    "idx, said",
    [
        (torch.zeros(4), r"\(4,\).*\(B, T\).*idx\[None\]"),
        (torch.zeros(1, 2, 2), r"\(1, 2, 2\)"),
        (torch.zeros(1, 4), r"4 characters long.*block_size = 3.*idx\[:, -3:\]"),
        (torch.tensor([[0, 5]]), "from 0 to 5.*vocab_size is 5.*own tokenizer"),
        (torch.tensor([[-1, 2]]), "from -1 to 2.*vocab_size is 5"),
    ],
)
def test_ids_that_no_model_can_read(idx, said):
    with pytest.raises(ValueError, match=said):
        BigramLanguageModel(5, block_size=3)(idx.long())


def test_it_writes_on_from_the_last_block_size_characters():
    model, text = Spy(10, block_size=3), [7, 1, 4, 2, 9]
    written = model.generate(torch.tensor([text, text[::-1]]), 6)
    for row, start in zip(written.tolist(), (text, text[::-1])):
        for _ in range(6):
            start = [*start, (start[-3] + 1) % 10]
        assert row == start
    assert [T for T, _, _ in model.seen] == [3] * 6
    assert model.generate(torch.tensor([text]), 0).tolist() == [text]
    assert model.generate(torch.tensor([[5]]), 4).tolist() == [[5, 6, 6, 6, 7]]


@pytest.mark.parametrize("training", [True, False])
def test_it_writes_in_eval_mode_without_gradients_and_goes_back(training):
    model = Spy(10, 3).train(training)
    assert not model.generate(torch.tensor([[1]]), 2).requires_grad and model.training is training
    assert {(mode, gradients) for _, mode, gradients in model.seen} == {(False, False)}


def test_a_generator_settles_what_is_written_and_leaves_the_other_dice_alone():
    model, start, state = (
        BigramLanguageModel(30),
        torch.zeros(1, 1, dtype=torch.int64),
        torch.get_rng_state(),
    )
    a, b, c = (
        model.generate(start, 40, torch.Generator().manual_seed(seed)).tolist()
        for seed in (1, 1, 2)
    )
    assert a == b != c and torch.equal(torch.get_rng_state(), state)


def test_what_is_written_follows_the_table():
    model = BigramLanguageModel(6)
    torch.nn.init.normal_(model.table.weight, std=1.5)
    for last in range(6):
        prompt = torch.tensor([[0, last]]).expand(20_000, 2)
        counts = torch.bincount(model.generate(prompt, 1)[:, -1], minlength=6)
        expected = 20_000 * model.table.weight[last].detach().softmax(0)
        assert ((counts - expected).abs() <= 5 * expected.sqrt() + 1).all()


@pytest.mark.parametrize(
    "idx, said", [(torch.zeros(3), r"idx\[None\]"), (torch.zeros(1, 0), "empty")]
)
def test_a_prompt_that_is_none(idx, said):
    with pytest.raises(ValueError, match=said):
        BigramLanguageModel(5).generate(idx.long(), 1)


# ---------------------------------------------------------------- n-grams


def witten_bell(text, past, char, n, V):
    """The probability of a character after its past, by counting in a list."""
    p = 1 / V
    for k in range(min(n - 1, len(past)) + 1):
        context = past[len(past) - k :]
        followers = [text[i + k] for i in range(len(text) - k) if text[i : i + k] == context]
        if followers:
            p = (followers.count(char) + len(set(followers)) * p) / (
                len(followers) + len(set(followers))
            )
    return p


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("V", [3, 5])
def test_ngrams_are_what_one_counts(n, V):
    text = torch.randint(3, (40,)).tolist()  # for V = 5, two characters never occur
    model = NGramModel(torch.tensor(text), n, V)
    for length in range(1, 5):
        groups = list(product(range(V), repeat=length))
        found = model.probability(torch.tensor(groups))
        assert found.tolist() == pytest.approx(
            [witten_bell(text, list(g[:-1]), g[-1], n, V) for g in groups], rel=1e-12
        )
        assert found.min() > 0 and found.view(-1, V).sum(1).tolist() == pytest.approx(
            [1.0] * V ** (length - 1), rel=1e-12
        )


@pytest.mark.parametrize("n, V", [(1, 4), (2, 4), (3, 4), (4, 4), (2, 65), (6, 65)])
def test_what_an_ngram_pays_for_a_text(n, V):
    text = torch.randint(V, (300,)).tolist()
    other = text[100:150] + torch.randint(V, (50,)).tolist()
    paid = NGramModel(torch.tensor(text), n, V).nats(torch.tensor(other)).tolist()
    expected = [
        -log(witten_bell(text, other[at - n + 1 : at], other[at], n, V)) for at in range(n - 1, 100)
    ]
    assert paid == pytest.approx(expected, rel=1e-9)


def test_generate_goes_back_to_training_when_interrupted(monkeypatch):
    model = BigramLanguageModel(5).train()

    def interrupted(idx):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "compute_logits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.generate(torch.zeros(1, 1, dtype=torch.int64), 3)
    assert model.training


@pytest.mark.parametrize("length, n, vocab_size", [(3, 4, 5), (100, 11, 65), (1000, 64, 2)])
def test_ngrams_that_cannot_be_numbered_are_refused(length, n, vocab_size):
    with pytest.raises(ValueError, match=f"n = {n} .*at most"):
        NGramModel(torch.randint(vocab_size, (length,)), n, vocab_size)
    NGramModel(torch.randint(65, (100,)), 10, 65)
