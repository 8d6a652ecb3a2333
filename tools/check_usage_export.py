#!/usr/bin/env python3
"""Reads two exports of the same ledger, one as JSON lines and one as CSV, with readers that share no code with kvtier, and
compares every field of every record.

    kvtier usage export -o usage.jsonl
    kvtier usage export -o usage.csv --format csv
    tools/check_usage_export.py usage.jsonl usage.csv

The CSV is read by pandas where it is installed, else by Python's own csv. Prints one line and exits 0 when all is equal.
"""

import json
import sys


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


def main():
    lines_path, csv_path = sys.argv[1:3]
    with open(lines_path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    rows, reader = read_csv(csv_path)
    if len(lines) != len(rows):
        sys.exit(f"{len(lines)} lines and {len(rows)} rows")
    for line, row in zip(lines, rows):
        if set(line) != set(row):
            sys.exit(f"record {line['sequence']}: other fields: {sorted(set(line) ^ set(row))}")
        for field, value in line.items():
            # Texts stand as they are, all else as JSON.
            cell = row[field] if isinstance(value, str) else json.loads(row[field])
            if cell != value:
                sys.exit(f"record {line['sequence']}: {field} is {value!r} as JSON and {row[field]!r} as CSV")
    print(f"{len(rows)} records, all equal in {len(lines[0]) if lines else 0} fields, read by {reader}")


if __name__ == "__main__":
    main()
