"""The bytes of a submission: a file on the disk, or a file within a zip, which is read and never
unpacked to the disk.

A zip comes from a stranger, and what it says about itself may be a lie. So everything has a limit:
how many files it lists, how long that list is, how large each file is, how large all of them are,
and how deep zips lie within zips.
"""

import io
import re
import stat
import threading
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

MAX_NOTEBOOK_BYTES = 2**26  # of a notebook, and of a zip within a zip
MAX_ZIP_ENTRIES = 50_000
MAX_DIRECTORY_BYTES = 2**23  # of a zip's list of its files
MAX_UNPACKED_BYTES = 2**32  # of all files of a zip that would be read: a class
MAX_INNER_UNPACKED_BYTES = 2**28  # the same for a zip within a zip: one learner's
MAX_ZIP_DEPTH = 2  # a learner's zip in the zip of a class
CHUNK_BYTES = 2**20

ENCRYPTED = 0x1  # bits of a zip entry's flags
NAME_IS_UTF8 = 0x800


class ZipMember(NamedTuple):
    """A file within a zip."""

    path: Path  # the zip on the disk
    # The place in the zip's list; before it, that of the zip around it, if there is one.
    indexes: tuple
    member: str  # its path within the zip, as people read it


class ZipEntry(NamedTuple):
    """A file as a zip lists it."""

    index: int
    name: str
    size: int  # unpacked, as the zip says
    problem: str | None  # why it is not read


# ---------------------------------------------------------------- zips


class _ShortReads:
    """A file, for zipfile, that refuses long reads: zipfile reads a zip's list at once, however
    long it claims to be.
    """

    def __init__(self, file):
        self.file = file
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable

    def read(self, size=-1):
        if size < 0 or size > MAX_DIRECTORY_BYTES:
            size = MAX_DIRECTORY_BYTES + 1
        data = self.file.read(size)
        if len(data) > MAX_DIRECTORY_BYTES:
            raise ValueError(f"its list of files has more than {MAX_DIRECTORY_BYTES >> 20} MB")
        return data


def _open_zip(file):
    """The ZipFile in an open file. Raises: ValueError where it is none, or a broken one."""
    try:
        return zipfile.ZipFile(_ShortReads(file))
    except Exception as error:  # a stranger's bytes may break zipfile in any way
        raise ValueError(
            f"a broken zip ({str(error)[:100]}): ask for the notebook itself"
        ) from None


def _entry_name(info):
    """The name of a file in a zip.

    Many programs write UTF-8 and forget to say so; zipfile then reads another alphabet.
    """
    name = info.filename
    if not info.flag_bits & NAME_IS_UTF8:
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    # Some programs on Windows write \ between folders.
    return name.replace("\\", "/")


def _entry_problem(info, name):
    """Why a file in a zip is not read, or None."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        return "its path leads out of the zip: ask for the notebook itself"
    if kind not in (0, stat.S_IFREG):
        return "not a file: links in a zip are not followed"
    if info.flag_bits & ENCRYPTED:
        return "encrypted: ask for it without a password"
    # The others, bzip2 and LZMA, unpack without limit in Python's zipfile.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "packed by a method that is not read here: ask for an ordinary zip"
    if info.file_size > MAX_NOTEBOOK_BYTES:
        return (
            f"it has {info.file_size >> 20} MB; a notebook of this course has less than "
            f"{MAX_NOTEBOOK_BYTES >> 20}"
        )
    return None


def _list_entries(archive):
    """The files, not the folders, of an open zip. Raises: ValueError where there are too many."""
    infos = archive.infolist()
    if len(infos) > MAX_ZIP_ENTRIES:
        raise ValueError(
            f"the zip has {len(infos):,} files; the limit is {MAX_ZIP_ENTRIES:,}: "
            "ask for the notebook itself"
        )
    entries = []
    for index, info in enumerate(infos):
        name = _entry_name(info)
        if not name.endswith("/"):
            entries.append(ZipEntry(index, name, info.file_size, _entry_problem(info, name)))
    return entries


def _read_entry(archive, index):
    """The bytes of a file in an open zip.

    Raises: ValueError where it is broken, larger than it may be, or not read.
    """
    try:
        info = archive.infolist()[index]
    except IndexError:
        raise ValueError("the zip has changed in the meantime: grade again") from None
    problem = _entry_problem(info, _entry_name(info))
    if problem is not None:
        raise ValueError(problem)
    chunks = []
    size = 0
    try:
        with archive.open(info) as file:
            while chunk := file.read(CHUNK_BYTES):
                chunks.append(chunk)
                size += len(chunk)
                if size > MAX_NOTEBOOK_BYTES:
                    raise ValueError("it is larger than the zip says")
    except Exception as error:  # as above
        raise ValueError(
            f"broken within its zip ({str(error)[:100]}): ask for the notebook itself"
        ) from None
    return b"".join(chunks)


class _LastZip(threading.local):
    """The zip that this thread has read last: it stays open, so that its list is not read again for
    each of its files.
    """

    key = None
    archive = None
    stack = None


LAST_ZIP = _LastZip()


def _open_innermost(path, indexes):
    """The ZipFile on the disk or, where there are indexes, the one within. It stays open until the
    next one is opened.

    Raises: ValueError where one of them is broken; OSError where the file cannot be read.
    """
    state = path.stat()
    key = (path, state.st_mtime_ns, state.st_size, indexes)
    if LAST_ZIP.key == key:
        return LAST_ZIP.archive
    if LAST_ZIP.stack is not None:
        LAST_ZIP.stack.close()
        LAST_ZIP.key = None
    with ExitStack() as stack:
        file = stack.enter_context(open(path, "rb"))
        archive = stack.enter_context(_open_zip(file))
        for index in indexes:
            data = _read_entry(archive, index)
            archive = stack.enter_context(_open_zip(io.BytesIO(data)))
        LAST_ZIP.stack = stack.pop_all()
    LAST_ZIP.archive = archive
    LAST_ZIP.key = key
    return archive


def list_zip(source, will_be_read):
    """The ZipEntry of each file in a zip, which is a path or a ZipMember.

    will_be_read: tells from a name whether the file is one to be read; only these count towards the
    limit of bytes.

    Raises: ValueError where the zip is broken or too large; OSError where it cannot be read.
    """
    if isinstance(source, ZipMember):
        path = source.path
        indexes = source.indexes
        limit = MAX_INNER_UNPACKED_BYTES
    else:
        path = source
        indexes = ()
        limit = MAX_UNPACKED_BYTES
    entries = _list_entries(_open_innermost(path, indexes))
    size = sum(entry.size for entry in entries if will_be_read(entry.name))
    if size > limit:
        raise ValueError(
            f"the zip unpacks to {size >> 20:,} MB; the limit is {limit >> 20:,}: "
            "ask for the notebook itself"
        )
    return entries


# ---------------------------------------------------------------- a file, wherever it lies


def read_source(source, limit=MAX_NOTEBOOK_BYTES):
    """The bytes of a path or a ZipMember.

    Raises: ValueError where it is no file, or too large; OSError where it cannot be read.
    """
    if isinstance(source, ZipMember):
        archive = _open_innermost(source.path, source.indexes[:-1])
        data = _read_entry(archive, source.indexes[-1])
        size = len(data)
    else:
        path = Path(source)
        if path.is_symlink() or not path.is_file():
            raise ValueError("not a file: links and folders are not followed")
        size = path.stat().st_size
        if size <= limit:
            data = path.read_bytes()
    if size > limit:
        raise ValueError(
            f"the file has {size >> 20} MB; a notebook of this course has less than {limit >> 20}"
        )
    return data
