#!/usr/bin/env python3
"""Reads exports of the same ledger, as JSON lines, as CSV and as Parquet, with readers that share no code with kvtier, and
compares every field of every record.

    kvtier usage export -o usage.jsonl
    kvtier usage export -o usage.csv --format csv
    kvtier usage export -o usage.parquet --format parquet
    tools/check_usage_export.py usage.jsonl usage.csv usage.parquet

CSV is read by pandas where it is installed, else by Python's own csv. Parquet is read by DuckDB and by pandas, whichever is
installed; without either it is left out, and the last line says so. Prints one line a reader and exits 0 when all is equal.
"""

import datetime
import json
import sys

MOMENTS = ("settled_at", "corrects_settled_at")
MAPS = ("labels", "written_by_class")


def read_csv(path):
    """Rows as texts, and the reader's name."""
    try:
        import pandas
    except ImportError:
        import csv

        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file, strict=True)), "Python's csv"
    table = pandas.read_csv(path, dtype=str, keep_default_na=False, na_filter=False)
    return table.to_dict("records"), f"pandas {pandas.__version__}"


def with_pandas(folder):
    import pandas

    table = pandas.read_parquet(folder).sort_values("sequence")
    if str(table["settled_at"].dtype) != "datetime64[ms, UTC]":
        sys.exit(f"settled_at is read as {table['settled_at'].dtype}")
    return table.to_dict("records"), f"pandas {pandas.__version__}"


def with_duckdb(folder):
    import duckdb

    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    rows = connection.execute(f"select * from '{folder}/*.parquet' order by sequence")
    names = [column[0] for column in rows.description]
    records = [dict(zip(names, row)) for row in rows.fetchall()]
    # The sum that a bill is made of, by a query.
    total = connection.execute(f"select sum(prompt_tokens), count(*) from '{folder}/*.parquet'").fetchone()
    if total != (sum(record["prompt_tokens"] for record in records) if records else None, len(records)):
        sys.exit(f"DuckDB sums up {total}")
    return records, f"DuckDB {duckdb.__version__}"


def moment(cell):
    """A timestamp as kvtier writes it; nothing for one that is absent."""
    if cell is None or cell != cell:  # pandas' NaT is not equal to itself
        return ""
    cell = cell.astimezone(datetime.timezone.utc)
    return cell.strftime("%Y-%m-%dT%H:%M:%S.") + f"{cell.microsecond // 1000:03}Z"


def as_line(row):
    """A row of Parquet as the line of JSON that it must be."""

    def cell(name, value):
        if name in MOMENTS:
            return moment(value)
        return json.loads(value) if name in MAPS else value

    return {name: cell(name, value) for name, value in row.items()}


def compare(lines, rows, reader, read):
    if len(lines) != len(rows):
        sys.exit(f"{len(lines)} lines and {len(rows)} rows by {reader}")
    for line, row in zip(lines, rows):
        if set(line) != set(row):
            sys.exit(f"record {line['sequence']}: other fields: {sorted(set(line) ^ set(row))}")
        for field, value in line.items():
            cell = read(row, field, value)
            if cell != value:
                sys.exit(f"record {line['sequence']}: {field} is {value!r} as JSON and {cell!r} by {reader}")
    print(f"{len(rows)} records, all equal in {len(lines[0]) if lines else 0} fields, read by {reader}")


def main():
    lines_path, csv_path, *folders = sys.argv[1:]
    with open(lines_path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    rows, reader = read_csv(csv_path)
    # Texts stand as they are, all else as JSON.
    compare(lines, rows, f"{reader} from CSV", lambda row, field, value: row[field] if isinstance(value, str) else json.loads(row[field]))
    for folder in folders:
        readers = 0
        for parquet in (with_pandas, with_duckdb):
            try:
                rows, reader = parquet(folder)
            except ImportError:
                continue
            readers += 1
            rows = [as_line(row) for row in rows]
            compare(lines, rows, f"{reader} from Parquet", lambda row, field, _: row[field])
        if not readers:
            print("skipped: neither pandas with pyarrow nor DuckDB is installed, so Parquet was not read")


if __name__ == "__main__":
    main()
