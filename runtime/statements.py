"""Statements of the hot paths: rendered once as text, then run with bare values.

SQLAlchemy looks a statement up, collects and checks its parameters by name and converts them one
by one each time it runs. For many small rows that costs several times what the database takes.
Here all this is done when a statement first runs on a dialect; afterwards rows go by position, and
a type's conversion goes over a whole column:

    select, or insert | update  ─▶ text and plan (per dialect) ─▶ values by position ─▶ driver

What is written stays SQLAlchemy's own rendering, types and conversions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import Insert, ReturningUpdate, Update

from runtime.conversions import (
    Conversions,
    bind_conversion,
    bound,
    columns_of,
    converted,
    result_conversion,
)
from runtime.sqlite import driver_of

Row: TypeAlias = tuple[Any, ...]
Returning: TypeAlias = ReturningUpdate[*tuple[Any, ...]]

#: Lists are filled up to one of these lengths, so that there are few texts to render and prepare.
LIST_LENGTHS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
LIST_MAX: Final = LIST_LENGTHS[-1]


@dataclass(frozen=True, slots=True)
class _QueryPlan:
    """A rendered query. pick: from the pool of values to the parameters in their order."""

    text: str
    pick: Callable[[Any], tuple[Any, ...]]
    scalars: Conversions
    constants: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _WritePlan:
    """A rendered INSERT or UPDATE. places: from row to parameters; None is a constant."""

    text: str
    places: tuple[int | None, ...]
    constants: tuple[Any, ...]
    conversions: Conversions


class Query:
    """A SELECT with named parameters, some of them lists of texts (expanding, for IN).

    Or an UPDATE whose RETURNING tells which rows it changed.

    An empty list finds nothing that is IN it. Lists have at most LIST_MAX elements.
    """

    def __init__(
        self,
        select: sa.Select[*tuple[Any, ...]] | sa.CompoundSelect[*tuple[Any, ...]] | Returning,
        scalars: Sequence[str] = (),
        lists: Sequence[str] = (),
    ) -> None:
        self._select = select
        self._scalars = tuple(scalars)
        self._lists = tuple(lists)
        self._plans: dict[tuple[str, ...], _QueryPlan] = {}
        self._results: dict[str, Conversions] = {}

    async def rows(self, connection: AsyncConnection, **values: Any) -> list[Row]:
        """Run it; return all rows as tuples. Raises database errors, KeyError without a value."""
        filled = [_filled(values[name]) for name in self._lists]
        key = (connection.dialect.name, *(str(len(each)) for each in filled))
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._plan(connection.dialect, [len(each) for each in filled])
        pool = [values[name] for name in self._scalars]
        for place, convert in plan.scalars:
            (pool[place],) = convert((pool[place],))
        for each in filled:
            pool += each
        pool += plan.constants
        found, described = await _run(connection, plan.text, plan.pick(pool))
        conversions = self._results.get(connection.dialect.name)
        if conversions is None:
            conversions = self._results[connection.dialect.name] = self._conversions(
                described, connection.dialect
            )
        return converted(found, conversions)

    def _plan(self, dialect: sa.Dialect, lengths: Sequence[int]) -> _QueryPlan:
        compiled = self._select.compile(dialect=dialect)
        marks: dict[str, int] = {}
        stand_ins: dict[str, Any] = {}
        for name in self._scalars:
            stand_ins[name] = _mark(name, 0)
            marks[stand_ins[name]] = len(marks)
        for name, length in zip(self._lists, lengths, strict=True):
            stand_ins[name] = [_mark(name, place) for place in range(length)]
            for mark in stand_ins[name]:
                marks[mark] = len(marks)
        state = compiled.construct_expanded_state(stand_ins)
        constants: list[Any] = []
        places: list[int] = []
        for name in state.positiontup or ():
            value = state.parameters[name]
            if isinstance(value, str) and value in marks:
                places.append(marks[value])
            else:
                places.append(len(marks) + len(constants))
                constants.append(bound(value, compiled.binds.get(name), dialect))
        scalars = [
            (place, convert)
            for place, name in enumerate(self._scalars)
            if (convert := bind_conversion(compiled.binds[name].type, dialect))
        ]
        return _QueryPlan(
            text=state.statement,
            pick=_picker(places),
            scalars=tuple(scalars),
            constants=tuple(constants),
        )

    def _conversions(self, described: Sequence[Any], dialect: sa.Dialect) -> Conversions:
        # Some types want to know what the driver calls its values.
        return tuple(
            (place, convert)
            for place, (column, told) in enumerate(
                zip(self._select.exported_columns, described, strict=True)
            )
            if (convert := result_conversion(column.type, dialect, told[1]))
        )


class Write:
    """An INSERT, upsert or UPDATE that is run for many rows.

    made: the statement, or one per dialect. names: of its parameters; for an INSERT its columns.
    """

    def __init__(
        self, made: sa.Executable | Mapping[str, sa.Executable], names: Sequence[str]
    ) -> None:
        self._made = made
        self._names = tuple(names)
        self._values_of = _picker(self._names)
        self._plans: dict[str, _WritePlan] = {}

    async def run(self, connection: AsyncConnection, rows: Iterable[Mapping[str, Any]]) -> int:
        """Write all rows; return how many were written, -1 where the driver does not tell.

        Raises database errors, and KeyError when a row lacks a value.
        """
        plan = self._plans.get(connection.dialect.name)
        if plan is None:
            plan = self._plans[connection.dialect.name] = self._plan(connection.dialect)
        columns = columns_of(map(self._values_of, rows), plan.conversions)
        if not columns:
            return 0
        count = len(columns[0])
        ordered = [
            columns[place] if place is not None else (constant,) * count
            for place, constant in zip(plan.places, plan.constants, strict=True)
        ]
        return await _run_many(connection, plan.text, list(zip(*ordered, strict=True)))

    def _plan(self, dialect: sa.Dialect) -> _WritePlan:
        made = self._made[dialect.name] if isinstance(self._made, Mapping) else self._made
        if not isinstance(made, Insert | Update):
            raise TypeError("only INSERT and UPDATE are written this way")
        compiled = made.compile(dialect=dialect, column_keys=list(self._names))
        state = compiled.construct_expanded_state(dict.fromkeys(self._names))
        binds = compiled.binds
        index = {name: place for place, name in enumerate(self._names)}
        places = tuple(index.get(name) for name in state.positiontup or ())
        if not set(index.values()) <= set(places):
            raise ValueError(f"not all of {self._names} are parameters of the statement")
        constants = tuple(
            None if name in index else bound(state.parameters[name], binds.get(name), dialect)
            for name in state.positiontup or ()
        )
        conversions = tuple(
            (place, convert)
            for name, place in index.items()
            if (convert := bind_conversion(binds[name].type, dialect))
        )
        return _WritePlan(
            text=state.statement, places=places, constants=constants, conversions=conversions
        )


class NewRows:
    """PostgreSQL's insert of many rows as arrays, a column each: one text however many there are.

    Rows that break a uniqueness rule are left out.
    """

    def __init__(self, table: sa.Table, names: Sequence[str], key: str) -> None:
        self._table = table
        self._names = tuple(names)
        self._key = key
        self._values_of = _picker(self._names)
        self._plan: tuple[str, Conversions] | None = None

    async def run(
        self, connection: AsyncConnection, rows: Iterable[Mapping[str, Any]]
    ) -> list[str]:
        """Insert; return the key of each row that was new. Raises database errors."""
        if self._plan is None:
            self._plan = self._planned(connection.dialect)
        text, conversions = self._plan
        columns = columns_of(map(self._values_of, rows), conversions)
        found, _ = await _run(connection, text, tuple(map(list, columns)))
        return [key for (key,) in found]

    def _planned(self, dialect: sa.Dialect) -> tuple[str, Conversions]:
        columns = [self._table.c[name] for name in self._names]
        quoted = dialect.identifier_preparer
        names = ", ".join(quoted.format_column(column) for column in columns)
        arrays = ", ".join(
            f"${place}::{_element(column, dialect)}[]" for place, column in enumerate(columns, 1)
        )
        text = (
            f"INSERT INTO {quoted.format_table(self._table)} ({names})"  # noqa: S608 - our own names
            f" SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING"
            f" RETURNING {quoted.format_column(self._table.c[self._key])}"
        )
        conversions = tuple(
            (place, convert)
            for place, column in enumerate(columns)
            if (convert := bind_conversion(column.type, dialect))
        )
        return text, conversions


def _element(column: sa.Column[Any], dialect: sa.Dialect) -> str:
    # Without its length: a cast to varchar(64) cuts off what an insert refuses.
    kind = sa.String() if type(column.type) is sa.String else column.type
    return str(kind.compile(dialect=dialect))


def inserts(table: sa.Table, *, or_nothing: bool = False) -> Write:
    """Return the write of whole rows, with a value for every column.

    or_nothing: rows that break a uniqueness rule are left out.
    """
    made: dict[str, sa.Executable] = {}
    for dialect, insert in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert)):
        statement = insert(table)
        made[dialect] = statement.on_conflict_do_nothing() if or_nothing else statement
    return Write(made, table.columns.keys())


def upserts(
    table: sa.Table, keys: Sequence[str], columns: Sequence[str], *, newer: str | None = None
) -> Write:
    """Return the write "insert, or where the keys exist, overwrite these columns".

    It takes whole rows. newer: overwrite only where this column grows.
    """
    made: dict[str, sa.Executable] = {}
    for dialect, insert in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert)):
        statement = insert(table)
        made[dialect] = statement.on_conflict_do_update(
            index_elements=list(keys),
            set_={name: statement.excluded[name] for name in columns},
            where=None if newer is None else statement.excluded[newer] > table.c[newer],
        )
    return Write(made, table.columns.keys())


def among(select: sa.Select[*tuple[Any, ...]], table: sa.Table, column: sa.Column[str]) -> Query:
    """Return the select of one tenant's rows whose `column` is one of `ids`; see `rows_of_keys`."""
    return Query(
        select.where(
            table.c.tenant_id == sa.bindparam("tenant_id", type_=sa.String),
            column.in_(sa.bindparam("ids", expanding=True, type_=sa.String)),
        ),
        scalars=["tenant_id"],
        lists=["ids"],
    )


async def rows_of_keys(
    connection: AsyncConnection, query: Query, keys: Iterable[tuple[str, str]], **values: Any
) -> list[Row]:
    """Run a query made with `among` for (tenant, id) keys, tenant by tenant in order of the keys.

    values: of its other parameters. Without keys it runs nothing. Raises database errors.
    """
    by_tenant: dict[str, list[str]] = {}
    for tenant_id, key in sorted(set(keys)):
        by_tenant.setdefault(tenant_id, []).append(key)
    found: list[Row] = []
    for tenant_id, ids in by_tenant.items():
        for first in range(0, len(ids), LIST_MAX):
            some = ids[first : first + LIST_MAX]
            found += await query.rows(connection, tenant_id=tenant_id, ids=some, **values)
    return found


# --- with or without SQLAlchemy -----------------------------------------------------------------


async def _run(
    connection: AsyncConnection, text: str, values: Row
) -> tuple[Sequence[Any], Sequence[Any]]:
    """Run a SELECT; return its rows and the description of their columns."""
    driver = driver_of(connection)
    if driver is not None:
        return driver.rows(text, values)
    result = await connection.exec_driver_sql(text, values)
    described = () if result.cursor is None else result.cursor.description
    return result.all(), described


async def _run_many(connection: AsyncConnection, text: str, rows: list[Row]) -> int:
    driver = driver_of(connection)
    if driver is not None:
        return driver.run_many(text, rows)
    options = {"preserve_rowcount": True}
    result = await connection.exec_driver_sql(text, rows, execution_options=options)
    return int(result.rowcount)


def _mark(name: str, place: int) -> str:
    return f"\0{name}:{place}"


def _filled(values: Iterable[str]) -> list[str]:
    """Return the values, the last one repeated up to the next of LIST_LENGTHS."""
    filled = list(values)
    count = len(filled)
    if count:
        length = next((each for each in LIST_LENGTHS if each >= count), None)
        if length is None:
            raise ValueError(f"a list of more than {LIST_MAX} values")
        filled += filled[-1:] * (length - count)
    return filled


def _picker(keys: Sequence[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what takes the values of these keys, or at these places, as a tuple."""
    if len(keys) > 1:
        return itemgetter(*keys)
    return lambda values: tuple(values[key] for key in keys)
