"""What a command is given: texts, prompts, folders. Each is looked at before time is spent on it."""

import codecs
import hashlib
import os
import re
import shlex
import stat
import sys
import warnings
from collections import Counter
from pathlib import Path, PurePosixPath, PureWindowsPath

from safetensors import SafetensorError, safe_open

from chargpt_lib.bpe import make_tokenizer
from chargpt_lib.checkpoints import MODEL_TYPES, POINTER_FILE, load_model
from chargpt_lib.data import DOWNLOADABLE_CORPORA, CharTokenizer, load_corpus
from chargpt_lib.devices import world_size
from chargpt_lib.files import atomic_write, cache_dir, read_json
from chargpt_lib.formats.nanogpt import CHECKPOINT_FILE, load_nanogpt
from chargpt_lib.gpt2 import from_pretrained
from chargpt_lib.shards import INDEX_FILE, Shards
from chargpt_lib.trainer import describe_data_change

# ---------------------------------------------------------------- the text of --corpus

# How many bytes of a file are looked at.
HEAD = 4096

STDIN = "-"  # --corpus -: the text comes from the standard input

# The first bytes of files that people take for a text: (bytes, what it is, the way out).
UNPACK = "unpack it and give the text file inside"
USE_TEXT = "give a plain text in UTF-8"
FILE_KINDS = (
    (b"\x1f\x8b", "compressed by gzip", UNPACK),
    (b"BZh", "compressed by bzip2", UNPACK),
    (b"\xfd7zXZ\x00", "compressed by xz", UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", UNPACK),
    (b"PK\x03\x04", "a zip archive, as .docx and .epub are", f"{UNPACK}, or save it as plain text"),
    (b"\x89PNG", "a picture (PNG)", USE_TEXT),
    (b"\xff\xd8\xff", "a picture (JPEG)", USE_TEXT),
    (b"GIF8", "a picture (GIF)", USE_TEXT),
    (b"%PDF-", "a PDF", f"{USE_TEXT}; pdftotext makes one of most PDFs"),
)

# A mark at the beginning -> the encoding it stands for. UTF-32's come first, because one of them
# begins like one of UTF-16's.
MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def _wide_encoding(head):
    """UTF-16 or UTF-32, where the first bytes of a text are encoded so; else None."""
    for mark, encoding in MARKS:
        if head.startswith(mark):
            return encoding
    # Without a mark, such a text may be valid UTF-8: the letters, and a zero byte after or before
    # each. In scripts other than Latin only spaces and line ends have zero bytes, but those are more
    # than one in twenty characters.
    pairs = len(head) // 2
    zeros_first = head[0::2].count(0)
    zeros_second = head[1::2].count(0)
    if zeros_first == 0 and zeros_second > pairs / 20:
        return "UTF-16LE"
    if zeros_second == 0 and zeros_first > pairs / 20:
        return "UTF-16BE"
    return None


def _is_web_page(head):
    """Whether a text begins as an HTML page does."""
    start = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return True
    return start.startswith(b"<?xml") and b"<html" in start


def explain_not_text(head):
    """Why a file with these first bytes is no text, and the way out; None where it may be one.

    What is left to `load_corpus`: whether all of it is UTF-8.
    """
    for start, kind, way_out in FILE_KINDS:
        if head.startswith(start):
            return f"it is {kind}: {way_out}"
    encoding = _wide_encoding(head)
    if encoding is not None:
        return (
            f"it is {encoding}, and a text has to be UTF-8: most editors can save it so (Save as, "
            f"Encoding), and so can iconv -f {encoding} -t UTF-8"
        )
    if head.count(0) > len(head) / 20:
        return f"it is full of zero bytes, as programs and archives are: {USE_TEXT}"
    if _is_web_page(head):
        return (
            "it is a web page (HTML): save the text alone, on GitHub by the button Raw; if the "
            "model shall learn HTML, put a line of text before the page"
        )
    return None


def _check_text(name, head):
    """Raises: ValueError for the first bytes of something else than a text."""
    problem = explain_not_text(head)
    if problem is not None:
        raise ValueError(f"{name} cannot be read as a text: {problem}")


def is_corpus_name(source):
    """Whether a corpus is one of the course's, and so no path and no address."""
    return source == "playhouse" or source in DOWNLOADABLE_CORPORA


def is_pipe(source):
    """Whether a corpus can be read once only: stdin, or a named pipe, such as a shell's <(command)."""
    if source == STDIN:
        return True
    try:
        return stat.S_ISFIFO(os.stat(source).st_mode)
    except (OSError, ValueError):  # there is no such file; no file can have such a name
        return False


def _pipe_name(source):
    """What a pipe is called in messages."""
    return "the standard input" if source == STDIN else source


def _read_pipe(source):
    """All bytes of the standard input or of a named pipe."""
    if source != STDIN:
        return Path(source).read_bytes()
    if sys.stdin is None:
        raise ValueError("--corpus - reads the standard input, and there is none")
    if sys.stdin.isatty():
        print("type or paste the text; Ctrl-D on a line of its own ends it", file=sys.stderr)
    return sys.stdin.buffer.read()


def save_pipe(source):
    """Reads a text that can be read once only, and keeps it in the cache -> the path of the copy.

    With the copy, the run can be resumed and evaluated like any other.

    Raises: ValueError where it is no text, or where several processes would read it.
    """
    if world_size() > 1:
        raise ValueError(
            f"--corpus {source} can be read by one process only: save the text in a file, and give "
            "the file"
        )
    content = _read_pipe(source)
    name = _pipe_name(source)
    _check_text(name, content[:HEAD])
    if not content:
        raise ValueError(f"{name} is empty: nothing was written into it")
    folder = cache_dir() / "corpora"
    folder.mkdir(exist_ok=True)
    # By its content: the same text twice is one file, and another text never takes its place.
    path = folder / f"{hashlib.sha256(content).hexdigest()[:16]}.txt"
    if not path.exists():
        atomic_write(path, lambda temporary: temporary.write_bytes(content))
    return str(path)


def is_shards(source):
    """Whether a corpus is a folder of shards, as `write_shards` leaves one."""
    if is_corpus_name(source) or source == "":
        return False
    return Path(source, INDEX_FILE).is_file()


def load_text(source):
    """`load_corpus`, for what a user may give: pipes are read, and what is no text is recognised -> Corpus, or Shards.

    Raises: ValueError for a file that is no text, with the way out; what `load_corpus` and `Shards` raise.
    """
    if is_corpus_name(source):
        return load_corpus(source)
    if is_shards(source):
        return Shards(source)
    if os.path.isdir(source):
        raise FileNotFoundError(
            f"{source!r} is a folder without {INDEX_FILE}: give a text file, or a folder of shards as "
            "chargpt_lib.shards.write_shards leaves it"
        )
    if is_pipe(source):
        return load_corpus(save_pipe(source))._replace(name=_pipe_name(source))
    if Path(source).is_file():
        with open(source, "rb") as file:
            _check_text(source, file.read(HEAD))
        return load_corpus(source)
    # An address, or a mistake. The bytes of a download are not ours to see, but its text is.
    corpus = load_corpus(source)
    _check_text(source, corpus.train[:HEAD].encode())
    return corpus


def text_name(corpus):
    """What a Corpus, or a folder of shards, is called in messages."""
    return str(corpus.folder) if isinstance(corpus, Shards) else corpus.name


def encode_val(corpus, tokenizer):
    """The ids of the validation text (N,); None where shards were written without one."""
    if isinstance(corpus, Shards):
        return corpus.val_ids
    return tokenizer.encode(corpus.val)


def check_encodable(corpus, tokenizer):
    """Raises: ValueError where a text, or what shards hold, is not made of the tokenizer's ids."""
    if not isinstance(corpus, Shards):
        tokenizer.encode(corpus.train + corpus.val)
    elif corpus.tokenizer.to_dict() != tokenizer.to_dict():
        raise ValueError(
            f"the shards in {corpus.folder} were written with another tokenizer than the model's: write them anew "
            "with tokenizer=, the model's"
        )


# ---------------------------------------------------------------- the text of a run


def _moved_paths(saved, folder):
    """Where a file may be now that was at the path `saved` when the run in a folder began.

    The file and the run may have been moved together, to another folder, drive or computer. So the end of the path,
    however long, is looked for below the run's folder, below each folder around that, and below the current folder.
    """
    # A run that was begun on Windows may be resumed elsewhere.
    is_windows_path = re.match(r"[A-Za-z]:|\\\\", saved) is not None
    path = PureWindowsPath(saved) if is_windows_path else PurePosixPath(saved)
    parts = path.relative_to(path.anchor).parts
    folder = Path(folder).resolve()
    for parent in (folder, *folder.parents, Path.cwd()):
        for start in range(len(parts)):
            yield parent.joinpath(*parts[start:])


def load_run_text(saved, folder):
    """The text that a run was trained on -> (its path or name, the Corpus, how it has changed or None).

    saved: the path or name in the run's settings; folder: the run's, or that of one of its checkpoints.

    Raises: FileNotFoundError where there is no such file, nor one beside the run; what `load_text` raises.
    """
    if is_corpus_name(saved) or saved.startswith(("http://", "https://")):
        corpus = load_text(saved)
        return saved, corpus, describe_data_change(folder, corpus)
    changed = None
    for path in (saved, *_moved_paths(saved, folder)):
        if not os.path.isfile(path) and not is_shards(str(path)):
            continue
        try:
            corpus = load_text(str(path))
        except ValueError:
            if path == saved:
                raise
            continue
        change = describe_data_change(folder, corpus)
        if change is None:
            return str(path), corpus, None
        if changed is None:
            changed = (str(path), corpus, change)
    if changed is None:
        raise FileNotFoundError(
            f"the text of the run in {folder} is neither at {saved} any more, nor beside the run: give its file by "
            f"--corpus FILE, whatever it is called now"
        )
    return changed


# ---------------------------------------------------------------- --tokenizer

SHARDS_TOKENIZER = "shards"  # --tokenizer shards: the one that a folder of shards was written with
DEFAULT_TOKENIZER = "char"


def default_tokenizer(source):
    """The --tokenizer of a corpus for which none is given."""
    return SHARDS_TOKENIZER if is_shards(source) else DEFAULT_TOKENIZER


def is_tokenizer_name(name):
    """Whether a tokenizer is given by a name, and so by no path."""
    return name in ("char", "gpt2", SHARDS_TOKENIZER) or name.startswith("bpe:")


def _load_shards_tokenizer(name, shards):
    """The tokenizer of shards. Raises: ValueError where --tokenizer asks for another one; OSError as `make_tokenizer`."""
    tokenizer = shards.tokenizer
    if name == SHARDS_TOKENIZER:
        return tokenizer
    # Those that are learned from a text cannot be learned again: here are only its ids.
    if name == "char":
        is_same = type(tokenizer) is CharTokenizer
    elif name.startswith("bpe:"):
        is_same = False
    else:
        is_same = make_tokenizer(name, None).to_dict() == tokenizer.to_dict()
    if not is_same:
        raise ValueError(
            f"the shards in {shards.folder} were written with another one, and have its ids: omit --tokenizer, or "
            f"pass --tokenizer {SHARDS_TOKENIZER}"
        )
    return tokenizer


def load_tokenizer_option(name, corpus):
    """`make_tokenizer` for --tokenizer; where a text has fewer merges than were asked for, that is printed.

    corpus: a Corpus, or Shards, which have a tokenizer already.

    Raises: ValueError, OSError that names the option.
    """
    if isinstance(corpus, Shards):
        make = _load_shards_tokenizer
    else:
        make = make_tokenizer
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tokenizer = make(name, corpus)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--tokenizer {name}: {error}") from None
    except ValueError as error:
        raise ValueError(f"--tokenizer {name}: {error}") from None
    for warning in caught:
        print(f"--tokenizer {name}: {warning.message}")
    return tokenizer


def _stands_for(name, tokenizer, corpus):
    """Whether --tokenizer NAME, with this corpus, is this tokenizer. Raises: ValueError, OSError where it is none."""
    return load_tokenizer_option(name, corpus).to_dict() == tokenizer.to_dict()


def check_run_tokenizer(name, saved_name, tokenizer, corpus):
    """Compares --tokenizer of a resumed run with the run's own. Raises: ValueError where they differ.

    saved_name: the option as the run was begun with; tokenizer: that of the run's checkpoint.
    """
    if name == saved_name:
        return
    # A file may have been moved, or may be a copy. A vocabulary that would be learned anew is another run's.
    if not name.startswith("bpe:") and _stands_for(name, tokenizer, corpus):
        return
    raise ValueError(
        f"--tokenizer {name} conflicts with the run, which has {saved_name}: omit it, or begin a new run in "
        "another --out"
    )


def check_initial_tokenizer(name, tokenizer, folder, corpus):
    """Compares --tokenizer with the tokenizer of the model in a folder, --init-from.

    Raises: ValueError where they differ.
    """
    if name == str(folder) or _stands_for(name, tokenizer, corpus):
        return
    raise ValueError(
        f"--tokenizer {name} is another one than that of the model in {folder}, whose ids it would "
        f"give another meaning: omit it, or pass --tokenizer {folder}"
    )


# How many of the characters that a tokenizer lacks are shown.
SHOWN_CHARACTERS = 8


def _can_encode(tokenizer, text):
    """Whether a tokenizer has ids for a text."""
    try:
        tokenizer.encode(text)
    except ValueError:
        return False
    return True


def check_initial_text(corpus, tokenizer, folder):
    """Raises: ValueError for a corpus with characters that the tokenizer of the model in a folder cannot encode."""
    text = corpus.train + corpus.val
    missing = {char for char in set(text) if not _can_encode(tokenizer, char)}
    if not missing:
        return
    # In the order in which they first occur, as Counter has them.
    counts = {char: count for char, count in Counter(text).items() if char in missing}
    first, *_ = counts
    line = text.count("\n", 0, text.index(first)) + 1
    shown = ", ".join(repr(char) for char in [*counts][:SHOWN_CHARACTERS])
    if len(counts) > SHOWN_CHARACTERS:
        shown += ", ..."
    raise ValueError(
        f"the tokenizer of the model in {folder} lacks characters that are in {corpus.name}: {shown} "
        f"(different ones: {len(counts):,}; in all: {sum(counts.values()):,}; the first in line "
        f"{line:,}). Replace them in the text; or train from scratch, with a tokenizer of this text: "
        "omit --init-from"
    )


# ---------------------------------------------------------------- --prompt and --stop


def read_newlines(text, tokenizer):
    """A text as typed: the two characters \\n are a newline, unless it is an alphabet that has a backslash."""
    if isinstance(tokenizer, CharTokenizer) and "\\" in tokenizer.alphabet:
        return text
    return text.replace("\\n", "\n")


def read_prompt(text, tokenizer):
    """The prompt that --prompt means: the text; for FILE:prompt.txt all that is in the file.

    Raises: FileNotFoundError, and ValueError for a file that is not UTF-8.
    """
    if not text.startswith("FILE:"):
        return read_newlines(text, tokenizer)
    path = Path(os.path.expanduser(text.removeprefix("FILE:")))
    if not path.exists() or path.is_dir():
        raise FileNotFoundError(f"--prompt {text}: no file is called {str(path)!r}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"--prompt {text}: the file is not UTF-8; save it as UTF-8") from None


# ---------------------------------------------------------------- folders of models


def _has_gpt2_weights(path):
    """Whether a file of safetensors has weights by the names that transformers gives them."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
    except (OSError, SafetensorError):
        return False
    return any(name.startswith(("transformer.h.", "h.0.")) for name in names)


def _foreign_model(folder):
    """Whose model is in a folder, in words, where it is that of another program; else None."""
    if folder.name == CHECKPOINT_FILE and folder.is_file():
        return "nanoGPT's checkpoint"
    try:
        config = read_json(folder / "config.json")
    except RecursionError:  # a thousand brackets
        config = {}
    model_type = config.get("model_type") if isinstance(config, dict) else None
    # What is no text, `load_model` calls damaged.
    if isinstance(model_type, str) and model_type not in MODEL_TYPES:
        return f"a model of transformers (its model_type is {model_type[:40]!r})"
    if _has_gpt2_weights(folder / "model.safetensors"):
        return "a model of transformers (its weights are called transformer.h...)"
    if (folder / CHECKPOINT_FILE).is_file() and not config:
        return f"the folder of nanoGPT's checkpoint, {CHECKPOINT_FILE}"
    return None


def is_own_model(folder):
    """Whether a folder is that of a run, a checkpoint or a model that chargpt saved."""
    folder = Path(folder)
    is_saved = (folder / "config.json").is_file() or (folder / POINTER_FILE).is_file()
    return is_saved and _foreign_model(folder) is None


def check_own_model(folder):
    """Raises: ValueError for a model that another program saved."""
    owner = _foreign_model(Path(folder))
    if owner is not None:
        raise ValueError(
            f"{folder} is {owner}: chargpt import {shlex.quote(str(folder))} --out FOLDER makes a model of chargpt of it"
        )


def is_pickled_checkpoint(path):
    """Whether a path leads to a checkpoint of nanoGPT's kind: a file that torch.save wrote, or a folder with ckpt.pt."""
    return path.is_file() or (path / CHECKPOINT_FILE).is_file()


def open_foreign_model(source, meta=None, text=None, **unsaid):
    """A model of another program -> our model and its tokenizer.

    source: the path of nanoGPT's checkpoint, a folder of transformers, or the name of a published GPT-2. meta, text: where
    the alphabet of a checkpoint is, a meta.pkl or the text that it was trained on. unsaid: activation and scaled_by of
    `load_nanogpt`.

    Raises: ValueError, OSError for what cannot be opened.
    """
    path = Path(source)
    if is_pickled_checkpoint(path):
        tokenizer = None
        if text is not None:
            corpus = load_text(text)
            if isinstance(corpus, Shards):
                raise ValueError(f"--text {text} is a folder of shards: give the text itself")
            tokenizer = CharTokenizer.from_text(corpus.train + corpus.val)
        return load_nanogpt(path, meta, tokenizer, **unsaid)
    for option, value in (("--meta", meta), ("--text", text)):
        if value is not None:
            raise ValueError(
                f"{option} says where the alphabet of a checkpoint like nanoGPT's is, and {source} is none: omit it"
            )
    return from_pretrained(source)


def load_initial(folder):
    """The model and the tokenizer that a new run begins with, from the folder that --init-from names.

    It may be a model of another program, too. Raises: what `load_model` and `open_foreign_model` raise.
    """
    if _foreign_model(Path(folder)) is not None:
        return open_foreign_model(folder)
    return load_model(folder)
