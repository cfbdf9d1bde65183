#!/usr/bin/env python3
"""Checks each file of conformance/vectors against schema.json, and that schema.json refuses what it should.

    python3 conformance/validate.py [--vectors DIRECTORY]
"""

import argparse
import json
import pathlib
import sys

from jsonschema import Draft202012Validator

HERE = pathlib.Path(__file__).parent


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--vectors", type=pathlib.Path, default=HERE / "vectors")
    vectors = parser.parse_args().vectors
    schema = json.loads((HERE / "schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    types = set()
    for path in sorted(vectors.iterdir()):
        value = json.loads(path.read_text())
        for error in validator.iter_errors(value):
            sys.exit(f"failed: {path.name}: {error.json_path}: {error.message[:300]}")
        types |= {group["type"] for group in value["groups"]}
        # The schema would be useless if it let these pass.
        test = value["groups"][0]["tests"][0]
        for change in [{"unknown": 1}, {"result": "acceptable"}, {"flags": []}, {"id": 0}, {"error": "unknown_key"}]:
            wrong = {**value, "groups": [{**value["groups"][0], "tests": [{**test, **change}]}]}
            if validator.is_valid(wrong):
                sys.exit(f"failed: {path.name}: the schema accepts {change}")
    missing = set(schema["properties"]["groups"]["items"]["properties"]["type"]["enum"]) - types
    if missing:
        sys.exit(f"failed: no file has groups of the types {missing}")
    print("all files follow the schema")


if __name__ == "__main__":
    main()
