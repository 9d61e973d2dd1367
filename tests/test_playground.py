"""What stands in a live page, without a browser: 8-bit weights, what they cost, and which models are refused."""

import re

import pytest
import torch
from torch.nn import functional as F

from chargpt_lib.bpe import BPETokenizer
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.gpt import GPT, GPTConfig, load_pretrained
from chargpt_lib.modern import ModernConfig, ModernGPT
from chargpt_lib.playground import as_packed, pack, playground, quantize_rows
from chargpt_lib.training import evaluate

ALPHABET = "\n abcdefghijklmnopqrstuvwxyz"
SIZES = {"block_size": 32, "n_layer": 2, "n_head": 2, "n_embd": 16}


def small_model(vocab_size=len(ALPHABET)):
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size, **SIZES)).eval()


def test_rounding_to_8_bits_moves_a_weight_by_half_a_step_at_most():
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(50, 30, generator=generator) * torch.logspace(-4, 3, 50)[:, None]
    weight[7] = 0
    small, scales = quantize_rows(weight)
    assert small.dtype == torch.int8
    assert small.abs().max() == 127
    back = small.float() * scales[:, None]
    step = weight.abs().amax(1, keepdim=True) / 127
    assert ((back - weight).abs() <= 0.5001 * step).all()
    assert (back[7] == 0).all()


def test_8_bits_cost_the_recorded_model_less_than_a_two_hundredth():
    model, tokenizer, record = load_pretrained("playhouse")
    ids = tokenizer.encode(load_corpus("playhouse").val)
    cost = evaluate(as_packed(model), ids) - evaluate(model, ids)
    assert -0.005 < cost < 0.005


def test_the_recorded_model_is_a_page_of_at_most_1_200_000_bytes(tmp_path):
    model, tokenizer, record = load_pretrained("playhouse")
    playground(model, tokenizer, floor=record["floor"]).save(tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size <= 1_200_000


@pytest.mark.parametrize("tied", [True, False])
def test_a_pack_has_each_weight_once(tied):
    model = ModernGPT(ModernConfig(30, tied=tied, n_gram=3, n_gram_rows=10, **SIZES))
    spec, data = pack(model)
    rows = {row["name"]: row for row in spec["tensors"]}
    assert set(rows) == set(dict(model.named_parameters()))
    end = 0
    for name, weight in model.named_parameters():
        row = rows[name]
        assert row["shape"] == list(weight.shape)
        assert row["offset"] % 4 == 0 and end <= row["offset"] < end + 4
        end = row["offset"]
        end += weight.numel() + 4 * len(weight) if weight.dim() == 2 else 4 * weight.numel()
    assert end == len(data)
    assert spec["config"]["model_type"] == "modern"


def test_the_still_picture_says_what_the_text_costs():
    model = small_model()
    tokenizer = CharTokenizer(ALPHABET)
    text = "the goose is <b>"
    page = playground(model, CharTokenizer(ALPHABET), "the goose is odd\n")
    ids = tokenizer.encode("the goose is odd\n")
    with torch.no_grad():
        logits = as_packed(model)(ids[None, :-1])[0][0]
    cost = F.cross_entropy(logits, ids[1:]).item()
    assert f"loss on the text in the picture is {cost:.2f} nats per character." in page.html
    assert re.search(
        r'<img alt="The text; [^"]+" style="[^"]+" src="data:image/webp;base64,', page.html
    )
    with pytest.raises(ValueError, match="'<'"):
        playground(model, tokenizer, text)


@pytest.mark.parametrize("before", ["", "words of a text "])
def test_a_text_cannot_end_the_script(before):
    tokenizer = BPETokenizer.train("a text of words " * 20, 260)
    model = small_model(260)
    page = playground(model, tokenizer, f"{before}</script><img src=x onerror=alert(1)>")
    still, script = page.html.split("<script>")
    assert script.count("</script") == 1
    assert "<img src=x" not in still
    # Its own picture.
    assert still.count("<img") == 1


@pytest.mark.parametrize("text", ["", "a"])
def test_a_text_that_predicts_nothing(text):
    page = playground(small_model(), CharTokenizer(ALPHABET), text)
    assert "too short to predict" in page.html


def test_without_a_text_the_model_writes_one():
    tokenizer = CharTokenizer(ALPHABET)
    first = playground(small_model(), tokenizer)
    assert first.html == playground(small_model(), tokenizer).html
    model = small_model()
    state = torch.random.get_rng_state()
    playground(model, tokenizer)
    assert torch.equal(torch.random.get_rng_state(), state), "a page takes nothing of the learner's"
    # An alphabet without a line end.
    playground(small_model(5), CharTokenizer("abcde"))


def test_the_model_stays_as_it_was():
    model = small_model().train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    playground(model, CharTokenizer(ALPHABET), "a goose")
    assert model.training
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])


def test_a_learners_own_class_may_be_the_same_model():
    class MyGPT(GPT):
        pass

    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        model = MyGPT(GPTConfig(len(ALPHABET), **SIZES)).to(dtype)
        playground(model, CharTokenizer(ALPHABET), "a goose")


class Louder(GPT):
    def forward(self, idx, targets=None):
        logits, loss = super().forward(idx, targets)
        return 1.01 * logits, loss


class Forgetful(GPT):
    """Only its last position is another."""

    def forward(self, idx, targets=None):
        logits, loss = super().forward(idx, targets)
        far = torch.arange(idx.shape[1]) >= self.config.block_size - 1
        return logits.masked_fill(far[:, None], 0.0), loss


@pytest.mark.parametrize("kind", [Louder, Forgetful])
def test_a_model_that_computes_something_else_is_refused(kind):
    torch.manual_seed(0)
    model = kind(GPTConfig(len(ALPHABET), **SIZES))
    with pytest.raises(ValueError, match="computes something else than chargpt_lib's GPT"):
        playground(model, CharTokenizer(ALPHABET), "a goose")


def test_weights_that_are_no_numbers_are_named():
    model = small_model()
    with torch.no_grad():
        model.blocks[1].feed_forward.fc.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="a weight is nan or infinite"):
        playground(model, CharTokenizer(ALPHABET), "a goose")


def test_a_character_of_several_tokens_is_whole_in_the_sentence():
    tokenizer = BPETokenizer.train("a text of words " * 20, 260)
    page = playground(small_model(260), tokenizer, "🎭🎭")
    still = page.html.split("<script>")[0]
    assert "by “🎭” after “🎭”" in still
    assert "\ufffd" not in still


def test_line_ends_are_those_of_a_text_field():
    tokenizer = BPETokenizer.train("a text of words " * 20, 260)
    page = playground(small_model(260), tokenizer, "a\r\nb\rc")
    assert '"text": "a\\nb\\nc"' in page.html


def test_a_part_that_is_frozen_stays_so():
    model = small_model().train()
    model.blocks[1].eval()
    playground(model, CharTokenizer(ALPHABET), "a goose")
    assert model.training and model.blocks[0].training and not model.blocks[1].training


def test_a_model_with_other_weights_is_refused():
    model = small_model()
    model.blocks[0].extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="other weights than the GPT of its config"):
        playground(model, CharTokenizer(ALPHABET), "a goose")


def test_what_is_no_gpt_or_too_large_or_of_another_tokenizer_is_refused():
    tokenizer = CharTokenizer(ALPHABET)
    with pytest.raises(ValueError, match="only their models can"):
        playground(torch.nn.Linear(2, 2), tokenizer)
    with pytest.raises(ValueError, match="vocab_size"):
        playground(small_model(7), tokenizer)
    with torch.device("meta"):
        large = GPT(GPTConfig.gpt2())
    with pytest.raises(ValueError, match="at most 50,000,000"):
        playground(large, _TokenizerOfSize(50257))


class _TokenizerOfSize:
    """As much of a tokenizer as is asked before the model's size is."""

    unit = "token"

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def to_dict(self):
        return {"type": "bpe"}
