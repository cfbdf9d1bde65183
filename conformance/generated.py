"""The form of the files in conformance/vectors, for generate.py."""

import json


class File:
    """One file: the vectors of one level."""

    def __init__(self, level, section, comment, flags):
        self.level, self.section, self.comment, self.known_flags = level, section, comment, flags
        self.groups, self.count, self.used = [], 0, set()

    def group(self, kind, comment, **inputs):
        group = Group(self, kind, comment, inputs)
        self.groups.append(group)
        return group

    def write(self, directory):
        assert all(group.tests for group in self.groups)
        flags = {
            name: {"section": section, "explanation": explanation}
            for name, (section, explanation) in sorted(self.known_flags.items())
            if name in self.used
        }
        value = {
            "format": "dekseal conformance vectors",
            "version": 1,
            "level": self.level,
            "section": self.section,
            "comment": self.comment,
            "number_of_tests": self.count,
            "flags": flags,
            "groups": [
                {"type": group.kind, "comment": group.comment, **group.inputs, "tests": group.tests}
                for group in self.groups
            ],
        }
        text = json.dumps(value, indent=1) + "\n"
        (directory / f"{self.level}.json").write_text(text, "ascii", newline="\n")


class Group:
    """Tests of one type that share inputs."""

    def __init__(self, file, kind, comment, inputs):
        self.file, self.kind, self.comment, self.inputs, self.tests = file, kind, comment, inputs, []

    def add(self, comment, flags, result, values):
        assert flags and set(flags) <= self.file.known_flags.keys(), (comment, flags)
        self.file.used |= set(flags)
        self.file.count += 1
        self.tests.append({"id": self.file.count, "comment": comment, "flags": flags, **values, **result})

    def valid(self, comment, flags, **values):
        self.add(comment, flags, {"result": "valid"}, values)

    def invalid(self, comment, flags, error, **values):
        self.add(comment, flags, {"result": "invalid", "error": error}, values)
