"""nanoGPT's checkpoints and the lecture's against both models written anew; and files that mean harm."""

import io
import itertools
import math
import pickle
import time
import zipfile
from collections import OrderedDict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from chargpt_lib.bpe import BPETokenizer
from chargpt_lib.data import CharTokenizer
from chargpt_lib.formats import nanogpt
from chargpt_lib.formats.nanogpt import load_nanogpt, read_meta, save_nanogpt
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.sampling import generate, prepare_for_sampling
from tests.tiny import TOKENIZER as OTHER_TOKENIZER
from tests.tiny import tiny_modern_gpt

ALPHABET = "\n !abcdegé€"
V = len(ALPHABET)
TOKENIZER = CharTokenizer(ALPHABET)
SIZES = {"n_layer": 2, "n_head": 3, "n_embd": 12, "block_size": 8, "vocab_size": V}


# ---------------------------------------------------------------- nanoGPT's model, written anew


class TheirNorm(nn.Module):
    def __init__(self, width, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        out = centred / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * self.weight
        return out if self.bias is None else out + self.bias


class TheirAttention(nn.Module):
    def __init__(self, args, with_mask):
        super().__init__()
        width = args.n_embd
        self.n_head = args.n_head
        self.c_attn = nn.Linear(width, 3 * width, bias=args.bias)
        self.c_proj = nn.Linear(width, width, bias=args.bias)
        if with_mask:
            size = args.block_size
            self.register_buffer("bias", torch.ones(size, size).tril().view(1, 1, size, size))
            self.register_buffer("masked_bias", torch.tensor(-1e4))

    def forward(self, x):
        length = x.shape[1]
        outs = []
        for q, k, v in zip(*(part.chunk(self.n_head, -1) for part in self.c_attn(x).chunk(3, -1))):
            scores = q @ k.mT / math.sqrt(q.shape[-1])
            future = torch.ones(length, length).triu(1).bool()
            outs.append(scores.masked_fill(future, -math.inf).softmax(-1) @ v)
        return self.c_proj(torch.cat(outs, -1))


class TheirMLP(nn.Module):
    def __init__(self, args, tanh):
        super().__init__()
        self.c_fc = nn.Linear(args.n_embd, 4 * args.n_embd, bias=args.bias)
        self.c_proj = nn.Linear(4 * args.n_embd, args.n_embd, bias=args.bias)
        self.tanh = tanh

    def forward(self, x):
        x = self.c_fc(x)
        if self.tanh:
            inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
            return self.c_proj(0.5 * x * (1 + inner.tanh()))
        return self.c_proj(0.5 * x * (1 + torch.erf(x / math.sqrt(2))))


class TheirBlock(nn.Module):
    def __init__(self, args, with_mask, tanh):
        super().__init__()
        self.ln_1 = TheirNorm(args.n_embd, args.bias)
        self.attn = TheirAttention(args, with_mask)
        self.ln_2 = TheirNorm(args.n_embd, args.bias)
        self.mlp = TheirMLP(args, tanh)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class NanoGPT(nn.Module):
    def __init__(self, tied=True, with_mask=False, tanh=False, **model_args):
        super().__init__()
        args = SimpleNamespace(**model_args)
        parts = {
            "wte": nn.Embedding(args.vocab_size, args.n_embd),
            "wpe": nn.Embedding(args.block_size, args.n_embd),
            "h": nn.ModuleList(TheirBlock(args, with_mask, tanh) for _ in range(args.n_layer)),
            "ln_f": TheirNorm(args.n_embd, args.bias),
        }
        self.transformer = nn.ModuleDict(parts)
        self.lm_head = nn.Linear(args.n_embd, args.vocab_size, bias=False)
        if tied:
            self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, idx):
        parts = self.transformer
        x = parts["wte"](idx) + parts["wpe"](torch.arange(idx.shape[1]))
        for block in parts["h"]:
            x = block(x)
        return self.lm_head(parts["ln_f"](x))


# ---------------------------------------------------------------- the lecture's model, written anew


class LectureHead(nn.Module):
    def __init__(self, width, size, block_size, with_mask):
        super().__init__()
        self.key = nn.Linear(width, size, bias=False)
        self.query = nn.Linear(width, size, bias=False)
        self.value = nn.Linear(width, size, bias=False)
        self.divisor = math.sqrt(size)
        if with_mask:
            self.register_buffer("tril", torch.ones(block_size, block_size).tril())

    def forward(self, x):
        length = x.shape[1]
        scores = self.query(x) @ self.key(x).mT / self.divisor
        future = torch.ones(length, length).triu(1).bool()
        return scores.masked_fill(future, -math.inf).softmax(-1) @ self.value(x)


class LectureHeads(nn.Module):
    def __init__(self, width, n_head, block_size, with_mask):
        super().__init__()
        self.heads = nn.ModuleList(
            LectureHead(width, width // n_head, block_size, with_mask) for _ in range(n_head)
        )
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        return self.proj(torch.cat([head(x) for head in self.heads], -1))


class LectureFeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width), nn.Dropout(0.2)
        )

    def forward(self, x):
        return self.net(x)


class LectureBlock(nn.Module):
    def __init__(self, width, n_head, block_size, with_mask):
        super().__init__()
        self.sa = LectureHeads(width, n_head, block_size, with_mask)
        self.ffwd = LectureFeedForward(width)
        self.ln1 = nn.LayerNorm(width)
        self.ln2 = nn.LayerNorm(width)

    def forward(self, x):
        x = x + self.sa(self.ln1(x))
        return x + self.ffwd(self.ln2(x))


class Lecture(nn.Module):
    def __init__(self, vocab_size=V, width=12, n_head=3, n_layer=2, block_size=8, with_mask=True):
        super().__init__()
        self.token_embedding_table = nn.Embedding(vocab_size, width)
        self.position_embedding_table = nn.Embedding(block_size, width)
        blocks = [LectureBlock(width, n_head, block_size, with_mask) for _ in range(n_layer)]
        self.blocks = nn.Sequential(*blocks)
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocab_size)

    def forward(self, idx):
        x = self.token_embedding_table(idx)
        x = x + self.position_embedding_table(torch.arange(idx.shape[1]))
        return self.lm_head(self.ln_f(self.blocks(x)))


# ---------------------------------------------------------------- tools


def loud(model, std=0.5, seed=1):
    """The model, with weights that all matter."""
    torch.manual_seed(seed)
    for weight in model.parameters():
        nn.init.normal_(weight, std=std)
    return model.eval()


def meta_of(alphabet):
    """What nanoGPT's prepare.py writes for the characters in this order."""
    itos = dict(enumerate(alphabet))
    stoi = {char: i for i, char in itos.items()}
    return {"vocab_size": len(alphabet), "itos": itos, "stoi": stoi}


def write_meta(folder, alphabet=ALPHABET):
    path = folder / "meta.pkl"
    path.write_bytes(pickle.dumps(meta_of(alphabet)))
    return path


def write_checkpoint(folder, model, prefix="", changes=None, **model_args):
    """ckpt.pt as nanoGPT's train.py writes it, with an optimizer that has made a step."""
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 2, dtype=torch.int64)).sum().backward()
    optimizer.step()
    checkpoint = {
        "model": {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "model_args": {**SIZES, "dropout": 0.1, **model_args},
        "iter_num": 250,
        "best_val_loss": torch.tensor(1.25),
        "config": {"dataset": "letters", "out_dir": "out", "learning_rate": 1e-3, "compile": True},
    }
    checkpoint.update({} if changes is None else changes)
    torch.save(checkpoint, folder / "ckpt.pt")
    return folder / "ckpt.pt"


def ids(seed=2, length=8, rows=3, vocab_size=V):
    return torch.randint(vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


def assert_same_logits(one, other, atol=1e-5):
    """Two models -> nothing, if their logits are the same, and not nearly zero."""
    idx = ids()
    with torch.no_grad():
        first = one(idx)
        second = other(idx)
    first, second = (out[0] if isinstance(out, tuple) else out for out in (first, second))
    assert first.std() > 0.5, "logits that say nothing could not differ"
    torch.testing.assert_close(first, second, atol=atol, rtol=1e-5)


# ---------------------------------------------------------------- nanoGPT's files in


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "module._orig_mod."])
@pytest.mark.parametrize("with_mask", [True, False], ids=["old", "new"])
def test_nanogpts_model_gives_the_same_logits_here(bias, prefix, with_mask, tmp_path):
    theirs = loud(NanoGPT(bias=bias, with_mask=with_mask, **SIZES))
    path = write_checkpoint(tmp_path, theirs, prefix, bias=bias)
    write_meta(tmp_path)
    before = torch.get_rng_state()
    model, tokenizer = load_nanogpt(path)
    assert torch.equal(before, torch.get_rng_state()), "reading draws no random numbers"
    assert_same_logits(theirs, model)
    assert not model.training and tokenizer.to_dict() == TOKENIZER.to_dict()
    assert model.config == GPTConfig(**SIZES, dropout=0.1, bias=bias, qkv_bias=bias)
    assert model.lm_head.weight is model.token_embedding.weight
    assert model.num_params() == sum(weight.numel() for weight in theirs.parameters())
    assert all(weight.requires_grad for weight in model.parameters())


def test_the_folder_and_a_meta_elsewhere_are_found(tmp_path):
    theirs = loud(NanoGPT(bias=False, **SIZES))
    write_checkpoint(tmp_path, theirs, bias=False)
    with pytest.raises(ValueError, match=r"ckpt\.pt does not say .*data/NAME/meta\.pkl.*--meta"):
        load_nanogpt(tmp_path)
    (tmp_path / "data").mkdir()
    meta = write_meta(tmp_path / "data")
    for given in (meta, str(meta)):
        model, tokenizer = load_nanogpt(str(tmp_path), meta=given)
        assert_same_logits(theirs, model)
    assert tokenizer.alphabet == ALPHABET
    model, tokenizer = load_nanogpt(tmp_path, tokenizer=TOKENIZER)
    assert tokenizer is TOKENIZER
    with pytest.raises(ValueError, match="given twice"):
        load_nanogpt(tmp_path, meta=meta, tokenizer=TOKENIZER)


def test_early_versions_computed_the_tanh_form_and_had_all_biases(tmp_path):
    theirs = loud(NanoGPT(bias=True, tanh=True, **SIZES))
    write_checkpoint(tmp_path, theirs)  # model_args without bias
    write_meta(tmp_path)
    model, _ = load_nanogpt(tmp_path, activation="gelu_tanh")
    assert model.config.bias and model.config.qkv_bias
    assert_same_logits(theirs, model)
    with pytest.raises(AssertionError):
        assert_same_logits(theirs, load_nanogpt(tmp_path)[0])
    with pytest.raises(ValueError, match="activation is 'relu'; nanoGPT has had gelu and gelu_tan"):
        load_nanogpt(tmp_path, activation="relu")


def test_a_head_of_its_own_stays_one(tmp_path):
    theirs = loud(NanoGPT(tied=False, bias=True, **SIZES))
    write_checkpoint(tmp_path, theirs, bias=True)
    write_meta(tmp_path)
    model, _ = load_nanogpt(tmp_path)
    assert not model.config.tied and model.lm_head.weight is not model.token_embedding.weight
    assert_same_logits(theirs, model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits_become_32(dtype, tmp_path):
    theirs = loud(NanoGPT(bias=False, **SIZES))
    halved = {name: tensor.to(dtype) for name, tensor in theirs.state_dict().items()}
    write_checkpoint(tmp_path, theirs, bias=False, changes={"model": halved})
    write_meta(tmp_path)
    theirs.load_state_dict(halved)
    model, _ = load_nanogpt(tmp_path)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert_same_logits(theirs, model)


def test_the_model_no_longer_needs_the_file(tmp_path):
    theirs = loud(NanoGPT(bias=False, **SIZES))
    path = write_checkpoint(tmp_path, theirs, bias=False)
    write_meta(tmp_path)
    model, _ = load_nanogpt(tmp_path)
    content = path.read_bytes()
    with open(path, "r+b") as file:  # the very bytes that a map of the file would show
        file.write(bytes(len(content)))
    assert_same_logits(theirs, model)


@pytest.mark.parametrize("kind", ["nanoGPT", "lecture"])
def test_an_alphabet_in_another_order_is_sorted_and_the_model_with_it(kind, tmp_path):
    order = "€geb\néa dc!"
    assert sorted(order) == sorted(ALPHABET) and list(order) != sorted(order)
    if kind == "lecture":
        theirs = loud(Lecture())
        torch.save(theirs.state_dict(), tmp_path / "ckpt.pt")
    else:
        theirs = loud(NanoGPT(bias=False, tied=False, **SIZES))
        write_checkpoint(tmp_path, theirs, bias=False)
    write_meta(tmp_path, order)
    model, tokenizer = load_nanogpt(tmp_path)
    assert tokenizer.alphabet == ALPHABET
    text = "a egg€é!"
    there = theirs(torch.tensor([[order.index(char) for char in text]]))
    here, _ = model(tokenizer.encode(text)[None])
    for char in ALPHABET:
        torch.testing.assert_close(
            there[..., order.index(char)], here[..., tokenizer.stoi[char]], atol=1e-5, rtol=1e-5
        )


@pytest.fixture(scope="module")
def gpt2_tokenizer():
    """A tokenizer of as many tokens as GPT-2's: 256 bytes, pairs of bytes, an end of text."""
    pairs = itertools.islice(itertools.product(range(256), range(256)), 50_000)
    merges = [(left, right, 256 + k) for k, (left, right) in enumerate(pairs)]
    return BPETokenizer(merges, {"<|endoftext|>": 50_256})


@pytest.mark.parametrize("vocab_size", [50_257, 50_304])
def test_gpt2s_vocabulary_comes_without_a_meta_and_without_rows_that_stand_for_nothing(
    vocab_size, gpt2_tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(nanogpt, "load_gpt2_tokenizer", lambda: gpt2_tokenizer)
    sizes = {**SIZES, "vocab_size": vocab_size}
    theirs = loud(NanoGPT(bias=True, **sizes))
    write_checkpoint(tmp_path, theirs, **sizes, bias=True)
    model, tokenizer = load_nanogpt(tmp_path)
    assert tokenizer is gpt2_tokenizer and model.config.vocab_size == 50_257
    assert model.lm_head.weight is model.token_embedding.weight
    idx = ids(vocab_size=50_257)
    with torch.no_grad():
        expected = theirs(idx)[..., :50_257]
        torch.testing.assert_close(model(idx)[0], expected, atol=1e-5, rtol=1e-5)
    again, _ = load_nanogpt(tmp_path, tokenizer=gpt2_tokenizer)
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)


# ---------------------------------------------------------------- the lecture's files in


@pytest.mark.parametrize("key", [None, "model", "model_state_dict", "state_dict"])
@pytest.mark.parametrize("with_mask", [True, False], ids=["tril", "no tril"])
def test_the_lectures_model_gives_the_same_logits_here(key, with_mask, tmp_path):
    theirs = loud(Lecture(with_mask=with_mask))
    saved = theirs.state_dict()
    torch.save(saved if key is None else {key: saved, "step": 3}, tmp_path / "lecture.pt")
    model, tokenizer = load_nanogpt(
        tmp_path / "lecture.pt", tokenizer=CharTokenizer.from_text(ALPHABET * 2)
    )
    assert model.config == GPTConfig.lecture(V, block_size=8, n_embd=12, n_head=3, n_layer=2)
    assert tokenizer.alphabet == ALPHABET and not model.training
    assert_same_logits(theirs, model)
    # A bias of lm_head that is not zero, and heads that differ, came along.
    assert model.lm_head.bias.abs().min() > 0


def test_a_lecture_model_of_one_head_and_an_alphabet_in_a_file(tmp_path):
    theirs = loud(Lecture(n_head=1, n_layer=1))
    torch.save({f"_orig_mod.{name}": w for name, w in theirs.state_dict().items()}, tmp_path / "a")
    model, _ = load_nanogpt(tmp_path / "a", meta=write_meta(tmp_path))
    assert (model.config.n_head, model.config.n_layer) == (1, 1)
    assert_same_logits(theirs, model)


def test_the_lectures_first_version_divided_by_the_root_of_the_width(tmp_path):
    theirs = loud(Lecture())
    for head in theirs.modules():
        if isinstance(head, LectureHead):
            head.divisor = math.sqrt(12)
    torch.save(theirs.state_dict(), tmp_path / "a.pt")
    model, _ = load_nanogpt(tmp_path / "a.pt", tokenizer=TOKENIZER, scaled_by="n_embd")
    assert_same_logits(theirs, model)
    other, _ = load_nanogpt(tmp_path / "a.pt", tokenizer=TOKENIZER)
    with pytest.raises(AssertionError):
        assert_same_logits(theirs, other)
    with pytest.raises(ValueError, match="scaled_by is 'C'; it is head_size or n_embd"):
        load_nanogpt(tmp_path / "a.pt", tokenizer=TOKENIZER, scaled_by="C")


LECTURE_FAULTS = {
    "no block": (lambda w: drop(w, "blocks."), r"missing weight blocks\.0\.ln1\.weight"),
    "no heads": (lambda w: drop(w, "blocks.0.sa.heads."), r"missing weight .*heads\.0\.key"),
    "no positions": (lambda w: drop(w, "position_emb"), "missing weight position_embedding_table"),
    "a table of three dimensions": (
        lambda w: w.update({"position_embedding_table.weight": torch.ones(8, 12, 1)}),
        r"position_embedding_table\.weight has shape \[8, 12, 1\]",
    ),
    "an empty table": (
        lambda w: w.update({"position_embedding_table.weight": torch.ones(0, 12)}),
        "no GPT with 3 heads, 11 ids, 0 positions",
    ),
    "a head too few": (lambda w: drop(w, "blocks.1.sa.heads.2."), r"missing .*1\.sa\.heads\.2\.q"),
    "a head too many": (
        lambda w: w.update({"blocks.1.sa.heads.3.key.weight": torch.ones(4, 12)}),
        r"unexpected weight blocks\.1\.sa\.heads\.3\.key",
    ),
    "heads that do not divide the width": (
        lambda w: w.update(
            {f"blocks.0.sa.heads.{h}.key.weight": torch.ones(4, 12) for h in (3, 4)}
        ),
        "no GPT with 5 heads",
    ),
    "heads of another size": (
        lambda w: w.update({"blocks.0.sa.heads.1.query.weight": torch.ones(5, 12)}),
        r"heads\.1\.query\.weight has shape \[5, 12\], expected \[4, 12\]",
    ),
    "no projection": (lambda w: drop(w, "blocks.1.sa.proj"), r"missing .*1\.sa\.proj\.weight"),
}


def drop(weights, start):
    for name in [name for name in weights if name.startswith(start)]:
        del weights[name]


@pytest.mark.parametrize("change, problem", LECTURE_FAULTS.values(), ids=LECTURE_FAULTS)
def test_what_is_not_the_lectures_model_is_refused_by_name(change, problem, tmp_path):
    weights = dict(loud(Lecture()).state_dict())
    change(weights)
    torch.save(weights, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=rf"a\.pt: .*{problem}"):
        load_nanogpt(tmp_path / "a.pt", tokenizer=TOKENIZER)


# ---------------------------------------------------------------- nanoGPT's files out


def sample_py(folder, data):
    """What nanoGPT's sample.py does with a folder -> its model, and encode and decode; None for GPT-2's.

    data: the folder in which it looks for NAME/meta.pkl.
    """
    checkpoint = torch.load(folder / "ckpt.pt", weights_only=True)
    model = NanoGPT(**checkpoint["model_args"])
    model.load_state_dict(checkpoint["model"])
    meta = None
    if "dataset" in checkpoint["config"]:
        path = data / checkpoint["config"]["dataset"] / "meta.pkl"
        if path.exists():
            meta = pickle.loads(path.read_bytes())
    if meta is None:
        return model.eval(), None, None
    return (
        model.eval(),
        lambda text: [meta["stoi"][char] for char in text],
        lambda some: "".join(meta["itos"][i] for i in some),
    )


def gpt(**changes):
    return loud(GPT(GPTConfig(**{**SIZES, "dropout": 0.1, **changes})))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_nanogpt_gives_the_same_logits_as_a_model_from_here(bias, qkv_bias, tmp_path):
    model = gpt(bias=bias, qkv_bias=qkv_bias)
    folder = tmp_path / "deep" / "mine"
    save_nanogpt(model, TOKENIZER, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["ckpt.pt", "meta.pkl"]
    theirs, encode, decode = sample_py(folder, data=tmp_path / "deep")
    assert_same_logits(model, theirs)
    assert encode("a egg€") == TOKENIZER.encode("a egg€").tolist()
    assert decode(encode(ALPHABET)) == ALPHABET
    again, tokenizer = load_nanogpt(folder)
    assert_same_logits(model, again, atol=0 if bias == qkv_bias else 1e-6)
    assert again.config == replace(model.config, bias=bias or qkv_bias, qkv_bias=bias or qkv_bias)
    assert tokenizer.to_dict() == TOKENIZER.to_dict()


def test_the_file_says_what_nanogpt_asks_for(tmp_path):
    save_nanogpt(gpt(), TOKENIZER, tmp_path / "mine")
    checkpoint = torch.load(tmp_path / "mine" / "ckpt.pt", weights_only=True)
    assert checkpoint.keys() == {"model", "model_args", "iter_num", "best_val_loss", "config"}
    assert checkpoint["model_args"] == {**SIZES, "dropout": 0.1, "bias": False}
    assert checkpoint["config"] == {"dataset": "mine"} and checkpoint["iter_num"] == 0
    assert pickle.loads((tmp_path / "mine" / "meta.pkl").read_bytes()) == meta_of(ALPHABET)
    # The table that has two names is in the file once.
    weights = checkpoint["model"]
    table = weights["transformer.wte.weight"]
    assert weights["lm_head.weight"].data_ptr() == table.data_ptr()


def test_the_model_is_written_as_it_is_and_stays_so(tmp_path):
    plain = gpt()
    training = gpt().train()
    for name, model in (
        ("training", training),
        ("compiled", torch.compile(gpt())),
        ("prepared", prepare_for_sampling(gpt())),
    ):
        save_nanogpt(model, TOKENIZER, tmp_path / name)
        assert_same_logits(plain, load_nanogpt(tmp_path / name)[0], atol=0)
    assert training.training
    save_nanogpt(gpt().bfloat16(), TOKENIZER, tmp_path / "16 bits")
    rounded, _ = load_nanogpt(tmp_path / "16 bits")
    assert torch.equal(rounded.norm.weight, plain.norm.weight.bfloat16().float())
    with pytest.raises(ValueError, match="prepared for int8"):
        save_nanogpt(prepare_for_sampling(gpt(), "int8"), TOKENIZER, tmp_path / "int8")


def test_gpt2s_tokenizer_needs_no_meta_and_others_are_refused(
    gpt2_tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(nanogpt, "load_gpt2_tokenizer", lambda: gpt2_tokenizer)
    model = gpt(vocab_size=50_257)
    save_nanogpt(model, gpt2_tokenizer, tmp_path / "a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["ckpt.pt"]
    theirs, encode, _ = sample_py(tmp_path / "a", data=tmp_path)
    assert encode is None
    idx = ids(vocab_size=50_257)
    with torch.no_grad():
        torch.testing.assert_close(model(idx)[0], theirs(idx), atol=1e-5, rtol=1e-5)
    swapped = [(right, left, new) for left, right, new in gpt2_tokenizer.merges]
    other = BPETokenizer(swapped, gpt2_tokenizer.special_tokens)
    with pytest.raises(ValueError, match="50257 tokens of another tokenizer.*char or gpt2"):
        save_nanogpt(model, other, tmp_path / "b")
    small = BPETokenizer.train("the egg, the goose" * 9, 260)
    with pytest.raises(ValueError, match="260 tokens of another tokenizer"):
        save_nanogpt(gpt(vocab_size=260), small, tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"activation": "relu"}, "activation is relu, and nanoGPT has gelu"),
        ({"activation": "gelu_tanh"}, "activation is gelu_tanh"),
        ({"activation": "relu2"}, "activation is relu2"),
        ({"tied": False}, "lm_head is not tied"),
    ],
)
def test_what_nanogpt_cannot_compute_is_not_written(changes, problem, tmp_path):
    with pytest.raises(ValueError, match=f"{problem}.*ONNX, or train"):
        save_nanogpt(gpt(**changes), TOKENIZER, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_modern_gpt_or_a_foreign_tokenizer_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="nanoGPT has no ModernGPT"):
        save_nanogpt(tiny_modern_gpt(), OTHER_TOKENIZER, tmp_path / "a")
    with pytest.raises(ValueError, match=f"tokenizer has vocab_size 3, the model {V}"):
        save_nanogpt(gpt(), CharTokenizer("abc"), tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("file", ["ckpt.pt", "meta.pkl"])
def test_a_training_of_nanogpts_is_not_written_over(file, tmp_path):
    (tmp_path / file).write_text("precious")
    with pytest.raises(FileExistsError, match="not an empty folder: choose another"):
        save_nanogpt(gpt(), TOKENIZER, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [file]
    assert (tmp_path / file).read_text() == "precious"


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError("PytorchStreamW")])
@pytest.mark.parametrize("is_new", [True, False])
def test_a_full_disk_leaves_nothing(error, is_new, tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    if not is_new:
        folder.mkdir()
    before = sorted(tmp_path.rglob("*"))

    def full(value, path):
        path.write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="ckpt.pt could not be written .*is the disk full"):
        save_nanogpt(gpt(), TOKENIZER, folder)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_second_file_fails_and_the_first_is_not_left(tmp_path, monkeypatch):
    def full(value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pickle, "dumps", full)
    with pytest.raises(OSError, match="No space left"):
        save_nanogpt(gpt(), TOKENIZER, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_text_is_continued_as_before(tmp_path):
    model = gpt()
    save_nanogpt(model, TOKENIZER, tmp_path / "mine")
    again, tokenizer = load_nanogpt(tmp_path / "mine")
    written = generate(model, "a egg", 50, seed=4, tokenizer=TOKENIZER)
    assert generate(again, "a egg", 50, seed=4, tokenizer=tokenizer) == written


def test_baby_gpt_goes_out_and_in_within_a_second_each(tmp_path):
    tokenizer = CharTokenizer("".join(map(chr, range(32, 97))))
    model = GPT(GPTConfig.baby(tokenizer.vocab_size))
    seconds = {"out": [], "in": []}
    for attempt in range(3):
        began = time.perf_counter()
        save_nanogpt(model, tokenizer, tmp_path / str(attempt))
        seconds["out"].append(time.perf_counter() - began)
        began = time.perf_counter()
        load_nanogpt(tmp_path / str(attempt))
        seconds["in"].append(time.perf_counter() - began)
    for way, times in seconds.items():
        print(f"baby GPT, {model.num_params():,} parameters, {way}: {min(times):.2f} s")
        assert min(times) <= 1


# ---------------------------------------------------------------- files that mean harm


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def pickled(**changes):
    return pickle.dumps({**meta_of(ALPHABET), **changes})


def long_pickle_of_deep_dicts(depth):
    return b"\x80\x04" + b"}K\x00" * depth + b"}" + b"s" * depth + b"."


SWAPPED = {0: "\n", 1: "!", 2: " ", **dict(list(enumerate(ALPHABET))[3:])}
HOSTILE_METAS = {
    "empty": b"",
    "a text": b"abc",
    "half": pickled()[:-40],
    "without an end": pickled()[:-1],
    "a list": pickle.dumps([1, 2]),
    "a number": pickle.dumps(3),
    "no stoi": pickle.dumps({"vocab_size": V, "itos": {}}),
    "no dict": pickled(itos=list(ALPHABET)),
    "another vocab_size": pickled(vocab_size=V + 1),
    "a huge vocab_size": pickled(vocab_size=2**31 - 1),
    "a vocab_size that is none": pickled(vocab_size=True),
    "a fraction": pickled(vocab_size=float(V)),
    "no characters": pickle.dumps({"vocab_size": 0, "itos": {}, "stoi": {}}),
    "not each other's inverse": pickled(itos=SWAPPED),
    "a gap": pickled(itos={i + (i > 3): char for i, char in enumerate(ALPHABET)}),
    "negative": pickled(itos={i - 1: char for i, char in enumerate(ALPHABET)}),
    "two characters": pickled(itos={**dict(enumerate(ALPHABET)), 0: "ab"}),
    "none": pickled(itos={**dict(enumerate(ALPHABET)), 0: ""}),
    "bytes": pickled(itos={**dict(enumerate(ALPHABET)), 0: b"a"}),
    "texts as ids": pickled(itos={str(i): char for i, char in enumerate(ALPHABET)}),
    "one character twice": pickled(itos={**dict(enumerate(ALPHABET)), 0: "a"}),
    "a class": pickled(extra=OrderedDict()),
    "something else beside": pickled(extra=b"abc"),
    "a persistent id": b"\x80\x04Pabc\n.",
    "a memory of billions": b"\x80\x04}r\xff\xff\xff\x7f.",
    "a memory of billions, in words": b"}p4000000000\n.",
    "bytes without end": b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",
    "a text without end": b"\x80\x04X\xff\xff\xff\xff.",
    "a frame without end": b"\x80\x04\x95" + b"\xff" * 7 + b"\x00}.",
    "a number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "an empty stack": b"\x80\x04s.",
    "an unhashable key": b"\x80\x04}}}s.",
    "deep": long_pickle_of_deep_dicts(400_000),
    "marks": b"\x80\x04" + b"(" * 1_000_000 + b".",
    "the latest protocol and one": b"\x80\x63}.",
    "large": b"\x80\x04}" + b" " * 3_000_000,
}


@pytest.mark.parametrize("content", HOSTILE_METAS.values(), ids=HOSTILE_METAS)
def test_a_meta_that_is_none_is_refused_by_name_and_soon(content, tmp_path):
    path = tmp_path / "some meta.pkl"
    path.write_bytes(content)
    began = time.perf_counter()
    with pytest.raises(
        ValueError, match=r"some meta\.pkl (is not nanoGPT's|has more than)"
    ) as raised:
        read_meta(path)
    assert time.perf_counter() - began < 5 and len(str(raised.value)) < 600


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_meta_that_would_run_code_does_not(protocol, tmp_path):
    sprung = tmp_path / "sprung"
    assert pickle.loads(pickle.dumps(Trap(sprung))) and sprung.exists(), "the trap works"
    sprung.unlink()
    for hostile in (Trap(sprung), {**meta_of(ALPHABET), "vocab_size": Trap(sprung)}):
        (tmp_path / "meta.pkl").write_bytes(pickle.dumps(hostile, protocol))
        with pytest.raises(ValueError, match="Nothing in it was run"):
            read_meta(tmp_path / "meta.pkl")
        assert not sprung.exists()


def test_the_unpickler_by_itself_refuses_too(tmp_path):
    """Without the look at each instruction before."""
    sprung = tmp_path / "sprung"
    with pytest.raises(pickle.UnpicklingError, match="it names .*open"):
        nanogpt._PlainUnpickler(io.BytesIO(pickle.dumps(Trap(sprung)))).load()
    with pytest.raises(pickle.UnpicklingError, match="outside the file"):
        nanogpt._PlainUnpickler(io.BytesIO(b"\x80\x04K\x01Q.")).load()
    assert not sprung.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "alphabet", [ALPHABET, "a", "zyx\U0001f9a2", "".join(map(chr, range(9999)))]
)
def test_a_meta_of_any_protocol_is_read(alphabet, protocol, tmp_path):
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps(meta_of(alphabet), protocol))
    assert read_meta(tmp_path / "meta.pkl") == list(alphabet)


def test_a_meta_of_another_model_or_nowhere(tmp_path):
    theirs = NanoGPT(bias=False, **SIZES)
    write_checkpoint(tmp_path, theirs, bias=False)
    write_meta(tmp_path, "abc")
    with pytest.raises(ValueError, match=rf"meta\.pkl has 3 characters, but the model .* has {V}"):
        load_nanogpt(tmp_path)
    with pytest.raises(ValueError, match=rf"tokenizer has 3 characters, but the model .* has {V}"):
        load_nanogpt(tmp_path, tokenizer=CharTokenizer("abc"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_nanogpt(tmp_path, meta=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist: give nanoGPT's ckpt\.pt"):
        load_nanogpt(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty.ckpt\.pt does not exist"):
        load_nanogpt(tmp_path / "empty")


# What is wrong with a checkpoint: a change to the dict that is saved -> what the error says of it.
def with_args(**changes):
    return lambda saved: saved["model_args"].update(changes)


def without(name):
    return lambda saved: saved["model"].pop(name)


def with_weights(**changes):
    changed = {name.replace("__", "."): weight for name, weight in changes.items()}
    return lambda saved: saved["model"].update(changed)


def laughs():
    """A list that is small in memory and endless in print."""
    value = ["ha"]
    for _ in range(60):
        value = [value, value]
    return value


FAULTS = {
    "no model_args": (lambda saved: saved.pop("model_args"), "no model_args"),
    "model_args that are none": (lambda saved: saved.update(model_args=[1]), "no model_args"),
    "an argument of another program": (with_args(use_rmsnorm=True), "model_args has 'use_rmsnorm'"),
    "an argument without a name": (
        lambda saved: saved["model_args"].update({(1, 2): 3}),
        "model_args has a tuple",
    ),
    "no n_head": (lambda saved: saved["model_args"].pop("n_head"), "n_head in model_args is None"),
    "zero layers": (with_args(n_layer=0), "n_layer in model_args is 0"),
    "a yes for a number": (with_args(n_layer=True), "n_layer in model_args is True"),
    "a text for a number": (with_args(n_embd="12" * 99), "n_embd in model_args is '1212"),
    "laughs for a number": (with_args(n_embd=laughs()), "n_embd in model_args is a list"),
    "many digits": (with_args(n_layer=10**600), "n_layer in model_args is 1000"),
    "endless digits": (with_args(n_layer=10**9999), "is damaged"),
    "a number for bias": (with_args(bias=1), "bias in model_args is 1"),
    "too much dropout": (with_args(dropout=1.0), "dropout in model_args is 1.0"),
    "dropout that is no number": (with_args(dropout=math.nan), "dropout in model_args is nan"),
    "much dropout": (with_args(dropout=10**600), "dropout in model_args is 1000"),
    "heads that do not divide": (with_args(n_head=5), "n_embd, 12, is not divisible by n_head, 5"),
    "a billion layers": (with_args(n_layer=10**9), "too short for a model of"),
    "terabytes": (with_args(n_embd=12 * 10**8), "too short for a model of"),
    "a vocabulary of billions": (with_args(vocab_size=2**31 - 1), "too short for a model of"),
    "more positions": (
        with_args(block_size=9),
        r"wpe\.weight has shape \[8, 12\], expected \[9, 12",
    ),
    "more heads": (with_args(n_layer=3), r"missing weight transformer\.h\.2\.ln_1\.weight"),
    "fewer layers": (with_args(n_layer=1), r"unexpected weight transformer\.h\.1\."),
    "biases that are not there": (with_args(bias=True), r"missing weight .*ln_1\.bias"),
    "a missing weight": (
        without("transformer.h.1.mlp.c_fc.weight"),
        r"missing weight transformer\.h\.1\.mlp\.c_fc\.weight",
    ),
    "no head": (without("lm_head.weight"), r"missing weight lm_head\.weight"),
    "no table": (without("transformer.wte.weight"), "neither nanoGPT's weights"),
    "an unknown weight": (
        with_weights(extra__weight=torch.ones(2)),
        r"unexpected weight extra\.weig",
    ),
    "another shape": (
        with_weights(transformer__ln_f__weight=torch.ones(13)),
        r"transformer\.ln_f\.weight has shape \[13\], expected \[12\]",
    ),
    "transposed": (
        lambda saved: saved["model"].update(
            {"transformer.h.0.attn.c_attn.weight": torch.ones(12, 36)}
        ),
        r"c_attn\.weight has shape \[12, 36\], expected \[36, 12\]",
    ),
    "one weight twice": (
        lambda saved: saved["model"].update({"_orig_mod.lm_head.weight": torch.ones(V, 12)}),
        r"two weights lm_head\.weight",
    ),
    "a number as a weight": (with_weights(lm_head__weight=3), r"lm_head\.weight is not a tensor"),
    "64 bits": (
        with_weights(lm_head__weight=torch.ones(V, 12).double()),
        r"lm_head\.weight is not a tensor of 16 or 32 bits",
    ),
    "whole numbers": (with_weights(lm_head__weight=torch.ones(V, 12).long()), "is not a tensor"),
    "a sparse matrix": (
        with_weights(lm_head__weight=torch.ones(V, 12).to_sparse()),
        r"lm_head\.weight is not a tensor",
    ),
    "no numbers at all": (
        with_weights(lm_head__weight=torch.ones(V, 12, device="meta")),
        r"lm_head\.weight is not a tensor",
    ),
    "one number as many": (
        with_weights(lm_head__weight=torch.ones(1).expand(10**6, 10**6)),
        r"lm_head\.weight is not a tensor",
    ),
    "a number as a name": (
        lambda saved: saved["model"].update({3: torch.ones(2)}),
        "the name of a weight is 3, expected a text",
    ),
    "no model": (lambda saved: saved.pop("model"), "optimizer is not a tensor"),
}


@pytest.mark.parametrize("change, problem", FAULTS.values(), ids=FAULTS)
def test_a_checkpoint_that_is_none_is_refused_by_name_and_soon(change, problem, tmp_path):
    theirs = NanoGPT(bias=False, **SIZES)
    path = write_checkpoint(tmp_path, theirs, bias=False)
    write_meta(tmp_path)
    assert load_nanogpt(path)
    saved = torch.load(path, weights_only=True)
    saved["model"] = dict(saved["model"])
    change(saved)
    torch.save(saved, path)
    began = time.perf_counter()
    with pytest.raises(ValueError, match=rf"ckpt\.pt:? .*{problem}") as raised:
        load_nanogpt(path)
    assert time.perf_counter() - began < 2 and len(str(raised.value)) < 400


def test_a_model_of_one_layer_repeated_is_not_built(tmp_path):
    """Many names and one place in the file: each weight is as large as it says, and all together are not."""
    sizes = {"n_layer": 1, "n_head": 1, "n_embd": 256, "block_size": 8, "vocab_size": V}
    theirs = NanoGPT(bias=False, **sizes)
    weights = dict(theirs.state_dict())
    for layer in range(1, 500):
        for name in list(weights):
            if name.startswith("transformer.h.0."):
                weights[name.replace("h.0.", f"h.{layer}.", 1)] = weights[name]
    changes = {"model": weights}
    write_checkpoint(tmp_path, theirs, changes=changes, **{**sizes, "n_layer": 500}, bias=False)
    write_meta(tmp_path)
    with pytest.raises(ValueError, match="too short for a model of 39"):
        load_nanogpt(tmp_path)


def test_more_layers_than_weights_are_not_built(tmp_path):
    """A file that is large enough for them, by what else is in it."""
    sizes = {"n_layer": 1, "n_head": 1, "n_embd": 1, "block_size": 8, "vocab_size": V}
    theirs = NanoGPT(bias=False, **sizes)
    changes = {"optimizer": torch.zeros(2**20)}
    write_checkpoint(tmp_path, theirs, changes=changes, **{**sizes, "n_layer": 300_000}, bias=False)
    write_meta(tmp_path)
    began = time.perf_counter()
    with pytest.raises(ValueError, match="too short for a model of 3,600,"):
        load_nanogpt(tmp_path)
    assert time.perf_counter() - began < 2


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """A zip with a change to the pickle in it, as bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", compression) as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("data.pkl"):
                content = change(content)
            new.writestr(entry.filename, content)
    return out.getvalue()


def hostile_files(path, sprung):
    good = path.read_bytes()
    yield from (b"", b"not a zip", good[:-1], good[: len(good) // 2], good[5:], pickle.dumps({}))
    yield pickle.dumps(Trap(sprung))
    yield rewritten(path, lambda content: content, zipfile.ZIP_DEFLATED)
    yield rewritten(path, lambda content: content[:-1])
    yield rewritten(path, lambda content: content[: len(content) // 2])
    yield rewritten(path, lambda content: b"")
    yield rewritten(path, lambda content: pickle.dumps(Trap(sprung), 2))
    yield rewritten(path, lambda content: pickle.dumps(Trap(sprung), 4))
    # A tensor that claims more numbers than it has: 11 * 12 of them, or a stride beyond the end.
    claims = rewritten(path, lambda content: content.replace(b"K\x0bK\x0c", b"M\x0b\x0bK\x0c"))
    assert claims != rewritten(path, lambda content: content)
    yield claims
    saved = torch.load(path, weights_only=True)
    for thing in (
        Trap(sprung),
        {**saved, "best_val_loss": Trap(sprung)},
        {"model": {"transformer.wte.weight": Trap(sprung)}},
        NanoGPT(bias=False, **SIZES),
        [1, 2],
        torch.ones(3),
        {},
        {"model": {}},
        {"model": []},
    ):
        torch.save(thing, path)
        yield path.read_bytes()
    torch.save(saved, path, _use_new_zipfile_serialization=False)
    yield path.read_bytes()
    torch.save({"model": Trap(sprung)}, path, _use_new_zipfile_serialization=False)
    yield path.read_bytes()


def test_no_file_runs_code_or_ends_in_another_error(tmp_path):
    sprung = tmp_path / "sprung"
    source = write_checkpoint(tmp_path, NanoGPT(bias=False, **SIZES), bias=False)
    write_meta(tmp_path)
    path = tmp_path / "hostile.pt"
    count = 0
    for content in hostile_files(source, sprung):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"hostile\.pt") as raised:
            load_nanogpt(path, tokenizer=TOKENIZER)
        assert not sprung.exists() and len(str(raised.value)) < 500
        assert "weights_only" not in str(raised.value), "no advice to unpickle all the same"
        count += 1
    assert count == 25


def test_a_checkpoint_that_has_to_be_unpickled_is_refused_with_the_way_out(tmp_path):
    torch.save(NanoGPT(bias=False, **SIZES), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match=r"whole\.pt .* would run code .*model\.state_dict\(\)"):
        load_nanogpt(tmp_path / "whole.pt", tokenizer=TOKENIZER)


def test_damaged_bytes_are_refused_or_read_and_never_crash(tmp_path):
    """Bytes of the pickle changed one at a time."""
    source = write_checkpoint(tmp_path, NanoGPT(bias=False, **SIZES), bias=False)
    write_meta(tmp_path)
    generator = torch.Generator().manual_seed(3)
    size = len(zipfile.ZipFile(source).read("ckpt/data.pkl"))
    refused = 0
    for place in torch.randint(size, (150,), generator=generator).tolist():
        value = torch.randint(256, (), generator=generator).item()
        changed = rewritten(source, lambda c: c[:place] + bytes([value]) + c[place + 1 :])
        (tmp_path / "changed.pt").write_bytes(changed)
        try:
            load_nanogpt(tmp_path / "changed.pt", tokenizer=TOKENIZER)
        except ValueError as error:
            assert "changed.pt" in str(error)
            refused += 1
    assert refused > 30
