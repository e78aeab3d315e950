"""The site of a comparison: what it says, that nothing slips in, and how a browser shows it."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from tests.bench.recorded import cost, fail, record
from tests.report.browser import WIDER, Browser, binary, browsing

from equivox import cli, methods
from equivox.bench.experiment import Experiment
from equivox.bench.jobs import Choice, Job
from equivox.bench.leaderboard import boards, is_yardstick
from equivox.bench.making import make
from equivox.bench.notation import signed
from equivox.bench.search import choose, search_jobs
from equivox.bench.statistics import paired
from equivox.report.site import commands, index, reading
from equivox.report.site.building import build, pages
from equivox.report.site.content import Content
from equivox.report.site.lacking import TRIALS, incomplete
from equivox.report.site.scatter import Point, scatter
from equivox.report.site.strip import Strips

HOSTILE = "<script>alert('x')</script><b> & \"more\""
SMALL, OTHER = Choice.parse("latent2:samples=400"), Choice.parse("latent_regression:samples=400")
JOINT, LOSSES, OGM = Choice("joint"), Choice("unimodal_losses"), Choice("ogm_ge", {"alpha": 0.5})
REFUSED = Choice("mmcosine")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets with two seeds, one of them tuned as well, and a method that is refused."""
    out = tmp_path_factory.mktemp("compared")
    trials = search_jobs([SMALL], [LOSSES], 2, epochs=1)
    for job in trials:
        make(job, out)
    choose(out, trials, 2)
    for seed in (0, 1):
        jobs = [Job(SMALL, method, seed, 1) for method in (JOINT, LOSSES, OGM)]
        jobs += [Job(OTHER, method, seed, 1) for method in (JOINT, REFUSED)]
        for job in [*jobs, Job(SMALL, LOSSES, seed, 1, tuned=2)]:
            make(job, out)
    return out


@pytest.fixture(scope="module")
def texts(compared: Path) -> dict[str, str]:
    return pages(Content(compared))


class Words(HTMLParser):
    """What a reader sees, which elements and attributes there are, and where links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.open: list[str] = []
        self.seen: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        found = dict(attrs)
        self.ids += [str(found["id"])] if "id" in found else []
        self.links += [str(found[k]) for k in ("href", "src") if k in found]
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def said(text: str) -> str:
    return " ".join(" ".join(Words(text).words).split())


def copied(compared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(compared, tmp_path / "copy"))


def record_of(out: Path, method: str = "joint", seed: int = 0) -> Path:
    return out / "runs" / SMALL.folder / method / f"seed-{seed}" / "record.json"


# ── what it says ────────────────────────────────────────────────────────────────────────────────


def test_there_is_a_page_a_method_and_a_page_a_data_set(texts: dict[str, str]) -> None:
    methods = ("joint", "unimodal_losses", "ogm_ge_alpha=0.5", "mmcosine")
    data = ("latent2_samples=400", "latent_regression_samples=400")
    assert sorted(name for name in texts if name.endswith("html")) == sorted(
        ["index.html", *(f"methods/{m}.html" for m in methods), *(f"data/{d}.html" for d in data)]
    )
    assert {"tables/table.csv", "tables/table.md", "tables/table.tex"} < set(texts)


def test_the_numbers_are_those_of_the_leaderboard(compared: Path, texts: dict[str, str]) -> None:
    for (data, tuned), board in boards(compared).items():
        whole = said(texts["index.html"])
        page = said(texts[f"data/{Choice.parse(data).folder}.html"])
        for line in board.lines:
            assert f"{line.title} " in whole and f"{line.metric.mean:.3f}" in page
            if line.over_joint is not None and not tuned:
                assert signed(line.over_joint.mean) in page


def test_yardsticks_and_what_is_incomplete_are_said_to_be(texts: dict[str, str]) -> None:
    index = texts["index.html"]
    assert index.count('class="yardstick"') > 0
    assert "best yardstick" in said(index)
    assert "would find before Holm's correction" in said(index)
    assert "No line is complete yet" in said(index) and "2 of 5 seeds (5 lines)" in said(index)
    assert 'title="2 of 5 seeds' not in index  # it is said once
    assert "2 of 5 seeds (all)" in said(texts["data/latent2_samples=400.html"])


def completing(out: Path) -> dict[tuple[str, int | None], Namespace]:
    """The commands that complete a comparison, by data set and trials, as they are read again."""
    written = re.findall(r"equivox compare[^<\n]*", html.unescape(incomplete(Content(out))))
    every = [cli._parsed(shlex.split(command)[1:]) for command in written]
    assert all((given.seeds, given.out) == (5, out) for given in every)
    return {(given.data, given.search): given for given in every}


def test_the_commands_that_complete_a_comparison(compared: Path) -> None:
    """They keep the methods with their options, and add the yardsticks that are lacking."""
    found = completing(compared)
    assert found.keys() == {
        *((SMALL.label, trials) for trials in (None, 2)),
        *((OTHER.label, trials) for trials in (None, TRIALS)),
    }
    assert all(given.epochs == 1 for given in found.values())
    defaults = {*found[SMALL.label, None].methods.split(",")}
    assert {"joint", OGM.label, "ensemble", "modality_dropout"} <= defaults
    tuned = {*found[OTHER.label, TRIALS].methods.split(",")}
    assert tuned == {name for name in methods.names() if is_yardstick(name)}


def described(out: Path, **settings: dict[str, Any]) -> None:
    """Give the recorded runs their experiments, by data set."""
    for folder in out.glob("runs/*/*/seed-*"):
        data = folder.parts[-3]
        told = {"experiment": Experiment(data, **settings.get(data, {})).to_json()}
        (folder / "config.json").write_text(json.dumps(told))


def test_each_board_is_completed_by_its_own_settings(tmp_path: Path) -> None:
    for data in ("latent2", "xor"):
        record(tmp_path, "joint", [0.8, 0.9], data=data)
    described(tmp_path, latent2={"epochs": 3}, xor={"patience": 2})
    found = completing(tmp_path)
    settings = {key: (given.epochs, given.patience) for key, given in found.items()}
    assert settings == {
        **{("latent2", trials): (3, None) for trials in (None, TRIALS)},
        **{("xor", trials): (None, 2) for trials in (None, TRIALS)},
    }


def test_what_no_command_completes_has_none(tmp_path: Path) -> None:
    """Five seeds of everything, some of which diverged or have another protocol."""
    for name in filter(is_yardstick, methods.names()):
        for tuned in (0, 2):
            record(tmp_path, name, [0.8] * 5, tuned=tuned)
    record(tmp_path, "lfm", [0.8] * 4)
    fail(tmp_path, "lfm", 4)
    record(tmp_path, "umt", [0.8] * 5, fingerprint="xyz")
    described(tmp_path)
    found = incomplete(Content(tmp_path))
    assert "2 of 16 lines are not complete yet: 4 of 5 seeds (1 line)" in said(found)
    assert "equivox compare" not in found and "lacking" not in said(found)


def test_a_method_that_was_refused_is_told_with_the_reason(texts: dict[str, str]) -> None:
    for name in ("methods/mmcosine.html", "data/latent_regression_samples=400.html"):
        assert "MMCosine" in said(texts[name]) and "Regression" in said(texts[name])
    assert "It came to an end in no run." in said(texts["methods/mmcosine.html"])


def test_a_page_has_the_facts_of_its_method(texts: dict[str, str]) -> None:
    page = said(texts["methods/ogm_ge_alpha=0.5.html"])
    assert page.startswith("OGM-GE, alpha=0.5")
    for words in ("On-the-fly Gradient Modulation", "CVPR 2022", "optimization", "alpha: ("):
        assert words in page


def test_a_page_has_the_protocol_and_what_was_tuned(compared: Path, texts: dict[str, str]) -> None:
    page = said(texts["data/latent2_samples=400.html"])
    record = json.loads(record_of(compared).read_bytes())
    chosen = json.loads(next(compared.glob("search/*/*/chosen-2.json")).read_bytes())
    for words in (record["fingerprint"], "200 train, 40 validation, 160 test", "epochs 1"):
        assert words in page
    shown = ", ".join(f"{k}={v}" for k, v in chosen["arguments"].items()) or "the defaults"
    assert f"UnimodalLosses {shown}" in page.replace("Unimodal losses", "UnimodalLosses")


@pytest.mark.parametrize(
    ("gain", "p", "counts", "words"),
    [
        (0.02, 0.01, (1, 0), "1 is clearly above it after Holm's correction (OGM-GE, alpha=0.5"),
        (-0.02, 0.01, (0, 1), "0 are clearly above it after Holm's correction, 1 clearly below"),
        (0.02, 0.2, (0, 0), "1 cannot be told from it"),
    ],
)
def test_clear_is_what_remains_after_the_correction(
    gain: float, p: float, counts: tuple[int, int], words: str, compared: Path
) -> None:
    board = boards(compared)[SMALL.label, 0]
    over = paired({0: 0.9 + gain, 1: 0.8 + gain}, {0: 0.9, 1: 0.8})
    board.lines = [
        line if line.yardstick else replace(line, over_yardstick=over, p_holm=p)
        for line in board.lines
    ]
    found = reading.count(board)
    assert (found.methods, len(found.above), len(found.below)) == (1, *counts)
    assert words in " ".join(reading.of_board(board))


def test_a_chain_has_the_facts_of_its_methods(compared: Path, tmp_path: Path) -> None:
    out, label = copied(compared, tmp_path), "ogm_ge+mmcosine:alpha=0.5:mmcosine.scale=5.0"
    for seed in (0, 1):
        path = record_of(out, "ogm_ge_alpha=0.5", seed)
        folder = shutil.copytree(path.parent, record_of(out, "chain", seed).parent)
        chain = json.loads(path.read_bytes()) | {"method": label}
        (folder / "record.json").write_text(json.dumps(chain))
    found = pages(Content(out))
    page = said(found[f"methods/{Choice.parse(label).folder}.html"])
    assert "ev.OGMGE(alpha=0.5) + ev.MMCosine(scale=5.0)" in page
    for words in ("OGM-GE + MMCosine, alpha=0.5", "CVPR 2022", "scale: (", "alpha: ("):
        assert words in page
    assert_links_lead_somewhere(found)


def test_ranks_and_the_front_are_drawn(tmp_path: Path) -> None:
    gains = {"joint": 0.0, "ensemble": 0.02, "lfm": 0.03, "ogm_ge": 0.01}
    for data in ("latent2", "xor"):
        for name, gain in gains.items():
            record(tmp_path, name, [0.8 + gain, 0.81 + gain], data=data)
    for name, step in {"joint": 1.0, "ensemble": 2.0, "lfm": 1.5, "ogm_ge": 3.0}.items():
        cost(tmp_path, name, 1.0, 1.0, step)
    described(tmp_path)
    text = index.page(Content(tmp_path), [])
    assert "LFM 1.0, Ensemble 2.0, OGM-GE 3.0, Joint 4.0." in text
    assert "Average rank over 2 data sets" in said(text)
    assert "No method is better and cheaper than Joint (0.805 at 1), LFM (0.835 at 1.5)." in text


# ── links and commands ──────────────────────────────────────────────────────────────────────────


def test_every_link_leads_somewhere(texts: dict[str, str]) -> None:
    assert_links_lead_somewhere(texts)


def assert_links_lead_somewhere(texts: dict[str, str]) -> None:
    found = {name: Words(text) for name, text in texts.items() if name.endswith("html")}
    for name, page in found.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme in ("https", "data")
                continue
            path = os.path.normpath(os.path.join(os.path.dirname(name), unquote(parts.path)))
            target = name if not parts.path else path
            assert target in texts, (name, link)
            if parts.fragment:
                assert unquote(parts.fragment) in found[target].ids, (name, link)


def test_every_run_is_listed_once(compared: Path, texts: dict[str, str]) -> None:
    runs = [
        str(path.parent.relative_to(compared)) for path in compared.glob("runs/*/*/*/record.json")
    ]
    every = "".join(text for name, text in texts.items() if name.startswith("data/"))
    for run in runs:
        assert every.count(f"<code>{run}</code>") == 1


def test_a_command_of_the_page_repeats_its_run(
    compared: Path, texts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = html.unescape(texts["data/latent2_samples=400.html"])
    command = re.search(r"equivox train .*ogm_ge.*--seed 1 .*", page)
    assert command is not None
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command[0].split("<")[0])
    assert cli.main([*words[1:], "--quiet"]) == 0
    result = json.loads(next(tmp_path.rglob("result.json")).read_bytes())
    record = json.loads(record_of(compared, "ogm_ge_alpha=0.5", 1).read_bytes())
    assert result["best"]["test"] == record["test"]
    assert result["protocol"]["fingerprint"] == record["fingerprint"]


def test_the_command_of_a_board_makes_the_same_jobs(texts: dict[str, str]) -> None:
    page = html.unescape(texts["data/latent2_samples=400.html"])
    command = re.search(r"equivox compare .*--search.*", page)
    assert command is not None
    given = cli._parsed(shlex.split(command[0].split("<")[0])[1:])
    assert (given.data, given.methods, given.seeds) == (SMALL.label, LOSSES.label, 2)
    assert (given.epochs, given.search) == (1, 2)


def test_early_stopping_is_told_and_repeated(compared: Path, tmp_path: Path) -> None:
    out = copied(compared, tmp_path)
    for name in ("result.json", "config.json"):
        for path in out.glob(f"runs/{SMALL.folder}/*/*/{name}"):
            found = json.loads(path.read_bytes())
            found["protocol" if name == "result.json" else "experiment"]["patience"] = 7
            path.write_text(json.dumps(found))
    page = html.unescape(pages(Content(out))["data/latent2_samples=400.html"])
    assert "epochs 1, patience 7" in said(page)
    again = re.findall(r"equivox compare [^<\n]*", page)
    assert len(again) == 6 and all("--patience 7" in command for command in again)


@pytest.mark.parametrize("value", ["tanh", "0.3", "a b", True, 0.25, None, {"a": 1.0}, [1, 2]])
def test_values_of_a_command_are_read_as_they_were(value: object) -> None:
    experiment = Experiment("latent2", data_options={"root": value})
    words = shlex.split(commands.train(experiment, "runs/x/y/seed-0"))
    assert dict(cli._parsed(words[1:]).data_options) == {"root": value}


# ── nothing slips in, nothing is lost ───────────────────────────────────────────────────────────


def test_foreign_text_is_escaped_everywhere(compared: Path, tmp_path: Path) -> None:
    out = copied(compared, tmp_path)
    for path in out.glob("runs/*/*/*/*.json"):
        if path.name in ("record.json", "failed.json"):
            found = json.loads(path.read_bytes()) | {"error": HOSTILE, "fingerprint": HOSTILE}
            if "probe" in found:
                found["probe"] = {HOSTILE: 0.5}
            found["data"] += f":root={HOSTILE}"
            path.write_text(json.dumps(found))
    for name, text in pages(Content(out)).items():
        if name.endswith("html"):
            whole = Words(text)
            assert whole.seen.count("script") == 1 and "b" not in whole.seen
    assert HOSTILE in "".join(whole.words)


def test_one_seed_has_no_intervals(compared: Path, tmp_path: Path) -> None:
    out = copied(compared, tmp_path)
    for folder in out.glob("runs/*/*/seed-1"):
        shutil.rmtree(folder)
    found = pages(Content(out))
    assert "One seed does not tell" in said(found["data/latent2_samples=400.html"])
    for name, text in found.items():
        assert not re.search(
            r"\bnan\b", said(text) if name.endswith("html") else "", re.IGNORECASE
        ), name


def test_without_a_yardstick_nothing_is_compared(compared: Path, tmp_path: Path) -> None:
    out = copied(compared, tmp_path)
    for name in ("joint", "unimodal_losses", "unimodal_losses tuned-2"):
        shutil.rmtree(out / "runs" / SMALL.folder / name)
    shutil.rmtree(out / "runs" / OTHER.folder)
    found = pages(Content(out))
    assert "No yardstick ran" in said(found["data/latent2_samples=400.html"])


@pytest.mark.parametrize("there", [[], ["notes.txt"]])
def test_what_is_no_comparison_is_refused(
    there: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in there:
        (tmp_path / name).touch()
    assert cli.main(["report", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "needs finished runs" in told and (there[0] if there else "holds nothing") in told
    assert os.listdir(tmp_path) == there
    assert cli.main(["report", str(tmp_path / "none")]) == 1
    assert "Found no folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["record.json", "config.json", "result.json"])
def test_a_damaged_file_is_named_and_the_old_site_stays(
    name: str, compared: Path, tmp_path: Path
) -> None:
    out = copied(compared, tmp_path)
    build(compared, tmp_path / "site")
    before = (tmp_path / "site" / "index.html").read_bytes()
    (record_of(out).parent / name).write_text("{")
    with pytest.raises(ValueError, match=re.escape(name)):
        build(out, tmp_path / "site")
    assert (tmp_path / "site" / "index.html").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["copy", "site"]


def test_a_full_disk_leaves_the_old_site(
    compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    build(compared, site)
    (site / "index.html").write_text((site / "index.html").read_text() + "<!-- the old one -->")
    rename: Callable[[Path, Path], Path] = Path.rename

    def full(source: Path, target: Path) -> Path:
        if source.name == "new":
            raise OSError("No space left")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space"):
        build(compared, site)
    assert "the old one" in (site / "index.html").read_text()
    assert os.listdir(tmp_path) == ["site"]


def test_a_new_site_takes_the_place_of_the_old_one_and_of_nothing_else(
    compared: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    build(compared, site)
    (site / "methods" / "gone.html").touch()
    assert build(compared, site) == site / "index.html"
    assert not (site / "methods" / "gone.html").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("my own page")
    with pytest.raises(FileExistsError, match="something else"):
        build(compared, tmp_path / "mine")
    assert (tmp_path / "mine" / "index.html").read_text() == "my own page"


def test_dots_are_on_the_scale_and_failures_do_not_set_it(compared: Path, tmp_path: Path) -> None:
    out = copied(compared, tmp_path)
    path = record_of(out, "ogm_ge_alpha=0.5")
    record = json.loads(path.read_bytes())
    record["test"]["accuracy"] = -3.0
    path.write_text(json.dumps(record))
    strips = Strips(boards(out)[SMALL.label, 0])
    for method in ("joint", "unimodal_losses", "ogm_ge:alpha=0.5"):
        found = strips.strip(method)
        places = [float(x) for x in re.findall(r'cx="([-\d.]+)"', found)]
        assert all(0 <= x <= 160 for x in places)
        assert len(places) + found.count("<polygon") == 2


# ── in a browser ────────────────────────────────────────────────────────────────────────────────

needs_browser = pytest.mark.skipif(
    binary() is None, reason="Pages are looked at in Chromium: install Debian's `chromium`."
)
SHOWN = "[...document.querySelectorAll('#all tbody tr')].filter((row) => row.checkVisibility())"
"""The lines of the leaderboard that can be seen."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def site(compared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(compared, tmp_path_factory.mktemp("site")).parent


PAGES = ("index.html", "data/latent2_samples=400.html", "methods/ogm_ge_alpha=0.5.html")


@needs_browser
@pytest.mark.parametrize("name", PAGES)
def test_a_browser_shows_every_page(name: str, browser: Browser, site: Path) -> None:
    browser.events.clear()
    for width, dark in ((1280, False), (390, True)):
        browser.show(site / name, width, dark)
        browser.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        assert browser.evaluate(WIDER) <= 0
    assert browser.complaints() == []
    own = [(site / part).as_uri() for part in ("assets/site.css", "assets/site.js", name)]
    icons = {url for url in browser.requests() if url.startswith("data:")}
    assert set(browser.requests()) - icons == set(own)


@needs_browser
def test_a_long_name_fits_a_phone(browser: Browser, compared: Path, tmp_path: Path) -> None:
    out, label = copied(compared, tmp_path), "latent2:samples=400:" + "a=1," * 15
    path = record_of(out)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data": label}))
    browser.show(build(out, tmp_path / "site"), 390)
    assert browser.evaluate(WIDER) <= 0


@needs_browser
def test_clicks_sort_the_leaderboard(browser: Browser, site: Path) -> None:
    browser.show(site / "index.html", 1280)
    column = """[...document.querySelectorAll('#all thead th')].findIndex((head) =>
        head.textContent === 'metric')"""
    values = f"""(() => {{ const column = {column};
        return [...document.querySelectorAll('#all tbody tr')].map((row) =>
            Number(row.cells[column].dataset.value)); }})()"""
    click = f"document.querySelectorAll('#all thead button')[{column}].click()"
    state = f"document.querySelectorAll('#all thead th')[{column}].ariaSort"
    for order, descending in (("descending", True), ("ascending", False)):
        browser.evaluate(click)
        found = browser.evaluate(values)
        assert found == sorted(found, reverse=descending) and len(set(found)) > 1
        assert browser.evaluate(state) == order


@needs_browser
def test_unknown_numbers_are_last_in_both_orders(browser: Browser, site: Path) -> None:
    browser.show(site / "index.html", 1280)
    script = """(() => {
        const heads = [...document.querySelectorAll('#all thead th')];
        const column = heads.findIndex((head) => head.textContent === 'p (Holm)');
        heads[column].querySelector('button').click();
        return [...document.querySelectorAll('#all tbody tr')].map((row) =>
            row.cells[column].dataset.value); })()"""
    for _ in range(2):
        assert [value == "" for value in browser.evaluate(script)] == [False, *[True] * 4]


@needs_browser
def test_filters_leave_what_was_asked_for(browser: Browser, site: Path) -> None:
    browser.show(site / "index.html", 1280)
    assert browser.evaluate(f"{SHOWN}.length") == 5
    choose_ = """(name, value) => { const form = document.querySelector('form.filters');
        form.elements[name].value = value;
        form.elements[name].dispatchEvent(new Event('input', { bubbles: true })); }"""
    expected = [("category", "optimization", 1), ("category", "", 5), ("data", SMALL.label, 4)]
    expected += [("settings", "2 trials", 1), ("settings", "", 4), ("text", " OGM-ge", 1)]
    for name, value, count in expected:
        browser.evaluate(f"({choose_})({name!r}, {value!r})")
        assert browser.evaluate(f"{SHOWN}.length") == count, (name, value)
        assert f"{count} of 5 lines" in browser.evaluate("document.body.innerText")


@needs_browser
def test_a_number_leads_to_its_runs(browser: Browser, site: Path) -> None:
    browser.show(site / "index.html", 1280)
    link = browser.evaluate("document.querySelector('#all td a[href*=\"runs-\"]').href")
    browser.send("Page.navigate", url=link)
    browser.wait("document.readyState === 'complete' && location.hash !== ''")
    seen = "document.getElementById(decodeURIComponent(location.hash.slice(1))).checkVisibility()"
    assert browser.evaluate(seen)


@needs_browser
def test_paper_shows_the_tables_whole(browser: Browser, site: Path) -> None:
    browser.show(site / "index.html", 1280)
    browser.send("Emulation.setEmulatedMedia", media="print")
    cut = "[...document.querySelectorAll('.scroll')].some((x) => x.scrollHeight > x.clientHeight)"
    assert not browser.evaluate(cut)
    assert not browser.evaluate("document.querySelector('form.filters').checkVisibility()")
    browser.send("Emulation.setEmulatedMedia", media="")


@pytest.mark.parametrize(
    ("costs", "marks"),
    [((0.5, 4.0), ["0.5", "1", "2"]), ((0.98, 1.45), ["1", "1.5"]), ((1.0, 1.0), ["1", "1.1"])],
)
def test_an_axis_of_costs_has_two_marks_or_more(costs: tuple[float, ...], marks: list[str]) -> None:
    points = [Point("joint", "Joint", cost, 0.9, yardstick=True, link="") for cost in costs]
    drawn = scatter("latent2", "step", points, ["joint"], 0.5)
    found = re.findall(r"<text[^>]*>([0-9.]+)</text>", str(drawn))
    assert set(marks) <= set(found)
