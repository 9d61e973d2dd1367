# Made from notebooks/source/17_gpt2.py by notebooks/tools/build.py. Edit that text, not this file.
"""GPT-2's weights in our model, and our models in the files that `transformers` opens."""

import json
import math
import re
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file

from chargpt_lib.bpe import load_gpt2_tokenizer
from chargpt_lib.checkpoints import build_meta_model, model_spec, unwrap
from chargpt_lib.files import atomic_folder, atomic_write, atomic_write_text, fetch, write_json
from chargpt_lib.formats.hf_tokenizers import end_of_text_id, read_hf_tokenizer, write_hf_tokenizer
from chargpt_lib.formats.model_card import model_card
from chargpt_lib.formats.tensors import WEIGHTS_FILE, list_tensors, read_tensor
from chargpt_lib.gpt import GPTConfig
from chargpt_lib.modern import ModernConfig, swiglu_width

__all__ = [
    "Format",
    "GPT2_FORMAT",
    "translate_name",
    "ACTIVATION_FROM_HF",
    "gpt2_to_config",
    "is_transposed",
    "build_from_weights",
    "load_foreign_weights",
    "PublishedModel",
    "GPT2_MODELS",
    "fetch_gpt2",
    "FORMATS",
    "CONFIG_READERS",
    "from_pretrained",
    "ACTIVATION_TO_HF",
    "fold_head_bias",
    "gpt2_from_model",
    "LLAMA_FORMAT",
    "llama_to_config",
    "llama_from_model",
    "WRITERS",
    "export_transformers",
]


class Format(NamedTuple):
    """How `transformers` lays out one kind of model."""

    class_name: str  # of the model, in transformers
    prefix: str  # before all names but that of lm_head
    names: dict  # our modules -> theirs, without the prefix; N is the number of a block
    transposed: tuple = ()  # their modules whose matrices are (in, out), the transpose of nn.Linear's (out, in)


GPT2_FORMAT = Format(
    class_name="GPT2LMHeadModel",
    prefix="transformer.",
    names={
        "token_embedding": "wte",
        "position_embedding": "wpe",
        "blocks.N.norm_1": "h.N.ln_1",
        "blocks.N.attention.qkv": "h.N.attn.c_attn",
        "blocks.N.attention.proj": "h.N.attn.c_proj",
        "blocks.N.norm_2": "h.N.ln_2",
        "blocks.N.feed_forward.fc": "h.N.mlp.c_fc",
        "blocks.N.feed_forward.proj": "h.N.mlp.c_proj",
        "norm": "ln_f",
        "lm_head": "lm_head",
    },
    transposed=("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
)


def translate_name(name, names):
    """The name of a parameter as another program has it: blocks.3.norm_1.bias -> h.3.ln_1.bias.

    names: {module of ours: theirs}, with N for the number of a block. Raises: KeyError for a module without a name there.
    """
    module, parameter = name.rsplit(".", 1)
    block = re.match(r"blocks\.(\d+)\.", module)
    if block is None:
        return f"{names[module]}.{parameter}"
    theirs = names[module.replace(block[0], "blocks.N.")]
    return f"{theirs.replace('.N.', f'.{block[1]}.')}.{parameter}"


# GPT-2's "gelu_new" and "gelu_pytorch_tanh" are one function under two names.
ACTIVATION_FROM_HF = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "relu2": "relu2",
}


def _size(settings, name, default):
    """A size in a config.json. Raises: ValueError where it is no integer >= 1."""
    size = settings.get(name, default)
    if type(size) is not int or size < 1:  # not isinstance, for which True is a number
        raise ValueError(f"{name} is {str(size)[:60]!r}; it must be an integer >= 1")
    return size


def _require(settings, allowed):
    """Raises: ValueError for the first setting with another value than those allowed: {name: (default, values)}."""
    for name, (default, values) in allowed.items():
        value = settings.get(name, default)
        if value not in values:
            raise ValueError(
                f"{name} is {str(value)[:60]!r}, and our model computes only {' or '.join(repr(v) for v in values)}"
            )


def gpt2_to_config(settings):
    """The GPTConfig of a GPT-2's config.json, a dict. Raises: ValueError where our GPT would compute something else."""
    n_embd = _size(settings, "n_embd", 768)
    _require(
        settings,
        {
            "n_inner": (None, (None, 4 * n_embd)),
            "activation_function": ("gelu_new", tuple(ACTIVATION_FROM_HF)),
            "layer_norm_epsilon": (1e-5, (1e-5,)),
            "scale_attn_weights": (True, (True,)),
            "scale_attn_by_inverse_layer_idx": (False, (False,)),
            "add_cross_attention": (False, (False,)),
            "tie_word_embeddings": (True, (True, False)),
        },
    )
    return GPTConfig(
        vocab_size=_size(settings, "vocab_size", 50257),
        block_size=_size(settings, "n_positions", 1024),
        n_layer=_size(settings, "n_layer", 12),
        n_head=_size(settings, "n_head", 12),
        n_embd=n_embd,
        dropout=settings.get("resid_pdrop", 0.1),
        bias=True,
        qkv_bias=True,
        activation=ACTIVATION_FROM_HF[settings.get("activation_function", "gelu_new")],
        tied=settings.get("tie_word_embeddings", True),
    )


def is_transposed(name, layout):
    """Whether a parameter, by its name in a Format, lies there as (in, out)."""
    return name.endswith(tuple(f"{module}.weight" for module in layout.transposed))


def build_from_weights(config, weights):
    """The model of a config, in evaluation mode, that has these weights, {our name: tensor}, and no copy of them."""
    model = build_meta_model(config)
    model.load_state_dict(weights, assign=True)
    if config.tied:
        # assign made two parameters of the one tensor, so the two have to be tied again.
        model.lm_head.weight = model.token_embedding.weight
    return model.eval()


def load_foreign_weights(config, folder, layout):
    """The model of a config, in evaluation mode, with the weights of a folder in float32. layout: the Format of their names.

    Raises: FileNotFoundError where there are no weights; ValueError where a name or a shape does not fit the config.
    """
    stored = {}
    for name, tensor in list_tensors(folder).items():
        # Buffers of earlier versions: the causal mask, and RoPE's speeds. They are no weights.
        if not name.endswith((".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")):
            stored[name.removeprefix(layout.prefix)] = tensor
    # Asked before a model of that size is built.
    least = config.min_parameters()
    if sum(math.prod(tensor.shape) for tensor in stored.values()) < least:
        raise ValueError(
            f"{folder}: the weights are too few for the {least:,} parameters that config.json asks for"
        )
    state = build_meta_model(config).state_dict()  # names and shapes
    wanted = {}  # our name: theirs
    for name in state:
        # The bias of an untied lm_head is ours alone, and a tied one is the token embedding once more.
        if name != "lm_head.bias" and not (name == "lm_head.weight" and config.tied):
            wanted[name] = translate_name(name, layout.names)
    unexpected = sorted(stored.keys() - {*wanted.values(), "lm_head.weight"})
    if unexpected:
        raise ValueError(
            f"{folder}: unexpected weight {unexpected[0]}, for which our model has no place"
        )
    for name, theirs in wanted.items():
        if theirs not in stored:
            raise ValueError(f"{folder}: missing weight {theirs}, our {name}")
        shape = tuple(state[name].shape)
        if is_transposed(theirs, layout):
            shape = shape[::-1]
        if stored[theirs].shape != shape:
            raise ValueError(
                f"{folder}: {theirs} has shape {[*stored[theirs].shape]}, but config.json asks for {[*shape]}"
            )
    weights = {}
    # The largest first: while one is copied, it is in memory twice.
    for name in sorted(wanted, key=lambda name: -state[name].numel()):
        tensor = read_tensor(stored[wanted[name]])
        if is_transposed(wanted[name], layout):
            tensor = tensor.T
        weights[name] = tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if "lm_head.bias" in state:
        weights["lm_head.bias"] = torch.zeros(config.vocab_size)
    if config.tied:
        weights["lm_head.weight"] = weights["token_embedding.weight"]
    if config.tied and "lm_head.weight" in stored:
        other = read_tensor(stored["lm_head.weight"])
        if not torch.equal(other.float(), weights["token_embedding.weight"]):
            raise ValueError(
                f"{folder}: lm_head.weight differs from the token embedding, and config.json says that they are one "
                f"(tie_word_embeddings)"
            )
    return build_from_weights(config, weights)


class PublishedModel(NamedTuple):
    """One of the sizes in which GPT-2 was published, and the sha256 of its model.safetensors in a fixed revision."""

    n_layer: int
    n_head: int
    n_embd: int
    revision: str
    sha256: str


GPT2_MODELS = {
    "gpt2": PublishedModel(
        n_layer=12,
        n_head=12,
        n_embd=768,
        revision="607a30d783dfa663caf39e06633721c8d4cfcd7e",
        sha256="248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
    ),
    "gpt2-medium": PublishedModel(
        n_layer=24,
        n_head=16,
        n_embd=1024,
        revision="6dcaa7a952f72f9298047fd5137cd6e4f05f41da",
        sha256="fc5a354a19255ad494f3d71549390baca1ccf61d1d822b9408971705c687c9cd",
    ),
    "gpt2-large": PublishedModel(
        n_layer=36,
        n_head=20,
        n_embd=1280,
        revision="32b71b12589c2f8d625668d2335a01cac3249519",
        sha256="5f47f3e12f91cd33b662ce7e433b6150ad5512b5884a2cee961b50e9c3bbebce",
    ),
    "gpt2-xl": PublishedModel(
        n_layer=48,
        n_head=25,
        n_embd=1600,
        revision="15ea56dee5df4983c59b2538573817e1667135e2",
        sha256="0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a",
    ),
}


def fetch_gpt2(name):
    """One of GPT2_MODELS, downloaded once -> the folder of its weights, its config as a dict, GPT-2's tokenizer.

    Raises: OSError where it cannot be had.
    """
    published = GPT2_MODELS[name]
    # Two small files first: without a network nothing large is begun.
    tokenizer = load_gpt2_tokenizer()
    address = f"https://huggingface.co/openai-community/{name}/resolve/{published.revision}/{WEIGHTS_FILE}"
    path = fetch(
        f"{name}/{WEIGHTS_FILE}",
        address,
        published.sha256,
        progressbar=True,
        way_out="open a folder that transformers saved",
    )
    settings = {
        "model_type": "gpt2",
        "n_layer": published.n_layer,
        "n_head": published.n_head,
        "n_embd": published.n_embd,
    }
    return path.parent, settings, tokenizer


# The kinds of models that can be opened: the model_type in their config.json -> how they are laid out, and what makes a
# config of ours. Llama's are added below.
FORMATS = {"gpt2": GPT2_FORMAT}
CONFIG_READERS = {"gpt2": gpt2_to_config}


def _read_folder(folder):
    """The config in a folder of transformers, as a dict, and its tokenizer."""
    path = folder / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} has no config.json: is it the folder of a model?"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not JSON ({error}): copy it again from where it came from"
        ) from None
    kind = settings.get("model_type") if isinstance(settings, dict) else None
    if not isinstance(kind, str) or kind not in FORMATS:
        raise ValueError(
            f"{path}: model_type is {str(kind)[:60]!r}; only models of the kinds {' and '.join(FORMATS)} can be opened"
        )
    return settings, read_hf_tokenizer(folder)


def from_pretrained(name_or_folder):
    """A model of transformers -> our model, on the CPU in evaluation mode, and its tokenizer.

    name_or_folder: one of GPT2_MODELS, which is downloaded once; or a folder of the kind gpt2 or llama, with config.json,
    model.safetensors (or its shards), and tokenizer.json (or vocab.json and merges.txt).
    Raises: OSError where something cannot be had; ValueError where it is damaged, or a model that ours cannot be.
    """
    name = str(name_or_folder).removeprefix("openai-community/")
    folder = Path(name_or_folder)
    if folder.is_dir():
        settings, tokenizer = _read_folder(folder)
        path = folder / "config.json"
    elif name in GPT2_MODELS:
        folder, settings, tokenizer = fetch_gpt2(name)
        path = f"the config of {name}"
    else:
        raise FileNotFoundError(
            f"no folder is called {name!r}, and no published model: give a folder, or one of {', '.join(GPT2_MODELS)}"
        )
    try:
        config = CONFIG_READERS[settings["model_type"]](settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(
            f"{path}: vocab_size is {config.vocab_size}, but the tokenizer beside it has {tokenizer.vocab_size} tokens: are "
            f"they of the same model?"
        )
    model = load_foreign_weights(config, folder, FORMATS[settings["model_type"]])
    return model, tokenizer


ACTIVATION_TO_HF = {
    "gelu_tanh": "gelu_new",
    "gelu": "gelu",
    "relu": "relu",
    "relu2": "relu2",
}


def fold_head_bias(weight, bias):
    """The vector to add to what an lm_head reads that does the work of its bias: weight (V, C), bias (V,) -> (C,).

    Raises: ValueError where there is none.
    """
    weight = weight.double().cpu()
    bias = bias.double().cpu()
    # gelsd: of several solutions the shortest, and a sensible answer where rows depend on one another.
    shift = torch.linalg.lstsq(weight, bias[:, None], driver="gelsd").solution[:, 0].float()
    error = (weight @ shift.double() - bias).abs().max().item()
    if error > 1e-6:
        raise ValueError(
            f"the lm_head has a bias, for which GPT-2 has no place, and the final norm's bias can replace it only up to "
            f"{error:.1g}: vocab_size ({len(bias)}) is larger than n_embd ({weight.shape[1]}), or the rows depend on one another. "
            f"Train with tied=True, or with a larger n_embd"
        )
    return shift


def gpt2_from_model(model):
    """What GPT-2's format makes of a GPT -> the settings of its config.json, and its weights by their names.

    Raises: ValueError where GPT-2 has no place for something.
    """
    config = model.config
    settings = {
        "n_positions": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "activation_function": ACTIVATION_TO_HF[config.activation],
        "layer_norm_epsilon": 1e-5,
        "attn_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
    }
    state = dict(model.state_dict())
    if not config.tied:
        shift = fold_head_bias(state["lm_head.weight"], state.pop("lm_head.bias"))
        state["norm.bias"] = state.get("norm.bias", 0) + shift.to(state["norm.weight"].device)
    weights = {}
    for name, tensor in state.items():
        theirs = translate_name(name, GPT2_FORMAT.names)
        weights[theirs] = tensor
        # There each norm and each matrix has a bias; the tables have none, and lm_head has none.
        if theirs.endswith(".weight") and theirs.startswith(("h.", "ln_f.")):
            weights.setdefault(theirs.replace(".weight", ".bias"), torch.zeros(len(tensor)))
    return settings, weights


LLAMA_FORMAT = Format(
    class_name="LlamaForCausalLM",
    prefix="model.",
    names={
        "token_embedding": "embed_tokens",
        "blocks.N.norm_1": "layers.N.input_layernorm",
        "blocks.N.attention.q": "layers.N.self_attn.q_proj",
        "blocks.N.attention.k": "layers.N.self_attn.k_proj",
        "blocks.N.attention.v": "layers.N.self_attn.v_proj",
        "blocks.N.attention.proj": "layers.N.self_attn.o_proj",
        "blocks.N.norm_2": "layers.N.post_attention_layernorm",
        "blocks.N.feed_forward.gate": "layers.N.mlp.gate_proj",
        "blocks.N.feed_forward.up": "layers.N.mlp.up_proj",
        "blocks.N.feed_forward.proj": "layers.N.mlp.down_proj",
        "norm": "norm",
        "lm_head": "lm_head",
    },
)


def llama_to_config(settings):
    """The ModernConfig of a Llama's config.json, a dict. Raises: ValueError where ours would compute something else."""
    n_embd = _size(settings, "hidden_size", 4096)
    n_head = _size(settings, "num_attention_heads", 32)
    n_kv_head = _size(settings, "num_key_value_heads", n_head)
    # transformers 5 has a dict here; before, the base stood by itself.
    rope = settings.get("rope_parameters")
    if not isinstance(rope, dict):
        rope = {"rope_theta": settings.get("rope_theta", 10_000.0)}
    _require(
        settings,
        {
            "intermediate_size": (11008, (swiglu_width(n_embd),)),
            "hidden_act": ("silu", ("silu",)),
            "rms_norm_eps": (1e-6, (1e-5,)),
            "attention_bias": (False, (False,)),
            "mlp_bias": (False, (False,)),
            "head_dim": (None, (None, n_embd // n_head)),
            "rope_scaling": (None, (None,)),
            "tie_word_embeddings": (False, (False, True)),
        },
    )
    _require(rope, {"rope_theta": (10_000.0, (10_000.0,)), "rope_type": ("default", ("default",))})
    return ModernConfig(
        vocab_size=_size(settings, "vocab_size", 32_000),
        block_size=_size(settings, "max_position_embeddings", 2048),
        n_layer=_size(settings, "num_hidden_layers", 32),
        n_head=n_head,
        n_kv_head=0 if n_kv_head == n_head else n_kv_head,
        n_embd=n_embd,
        dropout=settings.get("attention_dropout", 0.0),
        qk_norm=False,
        softcap=0.0,
        tied=settings.get("tie_word_embeddings", False),
    )


FORMATS["llama"] = LLAMA_FORMAT
CONFIG_READERS["llama"] = llama_to_config


def llama_from_model(model):
    """What Llama's format makes of a ModernGPT -> the settings of its config.json, and its weights by their names.

    Raises: ValueError where Llama has no place for something.
    """
    config = model.config
    absent = {
        "n_gram": (config.n_gram == 0, "no embeddings of n-grams"),
        "softcap": (config.softcap == 0, "no bound for its logits; softcap has to be 0"),
        "qk_norm": (not config.qk_norm, "no norm of queries and keys; qk_norm has to be False"),
        "positions": (config.positions == "rope", "no learned positions; it has RoPE"),
        "norm": (config.norm == "rms", "no layer norm; it has RMSNorm"),
        "activation": (config.activation == "swiglu", "no feed-forward but SwiGLU"),
    }
    for name, (fits, problem) in absent.items():
        if not fits:
            raise ValueError(
                f"{name} is {getattr(config, name)!r}, and Llama has {problem}. The model was trained with it, so it cannot be "
                f"left out now: train one without it, or export it as ONNX"
            )
    settings = {
        "max_position_embeddings": config.block_size,
        "hidden_size": config.n_embd,
        "intermediate_size": swiglu_width(config.n_embd),
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "attention_dropout": config.dropout,
    }
    weights = {}
    for name, tensor in model.state_dict().items():
        weights[translate_name(name, LLAMA_FORMAT.names)] = tensor
    return settings, weights


WRITERS = {"gpt": ("gpt2", gpt2_from_model), "modern": ("llama", llama_from_model)}


def export_transformers(model, tokenizer, folder, facts=None):
    """Writes a model in the files that AutoModelForCausalLM and AutoTokenizer of transformers open.

    facts: what its card shall say, {"data": ..., "loss": ..., "license": ...}, as far as it is known.
    Raises: ValueError for what the format has no place for, FileExistsError where the folder is not empty, OSError; there is
    then nothing in the folder.
    """
    model = unwrap(model)
    model_spec(model, tokenizer)  # raises where it cannot be saved, or with another tokenizer
    kind, describe = WRITERS[model.config.model_type]
    layout = FORMATS[kind]
    settings, weights = describe(model)
    end_of_text = end_of_text_id(tokenizer)
    settings = {
        "architectures": [layout.class_name],
        "model_type": kind,
        "vocab_size": model.config.vocab_size,
        **settings,
        "tie_word_embeddings": model.config.tied,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "dtype": "float32",
    }
    stored = {}
    for name, tensor in weights.items():
        if name == "lm_head.weight" and model.config.tied:
            continue
        if is_transposed(name, layout):
            tensor = tensor.T
        prefix = "" if name.startswith("lm_head.") else layout.prefix
        stored[prefix + name] = tensor.detach().float().cpu().contiguous()

    card = model_card(model, tokenizer, kind, Path(folder).name, {} if facts is None else facts)
    with atomic_folder(folder) as temporary:
        write_json(temporary / "config.json", settings)
        write_hf_tokenizer(tokenizer, temporary, model.config.block_size)
        atomic_write_text(temporary / "README.md", card)
        atomic_write(
            temporary / WEIGHTS_FILE,
            lambda path: save_file(stored, path, metadata={"format": "pt"}),
        )
