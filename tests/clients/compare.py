#!/usr/bin/env python3
"""Compares what a client saw of two servers, step by step, with the differences that are known.

    tests/clients/compare.py REFERENCE OURS KNOWN

The first two are transcripts. KNOWN holds, for each step that may differ, the reason (`# …`) and exactly how it differs:
`-` lines are the reference's, `+` lines ours. Whatever differs otherwise is printed, as is a known difference that is no
more. Ends with the line that test runners print.
"""

import difflib
import sys


def steps(path):
    """The lines of each step, by its name, in order."""
    found, lines = {}, None
    for line in open(path, encoding="utf-8", errors="replace"):
        line = line.rstrip("\n")
        if line.startswith("## "):
            lines = found.setdefault(line[3:], [])
        elif lines is not None and line and not line.startswith("#"):
            lines.append(line)
    return found


def difference(reference, ours):
    lines = difflib.ndiff(reference, ours)
    return [line[0] + line[2:] for line in lines if line[0] in "-+"]


def main():
    reference, ours, known = (steps(path) for path in sys.argv[1:4])
    bad = 0
    for name in list(reference) + [name for name in ours if name not in reference]:
        found = difference(reference.get(name, []), ours.get(name, []))
        expected = known.pop(name, [])
        if found == expected:
            continue
        bad += 1
        print(f"\n## {name}")
        print("\n".join(found) if found else "no difference any more; remove it from the known ones")
    for name in known:
        bad += 1
        print(f"\n## {name}\nknown as different, but there is no such step")
    good = len(reference) - bad
    print(f"\ntest result: {'FAILED' if bad else 'ok'}. {max(good, 0)} passed; {bad} failed; 0 ignored;")
    return 1 if bad else 0


sys.exit(main())
