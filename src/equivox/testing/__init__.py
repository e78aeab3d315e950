"""The conformance suite: what every method must pass, also one of your own.

>>> import equivox as ev
>>> check_method(ev.Joint, only=["builds", "resumes"])
{'builds': 'passed', 'resumes': 'passed'}
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

from equivox.errors import nearest
from equivox.method import Method
from equivox.testing.checks import CHECKS, Case, DoesNotApply
from equivox.testing.pair import Pair
from equivox.testing.problem import Problem

__all__ = ["CHECKS", "Pair", "Problem", "check_method"]


def check_method(
    method: type[Method], *, only: Iterable[str] | None = None, pair: Pair | None = None
) -> dict[str, str]:
    """Run the checks over a method, with its `brief` arguments.

    Arguments:
        method: the class.
        only: names of some of the `CHECKS`; all by default.
        pair: a running pair of processes for the distributed checks; by default one is started
            when it is needed.

    Returns "passed" for each check, or the reason why the method declares it not to apply. Raises
    AssertionError for the first check that fails, with its name.
    """
    with ExitStack() as stack:

        def running() -> Pair:
            nonlocal pair
            if pair is None:
                pair = stack.enter_context(Pair())
            return pair

        case = Case(method, method.brief, running)
        return {name: _result(name, case) for name in (CHECKS if only is None else only)}


def _result(name: str, case: Case) -> str:
    if name not in CHECKS:
        raise ValueError(f"The check should be known. Found `{name}`. {nearest(name, CHECKS)}")
    if name in case.method.exceptions:
        return case.method.exceptions[name]
    try:
        CHECKS[name](case)
    except DoesNotApply as reason:
        return str(reason)
    except Exception as error:
        said = error if isinstance(error, AssertionError) else repr(error)
        raise AssertionError(f"`{case.method.__name__}` fails `{name}`. {said}") from error
    return "passed"
