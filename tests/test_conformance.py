"""Every registered method passes the conformance suite, and the suite bites."""

from __future__ import annotations

from collections.abc import Iterator

import jaxtyping
import pytest
from tests import naive_methods

from equivox import methods
from equivox.testing import CHECKS, Pair, check_method

DISTRIBUTED = [name for name in CHECKS if "two_ranks" in name]
METHODS = methods.names()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with Pair() as running:
        yield running


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("check", [name for name in CHECKS if name not in DISTRIBUTED])
def test_alone(name: str, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if check == "equals_compiled":  # torch's compiler cannot trace the checks of shapes
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    check_method(methods.get(name), only=[check])


@pytest.mark.xdist_group("distributed")
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("check", DISTRIBUTED)
def test_on_two_ranks(name: str, check: str, pair: Pair) -> None:
    check_method(methods.get(name), only=[check], pair=pair)


FAULTS = {
    "LocalScores": "equals_on_two_ranks",
    "RankNoise": "equals_on_two_ranks",
    "Unsynchronised": "equals_on_two_ranks",
    "ZeroNotNone": "trains_two_modalities",
    "Forgetful": "resumes",
    "Restless": "resumes",
    "Waiting": "never_waits",
    "Positional": "builds",
}


@pytest.mark.xdist_group("distributed")
@pytest.mark.parametrize(("fault", "check"), FAULTS.items())
def test_naive_variants_fail(fault: str, check: str, pair: Pair) -> None:
    with pytest.raises(AssertionError, match=f"`{fault}` fails `{check}`"):
        check_method(getattr(naive_methods, fault), only=[check], pair=pair)


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(ValueError, match="Did you mean `resumes`"):
        check_method(methods.get("joint"), only=["resume"])
