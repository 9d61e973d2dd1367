"""Lesson 17: models of transformers in, ours out. Everything is compared with transformers itself."""

import hashlib
import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from chargpt_lib import gpt2
from chargpt_lib.bpe import BPETokenizer
from chargpt_lib.checkpoints import build_model, save_model
from chargpt_lib.data import CharTokenizer
from chargpt_lib.formats import published as published_models
from chargpt_lib.formats import tensors
from chargpt_lib.formats.hf_tokenizers import read_hf_tokenizer, write_hf_tokenizer
from chargpt_lib.gpt import GPTConfig
from chargpt_lib.gpt2 import (
    export_transformers,
    fold_head_bias,
    from_pretrained,
    translate_name,
)
from chargpt_lib.modern import ModernConfig
from chargpt_lib.sampling import generate

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

CHARACTERS = CharTokenizer.from_text("\n !'?ABCDEFGHITabcdefghijklmnopqrstuvwxyzé😀")
V = CHARACTERS.vocab_size
TEXT = "the geese sold the goose, the goose told the geese: 12 moons, 345 wicked moons!\n" * 9
PIECES = BPETokenizer.train(TEXT, 300, ["<|endoftext|>"])
GPT4_PIECES = BPETokenizer.train(TEXT, 290, pattern="gpt4")

small = {"block_size": 24, "n_layer": 2, "n_head": 2, "n_embd": 48}

# Each preset that GPT-2's format or Llama's can express, small, and the choices in which they differ.
MODELS = {
    "cpu": (replace(GPTConfig.cpu(V, 24, 48, 4, 2), activation="relu"), CHARACTERS),
    "lecture": (GPTConfig.lecture(V, 24, 48, 4, 2), CHARACTERS),
    "baby": (replace(GPTConfig.baby(V), **small), CHARACTERS),
    "oz": (replace(GPTConfig.lecture(V, 24, 64, 4, 2), scaled_init=True), CHARACTERS),
    "gpt2": (replace(GPTConfig.gpt2(), vocab_size=PIECES.vocab_size, **small), PIECES),
    "bpe of GPT-4's pattern": (GPTConfig(GPT4_PIECES.vocab_size, **small), GPT4_PIECES),
    "biases without those of qkv": (GPTConfig(V, bias=True, **small), CHARACTERS),
    "biases of qkv alone": (GPTConfig(V, qkv_bias=True, **small), CHARACTERS),
    "squared relu": (GPTConfig(V, activation="relu2", **small), CHARACTERS),
    "untied": (GPTConfig(V, tied=False, bias=True, activation="gelu_tanh", **small), CHARACTERS),
    "llama": (ModernConfig(V, qk_norm=False, softcap=0.0, **small), CHARACTERS),
    "llama, grouped": (
        ModernConfig(V, 24, 3, n_head=6, n_kv_head=2, n_embd=60, qk_norm=False, softcap=0.0),
        CHARACTERS,
    ),
    "llama, untied": (
        ModernConfig(
            PIECES.vocab_size, n_kv_head=1, tied=False, qk_norm=False, softcap=0.0, **small
        ),
        PIECES,
    ),
}
each_model = pytest.mark.parametrize("name", MODELS)


def trained(config, seed=0):
    """A model whose parameters are all drawn: nothing is zero, and no gain is one."""
    model = build_model(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(
                1 + 0.2 * noise if "norm" in name and parameter.dim() == 1 else 0.15 * noise
            )
    return model


def random_ids(vocab_size, T=20, B=3, seed=1):
    return torch.randint(vocab_size, (B, T), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def their_logits(folder, idx):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()(idx).logits


@torch.no_grad()
def our_logits(model, idx):
    logits, _ = model(idx)
    return logits


def export(name, folder):
    config, tokenizer = MODELS[name]
    model = trained(config)
    export_transformers(model, tokenizer, folder)
    return model, tokenizer


# ---------------------------------------------------------------- out, and in again


@each_model
def test_transformers_computes_the_same_logits(name, tmp_path):
    model, tokenizer = export(name, tmp_path / "out")
    idx = random_ids(tokenizer.vocab_size)
    logits = our_logits(model, idx)
    assert logits.std() > 0.1
    assert (their_logits(tmp_path / "out", idx) - logits).abs().max() < 1e-5


@each_model
def test_transformers_writes_the_same_greedy_text(name, tmp_path):
    model, tokenizer = export(name, tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    idx = random_ids(tokenizer.vocab_size, T=4, B=1)
    written = theirs.generate(idx, max_new_tokens=20, do_sample=False, eos_token_id=None)
    assert written.tolist() == generate(model, idx, 20, temperature=0).tolist()


@each_model
def test_what_was_exported_comes_back(name, tmp_path):
    model, tokenizer = export(name, tmp_path / "out")
    opened, opened_tokenizer = from_pretrained(tmp_path / "out")
    assert opened_tokenizer.to_dict() == tokenizer.to_dict()
    assert not opened.training
    idx = random_ids(tokenizer.vocab_size)
    assert (our_logits(opened, idx) - our_logits(model, idx)).abs().max() < 1e-5
    # It is a whole model of ours: it can be saved, and exported once more.
    save_model(opened, opened_tokenizer, tmp_path / "saved")
    export_transformers(opened, opened_tokenizer, tmp_path / "again")
    assert (their_logits(tmp_path / "again", idx) - our_logits(model, idx)).abs().max() < 1e-5


@each_model
def test_their_tokenizer_gives_the_same_ids_and_text(name, tmp_path):
    _, tokenizer = export(name, tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("The geese", "\n\n A  moon?\n", "é😀a", "Babbage"):
        ids = tokenizer.encode(text).tolist()
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text
    assert len(theirs) == tokenizer.vocab_size


def test_what_cannot_be_expressed_is_refused_with_the_reason(tmp_path):
    llama = {"qk_norm": False, "softcap": 0.0, **small}
    refused = {
        "n_gram is 3": ModernConfig(V, n_gram=3, **llama),
        "softcap is 15.0": ModernConfig(V, qk_norm=False, **small),
        "qk_norm is True": ModernConfig(V, softcap=0.0, **small),
        "positions is 'learned'": ModernConfig(V, positions="learned", **llama),
        "norm is 'layer'": ModernConfig(V, norm="layer", **llama),
        "activation is 'gelu'": ModernConfig(V, activation="gelu", **llama),
    }
    for reason, config in refused.items():
        with pytest.raises(ValueError, match=reason) as caught:
            export_transformers(trained(config), CHARACTERS, tmp_path / "out")
        assert "ONNX" in str(caught.value)
    with pytest.raises(ValueError, match="has no GPTConfig"):
        export_transformers(torch.nn.Linear(2, 2), CHARACTERS, tmp_path / "out")
    with pytest.raises(ValueError, match="tokenizer has vocab_size"):
        export_transformers(trained(MODELS["baby"][0]), PIECES, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_bias_of_the_head_is_folded_into_the_norm_or_refused(tmp_path):
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(40, 48, generator=generator)
    bias = torch.randn(40, generator=generator)
    assert torch.allclose(weight @ fold_head_bias(weight, bias), bias, atol=1e-4)
    # More symbols than numbers in a vector: the equations have no solution, unless the bias is one.
    with pytest.raises(ValueError, match="vocab_size .40. is larger than n_embd .8."):
        fold_head_bias(weight[:, :8], bias)
    assert torch.allclose(
        fold_head_bias(weight[:, :8], weight[:, :8] @ bias[:8]), bias[:8], atol=1e-4
    )
    # Two symbols that the model cannot tell apart, but for their biases.
    twins = torch.cat([weight, weight[:1]])
    with pytest.raises(ValueError, match="depend on one another"):
        fold_head_bias(twins, torch.cat([bias, bias[:1] + 1]))
    model = trained(GPTConfig.lecture(V, 24, 32, 4, 2))
    with pytest.raises(ValueError, match="Train with tied=True"):
        export_transformers(model, CHARACTERS, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_exporting_leaves_the_model_as_it_is(tmp_path):
    config, tokenizer = MODELS["lecture"]
    model = trained(config)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    export_transformers(model, tokenizer, tmp_path / "out")
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_card_says_what_is_known(tmp_path):
    config, tokenizer = MODELS["baby"]
    facts = {"data": "plays about geese", "loss": "1.2345 nats per character", "license": "mit"}
    export_transformers(trained(config), tokenizer, tmp_path / "goose", facts)
    card = (tmp_path / "goose" / "README.md").read_text(encoding="utf-8")
    head, body = card.removeprefix("---\n").split("---\n", 1)
    assert "license: mit\n" in head and "library_name: transformers\n" in head
    for fact in (*facts.values(), f"{build_model(config).num_params():,} parameters", "goose"):
        assert fact in body
    export_transformers(trained(config), tokenizer, tmp_path / "unknown")
    card = (tmp_path / "unknown" / "README.md").read_text(encoding="utf-8")
    assert card.count("not recorded") == 2 and "license:" not in card.split("---")[1]


def test_a_folder_with_something_in_it_is_not_touched(tmp_path):
    config, tokenizer = MODELS["baby"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        export_transformers(trained(config), tokenizer, tmp_path / "full")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        export_transformers(trained(config), tokenizer, tmp_path / "full" / "thesis.txt")
    (tmp_path / "empty").mkdir()
    export_transformers(trained(config), tokenizer, tmp_path / "empty")
    names = {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert {path.name for path in (tmp_path / "empty").iterdir()} == names
    assert {path.name for path in tmp_path.iterdir()} == {"full", "empty"}


@pytest.mark.parametrize(
    "failing", ["write_json", "write_hf_tokenizer", "atomic_write_text", "save_file"]
)
def test_where_the_disk_is_full_nothing_is_left(failing, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gpt2, failing, full)
    config, tokenizer = MODELS["baby"]
    with pytest.raises(OSError, match="No space left|could not be written"):
        export_transformers(trained(config), tokenizer, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- in: what transformers has written


def their_model(folder, seed=0, **changes):
    """A GPT-2 that transformers made and saved, with all parameters drawn."""
    settings = {
        "vocab_size": PIECES.vocab_size,
        "n_positions": 32,
        "n_embd": 48,
        "n_layer": 2,
        "n_head": 4,
    }
    special = {"bos_token_id": None, "eos_token_id": None}
    config = transformers.GPT2Config(**settings | special | changes)
    model = transformers.GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    PIECES.save_gpt2(folder)
    return model


@torch.no_grad()
def assert_same(theirs, folder):
    model, tokenizer = from_pretrained(folder)
    idx = random_ids(tokenizer.vocab_size)
    logits = theirs(idx).logits
    assert logits.std() > 0.1
    assert (our_logits(model, idx) - logits).abs().max() < 1e-5
    return model, tokenizer


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh", "gelu", "relu", "relu2"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_gpt2_of_transformers_computes_the_same_here(activation, tied, tmp_path):
    theirs = their_model(tmp_path, activation_function=activation, tie_word_embeddings=tied)
    model, tokenizer = assert_same(theirs, tmp_path)
    assert model.config.tied == tied
    assert tokenizer.to_dict() == PIECES.to_dict()
    assert generate(model, "The geese", 5, tokenizer=tokenizer, seed=1).startswith("The geese")


def test_weights_in_several_files_in_half_precision_and_by_the_short_names(tmp_path):
    theirs = their_model(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    PIECES.save_gpt2(tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
    assert_same(theirs, tmp_path / "shards")

    # The names of the published files: without the prefix, and with the causal masks of earlier versions.
    weights = load_file(tmp_path / "whole" / "model.safetensors")
    short = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    short["h.0.attn.bias"] = torch.ones(1, 1, 32, 32)
    short["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    short["lm_head.weight"] = short["wte.weight"].clone()
    save_file(short, tmp_path / "whole" / "model.safetensors")
    assert_same(theirs, tmp_path / "whole")

    for dtype in (torch.float16, torch.bfloat16):
        half = tmp_path / str(dtype)
        theirs.to(dtype).save_pretrained(half)
        PIECES.save_gpt2(half)
        model, _ = assert_same(theirs.to(dtype).float(), half)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("kv_heads, tied", [(4, True), (2, False), (1, True)])
def test_a_llama_of_transformers_computes_the_same_here(kv_heads, tied, tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=V,
        hidden_size=48,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=32,
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.2)
    theirs.save_pretrained(tmp_path)
    write_hf_tokenizer(CHARACTERS, tmp_path, 32)
    model, _ = assert_same(theirs, tmp_path)
    assert model.config.kv_heads == kv_heads


def test_what_a_later_reader_does_with_a_model_of_theirs(tmp_path):
    """Training, attention and ablation go on from it as from any model of ours."""
    from chargpt_lib.attention_maps import ablate_heads, record_attention

    theirs = their_model(tmp_path, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0)
    model, tokenizer = from_pretrained(tmp_path)
    idx = random_ids(tokenizer.vocab_size, T=12, B=1)
    with record_attention(model) as maps, torch.no_grad():
        model(idx)
    with torch.no_grad():
        expected = theirs.from_pretrained(tmp_path, attn_implementation="eager")(
            idx, output_attentions=True
        ).attentions
    for layer in range(2):
        assert (maps.weights[layer] - expected[layer]).abs().max() < 1e-5
    with ablate_heads(model, [(0, 1)]), torch.no_grad():
        without, _ = model(idx)
    assert (without - our_logits(model, idx)).abs().max() > 1e-3
    model.train()
    _, loss = model(idx, idx)
    loss.backward()
    assert model.token_embedding.weight is model.lm_head.weight
    assert all(parameter.grad is not None for parameter in model.parameters())


# ---------------------------------------------------------------- files that are not what they should be


def edit_config(folder, **changes):
    path = folder / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | changes), encoding="utf-8")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "bert"}, "model_type is 'bert'; only models of the kinds gpt2 and llama"),
        ({"model_type": ["gpt2"]}, "model_type is .* only models of the kinds"),
        ({"activation_function": "silu"}, "activation_function is 'silu'"),
        ({"activation_function": ["relu"]}, "activation_function is"),
        ({"n_inner": 100}, "n_inner is '?100'?, and our model computes only"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is"),
        ({"scale_attn_weights": False}, "scale_attn_weights is"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is"),
        ({"n_embd": 40}, "has shape"),
        ({"n_embd": "48"}, "n_embd is '48'"),
        ({"n_embd": None}, "config.json: "),
        ({"n_head": 5}, "must be divisible by n_head"),
        ({"n_layer": 1}, "unexpected weight h.1"),
        ({"n_layer": 3}, "too few for the|missing weight"),
        ({"n_layer": 10**9}, "too few for the"),
        ({"n_positions": 10**15}, "too few for the"),
        ({"n_positions": 16}, "wpe.weight has shape .32, 48., but config.json asks for .16, 48."),
        ({"resid_pdrop": "none"}, "config.json: "),
        ({"vocab_size": 300}, "vocab_size is 300, but the tokenizer beside it has 289 tokens"),
        ({"tie_word_embeddings": False}, "missing weight lm_head.weight, our lm_head.weight"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(changes, message, tmp_path):
    their_model(tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        from_pretrained(tmp_path)


def test_a_llama_that_ours_cannot_be_is_refused(tmp_path):
    export("llama", tmp_path / "llama")
    changed = {
        "intermediate_size": 100,
        "rms_norm_eps": 1e-6,
        "attention_bias": True,
        "rope_theta": 500_000.0,
        "rope_scaling": {"factor": 8.0},
        "head_dim": 32,
        "hidden_act": "gelu",
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 10_000.0},
    }
    whole = (tmp_path / "llama" / "config.json").read_text(encoding="utf-8")
    for name, value in changed.items():
        (tmp_path / "llama" / "config.json").write_text(whole, encoding="utf-8")
        edit_config(tmp_path / "llama", **{name: value})
        with pytest.raises(ValueError, match=f"{name.replace('rope_parameters', 'rope_type')} is"):
            from_pretrained(tmp_path / "llama")


def test_a_folder_without_what_is_needed_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder is called .*gpt3.*gpt2-xl"):
        from_pretrained("gpt3")
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        from_pretrained(tmp_path)
    their_model(tmp_path / "whole")
    for name, message in {
        "config.json": "has no config.json",
        "model.safetensors": "has no model.safetensors",
        "merges.txt": "has no tokenizer",
    }.items():
        copy = tmp_path / name
        shutil.copytree(tmp_path / "whole", copy)
        (copy / name).unlink()
        with pytest.raises(FileNotFoundError, match=message):
            from_pretrained(copy)


def test_a_pickle_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    their_model(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save({"h.0.ln_1.weight": Trap()}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pytorch_model.bin, a pickle, which can run any code"):
        from_pretrained(tmp_path / "model")
    # Under the name of safetensors it is no safetensors.
    (tmp_path / "model" / "pytorch_model.bin").rename(tmp_path / "model" / "model.safetensors")
    with pytest.raises(ValueError, match="not in the format of safetensors"):
        from_pretrained(tmp_path / "model")
    assert not (tmp_path / "sprung").exists()


def test_a_damaged_file_of_weights_is_refused(tmp_path):
    their_model(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    header = len(whole[: 8 + int.from_bytes(whole[:8], "little")])
    damaged = [
        b"",
        whole[:5],
        whole[:header],
        whole[:-1],
        whole + b"x",
        b"\xff" * 8 + whole[8:],
        whole[8:],
    ]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="model.safetensors: it is not in the format"):
            from_pretrained(tmp_path)
    weights = load_file(path) if path.write_bytes(whole) else {}
    for change, message in [
        ({"wte.weight": weights["transformer.wte.weight"].double()}, "dtype F64"),
        ({"h.0.ln_1.weight": torch.ones(3)}, "h.0.ln_1.weight has shape .3."),
        ({"h.0.attn.c_proj.lora": torch.ones(3)}, "unexpected weight h.0.attn.c_proj.lora"),
        ({"lm_head.weight": torch.ones(PIECES.vocab_size, 48)}, "lm_head.weight differs"),
    ]:
        save_file(
            {**{k.removeprefix("transformer."): v for k, v in weights.items()}, **change}, path
        )
        with pytest.raises(ValueError, match=message):
            from_pretrained(tmp_path)


def test_an_index_leads_nowhere_else(tmp_path):
    theirs = their_model(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "outside.safetensors")
    index = tmp_path / "model" / "model.safetensors.index.json"
    for content, message in [
        ('{"weight_map": {"wte.weight": "../outside.safetensors"}}', "is not the name of a file"),
        ('{"weight_map": {"wte.weight": 7}}', "is not the name of a file"),
        ('{"weight_map": ["a"]}', "is no index"),
        ("[1]", "is no index"),
        ("{", "is no index"),
    ]:
        index.write_text(content)
        with pytest.raises(ValueError, match=message):
            from_pretrained(tmp_path / "model")
    index.write_text('{"weight_map": {"wte.weight": "model-1.safetensors"}}')
    with pytest.raises(FileNotFoundError, match="has no model-1.safetensors, which"):
        from_pretrained(tmp_path / "model")
    assert theirs is not None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": {"type": "Unigram", "vocab": {"a": 0}}}, "its model is 'Unigram'"),
        ({"model": {"type": "WordLevel", "vocab": {"goose": 0}}}, "alphabet|characters"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}, "no token for the byte 0"),
        ({"model": {"type": "BPE", "vocab": {"a": "0"}, "merges": []}}, "no vocabulary of tokens"),
        ({"model": 3}, "no vocabulary of tokens"),
        ({"normalizer": {"type": "Lowercase"}}, "has a normalizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "not of byte-level BPE"),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": []}},
            "does not end with ByteLevel",
        ),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "add_prefix_space"),
        ({"pre_tokenizer": {"type": "ByteLevel", "use_regex": False}}, "another pattern"),
        ({"added_tokens": [{"id": 5}]}, "not in the form"),
        ({"added_tokens": [{"id": 5, "content": "<s>"}]}, "two tokens have the id 5"),
    ],
)
def test_another_tokenizer_is_refused(change, message, tmp_path):
    tokenizer = PIECES if "model" not in change or change["model"] != {} else CHARACTERS
    write_hf_tokenizer(tokenizer, tmp_path, 32)
    path = tmp_path / "tokenizer.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(described | change), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        read_hf_tokenizer(tmp_path)
    assert "tokenizer.json" in str(caught.value)


def test_a_tokenizer_json_of_earlier_versions_is_read(tmp_path):
    """GPT-2's own: merges as texts, its pattern built into ByteLevel, the special token in the vocabulary, too."""
    write_hf_tokenizer(PIECES, tmp_path, 32)
    path = tmp_path / "tokenizer.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    described["pre_tokenizer"] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
    }
    described["model"]["merges"] = [" ".join(pair) for pair in described["model"]["merges"]]
    described["model"]["vocab"]["<|endoftext|>"] = PIECES.vocab_size - 1
    path.write_text(json.dumps(described), encoding="utf-8")
    assert read_hf_tokenizer(tmp_path).to_dict() == PIECES.to_dict()
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path))
    assert theirs(TEXT)["input_ids"] == PIECES.encode(TEXT).tolist()


def test_tokens_that_share_their_bytes_cannot_be_exported(tmp_path):
    merges = [(97, 98, 256), (98, 99, 257), (256, 99, 258), (97, 257, 259)]
    with pytest.raises(ValueError, match="tokens 258 and 259 both are b'abc'"):
        write_hf_tokenizer(BPETokenizer(merges), tmp_path, 32)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- the published sizes


def test_the_published_sizes_have_the_published_numbers_of_parameters():
    expected = {
        "gpt2": 124_439_808,
        "gpt2-medium": 354_823_168,
        "gpt2-large": 774_030_080,
        "gpt2-xl": 1_557_611_200,
    }
    for name, published in gpt2.GPT2_MODELS.items():
        settings = {key: getattr(published, key) for key in ("n_layer", "n_head", "n_embd")}
        with torch.device("meta"):
            theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings))
            ours = build_model(gpt2.gpt2_to_config(settings))
        assert ours.num_params() == theirs.num_parameters() == expected[name]


@pytest.fixture
def published(tmp_path, monkeypatch, site):
    """A small GPT-2 on a site of this machine, in the place of the published one -> its folder."""
    folder = tmp_path / "published"
    their_model(folder)
    content = (folder / "model.safetensors").read_bytes()
    site.pages["/model.safetensors"] = content
    monkeypatch.delenv("CHARGPT_DATA", raising=False)
    real_fetch = published_models.fetch

    def fetch_here(file, url, *args, **kwargs):
        assert url.startswith("https://huggingface.co/openai-community/gpt2/resolve/some-revision/")
        return real_fetch(file, f"{site.address}/{url.split('/')[-1]}", *args, **kwargs)

    model = published_models.PublishedModel(
        2, 4, 48, "some-revision", hashlib.sha256(content).hexdigest()
    )
    monkeypatch.setitem(gpt2.GPT2_MODELS, "gpt2", model)
    monkeypatch.setattr(published_models, "fetch", fetch_here)
    monkeypatch.setattr(published_models, "load_gpt2_tokenizer", lambda: PIECES)
    reader = gpt2.gpt2_to_config
    small_sizes = {"vocab_size": PIECES.vocab_size, "n_positions": 32}
    monkeypatch.setitem(
        gpt2.CONFIG_READERS, "gpt2", lambda settings: reader(settings | small_sizes)
    )
    return folder


def test_a_name_is_downloaded_once_and_opened(published, site, capsys):
    model, tokenizer = from_pretrained("gpt2")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(published)
    idx = random_ids(PIECES.vocab_size)
    with torch.no_grad():
        assert (theirs(idx).logits - our_logits(model, idx)).abs().max() < 1e-5
    assert tokenizer is PIECES
    assert "100%" in capsys.readouterr().err  # the progress bar
    site.pages.clear()  # the second time, nothing is asked for
    again, _ = from_pretrained("openai-community/gpt2")
    assert torch.equal(our_logits(again, idx), our_logits(model, idx))


def test_another_file_than_the_published_one_is_refused_and_not_kept(published, site, tmp_path):
    site.pages["/model.safetensors"] = site.pages["/model.safetensors"][:-1] + b"x"
    with pytest.raises(
        OSError, match="could not get gpt2/model.safetensors.*(?s:.)*Nothing was saved"
    ):
        from_pretrained("gpt2")
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept == []


def test_without_a_network_the_way_out_is_said(published, site, tmp_path, monkeypatch):
    site.pages.clear()
    with pytest.raises(
        OSError, match="set CHARGPT_DATA.* or open a folder that transformers saved"
    ):
        from_pretrained("gpt2")
    # What lies there already is used.
    (tmp_path / "data" / "gpt2").mkdir(parents=True)
    monkeypatch.setenv("CHARGPT_DATA", str(tmp_path / "data"))
    shutil.copy(published / "model.safetensors", tmp_path / "data" / "gpt2" / "model.safetensors")
    model, _ = from_pretrained("gpt2")
    assert model.config.n_embd == 48


def test_a_tensor_is_not_kept_open(tmp_path):
    """What was read stays as it was, whatever becomes of the file."""
    their_model(tmp_path)
    model, _ = from_pretrained(tmp_path)
    before = model.token_embedding.weight.clone()
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(model.token_embedding.weight, before)
    assert tensors.WEIGHTS_FILE == path.name


def test_names_are_translated_one_to_one():
    with torch.device("meta"):
        ours = build_model(replace(GPTConfig.gpt2(), n_layer=12)).state_dict()
        theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config()).state_dict()
    translated = {translate_name(name, gpt2.GPT2_FORMAT.names) for name in ours}
    assert translated == {name.removeprefix("transformer.") for name in theirs}
    assert len(translated) == len(ours)


def test_a_compiled_model_is_exported_like_the_model_itself(tmp_path):
    config, tokenizer = MODELS["baby"]
    model = trained(config)
    export_transformers(torch.compile(model), tokenizer, tmp_path / "out")
    idx = random_ids(V)
    assert (their_logits(tmp_path / "out", idx) - our_logits(model, idx)).abs().max() < 1e-5


@pytest.mark.parametrize("changes", [{"rope_parameters": None}, {"rope_parameters": "fast"}])
def test_a_llama_without_rope_parameters_has_the_usual_base(changes, tmp_path):
    export("llama", tmp_path / "llama")
    edit_config(tmp_path / "llama", **changes)
    assert from_pretrained(tmp_path / "llama")[0].config.positions == "rope"


@pytest.mark.parametrize(
    "changes", [{"hidden_size": None}, {"num_attention_heads": 0}, {"num_key_value_heads": True}]
)
def test_sizes_that_are_none_are_named(changes, tmp_path):
    export("llama", tmp_path / "llama")
    edit_config(tmp_path / "llama", **changes)
    [name] = changes
    with pytest.raises(ValueError, match=f"config.json: {name} is .*; it must be an integer >= 1"):
        from_pretrained(tmp_path / "llama")


def test_a_bias_that_rounding_would_spoil_is_refused():
    """Two rows that are nearly equal: in float64 the equations have a solution, but its numbers are too large."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(10, 16, generator=generator)
    twins = torch.cat([weight, weight[:1] + 1e-6])
    bias = torch.randn(11, generator=generator)
    with pytest.raises(ValueError, match="depend on one another"):
        fold_head_bias(twins, bias)
