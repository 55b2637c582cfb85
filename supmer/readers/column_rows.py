"""Rows of Parquet and Arrow files: columns within structs, lists, bytes; a value that cannot be decoded costs its row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from supmer.readers.files import InputFile
from supmer.readers.skipped import Skipped
from supmer.readers.streams import open_file
from supmer.readers.values import INVALID, decoded

ROWS_AT_ONCE = 256
ARROW_FILE = b"ARROW1"
"""First bytes of an Arrow file (Feather); `datasets` saves streams, which have none."""


def read_schema(file: InputFile) -> pa.Schema:
    """Return the schema of a Parquet or Arrow file."""
    with open_file(file) as stream:
        return pq.read_schema(stream) if file.format == "parquet" else _open_arrow(stream).schema


def columns_of(schema: pa.Schema) -> dict[str, tuple[list[str], pa.DataType]]:
    """Return the names that lead to each column, and its type, by path: ``id``, and within structs ``meta.text``.

    A column whose own name is ``meta.text`` comes before a field of the struct ``meta``.
    """
    found: dict[str, tuple[list[str], pa.DataType]] = {}

    def look(fields: Iterable[pa.Field], above: list[str]) -> None:
        for field in fields:
            path = [*above, field.name]
            known, _ = found.get(".".join(path), (None, None))
            if known is None or len(path) < len(known):
                found[".".join(path)] = path, field.type
            if pa.types.is_struct(field.type):
                look(field.type, path)

    look(schema, [])
    return found


def is_text(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type are read as text: strings, bytes, lists of them."""
    types = pa.types
    if types.is_dictionary(kind):
        return is_text(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return is_text(kind.value_type)
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    return any(test(kind) for test in tests) or types.is_binary_view(kind) or types.is_null(kind)


def column_rows(
    file: InputFile, columns: Sequence[str], encoding: str | None, skipped: Skipped
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number from 0, values) of each row of a Parquet or Arrow file; columns that there are not are left out.

    Rows with a value that cannot be decoded are counted.
    """
    with open_file(file) as stream:
        if file.format == "parquet":
            table = pq.ParquetFile(stream)
            schema = table.schema_arrow
            there = [column for column in columns if column in columns_of(schema)]
            batches = table.iter_batches(ROWS_AT_ONCE, columns=there if columns else None)
        else:
            reader = _open_arrow(stream)
            schema, batches = reader.schema, reader
            if isinstance(reader, ipc.RecordBatchFileReader):
                batches = map(reader.get_batch, range(reader.num_record_batches))
        known = columns_of(schema)
        paths = {column: known[column][0] for column in columns or schema.names if column in known}
        row = 0
        for batch in batches:
            arrays = []
            for path in paths.values():
                array = batch.column(path[0])
                if file.format == "arrow":  # lies in memory as it was stored; Parquet was decoded
                    _check_offsets(array)
                arrays.append(pc.struct_field(array, path[1:]) if len(path) > 1 else array)
            rows, are_valid = _rows(list(paths), arrays, encoding)
            for values in rows:
                if are_valid or INVALID not in values.values():
                    yield row, values
                else:
                    skipped.add("invalid_utf8", file.name, row + 1)
                row += 1


def _open_arrow(stream: Any) -> Any:
    is_file = stream.read(len(ARROW_FILE)) == ARROW_FILE
    stream.seek(0)
    return ipc.open_file(stream) if is_file else ipc.open_stream(stream)


def _check_offsets(array: pa.Array) -> None:
    """Raise ArrowInvalid for offsets that would be followed to any place in memory; what is not UTF-8 may pass."""
    try:
        array.validate(full=True)
        return
    except pa.ArrowInvalid:
        kind = array.type
        if pa.types.is_struct(kind):
            array.validate()
            for child in array.flatten():
                _check_offsets(child)
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            array.validate()
            nothing = pa.nulls(len(array.values))
            type(array).from_arrays(array.offsets, nothing).validate(full=True)
            _check_offsets(array.values)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            array.view(pa.binary() if pa.types.is_string(kind) else pa.large_binary()).validate(full=True)
        else:
            raise


def _rows(names: list[str], arrays: list[pa.Array], encoding: str | None) -> tuple[list[dict[str, Any]], bool]:
    """Return the rows of some columns, and whether it is known that all values could be decoded."""
    if all(pa.types.is_string(array.type) or pa.types.is_integer(array.type) for array in arrays):
        try:
            return pa.RecordBatch.from_arrays(arrays, names).to_pylist(), True
        except UnicodeDecodeError:
            pass

    def value(scalar: pa.Scalar) -> Any:
        try:
            return decoded(scalar.as_py(), encoding)
        except UnicodeDecodeError:
            return INVALID

    columns = [[value(scalar) for scalar in array] for array in arrays]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)], False
