"""Checkpoints: a resumed run against an uninterrupted one, full disks, killed programs, and files that mean harm."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from chargpt_lib.bigram import BigramLanguageModel
from chargpt_lib.checkpoints import (
    MODEL_TYPES,
    build_model,
    checkpoint_step,
    find_checkpoint,
    get_rng_states,
    load_checkpoint,
    load_model,
    model_classes,
    save_checkpoint,
    save_model,
    set_rng_states,
)
from chargpt_lib.data import TOKENIZERS, CharTokenizer
from chargpt_lib.gpt import GPTConfig
from chargpt_lib.modern import ModernConfig, Muon, muon_param_groups
from chargpt_lib.sampling import prepare_for_sampling

TOKENIZER = CharTokenizer("abcdefgh\n 'é")
V = TOKENIZER.vocab_size
CONFIG = GPTConfig(V, block_size=8, n_layer=2, n_head=2, n_embd=16, dropout=0.2)
MODERN = ModernConfig(
    V,
    block_size=8,
    n_layer=2,
    n_head=4,
    n_kv_head=2,
    n_embd=16,
    dropout=0.2,
    n_gram=3,
    n_gram_rows=50,
)
FAMILIES = {
    "small": CONFIG,
    "lecture": GPTConfig.lecture(V, block_size=8, n_embd=16, n_head=2, n_layer=2),
    "all biases, tied": replace(CONFIG, bias=True, qkv_bias=True, activation="gelu_tanh"),
    "not tied": replace(CONFIG, tied=False, scaled_init=False, dropout=0),
    "modern": MODERN,
    "modern, with parts of before": replace(
        MODERN,
        n_kv_head=0,
        norm="layer",
        positions="learned",
        activation="gelu",
        qk_norm=False,
        softcap=0.0,
        n_gram=0,
        tied=False,
    ),
}
ROOT = Path(__file__).parents[1]
posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits of processes")


def gpt(config=CONFIG, seed=3):
    torch.manual_seed(seed)
    return build_model(config)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def tree(folder):
    """Everything in a folder, byte by byte."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# ---------------------------------------------------------------- a model to take away


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
def test_a_saved_model_is_the_same_model(config, tmp_path):
    model = gpt(config)
    save_model(model, TOKENIZER, tmp_path / "new" / "folder")
    assert sorted(tree(tmp_path / "new" / "folder")) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    before = torch.get_rng_state()
    copy, tokenizer = load_model(tmp_path / "new" / "folder")
    assert torch.equal(before, torch.get_rng_state()), "loading draws no random numbers"
    assert type(copy) is type(model) and not copy.training and copy.config == config
    assert tokenizer.to_dict() == TOKENIZER.to_dict() and same(weights(model), weights(copy))
    assert copy.num_params() == model.num_params(), "a tied table is tied again"
    assert (copy.lm_head.weight is copy.token_embedding.weight) == config.tied


def test_the_config_and_the_tokenizer_are_plain_json(tmp_path):
    save_model(gpt(), TOKENIZER, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "model_type": "gpt",
        **asdict(CONFIG),
    }
    assert json.loads((tmp_path / "tokenizer.json").read_text()) == {
        "type": "char",
        "alphabet": TOKENIZER.alphabet,
    }
    names = load_file(tmp_path / "model.safetensors")
    assert sum(tensor.numel() for tensor in names.values()) == gpt().num_params(), (
        "a tied table is written once"
    )


def as_saved_before_tokenizers_had_a_type(folder):
    """Makes a folder what earlier versions of the course wrote: the alphabet alone, a text, in alphabet.json.

    There was one kind of model, and config.json did not say which.
    """
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").unlink()
    (folder / "alphabet.json").write_text(json.dumps(TOKENIZER.alphabet))


def test_models_and_checkpoints_of_earlier_versions_still_load(tmp_path):
    model = gpt()
    save_model(model, TOKENIZER, tmp_path / "model")
    folder = save_checkpoint(tmp_path / "run", model, TOKENIZER, {"a": 1}, 3)
    for old in (tmp_path / "model", folder):
        as_saved_before_tokenizers_had_a_type(old)
    copy, tokenizer = load_model(tmp_path / "model")
    assert tokenizer.to_dict() == TOKENIZER.to_dict() and same(weights(copy), weights(model))
    other = gpt(seed=5)
    assert load_checkpoint(tmp_path / "run", other, TOKENIZER)["step"] == 3
    assert same(weights(other), weights(model))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_each_type_names_its_classes_and_they_name_it(model_type):
    config_class, model_class = model_classes(model_type)
    config = config_class(V, block_size=8, n_layer=1, n_head=2, n_embd=8)
    assert config.model_type == model_type and "model_type" not in asdict(config)
    model = build_model(config)
    assert type(model) is model_class and model.config is config


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
def test_a_model_has_the_parameters_that_its_config_promises(config):
    """What `load_model` asks of a file before it builds the model must never be too much."""
    assert 0.6 * gpt(config).num_params() < config.min_parameters() <= gpt(config).num_params()


class Mirror(CharTokenizer):
    """A tokenizer of another class: its ids go down from the end of the alphabet."""

    def encode(self, text):
        return self.vocab_size - 1 - super().encode(text)

    def decode(self, ids):
        return super().decode(self.vocab_size - 1 - torch.as_tensor(ids))

    def to_dict(self):
        return {**super().to_dict(), "type": "mirror"}


def test_a_checkpoint_of_any_tokenizer_comes_back_with_it(tmp_path, monkeypatch):
    monkeypatch.setitem(TOKENIZERS, "mirror", f"{__name__}:Mirror")
    mirror = Mirror(TOKENIZER.alphabet)
    save_checkpoint(tmp_path, gpt(), mirror, {"a": 1}, 3)
    _, tokenizer = load_model(tmp_path)
    assert type(tokenizer) is Mirror and tokenizer.decode(mirror.encode("head")) == "head"
    assert load_checkpoint(tmp_path, gpt(), mirror)["a"] == 1
    with pytest.raises(ValueError, match=r"id 0 is 'é' there, '\\n' here"):
        load_checkpoint(tmp_path, gpt(), TOKENIZER)


def test_a_compiled_model_is_saved_as_the_model_that_it_holds(tmp_path):
    model = gpt()
    compiled = torch.compile(model)  # lazily: nothing is compiled before the first call
    save_model(compiled, TOKENIZER, tmp_path / "a")
    assert same(weights(load_model(tmp_path / "a")[0]), weights(model))
    save_checkpoint(tmp_path / "b", compiled, TOKENIZER, {}, 1)
    other = gpt(seed=4)
    load_checkpoint(tmp_path / "b", torch.compile(other), TOKENIZER)
    assert same(weights(other), weights(model))


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: name.replace("blocks.0.", "blocks.0._orig_mod."),
    ],
    ids=["compiled", "DDP", "compiled and DDP", "a compiled block"],
)
def test_weights_saved_from_a_wrapped_model_load(wrapped, config, tmp_path):
    model = gpt(config)
    save_model(model, TOKENIZER, tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({wrapped(name): weight for name, weight in load_file(path).items()}, path)
    loaded, _ = load_model(tmp_path)
    assert same(weights(loaded), weights(model))


def test_a_model_in_a_wrapper_is_saved_as_itself(tmp_path):
    class Wrapper(torch.nn.Module):  # as DistributedDataParallel has it
        def __init__(self, module):
            super().__init__()
            self.module = module

    model = gpt()
    for name, wrapped in (
        ("ddp", Wrapper(model)),
        ("compiled ddp", torch.compile(Wrapper(model))),
        ("ddp compiled", Wrapper(torch.compile(model))),
    ):
        save_model(wrapped, TOKENIZER, tmp_path / name)
        loaded, _ = load_model(tmp_path / name)
        assert same(weights(loaded), weights(model))


def test_weights_of_fewer_digits_are_read_into_more_and_not_the_other_way(tmp_path):
    model = gpt().bfloat16()
    save_checkpoint(tmp_path, model, TOKENIZER, {}, 1)
    copy, _ = load_model(tmp_path)
    assert torch.equal(copy.norm.weight, model.norm.weight.float())
    save_checkpoint(tmp_path, gpt(), TOKENIZER, {}, 2)
    with pytest.raises(ValueError, match=r"model\.safetensors: .*float32.*bfloat16"):
        load_checkpoint(tmp_path, model, TOKENIZER)


def test_what_cannot_be_built_again_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="BigramLanguageModel has no GPTConfig"):
        save_model(BigramLanguageModel(V), TOKENIZER, tmp_path)
    with pytest.raises(ValueError, match=f"tokenizer has vocab_size 3, the model {V}"):
        save_checkpoint(tmp_path, gpt(), CharTokenizer("abc"), {}, 1)
    prepared = prepare_for_sampling(gpt(), "int8")
    with pytest.raises(ValueError, match=r"has no blocks.*prepared for int8"):
        save_model(prepared, TOKENIZER, tmp_path)
    assert not tree(tmp_path)


def test_a_copy_with_split_matrices_is_saved_as_the_model_it_is(tmp_path):
    model = gpt()
    save_model(prepare_for_sampling(model), TOKENIZER, tmp_path)
    loaded, _ = load_model(tmp_path)
    assert same(loaded.state_dict(), model.state_dict())


def test_a_model_is_not_saved_over_a_run(tmp_path):
    save_checkpoint(tmp_path, gpt(), TOKENIZER, {}, 1)
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match="checkpoints of a run.*another folder"):
        save_model(gpt(seed=4), TOKENIZER, tmp_path)
    assert tree(tmp_path) == before


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        load_model(tmp_path / "nowhere")
    save_model(gpt(), TOKENIZER, tmp_path)
    with pytest.raises(FileNotFoundError, match="model.safetensors is a file: give the folder"):
        load_model(str(tmp_path / "model.safetensors"))


# ---------------------------------------------------------------- random generators


def draw_from_all(*generators):
    model = gpt(replace(CONFIG, dropout=0.5), seed=torch.randint(99, ()).item())
    logits = model(torch.zeros(1, 8, dtype=torch.int64))[0]
    drawn = [random.random(), random.gauss(0, 1), numpy.random.rand(), numpy.random.randn()]
    mine = [torch.rand(2, generator=generator).tolist() for generator in generators]
    return [*drawn, torch.randn(3).tolist(), logits.tolist(), mine]


def test_all_generators_draw_again_what_they_drew(tmp_path):
    generators = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    (
        random.gauss(0, 1),
        numpy.random.randn(),
        torch.randn(3),
    )  # so that halves of pairs are kept in reserve
    states = get_rng_states(*generators)
    torch.save(states, tmp_path / "states")
    first = draw_from_all(*generators)
    assert draw_from_all(*generators) != first
    set_rng_states(torch.load(tmp_path / "states", weights_only=True), *generators)
    assert draw_from_all(*generators) == first


def test_states_of_absent_devices_and_missing_generators():
    one = torch.Generator()
    states = get_rng_states(one)
    with pytest.raises(ValueError, match="1 generators were saved, and 0 are given"):
        set_rng_states(states)
    if not torch.cuda.is_available():
        set_rng_states({**states, "cuda": [torch.get_rng_state()]}, one)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no graphics card")
def test_the_generator_of_a_graphics_card():
    states = get_rng_states()
    first = torch.rand(5, device="cuda").tolist()
    set_rng_states(states)
    assert torch.rand(5, device="cuda").tolist() == first


# ---------------------------------------------------------------- as if nothing had happened


class Run:
    """A training loop of these tests' own: groups, a scheduler, a scaler, dropout, an order of windows.

    A modern GPT is trained by Muon, any other by AdamW.
    """

    def __init__(self, seed, config=CONFIG):
        torch.manual_seed(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(V, (400,), generator=torch.Generator().manual_seed(0))
        self.model, self.place, self.losses = build_model(config), 0, []
        if config.model_type == "modern":
            groups = muon_param_groups(self.model, 0.1)
            self.optimizer = Muon(groups, lr=3e-2, betas=(0.9, 0.99), fused=True)
        else:
            matrices = [p for p in self.model.parameters() if p.dim() > 1]
            vectors = [p for p in self.model.parameters() if p.dim() < 2]
            self.optimizer = torch.optim.AdamW(
                [{"params": matrices}, {"params": vectors, "weight_decay": 0}], lr=3e-2
            )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 30)

    def step(self):
        self.model.train()
        start = (
            self.place + int(torch.randint(3, (), generator=self.generator)) + random.randrange(3)
        ) % 300
        start += int(numpy.random.randint(2))
        x = torch.stack([self.ids[start + i : start + i + 8] for i in range(4)])
        y = torch.stack([self.ids[start + i + 1 : start + i + 9] for i in range(4)])
        loss = F.cross_entropy(self.model(x)[0].flatten(0, 1), y.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.place += 4
        self.losses.append(loss.item())

    def state(self):
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "place": self.place,
            "losses": self.losses,
            "random": get_rng_states(self.generator),
        }

    def resume(self, out, which="last"):
        state = load_checkpoint(out, self.model, TOKENIZER, which)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.place, self.losses = state["place"], state["losses"]
        set_rng_states(state["random"], self.generator)
        return state["step"]


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("killed", [1, 13])
def test_a_resumed_run_is_the_same_run_to_the_last_bit(config, killed, tmp_path):
    random.seed(5), numpy.random.seed(5)
    whole = Run(7, config)
    for step in range(30):
        if step == killed:
            save_checkpoint(tmp_path, whole.model, TOKENIZER, whole.state(), step)
        whole.step()
    random.seed(99), numpy.random.seed(99)
    resumed = Run(8, config)
    resumed.step()
    assert resumed.resume(tmp_path) == killed
    for _ in range(killed, 30):
        resumed.step()
    assert resumed.losses == whole.losses and same(weights(resumed.model), weights(whole.model))
    moments = zip(
        resumed.optimizer.state_dict()["state"].values(),
        whole.optimizer.state_dict()["state"].values(),
    )
    assert (
        all(same(*pair) for pair in moments)
        and resumed.schedule.get_last_lr() == whole.schedule.get_last_lr()
    )
    assert draw_from_all(resumed.generator) is not None


@pytest.mark.parametrize("forgotten", ["optimizer", "random", "place", "schedule"])
def test_whatever_is_forgotten_is_missed(forgotten, tmp_path):
    """The test above could fail."""
    random.seed(5), numpy.random.seed(5)
    whole = Run(7)
    for step in range(20):
        if step == 9:
            fresh = Run(8)
            random.seed(5), numpy.random.seed(5), torch.manual_seed(5)
            whole.generator.manual_seed(5)
            state = {**whole.state(), forgotten: fresh.state()[forgotten]}
            save_checkpoint(tmp_path, whole.model, TOKENIZER, state, step)
            if forgotten == "random":
                (
                    whole.generator.manual_seed(6),
                    torch.manual_seed(6),
                    random.seed(6),
                    numpy.random.seed(6),
                )
        whole.step()
    resumed = Run(8)
    resumed.resume(tmp_path)
    for _ in range(9, 20):
        resumed.step()
    assert resumed.losses != whole.losses


def test_the_state_comes_back_as_it_was(tmp_path):
    state = {
        "numbers": [1, 2.5, None, True],
        "text": "O damp goose!",
        "nested": {"a": (1, (2,)), 3: torch.arange(4)},
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    folder = save_checkpoint(tmp_path / "deep" / "run", gpt(), TOKENIZER, state, 41)
    assert folder == tmp_path / "deep" / "run" / "step-00000041"
    for out in (tmp_path / "deep" / "run", folder):
        back = load_checkpoint(out, gpt(seed=9), TOKENIZER)
        assert back.pop("step") == 41 and str(back) == str(state)
    with pytest.raises(ValueError, match="it counts the steps"):
        save_checkpoint(tmp_path, gpt(), TOKENIZER, {}, -1)


# ---------------------------------------------------------------- last and best


def test_the_last_and_the_best_are_kept_and_nothing_else(tmp_path):
    """Against a list of what was saved."""
    rng, log = random.Random(1), []
    model = gpt()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "step-00000001-copy").mkdir()
    for _ in range(25):
        step, best = rng.choice([3, 5, 8, 10]), rng.random() < 0.3
        log.append((step, best, len(log)))
        torch.nn.init.constant_(model.norm.weight, len(log) - 1)
        folder = save_checkpoint(tmp_path, model, TOKENIZER, {"number": len(log) - 1}, step, best)
        wanted = {
            "last": log[-1],
            "best": next((entry for entry in reversed(log) if entry[1]), None),
        }
        for which, entry in wanted.items():
            other = gpt(seed=1)
            if entry:
                state = load_checkpoint(tmp_path, other, TOKENIZER, which)
                assert (state["step"], state["number"]) == (entry[0], entry[2])
                assert (other.norm.weight == entry[2]).all()
        kept = {entry for entry in wanted.values() if entry}
        assert load_model(tmp_path)[0].norm.weight[0] == (wanted["best"] or wanted["last"])[2]
        assert load_model(folder)[0].norm.weight[0] == log[-1][2]
        inside = {path.name for path in tmp_path.iterdir()} - {
            "notes.txt",
            "step-00000001-copy",
            "checkpoints.json",
        }
        assert len(inside) == len(kept) and not any(
            name.endswith(".part") for name in tree(tmp_path)
        )
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("step", [0, 99_999_999, 10**8, 10**9, 123_456_789_012])
def test_steps_of_any_number_of_digits(step, tmp_path):
    """The last one replaces those before it, and each folder's name tells its step."""
    for later in (step, step + 1, step + 1):
        folder = save_checkpoint(tmp_path, gpt(), TOKENIZER, {}, later)
        assert (
            checkpoint_step(folder) == later == load_checkpoint(tmp_path, gpt(), TOKENIZER)["step"]
        )
        assert find_checkpoint(tmp_path) == folder and list(tmp_path.glob("step-*")) == [folder]
    assert folder.name.endswith("-again")


@pytest.mark.parametrize("name", ["step-1", "step-00000001.part", "step-00000001-copy", "run", ""])
def test_a_name_without_a_step(name, tmp_path):
    with pytest.raises(ValueError, match="is not a checkpoint folder"):
        checkpoint_step(tmp_path / name)


def test_where_there_is_no_checkpoint(tmp_path):
    (tmp_path / "some file").write_text("")
    for ask in (lambda out: load_checkpoint(out, gpt(), TOKENIZER), load_model):
        with pytest.raises(FileNotFoundError, match="some file") as error:
            ask(tmp_path)
        assert str(tmp_path) in str(error.value)
        with pytest.raises(FileNotFoundError, match="nowhere.*right folder"):
            ask(tmp_path / "nowhere")
    save_checkpoint(tmp_path, gpt(), TOKENIZER, {}, 1)
    with pytest.raises(FileNotFoundError, match="no 'best' checkpoint.*step-00000001"):
        load_checkpoint(tmp_path, gpt(), TOKENIZER, "best")
    with pytest.raises(FileNotFoundError, match="no 'worst' checkpoint"):
        load_checkpoint(tmp_path, gpt(), TOKENIZER, "worst")


# ---------------------------------------------------------------- full disks, and other failures


def child(code, *args):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


FULL_DISK = """
import resource, sys, torch
from chargpt_lib.checkpoints import save_checkpoint, save_model
from chargpt_lib.data import TOKENIZERS, CharTokenizer
from chargpt_lib.gpt import GPT, GPTConfig
out, limit, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
model = GPT(GPTConfig(3, block_size=8, n_layer=2, n_head=2, n_embd=32))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    if what == "model":
        save_model(model, CharTokenizer("abc"), out)
    else:
        save_checkpoint(out, model, CharTokenizer("abc"), {"moments": torch.zeros(99999)}, 2, best=True)
except OSError as error:
    print(error)
"""


@posix
@pytest.mark.parametrize(
    "limit, file", [(20, "config.json"), (5000, "model.safetensors"), (250_000, "state.pt")]
)
def test_a_full_disk_is_told_and_takes_nothing_with_it(limit, file, tmp_path):
    config = GPTConfig(3, block_size=8, n_layer=2, n_head=2, n_embd=32)
    save_checkpoint(tmp_path, gpt(config), CharTokenizer("abc"), {"old": True}, 1)
    before = tree(tmp_path)
    said = child(FULL_DISK, tmp_path, limit, "checkpoint").communicate()[0]
    assert file in said and "is the disk full?" in said and "still there" in said
    assert tree(tmp_path) == before and not list(tmp_path.rglob("*.part"))
    assert load_checkpoint(tmp_path, gpt(config), CharTokenizer("abc"))["old"]


@posix
def test_a_full_disk_leaves_the_saved_model(tmp_path):
    config = GPTConfig(3, block_size=8, n_layer=2, n_head=2, n_embd=32)
    save_model(gpt(config), CharTokenizer("abc"), tmp_path)
    before = tree(tmp_path)
    assert (
        "model.safetensors could not be written"
        in child(FULL_DISK, tmp_path, 5000, "model").communicate()[0]
    )
    assert tree(tmp_path) == before


@pytest.mark.parametrize("fails", ["rename", "replace"])
def test_a_failure_at_the_last_moment_leaves_the_old_one(fails, tmp_path, monkeypatch):
    save_checkpoint(tmp_path, gpt(), TOKENIZER, {"old": True}, 1, best=True)
    before, real = tree(tmp_path), getattr(os, fails)

    def failing(a, b):
        if fails == "rename" or str(b).endswith("checkpoints.json"):
            raise OSError("no")
        return real(a, b)

    monkeypatch.setattr(os, fails, failing)
    with pytest.raises(OSError):
        save_checkpoint(tmp_path, gpt(), TOKENIZER, {}, 2, best=True)
    assert tree(tmp_path) == before and [path.name for path in tmp_path.glob("step-*")] == [
        "step-00000001"
    ]


@pytest.mark.parametrize(
    "thing, named",
    [
        (numpy.float64(3), "numpy"),
        (Path("a"), "pathlib"),
        ([{"deep": numpy.arange(2)}], "numpy"),
        (CONFIG, "GPTConfig"),
    ],
)
def test_what_could_not_be_read_again_is_refused_when_it_is_saved(thing, named, tmp_path):
    save_checkpoint(tmp_path, gpt(), TOKENIZER, {"old": True}, 1)
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=named):
        save_checkpoint(tmp_path, gpt(), TOKENIZER, {"thing": thing}, 2)
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        save_checkpoint(tmp_path, gpt(), TOKENIZER, {"thing": lambda: 1}, 2)
    assert tree(tmp_path) == before and not list(tmp_path.rglob("*.part"))


# ---------------------------------------------------------------- killed


SAVES = """
import itertools, sys, torch
from chargpt_lib.checkpoints import save_checkpoint
from chargpt_lib.data import TOKENIZERS, CharTokenizer
from chargpt_lib.gpt import GPT, GPTConfig
torch.manual_seed(0)
model = GPT(GPTConfig(3, block_size=8, n_layer=2, n_head=2, n_embd=32))
for step in itertools.count(int(sys.argv[2])):
    torch.nn.init.constant_(model.norm.weight, step)
    state = {"moments": torch.full((20_000,), step)}
    save_checkpoint(sys.argv[1], model, CharTokenizer("abc"), state, step, best=step % 3 == 0)
    print(step, flush=True)
"""


@posix
def test_twenty_killed_programs(tmp_path):
    """Each goes on in the folder that the one before it left, and is killed at a random moment."""
    rng, next_step, half_done = random.Random(0), 0, 0
    model = gpt(GPTConfig(3, block_size=8, n_layer=2, n_head=2, n_embd=32))
    for _ in range(20):
        process = child(SAVES, tmp_path, next_step)
        told = [int(process.stdout.readline()) for _ in range(2)]
        time.sleep(rng.random() / 50)
        process.send_signal(signal.SIGKILL)
        told += [int(line) for line in process.stdout.read().splitlines()]
        assert process.wait() == -signal.SIGKILL
        half_done += any(path.name.endswith(".part") for path in tmp_path.rglob("*"))
        state = load_checkpoint(tmp_path, model, CharTokenizer("abc"))
        assert told[-1] <= state["step"] <= told[-1] + 1, "what was reported is there"
        assert (state["moments"] == state["step"]).all() and (
            model.norm.weight == state["step"]
        ).all()
        best = load_checkpoint(tmp_path, model, CharTokenizer("abc"), "best")
        assert (
            best["step"] % 3 == 0
            and best["step"] >= state["step"] - 3
            and (best["moments"] == best["step"]).all()
        )
        next_step = state["step"] + 1
    assert half_done, "no kill met a save: the test tests nothing"
    save_checkpoint(tmp_path, model, CharTokenizer("abc"), {}, next_step)
    assert not list(tmp_path.rglob("*.part")) and len(list(tmp_path.glob("step-*"))) == 2


@posix
def test_killed_before_each_single_step_of_a_save(tmp_path):
    """A copy of this process saves and dies before its n-th call to the system that matters, for every n there is."""
    model, status, n = gpt(), None, 0
    save_checkpoint(tmp_path, model, TOKENIZER, {}, 0, best=True)
    while status != 0:
        step, before = n + 1, load_checkpoint(tmp_path, model, TOKENIZER)["step"]
        pid = os.fork()
        if pid == 0:
            left = iter(range(n))
            for name in ("fsync", "open", "replace", "rename", "mkdir", "unlink", "rmdir"):

                def mortal(*args, real=getattr(os, name), **more):
                    if next(left, None) is None:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*args, **more)

                setattr(os, name, mortal)
            save_checkpoint(tmp_path, model, TOKENIZER, {}, step, best=n % 2 == 0)
            os._exit(0)
        status, n = os.waitpid(pid, 0)[1], n + 1
        assert status in (0, signal.SIGKILL)
        assert load_checkpoint(tmp_path, model, TOKENIZER)["step"] in (before, step)
        assert load_checkpoint(tmp_path, model, TOKENIZER, "best")["step"] <= step
    assert n > 20 and not list(tmp_path.rglob("*.part")) and len(list(tmp_path.glob("step-*"))) <= 2


# ---------------------------------------------------------------- other models, broken files, and harm


OTHERS = {
    "n_layer": 3,
    "n_head": 4,
    "n_embd": 32,
    "block_size": 16,
    "dropout": 0.0,
    "bias": True,
    "tied": False,
    "activation": "relu",
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_another_model_is_named_and_changes_nothing(name, tmp_path):
    save_checkpoint(tmp_path, gpt(), TOKENIZER, {}, 1)
    other = gpt(replace(CONFIG, **{name: OTHERS[name]}))
    before = weights(other)
    with pytest.raises(
        ValueError,
        match=rf"step-0*1 .* {name} is {getattr(CONFIG, name)} there, {OTHERS[name]} here",
    ):
        load_checkpoint(tmp_path, other, TOKENIZER)
    assert same(before, weights(other))


@pytest.mark.parametrize("there, here", [(CONFIG, MODERN), (MODERN, CONFIG)])
def test_a_checkpoint_of_another_type_is_named_and_changes_nothing(there, here, tmp_path):
    save_checkpoint(tmp_path, gpt(there), TOKENIZER, {}, 1)
    other = gpt(here)
    before = weights(other)
    said = f"step-0*1 .* model_type is {there.model_type} there, {here.model_type} here"
    with pytest.raises(ValueError, match=said):
        load_checkpoint(tmp_path, other, TOKENIZER)
    assert same(before, weights(other))


def test_a_checkpoint_of_another_alphabet(tmp_path):
    save_checkpoint(tmp_path, gpt(), TOKENIZER, {}, 1)
    with pytest.raises(ValueError, match=r"id 11 is 'é' there, 'z' here"):
        load_checkpoint(tmp_path, gpt(), CharTokenizer(TOKENIZER.alphabet.replace("é", "z")))


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def header(**entries):
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


def hostile_state(path, sprung):
    good = path.read_bytes()
    yield from (
        b"",
        b"not a zip",
        good[:-1],
        good[: len(good) // 2],
        good[5:],
        pickle.dumps(Trap(sprung)),
        pickle.dumps({"step": 1}),
        json.dumps({"step": 1}).encode(),
    )
    for thing in (
        {"step": Trap(sprung)},
        {"step": 1, "a": [Trap(sprung)]},
        [1, 2],
        torch.ones(3),
        {"no": "step"},
    ):
        torch.save(thing, path)
        yield path.read_bytes()
    torch.save({"step": Trap(sprung)}, path, _use_new_zipfile_serialization=False)
    yield path.read_bytes()


def hostile_weights(path, sprung):
    good, tensors = path.read_bytes(), load_file(path)
    length = int.from_bytes(good[:8], "little")
    yield from (
        b"",
        b"\x00",
        good[:7],
        good[:8],
        good[:20],
        good[:-1],
        good + b"\x00",
        good[8:],
        pickle.dumps(Trap(sprung)),
        (2**63).to_bytes(8, "little") + good[8:],
        (length + 1).to_bytes(8, "little") + good[8:],
        header(),
        header(a="b"),
        header(a={"dtype": "F32", "shape": [2**62], "data_offsets": [0, 8]}) + bytes(8),
        header(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 2**40]}) + bytes(8),
        header(a={"dtype": "O", "shape": [2], "data_offsets": [0, 8]}) + bytes(8),
    )
    name = "blocks.0.norm_1.weight"
    for changed in (
        {name: torch.ones(17)},
        {name: torch.ones(16, dtype=torch.float64)},
        {"more": torch.ones(1)},
        {name: torch.ones(1, 16)},
        {"blocks.9.norm_1.weight": torch.ones(16)},
    ):
        save_file({**tensors, **changed}, path)
        yield path.read_bytes()
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, path)
    yield path.read_bytes()


def hostile_config(path, sprung):
    good = json.loads(path.read_text())
    for text in ("", "{", "[]", "3", "null", '"text"', "[" * 100_000, "{}", "\x00", "NaN"):
        yield text.encode()
    yield b"\xff\xfe"
    yield pickle.dumps(Trap(sprung))
    for name, value in (
        ("n_layer", "4"),
        ("n_layer", 2.0),
        ("n_layer", True),
        ("n_layer", -1),
        ("n_layer", None),
        ("n_layer", 10**9),
        ("n_embd", 10**9),
        ("n_embd", 10**40),
        ("block_size", 10**12),
        ("n_head", 3),
        ("dropout", 7),
        ("dropout", float("nan")),
        ("activation", "__import__"),
        ("activation", ["relu"]),
        ("bias", 1),
        ("tied", "no"),
        ("unknown", 1),
        ("vocab_size", V + 1),
        ("vocab_size", 10**9),
        ("model_type", "modern"),  # whose fields are others
        ("model_type", "gpt2"),
        ("model_type", "Gpt"),
        ("model_type", ""),
        ("model_type", "os:system"),
        ("model_type", None),
        ("model_type", 0),
        ("model_type", ["gpt"]),
        ("model_type", {"gpt": 1}),
    ):
        yield json.dumps({**good, name: value}).encode()


def hostile_modern_config(path, sprung):
    good = json.loads(path.read_text())
    for name, value in (
        ("model_type", "gpt"),
        ("n_kv_head", 3),
        ("n_kv_head", -2),
        ("n_kv_head", None),
        ("n_layer", 10**9),
        ("n_embd", 10**40),
        ("n_gram", 1),
        ("n_gram", 9),
        ("n_gram", 10**9),
        ("n_gram", True),
        ("n_gram_rows", 0),
        ("n_gram_rows", 10**12),
        ("norm", "batch"),
        ("norm", ["rms"]),
        ("positions", "sin"),
        ("activation", "relu_squared"),
        ("qk_norm", 1),
        ("softcap", -1.0),
        ("softcap", True),
        ("softcap", "15"),
        ("softcap", float("inf")),
        ("softcap", float("nan")),
        ("bias", True),
        ("vocab_size", V + 1),
    ):
        yield json.dumps({**good, name: value}).encode()
    # A table that is larger than any memory.
    yield json.dumps({**good, "positions": "learned", "block_size": 10**12}).encode()


def hostile_alphabet(path, sprung):
    good = TOKENIZER.alphabet
    for value in (3, None, [], list(good), {}, "", "aa", good[::-1], good + "z", good + "ü"):
        yield json.dumps(value).encode()
    yield from (b"", b"\xff", pickle.dumps(Trap(sprung)))


def hostile_tokenizer(path, sprung):
    yield from hostile_alphabet(path, sprung)
    good = TOKENIZER.to_dict()
    for name, value in (
        ("type", "other"),
        ("type", None),
        ("type", ["char"]),
        ("type", "os:system"),
        ("alphabet", None),
        ("alphabet", 3),
        ("alphabet", list(TOKENIZER.alphabet)),
        ("alphabet", TOKENIZER.alphabet[::-1]),
        ("alphabet", TOKENIZER.alphabet[:-1]),
    ):
        yield json.dumps({**good, name: value}).encode()


HOSTILE = {
    "state.pt": ("state.pt", CONFIG, hostile_state),
    "model.safetensors": ("model.safetensors", CONFIG, hostile_weights),
    "config.json": ("config.json", CONFIG, hostile_config),
    "config.json of a modern GPT": ("config.json", MODERN, hostile_modern_config),
    "tokenizer.json": ("tokenizer.json", CONFIG, hostile_tokenizer),
    "alphabet.json": ("alphabet.json", CONFIG, hostile_alphabet),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_and_broken_files_are_named_and_do_nothing(case, tmp_path):
    file, config, hostile = HOSTILE[case]
    folder, sprung = (
        save_checkpoint(tmp_path, gpt(config), TOKENIZER, {"a": torch.ones(3)}, 1),
        tmp_path / "sprung",
    )
    if file == "alphabet.json":
        as_saved_before_tokenizers_had_a_type(folder)
    model = gpt(config, seed=5)
    before, path, good = weights(model), folder / file, (folder / file).read_bytes()
    for content in [*hostile(path, sprung), None]:
        path.unlink() if content is None else path.write_bytes(content)
        asks = [lambda: load_checkpoint(tmp_path, model, TOKENIZER)]
        asks += [lambda: load_model(folder)] if file != "state.pt" and path.exists() else []
        for ask in asks:
            try:
                ask()
                problem = "nothing"
            except ValueError as error:
                problem = str(error)
            except FileNotFoundError as error:
                problem = str(error) if content is None and file == "state.pt" else "the wrong kind"
            assert str(folder) in problem and not sprung.exists(), (
                content and content[:60],
                problem,
            )
            assert "another" in problem or "Copy" in problem, problem
            assert "weights_only" not in problem, "no advice to unpickle"
            assert same(before, weights(model))
    path.write_bytes(good)
    assert load_checkpoint(tmp_path, model, TOKENIZER)["step"] == 1 and not same(
        before, weights(model)
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"last": 3}',
        '{"last": "../../etc"}',
        '{"last": "step-1"}',
        '{"last": ["step-00000001"]}',
        '{"other": "step-00000001"}',
        '{"last": "step-00000001/.."}',
    ],
)
def test_a_damaged_pointer_is_named_and_nothing_is_deleted(text, tmp_path):
    save_checkpoint(tmp_path, gpt(), TOKENIZER, {}, 1)
    (tmp_path / "checkpoints.json").write_text(text)
    before = tree(tmp_path)
    for ask in (
        lambda: load_checkpoint(tmp_path, gpt(), TOKENIZER),
        lambda: load_model(tmp_path),
        lambda: save_checkpoint(tmp_path, gpt(), TOKENIZER, {}, 2),
    ):
        with pytest.raises(ValueError, match=r"checkpoints\.json"):
            ask()
    assert tree(tmp_path) == before
    assert load_model(tmp_path / "step-00000001")


def test_the_trap_springs_where_nobody_is_careful(tmp_path):
    """The tests above could fail."""
    torch.save({"step": Trap(tmp_path / "sprung")}, tmp_path / "state.pt")
    torch.load(tmp_path / "state.pt", weights_only=False)
    assert (tmp_path / "sprung").exists()
