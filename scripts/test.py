#!/usr/bin/env python3
"""Runs every test suite, shows its output, and ends with one line that sums them up.

Each runner is asked for its own closing lines; a suite that exits with an error
counts as a failure even when it named none, and a run without a test fails.
Dependencies are installed by the Makefile, not here.
"""

import pathlib
import re
import subprocess
import sys
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent

CARGO = (re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed;"), None)
# node --test, in its TAP and its spec reporter.
NODE = (re.compile(r"^(?:#|ℹ) pass (\d+)"), re.compile(r"^(?:#|ℹ) (?:fail|cancelled) (\d+)"))


def suites():
    """Name, command, folder and patterns of each suite that is in the tree."""
    yield "cargo", ["cargo", "test", "--workspace", "--locked", "--no-fail-fast"], ROOT, CARGO
    if (ROOT / "web/package.json").exists():
        yield "web", ["npm", "test", "--silent"], ROOT / "web", NODE
    browser = ROOT / "tests/browser"
    if (browser / "package.json").exists():
        yield "browser", ["npm", "test", "--silent"], browser, NODE


def run(name, command, folder, patterns):
    """The counts (passed, failed) of one suite."""
    print(f"== {name}: {' '.join(command)}", flush=True)
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    )
    passed = failed = 0
    pass_pattern, fail_pattern = patterns
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        if match := pass_pattern.search(line):
            passed += int(match[1])
            if match.lastindex == 2:
                failed += int(match[2])
        elif fail_pattern and (match := fail_pattern.search(line)):
            failed += int(match[1])
    if process.wait() != 0 and failed == 0:
        print(f"== {name}: exit code {process.returncode}", flush=True)
        failed = 1
    return passed, failed


def main():
    passed = failed = 0
    for suite in suites():
        try:
            counts = run(*suite)
        except Exception:  # whatever it is, the other suites run and the sum is told
            traceback.print_exc(file=sys.stdout)
            counts = 0, 1
        passed += counts[0]
        failed += counts[1]
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
