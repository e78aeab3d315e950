"""The doctor: every fault is found, named and given its cure."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from equivox import doctor
from equivox.doctor import Facts, Finding, diagnose

HEALTHY: dict[str, Any] = {
    "versions": {"torch": "2.13.0+cpu", "lightning": "2.6.6", "rich": "15.0.0"},
    "extras": {"bench": ("lightning", "rich"), "test": ("pytest",)},
    "data": "/data",
    "sets": ("mfeat",),
}


def found(state: str, **changes: Any) -> list[Finding]:
    return [f for f in diagnose(Facts(**{**HEALTHY, **changes})) if f.state == state]


def versions(**changes: str) -> dict[str, str]:
    return {**HEALTHY["versions"], **changes}


def test_a_healthy_installation() -> None:
    assert found("broken") == []
    assert found("note") == []


@pytest.mark.parametrize(
    ("changes", "what", "cure"),
    [
        ({"versions": {}}, "torch is not installed", "pip install torch"),
        ({"versions": versions(torch="2.4.1")}, "older than 2.6", 'pip install -U "torch>=2.6"'),
        ({"failures": {"torch": "no libc10"}}, "no libc10", "torch==2.13.0"),
        (
            {"versions": versions(torchvision="0.27.0"), "needs": {"torchvision": "==2.12.0"}},
            "torchvision 0.27.0 breaks torch 2.13.0+cpu: it needs torch==2.12.0",
            "pip install torchvision torch==2.13.0",
        ),
        (
            {
                "versions": versions(torchaudio="2.13.0"),
                "needs": {"torchaudio": ""},
                "failures": {"torchaudio": "undefined symbol"},
            },
            "undefined symbol",
            "pip uninstall -y torchaudio",
        ),
        (
            {"versions": versions(torchvision="0.28.0+cu130"), "needs": {}},
            "it was built for cu130, torch for cpu",
            "pip uninstall -y torchvision",
        ),
        ({"driver": "580.10.1"}, "a build for the CPU", "whl/cu126"),
        ({"driver": "590.10.1"}, "a build for the CPU", "whl/cu130"),
        ({"driver": "525.60.13", "cuda": "13.0"}, "too old for CUDA 13.0", "580.65 or newer"),
        ({"versions": versions(lightning="2.6.2")}, "malware", "pip uninstall -y lightning"),
        ({"versions": versions(lightning="2.6.3")}, "malware", "password"),
        ({"sets": None}, "names no folder: /data", "export EQUIVOX_DATA"),
        ({"sets": ()}, "holds no data set: /data", "export EQUIVOX_DATA"),
        ({"python": (3, 10)}, "Python 3.10 is older", "Python 3.11"),
    ],
)
def test_what_is_broken(changes: dict[str, Any], what: str, cure: str) -> None:
    (finding,) = found("broken", **changes)
    assert what in finding.what
    assert cure in finding.cure


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"versions": {"torch": "2.13.0", "lightning": "2.6.6"}}, "`bench` is not installed: no r"),
        ({"data": None, "sets": None}, "EQUIVOX_DATA is not set"),
        ({"cuda": "13.0"}, "there is no NVIDIA GPU"),
    ],
)
def test_what_is_worth_a_note(changes: dict[str, Any], what: str) -> None:
    (finding,) = found("note", **changes)
    assert what in finding.what
    assert found("broken", **changes) == []


def test_fitting_packages_are_good() -> None:
    pairs = versions(torch="2.13.0+cu130", torchvision="0.28.0+cu130")
    changes = {"versions": pairs, "needs": {"torchvision": "==2.13.0"}}
    assert found("broken", **changes, cuda="13.0", driver="580.65.06") == []


def test_the_facts_of_this_installation() -> None:
    facts = doctor.gather()
    assert "bench" in facts.extras
    assert "scikit-learn" in facts.extras["bench"]
    assert "torch" not in facts.failures
    assert facts.versions["torch"]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that only this test's process, and those it starts, see."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(site: Path, name: str, version: str, code: str = "", needs: str = "") -> None:
    (site / f"{name}.py").write_text(code)
    about = site / f"{name}-{version}.dist-info"
    about.mkdir()
    requires = f"Requires-Dist: {needs}\n" if needs else ""
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}"
    )


def test_a_package_that_cannot_be_imported_is_found(site: Path) -> None:
    install(site, "torchvision", "0.1", "raise RuntimeError('operator nms does not exist')")
    found = doctor._import_error("torchvision")
    assert found == "RuntimeError: operator nms does not exist"
    assert doctor._import_error("json") == ""


def test_requirements_are_read_from_the_metadata(site: Path, monkeypatch: Any) -> None:
    install(site, "torchvision", "0.1", "", "torch==1.2.3")
    tried: list[str] = []
    monkeypatch.setattr(doctor, "_import_error", lambda name: tried.append(name) or "")
    facts = doctor.gather()
    assert facts.needs == {"torchvision": "==1.2.3"}
    assert tried == ["torch", "torchvision"]
    assert "it needs torch==1.2.3" in diagnose(facts)[0].what


def test_nothing_is_imported_beside_malware(site: Path, monkeypatch: Any) -> None:
    install(site, "lightning", "2.6.3", "raise SystemExit('it ran')")

    def refused(name: str) -> str:
        raise AssertionError(f"{name} was imported")

    monkeypatch.setattr(doctor, "_import_error", refused)
    first = diagnose(doctor.gather())[0]
    assert first.state == "broken"
    assert "malware" in first.what


def test_the_driver_is_that_of_nvidia_smi(tmp_path: Path, monkeypatch: Any) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 580.65.06\necho 580.65.06\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert doctor._driver() == "580.65.06"
    tool.write_text("#!/bin/sh\necho 'failed to communicate with the driver'\nexit 9\n")
    assert doctor._driver() is None


def test_the_data_sets_of_a_folder(tmp_path: Path) -> None:
    assert doctor._sets(None) is None
    assert doctor._sets(str(tmp_path / "none")) is None
    (tmp_path / "mfeat").mkdir()
    (tmp_path / "mfeat" / "other.npz").touch()
    assert doctor._sets(str(tmp_path)) == ()
    (tmp_path / "mfeat" / "mfeat.npz").touch()
    assert doctor._sets(str(tmp_path)) == ("mfeat",)


def test_it_works_where_torch_does_not(tmp_path: Path) -> None:
    """The command is for broken installations: it may not import what is broken."""
    (tmp_path / "torch.py").write_text("raise ImportError('libc10.so: cannot open')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "equivox.cli", "doctor"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "libc10.so: cannot open" in done.stdout
