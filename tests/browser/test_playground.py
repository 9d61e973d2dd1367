"""The model in a page: what JavaScript computes against PyTorch with the same 8-bit weights, and what the page does."""

import base64
import json
import math
import random
import re

import pytest
import torch
from torch.nn import functional as F

from chargpt_lib.attention_maps import ablate_heads, record_attention
from chargpt_lib.bpe import PATTERNS, BPETokenizer
from chargpt_lib.data import CharTokenizer, load_corpus
from chargpt_lib.gpt import GPT, GPTConfig, load_pretrained
from chargpt_lib.modern import ModernConfig, ModernGPT
from chargpt_lib.playground import as_packed, pack, playground
from chargpt_lib.plots import LEVELS, read_asset, weights_as_text
from chargpt_lib.sampling import next_token_probs

SMALL = {"block_size": 64, "n_layer": 2, "n_head": 4, "n_embd": 48}
V = 54
SCENE = (
    "A barn. Enter Meg and Toby with a damp goose.\nToby: The owl sings.\n"
    "Meg: You odd nun!\nExit Toby, licking the goose.\n"
)
ALL_ON = {"heads": [], "attention": [], "feedForward": []}


def build(name):
    """A model with weights that are not at their initialisation."""
    if name == "playhouse":
        return load_pretrained("playhouse")[0]
    torch.manual_seed(0)
    model = {
        "lecture": lambda: GPT(GPTConfig.lecture(V, **SMALL)),
        "biases, gelu_tanh": lambda: GPT(
            GPTConfig(V, bias=True, qkv_bias=True, activation="gelu_tanh", **SMALL)
        ),
        "modern, grouped": lambda: ModernGPT(ModernConfig(V, n_kv_head=2, **SMALL)),
        "modern, n-grams": lambda: ModernGPT(
            ModernConfig(V, n_gram=4, n_gram_rows=1000, tied=False, **SMALL)
        ),
        "modern, learned": lambda: ModernGPT(
            ModernConfig(
                V, positions="learned", norm="layer", activation="relu2", qk_norm=False, **SMALL
            )
        ),
    }[name]()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3).add_(0.02 * torch.randn_like(weight))
    return model.eval()


NAMES = (
    "playhouse",
    "lecture",
    "biases, gelu_tanh",
    "modern, grouped",
    "modern, n-grams",
    "modern, learned",
)


# ---------------------------------------------------------------- the model's program


@pytest.fixture
def live(visit):
    """live(model) -> a page in which `model` is that model, and `engine` the one that the live page asks.

    wasm=False: where there is no WebAssembly.
    """

    def open_model(model, wasm=True):
        spec, data = pack(model)
        scripts = [read_asset(f"{name}.js") for name in ("kernel", "model", "windows", "engine")]
        body = (
            f"<script>{'' if wasm else 'delete window.WebAssembly;'}{''.join(scripts)}\n"
            f"const model = new Model({json.dumps(spec)}, decodeBase64('{base64.b64encode(data).decode()}'));\n"
            f"const engine = new Engine(model, {json.dumps(LEVELS).replace('<', chr(92) + 'u003c')});</script>"
        )
        return visit(body)

    return open_model


def random_ids(model, length, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.vocab_size, (length,), generator=generator)


def test_the_kernel_is_its_text_compiled():
    wasmtime = pytest.importorskip("wasmtime", reason="wasmtime is not installed")
    compiled = base64.b64encode(wasmtime.wat2wasm(read_asset("linear.wat"))).decode()
    assert f'"{compiled}"' in read_asset("kernel.js")


@pytest.mark.parametrize("T, I, O", [(1, 1, 1), (3, 5, 7), (4, 4, 4), (9, 6, 2), (70, 13, 11)])
def test_the_kernel_multiplies(visit, T, I, O):
    page = visit(f"<script>{read_asset('kernel.js')}</script>")
    generator = torch.Generator().manual_seed(T)
    x = torch.randn(T, I, generator=generator)
    weights = [torch.randn(O, I, generator=generator), torch.randn(3, 2, generator=generator)]
    got = page.evaluate(
        """([x, T, weights]) => {
            const shapes = weights.map((weight) => [weight.length, weight[0].length]);
            const kernel = new Kernel(shapes, 8);
            const places = shapes.map((shape) => kernel.place(shape));
            weights.forEach((weight, n) => weight.forEach((row, r) => places[n].numbers.set(row, r * padded(row.length))));
            return Array.from(kernel.product(Float32Array.from(x), T, places[0].at, shapes[0]));
        }""",
        [x.flatten().tolist(), T, [weight.tolist() for weight in weights]],
    )
    got = torch.tensor(got).view(T, O)
    torch.testing.assert_close(got, x @ weights[0].T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("wasm", [True, False], ids=["WebAssembly", "JavaScript"])
@pytest.mark.parametrize("name", NAMES)
def test_the_logits_are_those_of_pytorch(live, name, wasm):
    model = build(name)
    page = live(model, wasm)
    kernels = page.evaluate(
        "() => Object.values(model.tensors).map(({ kernel }) => kernel !== undefined)"
    )
    assert any(kernels) == wasm
    for seed, length in enumerate((1, 2, 7, 33, model.block_size)):
        ids = random_ids(model, length, seed)
        got = page.evaluate(
            "(ids) => Array.from(model.forward(ids, model.emptyCache()).logits)", ids.tolist()
        )
        with torch.no_grad():
            want = as_packed(model).compute_logits(ids[None])[0]
        torch.testing.assert_close(torch.tensor(got).view_as(want), want, atol=1e-3, rtol=0)
        # A token at a time.
        last = page.evaluate(
            """(ids) => {
                const cache = model.emptyCache();
                let logits;
                for (const id of ids) { logits = model.forward([id], cache).logits; }
                return Array.from(logits);
            }""",
            ids.tolist(),
        )
        torch.testing.assert_close(torch.tensor(last), want[-1], atol=1e-3, rtol=0)


def logits_without(page, ids, kind, parts):
    """The page's logits, as a list, with these parts of a kind off: heads, attention or feedForward."""
    return page.evaluate(
        "([ids, kind, parts]) => Array.from(model.forward(ids, model.emptyCache(), { [kind]: new Set(parts) }).logits)",
        [ids.tolist(), kind, parts],
    )


@pytest.mark.parametrize("name", ["playhouse", "modern, grouped"])
def test_heads_off(live, name):
    model = build(name)
    page = live(model)
    ids = random_ids(model, 40)
    packed = as_packed(model)
    off = [(0, 1), (1, 3)]
    with torch.no_grad(), ablate_heads(packed, off):
        want = packed(ids[None])[0][0]
    got = logits_without(page, ids, "heads", [f"{layer}.{head}" for layer, head in off])
    torch.testing.assert_close(torch.tensor(got).view_as(want), want, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["playhouse", "biases, gelu_tanh", "modern, n-grams"])
@pytest.mark.parametrize("part", ["attention", "feedForward"])
def test_a_layer_off(live, name, part):
    model = build(name)
    page = live(model)
    ids = random_ids(model, 40)
    packed = as_packed(model)
    module = getattr(
        packed.blocks[1], {"attention": "attention", "feedForward": "feed_forward"}[part]
    )
    module.forward = lambda x, *args, **kwargs: torch.zeros_like(x)
    with torch.no_grad():
        want = packed(ids[None])[0][0]
    got = logits_without(page, ids, part, [1])
    torch.testing.assert_close(torch.tensor(got).view_as(want), want, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["playhouse", "modern, n-grams"])
def test_attention_and_the_guesses_after_each_block(live, name):
    model = build(name)
    page = live(model)
    ids = random_ids(model, 40)
    packed = as_packed(model)
    inputs = []
    packed.blocks[0].register_forward_pre_hook(lambda block, args: inputs.append(args[0]))
    for block in packed.blocks:
        block.register_forward_hook(lambda block, args, output: inputs.append(output))
    with torch.no_grad(), record_attention(packed) as recorded:
        packed(ids[None])
        guesses = [packed.lm_head(packed.norm(x))[0] for x in inputs]
    if model.config.model_type == "modern":
        softcap = model.config.softcap
        guesses = [softcap * torch.tanh(logits / softcap) for logits in guesses]

    want = torch.cat(recorded.weights)  # (L, H, T, T)
    rows = page.evaluate(
        "(ids) => model.forward(ids, model.emptyCache(), {}, true).attention.map((row) => Array.from(row))",
        ids.tolist(),
    )
    L, H, T, _ = want.shape
    for t, row in enumerate(rows):
        got = torch.tensor(row, dtype=want.dtype).view(L, H, t + 1)
        torch.testing.assert_close(got, want[:, :, t, : t + 1], atol=1e-4, rtol=0)

    # As the viewer takes them: a weight near the border of two levels may be rounded either way.
    text = page.evaluate("([ids, off]) => engine.weights(ids, 0, off)", [ids.tolist(), ALL_ON])
    expected = weights_as_text(want)
    assert len(text) == len(expected)
    steps = [abs(LEVELS.index(a) - LEVELS.index(b)) for a, b in zip(text, expected)]
    assert max(steps) <= 1
    assert sum(steps) <= 0.01 * len(steps)

    t = 30
    stages = page.evaluate(
        "([ids, t, off, actual]) => engine.guesses(ids, t, off, actual)",
        [ids.tolist(), t, ALL_ON, ids[t].item()],
    )
    assert len(stages) == len(model.blocks) + 1
    for stage, logits in zip(stages, guesses):
        p = logits[t - 1].softmax(-1)
        assert stage["actual"] == pytest.approx(p[ids[t]].item(), abs=1e-4)
        assert [token["p"] for token in stage["tokens"]] == pytest.approx(
            p.topk(3).values.tolist(), abs=1e-4
        )


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"temperature": 0},
        {"temperature": 0.7, "top_k": 5},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
    ],
)
def test_the_probabilities_are_those_of_lesson_08(live, parameters):
    page = live(build("lecture"))
    generator = torch.Generator().manual_seed(3)
    logits = 4 * torch.rand(30, generator=generator)
    logits[7] = logits[12]  # equals
    names = {"top_k": "topK", "top_p": "topP", "min_p": "minP"}
    options = {names.get(name, name): value for name, value in parameters.items()}
    got = page.evaluate(
        "([logits, options]) => Array.from(nextTokenProbs(Float32Array.from(logits), options))",
        [logits.tolist(), options],
    )
    want = next_token_probs(logits[None], **parameters)[0]
    torch.testing.assert_close(torch.tensor(got, dtype=want.dtype), want, atol=1e-6, rtol=1e-5)


def test_the_uniform_numbers_are_uniform_and_differ_with_the_seed(live):
    page = live(build("lecture"))
    numbers = page.evaluate(
        "() => [1337, 1338, 0].map((seed) => Array.from({ length: 20000 }, (_, n) => uniform(seed, n)))"
    )
    for row in numbers:
        row = torch.tensor(row, dtype=torch.float64)
        assert 0 <= row.min() and row.max() < 1
        counts = torch.histc(row, 100, 0, 1)
        chi_squared = ((counts - 200) ** 2 / 200).sum().item()
        assert chi_squared < 160  # of 99 degrees of freedom: one row of ten thousand has more
        neighbours = torch.corrcoef(torch.stack([row[:-1], row[1:]]))[0, 1].abs()
        assert neighbours < 0.03
    assert len({tuple(row[:5]) for row in numbers}) == 3


def window_start(t, block):
    """Where the window begins by which token t is predicted: half a block farther each time."""
    stride = math.ceil(block / 2)
    return stride * max(0, math.ceil((t - block) / stride))


def logits_for(packed, ids, t):
    start = window_start(t, packed.block_size)
    with torch.no_grad():
        return packed(ids[None, start:t])[0][0, -1]


@pytest.mark.parametrize("name", NAMES)
def test_the_greedy_text_of_200_tokens(live, name):
    model = build(name)
    page = live(model)
    packed = as_packed(model)
    ids = random_ids(model, 5)
    text = page.evaluate(
        """([ids, off]) => {
            for (let n = 0; n < 200; n++) {
                ids = [...ids, engine.draw(ids, off, { temperature: 0 }, 1337, n).id];
            }
            return ids;
        }""",
        [ids.tolist(), ALL_ON],
    )
    for _ in range(200):
        logits = logits_for(packed, ids, len(ids))
        ids = torch.cat([ids, logits.argmax()[None]])
    assert text == ids.tolist()


@pytest.mark.parametrize("name", ["playhouse", "modern, n-grams"])
def test_a_long_text_costs_what_its_windows_say(live, name):
    model = build(name)
    page = live(model)
    packed = as_packed(model)
    ids = random_ids(model, 3 * model.block_size + 7)
    got = page.evaluate(
        """([ids, off]) => {
            const nats = [];
            for (let k = 0; k <= windowOf(ids.length - 1, engine.block); k++) {
                nats.push(...engine.score(ids, k, off));
            }
            return nats;
        }""",
        [ids.tolist(), ALL_ON],
    )
    assert len(got) == len(ids) and got[0] is None
    for t in range(1, len(ids), 11):
        want = F.cross_entropy(logits_for(packed, ids, t), ids[t]).item()
        assert got[t] == pytest.approx(want, abs=1e-3)


def test_a_reading_that_goes_on_is_one_that_begins_anew(live):
    model = build("playhouse")
    page = live(model)
    first = random_ids(model, 60)
    changed = first.clone()
    changed[25:40] = random_ids(model, 15, seed=9)
    edits = [first[:40], first, first[:10], changed, first[:1], changed[:50]]
    for ids in edits:
        got, anew = page.evaluate(
            """([ids, off]) => [engine.score(ids, 0, off),
                new Engine(model, engine.levels).score(ids, 0, off)]""",
            [ids.tolist(), ALL_ON],
        )
        assert got[1:] == pytest.approx(anew[1:], abs=1e-4)


# ---------------------------------------------------------------- the tokenizers


@pytest.fixture
def tokenizers(visit):
    return visit(f"<script>{read_asset('tokenizers.js')}</script>")


NASTY = [
    "",
    "a",
    "Enter Meg, who'll sue; they'VE 12345 geese!!",
    "  two  spaces \n\n\t and a tab \r\n end  ",
    "🎭 👩‍🎤👍🏽 🇩🇪 naïve e\u0301 नि ﬁ ſ's'ſ",
    "\u00a0\u2003\u0085\ufeff\u200b\x1c\x00 x",
    "<|end|></script><!-- <|end|>",
    "a" * 300 + "ab" * 100,
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("special", [(), ("<|end|>", "<|end|>\n")])
def test_bytes_are_merged_as_in_lesson_14(tokenizers, pattern, special):
    corpus = load_corpus("playhouse").train[:20000] + " ".join(NASTY)
    tokenizer = BPETokenizer.train(corpus, 400, special, pattern)
    saved = tokenizer.to_dict()
    for text in [*NASTY, corpus[:2000]]:
        ids, pieces, texts = tokenizers.evaluate(
            """([saved, text]) => {
                const tokenizer = openTokenizer(saved);
                const ids = tokenizer.encode(text);
                return [ids, tokenizer.pieces(ids), ids.map((id) => tokenizer.text(id))];
            }""",
            [saved, text],
        )
        assert ids == tokenizer.encode(text).tolist()
        assert "".join(piece["text"] for piece in pieces) == text.replace("\r", "␍")
        assert [piece["from"] for piece in pieces] == [0, *(piece["to"] for piece in pieces)][
            : len(pieces)
        ]
        assert not pieces or pieces[-1]["to"] == len(ids)
        for piece in pieces:
            decoded = tokenizer.decode(ids[piece["from"] : piece["to"]])
            assert decoded.replace("\r", "␍") == piece["text"]
        for i, shown in zip(ids, texts):
            assert shown == tokenizer.tokens[i].decode("utf-8", errors="backslashreplace")


def test_bytes_that_are_no_characters(tokenizers):
    tokenizer = BPETokenizer([])
    generator = torch.Generator().manual_seed(2)
    for _ in range(20):
        ids = torch.randint(256, (40,), generator=generator).tolist()
        pieces = tokenizers.evaluate(
            "([saved, ids]) => openTokenizer(saved).pieces(ids)", [tokenizer.to_dict(), ids]
        )
        assert pieces[-1]["to"] == len(ids)
        assert "".join(piece["text"] for piece in pieces).count("\ufffd") > 0


def test_characters_are_those_of_lesson_00(tokenizers):
    tokenizer = CharTokenizer("\n abc🎭é")
    ids, unknown = tokenizers.evaluate(
        """(saved) => {
            const tokenizer = openTokenizer(saved);
            return [tokenizer.encode("a🎭\\n bé"), tokenizer.unknown("a🎭x🎭Xb")];
        }""",
        tokenizer.to_dict(),
    )
    assert ids == tokenizer.encode("a🎭\n bé").tolist()
    assert unknown == [2, 4]


# ---------------------------------------------------------------- the page


@pytest.fixture
def show(visit):
    """show(model, tokenizer, text, floor, **options) -> the live page, after its first costs are there."""

    def open_page(model=None, tokenizer=None, text=SCENE, floor=None, **options):
        if model is None:
            model, tokenizer, _ = load_pretrained("playhouse")
        page = visit(playground(model, tokenizer, text, floor).html, **options)
        wait_until_still(page)
        return page

    return open_page


# Answers take their time, so that a test can be quicker. {method: milliseconds}; asked counts the questions.
SLOW = """
    window.asked = {};
    const slow = %s;
    const post = Worker.prototype.postMessage;
    Worker.prototype.postMessage = function (message) {
        window.asked[message.method] = (window.asked[message.method] ?? 0) + 1;
        setTimeout(() => post.call(this, message), slow[message.method] ?? 0);
    };
"""


def slowly(**milliseconds):
    """What a page runs first, so that these methods of the engine answer so much later."""
    return SLOW % json.dumps(milliseconds)


def wait_until_still(page):
    """Until all that has changed is computed and drawn."""
    page.wait_for_function(
        """() => {
            const root = document.querySelector('.chargpt-playground').shadowRoot;
            return root !== null && !root.querySelector('.playground').hasAttribute('aria-busy');
        }"""
    )


def loss_of(page):
    return float(re.search(r"predicted: ([\d.]+) nats", page.locator(".loss").inner_text())[1])


def can_press(page, name):
    button = page.get_by_role("button", name=name, exact=True)
    return button.get_attribute("aria-disabled") == "false"


def editor(page):
    return page.get_by_role("textbox", name="the text that the model reads")


def type_text(page, text):
    editor(page).fill(text)
    wait_until_still(page)


def put_caret(page, place):
    editor(page).focus()
    editor(page).evaluate("(field, place) => field.setSelectionRange(place, place)", place)
    page.keyboard.press("Shift")  # a key that moves nothing
    wait_until_still(page)


def expected_loss(text, off=()):
    model, tokenizer, _ = load_pretrained("playhouse")
    packed = as_packed(model)
    ids = tokenizer.encode(text)
    with torch.no_grad(), ablate_heads(packed, list(off)):
        return F.cross_entropy(packed(ids[None, :-1])[0][0], ids[1:]).item()


def test_it_says_what_the_text_costs(show):
    page = show(floor=0.303)
    assert loss_of(page) == pytest.approx(expected_loss(SCENE), abs=0.001)
    assert f"{len(SCENE) - 1} characters predicted" in page.locator(".loss").inner_text()
    assert "the floor, a mean over much text, is 0.303" in page.locator(".loss").inner_text()
    type_text(page, SCENE + "Meg: Not I!\n")
    assert loss_of(page) == pytest.approx(expected_loss(SCENE + "Meg: Not I!\n"), abs=0.001)


def test_the_colours_begin_at_the_floor_and_are_stronger_for_greater_surprise(show):
    text = SCENE.replace("goose.\n", "gxose.\n", 1)
    page = show(text=text, floor=0.303)
    grounds = page.eval_on_selector_all(
        ".mirror > span", "(spans) => spans.map((span) => getComputedStyle(span).backgroundColor)"
    )
    alphas = [
        0.0 if ground.endswith(", 0)") else float(re.findall(r"[\d.]+", ground)[3])
        for ground in grounds
    ]
    model, tokenizer, _ = load_pretrained("playhouse")
    ids = tokenizer.encode(text)
    with torch.no_grad():
        costs = F.cross_entropy(
            as_packed(model)(ids[None, :-1])[0][0], ids[1:], reduction="none"
        ).tolist()
    assert alphas[0] == 0
    for alpha, cost in zip(alphas[1:], costs):
        want = 0.8 * math.sqrt(min(1, max(0, cost - 0.303) / 6))
        # The colour's alpha has 8 bits, and its square root is steep at the floor.
        assert alpha == pytest.approx(want, abs=0.02)
    assert max(alphas) == alphas[text.index("gxose") + 1]


def test_the_bars_are_the_probabilities_at_the_caret(show):
    page = show()
    place = SCENE.index("owl")
    put_caret(page, place)
    model, tokenizer, _ = load_pretrained("playhouse")
    with torch.no_grad():
        p = as_packed(model)(tokenizer.encode(SCENE[:place])[None])[0][0, -1].softmax(-1)
    best = p.argmax().item()
    rows = page.locator(".bars tbody tr")
    assert tokenizer.alphabet[best] in rows.first.inner_text()
    shown = [
        float(text.split()[0].lstrip("<")) / 100
        for text in page.locator(".bars td").all_inner_texts()
        if "<" not in text
    ]
    assert shown == pytest.approx(p.topk(len(shown)).values.tolist(), abs=0.006)
    actual = p[tokenizer.stoi["o"]].item()
    assert page.locator(".bars tr.actual").inner_text().startswith("“o” stands here")
    said = re.search(
        r"“o” had ([\d.]+) %, and cost ([\d.]+) nats",
        page.locator(".expected .readout").inner_text(),
    )
    assert float(said[1]) / 100 == pytest.approx(actual, abs=0.006)
    assert float(said[2]) == pytest.approx(-math.log(actual), abs=0.006)
    # The first character is not predicted.
    put_caret(page, 0)
    assert "Nothing stands before the first character" in page.locator(".bars").inner_text()


def test_the_sliders_change_what_can_be_drawn(show):
    page = show()
    put_caret(page, SCENE.index("owl"))
    page.get_by_label("top-k").fill("3")
    wait_until_still(page)
    assert (
        "With the settings for writing, 3 characters of 54 can be drawn"
        in page.locator(".expected .readout").inner_text()
    )
    drawn = page.locator(".bars td:nth-child(3)").all_inner_texts()
    assert sum(text != "0 %" for text in drawn) == 3
    page.get_by_label("temperature").fill("0")
    wait_until_still(page)
    assert page.locator(".bars td:nth-child(3)").all_inner_texts()[0] == "100 %"


def test_a_switched_off_head_is_an_ablated_one(show):
    page = show()
    page.get_by_role("switch", name="layer 2, head 1", exact=True).click()
    wait_until_still(page)
    want = expected_loss(SCENE, [(2, 1)])
    assert loss_of(page) == pytest.approx(want, abs=0.001)
    change = want - expected_loss(SCENE)
    said = re.search(
        r"([\d.]+) with everything on \(([+−]?[\d.]+)\)", page.locator(".loss").inner_text()
    )
    assert float(said[1]) == pytest.approx(expected_loss(SCENE), abs=0.001)
    assert float(said[2].replace("−", "-")) == pytest.approx(change, abs=0.002)
    # The same from the keyboard, and everything on again.
    page.get_by_role("switch", name="layer 0, head 3", exact=True).focus()
    page.keyboard.press("Space")
    wait_until_still(page)
    assert loss_of(page) == pytest.approx(expected_loss(SCENE, [(2, 1), (0, 3)]), abs=0.001)
    page.get_by_role("button", name="All on").click()
    wait_until_still(page)
    assert loss_of(page) == pytest.approx(expected_loss(SCENE), abs=0.001)


def test_measuring_each_part(show):
    text = SCENE[:50]
    page = show(text=text)
    page.get_by_role("button", name="Measure each").click()
    switch = page.get_by_role("switch")
    page.wait_for_function(
        """() => [...document.querySelector('.chargpt-playground').shadowRoot.querySelectorAll('[role=switch]')]
            .every((button) => button.textContent !== 'on')"""
    )
    assert switch.count() == 4 * (6 + 2)
    for layer, head in ((0, 0), (1, 4), (3, 5)):
        measured = page.get_by_role("switch", name=f"layer {layer}, head {head}: ")
        shown = measured.inner_text()
        assert f"{shown} nats without it" in measured.get_attribute("aria-label")
        worth = expected_loss(text, [(layer, head)]) - expected_loss(text)
        assert float(shown.replace("−", "-")) == pytest.approx(worth, abs=0.006)
    type_text(page, text + "T")
    assert switch.first.inner_text() == "on", "what was measured belongs to another text"


def write(page, name="Write"):
    page.get_by_role("button", name=name, exact=True).click()
    page.get_by_role("button", name="Write", exact=True).wait_for()
    wait_until_still(page)
    return editor(page).input_value()


def test_a_seed_writes_the_same_text_twice_and_another_one_another(show):
    page = show()
    first = write(page)
    assert first.startswith(SCENE) and len(first) == len(SCENE) + 400
    assert "400 characters written" in page.locator(".writer").inner_text()
    page.get_by_role("button", name="Back to the prompt").click()
    assert editor(page).input_value() == SCENE
    assert write(page) == first
    page.get_by_role("button", name="Back to the prompt").click()
    page.get_by_label("seed").fill("2024")
    assert write(page) != first
    # What it wrote costs what it says.
    ids = CharTokenizer(load_pretrained("playhouse")[1].alphabet).encode(editor(page).input_value())
    packed = as_packed(load_pretrained("playhouse")[0])
    costs = [F.cross_entropy(logits_for(packed, ids, t), ids[t]).item() for t in range(1, len(ids))]
    assert loss_of(page) == pytest.approx(sum(costs) / len(costs), abs=0.001)


def test_one_character_and_a_step_back(show):
    page = show()
    once = write(page, "One character")
    twice = write(page, "One character")
    assert len(once) == len(SCENE) + 1 and len(twice) == len(SCENE) + 2
    page.get_by_role("button", name="Step back").click()
    assert editor(page).input_value() == once
    assert write(page, "One character") == twice
    page.get_by_role("button", name="Step back").click()
    page.get_by_role("button", name="Step back").click()
    assert editor(page).input_value() == SCENE
    assert not can_press(page, "Step back")


def test_who_types_while_it_writes_is_not_overwritten(show):
    page = show(init=slowly(draw=10))
    page.get_by_role("button", name="Write", exact=True).click()
    page.wait_for_function(
        "(n) => document.querySelector('.chargpt-playground').shadowRoot.querySelector('textarea').value.length > n + 20",
        arg=len(SCENE),
    )
    type_text(page, "A barn.")
    assert editor(page).input_value() == "A barn."
    assert can_press(page, "Write")
    assert loss_of(page) == pytest.approx(expected_loss("A barn."), abs=0.001)


def test_escape_stops_the_writing(show):
    page = show(init=slowly(draw=50))
    page.get_by_role("button", name="Write", exact=True).click()
    page.get_by_role("button", name="Stop", exact=True).focus()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Write", exact=True).wait_for()
    wait_until_still(page)
    assert len(editor(page).input_value()) < len(SCENE) + 400


def test_an_empty_text(show):
    page = show()
    type_text(page, "")
    assert page.locator(".loss").inner_text() == "The text is empty."
    assert len(write(page, "One character")) == 2  # a line end to begin with, and what follows it
    page.get_by_role("button", name="Back to the prompt").click()
    wait_until_still(page)
    assert editor(page).input_value() == ""
    type_text(page, "A")
    assert "Nothing stands before the first character" in page.locator(".loss").inner_text()


def test_characters_outside_the_alphabet_are_named(show):
    page = show()
    type_text(page, "A bärn: </script> 🎭 Toby.")
    warning = page.locator(".warning:not(:empty)")
    assert "does not know “ä”, “<”, “/”, “>”, “🎭”" in warning.inner_text()
    assert "only the 3 characters before “ä”" in warning.inner_text()
    assert editor(page).input_value() == "A bärn: </script> 🎭 Toby."
    assert page.locator(".mirror .unknown").inner_text() == "ä"
    assert loss_of(page) == pytest.approx(expected_loss("A b"), abs=0.001)
    assert not can_press(page, "Write")
    page.get_by_role("button", name="Take them out").click()
    wait_until_still(page)
    assert editor(page).input_value() == "A brn: script  Toby."
    assert page.locator(".warning").all_text_contents() == ["", ""]
    assert loss_of(page) == pytest.approx(expected_loss("A brn: script  Toby."), abs=0.001)


def test_ten_thousand_characters(show):
    text = load_corpus("playhouse").val[:10_000]
    page = show(init=slowly())
    page.set_default_timeout(120_000)
    type_text(page, text)
    assert "9,999 characters predicted" in page.locator(".loss").inner_text()
    model, tokenizer, _ = load_pretrained("playhouse")
    ids = tokenizer.encode(text)
    packed = as_packed(model)
    # Each window at once.
    total = 0.0
    for start in range(0, len(ids), 96):
        first = 1 if start == 0 else start + 97
        window = ids[start : start + 193]
        if first < len(ids):
            with torch.no_grad():
                costs = F.cross_entropy(
                    packed(window[None, :-1])[0][0], window[1:], reduction="none"
                )
            total += costs[first - start - 1 :].sum().item()
    assert loss_of(page) == pytest.approx(total / (len(ids) - 1), abs=0.001)
    # A change at the end asks for the last window only.
    page.evaluate("window.asked = {}")
    editor(page).press("Control+End")
    page.keyboard.type("M")
    wait_until_still(page)
    assert "10,000 characters predicted" in page.locator(".loss").inner_text()
    assert page.evaluate("asked.score") <= 2


def test_the_viewer_follows_the_caret(show):
    page = show()
    page.locator(".looking .text").wait_for()
    put_caret(page, SCENE.index("owl"))
    wait_until_still(page)
    readout = page.locator(".looking .readout").inner_text()
    assert f"position {SCENE.index('owl') - 1}" in readout
    page.locator(".heads td").nth(9).click()  # of 6 heads and their mean
    assert page.locator(".looking .readout").inner_text().startswith("layer 1, head 2:")
    # Another text: the head stays chosen.
    type_text(page, SCENE + "Meg")
    wait_until_still(page)
    assert page.locator(".looking .readout").inner_text().startswith("layer 1, head 2:")


@pytest.mark.parametrize("kind", ["gpt", "modern"])
def test_a_model_of_tokens(show, kind):
    corpus = load_corpus("playhouse").train[:30000]
    tokenizer = BPETokenizer.train(corpus, 300, ["<|end|>"])
    torch.manual_seed(0)
    if kind == "gpt":
        model = GPT(GPTConfig(300, **SMALL)).eval()
    else:
        model = ModernGPT(ModernConfig(300, n_kv_head=2, n_gram=2, n_gram_rows=50, **SMALL)).eval()
    text = "Enter Meg with </script> and 🎭.<|end|>"
    page = show(model, tokenizer, text)
    ids = tokenizer.encode(text)
    with torch.no_grad():
        want = F.cross_entropy(as_packed(model)(ids[None, :-1])[0][0], ids[1:]).item()
    assert f"{len(ids) - 1} tokens predicted: {want:.2f}" in page.locator(".loss").inner_text()
    assert "".join(page.locator(".mirror > span:not(.next)").all_text_contents()) == text
    first = write(page)
    assert first.startswith(text)
    page.get_by_role("button", name="Back to the prompt").click()
    assert editor(page).input_value() == text
    assert write(page) == first


def test_a_saved_page_may_use_a_worker_and_webassembly(watched, tmp_path):
    model, tokenizer, _ = load_pretrained("playhouse")
    path = tmp_path / "saved.html"
    playground(model, tokenizer, SCENE).save(path)
    page = watched(lambda address: address in (path.as_uri(),) or address.startswith("blob:"))
    workers = []
    page.on("worker", lambda worker: workers.append(worker))
    page.goto(path.as_uri())
    wait_until_still(page)
    assert loss_of(page) == pytest.approx(expected_loss(SCENE), abs=0.001)
    assert len(workers) == 1
    assert workers[0].evaluate("new WebAssembly.Memory({ initial: 1 }).buffer.byteLength") == 65536


def test_without_workers_it_computes_in_the_page(show):
    page = show(
        init="window.Worker = class { constructor() { throw new Error('no workers here'); } };"
    )
    assert loss_of(page) == pytest.approx(expected_loss(SCENE), abs=0.001)
    late = """window.Worker = class {
        postMessage() { setTimeout(() => this.onerror?.(new Event('error', { cancelable: true }))); }
        terminate() {}
    };"""
    page = show(init=late)
    assert loss_of(page) == pytest.approx(expected_loss(SCENE), abs=0.001)


def test_two_pages_in_one_notebook(visit):
    model, tokenizer, _ = load_pretrained("playhouse")
    pages = [playground(model, tokenizer, text).html for text in ("A barn.", "A bog.")]
    page = visit("".join(pages))
    page.get_by_text("6 characters predicted").wait_for()
    page.get_by_text("5 characters predicted").wait_for()


def test_where_scripts_are_cut_out_a_picture_and_a_sentence_stand(visit):
    model, tokenizer, _ = load_pretrained("playhouse")
    page = visit(playground(model, tokenizer, SCENE).html, java_script_enabled=False)
    assert page.locator("img").get_attribute("alt").startswith("The text; ")
    assert f"{expected_loss(SCENE):.2f} nats per character" in page.locator("p").inner_text()


def test_who_asked_for_little_motion_sees_no_bar_move(show):
    page = show(reduced_motion="reduce")
    moves = page.locator(".bar").first.evaluate("(bar) => getComputedStyle(bar).transitionDuration")
    assert moves == "0s"
    assert len(write(page)) == len(SCENE) + 400


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_page(show, width):
    page = show(width=width)
    write(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # The letters and their grounds lie on each other, or the colours would be those of other letters.
    heights = page.evaluate(
        """() => {
            const root = document.querySelector('.chargpt-playground').shadowRoot;
            return ['textarea', '.mirror'].map((name) => {
                const part = root.querySelector(name);
                part.style.cssText = 'align-self: start; min-height: 0; height: 0';
                return part.scrollHeight;
            });
        }"""
    )
    assert heights[0] > 300
    assert abs(heights[0] - heights[1]) <= 1


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_serious(show, dark, tmp_path):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )
    page = show(dark=dark, floor=0.303)
    page.get_by_role("switch", name="layer 2, head 1", exact=True).click()
    page.get_by_label("temperature").fill("0.5")
    put_caret(page, 20)
    write(page)
    page.locator(".looking .text").wait_for()
    found = axe.Axe().run(page).response["violations"]
    serious = [
        (one["id"], [node["html"] for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


# ---------------------------------------------------------------- who is quicker than the model


def test_a_switch_and_then_a_character_at_once(show):
    page = show(init=slowly(score=300))
    page.get_by_role("switch", name="layer 2, head 1", exact=True).click()
    text = write(page, "One character")
    assert f"{len(text) - 1} characters predicted" in page.locator(".loss").inner_text()
    assert loss_of(page) == pytest.approx(expected_loss(text, [(2, 1)]), abs=0.001)


def test_writing_ends_a_measurement(show):
    page = show(init=slowly(score=60))
    page.get_by_role("button", name="Measure each").click()
    page.get_by_role("button", name="Stop (").wait_for()
    write(page, "One character")
    page.wait_for_timeout(500)
    assert set(page.get_by_role("switch").all_inner_texts()) == {"on"}
    page.get_by_role("button", name="Measure each").click()
    page.get_by_role("button", name="Stop (").click()
    page.wait_for_timeout(500)
    assert set(page.get_by_role("switch").all_inner_texts()) == {"on"}


def test_a_double_click_writes_on(show):
    page = show()
    page.get_by_role("button", name="Write", exact=True).dblclick()
    page.get_by_text("400 characters written").wait_for()


def test_the_heads_of_a_layer_without_attention_are_not_measured(show):
    page = show(text=SCENE[:40], init=slowly(score=30))
    page.get_by_role("switch", name="layer 1, all heads", exact=True).click()
    wait_until_still(page)
    assert page.locator(".switches .without").all_inner_texts() == ["–"] * 6
    page.get_by_role("button", name="Measure each").click()
    page.get_by_role("button", name="of 25)").wait_for()
    page.get_by_role("button", name="Measure each").wait_for()
    assert page.locator(".switches .without").all_inner_texts() == ["–"] * 6


def test_who_scrolls_up_while_it_writes_stays_there(show):
    page = show(text=SCENE * 8, init=slowly(draw=10))
    page.get_by_role("button", name="Write", exact=True).click()
    page.get_by_role("button", name="Stop", exact=True).wait_for()
    page.locator(".editor").evaluate("(box) => { box.scrollTop = 50; }")
    page.wait_for_timeout(400)
    assert page.locator(".editor").evaluate("(box) => box.scrollTop") == 50
    page.keyboard.press("Escape")


def test_a_switch_while_it_writes(show):
    page = show(text=SCENE[:40], init=slowly(draw=5))
    page.get_by_role("button", name="Write", exact=True).click()
    page.get_by_role("button", name="Stop", exact=True).wait_for()
    page.get_by_role("switch", name="layer 2, head 1", exact=True).click()
    page.get_by_label("temperature").fill("2")
    page.get_by_label("temperature").fill("1.5")
    page.get_by_role("switch", name="layer 0, head 2", exact=True).click()
    page.wait_for_timeout(300)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Write", exact=True).wait_for()
    wait_until_still(page)
    text = editor(page).input_value()[:150]
    type_text(page, text)
    assert loss_of(page) == pytest.approx(expected_loss(text, [(2, 1), (0, 2)]), abs=0.001)
    assert page.locator(".warning").all_text_contents() == ["", ""]


def test_writing_before_the_text_is_scored(show):
    page = show(init=slowly(score=100))
    editor(page).fill(load_corpus("playhouse").val[:1000])
    page.get_by_role("button", name="One character", exact=True).click()
    page.get_by_text("1,000 characters predicted").wait_for()


def test_the_readout_keeps_the_cost_when_a_head_is_switched(show):
    page = show()
    put_caret(page, SCENE.index("owl"))
    page.get_by_role("switch", name="layer 2, head 1", exact=True).click()
    wait_until_still(page)
    assert "“o” had" in page.locator(".expected .readout").inner_text()


def test_the_viewer_shows_the_last_caret_and_not_the_last_answer(show):
    page = show(text=load_corpus("playhouse").val[:400], init=slowly(weights=400))
    editor(page).focus()
    for place in (380, 21):
        editor(page).evaluate("(field, place) => field.setSelectionRange(place, place)", place)
        page.keyboard.press("Shift")
        page.wait_for_timeout(350)
    wait_until_still(page)
    assert "position 20)" in page.locator(".looking .readout").inner_text()
    assert "the window of characters 0 to 191" in page.locator(".looking").inner_text()


def test_a_model_that_cannot_be_opened_says_so(visit):
    model, tokenizer, _ = load_pretrained("playhouse")
    html = playground(model, tokenizer, SCENE).html
    broken = re.sub(r'"weights": "[^"]{1000}', '"weights": "', html)
    page = visit(broken)
    page.get_by_text("The page cannot compute: the model could not be opened").wait_for()
    page.get_by_role("button", name="Measure each").click()
    wait_until_still(page)
    page.get_by_role("button", name="Measure each").wait_for()


def test_focus_stays_where_a_button_cannot_be_pressed_any_more(show):
    page = show()
    page.get_by_role("switch", name="layer 2, head 1", exact=True).click()
    page.get_by_role("button", name="All on").click()
    wait_until_still(page)
    focused = page.evaluate("document.activeElement.shadowRoot.activeElement.textContent")
    assert focused == "All on"
    assert not can_press(page, "All on")


def test_the_legend_of_tokens_speaks_of_characters(show):
    tokenizer = BPETokenizer.train(load_corpus("playhouse").train[:30000], 300)
    torch.manual_seed(0)
    page = show(GPT(GPTConfig(300, **SMALL)).eval(), tokenizer, SCENE, floor=0.3)
    assert "the floor, 0.30 for each character" in page.locator(".reading .legend").inner_text()


def test_carriage_returns(show):
    torch.manual_seed(0)
    page = show(GPT(GPTConfig(256, **SMALL)).eval(), BPETokenizer([]), "a\r\nb\rc")
    assert editor(page).input_value() == "a\nb\nc"
    assert "4 tokens predicted" in page.locator(".loss").inner_text()


def test_an_unknown_character_at_the_beginning(show):
    page = show()
    type_text(page, "ä barn")
    assert "Nothing stands before the first character" in page.locator(".loss").inner_text()
    assert page.locator(".mirror .unknown").inner_text() == "ä"


@pytest.mark.parametrize("seed", range(12))
def test_models_of_all_kinds(live, seed):
    """Options drawn at random: logits over three windows and a half."""
    options = random.Random(seed)
    n_head = options.choice([1, 2, 3, 4])
    sizes = {
        "vocab_size": options.choice([1, 2, 13, 60]),
        "block_size": options.choice([1, 2, 3, 8, 17]),
        "n_layer": options.choice([1, 2, 3]),
        "n_head": n_head,
        "n_embd": n_head * options.choice([2, 4, 6, 10]),
    }
    torch.manual_seed(seed)
    if seed % 2 == 0:
        config = GPTConfig(
            **sizes,
            bias=options.random() < 0.5,
            qkv_bias=options.random() < 0.5,
            activation=options.choice(["relu", "gelu", "gelu_tanh", "relu2"]),
            tied=options.random() < 0.5,
        )
        model = GPT(config)
    else:
        config = ModernConfig(
            **sizes,
            n_kv_head=options.choice([n for n in range(n_head + 1) if n == 0 or n_head % n == 0]),
            norm=options.choice(["rms", "layer"]),
            positions=options.choice(["rope", "learned"]),
            activation=options.choice(["swiglu", "relu", "gelu", "relu2"]),
            qk_norm=options.random() < 0.5,
            softcap=options.choice([0.0, 3.0]),
            n_gram=options.choice([n for n in (0, 2, 3) if n <= sizes["block_size"]]),
            n_gram_rows=options.choice([1, 7, 1000]),
            tied=options.random() < 0.5,
        )
        model = ModernGPT(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3).add_(0.1 * torch.randn_like(weight))
    page = live(model.eval(), wasm=options.random() < 0.7)
    packed = as_packed(model)
    ids = random_ids(model, 3 * config.block_size + config.block_size // 2 + 2)
    got = page.evaluate(
        """([ids, off]) => ids.slice(1).map((_, t) => Array.from(engine.logitsFor(ids, t + 1, off)))""",
        [ids.tolist(), ALL_ON],
    )
    for t, row in enumerate(got, 1):
        want = logits_for(packed, ids, t)
        torch.testing.assert_close(torch.tensor(row, dtype=want.dtype), want, atol=1e-3, rtol=0)
