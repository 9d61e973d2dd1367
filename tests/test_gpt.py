"""Lesson 06: the whole model against `transformers`, its parameters counted, its presets, its first loss."""

import hashlib
import shutil
from dataclasses import replace
from math import log

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from chargpt_lib import checkpoints
from chargpt_lib import gpt as module
from chargpt_lib.data import CharTokenizer, Corpus, load_corpus
from chargpt_lib.files import bundled_dir
from chargpt_lib.gpt import GPT, GPTConfig, load_pretrained
from chargpt_lib.playhouse import excess_by_kind
from chargpt_lib.training import fit, load_or_fit, per_token_loss

SMALL = GPTConfig(11, block_size=8, n_layer=2, n_head=3, n_embd=12)
LECTURE = GPTConfig.lecture(11, block_size=8, n_embd=12, n_head=3, n_layer=2, dropout=0.0)
GPT2 = replace(
    GPTConfig.gpt2(), vocab_size=11, block_size=8, n_layer=2, n_head=3, n_embd=12, dropout=0.0
)


def loud(config):
    """A model in which every weight matters."""
    model = GPT(config).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.5)
    return model


# ---------------------------------------------------------------- a second implementation


def in_transformers(model):
    """The same model as a GPT2LMHeadModel, with the same weights."""
    transformers = pytest.importorskip("transformers")
    c, activation = (
        model.config,
        {"gelu_tanh": "gelu_new"}.get(model.config.activation, model.config.activation),
    )
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=c.vocab_size,
            n_positions=c.block_size,
            n_embd=c.n_embd,
            n_layer=c.n_layer,
            n_head=c.n_head,
            activation_function=activation,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            tie_word_embeddings=c.tied,
        )
    ).eval()
    t = theirs.transformer
    layers = [
        (model.token_embedding, t.wte),
        (model.position_embedding, t.wpe),
        (model.norm, t.ln_f),
        (model.lm_head, theirs.lm_head),
    ]
    for ours, other in zip(model.blocks, t.h):
        layers += [
            (ours.norm_1, other.ln_1),
            (ours.attention.qkv, other.attn.c_attn),
            (ours.attention.proj, other.attn.c_proj),
            (ours.norm_2, other.ln_2),
            (ours.feed_forward.fc, other.mlp.c_fc),
            (ours.feed_forward.proj, other.mlp.c_proj),
        ]
    for ours, other in layers:
        other.weight.data.copy_(ours.weight.T if type(other).__name__ == "Conv1D" else ours.weight)
        if getattr(other, "bias", None) is not None:
            other.bias.data.copy_(torch.zeros(len(other.bias)) if ours.bias is None else ours.bias)
    return theirs


@pytest.mark.parametrize(
    "config",
    [GPT2, replace(GPT2, tied=False), SMALL, replace(LECTURE, tied=True)],
    ids=["gpt2", "untied", "no bias", "lecture kind"],
)
def test_transformers_gives_the_same_logits_loss_and_gradients(config):
    model = loud(config)
    if not config.tied:
        nn.init.zeros_(model.lm_head.bias)  # theirs has none
    theirs, idx = in_transformers(model), torch.randint(11, (3, 8))
    targets = torch.randint(11, (3, 8))
    (logits, loss), expected = model(idx, targets), theirs(idx).logits
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    expected_loss = -expected.log_softmax(-1).gather(2, targets[..., None]).mean()
    assert loss.item() == pytest.approx(expected_loss.item(), abs=1e-4)
    loss.backward(), expected_loss.backward()
    torch.testing.assert_close(
        model.token_embedding.weight.grad, theirs.transformer.wte.weight.grad, atol=1e-4, rtol=1e-3
    )


# ---------------------------------------------------------------- counting


def counted(V, T, C, L, bias, qkv_bias, tied):
    """The parameters of a GPT, from its drawing."""
    block = 12 * C * C + bias * (C + 4 * C + C + 2 * C) + 2 * C + qkv_bias * 3 * C
    return V * C + T * C + L * block + C + bias * C + (0 if tied else V * C + V)


@pytest.mark.parametrize(
    "config, expected",
    [
        (GPTConfig.lecture(65), 10_788_929),
        (GPTConfig.oz(73), 620_873),
        (GPTConfig.gpt2(), 124_439_808),
        (GPTConfig.baby(65), 10_646_784 + 256 * 384),
        (GPTConfig.cpu(65), counted(65, 64, 128, 4, False, False, True)),
        (SMALL, counted(11, 8, 12, 2, False, False, True)),
        (LECTURE, counted(11, 8, 12, 2, True, False, False)),
        (GPT2, counted(11, 8, 12, 2, True, True, True)),
        (GPTConfig.gpt2(), counted(50257, 1024, 768, 12, True, True, True)),
    ],
)
def test_every_parameter_is_counted_once(config, expected):
    with torch.device("meta"):
        assert GPT(config).num_params() == expected


@pytest.mark.parametrize(
    "config, T, L, H, C, dropout, activation",
    [
        (GPTConfig.lecture(65), 256, 6, 6, 384, 0.2, "relu"),
        (GPTConfig.oz(73), 64, 3, 4, 128, 0.2, "relu"),
        (GPTConfig.baby(65), 256, 6, 6, 384, 0.2, "gelu"),
        (GPTConfig.cpu(65), 64, 4, 4, 128, 0.0, "gelu"),
        (GPTConfig.gpt2(), 1024, 12, 12, 768, 0.1, "gelu_tanh"),
        (LECTURE, 8, 2, 3, 12, 0.0, "relu"),
    ],
)
def test_the_presets_are_the_published_ones(config, T, L, H, C, dropout, activation):
    assert (config.block_size, config.n_layer, config.n_head, config.n_embd) == (T, L, H, C)
    assert (config.dropout, config.activation) == (dropout, activation)


# ---------------------------------------------------------------- what the config's flags switch


INSIDE = ["norm_1", "attention.proj", "norm_2", "feed_forward.fc", "feed_forward.proj"]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_which_biases_there_are(bias, qkv_bias, tied):
    model = GPT(replace(SMALL, bias=bias, qkv_bias=qkv_bias, tied=tied))
    expected = ["norm"] * bias + ["lm_head"] * (not tied)
    expected += [
        f"blocks.{i}.{layer}"
        for i in range(2)
        for layer in INSIDE * bias + ["attention.qkv"] * qkv_bias
    ]
    found = [
        name.removesuffix(".bias") for name, _ in model.named_parameters() if name.endswith("bias")
    ]
    assert sorted(found) == sorted(expected)
    assert (
        model.lm_head.weight is model.token_embedding.weight
    ) == tied and model.config.tied == tied


def test_a_tied_matrix_is_one_before_and_after_training_and_loading():
    corpus = Corpus("toy", "abcdefghij\n" * 9, "abcdefghij\n" * 3)
    for _ in range(2):
        torch.manual_seed(1)
        model = GPT(SMALL)
        load_or_fit("GPT", model, corpus, sample_chars=2, steps=2)
        assert model.lm_head.weight.data_ptr() == model.token_embedding.weight.data_ptr()
    fit(model, torch.arange(11).repeat(9), steps=2)
    assert torch.equal(model.lm_head.weight, model.token_embedding.weight)
    assert model.lm_head.weight.data_ptr() == model.token_embedding.weight.data_ptr()


def test_dropout_is_for_training_only():
    model, idx = loud(replace(SMALL, dropout=0.2)), torch.randint(11, (2, 8))
    same = GPT(SMALL)
    same.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(idx)[0], same(idx)[0])
    assert model.train().embed(torch.randint(11, (500, 8))).eq(
        0
    ).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert (model(idx)[0] - model(idx)[0]).abs().max() > 0.01


@pytest.mark.parametrize(
    "config, scaled",
    [(GPTConfig.cpu(65), True), (GPTConfig.oz(73), False), (GPTConfig.cpu(65, n_layer=1), True)],
)
def test_the_first_weights(config, scaled):
    for name, weight in GPT(config).named_parameters():
        if weight.dim() == 1:
            assert weight.eq("norm" in name and name.endswith("weight")).all(), name
        else:
            shrunk = scaled and name.endswith("proj.weight")
            assert weight.std().item() == pytest.approx(
                0.02 / (2 * config.n_layer) ** (0.5 * shrunk), rel=0.04
            ), name


# ---------------------------------------------------------------- what it does


@pytest.mark.parametrize(
    "config",
    [
        GPTConfig.cpu(65),
        GPTConfig.oz(74),
        replace(GPTConfig.baby(65), n_embd=192, n_layer=2),
        SMALL,
        GPTConfig.lecture(65, n_embd=96, n_layer=2),
        replace(GPTConfig.gpt2(), n_embd=96, n_layer=2),
    ],
)
def test_an_untrained_model_knows_nothing(config):
    idx, targets = torch.randint(config.vocab_size, (2, 4, min(config.block_size, 64)))
    assert GPT(config)(idx, targets)[1].item() == pytest.approx(log(config.vocab_size), abs=0.1)


@pytest.mark.parametrize("config", [GPT2, LECTURE, SMALL])
def test_the_order_of_the_heads_does_not_matter(config):
    model, idx = loud(config), torch.randint(11, (2, 8))
    before, channels = model(idx)[0], torch.arange(12).view(3, 4)[[1, 2, 0]].flatten()
    for block in model.blocks:
        for weight in block.attention.qkv.parameters():
            weight.data = weight.data.view(3, 12, -1)[:, channels].reshape(weight.shape)
        block.attention.proj.weight.data = block.attention.proj.weight.data[:, channels]
    torch.testing.assert_close(model(idx)[0], before, atol=1e-4, rtol=1e-4)


def test_it_learns_a_text_that_needs_a_look_back():
    text = torch.tensor(
        [0, 1, 2, 1, 3, 1] * 30
    )  # after 1 come 2, 3 and 0: what it is, the character before decides
    losses = fit(GPT(SMALL), text, steps=400, batch_size=16, lr=1e-2)
    assert losses[0] > 2 and losses[-1] < 0.2


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"block_size": 0}, "block_size is 0"),
        ({"n_layer": 0}, "n_layer is 0"),
        ({"n_head": 0}, "n_head is 0"),
        ({"n_embd": -8}, "n_embd is -8"),
        ({"dropout": 1.0}, "dropout must be .* got 1.0"),
        ({"dropout": -0.1}, "dropout must be .* got -0.1"),
        ({"activation": "swish"}, "'swish'.*gelu.*gelu_tanh.*relu"),
        ({"n_head": 5}, r"n_embd \(12\) .* n_head \(5\); .*\[1, 2, 3, 4, 6, 12\]"),
    ],
)
def test_a_gpt_that_cannot_be(changes, said):
    with pytest.raises(ValueError, match=said):
        replace(SMALL, **changes)


# ---------------------------------------------------------------- the model that comes with the course

RECORDED = bundled_dir() / "models" / "playhouse"


def test_the_recorded_model_is_as_good_as_its_record_says():
    model, tokenizer, record = load_pretrained("playhouse")
    corpus = load_corpus("playhouse")
    assert tokenizer.alphabet == CharTokenizer.from_text(corpus.train + corpus.val).alphabet
    nats = per_token_loss(model, tokenizer.encode(corpus.val)).double()
    assert abs(nats.mean().item() - record["loss"]) < 1e-5
    excess = excess_by_kind([None, *nats.tolist()], corpus.val_spans)
    assert (
        excess == pytest.approx(record["excess"], abs=1e-5)
        and record["floor"] == corpus.val_entropy
    )
    assert record["parameters"] == model.num_params() and not model.training


def test_the_recorded_model_is_small_and_says_where_it_comes_from():
    _, _, record = load_pretrained("playhouse")
    assert sum(path.stat().st_size for path in RECORDED.iterdir()) <= 1_500_000
    weights = RECORDED / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == record["sha256"]
    assert {weight.dtype for weight in load_file(weights).values()} == {torch.float16}
    assert {"steps", "batch_size", "lr", "seed", "seconds", "date", "made by"} <= record.keys()
    assert {"processor", "threads", "torch"} == record["machine"].keys()


def test_lesson_09_opens_the_recorded_model():
    model, tokenizer, _ = load_pretrained("playhouse")
    again, alphabet = checkpoints.load_model(RECORDED)
    assert again.config == model.config and alphabet.alphabet == tokenizer.alphabet
    assert all(map(torch.equal, again.state_dict().values(), model.state_dict().values()))


def test_what_heads_looked_at_was_measured_while_this_model_was_trained():
    growth = load_file(RECORDED / "growth.safetensors")
    _, _, record = load_pretrained("playhouse")
    assert growth["steps"][0] == 0 and growth["steps"][-1] == record["steps"]
    assert growth["on_cast"].shape == (len(growth["steps"]), 4, 6) and len(growth["maps"]) == len(
        growth["steps"]
    )
    sums = growth["maps"].float().sum(-1)
    assert (
        torch.allclose(sums, torch.ones_like(sums), atol=2e-2) and growth["maps"].triu(1).max() == 0
    )


def test_a_model_that_is_not_there_or_not_the_recorded_one(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "bundled_dir", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match="unknown pretrained model 'playhouse'"):
        load_pretrained("playhouse")
    shutil.copytree(RECORDED, tmp_path / "models" / "playhouse")
    load_pretrained("playhouse")
    weights = tmp_path / "models" / "playhouse" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match="differs from record.json: reinstall"):
        load_pretrained("playhouse")


@pytest.mark.parametrize("name", ["vocab_size", "n_embd"])
def test_a_size_that_is_no_integer_is_named(name):
    with pytest.raises(ValueError, match=f"{name} is 'abc'; it must be an integer >= 1"):
        GPTConfig(**{"vocab_size": 5, name: "abc"})
