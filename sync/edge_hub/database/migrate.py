"""A database of an older version is brought to this version's schema: what is missing is added, nothing else changes.

A new column must be nullable or have a `server_default`, and a table keeps its primary key: then no version needs a
script of its own.
"""

from sqlalchemy import Connection, MetaData, inspect

from edge_hub.database.dialect import add_column


def add_missing(db: Connection, wanted: MetaData) -> list[str]:
    """Make the tables, columns and indexes that are missing, in the caller's transaction; returns their names."""
    there = inspect(db)
    tables = set(there.get_table_names())
    added = [table.name for table in wanted.sorted_tables if table.name not in tables]
    for table in wanted.sorted_tables:
        if table.name not in tables:
            continue
        columns = {column["name"] for column in there.get_columns(table.name)}
        for column in table.columns:
            if column.name not in columns:
                add_column(db, table, column.name)
                added.append(f"{table.name}.{column.name}")
        indexes = {index["name"] for index in there.get_indexes(table.name)}
        for index in table.indexes:
            if index.name not in indexes:
                index.create(db)
                added.append(str(index.name))
    wanted.create_all(db)
    return added
