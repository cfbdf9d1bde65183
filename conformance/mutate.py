#!/usr/bin/env python3
"""Changes the vectors, one value at a time, and expects verify.py to notice each change.

A verifier that skips a field would pass all the same. This program takes the first valid and the first invalid test of
each group, and checks every field of them.
"""

import copy
import json
import pathlib
import sys
import tempfile

import verify

VECTORS = pathlib.Path(__file__).parent / "vectors"
# Every material from 32 to 64 bytes makes a CMK, so another one is no contradiction.
FREE = {("Cmk", "material"), ("Cmk", "key_version")}


def changed(value):
    """Another value of the same type, or None."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        middle = len(value) // 2
        if value and set(value) <= set("0123456789abcdefABCDEF"):
            return value[:middle] + ("1" if value[middle] != "1" else "2") + value[middle + 1:]
        return value + "x"
    if isinstance(value, list):
        return value[:-1] if value else None
    if isinstance(value, dict):
        return {**value, "unknown": "x"}
    return "x"


def changes(kind, test):
    """The changes of a test that verify.py must notice."""
    yield "an unknown field", {**test, "unknown": 1}
    yield "an unknown flag", {**test, "flags": ["Unknown"]}
    yield "no flag", {**test, "flags": []}
    for name in test:
        if name != "canonical" and (name != "payload" or kind != "PayloadSeal"):
            yield f"no {name}", {key: item for key, item in test.items() if key != name}
    yield "another ID", {**test, "id": test["id"] + 1}
    yield "an unknown result", {**test, "result": "acceptable"}
    if test["result"] == "invalid":
        yield "another error", {**test, "error": "unknown"}
        yield "valid", {name: item for name, item in {**test, "result": "valid"}.items() if name != "error"}
        return
    yield "invalid", {**test, "result": "invalid", "error": "authentication_failed"}
    for name, value in test.items():
        other = changed(value)
        if name not in ("comment", "flags", "id", "result") and (kind, name) not in FREE and other is not None:
            yield f"another {name}", {**test, name: other}


def sampled(file):
    """The file with the first valid and the first invalid test of each group, so that each run is short."""
    file = copy.deepcopy(file)
    for group in file["groups"]:
        firsts = {}
        for test in group["tests"]:
            firsts.setdefault(test["result"], test)
        group["tests"] = list(firsts.values())
    tests = [test for group in file["groups"] for test in group["tests"]]
    for number, test in enumerate(tests, 1):
        test["id"] = number
    used = {flag for test in tests for flag in test["flags"]}
    return {**file, "number_of_tests": len(tests),
            "flags": {name: flag for name, flag in file["flags"].items() if name in used}}


def accepted(path, level, file):
    path.write_text(json.dumps(file))
    try:
        verify.run_file(path, level)
    except (verify.Failed, ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError):
        return False
    return True


def main():
    count = 0
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "vectors.json"
        for level in verify.LEVELS:
            file = sampled(json.loads((VECTORS / f"{level}.json").read_text()))
            if not accepted(path, level, file):
                sys.exit(f"failed: {level}: the sample is refused")
            whole = [(f"another {name}", {**file, name: changed(file[name])}) for name in file if name != "comment"]
            whole = [(what, broken) for what, broken in whole if what != "another section"]
            flags = {**file["flags"], "Unused": {"section": "", "explanation": ""}}
            whole.append(("a flag that no test has", {**file, "flags": flags}))
            for number, group in enumerate(file["groups"]):
                for name in group:
                    if name != "comment":
                        broken = copy.deepcopy(file)
                        del broken["groups"][number][name]
                        whole.append((f"no {name} in group {number + 1}", broken))
                for place, test in enumerate(group["tests"]):
                    for what, other in changes(group["type"], test):
                        broken = copy.deepcopy(file)
                        broken["groups"][number]["tests"][place] = other
                        whole.append((f"test {test['id']} with {what}", broken))
            for what, broken in whole:
                count += 1
                if accepted(path, level, broken):
                    sys.exit(f"failed: verify.py accepts {level} as {what}")
    print(f"verify.py notices each of {count} changes")


if __name__ == "__main__":
    main()
