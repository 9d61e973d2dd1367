"""Byte-pair encoding against tiktoken, Hugging Face's tokenizers and a brute-force trainer; files that do not fit."""

import json
import math
import os
import random
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
import regex
import torch

from chargpt_lib.bpe import (
    CACHE_SIZE,
    PATTERNS,
    BPETokenizer,
    bits_of_text,
    byte_characters,
    learn_merges,
    load_gpt2_tokenizer,
    make_tokenizer,
)
from chargpt_lib.data import CharTokenizer, Corpus, load_tokenizer, tokenizer_from_dict
from chargpt_lib.playhouse import write

TEXT = write(min_chars=20_000).text
END = "<|endoftext|>"

# Texts that tokenizers are known to disagree about.
ODD_TEXTS = [
    "",
    "a",
    " ",
    "\n",
    "é",
    "🪿",
    "👩‍👩‍👧‍👦 and 🏳️‍🌈",
    "e\u0301 n\u0303 a\u0308\u0323",
    "中文字符，没有空格。",
    "Die Gänse überqueren die Straße – größtenteils.",
    "def f(x):\n    return x ** 2  # squared\n\n\tif True:\n\t\tpass\n",
    "tabs\tand  double  spaces   triple",
    "trailing spaces   ",
    "trailing line ends\n\n\n",
    " \n \n ",
    "We've they're I'M don'T 'tis ''",
    "1234567890 3.14 1,000,000 ½ ² ٣٤",
    "\u00a0\u2003\u200b\u2028\u3000",
    "a\r\nb\rc",
    "\x00\x07\x7f",
    "=" * 300,
    "नमस्ते दुनिया",
    "שלום עולם",
    END,
    f"{END}{END}",
    f"{END} between {END}",
    f"before{END}after",
    f"half <|endof and whole {END} and |endoftext|>",
]


def random_texts(count, seed):
    """Texts of all kinds of characters, close together, special tokens among them."""
    rng = random.Random(seed)
    pools = [
        "abc xyz",
        "\n\t  ",
        "'sré’",
        "中文鵞",
        "👩‍🪿e\u0301",
        "\u00a0\u200b\u2028",
        "0123½²",
        ".,!?-",
        [END],
    ]
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randrange(60)):
            if rng.random() < 0.1:
                # Any character but half of a pair of UTF-16.
                number = rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)])
                parts.append(chr(number))
            else:
                parts.append(rng.choice(rng.choice(pools)))
        texts.append("".join(parts))
    return texts


def as_tiktoken(tokenizer):
    """tiktoken's encoder with the same tokens."""
    import tiktoken

    # tiktoken merges by the id, which for these vocabularies is the order of the merges.
    ranks = {}
    for i, token in enumerate(tokenizer.tokens):
        if i not in tokenizer.special_tokens.values():
            ranks[token] = i
    return tiktoken.Encoding(
        "test",
        pat_str=PATTERNS[tokenizer.pattern],
        mergeable_ranks=ranks,
        special_tokens=tokenizer.special_tokens,
    )


def as_hugging_face(tokenizer, folder):
    """Hugging Face's encoder from the files of this one."""
    from tokenizers import AddedToken, ByteLevelBPETokenizer

    tokenizer.save_gpt2(folder)
    theirs = ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    theirs.add_special_tokens([AddedToken(text) for text in tokenizer.special_tokens])
    return theirs


@pytest.fixture(scope="module")
def own():
    """A vocabulary of our own, with a special token."""
    return BPETokenizer.train(TEXT + "中文 Gänse überall 🪿🪿 " * 20, 600, [END])


@pytest.fixture(scope="module")
def gpt2():
    data = os.environ.get("CHARGPT_DATA", "")
    if not Path(data, "gpt2", "encoder.json").is_file():
        pytest.skip("GPT-2's vocabulary is not here: set CHARGPT_DATA")
    return load_gpt2_tokenizer()


# ---------------------------------------------------------------- encoding


@pytest.mark.parametrize("name", ["own", "gpt2"])
def test_the_ids_are_those_of_tiktoken_and_hugging_face(name, request, tmp_path):
    tokenizer = request.getfixturevalue(name)
    tiktoken = as_tiktoken(tokenizer)
    hugging_face = as_hugging_face(tokenizer, tmp_path)
    for text in ODD_TEXTS + random_texts(1000, seed=1):
        ids = tokenizer.encode(text)
        assert ids.dtype == torch.int64
        assert ids.tolist() == tiktoken.encode(text, allowed_special="all"), text
        assert ids.tolist() == hugging_face.encode(text).ids, text
        assert tokenizer.decode(ids) == text


def test_gpt4s_pattern_is_tiktokens():
    tokenizer = BPETokenizer.train(TEXT, 500, [END], pattern="gpt4")
    tiktoken = as_tiktoken(tokenizer)
    for text in ODD_TEXTS + random_texts(1000, seed=2):
        assert tokenizer.encode(text).tolist() == tiktoken.encode(text, allowed_special="all"), text


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_words_of_a_text_are_the_whole_text(pattern):
    for text in ODD_TEXTS + random_texts(300, seed=3):
        assert "".join(regex.findall(PATTERNS[pattern], text)) == text


def test_known_ids_of_gpt2(gpt2):
    """As published: https://github.com/openai/gpt-2 encodes these so."""
    assert gpt2.vocab_size == 50257
    assert gpt2.encode("Hello world").tolist() == [15496, 995]
    assert gpt2.encode(END).tolist() == [50256]
    assert gpt2.decode([464, 3290]) == "The dog"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_text_in_pieces_has_the_ids_of_the_whole(pattern, monkeypatch):
    specials = [END, "<|a b|>", "<|a b|> c"]
    tokenizer = BPETokenizer.train(TEXT, 400, specials, pattern)
    # So small that a text is cut many times.
    monkeypatch.setattr("chargpt_lib.bpe.CHUNK_SIZE", 8)
    rng = random.Random(4)
    for text in ODD_TEXTS + random_texts(300, seed=5) + [TEXT[:3000], "<|a b|> c<|a b|> d " * 30]:
        whole = tokenizer.encode(text).tolist()
        assert list(tokenizer.encode_iterable([text])) == whole, text
        assert list(tokenizer.encode_iterable(iter(text))) == whole, text
        pieces = []
        place = 0
        while place < len(text):
            size = rng.randrange(1, 12)
            pieces.append(text[place : place + size])
            place += size
        assert list(tokenizer.encode_iterable(pieces)) == whole, text


def test_five_megabytes_in_little_memory(own):
    lines = [line + "\n" for line in TEXT.splitlines()]
    count = 5_000_000 // (len(TEXT) // len(lines))
    tokenizer = BPETokenizer(own.merges, own.special_tokens)
    tracemalloc.start()
    try:
        ids = tokenizer.encode_iterable(lines[n % len(lines)] for n in range(count))
        next(ids)
        before, _ = tracemalloc.get_traced_memory()
        total = sum(1 for _ in ids)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total > 1_000_000
    assert peak - before < 1_000_000


def test_it_is_lazy(own):
    def endless():
        while True:
            yield "O damp goose! "

    ids = own.encode_iterable(endless())
    assert [next(ids) for _ in range(1000)] == own.encode("O damp goose! " * 900).tolist()[:1000]


def test_more_words_than_are_remembered(own):
    tokenizer = BPETokenizer(own.merges, own.special_tokens)
    text = " ".join(f"w{n}" for n in range(2 * CACHE_SIZE))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(text).tolist() == own.encode(text).tolist()


# ---------------------------------------------------------------- special tokens


def test_a_special_token_is_never_merged_with_what_is_beside_it():
    tokenizer = BPETokenizer.train("ab<|x|>ab<|x|>ab " * 30, 300, ["<|x|>"])
    special = tokenizer.special_tokens["<|x|>"]
    ids = tokenizer.encode("ab<|x|>ab").tolist()
    assert ids == [*tokenizer.encode("ab").tolist(), special, *tokenizer.encode("ab").tolist()]
    # Nor is it learned from: no token has a part of it.
    assert not any(b"|" in token and len(token) > 1 for token in tokenizer.tokens[: special - 1])


def test_of_overlapping_special_tokens_the_longest_wins():
    specials = ["<|a|>", "<|a|><|a|>", "|><|"]
    tokenizer = BPETokenizer([], {text: 256 + n for n, text in enumerate(specials)})
    assert tokenizer.encode("<|a|><|a|><|a|>").tolist() == [257, 256]
    assert tokenizer.encode("x|><|a|>").tolist() == [ord("x"), 258, *b"a|>"]


def test_special_tokens_that_may_not_be_there(own):
    text = f"a letter with {END} in it"
    assert own.special_tokens[END] in own.encode(text)
    assert own.special_tokens[END] in own.encode(text, allowed_special={END})
    with pytest.raises(ValueError, match="position 14.*allowed_special"):
        own.encode(text, allowed_special=())
    assert own.encode("a letter", allowed_special=()).tolist() == own.encode("a letter").tolist()


# ---------------------------------------------------------------- decoding


def test_half_a_character_is_the_replacement_character(own):
    fresh = BPETokenizer([])
    goose = fresh.encode("🪿").tolist()
    assert len(goose) == 4
    assert fresh.decode(goose[:3]) == "\ufffd"
    assert fresh.decode(goose[1:]) == "\ufffd" * 3
    assert fresh.decode([*goose, ord("!")]) == "🪿!"
    for n in range(1000):
        rng = random.Random(n)
        ids = [rng.randrange(own.vocab_size) for _ in range(10)]
        together = b"".join(own.tokens[i] for i in ids)
        assert own.decode(ids) == together.decode("utf-8", errors="replace")


@pytest.mark.parametrize("ids, words", [([600], "600"), ([-1], "-1"), ([[1, 2]], "shape")])
def test_what_is_no_id(own, ids, words):
    with pytest.raises(ValueError, match=words):
        own.decode(ids)


# ---------------------------------------------------------------- training


def brute_force(word_counts, num_merges, larger_bytes=True):
    """The merges, all pairs counted anew each time. larger_bytes: our rule for ties; else the smaller pair of ids."""
    words = {word: (list(word), count) for word, count in word_counts.items()}
    tokens = [bytes([byte]) for byte in range(256)]
    merges = []
    for new in range(256, 256 + num_merges):
        pairs = Counter()
        for ids, count in words.values():
            for pair in zip(ids, ids[1:]):
                pairs[pair] += count
        if not pairs:
            break
        most = max(pairs.values())
        candidates = [pair for pair, count in pairs.items() if count == most]
        if larger_bytes:
            best = max(candidates, key=lambda pair: (tokens[pair[0]], tokens[pair[1]]))
        else:
            best = min(candidates)
        merges.append(best)
        tokens.append(tokens[best[0]] + tokens[best[1]])
        for word, (ids, count) in words.items():
            merged = []
            i = 0
            while i < len(ids):
                if tuple(ids[i : i + 2]) == best:
                    merged.append(new)
                    i += 2
                else:
                    merged.append(ids[i])
                    i += 1
            words[word] = (merged, count)
    return merges, tokens


def words_of(text):
    return Counter(word.encode("utf-8") for word in regex.findall(PATTERNS["gpt2"], text))


def training_texts():
    rng = random.Random(6)
    texts = [
        TEXT[:4000],
        "aaaa aaa aa a " * 9,
        "abababab bababa",
        "中文字中文 文字 🪿🪿🪿",
        "x" * 97,
    ]
    for _ in range(60):
        alphabet = rng.choice(["ab", "abc ", "abcdefgh   ", "aé中🪿 "])
        texts.append("".join(rng.choices(alphabet, k=rng.randrange(1, 300))))
    return texts


def test_the_merges_are_those_of_brute_force():
    for text in training_texts():
        counts = words_of(text)
        assert learn_merges(counts, 60) == brute_force(counts, 60)[0], text[:80]


def test_the_merges_are_those_of_hugging_face():
    """Its trainer breaks ties by the smaller ids. Brute force with that rule is its equal, and with ours is ours."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    agreed = 0
    for text in training_texts():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        # All 256 bytes, so that its merges can be as many as ours.
        trainer = trainers.BpeTrainer(
            vocab_size=256 + 40,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator([text], trainer)
        byte_of = {char: byte for byte, char in enumerate(byte_characters())}
        theirs = []
        for left, right in json.loads(tokenizer.to_str())["model"]["merges"]:
            theirs.append(tuple(bytes(byte_of[char] for char in part) for part in (left, right)))
        # Its ids of bytes are in the order of their characters.
        order = sorted(range(256), key=lambda byte: byte_characters()[byte])
        place = {byte: n for n, byte in enumerate(order)}
        renumbered = Counter()
        for word, count in words_of(text).items():
            renumbered[tuple(place[byte] for byte in word)] += count
        expected, _ = brute_force(renumbered, 40, larger_bytes=False)
        tokens = [bytes([byte]) for byte in order]
        for n, (left, right) in enumerate(expected):
            tokens.append(tokens[left] + tokens[right])
        assert theirs == [(tokens[left], tokens[right]) for left, right in expected], text[:80]
        # Where no counts were equal, the rule does not matter.
        merges = learn_merges(words_of(text), 40)
        own_tokens = [bytes([byte]) for byte in range(256)]
        ours = []
        for left, right in merges:
            ours.append((own_tokens[left], own_tokens[right]))
            own_tokens.append(own_tokens[left] + own_tokens[right])
        agreed += ours[:1] == theirs[:1]
    assert agreed > 10


def test_of_equally_frequent_pairs_the_larger_bytes_come_first():
    assert learn_merges({b"ab": 3, b"zy": 3, b"zx": 3, b"q": 9}, 3) == [
        (ord("z"), ord("y")),
        (ord("z"), ord("x")),
        (ord("a"), ord("b")),
    ]


def test_files_teach_what_their_text_teaches(tmp_path, monkeypatch):
    halves = [TEXT[:9000], TEXT[9000:]]
    paths = []
    for n, half in enumerate(halves):
        paths.append(tmp_path / f"{n}.txt")
        paths[-1].write_bytes(half.replace("\n", "\r\n").encode("utf-8-sig"))
    counts = words_of(halves[0]) + words_of(halves[1])
    pairs = learn_merges(counts, 100)
    for source in (paths, [str(path) for path in paths]):
        monkeypatch.setattr("chargpt_lib.bpe.CHUNK_SIZE", 512)
        trained = BPETokenizer.train(source, 356)
        assert [merge[:2] for merge in trained.merges] == pairs
    one = BPETokenizer.train(paths[0], 300)
    assert one.to_dict() == BPETokenizer.train(halves[0], 300).to_dict()


def test_a_text_that_runs_out_of_pairs():
    with pytest.warns(UserWarning, match="after 6 merges: the vocab_size is 263, not 500"):
        tokenizer = BPETokenizer.train("a" * 64, 500, [END])
    assert tokenizer.vocab_size == 263
    assert tokenizer.special_tokens == {END: 262}
    assert tokenizer.encode("a" * 64 + END).tolist() == [261, 262]


@pytest.mark.parametrize("word", ["a" * 10**6, "ab" * 500_000], ids=["one byte", "one word"])
def test_a_word_of_a_megabyte(word):
    with pytest.warns(UserWarning, match="no more pairs"):
        tokenizer = BPETokenizer.train(word, 500)
    assert tokenizer.decode(tokenizer.encode(word)) == word
    assert len(BPETokenizer.train(TEXT, 500).encode(word)) <= len(word)


# ---------------------------------------------------------------- files


def test_saved_and_loaded_it_is_the_same(own, tmp_path):
    own.save(tmp_path / "tokenizer.json")
    for loaded in (
        BPETokenizer.load(tmp_path / "tokenizer.json"),
        load_tokenizer(tmp_path),
        tokenizer_from_dict(json.loads(json.dumps(own.to_dict()))),
    ):
        assert loaded.to_dict() == own.to_dict() and loaded.tokens == own.tokens
        assert loaded.encode(TEXT[:500] + END).tolist() == own.encode(TEXT[:500] + END).tolist()


@pytest.mark.parametrize("name", ["own", "gpt2"])
def test_gpt2s_files_come_back(name, request, tmp_path):
    tokenizer = request.getfixturevalue(name)
    tokenizer.save_gpt2(tmp_path)
    loaded = BPETokenizer.load_gpt2(tmp_path / "vocab.json", tmp_path / "merges.txt")
    assert loaded.to_dict() == tokenizer.to_dict()


def test_the_characters_of_bytes_are_gpt2s():
    """Its rule, by another way: bytes that Unicode prints in Latin-1, but not the soft hyphen."""
    characters = byte_characters()
    assert len(set(characters)) == 256 and all(char.isprintable() for char in characters)
    for byte, char in enumerate(characters):
        is_printed = chr(byte).isprintable() and not chr(byte).isspace()
        assert (char == chr(byte)) == is_printed
    assert characters[ord(" ")] == "Ġ" and characters[ord("\n")] == "Ċ"


def vocabulary(tokenizer, folder):
    tokenizer.save_gpt2(folder)
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    return vocab, merges


def without_byte(vocab, merges):
    del vocab["Ġ"]


def without_result(vocab, merges):
    left, right = merges[5].split(" ")
    del vocab[left + right]


def without_merge(vocab, merges):
    del merges[-1]


def three_on_a_line(vocab, merges):
    merges[3] = "a b c"


def an_id_twice(vocab, merges):
    vocab["a"] = vocab["b"]


def a_gap(vocab, merges):
    vocab["<|far|>"] = 10_000


def no_number(vocab, merges):
    vocab["a"] = "97"


@pytest.mark.parametrize(
    "break_it, words",
    [
        (without_byte, ["vocab.json", "byte 32"]),
        (without_result, ["merges.txt, line 6", "vocab.json"]),
        (without_merge, ["vocab.json has the token", "merges.txt"]),
        (three_on_a_line, ["merges.txt, line 4", "'a b c'"]),
        (an_id_twice, ["two tokens have the id"]),
        (a_gap, ["no token has the id 600"]),
        (no_number, ["vocab.json is no vocabulary"]),
    ],
)
def test_files_that_do_not_fit_each_other(break_it, words, own, tmp_path):
    vocab, merges = vocabulary(own, tmp_path)
    break_it(vocab, merges)
    (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("\n".join(merges), encoding="utf-8")
    with pytest.raises(ValueError) as error:
        BPETokenizer.load_gpt2(tmp_path / "vocab.json", tmp_path / "merges.txt")
    assert all(word in str(error.value) for word in words), str(error.value)


def doubled(times):
    """Merges of a token with itself: few lines, and tokens without end."""
    return [[97, 97, 256], *([256 + n, 256 + n, 257 + n] for n in range(times))]


@pytest.mark.parametrize(
    "saved, words",
    [
        ({"type": "bpe"}, "no byte-pair encoding"),
        (
            {"type": "bpe", "merges": 3, "special_tokens": {}, "pattern": "gpt2", "byte_ids": []},
            "bpe|byte",
        ),
        ({"merges": [[1, 2]]}, "is no merge"),
        ({"merges": [[1, 300, 256]]}, "before they are tokens"),
        ({"merges": [["a", "b", 256]]}, "before they are tokens"),
        ({"merges": [[1, 2, 258]]}, "no token has the id 256"),
        ({"merges": [[1, 2, 7]]}, "two tokens have the id 7"),
        ({"merges": doubled(60)}, "bytes together"),
        ({"byte_ids": [0] * 256}, "two tokens have the id 0"),
        ({"byte_ids": list(range(255))}, "255 ids"),
        ({"special_tokens": {"": 256}}, "special token ''"),
        ({"pattern": "(a+)+$"}, "pattern is"),
        ({"pattern": None}, "pattern is None"),
    ],
)
def test_hostile_and_broken_json(saved, words):
    whole = {**BPETokenizer([]).to_dict(), **saved}
    if saved.get("type") == "bpe":
        whole = saved
    with pytest.raises(ValueError, match=words):
        tokenizer_from_dict(whole)


def test_a_tokenizer_json_of_another_library(own, tmp_path):
    theirs = as_hugging_face(own, tmp_path)
    theirs.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="Hugging Face.*chargpt import"):
        load_tokenizer(tmp_path)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "text, vocab_size, specials, words",
    [
        ("abc", 255, [], "at least 256"),
        ("abc", 256, [END], "1 special tokens need at least 257"),
        ("", 300, [], "the text is empty"),
        (END, 300, [END], "the text is empty"),
        ("abc", 300, [""], "special token ''"),
        ("abc\ud800", 300, [], "no character"),
    ],
)
def test_what_cannot_be_learned(text, vocab_size, specials, words):
    with pytest.raises(ValueError, match=words):
        BPETokenizer.train(text, vocab_size, specials)


def test_what_cannot_be_encoded(own):
    with pytest.raises(ValueError, match="'\\\\ud800' is no character"):
        own.encode("a\ud800")
    with pytest.raises(ValueError, match="expected a text"):
        own.encode(b"bytes")


def test_a_file_that_is_not_utf8(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("Gänse".encode("latin-1"))
    with pytest.raises(ValueError, match="latin.txt is not UTF-8"):
        BPETokenizer.train(path, 300)


def test_bits_per_character_alone_compare():
    """A model that knows nothing pays ln V a token: other losses a token, the same bits for each byte of the text."""
    text = TEXT[:2000]
    bytes_only = BPETokenizer([])
    bits = math.log(256) * len(bytes_only.encode(text)) / math.log(2) / len(text.encode("utf-8"))
    assert bits == pytest.approx(8.0)


# ---------------------------------------------------------------- by name, and what a text costs


CORPUS = Corpus("toy", TEXT[:15_000], TEXT[15_000:])


def test_tokenizers_by_name(tmp_path, own):
    characters = make_tokenizer("char", CORPUS)
    assert characters.to_dict() == CharTokenizer.from_text(TEXT).to_dict()
    learned = make_tokenizer("bpe:300", CORPUS)
    # From the training text alone.
    assert learned.to_dict() == BPETokenizer.train(CORPUS.train, 300).to_dict()
    learned.save(tmp_path / "mine.json")
    learned.save_gpt2(tmp_path / "folder")
    (tmp_path / "folder" / "tokenizer.json").write_text('{"model": {}}')
    paths = ["mine.json", "folder", "folder/vocab.json", "folder/merges.txt"]
    for path in paths:
        found = make_tokenizer(str(tmp_path / path), CORPUS)
        assert found.encode(CORPUS.val).tolist() == learned.encode(CORPUS.val).tolist(), path
    own.save(tmp_path / "tokenizer.json")
    assert make_tokenizer(str(tmp_path), CORPUS).to_dict() == own.to_dict()


@pytest.mark.parametrize(
    "name, error, words",
    [
        ("bpe:255", ValueError, "'bpe:255' has no size of 256 or more"),
        ("bpe:", ValueError, "'bpe:' has no size"),
        ("bpe:-5", ValueError, "'bpe:-5' has no size"),
        ("bpe:5e3", ValueError, "bpe:512 is one"),
        ("bpe", FileNotFoundError, "no tokenizer and no file is called 'bpe': give char, bpe:512"),
        ("", FileNotFoundError, "no tokenizer and no file is called ''"),
        ("nowhere/tokenizer.json", FileNotFoundError, "a folder with vocab.json and merges.txt"),
    ],
)
def test_a_name_that_stands_for_no_tokenizer(name, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        make_tokenizer(name, CORPUS)


def test_what_a_text_costs_per_character_and_per_byte():
    text = "Gänse 鵞鳥 goose"
    tokenizer = BPETokenizer.train("goose " * 9, 258)
    ids = tokenizer.encode(text)
    nats = 2.5 * (len(ids) - 1)  # all that is paid, of a loss of 2.5 nats per id
    per_character, per_byte = bits_of_text(2.5, ids, tokenizer)
    # The first id is the byte "G".
    assert per_character == pytest.approx(nats / math.log(2) / (len(text) - 1))
    assert per_byte == pytest.approx(nats / math.log(2) / (len(text.encode()) - 1))
    characters = CharTokenizer.from_text(text)
    assert bits_of_text(1.0, characters.encode(text), characters)[0] == pytest.approx(
        1 / math.log(2)
    )


def test_a_whole_character_tokenizer_reads_a_text_in_pieces():
    tokenizer = CharTokenizer.from_text(TEXT)
    pieces = [TEXT[:7], "", TEXT[7:900]]
    assert list(tokenizer.encode_iterable(pieces)) == tokenizer.encode(TEXT[:900]).tolist()
    assert tokenizer.unit == "character" and BPETokenizer.unit == "token"
