# Made from notebooks/source/17_gpt2.py by notebooks/tools/build.py. Edit that text, not this file.
"""GPT-2's weights in our model, and our models in the files that `transformers` opens."""

import re
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file

from chargpt_lib.checkpoints import build_meta_model, model_spec, unwrap
from chargpt_lib.files import atomic_folder, atomic_write, atomic_write_text, write_json
from chargpt_lib.formats.hf_config import read_hf_config, require_size, require_values
from chargpt_lib.formats.hf_tokenizers import end_of_text_id, read_hf_tokenizer, write_hf_tokenizer
from chargpt_lib.formats.model_card import model_card
from chargpt_lib.formats.published import GPT2_MODELS, fetch_gpt2
from chargpt_lib.formats.tensors import (
    WEIGHTS_FILE,
    check_number_of_parameters,
    check_tensors,
    list_tensors,
    read_tensor,
)
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
    "FORMATS",
    "CONFIG_READERS",
    "from_pretrained",
    "fold_head_bias",
    "ACTIVATION_TO_HF",
    "gpt2_from_model",
    "LLAMA_FORMAT",
    "llama_to_config",
    "llama_from_model",
    "WRITERS",
    "export_transformers",
]


class Format(NamedTuple):
    """How `transformers` names and lays out the weights of one kind of model."""

    class_name: str  # of the model, in transformers
    prefix: str  # in front of all names except that of lm_head
    names: dict  # our modules -> theirs, without the prefix; N is the number of a block
    transposed: tuple = ()  # their modules whose matrices are (in, out); nn.Linear's are (out, in)


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
    """A parameter's name in our GPT -> its name in the other program: blocks.3.norm_1.bias -> h.3.ln_1.bias.

    names: {our module: theirs}, with N for the number of a block. Raises: KeyError for a module that names lacks.
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


def gpt2_to_config(settings):
    """A GPT-2's config.json, a dict -> GPTConfig. Raises: ValueError if our GPT would compute something else."""
    n_embd = require_size(settings, "n_embd", 768)
    require_values(
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
        vocab_size=require_size(settings, "vocab_size", 50257),
        block_size=require_size(settings, "n_positions", 1024),
        n_layer=require_size(settings, "n_layer", 12),
        n_head=require_size(settings, "n_head", 12),
        n_embd=n_embd,
        dropout=settings.get("resid_pdrop", 0.1),
        bias=True,
        qkv_bias=True,
        activation=ACTIVATION_FROM_HF[settings.get("activation_function", "gelu_new")],
        tied=settings.get("tie_word_embeddings", True),
    )


def is_transposed(name, layout):
    """Whether a Format stores the parameter of this name (theirs) as (in, out)."""
    return name.endswith(tuple(f"{module}.weight" for module in layout.transposed))


def build_from_weights(config, weights):
    """The model of a config, in evaluation mode. weights, {our name: tensor}, become its parameters without a copy."""
    model = build_meta_model(config)
    model.load_state_dict(weights, assign=True)
    if config.tied:
        # assign=True made two parameters of the one tensor, so they have to be tied again.
        model.lm_head.weight = model.token_embedding.weight
    return model.eval()


def load_foreign_weights(config, folder, layout):
    """The model of a config, in evaluation mode, with the weights of a folder in float32. layout: the Format of the folder.

    Raises: FileNotFoundError if there are no weights; ValueError if a name or a shape does not fit the config.
    """
    stored = {}
    for name, tensor in list_tensors(folder).items():
        # Older files also hold buffers, which are not weights: the causal mask, and RoPE's speeds.
        if not name.endswith((".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")):
            stored[name.removeprefix(layout.prefix)] = tensor
    # Checked before a model of that size is built.
    check_number_of_parameters(folder, stored, config.min_parameters())
    state = build_meta_model(config).state_dict()  # names and shapes
    wanted = {}  # our name: theirs
    expected = {}  # their name: our name, and the shape of the tensor in the file
    for name, tensor in state.items():
        # Only ours has a bias in an untied lm_head, and a tied lm_head is the token embedding.
        if name == "lm_head.bias" or (name == "lm_head.weight" and config.tied):
            continue
        theirs = translate_name(name, layout.names)
        shape = tuple(tensor.shape)
        if is_transposed(theirs, layout):
            shape = shape[::-1]
        wanted[name] = theirs
        expected[theirs] = (name, shape)
    check_tensors(folder, stored, expected, optional=["lm_head.weight"])
    weights = {}
    # The largest first: while a tensor is copied, it is in memory twice.
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
                f"{folder}: lm_head.weight differs from the token embedding, but config.json says that the two are tied "
                f"(tie_word_embeddings)"
            )
    return build_from_weights(config, weights)


# The kinds of models that can be opened: the model_type in config.json -> the Format, and the function that makes our
# config. Llama's are added below.
FORMATS = {"gpt2": GPT2_FORMAT}
CONFIG_READERS = {"gpt2": gpt2_to_config}


def from_pretrained(name_or_folder):
    """A model of transformers -> our model, on the CPU in evaluation mode, and its tokenizer.

    name_or_folder: one of GPT2_MODELS, which is downloaded once; or a folder of the kind gpt2 or llama, with config.json,
    model.safetensors (or its shards), and tokenizer.json (or vocab.json and merges.txt).
    Raises: OSError if a file is missing or cannot be downloaded; ValueError if one is damaged, or if our model cannot
    compute the same.
    """
    name = str(name_or_folder).removeprefix("openai-community/")
    folder = Path(name_or_folder)
    if folder.is_dir():
        path = folder / "config.json"
        settings = read_hf_config(folder, FORMATS)
        tokenizer = read_hf_tokenizer(folder)
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


def fold_head_bias(weight, bias):
    """weight (V, C), bias (V,) of an lm_head -> (C,), the vector that, added to its input, has the effect of the bias.

    Raises: ValueError if there is none.
    """
    weight = weight.double().cpu()
    bias = bias.double().cpu()
    # gelsd takes the shortest of several solutions, and copes with rows that depend on one another.
    shift = torch.linalg.lstsq(weight, bias[:, None], driver="gelsd").solution[:, 0].float()
    error = (weight @ shift.double() - bias).abs().max().item()
    if error > 1e-6:
        raise ValueError(
            f"the lm_head has a bias, for which GPT-2 has no place, and the final norm's bias can replace it only up to "
            f"{error:.1g}: vocab_size ({len(bias)}) is larger than n_embd ({weight.shape[1]}), or the rows depend on one another. "
            f"Train with tied=True, or with a larger n_embd"
        )
    return shift


ACTIVATION_TO_HF = {
    "gelu_tanh": "gelu_new",
    "gelu": "gelu",
    "relu": "relu",
    "relu2": "relu2",
}


def gpt2_from_model(model):
    """A GPT in GPT-2's format -> the settings of its config.json, and its weights, {GPT-2's name: tensor}.

    Raises: ValueError if GPT-2 has no place for one of its parts.
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
        # In GPT-2 each norm and each matrix of a block has a bias; the tables and lm_head have none.
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
    """A Llama's config.json, a dict -> ModernConfig. Raises: ValueError if our model would compute something else."""
    n_embd = require_size(settings, "hidden_size", 4096)
    n_head = require_size(settings, "num_attention_heads", 32)
    n_kv_head = require_size(settings, "num_key_value_heads", n_head)
    # transformers 5 has a dict here. Earlier versions wrote the base alone, as rope_theta.
    rope = settings.get("rope_parameters")
    if not isinstance(rope, dict):
        rope = {"rope_theta": settings.get("rope_theta", 10_000.0)}
    require_values(
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
    require_values(
        rope, {"rope_theta": (10_000.0, (10_000.0,)), "rope_type": ("default", ("default",))}
    )
    return ModernConfig(
        vocab_size=require_size(settings, "vocab_size", 32_000),
        block_size=require_size(settings, "max_position_embeddings", 2048),
        n_layer=require_size(settings, "num_hidden_layers", 32),
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
    """A ModernGPT in Llama's format -> the settings of its config.json, and its weights, {Llama's name: tensor}.

    Raises: ValueError if Llama has no place for one of its parts.
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

    facts: for the model card, {"data": ..., "loss": ..., "license": ...}; any of them may be missing.
    Raises: ValueError if the format has no place for a part of the model, FileExistsError if the folder is not empty,
    OSError if it cannot be written. Then nothing is left in the folder that was not there before.
    """
    model = unwrap(model)
    model_spec(
        model, tokenizer
    )  # raises if the model cannot be saved, or if the tokenizer is not its own
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
