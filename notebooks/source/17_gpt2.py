# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 17 · GPT-2: its weights in, yours out
#
# > GPT-2's weights in our model, and our models in the files that `transformers` opens.
#
# You will build: a map between the names and shapes of two programs. With this map, the weights that OpenAI published run in your GPT, and the models that you train open in the tools that everybody uses.
# You need lessons 06 to 09 and 14; a few sections also use lessons 10, 11 and 16. You also need `transformers`, Hugging Face's library with the code of hundreds of published models. Colab and Kaggle have it; on your own computer `make lab` or `pip install transformers` installs it. On two CPU cores the page takes half a minute.

# %%
import json
import tempfile
from dataclasses import replace
from pathlib import Path

# %%
import matplotlib.pyplot as plt
import torch
import transformers
from safetensors.torch import load_file

from chargpt_lib.attention_maps import (
    ablate_heads,
    plot_attention,
    record_attention,
    token_texts,
)
from chargpt_lib.bpe import BPETokenizer
from chargpt_lib.checkpoints import build_meta_model
from chargpt_lib.data import Corpus, load_corpus
from chargpt_lib.exercises import NotAttempted, check, progress
from chargpt_lib.files import bundled_dir
from chargpt_lib.gpt import GPT, GPTConfig, load_pretrained
from chargpt_lib.modern import ModernConfig, ModernGPT
from chargpt_lib.plots import show
from chargpt_lib.recipe import TrainConfig
from chargpt_lib.sampling import generate
from chargpt_lib.trainer import train
from chargpt_lib.training import evaluate

# %%
SOURCE = "stand-in"  # or "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl": a download of 0.5 to 6 GB
CORPUS = "playhouse"  # or "shakespeare", "oz", the path of a text of yours
corpus = load_corpus(CORPUS)
scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # deleted at the end
folder = Path(scratch.name)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

# %% [markdown]
# In 2019 OpenAI published the weights of GPT-2 ([Radford et al., 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf)), in four sizes. The models had read WebText, 40 GB of text from web pages. Each of them is lesson 06's GPT with biases in all norms and blocks and the tanh form of GELU: `GPTConfig.gpt2()`. The four differ from each other in only three numbers. The next cell counts their parameters on the device `meta`, where a model has shapes but no weights, so that even the largest takes no memory.

# %%
sizes = {
    "gpt2": {"n_layer": 12, "n_head": 12, "n_embd": 768},
    "gpt2-medium": {"n_layer": 24, "n_head": 16, "n_embd": 1024},
    "gpt2-large": {"n_layer": 36, "n_head": 20, "n_embd": 1280},
    "gpt2-xl": {"n_layer": 48, "n_head": 25, "n_embd": 1600},
}
parameters = {}
for name, size in sizes.items():
    config = replace(GPTConfig.gpt2(), **size)
    parameters[name] = build_meta_model(config).num_params()
    print(
        f"{name:12} {size['n_layer']} layers, width {size['n_embd']:5,}: {parameters[name]:13,} parameters"
    )

# %% [markdown]
# OpenAI calls the four sizes 124M, 355M, 774M and 1.5B. (The paper still says 117M, 345M, 762M and 1542M; [OpenAI's repository](https://github.com/openai/gpt-2) corrects them.) So OpenAI's weights would fit into your model, number for number. Two things stand in the way: the names differ, and so do some of the shapes.
#
# ## A folder of `transformers`
#
# Most models are published as a folder that the library [transformers](https://huggingface.co/docs/transformers) writes and opens. For GPT-2 the folder holds a config, a tokenizer (lesson 14), and the weights as safetensors (lesson 09).
#
# This page must run without a network, so a stand-in takes GPT-2's place: `transformers` makes a GPT-2 of tiny sizes with random weights. The stand-in writes noise, but its logits can be compared digit by digit. For the real GPT-2, put `SOURCE = "gpt2"` at the top and run the page again: from the section "Is it the same model?" on, the real model replaces the small random model that stands in for it. The page downloads the file of its weights, 548 MB, once, or finds it in `$CHARGPT_DATA/gpt2/model.safetensors`.


# %%
theirs_folder = folder / "stand-in"
their_tokenizer = BPETokenizer.train(corpus.train[:200_000], 512, ["<|endoftext|>"])
config = transformers.GPT2Config(
    vocab_size=512,
    n_positions=64,
    n_embd=48,
    n_layer=3,
    n_head=4,
    bos_token_id=511,
    eos_token_id=511,
)
theirs = transformers.GPT2LMHeadModel(config).eval()
torch.manual_seed(1337)
with torch.no_grad():
    for parameter in theirs.parameters():
        # round() leaves 1 for the gains and 0 for everything else. The noise is larger than the weights of a fresh model,
        # so that a misplaced weight shows.
        noise = 0.7 * (torch.rand(parameter.shape) - 0.5)
        parameter.copy_(parameter.round() + noise)
theirs.save_pretrained(theirs_folder)
their_tokenizer.save_gpt2(theirs_folder)  # vocab.json and merges.txt (lesson 14)
for path in sorted(theirs_folder.iterdir()):
    print(f"{path.stat().st_size:9,} bytes  {path.name}")

# %% [markdown]
# ## Two lists of names
#
# The next cell lists the weights of the first block with their shapes: those of `transformers` on the left, those of a GPT of yours with the same sizes on the right. **Predict:** your `qkv.weight` is 144 × 48. What shape will theirs have?

# %%
mine = GPT(
    GPTConfig(
        512, 64, n_layer=3, n_head=4, n_embd=48, bias=True, qkv_bias=True, activation="gelu_tanh"
    )
)
their_state = {
    name.removeprefix("transformer."): tensor for name, tensor in theirs.state_dict().items()
}
left = [
    f"{name} {[*tensor.shape]}" for name, tensor in their_state.items() if name.startswith("h.0.")
]
right = [
    f"{name} {[*tensor.shape]}"
    for name, tensor in mine.state_dict().items()
    if name.startswith("blocks.0.")
]
for one, other in zip(left, right):
    print(f"{one:36} {other}")

# %% [markdown]
# Both lists are in the order of the computation, so each row shows one weight under two names. `c_attn` is our `qkv`: 48 numbers in, three times 48 out. `c_fc` and `mlp.c_proj` are the two layers of the feed-forward. But `c_attn.weight` is 48 × 144, and ours is 144 × 48.
#
# ### Exercise: their names, your names
# ★ · 5 minutes · To open somebody else's model, you have to know which of its weights corresponds to which of yours.
#
# Turn a name of GPT-2 into ours. Four modules are not in the rows above: `wte` is our `token_embedding`, `wpe` our `position_embedding`, `ln_f` our `norm`, and `lm_head` is `lm_head` in both. GPT-2's names may begin with `transformer.`, or not; ours never do.

# %% tags=["exercise"] exercise="our_name"
def our_name(name):
    """A parameter's name in GPT-2, such as transformer.h.3.ln_1.bias -> its name in our GPT: blocks.3.norm_1.bias."""
    ### BEGIN SOLUTION
    words = {
        "h": "blocks",
        "ln_1": "norm_1",
        "ln_2": "norm_2",
        "ln_f": "norm",
        "attn": "attention",
        "c_attn": "qkv",
        "c_proj": "proj",
        "mlp": "feed_forward",
        "c_fc": "fc",
        "wte": "token_embedding",
        "wpe": "position_embedding",
    }
    parts = name.removeprefix("transformer.").split(".")
    return ".".join(words.get(part, part) for part in parts)
    ### END SOLUTION

# %%
check("our_name", our_name)

# %% [markdown]
# ## Transposed matrices
#
# Why are matrices transposed? (All four matrices of a block are. The fourth, `attn.c_proj`, our `attention.proj`, is square, so its shape does not show it.) `nn.Linear` keeps its weight $W$ as (out, in) and computes $y = x W^\top + b$. OpenAI's code, in TensorFlow, wrote each linear layer as a convolution over a single position, with a weight laid out as (in, out). `transformers` keeps that layout, in a layer called Conv1D, which computes $y = x W + b$. The next cell computes one layer of the stand-in three times: by the formula, by Conv1D, and by `nn.Linear` with the transposed weight.

# %%
torch.manual_seed(1337)
x = torch.rand(1, 5, 48)  # (B, T, C)
layer = theirs.transformer.h[0].attn.c_attn
linear = torch.nn.Linear(48, 144)
with torch.no_grad():
    linear.weight.copy_(layer.weight.T)  # (48, 144) -> (144, 48)
    linear.bias.copy_(layer.bias)
    y = x @ layer.weight + layer.bias
    print("x W + b         ", [round(number, 4) for number in y[0, 0, :4].tolist()])
    print("their Conv1D    ", [round(number, 4) for number in layer(x)[0, 0, :4].tolist()])
    print("Linear with Wᵀ  ", [round(number, 4) for number in linear(x)[0, 0, :4].tolist()])

# %% [markdown]
# Forget to transpose `c_attn`, and PyTorch refuses: 48 × 144 does not fit into 144 × 48. But one of the four is square: `attn.c_proj`, 48 × 48. **Predict:** what happens if you forget to transpose that one? A later section tries it.
#
# ## The map
#
# Here is the whole map, for the library. It translates our names into theirs, and says which of their modules have transposed matrices.

# %%
#| export
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


# %%
for name in ("blocks.2.attention.qkv.weight", "position_embedding.weight", "norm.bias"):
    print(f"{name:30} -> {translate_name(name, GPT2_FORMAT.names)}")

# %% [markdown]
# The shapes in GPT-2's smallest size, rows × columns:

# %%
state = build_meta_model(GPTConfig.gpt2()).state_dict()
table = []
for name, theirs_name in GPT2_FORMAT.names.items():
    shape = state[f"{name.replace('N', '0')}.weight"].shape
    rows, columns = shape if len(shape) == 2 else (1, shape[0])  # a norm has one row
    turned = theirs_name.endswith(GPT2_FORMAT.transposed)
    height, width = (columns, rows) if turned else (rows, columns)
    table.append((name, theirs_name, rows, columns, turned))
    print(f"{name:28} {rows:5} × {columns:4}   {theirs_name:18} {height:5} × {width:4}")

# %% [markdown]
# The same table as a picture. Each rectangle is as high as the weight has rows and as wide as it has columns; norms are thin lines. Blue weights have the same shape on both sides, orange ones are transposed. The token table is cut off: it would be 33 times as high. (`lm_head` is the token table again, and is left out.)

# %%
fig, ax = plt.subplots(figsize=(7.4, 7.6), layout="constrained")
top = 0
for name, theirs_name, rows, columns, turned in table[:-1]:
    rows = 1536 if name == "token_embedding" else max(rows, 50)
    height, width = (columns, rows) if turned else (rows, columns)
    colour = "#D55E00" if turned else "#0072B2"
    ax.add_patch(plt.Rectangle((-400, top), -columns, -rows, color=colour))
    ax.add_patch(plt.Rectangle((400, top), width, -height, color=colour))
    ax.text(-3700, top + 60, name, ha="right", va="top", fontsize=9)
    ax.text(3700, top + 60, theirs_name, va="top", fontsize=9)
    top -= max(rows, height, 250) + 250
ax.set(xlim=(-8000, 6400), ylim=(top, 500), aspect="equal")
ax.text(-400, 130, "your GPT", ha="right", weight="bold")
ax.text(400, 130, "GPT-2 in transformers", weight="bold")
ax.axis("off")
show(
    fig,
    "Two columns of rectangles: on the left the weights of your GPT, on the right those of GPT-2, with their names."
    " Blue ones are the same on both sides: the two tables and the norms. Orange ones are turned by a quarter on "
    "the right. qkv and fc are high on the left and wide on the right. The projection of the feed-forward is wide "
    "on the left and high on the right. The projection of the attention is a square and looks the same.",
)

# %% [markdown]
# ## The config
#
# The weights do not say what is computed with them: which activation, which $\varepsilon$ in the norms, how many heads. `config.json` does. A wrong activation changes no shape, so there would be no error. Therefore the next function checks every setting that changes the logits, and refuses a model whose logits our GPT cannot compute. (`require_size` raises an error for a size that is not a positive integer. `require_values` takes for each setting its default and the values that our GPT can compute, and raises an error for any other value.)

# %%
#| export
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

# %%
for settings in ({"activation_function": "gelu"}, {"layer_norm_epsilon": 1e-6}):
    try:
        print(settings, "->", gpt2_to_config(settings).activation)
    except ValueError as error:
        print(settings, "->", error)

# %% [markdown]
# ## Opening the weights
#
# What remains is to read the weights. A safetensors file begins with a list of names and shapes (lesson 09), so `check_tensors` can compare all of them with the config before a single number is read. Then the tensors are read one at a time, transposed where the map says so, and put into a model on the device `meta`. So at most one tensor at a time is in memory twice.

# %%
#| export
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

# %%
#| export
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

# %% [markdown]
# `from_pretrained` puts the pieces together: config, model, weights, tokenizer. It takes a folder, or one of the four names. For a name, `fetch_gpt2` (in `chargpt_lib/formats/published.py`, with the four addresses) downloads the weights and refuses a file whose SHA-256 is not the published one.

# %%
#| export
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

# %% [markdown]
# ## Is it the same model?
#
# Give both programs the same ids and compare the logits. (`AutoModelForCausalLM` reads the `model_type` in `config.json` and picks the class for that kind of model.) **Predict:** will all digits agree?

# %%
if SOURCE == "stand-in":
    model, tokenizer = from_pretrained(theirs_folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(theirs_folder)
else:
    model, tokenizer = from_pretrained(SOURCE)
    real_folder, _, _ = fetch_gpt2(SOURCE)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes[SOURCE]))
    theirs.transformer.load_state_dict(load_file(real_folder / "model.safetensors"), strict=False)
idx = tokenizer.encode(corpus.val[:200])[None, :50]  # (1, T)
with torch.no_grad():
    our_logits, _ = model(idx)  # (1, T, V)
    their_logits = theirs.eval()(idx).logits
difference = (our_logits - their_logits).abs().max().item()
largest = their_logits.abs().max().item()
print(f"the first logit: theirs ≈ {their_logits[0, 0, 0]:.9f}, ours ≈ {our_logits[0, 0, 0]:.9f}")
print(
    f"of {our_logits.numel():,} logits the largest is {largest:.2f}, and the largest difference ≈ {difference:.0e}"
)

# %%
assert difference / largest < 1e-5

# %% [markdown]
# A logit is the result of thousands of rounded sums. The two programs need not add in the same order, so the last digits may differ. The greedy text is the same, token by token:

# %%
start = idx[:, :10]
with torch.no_grad():
    # do_sample=False: greedy. pad_token_id would fill up the shorter texts of a batch; this batch has one text.
    their_text = theirs.generate(start, max_new_tokens=30, do_sample=False, pad_token_id=0)[0, 10:]
our_text = generate(model, start, max_new_tokens=30, temperature=0)[0, 10:]
print("theirs", their_text[:16].tolist())
print("ours  ", our_text[:16].tolist())
print("equal:", (their_text == our_text).sum().item(), "of", len(our_text), "new tokens")

# %% [markdown]
# ## What comes along
#
# `from_pretrained` returns a model and a tokenizer of ours, so what you built works on them. The model writes, and streams its tokens as they come. (An empty piece, `''`, means that the bytes so far are not yet a whole character; `�` stands for bytes that can never become one.)

# %%
for piece in generate(
    model, "The goose", 25, temperature=0.8, seed=1337, stream=True, tokenizer=tokenizer
):
    print(repr(piece), end=" ")

# %% [markdown]
# The stand-in knows no words. The real GPT-2 continues in English.
#
# Attention can be recorded and drawn (lesson 07):

# %%
text = "O damp goose! O wicked moon!"
ids = tokenizer.encode(text)
with record_attention(model) as maps, torch.no_grad():
    model(ids[None])
tokens = token_texts(tokenizer, text)
fig = plot_attention(maps, tokens, layer=0, head=1)
show(
    fig,
    "The attention map of head 1 in layer 0, with the tokens of the line as rows (queries) and columns (keys). The weights of the "
    "stand-in are random: each query looks at some of the tokens before it, without any order.",
)

# %% [markdown]
# And heads can be switched off. With random weights a head is as likely to harm as to help. (Giving all 512 tokens the same probability costs $\ln 512 = 6.24$ nats a token, so the stand-in is worse than a uniform guess.)

# %%
with torch.no_grad():
    _, loss = model(ids[None, :-1], ids[None, 1:])
    print(f"loss of the line:          {loss:.3f} nats per token")
    for head in range(4):
        with ablate_heads(model, [(0, head)]):
            _, without = model(ids[None, :-1], ids[None, 1:])
        print(f"without head {head} of layer 0: {without:.3f}")

# %% [markdown]
# ## The way out
#
# Now the other direction. You have trained a model, and people who have never heard of this course want to use it. They call `AutoModelForCausalLM.from_pretrained(folder)`, and that has to work without any code of yours.
#
# The same map serves here. But lesson 06's GPT can differ from GPT-2 in four ways, and each needs care:
#
# - *No biases.* GPT-2 has a bias in each norm and each matrix of its blocks. A bias of zero adds nothing, so we write zeros.
# - *Another activation.* `config.json` names it.
# - *An untied last matrix.* `config.json` says so (`tie_word_embeddings`), and the matrix is written by itself.
# - *A bias in the untied last matrix.* GPT-2 has no place for it. This case is harder.
#
# The logits are $z = W h + b$, where $h$ (C numbers) comes from the last layer norm, and $W$ is (V, C). A layer norm ends by adding a bias of its own, $\beta$. If we find a vector $\delta$ with
#
# $$W \delta = b$$
#
# then adding $\delta$ to $\beta$ does what $b$ did: $W (h + \delta) = W h + b$. These are $V$ equations for $C$ unknowns. With 65 characters and a width of 384 there are many solutions. With 50,257 tokens there is usually none, and the model is refused.

# %%
#| export
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

# %% [markdown]
# The function solves the equations by least squares, and checks how large an error remains. Try it with 65 characters and a width of 384, then with 300 tokens and a width of 48:

# %%
torch.manual_seed(1337)
for V, C in ((65, 384), (300, 48)):
    W = torch.rand(V, C)
    b = torch.rand(V)
    h = torch.rand(C)
    try:
        error = (W @ (h + fold_head_bias(W, b)) - (W @ h + b)).abs().max()
        print(f"V = {V}, C = {C}: W (h + δ) and W h + b differ by ≈ {error:.0e}")
    except ValueError as error:
        print(f"V = {V}, C = {C}:", error)

# %% [markdown]
# (The solution itself is exact to 10⁻⁶. The rest of the difference is rounding in 32 bits: each logit here is a sum of 384 positive numbers, near 100.)
#
# The next function uses it. It returns a config and the weights under GPT-2's names, with zeros for biases that our model lacks:

# %%
#| export
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

# %% [markdown]
# ## Llama's format
#
# Lesson 16's model cannot be written as a GPT-2: it has rotations, gates and grouped heads. Llama has these parts, too. In `transformers` its matrices are those of `nn.Linear`, and its rotations pair the two halves of a head, as ours do. So the map is a list of names and nothing else, and the config is the larger part of the work. The config reader below accepts only models with our choices: a SwiGLU of width $8 \cdot \mathrm{round}(C / 3)$, the base 10,000 for RoPE, $\varepsilon = 10^{-5}$. The published Llamas made other choices and are refused. So this format is for your own models: to export them, and to open them again.

# %%
#| export
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

# %% [markdown]
# Not every model of lesson 16 fits. Llama has no n-gram embeddings, no soft-capping and no QK-norm. Such parts cannot be left out on export, because the weights were trained with them. A model with any of them is refused, with the reason:

# %%
#| export
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

# %% [markdown]
# The next cell tries a model without these parts, and one with QK-norm.

# %%
for changes in ({"softcap": 0.0, "qk_norm": False}, {"softcap": 0.0}):
    torch.manual_seed(1337)
    config = ModernConfig(65, 64, n_layer=2, n_head=4, n_kv_head=2, n_embd=48, **changes)
    try:
        settings, weights = llama_from_model(ModernGPT(config))
        print(len(weights), "weights, the second block's first is", list(weights)[10])
    except ValueError as error:
        print(error)

# %% [markdown]
# ## Writing the folder
#
# The last function writes the config, the weights, the tokenizer and a model card. The card says what the model learned from, how good it is, and who may use it. All files go into a temporary folder, which gets its final name when it is complete (lesson 09).

# %%
#| export
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

# %% [markdown]
# Export the Playhouse model that comes with the course (lesson 06), and open it with `transformers`. (`return_tensors="pt"` asks the tokenizer for a PyTorch tensor.)

# %%
playhouse, characters, record = load_pretrained("playhouse")
out = folder / "playhouse"
facts = {"data": "Playhouse", "loss": f"{record['loss']:.3f} nats per character", "license": "mit"}
export_transformers(playhouse, characters, out, facts)
opened = transformers.AutoModelForCausalLM.from_pretrained(out)
auto_tokenizer = transformers.AutoTokenizer.from_pretrained(out)
line = "O damp goose!"
ids = auto_tokenizer(line, return_tensors="pt")["input_ids"]
with torch.no_grad():
    ours, _ = playhouse(ids)
    difference = (ours - opened(ids).logits).abs().max().item()
print("opened as", type(opened).__name__)
print(
    f"logits differ by ≈ {difference:.0e} at most, and reach from {ours.min():.1f} to {ours.max():.1f}"
)

# %%
assert difference < 1e-4

# %% [markdown]
# Where both programs call the same kernels, even the last digit agrees. Now `transformers` writes a play with the exported model, and our `generate` writes one with the original:

# %%
written = opened.generate(ids, max_new_tokens=160, do_sample=False, pad_token_id=0)
their_play = auto_tokenizer.decode(written[0])
our_play = generate(playhouse, line, 160, temperature=0, tokenizer=characters)
print(their_play)
print("-" * 20)
same = sum(a == b for a, b in zip(their_play[len(line) :], our_play[len(line) :]))
print(f"new characters that are the same in ours: {same} of {len(our_play) - len(line)}")

# %%
assert their_play[:60] == our_play[:60]

# %% [markdown]
# A modern model, here with fresh weights, goes out as a Llama and comes back:

# %%
config = ModernConfig(
    54, 64, n_layer=2, n_head=4, n_kv_head=2, n_embd=48, softcap=0.0, qk_norm=False
)
modern = ModernGPT(config).eval()
export_transformers(modern, characters, folder / "llama")
llama = transformers.AutoModelForCausalLM.from_pretrained(folder / "llama")
back, _ = from_pretrained(folder / "llama")
with torch.no_grad():
    logits, _ = modern(ids)
    difference = (logits - llama(ids).logits).abs().max().item()
    again, _ = back(ids)
print(f"{type(llama).__name__}: logits differ by ≈ {difference:.0e} at most")
print(f"{type(back).__name__}: {(logits == again).sum()} of {again.numel()} logits are equal")

# %%
assert difference < 1e-5

# %% [markdown]
# The card says in words what the weights cannot:

# %%
print((out / "README.md").read_text(encoding="utf-8"))

# %% [markdown]
# ## The square matrix
#
# Back to the question from above: what if the square matrix of a block, `attn.c_proj`, is not transposed? All shapes fit, so there is no error. The next cell makes this mistake in the Playhouse model, in one block at a time. **Predict:** in which block does the mistake cost most, the first or the last? Is the model then still better than a uniform guess?

# %%
val_ids = characters.encode(load_corpus("playhouse").val[:20_000])


def transpose_proj(block):
    """Transposes the projection of a block's attention, in place."""
    weight = block.attention.proj.weight
    with torch.no_grad():
        weight.copy_(weight.T.clone())


right = evaluate(playhouse, val_ids)
print(f"without the mistake: {right:.2f} nats per character")
for number, block in enumerate(playhouse.blocks):
    transpose_proj(block)
    loss = evaluate(playhouse, val_ids)
    print(f"wrong in block {number}:    {loss:.2f}, {loss - right:.2f} more")
    transpose_proj(block)  # right again
print(f"a uniform guess:     {torch.tensor(54).log():.2f}")

# %% [markdown]
# In block 0 the mistake ruins everything: the model is worse than a guess that gives all 54 characters the same probability. All later blocks build on what block 0 writes. No block follows block 3, so the mistake there costs least. Here is what the model writes with the mistake in block 3, and below that what it writes without it:

# %%
transpose_proj(playhouse.blocks[3])
print(generate(playhouse, line, 130, temperature=0.8, seed=2, tokenizer=characters))
transpose_proj(playhouse.blocks[3])
print("-" * 20)
print(generate(playhouse, line, 130, temperature=0.8, seed=2, tokenizer=characters))

# %% [markdown]
# From the first play alone you would think that the model was not trained for long enough. So do not judge a conversion by its samples: compare logits with the original.

# %% [markdown]
# ## Fine-tuning
#
# Weights that were trained on one text can be a better start for another text than random ones. Continuing the training from them is called **fine-tuning**. The training loop stays the same; it only starts from different weights.
#
# The new text will be plays in small letters. The model knows these characters, but it has never seen a line begin with a small one. **Predict:** the Playhouse model took 6,000 steps to reach 0.354 nats on its own text. After 40 steps on the new one, is its loss nearer to 0.4 or to $\ln 54 = 3.99$? And the loss of a model that starts from random weights?

# %% tags=["nbval-ignore-output"]
plays = load_corpus("playhouse")
small_letters = Corpus("small letters", plays.train.lower(), plays.val[:20_000].lower())
config = TrainConfig(steps=40, batch_size=8, learning_rate=1e-3, eval_interval=10)
torch.manual_seed(1337)
curves = {}
for start, learner in {
    "random weights": GPT(playhouse.config),
    "the Playhouse model": playhouse,
}.items():
    first = evaluate(learner, characters.encode(small_letters.val))
    result = train(learner, small_letters, config, characters)
    curves[start] = [
        first,
        *(row["val_loss"] for row in result["log"] if row["val_loss"] is not None),
    ]
    print(f"{start}: ≈ {first:.2f} before, ≈ {curves[start][-1]:.2f} after 40 steps")

# %%
assert curves["the Playhouse model"][-1] < 0.7
assert curves["random weights"][-1] > 2

# %%
fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for (start, losses), colour in zip(curves.items(), ("#D55E00", "#0072B2")):
    ax.plot(range(0, 41, 10), losses, "o-", color=colour, label=start)
ax.set(xlabel="steps", ylabel="validation loss, nats per character", ylim=(0, None))
ax.legend(title="started from")
show(
    fig,
    "Two curves of the validation loss over 40 steps on plays in small letters. The one that starts from the Playhouse model "
    "begins far below the one that starts from random weights, and ends far below it.",
)

# %% [markdown]
# The words and the grammar were learned already; the model had to unlearn only the capitals. In a terminal, a run can start from any other run, saved model or export, GPT-2 included:
#
#     chargpt import gpt2 --out models/gpt2
#     chargpt train --init-from models/gpt2 --corpus diary.txt --out runs/diary
#
# Each id has to keep its meaning. So the new run keeps the tokenizer of the first, and refuses a text with other characters before the training begins. With byte-pair encoding that cannot happen, because its 256 bytes can write every text.

# %%
diary = "Dear diary,\ntoday I saw 2 geese on the moon. Again!\n"
try:
    characters.encode(diary)
except ValueError as error:
    print(error)

# %% [markdown]
# What if the new text needs these characters? Then the token table needs new rows. (A tied `lm_head` gets them with it.)
#
# ### Exercise: new rows
# ★★ · 8 minutes · If you copy a table row by row into a model with another alphabet, many letters get another letter's vector.
#
# `old` and `new` are two alphabets, and `table` has a row for each character of `old`. Make the table for `new`: a character of both alphabets keeps its row, and a new character gets the mean of all rows of the old table.

# %% tags=["exercise"] exercise="table_for_alphabet"
def table_for_alphabet(table, old, new):
    """table (len(old), C); old, new: strings of distinct characters -> the table for new, (len(new), C)."""
    ### BEGIN SOLUTION
    mean = table.mean(0)
    rows = []
    for character in new:
        place = old.find(character)
        rows.append(mean if place < 0 else table[place])
    return torch.stack(rows)
    ### END SOLUTION

# %%
check("table_for_alphabet", table_for_alphabet)

# %% [markdown]
# ## What it cost
#
# Could you train GPT-2 yourself? A training run takes about $6 N D$ floating-point operations: 6 for each of $N$ parameters and each of $D$ tokens, 2 in the forward pass and 4 in the backward pass ([Kaplan et al., 2020](https://arxiv.org/abs/2001.08361), who leave the embeddings out of $N$; GPT-2's table is its last matrix, too, so we count it). No training run reaches the speed on the chip's data sheet. The share that it does reach is called **MFU**, model FLOPs utilisation: 0.46 for the large model PaLM, on TPUs ([Chowdhery et al., 2022](https://arxiv.org/abs/2204.02311)). For nanoGPT's GPT-2 it is 0.26: its README reports four days on eight A100s, and its config asks for 295 billion tokens. (With the products of attention, which $6 N D$ leaves out, it is 0.29.)
#
# ### Exercise: how long?
# ★ · 4 minutes · Graphics cards are rented by the hour.
#
# `peak` is the speed on the data sheet of one card, in operations a second. How many hours does the training take?

# %% tags=["exercise"] exercise="training_hours"
def training_hours(parameters, tokens, cards, peak, mfu):
    """The hours that a training takes, a float. peak: operations a second of one card; mfu: the share of it, 0 to 1."""
    ### BEGIN SOLUTION
    operations = 6 * parameters * tokens
    return operations / (cards * peak * mfu) / 3600
    ### END SOLUTION

# %%
check("training_hours", training_hours)

# %% [markdown]
# [OpenWebText](https://skylion007.github.io/OpenWebTextCorpus/), an open reconstruction of WebText (OpenAI never published the original), has 9 billion of GPT-2's tokens. One pass over it, on eight A100s with $312 \cdot 10^{12}$ operations a second each, at an MFU of 0.26:

# %%
for name, count in parameters.items():
    operations = 6 * count * 9e9
    hours = operations / (8 * 312e12 * 0.26) / 3600
    print(f"{name:12} {operations:.1e} operations, {hours:5.1f} hours")

# %% [markdown]
# One pass is not enough: nanoGPT's run reads this text about 33 times, hence its four days. `chargpt info` counts the products of attention, too, and says what has to fit into the memory of a card:
#
#     chargpt info --preset gpt2 --tokenizer gpt2 --tokens 9e9 --devices 8xA100
#
# How much memory does a step take? `python -m tests.benchmarks.memory` measured it for GPT-2's smallest size, on a CPU in 32 bits: the peak memory of one step on one window, on top of weights, gradients and AdamW's moments. In *attention written out* the T × T attention weights of each head are kept for the backward pass, as in lesson 03. The *fused kernel* (lesson 04) does not keep them. *Gradient checkpointing* (lesson 10) keeps only the input of each block, and computes the rest again. **Predict:** by what factor does each of the three grow when the tokens double?

# %%
measured = json.loads((bundled_dir() / "results" / "memory.json").read_text(encoding="utf-8"))
steps = measured["devices"]["cpu"]["one step"]
ways = {
    "attention written out": "#D55E00",
    "fused kernel": "#0072B2",
    "fused kernel, gradient checkpointing": "#009E73",
}
fig, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
for row, (way, colour) in enumerate(ways.items()):
    peaks = [steps[f"fp32, T = {T}"][way]["peak, bytes"] / 1e9 for T in (1024, 2048)]
    ax.barh([row, row + 4], peaks, color=colour)
    for place, peak in zip((row, row + 4), peaks):
        ax.text(peak + 0.05, place, f"{way}: {peak:.2f} GB", va="center")
    print(f"{way:37} {peaks[0]:.2f} GB, then {peaks[1]:.2f} GB: {peaks[1] / peaks[0]:.2f} times")
ax.set_yticks([1, 5], ["1,024 tokens", "2,048 tokens"])
ax.set(xlabel="memory of one step, GB", xlim=(0, 9))
ax.invert_yaxis()
show(
    fig,
    "Bars for one step. With 1,024 tokens: attention written out 2.06 GB, fused kernel 1.45, with gradient checkpointing 0.88. "
    "With 2,048 tokens: 5.34, 2.88 and 1.75 GB.",
)

# %% [markdown]
# With the fused kernel, twice as many tokens take twice as much memory, with and without checkpointing. (For 2,048 tokens the position table was made twice as long.) With attention written out, they take more than that, because the attention weights are T² numbers for each head. The memory that remains with checkpointing belongs mostly to the logits: 1,024 × 50,257 numbers are 0.21 GB, and the logits, their softmax and their gradients are several such arrays.
#
# ## From nanoGPT, and out to anywhere
#
# Two more formats need no new idea. Their code is in `chargpt_lib/formats`, not in this lesson's module.
#
# - **nanoGPT** has GPT-2's names and `nn.Linear`, so nothing is transposed. Its `ckpt.pt` is a pickle, which can run any code when it is opened (lesson 09). We let PyTorch read only the tensors (`weights_only`). The alphabet of a character model is in a second pickle, `meta.pkl`; our reader accepts dicts, texts and numbers, and nothing else.
# - **ONNX** describes a computation as a graph of operations. Programs in other languages run such a graph without Python, in browsers and on phones. In our export the cache's keys and values (lesson 08) are inputs and outputs of the graph, so a program can generate one token at a time with it.
#
# In a terminal:
#
#     chargpt import gpt2 --out models/gpt2                          # a published size, by its name
#     chargpt import ckpt.pt --meta meta.pkl --out models/mine       # nanoGPT's checkpoint
#     chargpt export runs/me --format transformers --out models/hf   # or nanogpt, or onnx
#     chargpt sample models/mine --prompt "O damp goose!"
#
# The checkpoint of a hand-written GPT, such as that of Karpathy's lecture "Let's build GPT", needs one more step.
#
# ### Exercise: many heads, one matrix
# ★★ · 8 minutes · Such a checkpoint has a query, a key and a value matrix for each head, as lesson 04's first version has.
#
# Each matrix is (head_size, C). Join them into the one matrix of `CausalSelfAttention`, (3C, C). Its first C rows make the queries, head after head; the next C rows make the keys; the last C rows make the values.

# %% tags=["exercise"] exercise="stack_heads"
def stack_heads(queries, keys, values):
    """Three lists of H matrices (head_size, C), one for each head -> the weight of qkv, (3 * H * head_size, C)."""
    ### BEGIN SOLUTION
    return torch.cat([*queries, *keys, *values])
    ### END SOLUTION

# %%
check("stack_heads", stack_heads)

# %% [markdown]
# ## Mistakes people make
#
# - **Copying by shape.** A square matrix also fits when it is transposed, and queries also fit where keys belong.
# - **Judging by a sample.** A model with one wrong matrix still writes. Compare logits.
# - **Another GELU.** GPT-2 uses the tanh form. With the exact form every weight still fits, but the logits are wrong.
# - **Queries, keys and values mixed per head.** Some checkpoints keep them as $q_0, k_0, v_0, q_1, \dots$; GPT-2 and our GPT keep all queries first.
# - **Other pairs in RoPE.** Meta's own files of Llama pair neighbours; `transformers` pairs halves, and reorders the rows when it converts.
# - **A tokenizer from elsewhere.** Another vocabulary of the same size fits every shape, but every id means something else.
# - **Opening a stranger's pickle.** `torch.load(weights_only=False)` runs whatever the file's author put into it.
#
# How far you are:

# %%
progress()

# %% [markdown]
# ## Summary
#
# You now have `from_pretrained` and `export_transformers`, in `chargpt_lib/gpt2.py`. The GPT of lesson 06 *is* GPT-2: with the same weights it computes the same logits. And what you train is not locked into this course: other people's tools open it.
#
# This is the last lesson. You can load a text, cut it into tokens, train on one card or on many, sample, look into the heads, and hand the model to others. Train something of your own.
