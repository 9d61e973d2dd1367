"""nanoGPT's checkpoints, and those of the lecture "Let's build GPT" (Karpathy, 2022 and 2023): read and written.

Nothing in such a file is run: ckpt.pt is read by `torch.load(weights_only=True)`, meta.pkl by an unpickler that knows
numbers, texts and dicts alone.
"""

import io
import pickle
import pickletools
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import torch

from chargpt_lib.bpe import BPETokenizer, load_gpt2_tokenizer
from chargpt_lib.checkpoints import (
    build_meta_model,
    corrupt_file,
    model_spec,
    unwrap,
    without_wrappers,
)
from chargpt_lib.data import CharTokenizer
from chargpt_lib.files import atomic_folder, atomic_write
from chargpt_lib.gpt import GPTConfig
from chargpt_lib.gpt2 import GPT2_FORMAT, build_from_weights, translate_name

CHECKPOINT_FILE = "ckpt.pt"
META_FILE = "meta.pkl"

GPT2_VOCAB_SIZE = 50257
# nanoGPT adds rows that stand for nothing: a multiple of 64 is faster.
PADDED_VOCAB_SIZE = 50304

# Our modules -> nanoGPT's, for `translate_name`: GPT-2's names with their prefix. Nothing is transposed.
NANOGPT_NAMES = {
    ours: theirs if ours == "lm_head" else f"transformer.{theirs}"
    for ours, theirs in GPT2_FORMAT.names.items()
}

# Our modules -> the lecture's. It has no qkv, but three matrices in each head.
LECTURE_NAMES = {
    "token_embedding": "token_embedding_table",
    "position_embedding": "position_embedding_table",
    "blocks.N.norm_1": "blocks.N.ln1",
    "blocks.N.attention.proj": "blocks.N.sa.proj",
    "blocks.N.norm_2": "blocks.N.ln2",
    "blocks.N.feed_forward.fc": "blocks.N.ffwd.net.0",
    "blocks.N.feed_forward.proj": "blocks.N.ffwd.net.2",
    "norm": "ln_f",
    "lm_head": "lm_head",
}

# Causal masks, which some versions keep among the weights.
MASKS = re.compile(
    r"transformer\.h\.\d+\.attn\.(bias|masked_bias)|blocks\.\d+\.sa\.heads\.\d+\.tril"
)

# Under which a training may keep the weights beside its other state.
STATE_DICT_KEYS = ("model", "model_state_dict", "state_dict")

SIZES = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")
MAX_SIZE = 2**31  # none of SIZES is as large

FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

MAX_META_BYTES = 2**21  # more than the alphabet of all scripts takes

# The pickle instructions that make a dict of numbers and texts.
META_OPCODES = {
    "PROTO",
    "FRAME",
    "MARK",
    "STOP",
    "EMPTY_DICT",
    "DICT",
    "SETITEM",
    "SETITEMS",
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "MEMOIZE",
    "PUT",
    "BINPUT",
    "LONG_BINPUT",
    "GET",
    "BINGET",
    "LONG_BINGET",
}

# ---------------------------------------------------------------- the alphabet


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that makes plain values and refuses everything that would import or call something."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid):
        raise pickle.UnpicklingError("it refers to something outside the file")


def _unpickle_plain(content):
    """The value in a pickle of numbers, texts and dicts. Raises: many kinds of errors for anything else."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name not in META_OPCODES:
            raise pickle.UnpicklingError(f"it has the instruction {opcode.name}")
        # Python sets aside as many places as this number says, which may be billions.
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > len(content):
            raise pickle.UnpicklingError(f"it asks for a memory of {argument} values")
    return _PlainUnpickler(io.BytesIO(content)).load()


def _is_alphabet(meta):
    """Whether a value is what nanoGPT writes: vocab_size, itos {id: character}, and stoi, its inverse."""
    if type(meta) is not dict or not {"vocab_size", "itos", "stoi"} <= meta.keys():
        return False
    itos = meta["itos"]
    stoi = meta["stoi"]
    if type(itos) is not dict or type(stoi) is not dict:
        return False
    # type(): for isinstance, True is a number.
    if not all(type(i) is int for i in (meta["vocab_size"], *itos, *stoi.values())):
        return False
    if not all(type(char) is str and len(char) == 1 for char in (*itos.values(), *stoi)):
        return False
    size = meta["vocab_size"]
    if size == 0 or size != len(itos) or itos.keys() != set(range(size)):
        return False
    return stoi == {char: i for i, char in itos.items()}


def read_meta(path):
    """The characters in nanoGPT's meta.pkl, as a list: the one of id 0 first.

    Raises: OSError where the file cannot be read, ValueError where it is anything else. Nothing in it is run.
    """
    with open(path, "rb") as file:
        content = file.read(MAX_META_BYTES + 1)
    if len(content) > MAX_META_BYTES:
        raise ValueError(
            f"{path} has more than {MAX_META_BYTES:,} bytes, and no alphabet takes that: is it nanoGPT's {META_FILE}?"
        )
    expected = "a pickled dict of vocab_size, itos {id: character} and stoi {character: id}"
    try:
        meta = _unpickle_plain(content)
    except Exception as error:  # a hostile or broken file has many ways to fail
        why = f"{type(error).__name__}, {error}"
        raise ValueError(
            f"{path} is not nanoGPT's {META_FILE}, {expected} ({why[:200]}). Nothing in it was run"
        ) from None
    if not _is_alphabet(meta):
        raise ValueError(
            f"{path} is not nanoGPT's {META_FILE}, {expected}: the ids have to be 0, 1, 2, ..., each with one "
            f"character, the same in itos and stoi"
        )
    return [meta["itos"][i] for i in range(meta["vocab_size"])]


def _choose_tokenizer(path, vocab_size, meta, tokenizer):
    """The tokenizer of a checkpoint -> the tokenizer, and which row of the checkpoint's tables each of its ids has, (V,).

    Raises: ValueError where there is none, or one of another vocabulary.
    """
    if meta is not None and tokenizer is not None:
        raise ValueError("the alphabet is given twice: by meta, and by tokenizer; leave one out")
    if meta is None and tokenizer is None:
        if vocab_size in (GPT2_VOCAB_SIZE, PADDED_VOCAB_SIZE):
            tokenizer = load_gpt2_tokenizer()
        else:
            meta = path.with_name(META_FILE)
            if not meta.is_file():
                raise ValueError(
                    f"{path} does not say which characters its {vocab_size} ids are, and there is no {META_FILE} beside "
                    f"it: give nanoGPT's data/NAME/{META_FILE} by --meta {META_FILE}, or pass tokenizer=, for the "
                    f"lecture's model CharTokenizer.from_text(text)"
                )
    if meta is not None:
        characters = read_meta(meta)
        if len(characters) != vocab_size:
            raise ValueError(
                f"{meta} has {len(characters)} characters, but the model in {path} has {vocab_size}: give the "
                f"{META_FILE} of the text that it was trained on"
            )
        tokenizer = CharTokenizer("".join(characters))
        # Our ids are in sorted order, whatever the order is there.
        row_of = {char: i for i, char in enumerate(characters)}
        return tokenizer, torch.tensor([row_of[char] for char in tokenizer.alphabet])
    is_padded = vocab_size == PADDED_VOCAB_SIZE and tokenizer.vocab_size == GPT2_VOCAB_SIZE
    if tokenizer.vocab_size != vocab_size and not is_padded:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} {tokenizer.unit}s, but the model in {path} has {vocab_size}: "
            f"give the tokenizer that it was trained with"
        )
    return tokenizer, torch.arange(tokenizer.vocab_size)


# ---------------------------------------------------------------- reading a checkpoint


def _find_file(path):
    """The path of a checkpoint, or of the one in a folder. Raises: FileNotFoundError."""
    path = Path(path)
    if path.is_dir():
        path = path / CHECKPOINT_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: give nanoGPT's {CHECKPOINT_FILE}, or the folder that it is in"
        )
    return path


def _read_file(path):
    """What torch.save wrote; its tensors stay on the disk until used. Raises: ValueError for anything else."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        # torch.save does not compress. What is compressed could be larger than any memory.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} is damaged, or has more in it than tensors, numbers, texts and dicts, and to read that would run "
            f"code from the file: save the weights alone, torch.save(model.state_dict(), {CHECKPOINT_FILE!r})"
        ) from None
    except Exception as error:  # a hostile or broken file has many ways to fail
        lines = f"{type(error).__name__}, {error}".splitlines()
        raise corrupt_file(
            path, f"it is not what PyTorch's torch.save writes ({lines[0][:200]})"
        ) from None


def _find_state_dict(saved):
    """The weights in what a training has saved: under one of STATE_DICT_KEYS, or all of it."""
    for key in STATE_DICT_KEYS:
        if isinstance(saved.get(key), dict):
            return saved[key]
    return saved


def _clean_weights(path, state_dict):
    """A state_dict -> {name without wrappers: tensor}, without masks. Raises: ValueError for what is no weight."""
    file_size = path.stat().st_size
    weights = {}
    for name, weight in state_dict.items():
        if not isinstance(name, str):
            raise corrupt_file(path, f"the name of a weight is {_short(name)}, expected a text")
        name = without_wrappers(name)
        if MASKS.fullmatch(name):
            continue
        if name in weights:
            raise corrupt_file(path, f"it has two weights {name[:100]}")
        is_plain = isinstance(weight, torch.Tensor) and (
            weight.layout == torch.strided and weight.dtype in FLOAT_DTYPES and not weight.is_nested
        )
        # A tensor can have more numbers than there are in the file: the same ones over and over.
        if not is_plain or weight.is_meta or weight.numel() > file_size:
            raise corrupt_file(path, f"{name[:100]} is not a tensor of 16 or 32 bits")
        weights[name] = weight
    return weights


def _short(value):
    """A value from a file, for a message; of a list or a dict its type, because its text could be endless."""
    if type(value) not in (str, int, float, bool, type(None)):
        return f"a {type(value).__name__}"
    return repr(value)[:60]


def _nanogpt_config(path, args, activation):
    """nanoGPT's model_args -> GPTConfig. Raises: ValueError for anything else."""
    if not isinstance(args, dict):
        raise corrupt_file(
            path,
            "it has no model_args, which say how many heads there are: the weights alone do not",
        )
    for name in args:
        if name not in (*SIZES, "dropout", "bias"):
            raise corrupt_file(
                path, f"model_args has {_short(name)}, which nanoGPT's model does not know"
            )
    sizes = {}
    for name in SIZES:
        size = args.get(name)
        if type(size) is not int or not 1 <= size < MAX_SIZE:
            raise corrupt_file(
                path, f"{name} in model_args is {_short(size)}; it must be an integer >= 1"
            )
        sizes[name] = size
    bias = args.get("bias", True)  # earlier versions always had them
    if type(bias) is not bool:
        raise corrupt_file(path, f"bias in model_args is {_short(bias)}; it must be True or False")
    dropout = args.get("dropout", 0.0)
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise corrupt_file(
            path, f"dropout in model_args is {_short(dropout)}; it must be from 0 to 1"
        )
    if sizes["n_embd"] % sizes["n_head"]:
        raise corrupt_file(
            path, f"n_embd, {sizes['n_embd']}, is not divisible by n_head, {sizes['n_head']}"
        )
    return GPTConfig(
        **sizes, dropout=dropout, bias=bias, qkv_bias=bias, activation=activation, tied=True
    )


def _count(weights, name):
    """For how many numbers n = 0, 1, 2, ... there is a weight `name` with n in it."""
    n = 0
    while name.format(n) in weights:
        n += 1
    return n


def _lecture_config(path, weights):
    """The GPTConfig of a lecture's model, from the shapes of its weights. Raises: ValueError."""
    sizes = {}
    for table in ("token_embedding_table.weight", "position_embedding_table.weight"):
        if table not in weights:
            raise corrupt_file(path, f"missing weight {table}")
        if weights[table].dim() != 2:
            raise corrupt_file(
                path, f"{table} has shape {[*weights[table].shape]}, expected a matrix"
            )
        sizes[table] = weights[table].shape
    vocab_size, n_embd = sizes["token_embedding_table.weight"]
    block_size, _ = sizes["position_embedding_table.weight"]
    n_layer = _count(weights, "blocks.{}.ln1.weight")
    n_head = _count(weights, "blocks.0.sa.heads.{}.key.weight")
    for count, first in (
        (n_layer, "blocks.0.ln1.weight"),
        (n_head, "blocks.0.sa.heads.0.key.weight"),
    ):
        if count == 0:
            raise corrupt_file(path, f"missing weight {first}")
    if min(vocab_size, block_size, n_embd) == 0 or n_embd % n_head:
        raise corrupt_file(
            path,
            f"there is no GPT with {n_head} heads, {vocab_size} ids, {block_size} positions and the width {n_embd}",
        )
    return GPTConfig.lecture(vocab_size, block_size, n_embd, n_head, n_layer)


def _shapes(config):
    """{our name: shape} of the weights of a GPT, without building it."""
    model = build_meta_model(config)
    return {name: weight.shape for name, weight in model.state_dict().items()}


def _take(path, weights, name, shape):
    """Takes a weight out of `weights` -> a copy in 32 bits. Raises: ValueError where it is missing or has another shape."""
    if name not in weights:
        raise corrupt_file(path, f"missing weight {name}")
    weight = weights.pop(name)
    if weight.shape != torch.Size(shape):
        raise corrupt_file(path, f"{name} has shape {[*weight.shape]}, expected {[*shape]}")
    return weight.to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def _take_heads(path, weights, config, scaled_by):
    """Takes the matrices of a lecture's heads out of `weights` -> our qkv matrices, {our name: (3C, C)}."""
    head_size = config.n_embd // config.n_head
    shape = (head_size, config.n_embd)
    query_factor = 1.0
    if scaled_by == "n_embd":
        # Our scores are divided by the root of the head size: the queries make up for the difference.
        query_factor = (head_size / config.n_embd) ** 0.5
    taken = {}
    for block in range(config.n_layer):
        rows = []
        # First the queries of all heads, then all keys, then all values.
        for part in ("query", "key", "value"):
            for head in range(config.n_head):
                name = f"blocks.{block}.sa.heads.{head}.{part}.weight"
                matrix = _take(path, weights, name, shape)
                rows.append(matrix * query_factor if part == "query" else matrix)
        taken[f"blocks.{block}.attention.qkv.weight"] = torch.cat(rows)
    return taken


def load_nanogpt(path, meta=None, tokenizer=None, activation="gelu", scaled_by="head_size"):
    """A model that nanoGPT trained, or the lecture's -> the GPT, on the CPU, in evaluation mode; its tokenizer.

    path: nanoGPT's ckpt.pt, or a folder with one; or a state_dict of the lecture's model, alone or in a dict under
    "model", "model_state_dict" or "state_dict".
    meta: the path of nanoGPT's meta.pkl, where the alphabet is. tokenizer: in its place, for the lecture's model
    `CharTokenizer.from_text(text)`. None of them: GPT-2's tokenizer where the model has 50,257 ids, or the 50,304 to
    which nanoGPT rounds them up; else the meta.pkl beside the checkpoint.
    activation: nanoGPT's, "gelu", or "gelu_tanh" for a checkpoint of its early versions. scaled_by: of what number the
    root divides the scores in the lecture's code, "head_size", or "n_embd" where that says `C**-0.5`, as its first version
    did. Neither is in the file, and a wrong one raises no error: the loss is only worse than in the training.

    The optimizer's state is left out. nanoGPT's dropout stays in the config; the lecture's, which its file does not say,
    is 0.2 as in the lecture.

    Raises: OSError where a file cannot be read, ValueError for anything that is not such a model, or for a wrong alphabet.
    """
    if activation not in ("gelu", "gelu_tanh"):
        raise ValueError(f"activation is {activation!r}; nanoGPT has had gelu and gelu_tanh")
    if scaled_by not in ("head_size", "n_embd"):
        raise ValueError(f"scaled_by is {scaled_by!r}; it is head_size or n_embd")
    path = _find_file(path)
    saved = _read_file(path)
    if not isinstance(saved, dict):
        raise corrupt_file(path, f"it is a {type(saved).__name__}, expected a dict")
    weights = _clean_weights(path, _find_state_dict(saved))
    is_lecture = "token_embedding_table.weight" in weights
    if is_lecture:
        config = _lecture_config(path, weights)
        names = LECTURE_NAMES
    elif "transformer.wte.weight" in weights:
        config = _nanogpt_config(path, saved.get("model_args"), activation)
        names = NANOGPT_NAMES
    else:
        raise corrupt_file(
            path,
            "it has neither nanoGPT's weights (transformer.wte.weight and others) nor those of the lecture's model "
            "(token_embedding_table.weight and others)",
        )
    # Asked before a model of that size is built: a weight has at least one byte, a layer at least one weight.
    least = config.min_parameters()
    if path.stat().st_size < least or config.n_layer > len(weights):
        raise corrupt_file(path, f"it is too short for a model of {least:,} parameters")
    tokenizer, rows = _choose_tokenizer(path, config.vocab_size, meta, tokenizer)

    taken = {}
    if is_lecture:
        taken = _take_heads(path, weights, config, scaled_by)
    for name, shape in _shapes(config).items():
        if name not in taken:
            taken[name] = _take(path, weights, translate_name(name, names), shape)
    for name in weights:
        raise corrupt_file(path, f"unexpected weight {name[:100]}")

    # nanoGPT's two tables are one, unless somebody has changed its code.
    if config.tied and not torch.equal(taken["lm_head.weight"], taken["token_embedding.weight"]):
        config = replace(config, tied=False)
        taken["lm_head.bias"] = torch.zeros(config.vocab_size)
    config = replace(config, vocab_size=len(rows))
    for name in ("token_embedding.weight", "lm_head.weight", "lm_head.bias"):
        if name in taken:
            taken[name] = taken[name][rows]
    return build_from_weights(config, taken), tokenizer


# ---------------------------------------------------------------- writing a checkpoint


def _check_expressible(model):
    """Raises: ValueError for a model that nanoGPT's code cannot compute."""
    if model.config.model_type != "gpt":
        raise ValueError(
            f"nanoGPT has no {type(model).__name__}, only lesson 06's GPT: export the model to ONNX, or train a GPT"
        )
    if model.config.activation != "gelu":
        raise ValueError(
            f"the model's activation is {model.config.activation}, and nanoGPT has gelu alone: export the model "
            f"for transformers or to ONNX, or train one with activation gelu"
        )
    if not model.config.tied:
        raise ValueError(
            "the model's lm_head is not tied to the token embedding, and nanoGPT's is: export the model for "
            "transformers or to ONNX, or train one that is tied"
        )


def _make_meta(tokenizer):
    """nanoGPT's meta.pkl of a tokenizer, as a dict; None for GPT-2's. Raises: ValueError for any other."""
    if isinstance(tokenizer, CharTokenizer):
        itos = {i: tokenizer.decode([i]) for i in range(tokenizer.vocab_size)}
        stoi = {char: i for i, char in itos.items()}
        return {"vocab_size": tokenizer.vocab_size, "itos": itos, "stoi": stoi}
    is_gpt2 = isinstance(tokenizer, BPETokenizer) and tokenizer.vocab_size == GPT2_VOCAB_SIZE
    if is_gpt2 and tokenizer.to_dict() == load_gpt2_tokenizer().to_dict():
        return None
    raise ValueError(
        f"nanoGPT knows characters and GPT-2's vocabulary, and the model has {tokenizer.vocab_size} {tokenizer.unit}s of "
        f"another tokenizer: export it to ONNX, or train a model with the tokenizer char or gpt2"
    )


def _nanogpt_weights(model, bias):
    """The weights of a GPT under nanoGPT's names, on the CPU, in 32 bits. bias: with zeros for the biases it lacks."""
    config = replace(model.config, bias=bias, qkv_bias=bias)
    own = model.state_dict()
    weights = {}
    for name, shape in _shapes(config).items():
        if name in own:
            weight = own[name].to("cpu", torch.float32, copy=True)
        else:
            weight = torch.zeros(shape)
        weights[translate_name(name, NANOGPT_NAMES)] = weight
    weights["lm_head.weight"] = weights["transformer.wte.weight"]  # one table, written once
    return weights


def save_nanogpt(model, tokenizer, folder):
    """Writes what nanoGPT's sample.py reads: ckpt.pt, and for characters meta.pkl.

    sample.py looks for an alphabet in data/NAME/meta.pkl, where NAME is that of the folder: copy meta.pkl there. The
    optimizer's state is not in the file; it is for sampling, and for training further with a new optimizer.
    Where the model has some of the biases, those that it lacks are written as zeros: nanoGPT has all or none.

    Raises: ValueError for a model or a tokenizer that nanoGPT does not have, FileExistsError where the folder is not empty,
    OSError where the files cannot be written; there is then nothing in the folder.
    """
    folder = Path(folder)
    model = unwrap(model)
    model_spec(model, tokenizer)  # it is one that can be saved at all
    _check_expressible(model)
    meta = _make_meta(tokenizer)
    config = model.config
    bias = config.bias or config.qkv_bias
    model_args = {name: getattr(config, name) for name in SIZES}
    checkpoint = {
        "model": _nanogpt_weights(model, bias),
        "model_args": {**model_args, "dropout": config.dropout, "bias": bias},
        "iter_num": 0,
        "best_val_loss": 1e9,  # with which nanoGPT begins: whatever is measured is better
        "config": {},
    }
    if meta is not None:
        # Where there is no "dataset", sample.py takes GPT-2's tokenizer.
        checkpoint["config"]["dataset"] = folder.resolve().name

    with atomic_folder(folder) as temporary:
        atomic_write(temporary / CHECKPOINT_FILE, lambda path: torch.save(checkpoint, path))
        if meta is not None:
            atomic_write(temporary / META_FILE, lambda path: path.write_bytes(pickle.dumps(meta)))
