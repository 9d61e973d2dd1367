"""Lesson 02: training reaches the counted optimum, measuring is exact, and nothing is trained twice or loaded wrongly."""

import copy
import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from math import log, prod
from pathlib import Path

import pytest
import torch
from torch import nn

import chargpt_lib
from chargpt_lib import caching, training
from chargpt_lib.bigram import BigramLanguageModel, LanguageModel
from chargpt_lib.bpe import BPETokenizer
from chargpt_lib.data import CharTokenizer, Corpus
from chargpt_lib.files import cache_dir
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.playhouse import KINDS, write
from chargpt_lib.training import (
    cache_file_name,
    cache_key,
    estimate_loss,
    evaluate,
    fit,
    ladder,
    load_or_fit,
    lr_multiplier,
    nats_by_character,
    param_groups,
    per_token_loss,
    plot_ladder,
)


def tiny_gpt(seed=0, **changes):
    torch.manual_seed(seed)
    return GPT(
        GPTConfig(
            **{"vocab_size": 7, "block_size": 5, "n_layer": 1, "n_head": 2, "n_embd": 8} | changes
        )
    )


def chain(length):
    """A text of 3 symbols, in which each one leans towards a follower."""
    ids = [0]
    for step in torch.tensor([0.7, 0.2, 0.1]).multinomial(length - 1, replacement=True).tolist():
        ids.append((ids[-1] + step) % 3)
    return torch.tensor(ids)


# ---------------------------------------------------------------- training


def test_the_rate_rises_stays_and_falls_to_nothing():
    walk = [lr_multiplier(step, 100) for step in range(101)]
    expected = [0.2, 0.4, 0.6, 0.8] + [1.0] * 37 + [(100 - step) / 60 for step in range(41, 101)]
    assert walk == pytest.approx(expected) and walk[-1] == 0
    assert lr_multiplier(0, 1) == 1
    assert [lr_multiplier(step, 4, warmup=0, decay=0) for step in range(4)] == [1] * 4
    assert [lr_multiplier(step, 4, warmup=0.5, decay=0.5) for step in range(4)] == [0.5, 1, 1, 0.5]


def test_descent_arrives_at_the_counted_optimum():
    ids, model = chain(2000), BigramLanguageModel(3)
    pairs, firsts = Counter(zip(ids[:-1].tolist(), ids[1:].tolist())), Counter(ids[:-1].tolist())
    optimum = sum(count * log(firsts[first] / count) for (first, _), count in pairs.items()) / 1999
    losses = fit(model, ids, steps=150, batch_size=256, lr=0.3, weight_decay=0.0)
    assert losses.shape == (150,) and losses[0].item() == pytest.approx(log(3), abs=0.1)
    assert optimum - 1e-6 < evaluate(model, ids) < optimum + 0.003


class Idle(LanguageModel):
    """Has weights that the loss does not depend on: only weight decay moves them. Fails at the given call."""

    def __init__(self, nan_at=None, spoilt=float("nan")):
        super().__init__(3, 4)
        self.table, self.matrix, self.bias = (
            nn.Parameter(torch.ones(size)) for size in ((3, 3), (2, 2), (2,))
        )
        self.nan_at, self.spoilt, self.modes = nan_at, spoilt, []

    def compute_logits(self, idx):
        self.modes.append(self.training)
        spoilt = self.spoilt if len(self.modes) - 1 == self.nan_at else 0.0
        return (
            self.table[idx]
            + 0.0 * (self.matrix.sum() + self.bias.sum())
            + torch.tensor([spoilt, 0.0, 0.0])
        )


@pytest.mark.parametrize("weight_decay", [0.0, 0.1, 2.0])
def test_decay_pulls_matrices_and_nothing_else(weight_decay):
    model = Idle().eval()
    fit(model, chain(50), steps=20, batch_size=2, lr=0.01, weight_decay=weight_decay)
    left = prod(1 - 0.01 * weight_decay * lr_multiplier(step, 20) for step in range(20))
    assert model.matrix.flatten().tolist() == pytest.approx([left] * 4) and model.bias.tolist() == [
        1,
        1,
    ]
    assert model.modes == [True] * 20 and not model.training


@pytest.mark.parametrize("step, spoilt", [(0, float("nan")), (3, float("nan")), (2, float("-inf"))])
def test_a_loss_that_is_no_number_stops_the_training(step, spoilt):
    model = Idle(nan_at=step, spoilt=spoilt)
    with pytest.raises(FloatingPointError, match=f"at step {step}\\b.*rate is 0.01"):
        fit(model, chain(50), steps=20, lr=0.01)
    assert len(model.modes) == step + 1


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_seed_settles_the_losses(dropout):
    model, ids = tiny_gpt(dropout=dropout), chain(100)
    runs = [
        fit(copy.deepcopy(model), ids, steps=4, batch_size=2, seed=seed).tolist()
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_each_parameter_is_in_one_of_two_groups_and_a_tied_one_once():
    model = tiny_gpt(bias=True)
    decayed, others = param_groups(model, weight_decay=0.3)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    grouped = [id(parameter) for parameter in decayed["params"] + others["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())
    assert {parameter.dim() for parameter in decayed["params"]} == {2}
    assert {parameter.dim() for parameter in others["params"]} == {1}


# ---------------------------------------------------------------- a session that ends


class SessionOver(Exception):
    pass


def until(last):
    """A callback that ends the session before step `last`."""

    def callback(step, model):
        if step == last:
            raise SessionOver

    return callback


def test_the_callback_is_called_before_each_step():
    seen, model = [], tiny_gpt()
    start = copy.deepcopy(model.state_dict())
    fit(
        model,
        chain(100),
        steps=4,
        batch_size=2,
        callback=lambda step, model: seen.append(
            (
                step,
                model.training,
                all(torch.equal(start[name], now) for name, now in model.state_dict().items()),
            )
        ),
    )
    assert seen == [(0, True, True), (1, True, False), (2, True, False), (3, True, False)]


@pytest.mark.parametrize("last", [1, 4, 9])
def test_a_training_that_was_cut_off_goes_on_to_the_last_bit(last, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", 0)
    settings = {"steps": 10, "batch_size": 2, "lr": 1e-2}
    whole, ids, path = tiny_gpt(dropout=0.3), chain(100), tmp_path / "state.pt"
    losses = fit(whole, ids, **settings)
    with pytest.raises(SessionOver):
        fit(tiny_gpt(dropout=0.3), ids, **settings, checkpoint_path=path, callback=until(last))
    torch.manual_seed(5)  # another day
    steps, model = [], tiny_gpt(dropout=0.3)
    resumed = fit(
        model,
        ids,
        **settings,
        checkpoint_path=path,
        callback=lambda step, model: steps.append(step),
    )
    assert torch.equal(resumed, losses)
    assert steps == list(range(last, 10)) and not list(tmp_path.glob("*.part"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters()))


@pytest.mark.parametrize("content", [b"", b"half a file", None])
def test_a_saved_state_that_is_damaged_does_not_count(content, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", 0)
    path, ids = tmp_path / "state.pt", chain(100)
    with pytest.raises(SessionOver):
        fit(tiny_gpt(), ids, steps=5, checkpoint_path=path, callback=until(3))
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    assert torch.equal(
        fit(tiny_gpt(), ids, steps=5, checkpoint_path=path), fit(tiny_gpt(), ids, steps=5)
    )


def test_a_folder_that_outlives_the_session(tmp_path, monkeypatch, fits):
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", 0)
    settings, folder, steps = (
        {"sample_chars": 6, "steps": 5, "batch_size": 2},
        tmp_path / "drive" / "chargpt",
        [],
    )
    with pytest.raises(
        FileNotFoundError, match="no .*drive: create it .*mount Google Drive"
    ):  # or Colab could not mount it
        load_or_fit("GPT", tiny_gpt(), CORPUS, cache_dir=folder, **settings)
    folder.parent.mkdir()
    with pytest.raises(SessionOver):
        load_or_fit("GPT", tiny_gpt(), CORPUS, cache_dir=folder, callback=until(3), **settings)
    assert [path.suffix for path in folder.iterdir()] == [".pt"]
    model = tiny_gpt()
    result = load_or_fit(
        "GPT",
        model,
        CORPUS,
        cache_dir=folder,
        callback=lambda step, model: steps.append(step),
        **settings,
    )
    assert steps == [3, 4] and {path.suffix for path in folder.iterdir()} == {
        ".json",
        ".safetensors",
    }
    shutil.rmtree(cache_dir())  # with the session
    again = tiny_gpt()
    assert (
        load_or_fit("GPT", again, CORPUS, cache_dir=folder, **settings) == result and len(fits) == 2
    )
    assert ladder(CORPUS.name)["GPT"]["loss"] == result["loss"]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))


def test_what_a_stopped_run_left_beside_its_result_is_deleted(tmp_path, monkeypatch):
    settings = {"sample_chars": 6, "steps": 3, "batch_size": 2}
    # The process is killed when weights and report are written, just before it deletes the unfinished training.
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", 0)
    unlink = Path.unlink

    def killed_at_the_last(path, missing_ok=False):
        if path.suffix == ".pt":
            raise SessionOver
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed_at_the_last)
        with pytest.raises(SessionOver):
            load_or_fit("GPT", tiny_gpt(), CORPUS, cache_dir=tmp_path / "cache", **settings)
    suffixes = {path.suffix for path in (tmp_path / "cache").iterdir()}
    assert suffixes == {".json", ".safetensors", ".pt"}
    load_or_fit("GPT", tiny_gpt(), CORPUS, cache_dir=tmp_path / "cache", **settings)
    suffixes = {path.suffix for path in (tmp_path / "cache").iterdir()}
    assert suffixes == {".json", ".safetensors"}


# ---------------------------------------------------------------- measuring


def naive(model, ids, stride, block_size):
    """What each character costs, asked for one at a time."""
    paid = []
    for at in range(1, len(ids)):
        window = (at - 1) // stride
        past = ids[max(0, (window + 1) * stride - block_size) : at]
        paid.append(-model(past[None])[0][0, -1].log_softmax(0)[ids[at]].item())
    return paid


@pytest.mark.parametrize("length", [2, 3, 5, 6, 7, 10, 11, 12, 23])
@pytest.mark.parametrize("stride", [None, 5, 3, 2, 1])
def test_the_exact_loss_asks_for_each_character_once(length, stride):
    model, ids = tiny_gpt(dropout=0.5), torch.randint(7, (length,))
    for weight in model.parameters():
        weight.data.mul_(20)
    found = per_token_loss(model.train(), ids, stride, batch_size=2)
    expected = naive(model.eval(), ids, stride or 5, 5)
    assert found.tolist() == pytest.approx(expected, abs=1e-4)
    assert evaluate(model, ids, stride) == pytest.approx(sum(expected) / (length - 1), abs=1e-4)


@pytest.mark.parametrize(
    "length, stride, said",
    [(0, None, "fewer than 2"), (1, None, "fewer than 2"), (20, 6, "stride"), (20, -1, "stride")],
)
def test_what_cannot_be_measured(length, stride, said):
    with pytest.raises(ValueError, match=said):
        evaluate(tiny_gpt(), torch.zeros(length, dtype=torch.int64), stride)


def test_the_sampled_loss_is_near_the_exact_one():
    model, ids = BigramLanguageModel(3, block_size=8), chain(3000)
    nn.init.normal_(model.table.weight)
    paid = per_token_loss(model, ids)
    a, b, c = (
        estimate_loss(model, ids, 40, 32, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert a == b != c
    assert (
        max(abs(x - paid.mean().item()) for x in (a, c))
        < 5 * paid.std().item() / (40 * 32 * 8) ** 0.5
    )


def test_the_sampled_loss_of_a_text_of_one_window_is_exact():
    model, ids = tiny_gpt(dropout=0.5), torch.randint(7, (6,))
    assert estimate_loss(model, ids, batches=3, batch_size=2) == pytest.approx(
        evaluate(model, ids), abs=1e-5
    )


# ---------------------------------------------------------------- what a result depends on

CORPUS = Corpus("toy", "abcdef\n" * 30, "fabcde\n" * 9)
CHANGES = {
    "a seed": dict(seed=1),
    "heads": dict(n_head=4),
    "dropout": dict(dropout=0.1),
    "ReLU": dict(activation="relu"),
    "no scaling": dict(scaled_init=False),
    "untied": dict(tied=False),
    "a block": dict(block_size=4),
}


def test_the_same_run_has_the_same_key():
    asked = tiny_gpt()
    evaluate(asked, torch.zeros(9, dtype=torch.int64))
    keys = {
        cache_file_name(cache_key("GPT", model, CORPUS, {"steps": 3, "lr": 0.1}))
        for model in (tiny_gpt(), tiny_gpt(), asked)
    }
    turned = cache_key("GPT", tiny_gpt(), CORPUS, {"lr": 0.1, "steps": 3})
    assert len(keys) == 1 and cache_file_name(turned) in keys


def test_a_key_can_be_read():
    key = cache_key("GPT", tiny_gpt(dropout=0.1), CORPUS, {"steps": 3})
    assert (key["name"], key["library"], key["settings"]) == (
        "GPT",
        chargpt_lib.__version__,
        {"steps": 3},
    )
    assert key["config"]["n_head"] == 2 and key["config"]["dropout"] == 0.1
    assert {"GPT", "Block", "LanguageModel"} <= key["classes"].keys()
    assert "Module" not in key["classes"] and key["corpus"].startswith("toy ")
    assert json.loads(json.dumps(key)) == key


@pytest.mark.parametrize("change", CHANGES)
def test_another_model_has_another_key(change):
    assert cache_key("GPT", tiny_gpt(**CHANGES[change]), CORPUS, {}) != cache_key(
        "GPT", tiny_gpt(), CORPUS, {}
    )


@pytest.mark.parametrize(
    "name, corpus, settings",
    [
        ("GPT", CORPUS, {"steps": 4}),
        ("GPT", CORPUS, {"steps": 3, "lr": 0.2}),
        ("GPT", CORPUS, {}),
        ("GPT", CORPUS._replace(train="abcdef\n" * 31), {"steps": 3}),
        ("GPT", CORPUS._replace(val="bacdef\n" * 9), {"steps": 3}),
        (
            "GPT",
            CORPUS._replace(train=CORPUS.train[:-7], val=CORPUS.train[-7:] + CORPUS.val),
            {"steps": 3},
        ),
        ("GPT, another helper", CORPUS, {"steps": 3}),
    ],
)
def test_another_text_or_setting_or_name_has_another_key(name, corpus, settings):
    assert cache_key(name, tiny_gpt(), corpus, settings) != cache_key(
        "GPT", tiny_gpt(), CORPUS, {"steps": 3}
    )


def test_another_version_of_the_library_has_another_key(monkeypatch):
    before = cache_key("GPT", tiny_gpt(), CORPUS, {})
    monkeypatch.setattr(chargpt_lib, "__version__", "99")
    assert cache_key("GPT", tiny_gpt(), CORPUS, {}) != before


TOY = """
import functools
from chargpt_lib.bigram import BigramLanguageModel

def called(x): return x * 1

def decorator(function):
    @functools.wraps(function)
    def decorated(*args): return function(*args)
    return decorated

class Base(BigramLanguageModel):
    def compute_logits(self, idx):
        return called(super().compute_logits(idx)) * 2

class Toy(Base):
    def compute_logits(self, idx):
        return super().compute_logits(idx) + sum(x + 3 for x in (4,))

    @property
    def temperature(self): return 5

    @staticmethod
    def helper(x): return 6

    @decorator
    def wrapped(self): return 7
"""


def toy_key(text, path, module_name):
    """The cache key of the model in a text, as a module or a notebook defines it."""
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    return cache_key("toy", module.Toy(4), CORPUS, {})


@pytest.mark.parametrize("module_name", ["__main__", "chargpt_lib.toy"])
@pytest.mark.parametrize("digit", "234567")
def test_a_changed_class_has_another_key_and_an_unchanged_one_has_not(digit, module_name, tmp_path):
    keys = [
        toy_key(text, tmp_path / f"{version}.py", module_name)
        for version, text in enumerate((TOY, TOY, TOY.replace(digit, "9")))
    ]
    assert keys[0] == keys[1] != keys[2]


def test_a_class_in_a_notebook_has_the_key_of_the_one_in_the_library(tmp_path):
    """Lesson 06 defines the GPT that lesson 08 imports, and both want it trained once."""
    assert toy_key(TOY, tmp_path / "a.py", "__main__") == toy_key(
        TOY, tmp_path / "b.py", "chargpt_lib.toy"
    )


def test_a_changed_function_that_a_method_calls_is_not_seen(tmp_path):
    """The limit that `cache_key` states; another name is the way out."""
    assert toy_key(TOY, tmp_path / "a.py", "__main__") == toy_key(
        TOY.replace("x * 1", "x * 9"), tmp_path / "b.py", "__main__"
    )


CELLS = """
import json
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
for cell in json.loads(input()):
    shell.run_cell(cell).raise_error()
"""


def test_a_class_that_a_notebooks_cell_defines_is_in_the_key():
    """inspect.getsource cannot read such a class as a whole, in no version of Python."""
    define = (
        TOY
        + "torch.manual_seed(0)\nkeys.append(cache_file_name(cache_key('toy', Toy(4), corpus, {})))"
    )
    begin = (
        "import torch; from chargpt_lib.training import cache_key, cache_file_name; keys = []\n"
        "from chargpt_lib.data import Corpus; corpus = Corpus('toy', 'abc', 'abc')"
    )
    cells = [begin, define, "\n\n" + define, define.replace("x + 3", "x + 9"), "print(*keys)"]
    run = subprocess.run(
        [sys.executable, "-c", CELLS],
        input=json.dumps(cells),
        capture_output=True,
        text=True,
        check=True,
    )
    first, again, changed = run.stdout.split()
    assert first == again != changed


# ---------------------------------------------------------------- train once


@pytest.fixture
def fits(monkeypatch):
    """How often `fit` was called: the length of this list."""
    calls, real = [], training.fit

    @functools.wraps(real)
    def counted(*args, **settings):
        calls.append(settings)
        return real(*args, **settings)

    monkeypatch.setattr(training, "fit", counted)
    return calls


def run(rung="GPT", corpus=CORPUS, **changes):
    model = tiny_gpt(**changes)
    return model, load_or_fit(rung, model, corpus, sample_chars=6, steps=5, batch_size=2)


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_is_trained_once(tied, fits):
    (first, trained), (second, loaded) = run(tied=tied), run(tied=tied)
    [settings] = fits
    assert (
        settings["steps"] == 5
        and settings["batch_size"] == 2
        and not settings["checkpoint_path"].exists()
    )
    assert loaded == trained and not first.training and not second.training
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values())
    )
    assert (second.lm_head.weight is second.token_embedding.weight) == tied
    assert not torch.equal(second.lm_head.weight, tiny_gpt(tied=tied).lm_head.weight)
    val_ids = CharTokenizer.from_text(CORPUS.train).encode(CORPUS.val)
    assert loaded["loss"] == pytest.approx(evaluate(second, val_ids)) and len(loaded["losses"]) == 5
    assert (
        set(loaded["sample"]) <= set("abcdef\n")
        and len(loaded["sample"]) <= 7
        and loaded["seconds"] > 0
    )
    assert loaded["floor"] is None and loaded["excess"] == {}


def test_the_loss_of_a_model_of_tokens_is_told_per_character(fits):
    train, val = write(3000, seed=1), write(3000, seed=2)
    corpus = Corpus("toy", train.text, val.text, val.entropy, tuple(val.spans))
    tokenizer = BPETokenizer.train(corpus.train, 300)
    ids = tokenizer.encode(corpus.val)

    def train_with(tokenizer):
        torch.manual_seed(0)
        model = BigramLanguageModel(tokenizer.vocab_size)
        return model, load_or_fit("bigram", model, corpus, steps=3, tokenizer=tokenizer)

    model, result = train_with(tokenizer)
    first = len(tokenizer.decode(ids[:1]))
    nats = evaluate(model, ids) * (len(ids) - 1)
    assert result["loss"] == pytest.approx(nats / (len(corpus.val) - first))
    assert sum(result["excess"].values()) == pytest.approx(result["loss"] - val.entropy, abs=0.01)
    # At first it knows nothing: each token costs about ln V.
    length = len(tokenizer.encode(corpus.train)) / len(corpus.train)
    assert result["losses"][0] == pytest.approx(log(tokenizer.vocab_size) * length, abs=0.1)
    # A second time it is loaded; with other merges, as many, it is another model.
    assert train_with(tokenizer)[1] == result and len(fits) == 1
    train_with(BPETokenizer.train(corpus.val, 300))
    assert len(fits) == 2


def test_the_characters_of_a_token_share_its_nats():
    tokenizer = BPETokenizer.train("goose geese " * 9, 270)
    text = "goose 🪿 né geese"
    ids = tokenizer.encode(text)
    nats = torch.arange(1.0, len(ids))
    shares = nats_by_character(nats, ids, tokenizer)
    assert len(shares) == len(text)
    first = len(tokenizer.decode(ids[:1]))
    assert shares[:first] == [None] * first
    assert sum(shares[first:]) == pytest.approx(nats.sum().item())
    # The bird's bytes are no tokens of more than one byte, so it costs the sum of four.
    place = tokenizer.encode(text[: text.index("🪿")]).tolist()
    bird = nats[len(place) - 1 : len(place) + 3].sum().item()
    assert shares[text.index("🪿")] == pytest.approx(bird)
    # By weights: all that " geese" costs is for its "ee".
    weights = [0.0] * len(text)
    weights[-4:-2] = [1.0, 3.0]
    shared = nats_by_character(nats, ids, tokenizer, weights)
    last = nats[-1].item()
    assert tokenizer.decode(ids[-1:]) == " geese"
    assert shared[-6:] == pytest.approx([0, 0, last / 4, 3 * last / 4, 0, 0])
    assert shared[:-6] == pytest.approx(shares[:-6])
    characters = CharTokenizer.from_text("abc")
    assert nats_by_character(torch.tensor([1.0, 2.0]), characters.encode("abc"), characters) == [
        None,
        1.0,
        2.0,
    ]


def test_on_playhouse_each_kind_has_its_excess():
    train, val = write(3000, seed=1), write(3000, seed=2)
    tokenizer = CharTokenizer.from_text(train.text + val.text)
    model = BigramLanguageModel(tokenizer.vocab_size)
    result = load_or_fit(
        "bigram", model, Corpus("toy", train.text, val.text, val.entropy, tuple(val.spans)), steps=3
    )
    paid, expected = naive(model, tokenizer.encode(val.text), 1, 1), dict.fromkeys(KINDS, 0.0)
    for start, end, kind, price in val.spans[1:]:  # nobody is asked for the first character
        expected[kind] += (sum(paid[start - 1 : end - 1]) - price) / (
            len(val.text) - val.spans[0].end
        )
    assert result["excess"] == pytest.approx(expected, abs=1e-5)
    assert result["floor"] == val.entropy and result["loss"] == pytest.approx(
        sum(paid) / len(paid), abs=1e-5
    )


@pytest.mark.parametrize(
    "file, trained", [(0, 2), (1, 2), (2, 1)], ids=["weights", "report", "ladder"]
)
def test_a_run_that_breaks_off_can_be_repeated(file, trained, fits, monkeypatch):
    real, calls = os.replace, []

    def replace(*names):
        calls.append(names)
        if len(calls) > file:
            raise KeyboardInterrupt
        real(*names)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", replace)
        run()
    (_, result), (_, again) = run(), run()
    assert (
        len(fits) == trained and result == again and ladder("toy")["GPT"]["loss"] == result["loss"]
    )


def test_half_a_file_has_no_name_that_is_loaded(monkeypatch):
    def half(model, path):
        Path(path).write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(caching, "save_model", half)
    with pytest.raises(OSError, match="full"):
        run()
    assert not [path for path in cache_dir().iterdir() if path.suffix in (".safetensors", ".json")]


@pytest.mark.parametrize(
    "file, trained", [("*.safetensors", 2), (16 * "?" + ".json", 2), ("ladder.json", 1)]
)
@pytest.mark.parametrize(
    "damage",
    [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:20])],
    ids=["lost", "cut"],
)
def test_a_damaged_file_is_made_again(file, trained, damage, fits):
    _, first = run()
    [path] = cache_dir().glob(file)
    damage(path)
    (_, again), (_, loaded) = run(), run()
    assert first["losses"] == again["losses"] == loaded["losses"] and len(fits) == trained
    assert ladder("toy")["GPT"]["loss"] == first["loss"]


def test_a_text_of_one_line_has_a_sample_too():
    _, result = run(corpus=Corpus("genes", "acgt" * 30, "ttga" * 9), vocab_size=4)
    assert result["sample"] and set(result["sample"]) <= set("acgt")


@pytest.mark.parametrize("vocab_size", [6, 8])
def test_a_model_for_another_alphabet_is_refused_before_it_is_trained(vocab_size, fits):
    with pytest.raises(ValueError, match=f"{vocab_size}.*7|7.*{vocab_size}"):
        run(vocab_size=vocab_size)
    assert not fits


# ---------------------------------------------------------------- the ladder

ROW = {
    "loss": 2.0,
    "floor": 0.3,
    "seconds": 1.0,
    "excess": dict.fromkeys(KINDS, 0.1),
    "sample": "Ha!",
}


@pytest.fixture
def record(monkeypatch):
    """What comes with the course: two corpora, one with spans and one without."""
    rungs = {"GPT": ROW, "bigram": ROW | {"loss": 3.0}}
    plain = {rung: row | {"excess": {}, "floor": None} for rung, row in rungs.items()}
    monkeypatch.setattr(training, "bundled_results", lambda: {"playhouse": rungs, "toy": plain})


def test_the_ladder_tells_own_results_from_recorded_ones(record):
    result = run("blocks")[1]
    run("GPT", CORPUS._replace(name="another"))
    rows = ladder("toy")
    assert [(rung, row["recorded"], row["loss"]) for rung, row in rows.items()] == [
        ("bigram", True, 3.0),
        ("blocks", False, result["loss"]),
        ("GPT", True, 2.0),
    ]
    assert (
        rows["blocks"].keys() == rows["GPT"].keys()
        and list(ladder()) == ["bigram", "GPT"]
        and ladder("none") == {}
    )
    own = run("GPT")[1]
    assert (ladder("toy")["GPT"]["recorded"], ladder("toy")["GPT"]["loss"]) == (False, own["loss"])


def labels(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_the_picture_of_a_ladder_with_spans(record):
    ax = plot_ladder("playhouse").axes[0]
    assert labels(ax) == ["bigram (recorded)", "GPT (recorded)"] and ax.yaxis_inverted()
    assert [bars[0].get_width() for bars in ax.containers] == pytest.approx(
        [0.3] + [0.1] * len(KINDS)
    )


def test_the_picture_of_a_ladder_without_spans(record):
    result = run("blocks")[1]
    ax = plot_ladder("toy").axes[0]
    assert labels(ax) == ["bigram (recorded)", "blocks", "GPT (recorded)"] and ax.yaxis_inverted()
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([3.0, result["loss"], 2.0])
    assert "toy" in ax.get_title() and labels(plot_ladder("toy", up_to="blocks").axes[0]) == [
        "bigram (recorded)",
        "blocks",
    ]


@pytest.mark.parametrize("corpus, up_to", [("nowhere", "GPT"), ("late", "blocks")])
def test_a_ladder_without_rungs_says_so(corpus, up_to, monkeypatch):
    monkeypatch.setattr(training, "bundled_results", lambda: {"late": {"GPT": ROW}})
    with pytest.raises(ValueError, match=corpus):
        plot_ladder(corpus, up_to)


def test_a_rung_that_is_none_is_named():
    with pytest.raises(ValueError, match="'typo'.*bigram, single head"):
        plot_ladder(up_to="typo")


def test_a_text_in_place_of_ids_is_named():
    model = BigramLanguageModel(4, 8)
    with pytest.raises(ValueError, match=r"ids is a str, expected a tensor \(N,\)"):
        evaluate(model, "abc")
    with pytest.raises(ValueError, match=r"idx is a text, expected ids \(B, T\)"):
        model("abc")
