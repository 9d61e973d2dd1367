"""Recorded attention against other people's, heads off against matrices of zeros, and what is drawn."""

import itertools
import re

import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn
from torch.nn import functional as F

from chargpt_lib.attention_maps import (
    AttentionMaps,
    ablate_heads,
    attention_html,
    attention_rollout,
    compute_attention_maps,
    plot_attention,
    plot_heads,
    record_attention,
    save_attention_page,
    token_texts,
)
from chargpt_lib.bigram import BigramLanguageModel
from chargpt_lib.blocks import BlockLanguageModel
from chargpt_lib.bpe import BPETokenizer
from chargpt_lib.data import CharTokenizer
from chargpt_lib.gpt import GPT, GPTConfig
from chargpt_lib.multi_head import MultiHeadAttention, MultiHeadLanguageModel
from chargpt_lib.playhouse import write
from chargpt_lib.single_head import Head, SingleHeadLanguageModel

TEXT = write(min_chars=100).text[:64]
TOKENIZER = CharTokenizer.from_text(TEXT)
V = TOKENIZER.vocab_size


def sharp(model, factor=8):
    """Large weights, so that no map is even."""
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(factor if weights.dim() > 1 else 1)
    return model.eval()


def gpt(**changes):
    return sharp(
        GPT(GPTConfig(V, **{"block_size": 64, "n_layer": 3, "n_head": 4, "n_embd": 32, **changes}))
    )


def recorded(model, text=TEXT, **chosen):
    return compute_attention_maps(model, TOKENIZER, text, **chosen)


# ---------------------------------------------------------------- recording

MODELS = {
    "single head": lambda: sharp(SingleHeadLanguageModel(V, 64, 16), 60),
    "multi-head": lambda: sharp(MultiHeadLanguageModel(V, 64, 16, 4), 60),
    "blocks": lambda: sharp(BlockLanguageModel(V, 64, 16, 4, 2), 30),
    "lecture": lambda: sharp(GPT(GPTConfig.lecture(V, 64, 24, 3, 2)), 30),
    "GPT": gpt,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_rows_sum_to_one_and_the_future_is_exactly_zero(make):
    maps = recorded(make()).for_text(TEXT)
    assert torch.allclose(maps.sum(-1), torch.ones(maps.shape[:-1]), atol=1e-5)
    assert maps.triu(1).abs().max() == 0 and maps.min() >= 0
    assert (maps[..., -1, :].max(-1).values > 2 / 64).all(), "an even map would prove little"


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_outputs_stay_as_they_are(make):
    model, idx = make(), TOKENIZER.encode(TEXT)[None]
    logits, loss = model(idx[:, :-1], idx[:, 1:])
    with record_attention(model):
        again, loss_again = model(idx[:, :-1], idx[:, 1:])
    assert torch.equal(logits, again) and torch.equal(loss, loss_again)


def test_gradients_pass_through_a_recording():
    model, idx = gpt(), TOKENIZER.encode(TEXT)[None]
    model(idx[:, :-1], idx[:, 1:])[1].backward()
    wanted = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with record_attention(model) as maps:
        model(idx[:, :-1], idx[:, 1:])[1].backward()
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), wanted))
    assert not any(weights.requires_grad for weights in maps.weights)


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_against_transformers_own_attentions(kernel):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1337)
    config = GPT2Config(
        vocab_size=V, n_positions=64, n_embd=32, n_layer=3, n_head=4, attn_implementation="eager"
    )
    theirs = sharp(GPT2LMHeadModel(config))
    idx = TOKENIZER.encode(TEXT).view(2, 32)
    with torch.no_grad():
        wanted = theirs(idx, output_attentions=True).attentions
        theirs.set_attn_implementation(kernel)
        with record_attention(theirs) as maps:
            theirs(idx)
    assert len(maps.weights) == 3
    for weights, attention in zip(maps.weights, wanted):
        assert torch.allclose(weights, attention, atol=1e-5)


def test_heads_one_by_one_are_one_layer():
    """The loop of lesson 04, twice: each head keeps its own weights, which are the reference."""
    model = nn.Sequential(MultiHeadAttention(16, 4), nn.Tanh(), MultiHeadAttention(16, 2))
    with record_attention(model) as maps:
        model(5 * torch.randn(3, 9, 16))
    heads = [[head.weights for head in model[layer].heads] for layer in (0, 2)]
    assert [weights.shape for weights in maps.weights] == [(3, 4, 9, 9), (3, 2, 9, 9)]
    for weights, wanted in zip(maps.weights, heads):
        assert torch.equal(weights, torch.stack(wanted, 1))


def test_one_head_above_the_other_are_two_layers():
    model = nn.Sequential(Head(8, 8), Head(8, 8))
    with record_attention(model) as maps:
        model(torch.randn(2, 5, 8))
    assert [weights.shape for weights in maps.weights] == [(2, 1, 5, 5)] * 2
    assert torch.equal(maps.weights[1][:, 0], model[1].weights)


NOTEBOOK = """
class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Linear(8, 24), nn.Softmax(dim=-1)

    def forward(self, things):
        n = things.shape[-2]
        a, b, c = self.a(things).chunk(3, -1)
        if {kernel}:
            return F.scaled_dot_product_attention(a, b, c, attn_mask=torch.ones(n, n).tril().bool(), scale=0.7)
        self.seen = self.norm((0.7 * a @ b.mT).masked_fill(torch.ones(n, n).triu(1).bool(), float("-inf")))
        return self.seen @ c
"""


def test_classes_of_a_notebook_with_names_of_their_own():
    seen = []
    for kernel in (False, True):
        names = {"nn": nn, "F": F, "torch": torch, "__name__": "__main__"}
        exec(NOTEBOOK.format(kernel=kernel), names)
        torch.manual_seed(0)
        odd, things = names["Odd"](), 3 * torch.randn(2, 6, 8)
        with record_attention(odd) as maps:
            odd(things)
        seen.append(maps.weights[0][:, 0])
    assert seen[0].shape == (2, 6, 6) and torch.allclose(seen[0], seen[1], atol=1e-6)


class Kernel(nn.Module):
    """The fused kernel as a model, with whatever else it is given."""

    def forward(self, q, k, v, *more, **named):
        return F.scaled_dot_product_attention(q, k, v, *more, **named)


T, CAUSAL = 7, torch.ones(7, 7).tril().bool()
RANDOM = (
    torch.rand(2, 3, T, T, generator=torch.Generator().manual_seed(0)).round().bool()
    | torch.eye(T).bool()
)


@pytest.mark.parametrize(
    "more, named",
    [
        ((), {}),
        ((None, 0.0, True), {}),
        ((), {"is_causal": True, "scale": 0.9}),
        ((CAUSAL,), {}),
        ((), {"attn_mask": RANDOM}),
        ((RANDOM[:, :1],), {}),
        ((), {"attn_mask": torch.randn(2, 3, T, T)}),
        ((torch.randn(T, T),), {"scale": 2.0}),
    ],
)
@pytest.mark.parametrize("single", [False, True])
def test_the_kernel_s_own_weights(more, named, single):
    """Where V is the identity, A V is A: the kernel itself says what its weights are, whatever mask it has."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 2, 3, T, 4)
    if single:  # one head as (B, T, D), and its part of the mask
        q, k = q[:, 0], k[:, 0]
        part = lambda x: x[:, 0] if isinstance(x, torch.Tensor) and x.dim() == 4 else x
        more, named = [part(x) for x in more], {name: part(x) for name, x in named.items()}
    model, eye = Kernel(), torch.eye(T).expand(*q.shape[:-1], T)
    wanted = model(q, k, eye, *more, **named)
    for heads in (None, [0], [0] if single else [2, 1]):
        with record_attention(model, heads=heads) as maps:
            model(q, k, q, *more, **named)
        reference = wanted[:, None] if single else wanted[:, sorted(heads or [0, 1, 2])]
        assert torch.allclose(maps.weights[0], reference, atol=1e-6)


def hooks(model):
    kinds = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_forward_hooks_always_called",
        "_backward_hooks",
    )
    return sum(len(getattr(part, kind)) for part in model.modules() for kind in kinds)


@pytest.mark.parametrize(
    "use", [record_attention, lambda model: ablate_heads(model, [(0, 0)])], ids=["record", "off"]
)
@pytest.mark.parametrize("fails", [False, True])
def test_no_trace_is_left(use, fails):
    model, idx = gpt(), TOKENIZER.encode(TEXT)[None]
    before = model(idx)[0]
    parts = {name: set(vars(part)) for name, part in model.named_modules()}
    try:
        with use(model) as maps:
            model(idx)
            kept = maps and [weights.clone() for weights in maps.weights]
            if fails:
                model(idx + 1000)
    except ValueError:
        assert fails
    model(idx[:, :7])
    assert hooks(model) == 0 and torch.equal(model(idx)[0], before)
    assert {name: set(vars(part)) for name, part in model.named_modules()} == parts
    assert maps is None or all(torch.equal(a, b) for a, b in zip(maps.weights, kept)), (
        "it goes on recording"
    )


def test_a_pass_that_fails_halfway_leaves_nothing_behind():
    class Breaks(nn.Module):
        def forward(self, x):
            if x.shape[1] == 3:
                raise RuntimeError("halfway")
            return x

    model = nn.Sequential(Head(8, 8), Breaks(), Head(8, 8))
    with record_attention(model) as maps:
        with pytest.raises(RuntimeError, match="halfway"):
            model(torch.randn(1, 3, 8))
        torch.randn(1, 4, 4).softmax(-1)  # nobody's attention
        model(torch.randn(1, 5, 8))
    assert [weights.shape for weights in maps.weights] == [(1, 1, 5, 5)] * 2


def test_only_this_models_last_pass_is_recorded():
    model, other = gpt(), gpt()
    with record_attention(model) as maps:
        model.generate(TOKENIZER.encode(TEXT)[None, :5], 3)
        other(TOKENIZER.encode(TEXT)[None])
        torch.randn(1, 4, 9, 9).softmax(-1)
    assert [weights.shape for weights in maps.weights] == [(1, 4, 7, 7)] * 3


def test_dropout_does_not_reach_the_maps():
    model = gpt(dropout=0.5)
    calm = recorded(model).weights
    model.train()
    maps = recorded(model)
    assert model.training, "looking changes nothing"
    assert all(torch.equal(a, b) for a, b in zip(maps.weights, calm))
    with record_attention(model) as wild:
        model(TOKENIZER.encode(TEXT)[None])
    assert torch.allclose(wild.weights[0].sum(-1), torch.ones(1, 4, 64), atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [gpt, lambda: nn.Sequential(MultiHeadAttention(32, 4), MultiHeadAttention(32, 4))],
    ids=["kernel", "loop"],
)
def test_only_what_is_asked_for_is_kept(make):
    model = make()
    x = TOKENIZER.encode(TEXT)[None] if isinstance(model, GPT) else torch.randn(1, 64, 32)
    with record_attention(model) as all_of_them:
        model(x)
    with record_attention(model, layers=[1], heads=[3, 1]) as maps:
        model(x)
    (kept,) = maps.weights
    assert (maps.layers, maps.heads) == ([1], [1, 3])
    assert torch.allclose(kept, all_of_them.weights[1][:, [1, 3]], atol=1e-6)
    assert kept.untyped_storage().nbytes() == 2 * 64 * 64 * 4


def test_memory_while_recording_is_that_of_the_heads_asked_for():
    """The largest tensor that a recording of one head makes is one map, not all of them."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.size = max(self.size, tensor.untyped_storage().nbytes())
            return out

    model = GPT(GPTConfig(V, block_size=256, n_layer=1, n_head=8, n_embd=32)).eval()
    sizes = {}
    for heads in ([2], None):
        watch = Largest()
        watch.size = 0
        with torch.no_grad(), watch, record_attention(model, heads=heads):
            model(torch.zeros(1, 256, dtype=torch.int64))
        sizes[str(heads)] = watch.size
    assert sizes["[2]"] <= 256 * 256 * 4 < sizes["None"]


@pytest.mark.parametrize(
    "chosen, message",
    [
        ({"layers": [3]}, "there is no layer 3, head 0: the 3 layers have [4, 4, 4] heads"),
        ({"heads": [4]}, "there is no layer 0, head 4: the 3 layers have [4, 4, 4] heads"),
        ({"layers": [-1]}, "there is no layer -1"),
    ],
)
def test_a_layer_or_head_that_is_not_there(chosen, message):
    with pytest.raises(IndexError, match=re.escape(message)):
        recorded(gpt(), **chosen)
    off = [(chosen.get("layers", [0])[0], chosen.get("heads", [0])[0])]
    with pytest.raises(IndexError, match=re.escape(message)), ablate_heads(model := gpt(), off):
        model(TOKENIZER.encode(TEXT)[None])


@pytest.mark.parametrize(
    "chosen", [{"layers": 0}, {"heads": 3}, {"heads": []}, {"layers": (i for i in [1])}]
)
def test_what_is_not_a_list_of_numbers(chosen):
    ((name, value),) = chosen.items()
    with pytest.raises(
        TypeError,
        match=re.escape(f"{name}={value!r}") + ".*pass a non-empty list .* heads=\\[3\\]",
    ):
        recorded(gpt(), **chosen)


def test_a_head_asked_for_twice_is_there_once():
    maps = recorded(gpt(), heads=[3, 1, 3])
    assert maps.heads == [1, 3] and maps.weights[0].shape[1] == 2


@pytest.mark.parametrize("heads", [(1, 0), [1, 0], [(1, 0, 2)], "ab"])
def test_heads_to_ablate_heads_are_pairs(heads):
    with (
        pytest.raises(TypeError, match=re.escape("it has to be a list of (layer, head), [(3, 0)]")),
        ablate_heads(gpt(), heads),
    ):
        pass


def test_a_pair_may_be_a_list():
    model, idx = gpt(), TOKENIZER.encode(TEXT)[None]
    logits = []
    for off in ([(1, 0)], [[1, 0]], []):
        with torch.no_grad(), ablate_heads(model, off):
            logits.append(model(idx)[0])
    assert torch.equal(logits[0], logits[1]) and not torch.equal(logits[0], logits[2])


def test_attention_inside_one_call_is_hidden_and_that_is_said():
    part = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(1, 5, 8)
    with (
        pytest.raises(ValueError, match="inside nn.MultiheadAttention are hidden"),
        record_attention(part),
    ):
        part(x, x, x)


def test_a_model_without_attention():
    with pytest.raises(
        ValueError, match="BigramLanguageModel has no attention that can be recorded"
    ):
        look_at = BigramLanguageModel(V)
        with record_attention(look_at):
            look_at(TOKENIZER.encode(TEXT)[:, None])


def test_maps_that_are_not_of_this_text():
    model, idx = gpt(), TOKENIZER.encode(TEXT)[None]
    with pytest.raises(ValueError, match="nothing was recorded"):
        with record_attention(model) as maps:
            pass
        plot_heads(maps, TEXT)
    with pytest.raises(
        ValueError, match="batch size 1 and 64 x 64 positions, but this text needs 1 and 63 x 63"
    ):
        plot_attention(recorded(model), TEXT[1:])
    with record_attention(model) as maps:
        model(idx.repeat(2, 1))
    with pytest.raises(ValueError, match="maps have batch size 2"):
        attention_html(maps, TEXT)
    with pytest.raises(IndexError, match="layer 1, head 0 was not recorded"):
        plot_attention(recorded(model, layers=[0]), TEXT, layer=1)
    with pytest.raises(IndexError, match="layer 1, head 0 was not recorded"):
        attention_html(recorded(model, layers=[0]), TEXT, layer=1)
    with pytest.raises(IndexError):
        attention_html(recorded(model), TEXT, position=len(TEXT))


def test_what_is_selected_when_the_page_opens():
    maps = recorded(gpt(), layers=[1, 2], heads=[0, 3])
    assert '"selected": {"row": 0, "column": 0, "position": 63}' in attention_html(maps, TEXT).html
    html = attention_html(maps, TEXT, layer=2, head=3, position=10).html
    assert '"selected": {"row": 1, "column": 1, "position": 10}' in html


@pytest.mark.parametrize("text", ["", TEXT + "A"])
def test_a_text_that_does_not_fit(text):
    with pytest.raises(
        ValueError, match=f"the text has {len(text)} characters; this model reads from 1 to 64"
    ):
        recorded(gpt(), text)


# ---------------------------------------------------------------- off


@pytest.mark.parametrize(
    "off", [[(0, 0)], [(1, 3), (2, 0)], list(itertools.product(range(3), range(4)))]
)
def test_a_head_that_is_off_is_a_projection_of_zeros(off):
    model, silenced = gpt(), gpt()
    silenced.load_state_dict(model.state_dict())
    with torch.no_grad():
        for layer, head in off:
            silenced.blocks[layer].attention.proj.weight[:, 8 * head : 8 * head + 8] = 0
    idx = TOKENIZER.encode(TEXT)[None]
    with ablate_heads(model, off):
        logits = model(idx)[0]
    assert torch.allclose(logits, silenced(idx)[0], atol=1e-4)
    assert not torch.allclose(logits, model(idx)[0], atol=1e-2)


def test_heads_of_the_loop_can_be_off():
    model, x = nn.Sequential(MultiHeadAttention(16, 4)), torch.randn(2, 5, 16)
    with torch.no_grad(), ablate_heads(model, [(0, 1)]):
        out = model(x)
        model[0].proj.weight[:, 4:8] = 0
    assert torch.allclose(out, model(x), atol=1e-6)


def test_nothing_off_changes_nothing_and_maps_can_be_taken_meanwhile():
    model, idx = gpt(), TOKENIZER.encode(TEXT)[None]
    with ablate_heads(model, []):
        assert torch.equal(model(idx)[0], model(idx)[0])
    with ablate_heads(model, [(0, 0)]), record_attention(model) as maps:
        model(idx)
    plain = recorded(model)
    assert torch.equal(maps.weights[0], plain.weights[0]), "the first layer looks as before"
    assert not torch.allclose(maps.weights[1], plain.weights[1], atol=1e-3), (
        "the second has something else to look at"
    )


# ---------------------------------------------------------------- rollout


def test_rollout_is_the_sum_over_all_paths():
    """A path steps, in each layer, to a place by its mean weight, or stays; half and half."""
    model, text = gpt(), TEXT[:6]
    maps = recorded(model, text)
    means = [weights[0].mean(0) for weights in maps.weights]
    wanted = torch.zeros(6, 6)
    for path in itertools.product(range(6), repeat=4):  # from the top down
        share = 1.0
        for mean, (t, s) in zip(reversed(means), itertools.pairwise(path)):
            share *= 0.5 * mean[t, s].item() + 0.5 * (t == s)
        wanted[path[0], path[-1]] += share
    assert torch.allclose(attention_rollout(maps)[0], wanted, atol=1e-5)


def test_a_rollout_needs_everything():
    for chosen in ({"layers": [0, 1]}, {"heads": [0]}):
        with pytest.raises(ValueError, match="every layer and head"):
            attention_rollout(recorded(gpt(), **chosen))


# ---------------------------------------------------------------- pictures


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_a_map_has_every_character_on_both_axes():
    model = gpt()
    fig = plot_attention(recorded(model), TEXT, layer=2, head=1)
    ax, colours = fig.axes
    for axis in (ax.xaxis, ax.yaxis):
        labels = [label.get_text() for label in axis.get_ticklabels()]
        assert "".join(labels) == TEXT.replace(" ", "␣").replace("\n", "⏎")
    assert torch.equal(
        torch.tensor(ax.images[0].get_array().tolist()), recorded(model).weights[2][0, 1]
    )
    assert ax.images[0].get_clim() == (0, 1) and colours.get_ylabel() == "attention weight"


def test_labels_do_not_overlap():
    fig = plot_attention(recorded(gpt()), TEXT)
    fig.canvas.draw()
    for axis, low, high in ((fig.axes[0].xaxis, "x0", "x1"), (fig.axes[0].yaxis, "y0", "y1")):
        boxes = sorted(
            (getattr(box, low), getattr(box, high))
            for box in (label.get_window_extent() for label in axis.get_ticklabels())
        )
        assert all(end <= start + 1 for (_, end), (start, _) in itertools.pairwise(boxes))


def test_a_long_text_is_marked_at_its_lines():
    text = write(min_chars=300).text[:256]
    tokenizer = CharTokenizer.from_text(text)
    model = GPT(GPTConfig(tokenizer.vocab_size, block_size=256, n_layer=1, n_head=1, n_embd=8))
    fig = plot_attention(compute_attention_maps(model, tokenizer, text), text)
    labels = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    starts = [match.start() for match in re.finditer(r"(?<![^\n])[^\n]", text)]
    assert list(fig.axes[0].get_yticks()) == starts and all(
        text[t:].startswith(name) for t, name in zip(starts, labels)
    )
    assert max(fig.get_size_inches()) <= 11


def test_the_wall_has_every_head_under_one_scale():
    maps = recorded(gpt())
    fig = plot_heads(maps, TEXT)
    assert len(fig.axes) == 3 * 4 + 1
    for ax, weights in zip(fig.axes, maps.for_text(TEXT).flatten(0, 1)):
        assert torch.equal(torch.tensor(ax.images[0].get_array().tolist()), weights)
        assert ax.images[0].get_clim() == (0, 1)


def test_the_page_holds_what_the_model_did():
    model = gpt()
    html = attention_html(recorded(model), TEXT).html
    assert '"layers": [0, 1, 2]' in html and '"heads": [0, 1, 2, 3]' in html
    assert html.count("<tr><td>") == 12 and "data:image/webp;base64," in html
    assert not re.search(r"https?://(?!www\.w3\.org)", html)
    weights = recorded(model).for_text(TEXT)[1, 2]
    times_chance = {(t, s): weights[t, s].item() * (t + 1) for t in range(64) for s in range(t)}
    t, s = max(times_chance, key=times_chance.get)
    assert re.search(rf"<tr><td>1<td>2<td>\S+ at {t}<td>\S+ at {s}<td>{weights[t, s]:.0%}<", html)


def test_a_page_of_six_by_six_heads_is_small():
    text = write(min_chars=300).text[:128]
    tokenizer = CharTokenizer.from_text(text)
    for factor in (1, 8):
        model = GPT(GPTConfig(tokenizer.vocab_size, block_size=128, n_layer=6, n_head=6, n_embd=48))
        with torch.no_grad():
            [weights.mul_(factor) for weights in model.parameters()]
        assert (
            len(attention_html(compute_attention_maps(model, tokenizer, text), text).html.encode())
            <= 400_000
        )


def test_a_text_with_markup_stays_text():
    text = "</script><img src=x onerror=alert(1)>&amp;"
    tokenizer = CharTokenizer.from_text(text)
    model = GPT(GPTConfig(tokenizer.vocab_size, block_size=64, n_layer=1, n_head=1, n_embd=8))
    html = attention_html(compute_attention_maps(model, tokenizer, text), text).html
    assert html.count("</script>") == 1 and html.count("<img") == 1


def test_a_page_of_a_model_that_sees_the_future():
    maps = AttentionMaps()
    maps.weights, maps.layers, maps.heads = [torch.full((1, 1, 3, 3), 1 / 3)], [0], [0]
    with pytest.raises(ValueError, match="future"):
        attention_html(maps, "abc")
    assert plot_attention(maps, "abc")


def test_attend_writes_the_page(tmp_path):
    save_attention_page(gpt(), TOKENIZER, TEXT, tmp_path / "attention.html")
    assert (
        attention_html(recorded(gpt()), TEXT).html.split("data-key")[0]
        in (tmp_path / "attention.html").read_text()
    )
    with pytest.raises(FileNotFoundError):
        save_attention_page(gpt(), TOKENIZER, TEXT, tmp_path / "no such folder" / "attention.html")


# ---------------------------------------------------------------- tokens

PLAY = write(min_chars=4000).text
WORDS = BPETokenizer.train(PLAY, 500, ["<|endoftext|>"])
SIGNS = {" ": "␣", "\n": "⏎"}


def of_tokens(text, tokenizer=WORDS, **changes):
    """A model of tokens -> its maps of a text, and the text's tokens."""
    sizes = {"block_size": 256, "n_layer": 2, "n_head": 3, "n_embd": 24, **changes}
    model = sharp(GPT(GPTConfig(tokenizer.vocab_size, **sizes)))
    return compute_attention_maps(model, tokenizer, text), token_texts(tokenizer, text)


def labels_of(fig):
    """The labels on both axes, which are the same."""
    x, y = (
        [label.get_text() for label in axis.get_ticklabels()]
        for axis in (fig.axes[0].xaxis, fig.axes[0].yaxis)
    )
    assert x == y
    return y


def test_the_text_of_characters_is_itself():
    assert token_texts(TOKENIZER, TEXT) is TEXT


def test_a_map_has_every_token_on_both_axes():
    text = PLAY[:120]
    maps, tokens = of_tokens(text)
    assert tokens == [WORDS.decode([i]) for i in WORDS.encode(text)]
    assert any(len(token) > 2 for token in tokens), "characters would prove little"
    fig = plot_attention(maps, tokens, layer=1, head=2)
    assert "".join(labels_of(fig)) == text.translate(str.maketrans(SIGNS))
    assert len(labels_of(fig)) == len(tokens) < len(text)
    assert torch.equal(
        torch.tensor(fig.axes[0].images[0].get_array().tolist()), maps.weights[1][0, 2]
    )


def test_a_text_is_measured_in_tokens():
    text = PLAY[:200]
    T = len(WORDS.encode(text))
    maps, tokens = of_tokens(text, block_size=T)
    assert maps.for_text(tokens).shape == (2, 3, T, T) and T < len(text)
    for short, count in ((text, T), ("", 0)):
        with pytest.raises(
            ValueError,
            match=f"the text has {count} tokens; this model reads from 1 to {T - 1} at once",
        ):
            of_tokens(short, block_size=T - 1)
    with pytest.raises(ValueError, match=f"{T} x {T} .* 1 and 200 x 200.*token_texts"):
        plot_attention(maps, text)


def test_a_part_of_a_character_is_its_bytes():
    text = "é 🎭\x07"
    maps, tokens = of_tokens(text)
    ids = WORDS.encode(text).tolist()
    assert len(ids) > len(text) and len(tokens) == len(ids)
    written = [ascii(WORDS.tokens[i])[2:-1] for i in ids]  # as Python writes bytes
    assert [token for token in tokens if "\\" in token] == [
        w for w in written if w[0] == "\\" and w != "\\x07"
    ]
    assert labels_of(plot_attention(maps, tokens))[:2] == ["\\xc3", "\\xa9"]
    assert labels_of(plot_attention(maps, tokens))[-1] == "[7]"
    assert "\\\\xf0" in attention_html(maps, tokens).html, "as JSON"
    whole = BPETokenizer.train("é🎭" * 9, 260)
    assert token_texts(whole, "é🎭") == ["é", "🎭"]


def test_a_long_token_is_cut():
    maps, tokens = of_tokens("damp<|endoftext|>goose")
    assert "<|endoftext|>" in tokens
    fig = plot_attention(maps, tokens)
    assert "<|endoftext…" in labels_of(fig) and max(map(len, labels_of(fig))) == 12


@pytest.mark.parametrize("length", [30, 100, 190])
def test_labels_of_tokens_do_not_overlap(length):
    maps, tokens = of_tokens(PLAY[:length])
    assert len(tokens) <= 80
    fig = plot_attention(maps, tokens)
    fig.canvas.draw()
    for axis, low, high in ((fig.axes[0].xaxis, "x0", "x1"), (fig.axes[0].yaxis, "y0", "y1")):
        boxes = sorted(
            (getattr(box, low), getattr(box, high))
            for box in (label.get_window_extent() for label in axis.get_ticklabels())
        )
        assert all(end <= start + 1 for (_, end), (start, _) in itertools.pairwise(boxes))
    box = fig.get_tightbbox()
    assert box.x0 >= 0 and box.y0 >= 0 and max(fig.get_size_inches()) <= 11
    assert fig.axes[0].get_position().height > 0.5, "the map is larger than its labels"


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_a_long_text_is_marked_at_tokens_that_begin_a_line(pattern):
    """The first token that begins in the line: a line may begin within a token, of a line end and spaces."""
    text = PLAY[:200] + "\n\nA poem\n  of geese.\n   Again\n" + PLAY[:200]
    tokenizer = BPETokenizer.train((text + "\n ") * 3, 355, pattern=pattern)
    maps, tokens = of_tokens(text, tokenizer)
    assert len(tokens) > 80 and any("\n" in token and len(token) > 1 for token in tokens)
    fig = plot_attention(maps, tokens)
    begins = [0, *itertools.accumulate(map(len, tokens))]  # in characters
    marked = {}
    for line in re.finditer(r"(?m)^ *(\S+)", text):
        t = next(t for t, place in enumerate(begins) if place >= line.start())
        marked[t] = line[1].split(":")[0][:8]
    assert list(fig.axes[0].get_yticks()) == list(marked)
    assert labels_of(fig) == list(marked.values())


def test_the_page_of_tokens_holds_what_the_model_did():
    maps, tokens = of_tokens(PLAY[:90])
    html = attention_html(maps, tokens).html
    assert "<th>token<th>looks at" in html and ">character<" not in html
    assert html.count("<tr><td>") == 6
    weights = maps.weights[1][0, 2]
    T = len(tokens)
    times_chance = {(t, s): weights[t, s].item() * (t + 1) for t in range(T) for s in range(t)}
    t, s = max(times_chance, key=times_chance.get)
    t_name, s_name = (re.escape(tokens[i].translate(str.maketrans(SIGNS))) for i in (t, s))
    assert re.search(
        rf"<tr><td>1<td>2<td>{t_name} at {t}<td>{s_name} at {s}<td>{weights[t, s]:.0%}<", html
    )


def test_a_page_of_tokens_is_saved(tmp_path):
    model = sharp(GPT(GPTConfig(WORDS.vocab_size, block_size=64, n_layer=1, n_head=1, n_embd=8)))
    save_attention_page(model, WORDS, PLAY[:90], tmp_path / "attention.html")
    maps = compute_attention_maps(model, WORDS, PLAY[:90])
    html = attention_html(maps, token_texts(WORDS, PLAY[:90])).html
    assert html in (tmp_path / "attention.html").read_text(encoding="utf-8")
