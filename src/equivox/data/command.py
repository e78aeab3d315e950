"""`equivox data`: what sets there are, whether one is whole, and tiny fake ones."""

from __future__ import annotations

import inspect
import json
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from equivox.console import FAILED, show
from equivox.data import loading
from equivox.data.checking import Report, check

SHOWN = 10


def main(given: Namespace) -> int:
    """Run `equivox data …`; returns the exit code."""
    code: int = {"list": _list, "check": _check, "fake": _fake}[given.action](given)
    return code


def _list(given: Namespace) -> int:
    from equivox import data

    field = loading.names()
    found = [{"name": n, "kind": "files", "about": _about(n)} for n in field]
    found += [{"name": n, "kind": "here", "about": ""} for n in data.names() if n not in field]
    if given.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    show(("name", "kind", "about"), [(f["name"], f["kind"], f["about"]) for f in found])
    return 0


def _about(name: str) -> str:
    """The first line of a set's description."""
    return (inspect.getdoc(loading.module(name)) or "").partition("\n")[0].rstrip(".")


def _fake(given: Namespace) -> int:
    from equivox import data

    data.fake(given.name, given.out, given.seed, **dict(given.data_options))
    print(f"A fake `{given.name}`: {given.out}")
    words = "".join(f" --option {name}={value}" for name, value in given.data_options)
    print(f"Look at it with `equivox data check {given.name} --root {given.out}{words}`.")
    return 0


def _check(given: Namespace) -> int:
    options = dict(given.data_options)
    loading.check_options(
        f"`{given.name}`", options, (*loading.options(given.name), *loading.COMMON)
    )
    report = check(given.name, options.pop("root", given.root), **options)
    if given.json:
        print(json.dumps(report.to_json(), indent=1, ensure_ascii=False))
    else:
        _print(report)
    return 0 if report.whole else FAILED


def _print(report: Report) -> None:
    print(f"{report.name} in {report.root}, preprocessing {report.preprocessing}\n")
    show(("modality", "decoder"), list(report.decoders.items()))
    print()
    heads = ("split", "samples", "missing files", "corrupt files")
    rows = [
        (s, str(n), str(len(report.missing[s])), str(len(report.corrupt[s])))
        for s, n in report.samples.items()
    ]
    show(heads, rows)
    if any(report.balance.values()):
        _print_balance(report.balance)
    _print_list("Missing", {f: "" for found in report.missing.values() for f in found})
    _print_list("Corrupt", {f: why for bad in report.corrupt.values() for f, why in bad.items()})
    _print_list("Listed more than once", {i: f"{n} times" for i, n in report.repeated.items()})
    _print_list("Of equal content", {files[0]: " ".join(files[1:]) for files in report.alike})
    _print_list("Remarkable", report.remarks)
    for rule, ids in report.left_out.items():
        _print_list(f"Left out, {rule}", dict.fromkeys(ids, ""))
    print("\nNothing is missing." if report.whole else "\nThe set is not whole.")


def _print_balance(balance: Mapping[str, Mapping[str, int]]) -> None:
    print()
    splits = list(balance)
    rows = [
        (name, *(str(balance[split][name]) for split in splits))
        for name in next(iter(balance.values()))
    ]
    show(("class", *splits), rows)


def _print_list(title: str, found: Mapping[str, Any]) -> None:
    if not found:
        return
    print(f"\n{title}: {len(found)}")
    for name, why in list(found.items())[:SHOWN]:
        print(f"  {name}  {why}".rstrip())
    if len(found) > SHOWN:
        print(f"  … and {len(found) - SHOWN} more; `--json` names all.")
