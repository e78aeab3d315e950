"""What the core is made of: torch alone, and no method's name."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import equivox
from equivox import methods

SOURCE = Path(equivox.__file__).parent
CORE = """adopted balancer distributed errors features fusion groups method model nonfinite perloss
    progress randomness run step task"""


def test_the_core_imports_no_method_and_knows_no_name() -> None:
    names = {name for name in methods.names() if name != "joint"}
    names |= {methods.get(name).__name__ for name in names}
    for part in CORE.split():
        tree = ast.parse((SOURCE / f"{part}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("equivox.methods"), part
            if isinstance(node, ast.Name):
                assert node.id not in names, (part, node.id)
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in names, (part, node.value)


def test_importing_needs_torch_alone() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in REFUSED:
            raise ImportError(name)
import torch
REFUSED = {"numpy", "scipy", "sklearn", "pandas", "rich", "lightning", "plotly", "jaxtyping",
           "beartype", "torchmetrics", "duckdb", "safetensors", "matplotlib"} - set(sys.modules)
sys.meta_path.insert(0, Refuse())
import equivox
equivox.data.load("latent2")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_files_are_read_and_written_without_pickle() -> None:
    """But for the restricted reader of data sets that are distributed as pickles."""
    for path in SOURCE.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        used = [ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)]
        imports = [alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names]
        imports += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
        if path == SOURCE / "data" / "pickles.py":
            known = {"pickle._Unpickler", "pickle._Unpickler.dispatch", "pickle.dumps"}
            assert {u for u in used if u.startswith("pickle.")} == known, path
        else:
            assert "pickle" not in imports, path
        calls = [
            n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == "torch.load"
        ]
        safe = [n for n in calls if "weights_only=True" in map(ast.unparse, n.keywords)]
        assert used.count("torch.load") == len(safe), path
        assert "torch.save" not in used, path
