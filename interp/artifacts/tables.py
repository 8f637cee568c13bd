"""Tables of artefacts: parquet with typed rows, read by column or row through DuckDB, never whole unless asked.

    points: Table[Point]                      # Point is a frozen dataclass of plain values: the columns
    points.rows("list = ?", "weekdays", order="position")
    points.columns("x", "y")                  # arrays

The columns of a file must be those of the row's class, of the same types; they are checked when it is first read.
Torch-free.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import cache, lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from interp.artifacts.files import read_table
from interp.errors import ConfigError, CorruptError
from interp.forms import NAN_IS_NULL

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

Row = TypeVar("Row")
Int8 = Annotated[int, "int8"]
Int16 = Annotated[int, "int16"]
Int32 = Annotated[int, "int32"]
Float32 = Annotated[float, "float32"]
"""Columns that are narrower in the file than the numbers of Python."""


class Table(Generic[Row]):
    """Rows of one class, in memory or in a parquet file."""

    def __init__(self, row: type[Row], data: "Path | pa.Table"):
        self.row, self._data, self._checked = row, data, False

    @classmethod
    def of(cls, row: type[Row], rows: Sequence[Row]) -> "Table[Row]":
        """Return a table of rows in memory."""
        import pyarrow as pa

        return cls(row, pa.Table.from_pylist([asdict(record) for record in rows], schema=schema_of(row)))  # pyright: ignore[reportArgumentType]

    @classmethod
    def of_columns(
        cls, row: type[Row], columns: "Mapping[str, Sequence[object] | np.ndarray | pa.Array] | pa.Table"
    ) -> "Table[Row]":
        """Return a table in memory, from arrays or lists by column. Raises `CorruptError` for other columns."""
        import pyarrow as pa

        data = columns if isinstance(columns, pa.Table) else pa.table(columns)
        check_columns(row, data.schema, f"the table of {row.__name__}")
        return cls(row, data)

    @property
    def path(self) -> Path | None:
        """The parquet file; None for a table in memory."""
        return self._data if isinstance(self._data, Path) else None

    def query(self, sql: str, *parameters: object) -> "pa.Table":
        """Run SQL over this table, called `t`. Raises `CorruptError` where the file cannot be read or is another."""
        return query(sql, *parameters, t=self._source())

    def rows(self, where: str = "", *parameters: object, order: str = "", limit: int = 0) -> list[Row]:
        """Return rows, those that meet a condition in SQL, sorted."""
        sql = "select * from t" + (f" where {where}" if where else "") + (f" order by {order}" if order else "")
        return self.rows_of(self.query(f"{sql} limit {limit}" if limit else sql, *parameters))

    def rows_of(self, table: "pa.Table") -> list[Row]:
        """Return what a query found, all columns of it, as rows. Raises `CorruptError` where values are missing."""
        allowed = nullable(self.row)
        for name in table.column_names:
            if name not in allowed and table[name].null_count:
                raise CorruptError(f"{self.path or 'the table'}: column {name!r} lacks values; it was edited")
        plain = {name: table[name].to_pylist() for name in table.column_names}
        measured = {field.name for field in fields(self.row) if field.name in _measured(self.row)}  # pyright: ignore[reportArgumentType]
        for name in measured:
            plain[name] = [float("nan") if value is None else value for value in plain[name]]
        return [self.row(**dict(zip(plain, values, strict=True))) for values in zip(*plain.values(), strict=True)]

    def columns(self, *names: str) -> dict[str, np.ndarray]:
        """Return the named columns as arrays; without names, all."""
        chosen = names or tuple(field.name for field in fields(self.row))  # pyright: ignore[reportArgumentType]
        table = self.query("select " + ", ".join(f'"{name}"' for name in chosen) + " from t")
        return {name: table[name].to_numpy(zero_copy_only=False) for name in chosen}

    def arrow(self) -> "pa.Table":
        """Return the whole table."""
        return read_table(self._data) if isinstance(self._data, Path) else self._data

    def __len__(self) -> int:
        return int(self.query("select count(*) as n from t")["n"][0].as_py())

    def __repr__(self) -> str:
        return f"Table[{self.row.__name__}]({self.path or f'{len(self)} rows'})"

    def _source(self) -> "Path | pa.Table":
        if not self._checked and isinstance(self._data, Path):
            if not self._data.is_file():
                raise CorruptError(f"{self._data} is missing from the artefact; `workbench verify` lists what else is")
            check_columns(self.row, query("select * from t limit 0", t=self._data).schema, self._data)
            self._checked = True
        return self._data


def query(sql: str, *parameters: object, **sources: "Path | pa.Table") -> "pa.Table":
    """Run SQL with each keyword as a table: `query("select * from f where density > ?", 0.1, f=path)`.

    Raises `CorruptError` where a file cannot be read, `ConfigError` for an unusable table alias.
    """
    import duckdb

    connection = _database(os.getpid()).cursor()  # a cursor has temporary views of its own; a database costs 15 ms
    try:
        for alias, source in sources.items():
            if not re.fullmatch(r"[a-z_]\w*", alias):
                raise ConfigError(f"{alias!r} is not a usable table alias")
            if not isinstance(source, Path):
                connection.register(alias, source)
                continue
            quoted = str(source).replace("'", "''")
            connection.execute(f"create temp view {alias} as select * from read_parquet('{quoted}')")
        return connection.sql(sql, params=list(parameters)).to_arrow_table()
    except (duckdb.Error, RuntimeError, UnicodeDecodeError) as error:  # the last two: texts that are no UTF-8
        if isinstance(error, duckdb.ParserException | duckdb.CatalogException):
            raise  # the query is wrong, not the file
        files = ", ".join(f"{path}" for path in sources.values() if isinstance(path, Path))
        raise CorruptError(
            f"cannot read {files}: {str(error).splitlines()[0]}; `workbench verify` checks it"
        ) from error
    finally:
        connection.close()


@lru_cache(maxsize=1)
def _database(process: int) -> "duckdb.DuckDBPyConnection":
    """Return the empty database through which a process reads tables; a forked process makes its own.

    It keeps the footers of files, and reads one again when the file was changed.
    """
    import duckdb

    connection = duckdb.connect(config={"threads": 1})
    connection.execute("set global parquet_metadata_cache = true")
    return connection


@cache
def _hints(row: type) -> dict[str, object]:
    return get_type_hints(row, include_extras=True)


def _plain(hint: object) -> tuple[object, bool]:
    """Return the type of a column without `Measured` and `None`, and whether values may be missing."""
    if _is_measured(hint):
        return get_args(hint)[0], True
    if get_origin(hint) in (Union, UnionType):
        inner = [argument for argument in get_args(hint) if argument is not NoneType]
        return _plain(inner[0])[0], NoneType in get_args(hint)
    return hint, False


@cache
def nullable(row: type) -> frozenset[str]:
    """Return the columns in which values may be missing."""
    return frozenset(name for name, hint in _hints(row).items() if _plain(hint)[1])


@cache
def _measured(row: type) -> frozenset[str]:
    return frozenset(name for name, hint in _hints(row).items() if _is_measured(hint))


def _is_measured(hint: object) -> bool:
    return get_origin(hint) is Annotated and NAN_IS_NULL in get_args(hint)


@cache
def schema_of(row: type) -> "pa.Schema":
    """Return the parquet schema of a class of rows."""
    import pyarrow as pa

    return pa.schema([(name, _arrow(_plain(hint)[0])) for name, hint in _hints(row).items()])


def _arrow(hint: object) -> "pa.DataType":
    import pyarrow as pa

    if get_origin(hint) is Annotated:
        return pa.type_for_alias(get_args(hint)[1])
    if get_origin(hint) in (list, tuple, Sequence):
        return pa.list_(_arrow(_plain(get_args(hint)[0])[0]))
    if get_origin(hint) is not None:  # Literal
        hint = type(get_args(hint)[0])
    return {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string(), bytes: pa.binary()}[hint]


def check_columns(row: type, schema: "pa.Schema", where: object) -> None:
    """Raise `CorruptError` where a table has other columns than the class of its rows, or other types of them."""
    expected = schema_of(row)
    if lacking := [name for name in expected.names if name not in schema.names]:
        raise CorruptError(f"{where}: column {lacking[0]!r} is missing; it was edited, or is of another version")
    if unknown := [name for name in schema.names if name not in expected.names]:
        raise CorruptError(f"{where}: column {unknown[0]!r} is not known; it was edited, or is of another version")
    for name in expected.names:
        if _family(expected.field(name).type) != _family(schema.field(name).type):
            raise CorruptError(
                f"{where}: column {name!r} should hold {expected.field(name).type}, found {schema.field(name).type}"
            )


def _family(kind: "pa.DataType") -> str:
    """Return the family of a column's type: widths of numbers may differ."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return f"list of {_family(kind.value_type)}"
    tests = {"integer": types.is_integer, "float": types.is_floating, "bool": types.is_boolean}
    text = types.is_string(kind) or types.is_large_string(kind)
    return "text" if text else next((name for name, test in tests.items() if test(kind)), str(kind))
