"""`python -m dekseal` runs the command `dekseal`, if it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys


def main() -> int:
    command = shutil.which("dekseal")
    if command is None:
        print(
            "the command dekseal is not installed: run cargo install --path crates/dekseal-cli in the repository",
            file=sys.stderr,
        )
        return 127
    arguments = [command, *sys.argv[1:]]
    if os.name == "posix":
        # The command takes the place of this process, and with it signals and the terminal.
        os.execv(command, arguments)
    return subprocess.run(arguments, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
