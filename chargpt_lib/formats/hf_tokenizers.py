"""Tokenizers in the files that `transformers` opens: tokenizer.json, or vocab.json and merges.txt."""

import json
from pathlib import Path

from chargpt_lib.bpe import PATTERNS, BPETokenizer, byte_characters
from chargpt_lib.data import CharTokenizer
from chargpt_lib.files import write_json

# One character of any kind, line ends included: the pattern by which a text is cut into characters.
ONE_CHARACTER = r"[\s\S]"

END_OF_TEXT = "<|endoftext|>"


# ---------------------------------------------------------------- out


def _char_json(tokenizer):
    """The tokenizer.json of a CharTokenizer: each character is a word, and each word has an id."""
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": ONE_CHARACTER},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {character: i for i, character in enumerate(tokenizer.alphabet)},
            # Not in the vocabulary, so that a character without an id is an error there, too.
            "unk_token": "[UNK]",
        },
    }


def _check_distinct(tokenizer):
    """Raises: ValueError where two ids have the same bytes: a vocabulary by name has room for one of them."""
    ids = {}
    for i, token in enumerate(tokenizer.tokens):
        if token in ids:
            raise ValueError(
                f"the tokens {ids[token]} and {i} both are {token!r}, and a tokenizer.json has one id for each token: "
                f"train the tokenizer with another vocab_size"
            )
        ids[token] = i


def _bpe_json(tokenizer):
    """The tokenizer.json of a BPETokenizer: byte-level BPE, its bytes written as GPT-2 writes them."""
    _check_distinct(tokenizer)
    characters = byte_characters()
    written = ["".join(characters[byte] for byte in token) for token in tokenizer.tokens]
    vocab = {}
    special_ids = set(tokenizer.special_tokens.values())
    for i, name in enumerate(written):
        if i not in special_ids:
            vocab[name] = i
    added = []
    for text, i in sorted(tokenizer.special_tokens.items(), key=lambda item: item[1]):
        added.append(
            {
                "id": i,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        )
    # Cut into words first, then each word's bytes into the characters that stand for them.
    words = {
        "type": "Split",
        "pattern": {"Regex": PATTERNS[tokenizer.pattern]},
        "behavior": "Isolated",
        "invert": False,
    }
    to_bytes = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [words, to_bytes]},
        "post_processor": None,
        "decoder": to_bytes,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [[written[left], written[right]] for left, right, _ in tokenizer.merges],
        },
    }


def end_of_text_id(tokenizer):
    """The id of the token that ends a text, None where the tokenizer has none."""
    if isinstance(tokenizer, BPETokenizer):
        return tokenizer.special_tokens.get(END_OF_TEXT)
    return None


def write_hf_tokenizer(tokenizer, folder, block_size):
    """Writes tokenizer.json and tokenizer_config.json, which `AutoTokenizer` opens, into a folder.

    Raises: ValueError for a tokenizer that has no such form, OSError.
    """
    folder = Path(folder)
    if isinstance(tokenizer, CharTokenizer):
        described = _char_json(tokenizer)
    elif isinstance(tokenizer, BPETokenizer):
        described = _bpe_json(tokenizer)
    else:
        raise ValueError(
            f"a {type(tokenizer).__name__} has no form that transformers opens: only CharTokenizer and "
            f"BPETokenizer have"
        )
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
    }
    if end_of_text_id(tokenizer) is not None:
        settings["bos_token"] = END_OF_TEXT
        settings["eos_token"] = END_OF_TEXT
    write_json(folder / "tokenizer.json", described)
    write_json(folder / "tokenizer_config.json", settings)


# ---------------------------------------------------------------- in


def _unsupported(path, what):
    """The ValueError for a tokenizer that is none of ours."""
    return ValueError(
        f"{path}: {what}. Only characters and byte-level BPE by the patterns of GPT-2 or GPT-4 can be read"
    )


def _pattern_name(pre_tokenizer, path):
    """The name in PATTERNS of the pattern by which a byte-level tokenizer cuts a text into words."""
    if pre_tokenizer.get("type") == "ByteLevel":
        steps = [pre_tokenizer]
    elif pre_tokenizer.get("type") == "Sequence":
        steps = pre_tokenizer.get("pretokenizers")
    else:
        steps = None
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise _unsupported(path, "its pre_tokenizer is not of byte-level BPE")
    last = steps[-1] if steps else {}
    if last.get("type") != "ByteLevel":
        raise _unsupported(path, "its pre_tokenizer does not end with ByteLevel")
    if last.get("add_prefix_space"):
        raise _unsupported(path, "it puts a space before each text (add_prefix_space)")
    # GPT-2's pattern is built into ByteLevel.
    if len(steps) == 1 and last.get("use_regex", True):
        return "gpt2"
    if len(steps) == 2 and steps[0].get("type") == "Split" and not last.get("use_regex", True):
        regex = steps[0].get("pattern")
        for name, pattern in PATTERNS.items():
            if regex == {"Regex": pattern} and steps[0].get("behavior") == "Isolated":
                return name
    raise _unsupported(path, "it cuts texts into words by another pattern")


def _merge_names(merge, path):
    """The two names of a merge, which may be written "a b" or ["a", "b"]."""
    pair = merge.split(" ") if isinstance(merge, str) else merge
    is_pair = isinstance(pair, list) and len(pair) == 2
    if not is_pair or not all(isinstance(name, str) for name in pair):
        raise _unsupported(path, f"{str(merge)[:60]!r} is no merge of two tokens")
    return pair


def _read_bpe(described, vocab, path):
    """The BPETokenizer in a tokenizer.json."""
    model = described["model"]
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(name):
            raise _unsupported(path, f"its BPE has {name}")
    if described.get("normalizer") is not None:
        raise _unsupported(path, "it has a normalizer, which changes the text")
    pattern = _pattern_name(described.get("pre_tokenizer") or {}, path)
    byte_ids = []
    for byte, character in enumerate(byte_characters()):
        if character not in vocab:
            raise _unsupported(path, f"it has no token for the byte {byte} ({character!r})")
        byte_ids.append(vocab[character])
    merges = []
    for merge in model.get("merges", []):
        left, right = _merge_names(merge, path)
        named = (left, right, left + right)
        for name in named:
            if name not in vocab:
                raise _unsupported(path, f"its merges need the token {name[:60]!r}, which it lacks")
        merges.append([vocab[name] for name in named])
    special_tokens = {}
    for token in described.get("added_tokens", []):
        special_tokens[token["content"]] = token["id"]
    return BPETokenizer(merges, special_tokens, pattern, byte_ids)


def _read_char(described, vocab, path):
    """The CharTokenizer in a tokenizer.json."""
    cuts = described.get("pre_tokenizer")
    if not isinstance(cuts, dict) or cuts.get("pattern") != {"Regex": ONE_CHARACTER}:
        raise _unsupported(path, "it has a vocabulary of words")
    alphabet = sorted(vocab, key=vocab.get)
    if [vocab[character] for character in alphabet] != list(range(len(alphabet))):
        raise _unsupported(path, "its ids are not 0, 1, 2, ...")
    return CharTokenizer.from_dict({"alphabet": "".join(alphabet)})


def read_tokenizer_json(path):
    """The tokenizer in a tokenizer.json of the library `tokenizers`: characters, or byte-level BPE.

    Raises: OSError; ValueError for a file that is none, and for a tokenizer of another kind.
    """
    path = Path(path)
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error})") from None
    model = described.get("model") if isinstance(described, dict) else None
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocab, dict) or not all(type(i) is int for i in vocab.values()):
        raise _unsupported(path, "it has no vocabulary of tokens and their ids")
    try:
        if model.get("type") == "BPE":
            return _read_bpe(described, vocab, path)
        if model.get("type") == "WordLevel":
            return _read_char(described, vocab, path)
    except (KeyError, TypeError, AttributeError) as error:
        raise _unsupported(path, f"it is not in the form of tokenizers ({error!r})") from None
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from None
    raise _unsupported(path, f"its model is {str(model.get('type'))[:40]!r}")


def read_hf_tokenizer(folder):
    """The tokenizer in a folder of `transformers`: of tokenizer.json, else of vocab.json and merges.txt.

    Raises: FileNotFoundError where there is neither; what `read_tokenizer_json` and `BPETokenizer.load_gpt2` raise.
    """
    folder = Path(folder)
    if (folder / "tokenizer.json").is_file():
        return read_tokenizer_json(folder / "tokenizer.json")
    # OpenAI's own names for the two files.
    for vocab, merges in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        if (folder / vocab).is_file() and (folder / merges).is_file():
            return BPETokenizer.load_gpt2(folder / vocab, folder / merges)
    raise FileNotFoundError(
        f"{folder} has no tokenizer: neither a tokenizer.json nor vocab.json with merges.txt. Copy them from where the "
        f"model came from"
    )
