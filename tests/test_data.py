"""Lesson 00: ids and characters, windows, pictures, which device, and every way a corpus can be wrong."""

import base64
import json
import os
import random
from math import fsum
from pathlib import Path

import pytest
import torch
from matplotlib import pyplot as plt

from chargpt_lib.data import TOKENIZERS, CharTokenizer, get_batch, load_corpus, load_tokenizer
from chargpt_lib.devices import pick_device, pick_device_and_reason, pick_scale
from chargpt_lib.playhouse import KINDS, Span, excess_by_kind
from chargpt_lib.plots import COLOURS, plot_excess, show


@pytest.mark.parametrize("seed", range(20))
def test_a_text_comes_back_from_its_ids_and_from_the_file(seed, tmp_path):
    rng = random.Random(seed)
    letters = [
        chr(
            rng.choice((10, 13, 34, 92, rng.randrange(32, 0xD800), rng.randrange(0x1F300, 0x1F600)))
        )
        for _ in range(9)
    ]
    text = "".join(rng.choice(letters) for _ in range(rng.randrange(1, 200)))
    tokenizer = CharTokenizer.from_text(text)
    ids, places = tokenizer.encode(text), sorted(set(text))
    assert ids.dtype == torch.int64 and ids.tolist() == [places.index(char) for char in text]
    assert tokenizer.decode(ids) == tokenizer.decode(
        ids.tolist()
    ) == text and tokenizer.vocab_size == len(places)
    tokenizer.save(tmp_path / "tokenizer.json")
    for load in (CharTokenizer.load, load_tokenizer):
        assert load(str(tmp_path / "tokenizer.json")).encode(text).tolist() == ids.tolist()
    assert json.loads((tmp_path / "tokenizer.json").read_bytes())["alphabet"] == "".join(places)


def test_nothing_is_encoded_as_nothing():
    tokenizer = CharTokenizer("ab")
    assert tokenizer.encode("").shape == (0,) and tokenizer.encode("").dtype == torch.int64
    assert tokenizer.decode([]) == tokenizer.decode(torch.tensor([], dtype=torch.int64)) == ""


def test_an_unknown_character_is_named_with_its_place_and_the_alphabet():
    with pytest.raises(ValueError) as error:
        CharTokenizer.from_text("cab").encode("abcab?c?d")
    assert all(
        said in str(error.value)
        for said in ("'?'", "position 5", "3 symbols", "'abc'", "remove it")
    )


@pytest.mark.parametrize(
    "char, meant",
    [
        ("’", "'"),
        ("“", '"'),
        ("—", "-"),
        ("…", "."),
        ("é", "e"),
        ("Ü", "U"),
        ("ﬁ", "f"),
        ("\t", " "),
        ("\u00a0", " "),
        ("\r", " "),
        ("z", "Z"),
        ("É", "e"),
    ],
)
def test_what_could_be_meant_by_an_unknown_character(char, meant):
    with pytest.raises(ValueError, match=f"did you mean {meant!r}"):
        CharTokenizer(" '\"-.efUZ").encode(f"e{char}")


@pytest.mark.parametrize("ids, bad", [([3], 3), ([0, -1], -1), (torch.tensor([2, 99, 3]), 99)])
def test_an_id_that_no_character_has(ids, bad):
    with pytest.raises(ValueError, match=f"id {bad} is out of range: .* 0 to 2$"):
        CharTokenizer("abc").decode(ids)


@pytest.mark.parametrize("make", [CharTokenizer, CharTokenizer.from_text])
def test_an_empty_text_has_no_alphabet(make):
    with pytest.raises(ValueError, match="empty"):
        make("")


@pytest.mark.parametrize("shape", [(1, 3), ()])
def test_a_batch_is_not_a_text(shape):
    with pytest.raises(ValueError, match=r"\(T,\)|shape"):
        CharTokenizer("abc").decode(torch.zeros(shape, dtype=torch.int64))


# ---------------------------------------------------------------- any tokenizer


class Halves:
    """A tokenizer of another kind: two ids for a character."""

    vocab_size = 256

    def encode(self, text):
        return torch.tensor([part for char in text for part in divmod(ord(char), 256)])

    def decode(self, ids):
        ids = torch.as_tensor(ids).tolist()
        return "".join(chr(256 * high + low) for high, low in zip(ids[::2], ids[1::2]))

    def to_dict(self):
        return {"type": "halves"}

    @classmethod
    def from_dict(cls, saved):
        return cls()


def test_the_loader_finds_the_class_by_the_type(tmp_path, monkeypatch):
    (tmp_path / "tokenizer.json").write_text(json.dumps(Halves().to_dict()))
    with pytest.raises(ValueError, match=r"json: unknown .* type 'halves' \(known: char, bpe\)"):
        load_tokenizer(tmp_path)
    monkeypatch.setitem(TOKENIZERS, "halves", f"{__name__}:Halves")
    assert load_tokenizer(tmp_path).decode(Halves().encode("größer")) == "größer"


@pytest.mark.parametrize(
    "name, content",
    [
        ("tokenizer.json", {"type": "char", "alphabet": "\nab"}),
        ("alphabet.json", "\nab"),  # in the folders of earlier checkpoints
        ("alphabet.json", {"alphabet": "\nab"}),  # by the first `save`
    ],
)
def test_a_folder_of_any_age_has_its_tokenizer(name, content, tmp_path):
    (tmp_path / name).write_text(json.dumps(content))
    for path in (tmp_path, str(tmp_path), tmp_path / name):
        assert load_tokenizer(path).to_dict() == {"type": "char", "alphabet": "\nab"}


def test_the_new_file_counts_where_both_are_there(tmp_path):
    CharTokenizer("xyz").save(tmp_path / "tokenizer.json")
    (tmp_path / "alphabet.json").write_text('"abc"')
    assert load_tokenizer(tmp_path).decode([0]) == "x"
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path / "nowhere" / "tokenizer.json")


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "3", "null", '"text', "[" * 100_000, "{}", '""', '"ba"', '"aa"'),
        *('{"type": "char"}', '{"type": ["char"]}', '{"type": null, "alphabet": "ab"}'),
        *('{"type": "os:system", "alphabet": "ab"}', '{"alphabet": ["a", "b"]}'),
    ],
)
def test_what_is_no_tokenizer_is_named(content, tmp_path):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError) as error:
        load_tokenizer(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'tokenizer.json'}: ")


# ---------------------------------------------------------------- windows


def test_y_is_x_moved_by_one():
    ids = torch.randperm(50)
    follower = dict(zip(ids.tolist(), ids.tolist()[1:]))
    x, y = get_batch(ids, 7, 200)
    assert x.shape == y.shape == (200, 7) and x.dtype == y.dtype == torch.int64
    assert [follower[i] for i in x.flatten().tolist()] == y.flatten().tolist()
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert {part.device.type for part in get_batch(ids, 7, 2, device="meta")} == {"meta"}


@pytest.mark.parametrize("N, block_size", [(12, 4), (9, 1), (5, 4)])
def test_every_window_is_as_likely_as_another(N, block_size):
    x, y = get_batch(torch.arange(N), block_size, 8000)
    starts, windows = torch.bincount(x[:, 0]), N - block_size
    assert len(starts) == windows and y.max() == N - 1
    assert (starts - 8000 / windows).abs().max() <= 5 * (8000 / windows) ** 0.5


def test_a_generator_settles_the_windows_and_leaves_the_global_generator_alone():
    ids, state = torch.arange(1000), torch.get_rng_state()
    a, b, c = (get_batch(ids, 4, 16, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("N, longest", [(0, 0), (1, 0), (5, 4), (8, 7)])
def test_a_text_shorter_than_a_window_and_its_target(N, longest):
    with pytest.raises(ValueError, match=rf"has {N} ids.* \+ 1 = 9: .*block_size <= {longest}$"):
        get_batch(torch.arange(N), 8, 2)


# ---------------------------------------------------------------- pictures


def test_the_excess_of_each_kind_counted_character_by_character():
    spans = [
        Span(0, 2, "cast", 0.5),
        Span(2, 3, "word", 2.0),
        Span(3, 6, "cast", 0.25),
        Span(6, 9, "word", 1.0),
    ]
    excess = excess_by_kind([None, 1, 1, 2, 3, 4, 1, 1, 2], spans)
    assert excess == dict.fromkeys(KINDS, 0.0) | {
        "cast": (9 - 0.25) / 7,
        "word": (1 - 2 + 4 - 1) / 7,
    }


def test_the_bars_are_as_long_as_the_excess():
    excesses = {
        name: {kind: (i + 1) * share for i, kind in enumerate(KINDS)}
        for name, share in (("a", 0.1), ("b", 0.02))
    }
    ax = plot_excess(excesses, 0.3).axes[0]
    assert len(COLOURS) == len(set(COLOURS.values())) == len(ax.containers) - 1 == len(KINDS)
    for row, name in enumerate(excesses):
        end = 0.0
        for bars, width in zip(ax.containers, [0.3, *excesses[name].values()]):
            assert (bars[row].get_x(), bars[row].get_width()) == pytest.approx((end, width))
            end += width
        assert ax.texts[row].get_text().strip() == f"{end:.2f}"
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "a",
        "b",
    ] and ax.yaxis_inverted()


def test_the_number_beside_the_bars_is_the_loss_even_where_a_kind_is_cheaper_than_its_price():
    ax = plot_excess({"lucky": dict.fromkeys(KINDS, 0.1) | {"word": -0.25}}, 0.3).axes[0]
    assert ax.texts[0].get_text().strip() == f"{0.3 + 6 * 0.1 - 0.25:.2f}"


def test_a_shown_picture_has_words_and_is_closed(monkeypatch):
    shown, (fig, _) = [], plt.subplots()
    monkeypatch.setattr("IPython.display.display", lambda *args, **how: shown.append((args, how)))
    show(fig, "nothing at all")
    [([picture], how)] = shown
    assert base64.b64decode(picture["image/png"]).startswith(b"\x89PNG") and how["raw"]
    assert how["metadata"]["image/png"]["alt"] == "nothing at all" and not plt.fignum_exists(
        fig.number
    )


# ---------------------------------------------------------------- devices


@pytest.mark.parametrize(
    "wanted, card, apple, device",
    [
        (None, (6, 0), False, "cpu"),
        (None, (7, 4), False, "cpu"),
        (None, (7, 5), True, "cuda"),
        (None, (9, 0), False, "cuda"),
        (None, None, True, "mps"),
        (None, None, False, "cpu"),
        ("cpu", (9, 0), True, "cpu"),
        ("mps", (9, 0), False, "mps"),
        ("cuda", (6, 0), False, "cuda"),
    ],
)
def test_the_device_is_one_that_works(wanted, card, apple, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: card is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: card)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old Faithful")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)
    monkeypatch.setenv("CHARGPT_DEVICE", wanted or "")
    monkeypatch.setattr(
        torch, "zeros", lambda size, device: torch.ones(size)
    )  # here, whatever the device is
    chosen, why = pick_device_and_reason()
    assert chosen == pick_device() == torch.device(device) and pick_scale(chosen) == (
        1 if device == "cpu" else 8
    )
    assert ("CHARGPT_DEVICE" in why) == bool(wanted) and ("Old Faithful" in why) == bool(
        card and not wanted
    )
    refused = card and not wanted and device == "cpu"
    assert all(
        (said in why) == bool(refused)
        for said in (f"capability {card and card[0]}.{card and card[1]}", "7.5 or more")
    )


@pytest.mark.parametrize("name", ["gpu", "CPU", "0", "mps:7", "cuda:99"])
def test_a_device_that_is_none_is_named(name, monkeypatch):
    monkeypatch.setenv("CHARGPT_DEVICE", name)
    with pytest.raises(
        ValueError,
        match=f"CHARGPT_DEVICE is '{name}', and nothing can be computed on it here .*: give cpu",
    ):
        pick_device_and_reason()


# ---------------------------------------------------------------- corpora


def test_playhouse_has_the_sizes_of_shakespeare_and_a_floor():
    name, train, val, floor, spans = load_corpus()
    assert (
        name == "playhouse"
        and 0 <= len(train) - 1_003_854 < 2_000
        and 0 <= len(val) - 111_540 < 2_000
    )
    assert floor == pytest.approx(fsum(nats for _, _, _, nats in spans) / len(val), rel=1e-12)
    assert [start for start, *_ in spans] + [len(val)] == [0] + [end for _, end, *_ in spans]
    assert not {scene for scene in val.split("\n\n") if scene} & set(train.split("\n\n")), (
        "the same scene in both"
    )


@pytest.mark.skipif(
    not os.environ.get("CHARGPT_DATA"), reason="CHARGPT_DATA does not say where the books are"
)
@pytest.mark.parametrize(
    "name, train, val, symbols",
    [("shakespeare", 1_003_854, 111_540, 65), ("oz", 165_020, 41_255, 74)],
)
def test_the_real_books(name, train, val, symbols, monkeypatch):
    corpus = load_corpus(name)
    assert (corpus.name, len(corpus.train), len(corpus.val)) == (name, train, val)
    assert CharTokenizer.from_text(corpus.train + corpus.val).vocab_size == symbols
    assert (
        "\r" not in corpus.train + corpus.val
        and corpus.val_entropy is None
        and not corpus.val_spans
    )


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_of_ones_own_with_any_line_ends(kind, tmp_path):
    path = tmp_path / "my play.txt"
    path.write_bytes("\ufeffone\r\ntwo\rthree\n\r\n\rfür 9 €\n".encode())
    text = "one\ntwo\nthree\n\n\nfür 9 €\n"
    assert load_corpus(kind(path)) == (str(path), text[:21], text[21:], None, ())


def test_a_file_that_is_not_utf8(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(("ü".encode() + b"a" * 30 + "caf\xe9".encode("latin-1")))
    with pytest.raises(ValueError) as error:
        load_corpus(path)
    assert all(said in str(error.value) for said in (str(path), "UTF-8", "byte 35 is 0xe9"))


@pytest.mark.parametrize("name", ["shakespear", "no/such.txt", "", "."])
def test_a_corpus_that_does_not_exist(name):
    with pytest.raises(FileNotFoundError, match="'playhouse', 'shakespeare', 'oz'") as error:
        load_corpus(name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("size", [0, 1, 19])
def test_a_text_too_short_to_cut(size, tmp_path):
    (tmp_path / "short.txt").write_text("x" * size)
    with pytest.raises(ValueError, match=f"short.txt has {size} characters"):
        load_corpus(tmp_path / "short.txt")


def test_a_folder_is_no_text(tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder: give .* the path of a text file"):
        load_corpus(tmp_path)


def test_a_long_alphabet_is_cut_in_the_message():
    tokenizer = CharTokenizer.from_text("".join(map(chr, range(200, 900))))
    with pytest.raises(ValueError) as caught:
        tokenizer.encode("a")
    assert "alphabet of 700 symbols" in str(caught.value) and len(str(caught.value)) < 300
