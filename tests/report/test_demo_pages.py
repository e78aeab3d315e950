"""The pages of the demonstration: what they say, how they are linked, how a browser shows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.demo.test_demo import comparison, runs_of
from tests.report.browser import DRAWN, FILLED, FITTING, WIDER, Browser
from tests.report.test_diagnosis import Words

from equivox.demo.cases import CASES, METHODS
from equivox.demo.pages import INDEX, MEANING, demonstration
from equivox.demo.sections import methods_section, probes, reached
from equivox.demo.seeds import Finished


def pages(seeds: int) -> dict[str, str]:
    comparisons = [comparison(case.data, seeds) for case in CASES]
    stopped = "" if seeds == 3 else "the budget of 50 s allows no more"
    finished = Finished(runs_of(seeds), seeds, 3, 60.0, stopped)
    abouts = [f"What `{case.data}` is & more." for case in CASES]
    return demonstration(comparisons, abouts, METHODS, finished, "the loop")


PAGES = pages(3)
NAMES = [case.data for case in CASES]


def test_there_is_an_index_and_a_page_with_a_twin_for_each_case() -> None:
    files = {f"{name}.{kind}" for name in NAMES for kind in ("html", "json")}
    assert set(PAGES) == {INDEX} | files


def test_the_index_has_every_verdict_and_a_link_to_its_diagnosis() -> None:
    said = Words(PAGES[INDEX])
    for words in (
        "Joint training neglects hard. The best yardstick is",
        "Nothing to cure here",
        "Imbalanced: “hard” is neglected",
        "Balanced: nothing to cure",
        "What latent2 is & more.",
        "equivox demo --seeds 3 --budget 100",
        "the loop",
        *MEANING,
    ):
        assert words in said.text, words
    links = [value for key, value in said.attributes if key == "href"]
    assert links == [f"{name}.html" for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_a_diagnosis_with_the_methods_compared(name: str) -> None:
    said = Words(PAGES[f"{name}.html"])
    for words in ("What to do", "Methods compared", "All cases of the demonstration"):
        assert words in said.text
    assert 'href="#methods"' in PAGES[f"{name}.html"] and ("href", INDEX) in said.attributes
    assert said.text.index("What to do") < said.text.index("Methods compared")
    for row in comparison(name).runs:
        assert f"{comparison(name).metric(row)[0]:.4f}" in said.text


def test_gains_stand_with_their_p_values() -> None:
    said = Words(methods_section(comparison("latent2"), METHODS).body).text
    assert "MMPareto0.951 ± 0.002+0.028 ± 0.005p = 0.002" in said


def test_one_seed_is_said_to_be_one_and_nothing_is_nan() -> None:
    found = pages(1)
    assert "1 of 3 seeds, for the budget of 50 s" in Words(found[INDEX]).text
    for text in found.values():
        assert "nan" not in Words(text).text.lower().split()
    assert "One seed does not tell" in Words(found["latent2.html"]).text


def test_the_probes_of_a_case_are_on_one_scale() -> None:
    easy, hard = probes(comparison("latent2"))
    assert easy.layout["yaxis"]["range"] == hard.layout["yaxis"]["range"]
    names = [trace["name"] for trace in hard.data]
    assert names[:2] == ["alone", "joint training"] and "ensemble" not in names


def test_what_is_reached_is_compared_with_joint_training() -> None:
    found = comparison("latent2")
    (line,) = reached(found).layout["shapes"]
    assert line["x0"] == pytest.approx(found.row("joint").metric.mean)


@pytest.mark.parametrize("name", [INDEX, "latent2.html"])
def test_a_browser_shows_it(name: str, browser: Browser, tmp_path: Path) -> None:
    browser.events.clear()
    path = tmp_path / name
    path.write_text(PAGES[name], encoding="utf-8")
    browser.show(path, 1280)
    before = browser.evaluate("document.documentElement.scrollHeight")
    browser.wait(DRAWN)
    assert browser.evaluate("document.documentElement.scrollHeight") == before
    assert browser.evaluate(FILLED) == []
    browser.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    browser.resize(390)
    browser.wait(FITTING)
    assert browser.evaluate(WIDER) <= 0
    assert browser.complaints() == []
    assert set(browser.requests()) == {path.as_uri()}
