"""Generated pages: facts of methods and data sets, and the table of the conformance suite."""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from equivox import methods
from equivox.testing import CHECKS

FLAGS = (
    "per_loss_gradients", "needs_validation", "needs_index", "resamples", "leaves_unused",
    "replaces_fusion", "drops_joint",
)  # fmt: skip


def facts(key: str) -> list[tuple[str, str]]:
    """What is known of a method without running it."""
    method = methods.get(key)
    catalogue = json.loads((files("equivox") / "catalogue.json").read_text())
    paper: dict[str, Any] = next((entry for entry in catalogue if entry["key"] == key), {})
    signature = inspect.signature(method.__init__).parameters.values()
    arguments = [f"{p.name} = {p.default!r}" for p in signature if p.kind is p.KEYWORD_ONLY]
    rows = [
        ("Class", f"equivox.{method.__name__}"),
        ("Paper", f"{paper['title']} ({paper['venue']})" if paper else ""),
        ("Category", method.category),
        ("Fidelity", method.fidelity),
        ("Tasks", ", ".join(method.tasks)),
        ("Ingredients", ", ".join(sorted(method.ingredients))),
        ("DDP", "find_unused_parameters=True" if method.leaves_unused else ""),
        ("Capabilities", ", ".join(flag for flag in FLAGS if getattr(method, flag))),
        ("Step cost", cost(key)),
        ("Arguments", ", ".join(arguments)),
        ("Search space", ", ".join(f"{k}: {v}" for k, v in method.search_space.items())),
        *((f"Not: {check}", reason) for check, reason in method.exceptions.items()),
    ]
    return [(name, value) for name, value in rows if value]


def cost(key: str) -> str:
    """What a step costs, as `benchmarks/step_cost.py` measured it."""
    path = Path(__file__).parent / "results" / "step_cost.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    row = next((r for r in rows if r["method"] == key and r["load"] == "compute"), None)
    if row is None:
        return ""
    return (
        f"{row['ratio']:.2f} of plain training where the encoders' passes decide, of which the "
        f"passes are {row['bound']:.2f}; memory {row['memory']:.2f}"
    )


class MethodFacts(SphinxDirective):
    """A list of the facts."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        fields = nodes.field_list()
        for name, value in facts(self.arguments[0]):
            field = nodes.field()
            field += nodes.field_name(text=name)
            field += nodes.field_body("", nodes.paragraph(text=value))
            fields += field
        return [fields]


TASKS = {
    "trains_regression": "Regression",
    "trains_multi_label": "MultiLabel",
    "trains_dense": "Dense",
}


def capabilities() -> tuple[list[list[str]], list[str]]:
    """A row for every method, a cell for every check; and the notes that the cells number."""
    notes: list[str] = []
    rows = []
    for key in methods.names():
        method = methods.get(key)
        cells = [key]
        for check in CHECKS:
            if check in method.exceptions:
                cells.append(_noted(f"{check}: {method.exceptions[check]}", notes))
            elif check == "equals_joint_when_neutral" and method.neutral is None:
                cells.append(_noted(f"{check}: no hyper-parameters make it joint training", notes))
            elif TASKS.get(check, method.tasks[0]) not in method.tasks:
                cells.append("refused")
            else:
                cells.append("✓")
        rows.append(cells)
    return rows, notes


def _noted(note: str, notes: list[str]) -> str:
    if note not in notes:
        notes.append(note)
    return f"({notes.index(note) + 1})"


class Capabilities(SphinxDirective):
    """The table of methods and checks, and below it why a check does not apply."""

    def run(self) -> list[nodes.Node]:
        rows, notes = capabilities()
        heads = ["method", *(check.replace("_", " ") for check in CHECKS)]
        listed = nodes.enumerated_list(
            "", *(nodes.list_item("", nodes.paragraph(text=note)) for note in notes)
        )
        return [table(heads, rows), listed]


class Checks(SphinxDirective):
    """What each check asks."""

    def run(self) -> list[nodes.Node]:
        fields = nodes.field_list()
        for name, check in CHECKS.items():
            fields += nodes.field(
                "",
                nodes.field_name(text=name.replace("_", " ")),
                nodes.field_body("", nodes.paragraph(text=inspect.getdoc(check))),
            )
        return [fields]


class DataSet(SphinxDirective):
    """What a loader's docstring says, and its options."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = import_module(f"equivox.data.sets.{self.arguments[0]}")
        text = (inspect.getdoc(module) or "").split("\n\n")
        options = [
            f"{p.name} = {p.default!r}"
            for p in inspect.signature(module.read).parameters.values()
            if p.kind is p.KEYWORD_ONLY
        ]
        said = [_paragraph(part) for part in text]
        return [*said, nodes.paragraph(text=f"Options: {', '.join(options) or 'none of its own'}.")]


def _paragraph(text: str) -> nodes.Node:
    if text.startswith("    "):
        return nodes.literal_block(text=inspect.cleandoc(text))
    return nodes.paragraph(text=" ".join(text.split()))


def table(heads: list[str], rows: list[list[str]]) -> nodes.table:
    """A table of plain text."""
    group = nodes.tgroup(cols=len(heads))
    group += [nodes.colspec(colwidth=1) for _ in heads]
    group += nodes.thead("", _row(heads))
    group += nodes.tbody("", *map(_row, rows))
    return nodes.table("", group)


def _row(cells: list[str]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph(text=cell)) for cell in cells))


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("method", MethodFacts)
    app.add_directive("dataset", DataSet)
    app.add_directive("capabilities", Capabilities)
    app.add_directive("checks", Checks)
    return {"parallel_read_safe": True}
