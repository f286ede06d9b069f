"""Files that are no text: archives of one file, and tables in Parquet and Arrow."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from forgetlab.errors import ForgetlabError

LARGEST = 1_000_000_000  # bytes: in memory it becomes several times as much
ARCHIVES: dict[bytes, tuple[str, str, Any]] = {
    b"\x1f\x8b": ("gzip", ".gz", gzip.open),
    b"BZh": ("bzip2", ".bz2", bz2.open),
    b"\xfd7zXZ": ("xz", ".xz", lzma.open),
}
PARQUET, ARROW, STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"


def unpacked(path: Path, raw: bytes) -> tuple[Path, bytes]:
    """The name and content of the file in an archive, "rows.jsonl" of "rows.jsonl.gz"; of another file its own.

    Raises ForgetlabError for an archive that is damaged or holds too much.
    """
    found = next((kind for magic, kind in ARCHIVES.items() if raw.startswith(magic)), None)
    if found is None:
        return path, raw
    name, suffix, opener = found
    try:
        archive: IO[bytes] = opener(io.BytesIO(raw))
        content = archive.read(LARGEST + 1)
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise ForgetlabError(f"{path} is a damaged {name} archive: {str(error) or type(error).__name__}") from None
    if len(content) > LARGEST:
        raise ForgetlabError(f"{path} holds more than {LARGEST / 1e9:g} GB: give a part of it")
    return path.with_name(path.name.removesuffix(suffix) or path.name), content


def packed_rows(path: Path, raw: bytes) -> tuple[list[dict[str, Any]], Any] | None:
    """The rows of a Parquet or Arrow file, {column: value}, and its features; None for another file.

    The features are those of `datasets` where it is installed, which know the names of classes, else the columns.
    Raises ForgetlabError where pyarrow is missing, and for a file that is damaged or too large.
    """
    arrow = raw.startswith(ARROW) or (path.suffix.lower() == ".arrow" and raw.startswith(STREAM))
    kind = "Parquet" if raw.startswith(PARQUET) else "Arrow" if arrow else None
    if kind is None:
        return None
    if find_spec("pyarrow") is None:
        raise ForgetlabError(f'{path} is a {kind} file, which needs pyarrow: pip install "forgetlab[hub]"')
    try:
        table = _table(path, raw)
        rows = table.to_pylist()
    except ForgetlabError:
        raise
    except Exception as error:  # pyarrow raises its own, and OSError
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ForgetlabError(f"{path} is a damaged {kind} file: {reason}") from None
    if not rows:
        raise ForgetlabError(f"{path} is empty")
    features: Any = dict.fromkeys(table.column_names)
    if find_spec("datasets") is not None:
        features = import_module("datasets").Features.from_arrow_schema(table.schema)
    return rows, features


def _table(path: Path, raw: bytes) -> Any:
    if raw.startswith(PARQUET):
        parquet = import_module("pyarrow.parquet")
        file = parquet.ParquetFile(io.BytesIO(raw))
        groups = range(file.metadata.num_row_groups)
        if sum(file.metadata.row_group(i).total_byte_size for i in groups) > LARGEST:
            raise ForgetlabError(f"{path} holds more than {LARGEST / 1e9:g} GB: give a part of it")
        return file.read()
    ipc = import_module("pyarrow.ipc")
    return (ipc.open_file if raw.startswith(ARROW) else ipc.open_stream)(raw).read_all()
