"""A model as an ONNX graph with its KV cache as inputs and outputs, for programs that have no PyTorch."""

import importlib
import logging
import warnings

import torch
from torch import nn

from chargpt_lib.checkpoints import build_model, model_spec, unwrap
from chargpt_lib.files import atomic_folder, check_new_folder, write_json

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"

# A file of the format, which is protobuf's, has less than 2 GiB. Weights of more than this many bytes go into a second
# file, beside it.
MAX_WEIGHT_BYTES = 3 * 2**29

ALL_MODELS = """A GPT: the logits of the next token at each position, and the keys and values of what was read.

idx (batch, length) int64: the ids of the next tokens, of all rows equally many. keys and values (n_layer, batch, n_kv_head,
past, head_size) float32: what the run before gave as new_keys and new_values; with past = 0 in the beginning. The sizes
are in the model's metadata."""

LEARNED_POSITIONS = """past + length may be block_size at most. Beyond that, begin anew: with the last block_size tokens
of the text as idx, and past = 0."""

ROTARY_POSITIONS = """start () int64: how many tokens of the text stand before idx, those included that are no longer in
keys and values. past + length may be block_size at most. Beyond that, leave out the first columns of keys and values, so
that the last block_size - length remain."""

N_GRAMS = """last_ids (batch, n_gram - 1) int64: the tokens before idx. Where the text begins there are fewer; what stands
in their place, at the front, does not matter."""


class _GraphCache:
    """The KV cache of an exported graph: its keys and values are tensors that come in and tensors that go out.

    keys, values (n_layer, B, H, P, head_size): of what was read. start: the position of the first new token; None where
    it is P. last_ids (B, n_gram - 1): the tokens before that, for a model with n-gram embeddings.
    """

    def __init__(self, keys, values, start=None, last_ids=None):
        self.keys = keys
        self.values = values
        self.start = start
        self.last_ids = last_ids
        self.mask = None
        self.new_keys = []  # of each layer, with the columns of this pass
        self.new_values = []

    def extend(self, T, device=None):
        """The positions of T new columns, (T,)."""
        past = self.keys.shape[3]
        new = torch.arange(T, device=device)
        columns = torch.arange(past + T, device=device)
        self.mask = columns <= past + new[:, None]  # (T, P + T)
        if self.start is None:
            return past + new
        return self.start + new

    def update(self, layer, k, v):
        """Adds a layer's new k and v, (B, H, T, head_size) -> all its keys, all its values, and the mask."""
        number = len(self.new_keys)
        keys = torch.cat([self.keys[number], k], dim=2)
        values = torch.cat([self.values[number], v], dim=2)
        self.new_keys.append(keys)
        self.new_values.append(values)
        return keys, values, self.mask


class _Graph(nn.Module):
    """A model as a function of tensors alone, for the exporter."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, idx, keys, values, start=None, last_ids=None):
        """-> logits (B, T, V), and the new keys and values, (n_layer, B, H, P + T, head_size)."""
        cache = _GraphCache(keys, values, start, last_ids)
        logits = self.model.compute_logits(idx, cache)
        return logits, torch.stack(cache.new_keys), torch.stack(cache.new_values)


def _import_onnx_ir():
    """The package that writes the graph. Raises: ImportError where it, or what the exporter needs, is not installed."""
    try:
        for package in ("onnx", "onnxscript"):
            importlib.import_module(package)
        return importlib.import_module("onnx_ir")  # comes with onnxscript
    except ImportError:
        raise ImportError(
            "an export to ONNX needs the packages onnx and onnxscript: pip install 'chargpt[onnx]'"
        ) from None


def _plain_copy(model):
    """A copy of a model, on the CPU, in 32 bits, in evaluation mode, whatever was made of its layers for speed."""
    with torch.random.fork_rng(devices=[]):  # its initial weights are drawn and thrown away
        copy = build_model(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def _sizes(config):
    """What a program needs to know to use the graph, {name: value}."""
    is_rotary = getattr(config, "positions", "learned") == "rope"
    return {
        "vocab_size": config.vocab_size,
        "block_size": config.block_size,
        "n_layer": config.n_layer,
        "n_kv_head": getattr(config, "kv_heads", config.n_head),
        "head_size": config.n_embd // config.n_head,
        "n_gram": getattr(config, "n_gram", 0),
        "positions": "rope" if is_rotary else "learned",
    }


def _trace(model, sizes):
    """The ONNX program of a model, in memory. sizes: of `_sizes`."""
    # Any numbers that differ from each other, from 0 and from 1: the exporter takes equal ones for the same size.
    batch, length, past = 2, 3, 5
    shape = (sizes["n_layer"], batch, sizes["n_kv_head"], past, sizes["head_size"])
    B = torch.export.Dim("batch")
    T = torch.export.Dim("length")
    P = torch.export.Dim("past")
    inputs = {
        "idx": torch.zeros(batch, length, dtype=torch.int64),
        "keys": torch.zeros(shape),
        "values": torch.zeros(shape),
    }
    dynamic = {"idx": {0: B, 1: T}, "keys": {1: B, 3: P}, "values": {1: B, 3: P}}
    if sizes["positions"] == "rope":
        inputs["start"] = torch.tensor(past)
        dynamic["start"] = {}
    if sizes["n_gram"] > 0:
        inputs["last_ids"] = torch.zeros(batch, sizes["n_gram"] - 1, dtype=torch.int64)
        dynamic["last_ids"] = {0: B}
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    try:
        # What it warns of concerns its own parts, and packages that no language model needs.
        exporter_log.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                _Graph(model).eval(),
                kwargs=inputs,
                dynamic_shapes=dynamic,
                input_names=list(inputs),
                output_names=["logits", "new_keys", "new_values"],
                dynamo=True,
                verbose=False,
            )
    finally:
        exporter_log.setLevel(level)


def _describe(program, sizes):
    """Writes into the graph how it is used, and takes out what the exporter noted of our source code."""
    parts = [ALL_MODELS]
    parts.append(ROTARY_POSITIONS if sizes["positions"] == "rope" else LEARNED_POSITIONS)
    if sizes["n_gram"] > 0:
        parts.append(N_GRAMS)
    graph = program.model.graph
    for node in graph:
        node.metadata_props.clear()
    graph.metadata_props.clear()
    graph.doc_string = "\n\n".join(parts)
    program.model.metadata_props.update({name: str(value) for name, value in sizes.items()})


def export_onnx(model, tokenizer, folder):
    """Writes a GPT or a ModernGPT as an ONNX graph: model.onnx, config.json and tokenizer.json.

    The graph's inputs are idx, keys and values, its outputs logits, new_keys and new_values; batch, length and the number
    of columns that were read before are free:

    - idx (B, T) int64; keys and values (n_layer, B, n_kv_head, P, head_size), with P = 0 in the beginning and then the
      new_keys and new_values, (n_layer, B, n_kv_head, P + T, head_size), of the run before; logits (B, T, V).
    - start () int64, with rotary positions: how many tokens of the text stand before idx.
    - last_ids (B, n_gram - 1) int64, with n-gram embeddings: the tokens before idx. Where the text begins and there are
      fewer, what stands in their place does not matter.

    P + T is at most block_size. Where positions are learned, a text that grows longer is begun anew: its last block_size
    tokens with an empty cache. With rotary positions, only the last block_size - T columns of keys and values are kept.
    All this and the sizes stand in the graph, too, in its doc_string and in the model's metadata_props. An ONNX file has
    less than 2 GiB: where the weights have more than 1.5 GiB, they are in a second file, model.onnx.data.

    Raises: ImportError where onnx or onnxscript is not installed, ValueError for a model that cannot be saved,
    FileExistsError where the folder is not empty, OSError where the files cannot be written; there is then nothing in it.
    """
    onnx_ir = _import_onnx_ir()
    check_new_folder(folder)  # before the seconds that the export takes
    model = unwrap(model)
    config, _ = model_spec(model, tokenizer)
    sizes = _sizes(model.config)
    program = _trace(_plain_copy(model), sizes)
    _describe(program, sizes)
    weights = program.model.graph.initializers.values()
    weight_bytes = sum(weight.const_value.nbytes for weight in weights)
    data_file = DATA_FILE if weight_bytes > MAX_WEIGHT_BYTES else None

    with atomic_folder(folder) as temporary:
        onnx_ir.save(program.model, temporary / MODEL_FILE, external_data=data_file)
        write_json(temporary / "config.json", config)
        tokenizer.save(temporary / "tokenizer.json")
