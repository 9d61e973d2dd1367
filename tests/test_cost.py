"""`chargpt info --tokens --devices`: FLOPs and hours by hand, and memory against what PyTorch really keeps."""

import re
import shlex
import weakref
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from chargpt_lib.checkpoints import build_model
from chargpt_lib.cli import cost
from chargpt_lib.cli.cost import (
    DEVICES,
    TRAINING_BYTES,
    MemoryNeed,
    TrainingCost,
    parse_devices,
    saved_bytes,
    training_hours,
)
from chargpt_lib.cli.main import main
from chargpt_lib.cli.options import PRESETS, read_train_args
from chargpt_lib.gpt import GPTConfig
from chargpt_lib.modern import ModernConfig
from chargpt_lib.recipe import TrainConfig, gradient_checkpointing, make_optimizer
from chargpt_lib.scaling_laws import flops_per_token
from chargpt_lib.shards import write_shards
from tests.tiny import CORPUS, TOKENIZER, settings, tiny_gpt, tiny_modern_gpt

GPT2 = GPTConfig.gpt2()
GPT2_TRAINING = TrainConfig(**PRESETS["gpt2"].training)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


# ---------------------------------------------------------------- FLOPs and hours


def test_nanogpts_training_of_gpt2_takes_what_its_readme_says():
    """600,000 steps of 491,520 tokens, about 4 days on 8 A100; without biases, and with a vocabulary of 50,304."""
    config = replace(GPT2, vocab_size=50304, bias=False, qkv_bias=False, dropout=0.0)
    with torch.device("meta"):
        model = build_model(config)
    # By hand: 12 C^2 a block, the tied table; 12 L T C for attention.
    matrices = 12 * 12 * 768**2 + 50304 * 768
    by_hand = 6 * matrices + 12 * 12 * 1024 * 768
    assert flops_per_token(model) == pytest.approx(by_hand, rel=1e-3)
    flops = 600_000 * 491_520 * flops_per_token(model)
    assert training_hours(flops, 8, "A100", mfu=0.3) == pytest.approx(4 * 24, rel=0.2)


def test_hours_are_flops_over_speed():
    # 3,600 s at half the peak of two cards.
    flops = 3600 * 2 * 0.5 * DEVICES["H100"].flops
    assert training_hours(flops, 2, "H100", 0.5) == pytest.approx(1)


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("8xA100", (8, "A100")),
        ("A100", (1, "A100")),
        ("2Xh100", (2, "H100")),
        ("1xA100-80gb", (1, "A100-80GB")),
        ("4xRTX4090", (4, "RTX4090")),
    ],
)
def test_devices(text, wanted):
    assert parse_devices(text) == wanted


@pytest.mark.parametrize("text", ["8xTPU", "B9000", "3xA100-20GB"])
def test_an_unknown_card_and_those_that_are_known(text):
    with pytest.raises(ValueError) as caught:
        parse_devices(text)
    assert text.split("x")[-1] in str(caught.value)
    assert all(name in str(caught.value) for name in DEVICES)


@pytest.mark.parametrize("text", ["", "8", "8x", "0xA100", "-1xA100", "8 A100", "8x8"])
def test_malformed_devices(text):
    with pytest.raises(ValueError, match="such as 8xA100"):
        parse_devices(text)


@pytest.mark.parametrize("cards", range(1, 14))
@pytest.mark.parametrize("name", PRESETS)
def test_a_step_stays_what_it_is_in_the_preset(name, cards):
    training = TrainConfig(**PRESETS[name].training)
    this = TrainingCost(PRESETS[name].model(65), training, 1e9, f"{cards}xA100", 0.3)
    windows = training.batch_size * training.grad_accum
    assert this.batch_size * this.grad_accum == this.windows
    assert 1 <= this.batch_size <= training.batch_size
    # Where the cards do not divide the windows, each takes at most half a window more or less.
    assert abs(this.windows * cards - windows) <= cards / 2 or this.windows == 1
    tokens = this.steps * this.tokens_per_step
    assert 1e9 <= tokens < 1e9 + this.tokens_per_step


# ---------------------------------------------------------------- what autograd saves

fused_kernel = F.scaled_dot_product_attention


def attention_of_a_card(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False):
    """The CPU's fused kernel, which has no dropout; that of a card saves no mask for it."""
    return fused_kernel(q, k, v, attn_mask=attn_mask, is_causal=is_causal)


def dropout_of_a_card(x, p, training):
    """PyTorch's other dropout, which saves a mask with a byte per number."""
    if not training or p == 0:
        return x
    dropped, mask = torch.native_dropout(x, p, True)
    assert mask.dtype == torch.bool
    return dropped


@contextmanager
def kernels_of_a_card():
    """Inside, attention and dropout save what they save on a card."""
    with (
        mock.patch.object(F, "scaled_dot_product_attention", attention_of_a_card),
        mock.patch.object(F, "dropout", dropout_of_a_card),
    ):
        yield


def really_saved(config, windows, half, checkpointing):
    """The bytes of the storages that autograd saves up to the logits, on real numbers."""
    model = build_model(config)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes = {}
    kept = []

    def save(tensor):
        storage = tensor.untyped_storage()
        kept.append(storage)
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    idx = torch.randint(config.vocab_size, (windows, config.block_size))
    with (
        kernels_of_a_card(),
        gradient_checkpointing(model) if checkpointing else nullcontext(),
        torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        logits = model.compute_logits(idx)
    del logits
    return sum(sizes.values())


SIZES = {"vocab_size": 65, "n_layer": 3, "n_head": 4, "n_embd": 64}
CONFIGS = {
    "gelu": GPTConfig(**SIZES, block_size=64),
    "dropout": GPTConfig(**SIZES, block_size=128, dropout=0.1, bias=True, qkv_bias=True),
    "relu": GPTConfig(**SIZES, block_size=256, activation="relu", tied=False),
    "relu, dropout": GPTConfig(**SIZES, block_size=64, activation="relu", dropout=0.1),
    "long": GPTConfig(**SIZES, block_size=512, activation="gelu_tanh"),
    "modern": ModernConfig(**SIZES, block_size=64, n_kv_head=2),
    "modern, long": ModernConfig(**SIZES, block_size=512, n_kv_head=1, dropout=0.1),
    "modern, no RoPE": ModernConfig(
        **SIZES, block_size=128, positions="learned", activation="relu2", n_gram=3
    ),
}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_count_is_what_autograd_saves(name, half, checkpointing):
    """Counted without numbers for one window and for two; measured with numbers for five."""
    config = CONFIGS[name]
    saved = saved_bytes(config, half, checkpointing)
    measured = really_saved(config, 5, half, checkpointing)
    assert saved.fixed + 5 * saved.per_window == pytest.approx(measured, rel=0.01)


def test_a_block_saves_what_the_papers_formula_and_ours_say():
    """Bytes a token, under autocast; Korthikanti et al. (2022), with a fused kernel, 34 C for a stream of 16 bits."""
    C, H, T = 64, 4, 128

    def per_token(**changes):
        sizes = {"vocab_size": 65, "n_head": H, "n_embd": C, "block_size": T, **changes}
        shallow = saved_bytes(GPTConfig(n_layer=2, **sizes)).per_window
        deep = saved_bytes(GPTConfig(n_layer=3, **sizes)).per_window
        return (deep - shallow) / T

    # Two norms: their inputs in 32 bits, mean and deviation.
    norms = 2 * (4 * C + 8)
    # The input, q, k, v, the result; a number per head.
    attention = 2 * C + 6 * C + 2 * C + 4 * H
    # The input; before and after the activation, 4 C wide.
    feed_forward = 2 * C + 8 * C + 8 * C
    assert per_token() == norms + attention + feed_forward == 36 * C + 4 * H + 16
    # ReLU's backward needs its result alone; a mask of dropout has a byte per number.
    assert per_token(activation="relu") == per_token() - 8 * C
    assert per_token(dropout=0.1) == per_token() + 2 * C
    # The paper counts the inputs of the norms in 16 bits.
    assert per_token(dropout=0.1) - (4 * H + 16) - 4 * C == 34 * C


def test_checkpointed_blocks_leave_their_inputs():
    config = CONFIGS["gelu"]
    T, C = config.block_size, config.n_embd
    saved = saved_bytes(config, checkpointing=True)
    end = 4 * C + 8 + 2 * C  # the last norm, and the input of the lm_head
    ids = 8
    assert saved.per_window == T * (config.n_layer * 4 * C + end + ids)


# ---------------------------------------------------------------- the memory of a card


class LiveBytes(TorchDispatchMode):
    """The bytes of all tensors that are alive at the same time, at most."""

    def __init__(self):
        super().__init__()
        self.now = 0
        self.peak = 0
        self.known = set()

    def free(self, key, size):
        self.known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.known:
                    self.known.add(key)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self.free, key, storage.nbytes())
        return out


def peak_of_a_step(config, windows, checkpointing):
    """The most bytes that are alive in the second micro-batch of a step, without the optimizer's."""
    with (
        FakeTensorMode(),
        LiveBytes() as live,
        kernels_of_a_card(),
    ):
        model = build_model(config)
        idx = torch.zeros(windows, config.block_size, dtype=torch.int64)
        with gradient_checkpointing(model) if checkpointing else nullcontext():
            for _ in range(2):
                live.peak = 0
                with torch.autocast("cpu", torch.bfloat16):
                    logits = model.compute_logits(idx)
                    loss = F.cross_entropy(logits.flatten(0, 1), idx.flatten())
                loss.backward()
                peak = live.peak
                del logits, loss
    return peak


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "config, windows",
    [
        (GPT2, 1),
        (GPT2, 12),
        (GPTConfig.baby(65), 64),
        (GPTConfig(5000, block_size=512, n_layer=6, n_head=6, n_embd=384), 8),
        (GPTConfig(2000, block_size=512, n_layer=1, n_head=6, n_embd=384), 8),
        (PRESETS["modern"].model(65), 12),
        (ModernConfig(50257, block_size=1024, n_layer=12, n_head=12, n_kv_head=4, n_embd=768), 8),
    ],
)
def test_the_parts_add_up_to_the_peak_of_a_step(config, windows, checkpointing):
    need = MemoryNeed(config, "adamw", 1, checkpointing)
    without_moments = need.total(windows) - need.fixed["moments (adamw)"]
    peak = peak_of_a_step(config, windows, checkpointing)
    assert without_moments == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize("optimizer", TRAINING_BYTES)
@pytest.mark.parametrize("make", [tiny_gpt, tiny_modern_gpt])
def test_moments_are_what_the_optimizer_keeps(make, optimizer):
    model = make()
    stepper = make_optimizer(model, settings(optimizer=optimizer))
    idx = torch.zeros(2, model.block_size, dtype=torch.int64)
    model(idx, idx)[1].backward()
    stepper.step()
    kept = 0
    for state in stepper.state.values():
        kept += sum(value.nbytes for name, value in state.items() if name != "step")
    need = MemoryNeed(model.config, optimizer, 1, checkpointing=False)
    assert need.fixed[f"moments ({optimizer})"] == kept
    assert need.fixed["weights"] == need.fixed["gradients"] == 4 * model.num_params()
    # The bound by which `chargpt train` refuses a model.
    assert 8 * model.num_params() + kept >= TRAINING_BYTES[optimizer] * model.num_params()


def test_several_cards_hold_gradients_twice():
    alone = MemoryNeed(CONFIGS["gelu"], "adamw", 1, checkpointing=False)
    several = MemoryNeed(CONFIGS["gelu"], "adamw", 4, checkpointing=False)
    assert several.total(3) - alone.total(3) == alone.fixed["gradients"]


def test_the_most_windows_are_those_that_fit():
    need = MemoryNeed(GPT2, "adamw", 8, checkpointing=False)
    most = need.most_windows(40e9)
    assert need.total(most) <= cost.USABLE * 40e9 < need.total(most + 1)
    assert need.most_windows(need.total(0)) == 0


# ---------------------------------------------------------------- the command


def info(capsys, *options, code=0):
    """What `chargpt info` prints, and its errors."""
    assert main(["info", *options, "--device", "cpu"]) == code
    output = capsys.readouterr()
    return output.out if code == 0 else re.sub(r"[\s│]+", " ", output.err)


ON_GPT2 = ["--preset", "gpt2", "--tokenizer", "gpt2"]


@pytest.fixture
def gpt2_tokenizer(monkeypatch):
    """In place of GPT-2's vocabulary, which would be downloaded: only its size matters here."""
    tokenizer = mock.Mock(vocab_size=50257, unit="token")
    monkeypatch.setattr(
        "chargpt_lib.cli.commands.load_tokenizer_option", lambda name, corpus: tokenizer
    )
    monkeypatch.setattr("chargpt_lib.cli.commands.load_text", lambda source: CORPUS)


def test_what_training_gpt2_costs(gpt2_tokenizer, capsys):
    before = info(capsys, *ON_GPT2)
    said = info(capsys, *ON_GPT2, "--tokens", "9e9", "--devices", "8xA100")
    # What it printed, it goes on to print; by hand 9e9 * 855,166,464 FLOPs, / (8 * 312e12 * 0.3) s.
    assert all(line in said.splitlines() for line in before.splitlines())
    assert "9e+09 tokens x 855,166,464 FLOPs = 7.7e+18 FLOPs" in said
    assert "2.86 hours (0.119 days) on 8 x A100, at 0.3 of the peak of 312 TFLOP/s" in said
    step = "batch_size 12 x grad_accum 5 x block_size 1,024 x 8 cards"
    assert f"18,311 steps of 491,520 tokens: {step}" in said
    rows = re.findall(r"^  ([a-z][\w ()]+?) +(\d+\.\d{3}) +(\d+\.\d{3})$", said, re.M)
    whole = {part: float(size) for part, size, _ in rows}
    assert whole["weights"] == whole["gradients"] == whole["buckets of gradients"] == 0.498
    assert whole["moments (adamw)"] == pytest.approx(8 * 124_439_808 / 1e9, abs=1e-3)
    # 14 bytes for each of 12 * 1024 * 50,257 logits.
    assert whole["logits and gradients"] == pytest.approx(14 * 12 * 1024 * 50257 / 1e9, abs=1e-3)
    total = whole.pop("total")
    assert sum(whole.values()) == pytest.approx(total, abs=0.01)
    assert 10 < total < 20 and "it fits into the 40 GB of A100" in said
    checkpointed = {part: float(size) for part, _, size in rows}
    assert checkpointed["activations"] < whole["activations"] / 5


def test_another_share_of_the_peak(gpt2_tokenizer, capsys):
    options = [*ON_GPT2, "--tokens", "9e9", "--devices", "8xA100", "--mfu", "0.6"]
    assert "1.43 hours" in info(capsys, *options)


def test_tokens_alone_and_devices_alone(gpt2_tokenizer, capsys):
    said = info(capsys, *ON_GPT2, "--tokens", "9e9")
    assert "= 7.7e+18 FLOPs" in said and "18,311 steps of 491,520 tokens" in said
    assert "hours" not in said and "GB" not in said and "train --preset" not in said
    said = info(capsys, *ON_GPT2, "--devices", "A100")
    assert "it fits into" in said and "buckets" not in said
    assert "hours" not in said and "e+18" not in said and "train --preset" not in said


def command_in(said):
    """The words of the command line at the end of what info printed, after `train`."""
    [line] = re.findall(r"^(?:torchrun|chargpt) .*train .*$", said, re.M)
    words = shlex.split(line)
    return words, words[words.index("train") + 1 :]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("devices", ["T4", "8xA100"])
def test_the_command_trains_the_preset_on_so_many_tokens(name, devices, monkeypatch, capsys):
    monkeypatch.setattr("chargpt_lib.cli.commands.load_text", lambda source: CORPUS)
    said = info(capsys, "--preset", name, "--tokens", "1e8", "--devices", devices)
    words, options = command_in(said)
    cards, _ = parse_devices(devices)
    if cards == 1:
        assert words[:2] == ["chargpt", "train"]
    else:
        launcher = "torchrun --standalone --nproc-per-node 8 -m chargpt_lib.cli train"
        assert words[:7] == launcher.split()
    args = read_train_args(options)
    config = args.training
    step = config.batch_size * config.grad_accum * cards * args.model.block_size
    assert 1e8 <= config.steps * step < 1e8 + step
    assert config.time_budget is None and config.compile and args.corpus == "FOLDER"
    training = PRESETS[name].training
    windows = training["batch_size"] * training.get("grad_accum", 1)
    assert config.batch_size * config.grad_accum * cards == pytest.approx(windows, rel=0.5)
    assert config.learning_rate == training["learning_rate"]


def test_a_command_for_shards(capsys):
    write_shards([CORPUS.train], "my shards", TOKENIZER)
    said = info(
        capsys, "--preset", "baby", "--corpus", "my shards", "--tokens", "1e6", "--devices", "T4"
    )
    assert f"vocab_size {TOKENIZER.vocab_size}" in said and "FOLDER" not in said
    _, options = command_in(said)
    args = read_train_args(options)
    assert args.corpus == "my shards" and args.tokenizer == "shards"


def with_card(monkeypatch, memory):
    monkeypatch.setitem(DEVICES, "T4", DEVICES["T4"]._replace(memory=memory))


def test_what_does_not_fit_and_the_way_out(gpt2_tokenizer, monkeypatch, capsys):
    options = [*ON_GPT2, "--tokens", "9e9", "--devices", "2xT4"]
    whole = MemoryNeed(GPT2, "adamw", 2, checkpointing=False)
    checkpointed = MemoryNeed(GPT2, "adamw", 2, checkpointing=True)

    with_card(monkeypatch, whole.total(7) / cost.USABLE)
    said = info(capsys, *options)
    # The largest divisor of 240 windows that is no larger than 7.
    assert "does not fit" in said and "--batch-size 6 --grad-accum 40\n" in said
    config = read_train_args(command_in(said)[1]).training
    assert (config.batch_size, config.grad_accum, config.gradient_checkpointing) == (6, 40, False)
    assert config.steps == 18311

    with_card(monkeypatch, checkpointed.total(12) / cost.USABLE)
    assert "or --gradient-checkpointing" in info(capsys, *options)

    with_card(monkeypatch, whole.total(1) / cost.USABLE - 1e6)
    said = info(capsys, *options)
    assert "--gradient-checkpointing" in said
    assert read_train_args(command_in(said)[1]).training.gradient_checkpointing

    with_card(monkeypatch, 1e9)
    said = info(capsys, *options)
    assert "not even with --batch-size 1" in said and "FSDP" in said and "torchrun" not in said
    said = info(capsys, *ON_GPT2, "--devices", "T4")
    assert "more memory" in said and "FSDP" not in said


def test_cards_on_which_chargpt_does_not_train(gpt2_tokenizer, capsys):
    said = info(capsys, *ON_GPT2, "--tokens", "9e9", "--devices", "8xV100")
    assert "V100: it has compute capability 7.0" in said and "torchrun" not in said
    said = info(capsys, *ON_GPT2, "--tokens", "9e9", "--devices", "16xH100")
    assert "several computers" in said and "--nproc-per-node" not in said


@pytest.mark.parametrize(
    "options, words",
    [
        (["--tokens", "0"], ["--tokens is 0", "9e9"]),
        (["--tokens", "-5e9"], ["--tokens is -5e+09", "above 0"]),
        (["--tokens", "nan"], ["--tokens is nan"]),
        (["--tokens", "inf"], ["--tokens is inf"]),
        (["--tokens", "many"], ["many", "--tokens"]),
        (["--tokens", "9e9", "--mfu", "0"], ["--mfu is 0", "0.3"]),
        (["--tokens", "9e9", "--mfu", "30"], ["--mfu is 30", "at most 1"]),
        (["--devices", "8xTPU"], ["'TPU'", "A100", "H100"]),
        (["--devices", "eight"], ["'eight'", "A100"]),
        (["--devices", "8x"], ["'8x'", "8xA100"]),
    ],
)
def test_nonsense_is_named_before_a_text_is_read(options, words, monkeypatch, capsys):
    monkeypatch.setattr("chargpt_lib.cli.commands.load_text", lambda source: 1 / 0)
    said = info(capsys, "--preset", "gpt2", *options, code=2)
    assert all(word in said for word in words), said


def test_a_cost_is_that_of_a_preset(capsys):
    for options in (["--tokens", "9e9"], ["--devices", "8xA100"]):
        assert "add --preset" in info(capsys, *options, code=2)
