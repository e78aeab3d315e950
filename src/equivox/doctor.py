"""The doctor: what is wrong with an installation, and its cure.

A package that breaks torch breaks whatever imports both. So nothing is imported here: faults are
read from the packages' metadata, or tried in a process of their own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distributions
from pathlib import Path

MALWARE = {"lightning": ("2.6.2", "2.6.3")}
TIED = ("torchvision", "torchaudio")
"""Packages that are compiled against one version of torch and break it beside any other."""

DRIVERS = {11: (450, 80), 12: (525, 60), 13: (580, 65)}
"""The oldest NVIDIA driver (on Linux) for each major version of CUDA."""

DEVELOPMENT = ("test", "docs", "lint")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. Its `state` is "good", "note" or "broken"."""

    state: str
    what: str
    cure: str = ""


@dataclass(frozen=True)
class Facts:
    """What the doctor knows of an installation.

    Arguments:
        versions: of the installed packages, by name.
        needs: what torchvision and torchaudio say they need of torch, as `==2.13.0`.
        failures: the error of importing a package in a process of its own; without an entry, it
            works or was not tried.
        cuda: the version of CUDA that torch was built for; None for a build for the CPU.
        driver: the version of the NVIDIA driver; None without a GPU.
        extras: the packages of each extra of equivox.
        data: the value of `EQUIVOX_DATA`, and `sets`, the data sets found there; None where it is
            no folder.
        python: its version.
    """

    versions: Mapping[str, str]
    needs: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    cuda: str | None = None
    driver: str | None = None
    extras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    data: str | None = None
    sets: tuple[str, ...] | None = None
    python: tuple[int, int] = (sys.version_info[0], sys.version_info[1])


def diagnose(facts: Facts) -> list[Finding]:
    """All that was looked at, the broken first.

    >>> facts = Facts({"torch": "2.13.0", "lightning": "2.6.3"})
    >>> diagnose(facts)[0].state
    'broken'
    """
    found = [finding for check in CHECKS for finding in check(facts)]
    return sorted(found, key=lambda finding: ("broken", "note", "good").index(finding.state))


# ── the checks ──────────────────────────────────────────────────────────────────────────────────


def _malware(facts: Facts) -> Iterator[Finding]:
    for name, releases in MALWARE.items():
        if (version := facts.versions.get(name)) in releases:
            yield Finding(
                "broken",
                f"{name} {version} is a malware release. Do not import it",
                f'pip uninstall -y {name} && pip install "{name}!=2.6.2,!=2.6.3", '
                "then replace every password and key that this machine knew",
            )
        elif version is not None:
            yield Finding("good", f"{name} {version} is not one of the malware releases")


def _python(facts: Facts) -> Iterator[Finding]:
    found = ".".join(map(str, facts.python))
    if facts.python < (3, 11):
        yield Finding(
            "broken", f"Python {found} is older than 3.11", "install Python 3.11 or newer"
        )
    else:
        yield Finding("good", f"Python {found}")


def _torch(facts: Facts) -> Iterator[Finding]:
    version = facts.versions.get("torch")
    if version is None:
        yield Finding("broken", "torch is not installed", "pip install torch")
    elif "torch" in facts.failures:
        yield Finding(
            "broken",
            f"torch {version} cannot be imported: {facts.failures['torch']}",
            f"pip install --force-reinstall torch=={_public(version)}",
        )
    elif _numbers(version) < (2, 6):
        yield Finding("broken", f"torch {version} is older than 2.6", 'pip install -U "torch>=2.6"')
    else:
        yield Finding("good", f"torch {version}")


def _tied(facts: Facts) -> Iterator[Finding]:
    torch = facts.versions.get("torch")
    for name in TIED:
        version = facts.versions.get(name)
        if version is None or torch is None:
            continue
        what = _quarrel(name, facts, torch)
        # pip finds the release that fits the torch that is named beside it.
        cure = f"pip uninstall -y {name}, or pip install {name} torch=={_public(torch)}"
        if what:
            yield Finding("broken", f"{name} {version} breaks torch {torch}: {what}", cure)
        else:
            yield Finding("good", f"{name} {version} fits torch {torch}")


def _quarrel(name: str, facts: Facts, torch: str) -> str:
    """Why a package does not fit this torch; empty where it does."""
    need = facts.needs.get(name, "")
    if need.startswith("==") and _public(need[2:]) != _public(torch):
        return f"it needs torch{need}"
    if name in facts.failures and "torch" not in facts.failures:
        return facts.failures[name]
    mine, theirs = _build(torch), _build(facts.versions[name])
    if mine and theirs and mine != theirs:
        return f"it was built for {theirs}, torch for {mine}"
    return ""


def _gpu(facts: Facts) -> Iterator[Finding]:
    if "torch" not in facts.versions or (facts.driver is None and facts.cuda is None):
        return
    if facts.driver is None:
        yield Finding("note", f"torch is built for CUDA {facts.cuda}, and there is no NVIDIA GPU")
    elif facts.cuda is None:
        yield Finding(
            "broken",
            "there is an NVIDIA GPU, and torch is a build for the CPU",
            f"pip install --force-reinstall torch=={_public(facts.versions['torch'])} "
            "--index-url https://download.pytorch.org/whl/"
            f"cu{_cuda_of(facts.driver)}, or another build that the driver can run",
        )
    elif _numbers(facts.driver) < DRIVERS.get(_numbers(facts.cuda)[0], (0, 0)):
        least = ".".join(map(str, DRIVERS[_numbers(facts.cuda)[0]]))
        yield Finding(
            "broken",
            f"the NVIDIA driver {facts.driver} is too old for CUDA {facts.cuda}",
            f"update the driver to {least} or newer, or install a torch for an older CUDA",
        )
    else:
        yield Finding("good", f"CUDA {facts.cuda} with the NVIDIA driver {facts.driver}")


def _cuda_of(driver: str) -> str:
    """The tag of the newest usual CUDA build that a driver can run."""
    tags = {13: "130", 12: "126", 11: "118"}
    able = [major for major in tags if _numbers(driver) >= DRIVERS[major]]
    return tags[max(able, default=11)]


def _extras(facts: Facts) -> Iterator[Finding]:
    for extra, packages in facts.extras.items():
        missing = [name for name in packages if name not in facts.versions]
        if extra in DEVELOPMENT:
            continue
        if missing:
            what = f"the extra `{extra}` is not installed: no {', '.join(missing)}"
            yield Finding("note", what, f'pip install "equivox[{extra}]"')
        else:
            yield Finding("good", f"the extra `{extra}` is installed")


def _data(facts: Facts) -> Iterator[Finding]:
    cure = "export EQUIVOX_DATA=FOLDER, where FOLDER holds avmnist/avmnist.npz and others"
    if not facts.data:
        yield Finding("note", "EQUIVOX_DATA is not set: data sets of files are not found", cure)
    elif facts.sets is None:
        yield Finding("broken", f"EQUIVOX_DATA names no folder: {facts.data}", cure)
    elif not facts.sets:
        yield Finding("broken", f"EQUIVOX_DATA holds no data set: {facts.data}", cure)
    else:
        yield Finding("good", f"EQUIVOX_DATA holds {', '.join(facts.sets)}")


CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    _malware,
    _python,
    _torch,
    _tied,
    _gpu,
    _extras,
    _data,
)


# ── the facts ───────────────────────────────────────────────────────────────────────────────────


def gather() -> Facts:
    """The facts of this installation; no package is imported in this process."""
    installed: dict[str, Distribution] = {}
    for package in distributions():  # of two that are found, the first is the one imported
        installed.setdefault(_normal(package.metadata["Name"] or ""), package)
    versions = {name: d.version for name, d in installed.items()}
    infected = any(versions.get(name) in bad for name, bad in MALWARE.items())
    tried = [] if infected else [name for name in ("torch", *TIED) if name in installed]
    failures = {name: error for name in tried if (error := _import_error(name))}
    data = os.environ.get("EQUIVOX_DATA")
    return Facts(
        versions=versions,
        needs={name: _torch_need(installed[name]) for name in TIED if name in installed},
        failures=failures,
        cuda=_cuda(installed.get("torch")),
        driver=_driver(),
        extras=_extras_of(installed.get("equivox")),
        data=data,
        sets=_sets(data),
    )


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _import_error(name: str) -> str:
    """The last line of what importing a package says; empty where it works."""
    command = [sys.executable, "-c", f"import {name}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    lines = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
    return lines[-1] if done.returncode else ""


def _torch_need(package: Distribution) -> str:
    """What a package requires of torch, for example `==2.13.0`."""
    for requirement in package.requires or []:
        if matched := re.match(r"torch\b(?!-)\s*\(?([^;)]*)", requirement):
            return matched[1].strip()
    return ""


def _cuda(torch: Distribution | None) -> str | None:
    """The CUDA that torch was built for, read from its file of versions."""
    if torch is None:
        return None
    try:
        text = Path(str(torch.locate_file("torch/version.py"))).read_text(encoding="utf-8")
    except OSError:
        return None
    matched = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return matched[1] if matched else None


def _driver() -> str | None:
    """The NVIDIA driver's version, where there is a GPU."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(re.findall(r"\d+(?:\.\d+)+", done.stdout)), None)


def _extras_of(package: Distribution | None) -> dict[str, tuple[str, ...]]:
    """The packages of each extra, from equivox's own metadata."""
    found: dict[str, tuple[str, ...]] = {}
    for requirement in (package.requires if package else None) or []:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        if name and extra:
            found[extra[1]] = (*found.get(extra[1], ()), _normal(name[0]))
    return found


def _sets(data: str | None) -> tuple[str, ...] | None:
    """The data sets in a folder; None where it is none."""
    if not data or not Path(data).is_dir():
        return None
    return tuple(sorted(p.stem for p in Path(data).glob("*/*.npz") if p.stem == p.parent.name))


def _public(version: str) -> str:
    """A version without its build: `2.13.0` of `2.13.0+cpu`."""
    return version.strip().partition("+")[0]


def _build(version: str) -> str:
    return version.partition("+")[2]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", _public(version))[:2])
