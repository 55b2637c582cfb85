"""Files as decompressed bytes and as decoded lines; what a file is, its first bytes say."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import pyarrow as pa

from supmer import storage
from supmer.readers import skipped as limits
from supmer.readers.files import InputFile, escaped
from supmer.readers.skipped import Skipped

MAGIC = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"PK\x03\x04", "zip"),
)
"""First bytes of compressed files."""

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte-order marks."""

MAX_LAYERS = 3
"""Of compression, one within the other."""

BUFFER_BYTES, PART_BYTES, HEAD_BYTES = 1 << 20, 1 << 20, 4096
ESCAPED = re.compile("[\udc80-\udcff]")
"""What `surrogateescape` makes of bytes that are not of the encoding."""


def open_file(file: InputFile) -> Any:
    """Open a file for reading at any place, without decompression."""
    if escaped(file.path) != file.path:  # pyarrow opens files by names that are UTF-8
        return pa.PythonFile(open(file.path, "rb"))
    filesystem, _ = storage.resolve(file.source)
    return filesystem.open_input_file(file.path)


def open_decompressed(file: InputFile) -> BinaryIO:
    """Open a file for reading from its start; compression is found by the first bytes, whatever the file's name.

    gzip, bz2 and xz are read by the standard library, which hands out all data before a truncation.

    Raises:
        OSError: the file cannot be opened, or is a zip archive of several files.
    """
    stream: Any = io.BufferedReader(open_file(file), BUFFER_BYTES)
    for _ in range(MAX_LAYERS):
        head = stream.peek(10)[:10]
        kind = next((kind for magic, kind in MAGIC if head.startswith(magic)), None)
        if kind == "gzip":
            stream = gzip.GzipFile(fileobj=stream, mode="rb")
        elif kind == "bz2" and head[4:] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
            stream = bz2.BZ2File(stream)
        elif kind == "xz":
            stream = lzma.LZMAFile(stream)  # noqa: SIM115  (the caller closes it)
        elif kind in ("zstd", "lz4"):
            stream = io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(stream, "r"), kind), BUFFER_BYTES)
        elif kind == "zip":
            archive = zipfile.ZipFile(stream)
            names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
            if len(names) != 1:
                raise OSError(f"is a zip archive of {len(names)} files, must hold one")
            stream = archive.open(names[0])
        else:
            break
    return cast(BinaryIO, stream)


class Lines:
    """Decoded lines of a file, each with its end.

    A file's byte-order mark decides the encoding; else `encoding` does, or what UTF-16 without a mark looks like, or UTF-8.
    Lines that are too long are counted and passed over. Lines that are not valid are given with their bytes escaped
    (``surrogateescape``): who reads them counts what they spoil, a line or a row.

    Attributes:
        in_parts: whether a line that is too long, from now on, is given in parts instead; only its last part has a line end.
        number: of the line that was given last, from 1.
        is_valid: whether that line could be decoded.
    """

    def __init__(self, file: InputFile, encoding: str | None, skipped: Skipped) -> None:
        self.file = file
        self.encoding = encoding
        self.skipped = skipped
        self.number = self.num_invalid = 0
        self.in_parts, self.is_valid = False, True

    def __iter__(self) -> Iterator[str]:
        with open_decompressed(self.file) as stream:
            head = cast(Any, stream).peek(HEAD_BYTES)[:HEAD_BYTES]
            mark, encoding = next(((mark, name) for mark, name in MARKS if head.startswith(mark)), (b"", self.encoding))
            stream.read(len(mark))
            half = len(head) // 2
            for name, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
                # As in Western text every other byte is mostly zero.
                if encoding is None and half and zeros.count(0) > 0.8 * half and head.count(0) < 1.2 * half:
                    encoding = name
            encoding = encoding or "utf-8"
            if encoding != "utf-8":
                self.skipped.add_read_as(f"encoding {encoding}", 1, [self.file.name])
            is_ascii_like = "\n".encode(encoding) == b"\n"
            start = head[len(mark) :].decode(encoding, "ignore")
            newline = "\r" if "\r" in start and "\n" not in start else "\n"
            if is_ascii_like and newline == "\n":
                yield from self._of_bytes(stream, encoding)
            else:
                yield from self._of_text(stream, encoding, "surrogateescape" if is_ascii_like else "replace", newline)

    def _of_bytes(self, stream: BinaryIO, encoding: str) -> Iterator[str]:
        """Lines of an encoding in which a line feed is one byte: each is decoded for itself."""
        limit = limits.MAX_ROW_BYTES
        while line := stream.readline(limit):
            self.number += 1
            if len(line) == limit and not line.endswith(b"\n"):
                if not self.in_parts:
                    self._pass_over(stream)
                    continue
                decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
                while line:
                    yield decoder.decode(line)
                    line = b"" if line.endswith(b"\n") else stream.readline(PART_BYTES)
                if rest := decoder.decode(b"", final=True):
                    yield rest
                continue
            try:
                text = line.decode(encoding)
            except UnicodeDecodeError:
                self.is_valid = False
                self.num_invalid += 1
                yield line.decode("utf-8" if encoding == "utf-8" else "ascii", "surrogateescape")
                self.is_valid = True
            else:
                yield text

    def _of_text(self, stream: BinaryIO, encoding: str, errors: str, newline: str) -> Iterator[str]:
        """Lines of UTF-16, UTF-32 and the like, and of files with the line ends of old."""
        text = io.TextIOWrapper(stream, encoding, errors, newline)
        while line := text.readline(limits.MAX_ROW_BYTES):
            self.number += 1
            if len(line) == limits.MAX_ROW_BYTES and not line.endswith(newline):
                self._pass_over(text)
                continue
            self.is_valid = not ESCAPED.search(line)
            self.num_invalid += not self.is_valid
            if "\ufffd" in line:
                self.skipped["replaced_letters"] += 1
            yield line.removesuffix(newline) + "\n" if newline == "\r" else line

    def _pass_over(self, stream: Any) -> None:
        self.skipped.add("too_long", self.file.name, self.number)
        while (rest := stream.readline(PART_BYTES)) and rest[-1] not in ("\n", "\r", 10):
            pass
