"""Lesson 12, data on disk: what is written is what is read, in small memory; every window once, whoever reads it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

from chargpt_lib import files, shards
from chargpt_lib.bpe import BPETokenizer
from chargpt_lib.data import TOKENIZERS, CharTokenizer, load_corpus
from chargpt_lib.playhouse import write
from chargpt_lib.recipe import ShuffledWindows
from chargpt_lib.shards import Shards, write_shards

ABC = CharTokenizer("abcdefghij \n")


def random_text(length, seed=0, alphabet=ABC.alphabet):
    places = torch.randint(len(alphabet), (length,), generator=torch.Generator().manual_seed(seed))
    return "".join(alphabet[place] for place in places.tolist())


def written(folder, length=5000, seed=0, **how):
    """The text, and the Shards that hold it."""
    text = random_text(length, seed)
    write_shards([text], folder, ABC, **{"shard_size": 700, "val_size": 100, **how})
    return text, Shards(folder)


def everything(folder):
    """The text that a folder holds, read with nothing of the library -> training text, validation text."""
    index = json.loads((folder / "index.json").read_text())
    return [
        "".join(
            index["tokenizer"]["alphabet"][i]
            for shard in index[kind]
            for i in memoryview((folder / shard["file"]).read_bytes()).cast("H")
        )
        for kind in ("train", "val")
    ]


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize(
    "length, shard_size, val_size",
    [
        (5000, 700, 100),
        (5000, 500, 100),
        (5000, 490, 100),
        (5000, 10**6, 10**6),
        (20, 1, 1),
        (21, 3, 100),
        (1000, 450, 0),
        (1000, 500, 0),
        (1000, 300, 99),
    ],
)
def test_all_is_written_and_nothing_else(tmp_path, length, shard_size, val_size):
    text, read = written(tmp_path / "it", length, shard_size=shard_size, val_size=val_size)
    train, val = everything(tmp_path / "it")
    assert train + val == text and len(val) == min(val_size, length - int(length * 0.9))
    assert len(read) == len(train) and (
        read.val_ids is None if not val else ABC.decode(read.val_ids) == val
    )
    sizes = [shard["ids"] for shard in read.index["train"]]
    assert set(sizes[:-1]) <= {shard_size} and 0 < sizes[-1] <= shard_size
    assert sorted(path.name for path in (tmp_path / "it").iterdir()) == sorted(
        ["index.json"] + [shard["file"] for shard in read.index["train"] + read.index["val"]]
    )
    read.verify()


def test_a_file_gives_what_load_corpus_gives(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbf" + (random_text(3000) + "é—🪿\r\n" * 99 + "\rend").encode())
    corpus = load_corpus(path)
    write_shards(path, tmp_path / "it", val_size=10**6)
    assert everything(tmp_path / "it") == [corpus.train, corpus.val]
    expected = CharTokenizer.from_text(corpus.train + corpus.val)
    assert Shards(tmp_path / "it").tokenizer.to_dict() == expected.to_dict()


@pytest.mark.parametrize("piece", [1, 2, 7, 64])
def test_pieces_leave_no_seams(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(shards, "CHUNK_SIZE", piece)
    lines = ["abc\r\n" * 9 + "d\r", "", "é" * 20, "\r\n\r", "🪿 " * 9]
    expected = "\n\n".join(line.replace("\r\n", "\n").replace("\r", "\n") for line in lines)
    (tmp_path / "folder").mkdir()
    for name, line in enumerate(lines):
        (tmp_path / "folder" / f"{name}.txt").write_bytes(line.encode())
    (tmp_path / "folder" / "0.md").write_text("no text")
    for what, where in (
        (lines, "list"),
        (tmp_path / "folder", "shards"),
        (str(tmp_path / "folder"), "again"),
    ):
        write_shards(what, tmp_path / where, val_size=5, shard_size=11)
        assert "".join(everything(tmp_path / where)) == expected


def test_what_stands_between_two_texts_can_be_chosen(tmp_path):
    write_shards(iter(["abc", "", "def"] * 9), tmp_path / "it", ABC, separator="\n")
    assert "".join(everything(tmp_path / "it")) == "\n".join(["abc", "", "def"] * 9)


@pytest.mark.parametrize(
    "texts, where, character",
    [
        (["abc", "abXc"], "text 1", "'X'"),
        ([{"text": "abc"}] * 2 + [{"text": "🦆"}], "text 2", "'🦆'"),
        (["a" * 2**20 + "bbX"], "text 0, from character 1048576 on", "'X' at position 2"),
        (["ab" * 9 + "\uffff"], "text 0", "uffff"),
        (["ab" * 9, "ab" * 9, "a"], "the separator", "'\\n'"),
    ],
)
def test_an_unknown_character_is_named_with_its_text(tmp_path, texts, where, character):
    tokenizer = CharTokenizer("ab") if where == "the separator" else ABC
    with pytest.raises(ValueError) as caught:
        write_shards(texts, tmp_path / "it", tokenizer, shard_size=10**5, val_size=5)
    assert str(caught.value).startswith(where + ": character ") and character in str(caught.value)
    assert list((tmp_path / "it").iterdir()) == []


def test_the_file_with_an_unknown_character_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("abc" * 9)
    (tmp_path / "b.txt").write_text("abc?")
    with pytest.raises(ValueError, match=r"b\.txt: character '\?' at position 3"):
        write_shards(tmp_path, tmp_path / "it", ABC)


@pytest.mark.parametrize(
    "texts, message",
    [
        ([7], "^text 0 is of type int, not a string"),
        (["a", None], "^text 1 is of type NoneType"),
        ([b"abc"], "^text 0 is of type bytes"),
        ([{"story": "abc", "id": 3}], r"^text 0 is a row with the columns \['story', 'id'\]"),
        ([{"text": None}], "^text 0 is a row"),
        ({"train": ["abc"], "test": ["abc"]}, r"dict with keys \['train', 'test'\]"),
        (["abc"], "have 3 ids"),
        ([], "0 ids"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, texts, message):
    with pytest.raises(ValueError, match=message):
        write_shards(texts, tmp_path / "it", ABC)
    assert not list(tmp_path.glob("it/*"))


def test_texts_that_come_only_once_need_a_tokenizer(tmp_path):
    texts = ["abc" * 9, "def" * 9]
    for once in (iter(texts), (text for text in texts), map(str, texts)):
        with pytest.raises(ValueError, match="one-shot iterator.*pass tokenizer="):
            write_shards(once, tmp_path / "it")
        assert list(once) == texts, "nothing may have been read of it"
    write_shards(iter(texts), tmp_path / "once", ABC)
    write_shards(texts, tmp_path / "twice")
    assert everything(tmp_path / "once") == everything(tmp_path / "twice")


@pytest.mark.parametrize("name", ["nothing.txt", "empty"])
def test_a_path_that_is_none(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError, match=f"{name} is neither a file nor a folder of .txt files"
    ):
        write_shards(str(tmp_path / name), tmp_path / "it")


def test_a_file_that_is_not_utf8(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"abc" * 99 + b"caf\xe9 " * 9)
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8 \(it has a byte 0xe9\)"):
        write_shards(tmp_path / "latin.txt", tmp_path / "it", ABC)


@pytest.mark.parametrize(
    "how", [{"shard_size": 0}, {"shard_size": 2.5}, {"val_size": -1}, {"val_size": None}]
)
def test_sizes_that_are_none(tmp_path, how):
    with pytest.raises(ValueError, match=f"{[*how][0]} .*{[*how.values()][0]}"):
        write_shards(["abc" * 99], tmp_path / "it", **how)


def test_an_alphabet_too_large_for_two_bytes_gets_four(tmp_path):
    every = "".join(map(chr, range(32, 0xD800))) + "".join(map(chr, range(0xE000, 0x13000)))
    write_shards([every[-65535:]], tmp_path / "two")
    assert "".join(everything(tmp_path / "two")) == every[-65535:]
    write_shards([every[-65536:]], tmp_path / "four")
    four = Shards(tmp_path / "four")
    assert four.tokenizer.vocab_size == 65536
    ids = torch.cat([four.at(torch.arange(len(four))), four.val_ids])
    assert four.tokenizer.decode(ids) == every[-65536:]
    size = sum(path.stat().st_size for path in (tmp_path / "four").glob("*.bin"))
    assert size == 4 * 65536
    with pytest.raises(ValueError, match="text 1: character 'a'"):
        write_shards([every[-65536:], "a"], tmp_path / "bad", four.tokenizer, separator=every[-1])


def test_lone_surrogates_are_characters_like_others(tmp_path):
    write_shards(["ab\ud800" * 9], tmp_path / "it")
    assert "".join(everything(tmp_path / "it")) == "ab\ud800" * 9


def test_a_folder_with_shards_is_left_alone(tmp_path):
    written(tmp_path / "it")
    before = {path.name: path.read_bytes() for path in (tmp_path / "it").iterdir()}
    for missing in ([], ["index.json"], list(before)[1:]):
        for name in missing:
            (tmp_path / "it" / name).unlink(missing_ok=True)
        left = sorted(path.name for path in (tmp_path / "it").iterdir())
        with pytest.raises(FileExistsError, match="it already contains .*: choose another folder"):
            write_shards(["abc" * 99], tmp_path / "it", ABC)
        assert left == sorted(path.name for path in (tmp_path / "it").iterdir())
        assert all((tmp_path / "it" / name).read_bytes() == before[name] for name in left)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ConnectionError])
def test_what_breaks_on_the_way_leaves_no_shard_and_other_files_alone(tmp_path, error):
    def texts():
        yield random_text(5000)
        assert len(list(tmp_path.glob("it/*.bin"))) > 3
        raise error("now")

    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "notes.txt").write_text("mine")
    with pytest.raises(error, match="now"):
        write_shards(texts(), tmp_path / "it", ABC, shard_size=700, val_size=10)
    assert [path.name for path in (tmp_path / "it").iterdir()] == ["notes.txt"]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        if len(list(tmp_path.glob("it/*.bin"))) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=r"train-00002\.bin could not be written .*No space left.*is the disk full"
    ):
        written(tmp_path / "it")
    assert list((tmp_path / "it").iterdir()) == []


MEASURE = """
import resource, sys
from chargpt_lib.shards import *
write_shards(["warm " * 9], sys.argv[2] + "/warm")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_shards(sys.argv[1], sys.argv[2] + "/large")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere ru_maxrss has another unit, or is missing"
)
def test_200_megabytes_are_written_in_little_memory(tmp_path):
    line = random_text(10**6) + "\n"
    with open(tmp_path / "large.txt", "w") as file:
        for _ in range(200):
            file.write(line)
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "large.txt", tmp_path],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=True,
    )
    assert int(run.stdout.split()[-1]) < 70_000, "kilobytes; half of it is the buffer for one shard"
    read = Shards(tmp_path / "large")
    assert len(read) + len(read.val_ids) == 200 * len(line) and len(read.index["train"]) == 12


# ---------------------------------------------------------------- reading


def test_places_are_the_texts_places_across_all_borders(tmp_path):
    text, read = written(tmp_path / "it", shard_size=7)
    ids = ABC.encode(text)[: len(read)]
    assert torch.equal(read.at(torch.arange(len(read))), ids)
    places = torch.randint(len(read), (5, 6, 2), generator=torch.Generator().manual_seed(3))
    assert torch.equal(read.at(places), ids[places]) and read.at(places).dtype == torch.int64


def test_few_maps_are_open_at_a_time(tmp_path):
    _, read = written(tmp_path / "it", shard_size=7)
    read.at(torch.arange(len(read)))
    assert len(read.memmaps) <= 4 and len(read.index["train"]) == 700
    assert all(isinstance(mapped, numpy.memmap) for mapped in read.memmaps.values()), (
        "nothing is copied"
    )


def spoil(path, change):
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda it: it.update(version=3), "its version is 3, and this library reads 1 and 2"),
        (lambda it: it.pop("version"), "'version'"),
        (lambda it: it.pop("tokenizer"), "'tokenizer'"),
        (lambda it: it.update(version=1), "'alphabet'"),
        (lambda it: it.update(version=1, alphabet="ba"), "the alphabet must be"),
        (lambda it: it.update(version=1, alphabet=[1, 2]), "expected a tokenizer"),
        (lambda it: it.update(tokenizer={"type": "other"}), "unknown tokenizer type 'other'"),
        (lambda it: it.update(tokenizer=None), "expected a tokenizer"),
        (lambda it: it["tokenizer"].update(alphabet="ba"), "the alphabet must be"),
        (lambda it: it["tokenizer"].update(alphabet=""), "no alphabet"),
        (lambda it: it["tokenizer"].update(alphabet=["a", "b"]), "no alphabet"),
        (lambda it: it["tokenizer"].update(alphabet=[1, 2]), "no alphabet"),
        (lambda it: it["tokenizer"].update(alphabet=None), "no alphabet"),
        (lambda it: it.update(train=[]), "shards"),
        (lambda it: it.pop("train"), "'train'"),
        (lambda it: it.update(val=3), "not a valid shard index"),
        (lambda it: it.update(train={"a": 1}), "not a valid shard index"),
        (lambda it: it["train"].reverse(), "unexpected shard file name"),
        (lambda it: it["train"][1].update(file="../../x"), "unexpected shard file name"),
        (lambda it: it["train"][1].pop("ids"), "'ids'"),
        (lambda it: it["train"][1].update(ids=7.0), "id count"),
        (lambda it: it["train"][1].update(ids=True), "id count"),
        (lambda it: it["train"].append(7), "not a valid shard index"),
    ],
)
def test_an_index_that_says_something_else_is_named(tmp_path, change, message):
    written(tmp_path / "it")
    spoil(tmp_path / "it" / "index.json", change)
    with pytest.raises(ValueError) as caught:
        Shards(tmp_path / "it")
    assert f"{tmp_path / 'it' / 'index.json'}: " in str(caught.value) and message in str(
        caught.value
    )
    assert "rewrite the shards with write_shards" in str(caught.value)


def test_shards_of_earlier_versions_can_still_be_read(tmp_path):
    text, _ = written(tmp_path / "it")

    def as_before(index):
        index["alphabet"] = index.pop("tokenizer")["alphabet"]
        index["version"] = 1

    spoil(tmp_path / "it" / "index.json", as_before)
    read = Shards(tmp_path / "it")
    assert read.tokenizer.to_dict() == ABC.to_dict()
    assert torch.equal(read.at(torch.arange(len(read))), ABC.encode(text)[: len(read)])


class Pairs:
    """A tokenizer of another kind: three ids for a character, so more ids than characters."""

    vocab_size = 3 * 12
    unit = "third"

    def encode(self, text):
        ids = ABC.encode(text)[:, None] + 12 * torch.arange(3)
        return ids.flatten()

    def encode_iterable(self, texts):
        for text in texts:
            yield from self.encode(text).tolist()

    def decode(self, ids):
        return ABC.decode(torch.as_tensor(ids)[::3])

    def to_dict(self):
        return {"type": "pairs"}

    @classmethod
    def from_dict(cls, saved):
        return cls()


@pytest.mark.parametrize("piece", [7, 2**20])
def test_any_tokenizer_writes_shards(tmp_path, monkeypatch, piece):
    monkeypatch.setitem(TOKENIZERS, "pairs", f"{__name__}:Pairs")
    monkeypatch.setattr(shards, "CHUNK_SIZE", piece)
    text = random_text(900)
    write_shards([text], tmp_path / "it", Pairs(), shard_size=300, val_size=30)
    read = Shards(tmp_path / "it")
    assert type(read.tokenizer) is Pairs and len(read) == 2670
    ids = torch.cat([read.at(torch.arange(len(read))), read.val_ids])
    assert torch.equal(ids, Pairs().encode(text)) and read.tokenizer.decode(ids) == text
    with pytest.raises(ValueError, match="text 1: character 'X'"):
        write_shards(["abc", "abX"], tmp_path / "bad", Pairs())


PLAY = write(min_chars=4000).text
BPE = BPETokenizer.train(PLAY, 400, special_tokens=["<|endoftext|>"])


@pytest.mark.parametrize("piece", [7, 1000, 2**20])
def test_a_token_is_not_cut_by_the_end_of_a_piece(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(shards, "CHUNK_SIZE", piece)
    monkeypatch.setattr(files, "PIECE_SIZE", piece)
    (tmp_path / "play.txt").write_text(PLAY, encoding="utf-8")
    texts = [PLAY, PLAY[1000:]]
    for source, wanted in (
        (tmp_path / "play.txt", BPE.encode(PLAY)),
        (texts, torch.cat([BPE.encode(part) for part in (texts[0], "\n\n", texts[1])])),
    ):
        folder = tmp_path / f"{type(source).__name__}-{len(wanted)}"
        write_shards(source, folder, BPE, shard_size=300, val_size=30)
        read = Shards(folder)
        ids = torch.cat([read.at(torch.arange(len(read))), read.val_ids])
        assert torch.equal(ids, wanted)
        assert read.tokenizer.to_dict() == BPE.to_dict()


def test_a_special_token_stands_between_texts(tmp_path):
    write_shards(["O damp goose!", "O goose!"] * 3, tmp_path / "it", BPE, separator="<|endoftext|>")
    read = Shards(tmp_path / "it")
    ids = torch.cat([read.at(torch.arange(len(read))), read.val_ids])
    assert (ids == BPE.special_tokens["<|endoftext|>"]).sum() == 5


def test_what_cannot_be_encoded_or_read_is_named_once(tmp_path):
    with pytest.raises(ValueError, match=r"^text 1: '\\ud800' is no character"):
        write_shards(["abc" * 9, "\ud800"], tmp_path / "it", BPE)
    (tmp_path / "latin.txt").write_bytes(b"abc" * 99 + b"caf\xe9 " * 9)
    with pytest.raises(ValueError, match="is not UTF-8") as caught:
        write_shards(tmp_path / "latin.txt", tmp_path / "it", BPE)
    assert str(caught.value).count("latin.txt") == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b"null", b"\xff\xfe", b"[" * 100_000, b"\x80\x04K\x01."]
)
def test_an_index_that_is_none_is_named(tmp_path, content):
    written(tmp_path / "it")
    (tmp_path / "it" / "index.json").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"index\.json: this is not a valid shard index .* Copy it again"
    ):
        Shards(tmp_path / "it")


def test_without_an_index_it_was_never_finished(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no index.json: .*write_shards"):
        Shards(tmp_path)
    written(tmp_path / "it")
    (tmp_path / "it" / "index.json").unlink()
    with pytest.raises(FileNotFoundError, match="it has no index.json: .*did not finish"):
        Shards(tmp_path / "it")


@pytest.mark.parametrize("file", ["train-00000.bin", "train-00003.bin", "val-00000.bin"])
@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda path: path.unlink(), "the file is missing; index.json lists"),
        (lambda path: path.write_bytes(b""), "the file has 0 bytes"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "but index.json says"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0\0"), "but index.json says"),
        (lambda path: (path.unlink(), path.mkdir()), "the file is missing"),
    ],
)
def test_a_shard_of_another_length_is_named_when_the_folder_is_opened(
    tmp_path, file, damage, message
):
    written(tmp_path / "it")
    damage(tmp_path / "it" / file)
    with pytest.raises(ValueError) as caught:
        Shards(tmp_path / "it")
    assert str(caught.value).startswith(f"{tmp_path / 'it' / file}: ") and message in str(
        caught.value
    )


def test_zero_ids_are_no_shard(tmp_path):
    written(tmp_path / "it")
    (tmp_path / "it" / "train-00001.bin").write_bytes(b"")
    spoil(tmp_path / "it" / "index.json", lambda it: it["train"][1].update(ids=0))
    with pytest.raises(ValueError, match=r"train-00001\.bin: "):
        Shards(tmp_path / "it")


def test_an_id_without_a_character_is_named_when_it_is_read(tmp_path):
    written(tmp_path / "it")
    path = tmp_path / "it" / "train-00002.bin"
    path.write_bytes(path.read_bytes()[:-2] + b"\x0c\0")
    read = Shards(tmp_path / "it")
    assert read.at(torch.arange(2 * 700, 3 * 700 - 1)).max() < 12
    with pytest.raises(ValueError, match=r"train-00002\.bin: it contains id 12, but"):
        read.windows(16, 1).batch(0, read.windows(16, 1).count)


def test_verify_finds_any_changed_byte(tmp_path):
    _, read = written(tmp_path / "it")
    read.verify()
    for shard in read.index["train"] + read.index["val"]:
        path = tmp_path / "it" / shard["file"]
        good = path.read_bytes()
        path.write_bytes(good[:8] + bytes([good[8] ^ 1]) + good[9:])
        with pytest.raises(ValueError, match=f"{path.name}: its content is not what was written"):
            read.verify()
        path.write_bytes(good)
    read.verify()


# ---------------------------------------------------------------- windows

SHAPES = [
    (5000, 700, 16),
    (1000, 7, 16),
    (400, 1, 3),
    (5000, 10**6, 16),
    (300, 64, 1),
    (1000, 300, 890),
    (1000, 300, 500),
    (1000, 899, 100),
]


@pytest.mark.parametrize("length, shard_size, T", SHAPES)
def test_each_window_once_an_epoch_and_other_cuts_in_each(tmp_path, length, shard_size, T):
    text, read = written(tmp_path / "it", length, shard_size=shard_size, val_size=100)
    ids, windows = ABC.encode(text)[: len(read)], read.windows(T, seed=5)
    assert windows.count == ShuffledWindows(ids, T, seed=5).count
    cuts = set()
    for epoch in range(6):
        starts = windows.starts(epoch * windows.count, windows.count)
        x, y = windows.batch(epoch * windows.count, windows.count)
        assert torch.equal(x, torch.stack([ids[start : start + T] for start in starts.tolist()]))
        assert torch.equal(
            y, torch.stack([ids[start + 1 : start + T + 1] for start in starts.tolist()])
        )
        ordered = starts.sort().values
        assert ordered[0] >= 0 and ordered[-1] + T < len(read) and (ordered.diff() == T).all()
        assert len(read) - T * windows.count < 2 * T + 1
        cuts.add(ordered[0].item())
    assert len(cuts) > 1 or len(read) - T * windows.count == 1


@pytest.mark.parametrize("size", [1, 3, 50, 700])
def test_the_number_of_windows_seen_is_all_that_a_run_must_remember(tmp_path, size):
    _, read = written(tmp_path / "it")
    one, batches = read.windows(16, seed=5), range(0, 3 * 305, size)
    expected = torch.cat([one.batch(k, 1)[0] for k in range(batches[-1] + size)])
    assert torch.equal(torch.cat([one.batch(seen, size)[0] for seen in batches]), expected)
    for seen in (batches[-1], 0, batches[len(batches) // 2]):
        x, y = Shards(tmp_path / "it").windows(16, seed=5).batch(seen, size)
        assert torch.equal(x, expected[seen : seen + size]) and (x.dtype, x.shape) == (
            torch.int64,
            (size, 16),
        )
        assert x.shape == y.shape and y.device.type == "cpu"


def test_one_shard_after_the_other_and_all_of_it_shuffled(tmp_path):
    _, read = written(tmp_path / "it", 50_000, shard_size=5000)
    windows, orders = read.windows(16, seed=5), []
    for epoch in range(3):
        starts = windows.starts(epoch * windows.count, windows.count)
        shard = starts // 5000
        turns, lengths = shard.unique_consecutive(return_counts=True)
        assert sorted(turns.tolist()) == list(range(10)), "each shard has one turn"
        for part in starts.split(lengths.tolist()):
            assert not torch.equal(part, part.sort().values)
            inversions = (part[:, None] > part).triu(1).double().sum() / (
                len(part) * (len(part) - 1) / 2
            )
            assert 0.4 < inversions < 0.6, "a shuffled pile is half in order"
        orders.append(tuple(turns.tolist()))
    assert len(set(orders)) == 3


def test_seeds_differ_and_the_same_seed_does_not(tmp_path):
    _, read = written(tmp_path / "it")
    first = [
        tuple(read.windows(16, seed).starts(0, 300).tolist())
        for seed in (1, *range(100), 1337, 2**31, 2**32 - 1)
    ]
    assert first[0] == first[2] and len(set(first)) == len(first) - 1


@pytest.mark.parametrize("ranks, size", [(2, 8), (3, 5), (7, 1)])
def test_ranks_read_what_one_process_would_read_and_nothing_twice(tmp_path, ranks, size):
    _, read = written(tmp_path / "it")
    own, alone = [Shards(tmp_path / "it").windows(16, 5) for _ in range(ranks)], read.windows(16, 5)
    starts = []
    for seen in range(0, alone.count - ranks * size + 1, ranks * size):
        parts = [own[rank].batch(seen + rank * size, size) for rank in range(ranks)]
        whole = alone.batch(seen, ranks * size)
        assert all(torch.equal(torch.cat(part), want) for part, want in zip(zip(*parts), whole))
        starts += [own[rank].starts(seen + rank * size, size) for rank in range(ranks)]
    assert len(torch.cat(starts).unique()) == len(torch.cat(starts)) > alone.count - ranks * size


def test_too_little_text_for_a_window_is_said_at_once(tmp_path):
    _, read = written(tmp_path / "it", 200, val_size=20)
    assert read.windows(179, seed=1).count == 1
    with pytest.raises(ValueError, match="has 180 ids, .* = 181: .* block_size <= 179"):
        read.windows(180, seed=1)


def test_memory_holds_the_order_of_one_shard_alone(tmp_path):
    _, read = written(tmp_path / "it", 50_000, shard_size=5000)
    windows = read.windows(16, seed=5)
    for seen in range(0, 2 * windows.count, 64):
        windows.batch(seen, 64)
        assert sum(len(starts) for starts in windows.shuffled.values()) <= 5000 // 16 + 1


# ---------------------------------------------------------------- Hugging Face's datasets


@pytest.fixture
def datasets(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    return pytest.importorskip("datasets")


def test_datasets_streamed_or_not(tmp_path, datasets):
    texts = [random_text(100 + k, seed=k) for k in range(50)]
    rows = datasets.Dataset.from_dict({"text": texts, "author": ["grammar"] * 50})
    for name, data, tokenizer in (
        ("whole", rows, None),
        ("stream", rows.to_iterable_dataset(), None),
        ("parts", rows.to_iterable_dataset(num_shards=3), ABC),
    ):
        write_shards(data, tmp_path / name, tokenizer, shard_size=1000)
        assert "".join(everything(tmp_path / name)) == "\n\n".join(texts), name
    mixed = rows.to_iterable_dataset().shuffle(seed=3, buffer_size=10)
    write_shards(mixed, tmp_path / "mixed", separator="\n\n")
    assert sorted("".join(everything(tmp_path / "mixed"))) == sorted("\n\n".join(texts))
    with pytest.raises(ValueError, match=r"text 0 is a row with the columns \['author'\]"):
        write_shards(rows.remove_columns("text"), tmp_path / "none")
    with pytest.raises(ValueError, match=r"dict with keys \['train', 'test'\]"):
        write_shards(rows.train_test_split(0.5), tmp_path / "none")


def test_load_dataset_streams_the_lines_of_text_files(tmp_path, datasets):
    lines = [random_text(60, seed=k, alphabet="abcdef ").strip() or "a" for k in range(200)]
    (tmp_path / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    data = datasets.load_dataset(
        "text",
        data_files=str(tmp_path / "lines.txt"),
        split="train",
        streaming=True,
        cache_dir=str(tmp_path / "cache"),
    )
    write_shards(data, tmp_path / "it", shard_size=1000, separator="\n")
    assert "".join(everything(tmp_path / "it")) == "\n".join(lines)
