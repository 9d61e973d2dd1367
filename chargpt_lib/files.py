"""Where files lie, how one is written whole or not at all, and how the files of a vocabulary are read."""

import errno
import importlib.util
import json
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError


def library_dir():
    """The folder of `chargpt_lib`."""
    return Path(importlib.util.find_spec("chargpt_lib").origin).resolve().parent


def checkout_dir():
    """The folder of the checkout that the library lies in, or None where the library is installed from a wheel."""
    folder = library_dir().parent
    return folder if (folder / "pyproject.toml").exists() else None


def bundled_dir():
    """The folder of the results and models that come with the course: data/ of a checkout, else assets/ of the library."""
    checkout = checkout_dir()
    if checkout is not None and (checkout / "data" / "results").is_dir():
        return checkout / "data"
    return library_dir() / "assets"


def cache_dir():
    """The folder for downloads and trained models: `$CHARGPT_CACHE`, data/cache of a checkout, or the user's cache."""
    import pooch

    checkout = checkout_dir()
    if "CHARGPT_CACHE" in os.environ and os.environ["CHARGPT_CACHE"]:
        folder = Path(os.environ["CHARGPT_CACHE"])
    elif checkout is not None:
        folder = checkout / "data" / "cache"
    else:
        folder = Path(pooch.os_cache("chargpt"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fetch(
    file,
    url,
    sha256=None,
    progressbar=False,
    way_out="work offline with the corpus 'playhouse'",
):
    """The path of a file: in `$CHARGPT_DATA`, in the cache, or downloaded into the cache.

    file: its name there, with a folder where it has one. way_out: what can be done without the file, for the message.
    Raises: OSError where the file cannot be had, or its sha256 is another one.
    """
    import pooch

    try:
        if os.environ.get("CHARGPT_DATA"):
            path = Path(os.environ["CHARGPT_DATA"]) / file
            if path.is_file():
                if sha256 and pooch.file_hash(str(path)) != sha256:
                    raise ValueError(f"{path} has another sha256 than {sha256}")
                return path
        # Without a sha256 nobody knows which file this is; pooch then makes a name of the whole address.
        name = file if sha256 else None
        return Path(
            pooch.retrieve(
                url,
                known_hash=sha256,
                fname=name,
                path=cache_dir() / "downloads",
                progressbar=progressbar,
            )
        )
    except Exception as error:
        raise OSError(
            f"could not get {file} from {url}: {error}\nNothing was saved. Try again; or put the right file into a "
            f"folder and set CHARGPT_DATA to it; or {way_out}."
        ) from error


def bundled_results():
    """The results that come with the course: {corpus: {rung: {"loss": nats per character, ...}}}."""
    path = bundled_dir() / "results" / "ladder.json"
    if not path.is_file():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))


def sync_folder(folder):
    """Waits until the names in a folder are on the disk, where the system can do that (Windows cannot)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def atomic_write(path, write):
    """Calls write(temporary path), then gives the file its name: there is never half a file at `path`.

    The data reach the disk before the rename does, so that not even a power cut leaves an empty file.

    Raises: OSError where the disk refuses. The old file is then still there, and the temporary one is removed.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.part")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    # Of a full disk torch.save makes a RuntimeError, and safetensors an error of its own.
    except (OSError, RuntimeError, SafetensorError) as error:
        raise OSError(
            f"{path} could not be written ({error}): is the disk full? What was saved before is still there"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_text(path, text):
    """Writes a text as UTF-8, whole or not at all. Raises: OSError."""
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline=""))


def check_new_folder(folder):
    """Raises: FileExistsError where a folder is there already and not empty, or is a file."""
    folder = Path(folder)
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not an empty folder: choose another")


@contextmanager
def atomic_folder(folder):
    """Yields a temporary folder to write into; it then gets its name, whole. After a failure, nothing is left of it.

    Raises: FileExistsError where the folder is there already and not empty, OSError.
    """
    folder = Path(folder)
    check_new_folder(folder)
    temporary = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(f"{folder} could not be written ({error}): is the disk full?") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path, value):
    """Writes a value as JSON, whole or not at all. Raises: OSError."""
    atomic_write_text(path, json.dumps(value, indent=1))


def read_json(path):
    """The value in a JSON file; {} where there is no such file, or half of one."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


PIECE_SIZE = 2**20  # characters that `read_pieces` reads at a time


def read_pieces(path):
    """Yields the text of a file, piece by piece. Raises: OSError; ValueError where it is not UTF-8."""
    try:
        # Python makes "\n" of all line ends here; -sig leaves out the mark that Windows puts first.
        with open(path, encoding="utf-8-sig") as file:
            while text := file.read(PIECE_SIZE):
                yield text
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 (it has a byte {error.object[error.start]:#04x}): save it as UTF-8"
        ) from None


# ---------------------------------------------------------------- vocabularies of byte-pair encoding

MAX_TOKEN_BYTES = 2**26  # of all tokens together: a few merges could make tokens without end


def token_bytes(byte_ids, merges, special_tokens):
    """The bytes of each id of a byte-pair encoding, as a list; see `chargpt_lib.bpe.BPETokenizer`.

    Raises: ValueError if an id has no token or several, and for merges that make no vocabulary.
    """
    by_id = {}

    def add(i, token):
        if i in by_id:
            raise ValueError(f"two tokens have the id {i}: {by_id[i]!r} and {token!r}")
        by_id[i] = token

    if len(byte_ids) != 256:
        raise ValueError(f"byte_ids has {len(byte_ids)} ids; each of the 256 bytes needs one")
    for byte, i in enumerate(byte_ids):
        add(i, bytes([byte]))
    size = 0
    for merge in merges:
        if len(merge) != 3:
            raise ValueError(f"{merge} is no merge: expected (left id, right id, new id)")
        left, right, new = merge
        if left not in by_id or right not in by_id:
            raise ValueError(f"the merge of {left} and {right} comes before they are tokens")
        add(new, by_id[left] + by_id[right])
        size += len(by_id[new])
        if size > MAX_TOKEN_BYTES:
            raise ValueError(f"the tokens have more than {MAX_TOKEN_BYTES:,} bytes together")
    for text, i in special_tokens.items():
        if not isinstance(text, str) or text == "":
            raise ValueError(f"the special token {text!r} is not a text of one character or more")
        add(i, text.encode("utf-8"))
    missing = set(range(len(by_id))) - by_id.keys()
    if missing:
        raise ValueError(f"no token has the id {min(missing)}, but the largest id is {max(by_id)}")
    return [by_id[i] for i in range(len(by_id))]


def _read_vocab(path):
    """The {token: id} in a vocab.json. Raises: OSError; ValueError if the file holds something else."""
    try:
        vocab = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error})") from None
    if not isinstance(vocab, dict) or not all(type(i) is int for i in vocab.values()):
        raise ValueError(
            f"{path} is no vocabulary: expected a JSON object of tokens and their ids, as in GPT-2's vocab.json"
        )
    return vocab


def read_gpt2_vocabulary(vocab, merges, byte_characters):
    """Reads vocab.json and merges.txt -> merges (left id, right id, new id), {special token: id}, ids of the 256 bytes.

    byte_characters: the character that stands for each byte. A token of the vocabulary that is neither a byte nor made
    by a merge is a special token.

    Raises: OSError; ValueError if the two files do not fit each other.
    """
    ids = _read_vocab(vocab)
    try:
        lines = Path(merges).read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{merges} is not UTF-8 ({error})") from None
    byte_ids = []
    for byte, character in enumerate(byte_characters):
        if character not in ids:
            raise ValueError(
                f"{vocab} has no token for the byte {byte} ({character!r}): is it of a byte-level tokenizer?"
            )
        byte_ids.append(ids[character])
    known = set(byte_characters)
    triples = []
    for number, line in enumerate(lines, 1):
        if line == "" or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        named = [*pair, "".join(pair)]
        absent = [name for name in named if name not in ids]
        if len(pair) != 2 or absent:
            raise ValueError(
                f"{merges}, line {number}: {line[:60]!r} is no merge of tokens that {vocab} has: are they of the same tokenizer?"
            )
        triples.append([ids[name] for name in named])
        known.add(named[2])
    special_tokens = {name: i for name, i in ids.items() if name not in known}
    for name in special_tokens:
        # Such as <|endoftext|> or [CLS].
        if not (name.startswith(("<", "[")) and name.endswith((">", "]"))):
            raise ValueError(
                f"{vocab} has the token {name[:60]!r}, which no merge in {merges} makes: are they of the same tokenizer?"
            )
    return triples, special_tokens, byte_ids
