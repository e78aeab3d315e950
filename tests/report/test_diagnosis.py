"""The page of a diagnosis: what it says, that nothing slips in, and how a browser shows it."""

from __future__ import annotations

import base64
import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.report.browser import DRAWN, FILLED, FITTING, WIDER, Browser
from tests.report.diagnoses import HOSTILE, about, balanced, example, regression, with_gaps

from equivox.diagnosis.diagnose import Diagnosis
from equivox.diagnosis.dynamics import Onset
from equivox.diagnosis.findings import skipped
from equivox.diagnosis.verdict import THRESHOLDS, UNSURE
from equivox.report.diagnosis import CONTENTS, notebook, page, save, text, twin
from equivox.report.plots import Series, bars, lines

EIGHT = tuple(f"modality number {i} with a long name" for i in range(8))
KINDS: dict[str, Callable[[], Diagnosis]] = {
    "example": example,
    "balanced": balanced,
    "regression": regression,
    "with_gaps": with_gaps,
    "eight": lambda: example(EIGHT),
    "hostile": lambda: example((*EIGHT[:7], HOSTILE), HOSTILE),
}


class Words(HTMLParser):
    """What a reader sees, and which elements and attributes there are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += [(key, value or "") for key, value in attrs]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@pytest.mark.parametrize("kind", KINDS)
def test_every_section_is_there_in_order_and_linked(kind: str) -> None:
    whole = page(KINDS[kind]())
    places = [whole.index(f'<section id="{name}"') for name in CONTENTS]
    assert places == sorted(places)
    assert all(f'href="#{name}"' in whole for name in CONTENTS)


def test_the_verdict_comes_first_in_words() -> None:
    said = Words(page(example())).text
    first = said[: said.index("Headroom")]
    assert "Imbalanced: “hard” is neglected" in first
    assert "hard is neglected: a note." in first
    assert "+0.013 (+0.003 to +0.023) accuracy" in first
    assert "2,400 test samples" in first
    assert "unimodal_losses: Add a loss." in first


def test_what_was_measured_is_said_in_numbers() -> None:
    said = Words(page(example())).text
    for words in (
        "chance0.345",
        "late fusion0.9440.934 to 0.954",
        "easy, hard75",  # routing
        "none75",
        "hard0.4000.390 to 0.4100.2000.190 to 0.2102%",  # use, with its listening
        "hard0.8310.821 to 0.8410.8720.862 to 0.8820.0410.031 to 0.051",  # probes
        "hard · 10.277",  # conflict
        "hard0.9310.921 to 0.9410.537",  # robustness
        "easy + hard 0.062",  # calibration
        "answers 2.3% (1.3% to 3.3%) of the test samples rightly",
        "548twoonetwo75%99%",  # a case
        "zero, a note800 samples0.900",  # a class
        "hard (12 epochs)",  # not converged
        "Clean it.",
        "1. unimodal_losses0.0250.015 to 0.0351.02",
        "2.13.0",
    ):
        assert words in said, words
    for name, threshold in THRESHOLDS.items():
        source = threshold.source.replace("`", "")
        assert f"{name}{threshold.value:g}{threshold.meaning}{source}" in said


def test_faults_come_before_what_is_fine() -> None:
    said = Words(page(example())).text
    assert "1 of 2 checks found something" in said
    assert said.index("nonfinite") < said.index("of comparable scale")


def test_checks_that_were_not_made_are_counted_apart() -> None:
    found = balanced()
    left = replace(found, data=(*found.data, skipped("optimizer", "no optimizer")))
    said = Words(page(left)).text
    assert "All 1 checks that were made are fine" in said and "1 could not be made." in said
    assert "1 checks that are fine" in said and "Not looked at: found no optimizer." in said


def test_a_balanced_network_is_said_to_be_one() -> None:
    found = page(balanced())
    said = Words(found).text
    assert "Balanced: nothing to cure" in said and 'class="finding good"' in found
    assert "All 1 checks that were made are fine" in said and "could not be made" not in said
    assert "no gain for sure" in said


def test_a_gain_that_does_not_count_is_not_said_to_be_had() -> None:
    had = "something is to be had."
    assert had in Words(page(example())).text  # imbalanced, and late fusion better
    found = replace(balanced(), headroom=replace(balanced().headroom, gain=about(0.02)))
    said = Words(page(found)).text
    assert had not in said and "beyond the interval, but by too little to count." in said


def test_shares_of_what_does_not_move_are_not_said() -> None:
    found = example()
    known = replace(found.verdict.modalities["hard"], listening=math.nan, reliance=131.0)
    calm = replace(balanced(), verdict=replace(balanced().verdict, modalities={"hard": known}))
    said = Words(page(calm)).text
    assert "a late fusion hardly moves with it." in said and "nothing to compare with (“-”)" in said
    assert "0.190 to 0.210-" in said and ">1000%" in said and "13100%" not in said
    assert text(calm).count(">1000%") == 1


def test_an_under_trained_network_is_said_to_be_one() -> None:
    found = example()
    short = replace(found.verdict, kind=UNSURE, neglected=(), underfits=True)
    said = Words(page(replace(found, verdict=short))).text
    assert "Cannot tell who is neglected" in said
    assert "which is under-trained: more training may have it as well." in said


def test_what_a_regression_does_not_have_is_said() -> None:
    said = Words(page(regression())).text
    for words in (
        "R²",
        "There is no routing table",
        "does not have",
        "Nothing was recorded in training",
        "Gradients were not compared",
        "excess of the squared error",
        "51.5000.250, 0.5001.2501.562",
    ):
        assert words in said, words


def test_what_could_not_be_measured_is_said_and_never_nan() -> None:
    whole = Words(page(with_gaps()))
    assert "not measured" in whole.text
    assert not re.search(r"\bnan\b", whole.text, re.IGNORECASE)
    for script in _specifications(whole):
        json.loads(script, parse_constant=pytest.fail)


def _specifications(whole: Words) -> list[str]:
    return [script for script in whole.scripts if script.startswith("{")]


def test_foreign_text_is_escaped_everywhere() -> None:
    whole = Words(page(example(("easy", HOSTILE), HOSTILE)))
    harmless = Words(page(example()))
    assert whole.seen.count("script") == harmless.seen.count("script")
    assert whole.seen.count("b") == 0
    assert HOSTILE.split("`")[0] in "".join(whole.words)
    # Plotly reads text as markup of its own.
    for script in _specifications(whole):
        for trace in json.loads(script)["data"]:
            assert "<" not in trace.get("name", "") + "".join(trace["hovertext"])
        axis = json.loads(script)["layout"]["yaxis"]
        assert "<" not in "".join(axis.get("ticktext", []))


def test_hostile_class_names_and_texts_are_escaped() -> None:
    whole = Words(page(example(note=HOSTILE)))
    assert whole.seen.count("script") == Words(page(example())).seen.count("script")
    assert "b" not in whole.seen
    assert f"zero, {HOSTILE}" in "".join(whole.words)  # a class
    assert HOSTILE in whole.words  # a text


def test_nothing_is_asked_of_the_network() -> None:
    whole = Words(page(example()))
    assert not {"link", "iframe", "object"} & set(whole.seen)
    links = [value for key, value in whole.attributes if key in ("href", "src")]
    inside = ("#", "data:application/json", "data:image/png;base64,")
    assert links and all(link.startswith(inside) for link in links)


def test_plotly_is_in_the_page_once_and_packed() -> None:
    whole = page(example())
    assert whole.count('id="plotly"') == 1
    assert len(whole) < 2_500_000


def test_figures_have_a_height_and_their_numbers_in_words() -> None:
    attributes = Words(page(example())).attributes
    labels = [value for key, value in attributes if key == "aria-label" and value != "Sections"]
    alts = [label for label in labels if "of sample" not in label]
    heights = [value for key, value in attributes if key == "style"]
    assert len(alts) == len(heights) > 10
    assert all(re.fullmatch(r"height:\d+px", height) for height in heights)
    assert any("hard alone: 0.880 (0.870 to 0.890)" in alt for alt in alts)


def test_sampled_contributions_are_said_to_be_sampled() -> None:
    found = example()
    few = {how: replace(x, subsets={"": 0.5}) for how, x in found.contributions.items()}
    assert "exact, over all subsets" in Words(page(found)).text
    assert "sampled over random orders" in Words(page(replace(found, contributions=few))).text


def test_the_onset_of_the_damage_is_said_and_marked() -> None:
    whole = Words(page(example()))
    said = "hard: from epoch 3 on its probe reads less than the modality's own model did after as"
    assert said in whole.text
    assert "; from epoch 4 on the gradient of its encoder stays below a tenth" in whole.text
    places = [json.loads(s)["layout"].get("shapes", []) for s in _specifications(whole)]
    colours = [(s["x0"], s["line"]["color"]) for shapes in places for s in shapes]
    assert (3, "var(--m1)") in colours
    calm = replace(example().dynamics, onset={"easy": Onset(None, None, None)})
    unhurt = Words(page(replace(example(), dynamics=calm)))
    assert "When it was left behind cannot be seen in what was recorded." in unhurt.text


def test_nobody_is_said_to_be_damaged_where_nobody_is_blamed() -> None:
    found = replace(balanced(), dynamics=example().dynamics)
    assert any(x.behind for x in found.dynamics.onset.values())
    whole = Words(page(found))
    assert "so none has an onset" in whole.text and "from epoch" not in whole.text
    assert "where the damage began" not in whole.text
    for script in _specifications(whole):
        layout = json.loads(script)["layout"]
        uprights = [s for s in layout.get("shapes", []) if s["line"]["color"] == "var(--m1)"]
        assert not uprights


def test_hurt_samples_are_shown_with_what_they_are_in_words() -> None:
    found = example(("photo", "words", "sound", "table"))
    whole = Words(page(found))
    said = {value for key, value in whole.attributes if key in ("alt", "aria-label")}
    assert {
        "photo of sample 548, an image",
        "sound of sample 549, 2 signals from 0 to 1",
        "table of sample 548, 3 values from -1 to 2.5",
    } <= said
    assert "Sample 548truth: two · network: one · alone: two" in whole.text
    assert whole.seen.count("blockquote") == 2 and "a notewords" in whole.text


def test_what_is_drawn_of_a_signal_lies_within_its_frame() -> None:
    whole = Words(page(example(("photo", "words", "sound", "table"))))
    lines = [value for key, value in whole.attributes if key == "points"]
    places = [tuple(map(float, p.split(","))) for line in lines for p in line.split()]
    assert places[:3] == [(0.0, 62.0), (80.0, 2.0), (160.0, 32.0)]
    assert all(0 <= x <= 160 and 0 <= y <= 64 for x, y in places)


def test_many_modalities_are_cut_to_the_most_samples() -> None:
    whole = Words(page(example(EIGHT)))
    assert "The other groups hold 93.8% of the samples" in whole.text
    assert "240 other subsets are in the JSON twin" in whole.text


@pytest.mark.parametrize("kind", KINDS)
def test_the_twin_has_every_number_beside_the_page_and_in_it(kind: str, tmp_path: Path) -> None:
    found = KINDS[kind]()
    path = save(found, tmp_path / "new" / "page.html")
    assert path == tmp_path / "new" / "page.html"
    assert sorted(os.listdir(path.parent)) == ["page.html", "page.json"]
    beside = json.loads((path.parent / "page.json").read_text(), parse_constant=pytest.fail)
    assert beside == json.loads(json.dumps(found.to_json()))
    packed = re.search(r"data:application/json;base64,([^\"]+)", path.read_text())
    assert packed is not None
    assert json.loads(base64.b64decode(packed[1])) == beside


def test_saving_from_the_diagnosis(tmp_path: Path) -> None:
    assert example().save(tmp_path / "page.html").read_text() == page(example())


def test_a_twin_keeps_what_json_does_not_know(tmp_path: Path) -> None:
    found = example()
    object.__setattr__(found, "receipt", {"folder": tmp_path})
    assert json.loads(twin(found))["receipt"] == {"folder": str(tmp_path)}


def test_a_page_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Pass `page\.html`"):
        save(example(), tmp_path / "page.json")
    assert not os.listdir(tmp_path)


def test_a_page_without_html_in_its_name_keeps_it(tmp_path: Path) -> None:
    save(example(), tmp_path / "run.v2")
    assert sorted(os.listdir(tmp_path)) == ["run.v2", "run.v2.json"]


@pytest.mark.parametrize("blocked", ["page.html", "page.json"])
def test_neither_is_written_where_one_cannot_be(blocked: str, tmp_path: Path) -> None:
    (tmp_path / blocked).mkdir()
    with pytest.raises(OSError, match=re.escape(blocked)):
        save(example(), tmp_path / "page.html")
    assert os.listdir(tmp_path) == [blocked]


def test_text_is_a_short_table() -> None:
    rows = text(example()).splitlines()
    assert rows[0] == "Imbalanced: “hard” is neglected"
    levels = "the network 0.931, late fusion 0.944, the best single modality 0.900, chance 0.345."
    assert f"  Accuracy: {levels}" in rows
    assert "To be gained: +0.013 (+0.003 to +0.023) accuracy" in "".join(rows)
    assert "modality  alone  probe  probe alone    gap  contribution  listening  reliance" in rows
    assert "hard      0.880  0.831        0.872  0.041         0.300         2%        3%" in rows
    assert rows[-2].startswith("1. `unimodal_losses`: Add a loss. Expected: +0.025")
    assert rows[-1] == "2. Look at the data."
    assert max(map(len, rows)) <= 98


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_printed(kind: str) -> None:
    assert text(KINDS[kind]()) == str(KINDS[kind]())


def test_a_notebook_shows_the_page_in_a_frame() -> None:
    shown = Words(notebook(example(("easy", HOSTILE), HOSTILE)))
    assert shown.seen == ["iframe"]
    assert dict(shown.attributes)["srcdoc"] == page(example(("easy", HOSTILE), HOSTILE))
    assert dict(shown.attributes)["sandbox"] == "allow-scripts allow-downloads"


def test_bars_keep_rows_apart_that_look_alike() -> None:
    long = ["the same long beginning, one", "the same long beginning, two"]
    plot = bars("t", "l", long, [Series("", [about(0.1), None], "--s1")])
    assert plot.data[0]["y"] == [0, 1] and plot.data[0]["x"] == [0.1, None]
    assert "two: not measured" in plot.alt


def test_quotation_marks_are_shown_as_they_are() -> None:
    """Plotly knows `&lt;` and `&amp;`, but not `&quot;`."""
    name = "<b> & \"q\" 'x'"
    shown = "&lt;b&gt; &amp; \"q\" 'x'"
    for plot in (
        bars("t", "l", [name], [Series(name, [0.5], "--s1")]),
        lines("t", "l", [0, 1], [Series(name, [0.5, 0.6], "--m0")], "epoch"),
    ):
        (trace,) = plot.data
        assert trace["name"] == shown and shown in trace["hovertext"][0]
    assert bars("t", "l", [name], []).layout["yaxis"]["ticktext"] == [shown]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.3, 2.0], [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50]),
        ([0.03, 1.1], [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50]),
        ([0.002, 30.0], [1e-3, 1e-2, 0.1, 1, 10, 100]),
        ([1e-9, 1.0], [1e-9, 1e-7, 1e-5, 1e-3, 0.1]),
    ],
)
def test_logarithmic_axes_have_a_few_numbers(values: list[float], ticks: list[float]) -> None:
    plot = lines("t", "l", [0, 1], [Series("a", values, "--m0")], "epoch", logarithmic=True)
    assert plot.layout["yaxis"]["tickvals"] == pytest.approx(ticks)
    narrow = lines("t", "l", [0], [Series("a", [0.12, 0.17], "--m0")], "epoch", logarithmic=True)
    assert "tickvals" not in narrow.layout["yaxis"]  # none of 1, 2 and 5 is there


def test_a_logarithmic_axis_passes_over_zeros_of_the_training_data() -> None:
    thick, thin = ([Series("a", x, "--m0")] for x in ([0.1, 1.0], [0.0, None]))
    plot = lines("t", "l", [0, 1], thick, "epoch", thin=thin, logarithmic=True)
    assert min(plot.layout["yaxis"]["tickvals"]) == pytest.approx(0.1)


def test_level_lines_have_a_narrow_axis() -> None:
    level = lines("t", "l", [0, 1], [Series("a", [1.0, 1.0], "--m0")], "epoch")
    low, high = level.layout["yaxis"]["range"]
    assert 0.9 < low < 1 < high < 1.1
    other = lines("t", "l", [0, 1], [Series("a", [0.9, 1.0], "--m0")], "epoch")
    assert "range" not in other.layout["yaxis"]


def test_numbers_have_no_classes() -> None:
    found = replace(regression(), previews={5: example().previews[548]})
    said = Words(page(found)).text
    assert "alone answers better, the largest excess first" in said
    assert "those first where hard alone is better by most" in said
    assert "of each class" not in said and "surest" not in said


def test_lines_of_training_data_have_no_place_in_the_legend() -> None:
    one = [Series("a", [0.5, 0.6], "--m0")]
    plot = lines("t", "l", [0, 1], one, "epoch", thin=one)
    assert [trace.get("showlegend", True) for trace in plot.data] == [True, False]


# ── in a browser ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["example", "regression", "with_gaps", "hostile"])
def test_a_browser_shows_it(kind: str, browser: Browser, tmp_path: Path) -> None:
    browser.events.clear()
    found = KINDS[kind]()
    path = save(found, tmp_path / "page.html")
    browser.show(path, 1280)
    before = browser.evaluate("document.documentElement.scrollHeight")
    browser.wait(DRAWN)
    assert browser.evaluate("document.documentElement.scrollHeight") == before
    if kind != "with_gaps":
        assert browser.evaluate(FILLED) == []
    browser.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert browser.evaluate(WIDER) <= 0
    browser.resize(390)
    browser.wait(FITTING)
    assert browser.evaluate(WIDER) <= 0
    assert found.verdict.reasons[0].split("`")[-1] in browser.evaluate("document.body.innerText")
    assert browser.complaints() == []
    assert set(browser.requests()) == {path.as_uri()}


def test_figures_follow_the_colours_of_the_page(browser: Browser, tmp_path: Path) -> None:
    path = save(example(), tmp_path / "page.html")
    text_colour = "getComputedStyle(document.querySelector('.plot text')).fill"
    body = "getComputedStyle(document.body).color"
    seen = set()
    for dark in (False, True):
        browser.show(path, 1280, dark)
        browser.wait(DRAWN)
        assert browser.evaluate(text_colour) == browser.evaluate(body)
        seen.add(browser.evaluate(body))
    assert len(seen) == 2


def test_paper_has_its_own_colours_and_width(browser: Browser, tmp_path: Path) -> None:
    browser.show(save(example(), tmp_path / "page.html"), 1280, dark=True)
    browser.wait(DRAWN)
    look = """(() => { const plot = document.querySelector('.plot');
        return [getComputedStyle(plot.querySelector('text')).fill, plot.dataset.width]; })()"""
    before = browser.evaluate(look)
    browser.evaluate(f"addEventListener('beforeprint', () => window.printed = {look}), 0")
    browser.send("Page.printToPDF")
    assert browser.evaluate("printed") == ["rgb(0, 0, 0)", "620"]
    assert browser.evaluate(look) == before != ["rgb(0, 0, 0)", "620"]


def test_a_changed_scheme_changes_the_figures(browser: Browser, tmp_path: Path) -> None:
    browser.show(save(example(), tmp_path / "page.html"), 1280)
    browser.wait(DRAWN)
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    browser.send("Emulation.setEmulatedMedia", features=[dark])
    browser.wait(
        "getComputedStyle(document.querySelector('.plot text')).fill"
        " === getComputedStyle(document.body).color"
    )


def test_hostile_names_are_shown_as_they_are(browser: Browser, tmp_path: Path) -> None:
    browser.show(save(KINDS["hostile"](), tmp_path / "page.html"), 1280)
    browser.wait(DRAWN)
    ticks = browser.evaluate(
        "[...document.querySelectorAll('.plot .ytick text')].map((t) => t.textContent)"
    )
    assert "<script>alert('x')<…" in ticks


def test_the_frame_of_a_notebook_works(browser: Browser, tmp_path: Path) -> None:
    browser.events.clear()
    path = tmp_path / "notebook.html"
    path.write_text(f"<!doctype html><title>n</title>{notebook(example())}", encoding="utf-8")
    browser.show(path, 1280)
    assert browser.evaluate("document.querySelector('iframe').clientHeight") > 500
    assert browser.complaints() == []
