"""Where files lie, every way a download can go wrong, and files that are written whole or not at all."""

import errno
import json
import os
from hashlib import sha256
from pathlib import Path

import pooch
import pytest
from safetensors import SafetensorError

from chargpt_lib import files
from chargpt_lib.data import DOWNLOADABLE_CORPORA, load_corpus
from chargpt_lib.files import (
    atomic_folder,
    atomic_write,
    atomic_write_text,
    bundled_dir,
    bundled_results,
    cache_dir,
    fetch,
    read_json,
    write_json,
)

# ---------------------------------------------------------------- places


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    assert cache_dir() == tmp_path / "cache" and cache_dir().is_dir()
    monkeypatch.delenv("CHARGPT_CACHE")
    monkeypatch.setattr(files, "library_dir", lambda: tmp_path / "checkout" / "chargpt_lib")
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "pyproject.toml").touch()
    assert cache_dir() == tmp_path / "checkout" / "data" / "cache" and cache_dir().is_dir()


def test_without_a_checkout_the_cache_is_the_users(tmp_path, monkeypatch):
    monkeypatch.delenv("CHARGPT_CACHE")
    monkeypatch.setattr(files, "library_dir", lambda: tmp_path / "site-packages" / "chargpt_lib")
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "user" / name)
    assert cache_dir() == tmp_path / "user" / "chargpt" and cache_dir().is_dir()


def test_what_comes_with_the_course_is_in_the_checkout_or_else_in_the_library(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(files, "library_dir", lambda: tmp_path / "chargpt_lib")
    assert bundled_dir() == tmp_path / "chargpt_lib" / "assets" and bundled_results() == {}
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "data" / "results").mkdir(parents=True)
    (tmp_path / "data" / "results" / "ladder.json").write_text('{"toy": {"GPT": {"loss": 2.0}}}')
    assert bundled_dir() == tmp_path / "data" and bundled_results() == {
        "toy": {"GPT": {"loss": 2.0}}
    }


# ---------------------------------------------------------------- downloads

TEXT = b"Toby: O damp egg!\nMeg: You egg!\nExeunt, riding the egg.\n"


@pytest.fixture
def book(site, monkeypatch):
    """The site, with a book that `load_corpus("tiny")` knows."""
    monkeypatch.delenv("CHARGPT_DATA", raising=False)
    monkeypatch.setitem(
        DOWNLOADABLE_CORPORA,
        "tiny",
        ("tiny.txt", sha256(TEXT).hexdigest(), 0.6, f"{site.address}/tiny.txt"),
    )
    site.pages["/tiny.txt"] = TEXT
    return site


def kept():
    return [path.read_bytes() for path in cache_dir().rglob("*") if path.is_file()]


def test_a_book_is_downloaded_once(book):
    first = load_corpus("tiny")
    assert first == ("tiny", TEXT[:33].decode(), TEXT[33:].decode(), None, ())
    assert load_corpus("tiny") == first and book.asked == ["/tiny.txt"] and kept() == [TEXT]


def test_a_damaged_download_is_replaced(book):
    load_corpus("tiny")
    [path] = [path for path in cache_dir().rglob("*") if path.is_file()]
    path.write_bytes(TEXT[:20])
    assert load_corpus("tiny").train == TEXT[:33].decode() and book.asked == 2 * ["/tiny.txt"]


def vanish(site):
    site.pages.clear()


def break_off(site):
    site.missing = 9


def change(site):
    site.pages["/tiny.txt"] += b"!"


@pytest.mark.parametrize(
    "damage, known",
    [(vanish, True), (vanish, False), (break_off, True), (break_off, False), (change, True)],
)
def test_a_download_that_fails_leaves_nothing_and_says_how_to_go_on(damage, known, book):
    damage(book)
    with pytest.raises(OSError) as error:
        load_corpus("tiny" if known else f"{book.address}/tiny.txt")
    assert all(
        said in str(error.value)
        for said in ("tiny.txt", f"{book.address}/tiny.txt", "CHARGPT_DATA", "'playhouse'")
    )
    assert kept() == []
    book.pages["/tiny.txt"], book.missing = TEXT, 0
    assert load_corpus("tiny").train and kept() == [TEXT]


def test_a_book_on_the_shelf_needs_no_network(book, tmp_path, monkeypatch):
    (tmp_path / "tiny.txt").write_bytes(TEXT)
    monkeypatch.setenv("CHARGPT_DATA", str(tmp_path))
    assert load_corpus("tiny").val == TEXT[33:].decode() and not book.asked and kept() == []
    monkeypatch.setenv("CHARGPT_DATA", str(tmp_path / "another"))
    assert load_corpus("tiny").val == TEXT[33:].decode() and book.asked == ["/tiny.txt"]


def test_a_wrong_book_on_the_shelf_is_refused_and_left_alone(book, tmp_path, monkeypatch):
    (tmp_path / "tiny.txt").write_bytes(TEXT[:-1])
    monkeypatch.setenv("CHARGPT_DATA", str(tmp_path))
    with pytest.raises(OSError) as error:
        load_corpus("tiny")
    assert all(
        said in str(error.value)
        for said in (str(tmp_path / "tiny.txt"), "sha256", sha256(TEXT).hexdigest())
    )
    assert (tmp_path / "tiny.txt").read_bytes() == TEXT[:-1] and not book.asked and kept() == []


def test_two_addresses_are_two_texts(book):
    book.pages |= {"/a/input.txt": b"a" * 50, "/b/input.txt": b"b" * 100}
    for letter, size in (("a", 50), ("b", 100), ("a", 50)):
        address = f"{book.address}/{letter}/input.txt"
        assert load_corpus(address) == (
            address,
            letter * (size * 9 // 10),
            letter * (size // 10),
            None,
            (),
        )
    assert sorted(book.asked) == ["/a/input.txt", "/b/input.txt"]


def test_a_file_without_a_known_sha256_is_found_in_the_folder_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "any.txt").write_text("mine")
    monkeypatch.setenv("CHARGPT_DATA", str(tmp_path))
    assert fetch("any.txt", "http://127.0.0.1:9/any.txt") == tmp_path / "any.txt"


# ---------------------------------------------------------------- whole or not at all


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_and_one_written_over(tmp_path):
    for text in ("first, with \r\n and é\n", "second"):
        atomic_write_text(tmp_path / "a", text)
        assert (tmp_path / "a").read_bytes() == text.encode()
    assert names(tmp_path) == ["a"]
    atomic_write(str(tmp_path / "a"), lambda path: path.write_bytes(b"\0"))
    assert (tmp_path / "a").read_bytes() == b"\0"


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    (tmp_path / "a").write_text("old")

    def write(temporary):
        temporary.write_text("half")
        assert (tmp_path / "a").read_text() == "old" and temporary.parent == tmp_path
        temporary.write_text("new")

    atomic_write(tmp_path / "a", write)
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed"),
        SafetensorError("I/O error"),
    ],
    ids=["OSError", "torch", "safetensors"],
)
def test_a_full_disk_is_an_oserror_and_leaves_the_old_file(error, tmp_path):
    def full(temporary):
        temporary.write_text("half")
        raise error

    (tmp_path / "a").write_text("old")
    with pytest.raises(
        OSError, match=r"a could not be written \(.*: is the disk full\?.*still there"
    ):
        atomic_write(tmp_path / "a", full)
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, TypeError, MemoryError])
def test_whatever_else_breaks_a_write_is_raised_as_it_is(error, tmp_path):
    def broken(temporary):
        temporary.write_text("half")
        raise error("now")

    (tmp_path / "a").write_text("old")
    with pytest.raises(error, match="now"):
        atomic_write(tmp_path / "a", broken)
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a"]


def test_the_data_are_on_the_disk_before_the_name_and_then_the_name(tmp_path, monkeypatch):
    log, real = [], {"fsync": os.fsync, "replace": os.replace}

    def fsync(descriptor):
        kind = "folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "data"
        log.append(f"fsync {kind}")
        real["fsync"](descriptor)

    def replace(old, new):
        log.append("replace")
        real["replace"](old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    atomic_write_text(tmp_path / "a", "text")
    if Path("/proc/self/fd").is_dir():
        assert log == ["fsync data", "replace", "fsync folder"]
    else:
        assert log[1] == "replace"


def test_json_is_written_whole_and_half_of_it_is_nothing(tmp_path):
    write_json(tmp_path / "a.json", {"é": [1, None, "\ud800"]})
    assert read_json(tmp_path / "a.json") == {"é": [1, None, "\ud800"]}
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"é": [1, None, "\ud800"]}
    for content in (b"", b'{"a": ', b"\xff"):
        (tmp_path / "a.json").write_bytes(content)
        assert read_json(tmp_path / "a.json") == {}
    assert read_json(tmp_path / "nothing.json") == {}


def test_a_folder_gets_its_name_when_it_is_whole(tmp_path):
    with atomic_folder(tmp_path / "new" / "model") as folder:
        (folder / "weights").write_text("many")
        assert not (tmp_path / "new" / "model").exists()
    assert (tmp_path / "new" / "model" / "weights").read_text() == "many"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]


def test_of_a_folder_that_failed_nothing_is_left(tmp_path):
    (tmp_path / "model.part").mkdir()  # of a process that was killed
    (tmp_path / "model.part" / "old").touch()
    with pytest.raises(OSError, match="disk"):
        with atomic_folder(tmp_path / "model") as folder:
            assert list(folder.iterdir()) == []
            (folder / "weights").write_text("half")
            raise OSError("the disk is full")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_not_replaced(tmp_path):
    (tmp_path / "empty").mkdir()
    with atomic_folder(tmp_path / "empty") as folder:
        (folder / "weights").touch()
    for taken in (tmp_path / "empty", tmp_path / "empty" / "weights"):
        with pytest.raises(FileExistsError, match="is not an empty folder"):
            with atomic_folder(taken):
                raise AssertionError("nothing may be written")
    assert [path.name for path in tmp_path.rglob("*")] == ["empty", "weights"]
