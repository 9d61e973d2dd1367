"""Exported graphs under onnxruntime, used as another program would use them: the logits and texts of the model."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

onnx = pytest.importorskip("onnx")
onnx_ir = pytest.importorskip("onnx_ir")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from chargpt_lib.bigram import BigramLanguageModel
from chargpt_lib.bpe import BPETokenizer
from chargpt_lib.checkpoints import save_checkpoint, save_model
from chargpt_lib.data import CharTokenizer, load_tokenizer
from chargpt_lib.formats import onnx_graph
from chargpt_lib.formats.onnx_graph import export_onnx
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.modern import ModernConfig, ModernGPT
from chargpt_lib.sampling import generate, prepare_for_sampling
from tests.tiny import TEXT, TOKENIZER, tiny_gpt, tiny_modern_gpt

ROOT = Path(__file__).parents[1]
BLOCK = 110
BPE = BPETokenizer.train(TEXT, 300)
GPT_SIZES = {"block_size": BLOCK, "n_layer": 2, "n_head": 2, "n_embd": 16, "dropout": 0.1}
MODERN_SIZES = {**GPT_SIZES, "n_head": 4, "n_embd": 32, "n_kv_head": 2, "n_gram_rows": 64}

# Each kind of model: its config without vocab_size, and its tokenizer.
KINDS = {
    "cpu": ({**GPT_SIZES}, TOKENIZER),
    "baby, in BPE": ({**GPT_SIZES, "n_head": 4}, BPE),
    "lecture": ({**GPT_SIZES, "bias": True, "activation": "relu", "tied": False}, TOKENIZER),
    "gpt2": (
        {**GPT_SIZES, "bias": True, "qkv_bias": True, "activation": "gelu_tanh"},
        BPE,
    ),
    "untied, relu2": (
        {**GPT_SIZES, "qkv_bias": True, "activation": "relu2", "tied": False},
        TOKENIZER,
    ),
    "modern": ({**MODERN_SIZES}, TOKENIZER),
    "modern, one head of keys, in BPE": ({**MODERN_SIZES, "n_kv_head": 1, "tied": False}, BPE),
    "modern, n-grams": ({**MODERN_SIZES, "n_gram": 5}, TOKENIZER),
    "modern, n-grams, learned positions": (
        {**MODERN_SIZES, "n_gram": 3, "positions": "learned", "n_kv_head": 0},
        BPE,
    ),
    "modern, with parts of before": (
        {**MODERN_SIZES, "norm": "layer", "activation": "relu2", "qk_norm": False, "softcap": 0.0},
        TOKENIZER,
    ),
}


def sharp(model):
    """Large weights, so that attention is not even, and a mistake in it moves the logits; no gain or bias is trivial."""
    torch.manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.3)
            else:
                weight.uniform_(0.5, 1.5)
    return model.eval()


def build(name):
    settings, tokenizer = KINDS[name]
    if name.startswith("modern"):
        return sharp(ModernGPT(ModernConfig(tokenizer.vocab_size, **settings)))
    return sharp(GPT(GPTConfig(tokenizer.vocab_size, **settings)))


class Reader:
    """What a program in another language does with model.onnx: all it knows is in the file."""

    def __init__(self, path, batch=1):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options)
        found = self.session.get_modelmeta().custom_metadata_map
        self.positions = found.pop("positions")
        self.sizes = {name: int(size) for name, size in found.items()}
        self.inputs = [given.name for given in self.session.get_inputs()]
        self.begin(batch)

    def begin(self, batch):
        """An empty cache."""
        shape = (self.sizes["n_layer"], batch, self.sizes["n_kv_head"], 0, self.sizes["head_size"])
        self.keys = numpy.zeros(shape, dtype=numpy.float32)
        self.values = self.keys
        self.text = numpy.zeros((batch, 0), dtype=numpy.int64)

    def read(self, idx):
        """The next ids of each row, (B, T) -> the logits, (B, T, V)."""
        idx = numpy.asarray(idx)
        feeds = {"idx": idx, "keys": self.keys, "values": self.values}
        if "start" in self.inputs:
            feeds["start"] = numpy.array(self.text.shape[1])
        if "last_ids" in self.inputs:
            wanted = self.sizes["n_gram"] - 1
            # Before the text, anything.
            noise = numpy.random.randint(self.sizes["vocab_size"], size=(len(idx), wanted))
            feeds["last_ids"] = numpy.concatenate([noise, self.text], axis=1)[:, -wanted:]
        assert sorted(feeds) == sorted(self.inputs)
        logits, self.keys, self.values = self.session.run(None, feeds)
        self.text = numpy.concatenate([self.text, idx], axis=1)
        return torch.from_numpy(logits)

    def greedy(self, idx, steps):
        """ids (B, T) -> (B, T + steps), the likeliest each time."""
        idx = numpy.asarray(idx)
        block_size = self.sizes["block_size"]
        self.begin(len(idx))
        logits = self.read(idx)
        for step in range(steps):
            new = logits[:, -1:].argmax(-1).numpy()
            idx = numpy.concatenate([idx, new], axis=1)
            if step == steps - 1:
                break
            if self.positions == "rope":
                self.keys = self.keys[:, :, :, 1 - block_size :]
                self.values = self.values[:, :, :, 1 - block_size :]
            elif self.keys.shape[3] == block_size:
                self.begin(len(idx))
                new = idx[:, -block_size:]
            logits = self.read(new)
        return torch.from_numpy(idx)


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    """A model of each kind, its tokenizer, the folder of its export, and a Reader of that."""
    model = build(request.param)
    _, tokenizer = KINDS[request.param]
    folder = tmp_path_factory.mktemp("export") / "onnx"
    export_onnx(model, tokenizer, folder)
    return model, tokenizer, folder, Reader(folder / "model.onnx")


def random_ids(model, batch, length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.vocab_size, (batch, length), generator=generator)


def assert_close(logits, expected):
    assert expected.std() > 0.5, "logits that say nothing could not differ"
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------- what the graph computes


@torch.no_grad()
def test_the_logits_of_texts_of_each_length(kind):
    model, _, _, reader = kind
    for batch in (1, 3):
        idx = random_ids(model, batch, BLOCK)
        expected, _ = model(idx)
        for length in range(1, BLOCK + 1):
            reader.begin(batch)
            assert_close(reader.read(idx[:, :length]), expected[:, :length])


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[1] * BLOCK, [5, 7, 1, 1, 30, 2, 64], [1, 109], [109, 1]])
def test_the_logits_of_texts_in_pieces(pieces, kind):
    model, _, _, reader = kind
    assert sum(pieces) == BLOCK
    for batch in (1, 3):
        idx = random_ids(model, batch, BLOCK, seed=1)
        expected, _ = model(idx)
        reader.begin(batch)
        read = [reader.read(piece) for piece in idx.split(pieces, dim=1)]
        assert_close(torch.cat(read, dim=1), expected)
        assert reader.keys.shape[3] == reader.values.shape[3] == BLOCK


@torch.no_grad()
def test_what_is_in_the_cache_matters(kind):
    """The tests above could fail."""
    model, _, _, reader = kind
    idx = random_ids(model, 1, 20)
    expected, _ = model(idx)
    reader.begin(1)
    reader.read(idx[:, :10])
    reader.values = reader.values[:, :, :, ::-1].copy()
    with pytest.raises(AssertionError):
        assert_close(reader.read(idx[:, 10:]), expected[:, 10:])


def test_a_greedy_text_is_the_same(kind):
    model, tokenizer, _, reader = kind
    for prompt in ("Meg: O", "the goose"):
        idx = tokenizer.encode(prompt)[None]
        written = generate(model, idx, 100, temperature=0)
        assert idx.shape[1] + 100 <= BLOCK and len(written.unique()) > 5
        assert torch.equal(reader.greedy(idx, 100), written)
        text = generate(model, prompt, 100, temperature=0, tokenizer=tokenizer)
        assert tokenizer.decode(reader.greedy(idx, 100)[0]) == text


def test_a_greedy_text_beyond_the_block_is_the_same(kind):
    model, _, _, reader = kind
    idx = random_ids(model, 2, BLOCK - 10)
    assert torch.equal(reader.greedy(idx, 40), generate(model, idx, 40, temperature=0))


def test_learned_positions_end_with_the_block(kind):
    model, _, _, reader = kind
    if reader.positions == "learned":
        reader.begin(1)
        reader.read(random_ids(model, 1, BLOCK))
        with pytest.raises(Exception, match="out of data bounds"):
            reader.read([[0]])


# ---------------------------------------------------------------- the files


def test_the_folder_has_the_graph_the_config_and_the_tokenizer(kind, tmp_path):
    model, tokenizer, folder, _ = kind
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["config.json", "model.onnx", "tokenizer.json"]
    save_model(model, tokenizer, tmp_path)
    for name in ("config.json", "tokenizer.json"):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()
    assert load_tokenizer(folder).to_dict() == tokenizer.to_dict()


def test_the_graph_is_valid_and_says_how_it_is_used(kind):
    model, _, folder, reader = kind
    written = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(written, full_check=True)
    config = model.config
    assert reader.sizes == {
        "vocab_size": config.vocab_size,
        "block_size": BLOCK,
        "n_layer": 2,
        "n_kv_head": getattr(config, "kv_heads", config.n_head),
        "head_size": config.n_embd // config.n_head,
        "n_gram": getattr(config, "n_gram", 0),
    }
    doc = written.graph.doc_string
    for name in reader.inputs:
        assert f"{name} (" in doc or name in ("keys", "values")
    assert ("last_ids" in doc) == ("last_ids" in reader.inputs)
    assert ("begin anew" in doc) == (reader.positions == "learned")
    assert [given.name for given in written.graph.output] == ["logits", "new_keys", "new_values"]


def test_no_path_of_this_computer_is_in_the_file(kind):
    """The exporter notes where in the source code each node comes from."""
    content = (kind[2] / "model.onnx").read_bytes()
    assert b".py" not in content and b"stack_trace" not in content


@torch.no_grad()
def test_weights_beyond_the_limit_of_the_format_have_a_file_of_their_own(tmp_path, monkeypatch):
    model = sharp(tiny_gpt())
    export_onnx(model, TOKENIZER, tmp_path / "one")
    whole = (tmp_path / "one" / "model.onnx").stat().st_size
    monkeypatch.setattr(onnx_graph, "MAX_WEIGHT_BYTES", 1000)
    parts = tmp_path / "two"
    export_onnx(model, TOKENIZER, parts)
    assert sorted(path.name for path in parts.iterdir()) == [
        "config.json",
        "model.onnx",
        "model.onnx.data",
        "tokenizer.json",
    ]
    weights = 4 * model.num_params()
    assert (parts / "model.onnx.data").stat().st_size > 0.8 * weights
    assert (parts / "model.onnx").stat().st_size < whole - 0.8 * weights
    moved = parts.rename(tmp_path / "moved")
    idx = random_ids(model, 2, 16)
    assert_close(Reader(moved / "model.onnx", batch=2).read(idx), model(idx)[0])


MADE = {
    "in training": lambda model: model.train(),
    "compiled": torch.compile,
    "prepared": prepare_for_sampling,
    "in 16 bits": lambda model: model.bfloat16(),
}


@torch.no_grad()
@pytest.mark.parametrize("made", MADE)
def test_a_model_is_exported_as_what_it_is_and_stays_so(made, tmp_path):
    plain = sharp(tiny_modern_gpt())
    if made == "in 16 bits":
        plain = plain.bfloat16().float()
    model = MADE[made](sharp(tiny_modern_gpt(dropout=0.5)))
    before = [part.training for part in model.modules()]
    export_onnx(model, TOKENIZER, tmp_path)
    assert [part.training for part in model.modules()] == before
    idx = random_ids(plain, 2, 16)
    assert_close(Reader(tmp_path / "model.onnx", batch=2).read(idx), plain(idx)[0])


def test_the_export_draws_no_numbers_and_can_be_repeated(tmp_path):
    before = torch.get_rng_state()
    level = logging.getLogger("torch.onnx").level
    contents = []
    for number, model in enumerate((tiny_gpt(), tiny_gpt(), tiny_gpt(seed=1))):
        torch.set_rng_state(before)
        folder = tmp_path / str(number)
        export_onnx(model, TOKENIZER, folder)
        assert torch.equal(torch.get_rng_state(), before)
        contents.append((folder / "model.onnx").read_bytes())
    assert contents[0] == contents[1] != contents[2]
    assert logging.getLogger("torch.onnx").level == level


QUIET = """
import sys
from chargpt_lib.formats.onnx_graph import export_onnx
from tests.tiny import TOKENIZER, tiny_modern_gpt
export_onnx(tiny_modern_gpt(), TOKENIZER, sys.argv[1])
"""


def test_the_export_is_quiet(tmp_path):
    """In a process of its own: the exporter says some things once."""
    done = subprocess.run(
        [sys.executable, "-c", QUIET, str(tmp_path / "a")], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "a" / "model.onnx").is_file()


# ---------------------------------------------------------------- what fails


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnx_ir"])
def test_a_missing_package_is_named_with_what_installs_it(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # importing it now raises ImportError
    with pytest.raises(ImportError, match=r"onnx and onnxscript: pip install 'chargpt\[onnx\]'"):
        export_onnx(tiny_gpt(), TOKENIZER, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_what_cannot_be_saved_is_not_exported(tmp_path):
    V = TOKENIZER.vocab_size
    with pytest.raises(ValueError, match="BigramLanguageModel has no GPTConfig"):
        export_onnx(BigramLanguageModel(V), TOKENIZER, tmp_path / "a")
    with pytest.raises(ValueError, match=f"tokenizer has vocab_size 3, the model {V}"):
        export_onnx(tiny_gpt(), CharTokenizer("abc"), tmp_path / "a")
    with pytest.raises(ValueError, match="prepared for int8"):
        export_onnx(prepare_for_sampling(tiny_gpt(), "int8"), TOKENIZER, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("holder", ["a model", "a run", "a foreign config"])
def test_a_folder_of_something_else_is_left_alone(holder, tmp_path):
    if holder == "a model":
        save_model(tiny_gpt(), TOKENIZER, tmp_path)
    elif holder == "a run":
        save_checkpoint(tmp_path, tiny_gpt(), TOKENIZER, {}, 1)
    else:
        (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Other"]}))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileExistsError, match="not an empty folder: choose another"):
        export_onnx(tiny_gpt(), TOKENIZER, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def half_a_file(model, path, external_data):
    path.write_bytes(b"half")
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_ir, "save", half_a_file)
    with pytest.raises(OSError, match="out could not be written .*No space left.*disk full"):
        export_onnx(tiny_gpt(), TOKENIZER, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_exporter_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", fail)
    level = logging.getLogger("torch.onnx").level
    with pytest.raises(RuntimeError, match="no such operator"):
        export_onnx(tiny_gpt(), TOKENIZER, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert logging.getLogger("torch.onnx").level == level
