"""Writes what real Dovecot was asked (tests/oracle) as inputs for the fuzzers: seeds.py DIRECTORY"""

import json
import os
import sys

ORACLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "oracle")


def rows(name):
    with open(os.path.join(ORACLE, name), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def value(row, field):
    if field + "_hex" in row:
        return bytes.fromhex(row[field + "_hex"])
    return (row[field] or "").encode()


def write(target, inputs):
    directory = os.path.join(sys.argv[1], target)
    os.makedirs(directory, exist_ok=True)
    for number, data in enumerate(inputs):
        with open(os.path.join(directory, f"oracle-{number}"), "wb") as file:
            file.write(data)


write("location", [b"\0".join(value(row, field) for field in ("user", "home", "expanded"))
                   for row in rows("paths-2.3.jsonl")])
write("age", [row["input"].encode() for row in rows("times-2.3.jsonl")])
