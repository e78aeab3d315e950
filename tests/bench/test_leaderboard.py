"""Leaderboards of made-up runs, whose lines are worked out by hand or by scipy."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

import numpy
import pytest
from scipy import stats
from tests.bench.recorded import cost, fail, record

from equivox import methods
from equivox.bench.cost import pareto
from equivox.bench.harm import significantly_below
from equivox.bench.labels import is_yardstick
from equivox.bench.latex import latex
from equivox.bench.leaderboard import Leaderboard, Line, boards
from equivox.bench.ranking import rankings, ranks
from equivox.bench.records import failures, records
from equivox.bench.statistics import paired
from equivox.bench.tables import COLUMNS, DAGGER, board_markdown, markdown, table

JOINT = [0.90, 0.92, 0.91, 0.93, 0.94]
LOSSES = [0.93, 0.94, 0.92, 0.95, 0.96]
LFM = [0.95, 0.95, 0.94, 0.96, 0.98]
YARDSTICKS = [name for name in methods.names() if is_yardstick(name)]


def board_of(out: Path, tuned: int = 0) -> Leaderboard:
    return boards(out)["latent2", tuned]


def lines(out: Path, tuned: int = 0) -> Mapping[str, Line]:
    return {line.method: line for line in board_of(out, tuned).lines}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    record(tmp_path, "joint", JOINT)
    record(tmp_path, "unimodal_losses", LOSSES)
    record(tmp_path, "lfm", LFM, right=80)
    record(tmp_path, "ogm_ge", [0.91, 0.92, 0.92, 0.93, 0.95], seconds=3.0)
    return tmp_path


def test_the_opponent_is_chosen_on_the_validation_data(tmp_path: Path) -> None:
    record(tmp_path, "joint", JOINT, validation=0.99)
    record(tmp_path, "unimodal_losses", LOSSES, validation=0.98)
    record(tmp_path, "lfm", LFM, validation=1.0)
    board = board_of(tmp_path)
    assert board.best == "joint"
    assert [line.method for line in board.lines] == ["lfm", "unimodal_losses", "joint"]


def test_a_line_by_hand(out: Path) -> None:
    line = lines(out)["lfm"]
    over = paired(dict(enumerate(LFM)), dict(enumerate(LOSSES)))
    assert line.over_yardstick == over
    assert line.mechanism == paired(dict(enumerate(LFM)), dict(enumerate(JOINT))) == line.over_joint
    assert line.iqm.mean == pytest.approx((0.95 + 0.95 + 0.96) / 3)
    assert line.improvement.mean == pytest.approx(stats.mannwhitneyu(LFM, LOSSES).statistic / 25)
    assert (line.title, line.category, line.yardstick) == ("LFM", "objective", False)
    assert line.probe == {"easy": 0.9, "hard": 0.8} and line.imbalance == 0.25
    assert lines(out)["ogm_ge"].time == 1.5


def test_p_values_are_corrected_over_the_methods_and_not_the_yardsticks(out: Path) -> None:
    found = lines(out)
    p = {n: stats.ttest_rel(v, LOSSES).pvalue for n, v in {"lfm": LFM}.items()}
    other = found["ogm_ge"].over_yardstick
    assert other is not None
    smaller = min(p["lfm"], other.p)
    assert min(found["lfm"].p_holm, found["ogm_ge"].p_holm) == pytest.approx(2 * smaller)
    assert found["lfm"].p_wilcoxon == 2 * 2 / 2**5  # all five seeds are better
    assert math.isnan(found["joint"].p_holm)


def test_a_few_large_errors_are_worse_than_many_small_gains() -> None:
    """Wilcoxon's ranks tell, not how many samples are worse."""
    theirs, mine = numpy.zeros(30), numpy.r_[numpy.full(16, 0.1), -numpy.arange(1.0, 15.0)]
    assert stats.wilcoxon(mine, theirs).pvalue < 0.05
    assert significantly_below(mine, theirs) and not significantly_below(theirs, mine)
    assert not significantly_below(theirs, theirs)


def test_harm_is_told_by_the_samples(out: Path) -> None:
    """80 of 100 right against 90, ten of them the other's alone: McNemar p = 2 / 2^10."""
    found = lines(out)
    assert found["lfm"].harm == 1.0
    assert found["joint"].harm == found["unimodal_losses"].harm == 0.0


@pytest.mark.parametrize("metric", ["r2", "loss"])
def test_numbers_below_zero(tmp_path: Path, metric: str) -> None:
    """R2 may be negative; of losses the smaller is better."""
    good, bad = ([-0.2, -0.3], [-3.0, -2.0]) if metric == "r2" else ([0.2, 0.3], [3.0, 2.0])
    record(tmp_path, "joint", bad, metric=metric)
    record(tmp_path, "ensemble", good, metric=metric)
    record(tmp_path, "umt", bad, metric=metric)
    board = board_of(tmp_path)
    assert board.best == "ensemble"
    assert board.lines[0].metric.mean == pytest.approx(-0.25)
    umt = lines(tmp_path)["umt"]
    assert umt.over_yardstick is not None and umt.over_yardstick.mean == pytest.approx(-2.25)
    named = {"r2": "r2", "loss": "\N{MINUS SIGN}loss"}[metric]
    assert f"| {named} |" in board_markdown(board)


def test_one_seed_is_shown_without_intervals(tmp_path: Path) -> None:
    for name in ("joint", "ensemble", "lfm"):
        record(tmp_path, name, [0.5])
    line = lines(tmp_path)["lfm"]
    assert math.isnan(line.metric.low) and math.isnan(line.p_holm) and math.isnan(line.p_wilcoxon)
    assert all(map(math.isnan, line.bca)) and line.improvement.mean == 0.5
    assert "nan" not in markdown(boards(tmp_path)) + table(boards(tmp_path))


def test_without_a_yardstick_there_is_no_difference(tmp_path: Path) -> None:
    record(tmp_path, "lfm", LFM)
    board = board_of(tmp_path)
    assert board.best == "" and math.isnan(board.lines[0].harm)
    assert board.lines[0].over_yardstick is None
    assert "7 yardsticks" in board.lines[0].lacking
    assert "No yardstick ran" in markdown(boards(tmp_path))
    assert "nan" not in table(boards(tmp_path))


def test_equal_runs_differ_by_nothing(tmp_path: Path) -> None:
    for name in ("joint", "modality_lr", "drl"):
        record(tmp_path, name, JOINT)
    line = lines(tmp_path)["drl"]
    assert line.over_yardstick is not None
    assert (line.over_yardstick.mean, line.over_yardstick.p, line.bca) == (0, 1, (0, 0))
    assert (line.p_wilcoxon, line.improvement.mean, line.harm) == (1, 0.5, 0)


def test_what_diverges_is_told(out: Path) -> None:
    record(out, "mmcosine", [0.9, 0.9, 0.9])
    fail(out, "mmcosine", 3)
    fail(out, "cggm", 0, "refused: four modalities")
    record(out, "mbsd", [math.nan], data="latent2")
    board = board_of(out)
    assert lines(out)["mmcosine"].failed == 1
    assert board.failed == {
        "cggm": "refused: four modalities",
        "mbsd": "its accuracy is not finite",
    }
    text = board_markdown(board)
    assert "3 (1 failed)" in text and "`cggm`: not run: refused" in text


# ── complete and incomplete ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def full(tmp_path: Path) -> Path:
    for name in YARDSTICKS:
        record(tmp_path, name, JOINT, tuned=4)
    record(tmp_path, "lfm", LFM, tuned=4)
    return tmp_path


def test_a_tuned_line_wants_five_seeds_and_all_yardsticks_tuned(full: Path) -> None:
    assert lines(full, 4)["lfm"].complete
    record(full, "ogm_ge", JOINT[:4], tuned=4)
    assert lines(full, 4)["ogm_ge"].lacking == "4 of 5 seeds"
    record(full, "lfm", LFM, tuned=9)
    assert "too few seeds of 7 yardsticks" in lines(full, 9)["lfm"].lacking


def test_a_line_of_defaults_wants_the_yardsticks_tuned_beside_it(full: Path) -> None:
    for name in YARDSTICKS:
        record(full, name, [x - 0.1 for x in JOINT])
    record(full, "lfm", LFM)
    line = lines(full)["lfm"]
    assert line.complete
    assert line.over_tuned == paired(dict(enumerate(LFM)), dict(enumerate(JOINT)))
    assert "over it, tuned" in board_markdown(board_of(full))


def test_without_tuned_yardsticks_the_defaults_are_incomplete(out: Path) -> None:
    line = lines(out)["lfm"]
    assert not line.complete and line.over_tuned is None
    assert line.lacking == "too few seeds of 5 yardsticks; no yardstick is tuned"


def test_a_yardstick_that_cannot_run_is_not_missed(tmp_path: Path) -> None:
    for name in YARDSTICKS[1:]:
        record(tmp_path, name, JOINT)
    fail(tmp_path, YARDSTICKS[0], 0, "refused")
    assert lines(tmp_path)["joint"].lacking == "no yardstick is tuned"


def test_a_chain_is_a_method_where_one_of_it_is(tmp_path: Path) -> None:
    for name in ("unimodal_losses+ogm_ge", "ogm_ge+unimodal_losses", "unimodal_losses+modality_lr"):
        record(tmp_path, name, LFM)
    record(tmp_path, "unimodal_losses", LOSSES)
    found = lines(tmp_path)
    assert board_of(tmp_path).best == "unimodal_losses+modality_lr"
    for name in ("unimodal_losses+ogm_ge", "ogm_ge+unimodal_losses"):
        assert (found[name].category, found[name].yardstick) == ("optimization", False)
        assert found[name].reference == "unimodal_losses" and not math.isnan(found[name].p_holm)


def test_two_protocols_are_not_compared_in_silence(out: Path) -> None:
    record(out, "umt", JOINT, fingerprint="xyz")
    assert "differ in their protocol" in lines(out)["umt"].lacking
    assert "differ in their protocol" not in lines(out)["lfm"].lacking


def test_tuned_yardsticks_of_another_protocol_are_told(full: Path) -> None:
    for name in (*YARDSTICKS, "lfm"):
        record(full, name, JOINT, fingerprint="xyz")
    said = "its runs and those that it is compared with differ in their protocol"
    assert lines(full)["lfm"].lacking == said
    assert lines(full, 4)["lfm"].complete


@pytest.mark.parametrize(("other", "method"), [("joint", "lfm"), ("unimodal_losses", "mmpareto")])
def test_so_are_others_that_a_difference_is_to(tmp_path: Path, other: str, method: str) -> None:
    """Joint training, and the yardstick that lacks the mechanism alone."""
    record(tmp_path, "ensemble", LOSSES)
    record(tmp_path, other, JOINT, fingerprint="xyz")
    record(tmp_path, method, LFM)
    assert "differ in their protocol" in lines(tmp_path)[method].lacking


# ── cost and ranks ──────────────────────────────────────────────────────────────────────────────


def test_costs_are_ratios_to_joint_training(out: Path) -> None:
    cost(out, "joint", 1e6, 400, 1.0)
    cost(out, "lfm", 3e6, 600, 1.25)
    line = lines(out)["lfm"]
    assert (line.flops, line.memory, line.step) == (3.0, 1.5, 1.25)
    assert math.isnan(lines(out)["ogm_ge"].flops)


def test_the_front_has_what_none_beats(out: Path) -> None:
    for name, flops in {"joint": 1.0, "unimodal_losses": 2.0, "lfm": 4.0, "ogm_ge": 3.0}.items():
        cost(out, name, flops, 1.0, 1.0)
    board = board_of(out)
    assert sorted(pareto(board.lines)) == ["joint", "lfm", "unimodal_losses"]
    assert pareto(board.lines, "memory") == ["lfm"]
    assert "- Best for their FLOPs: `lfm`, `unimodal_losses`, `joint`." in board_markdown(board)


def test_equals_share_the_front(tmp_path: Path) -> None:
    for name in ("joint", "modality_lr"):
        record(tmp_path, name, JOINT)
        cost(tmp_path, name, 1.0, 1.0, 1.0)
    assert sorted(pareto(board_of(tmp_path).lines)) == ["joint", "modality_lr"]


def test_ranks_are_over_boards(out: Path) -> None:
    record(out, "joint", [0.5], data="digits")
    record(out, "lfm", [0.4], data="digits")
    found = ranks(boards(out).values())
    assert found.ranks == {"joint": 1.5, "lfm": 1.5}
    assert set(found.left_out) == {"unimodal_losses", "ogm_ge"}
    assert "## Average ranks" in markdown(boards(out))
    record(out, "lfm", [0.4], data="xor")  # without a yardstick: it has only begun
    assert rankings(boards(out)) == {0: found}
    assert "Over 2 data sets" in markdown(boards(out))
    with pytest.raises(ValueError, match="two of `"):
        ranks([*boards(out).values(), board_of(out)])


# ── as text ─────────────────────────────────────────────────────────────────────────────────────


def test_csv_has_a_number_a_column(out: Path) -> None:
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(table(boards(out))))}
    assert list(rows["lfm"]) == COLUMNS.split()
    line = lines(out)["lfm"]
    assert float(rows["lfm"]["bca_low"]) == pytest.approx(line.bca[0], rel=1e-5)
    assert float(rows["lfm"]["improvement"]) == pytest.approx(line.improvement.mean)
    assert rows["unimodal_losses"]["over_yardstick"] == ""
    assert rows["lfm"]["complete"] == "False" and "tuned" in rows["lfm"]["lacking"]


def test_latex_is_escaped_and_closed(out: Path) -> None:
    text = latex(boards(out))
    assert r"\emph{unimodal\_losses} $^\dagger$ & 5 & 0.940 $\pm$ 0.020" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    rows = [row for row in text.splitlines() if row.endswith(r" \\")]
    assert len({row.count("&") for row in rows}) == 1 and len(rows) == 5
    assert not {"_", "%"} & set(text.replace(r"\_", "").replace(r"\%", "").replace("{!}{%", ""))


def test_latex_says_which_half_of_a_lopsided_interval(tmp_path: Path) -> None:
    skewed = [0.99] * 15 + [0.5, 0.6, 0.7, 0.8, 0.9]
    record(tmp_path, "joint", skewed)
    found = lines(tmp_path)["joint"].metric
    assert found.mean - found.low > found.high - found.mean
    text = latex(boards(tmp_path))
    assert rf"{found.mean:.3f} $\pm$ {found.mean - found.low:.3f}" in text
    assert "the longer half where they differ" in text


def test_marks_are_explained_once(out: Path) -> None:
    text = board_markdown(board_of(out))
    assert f"- {DAGGER} incomplete: no yardstick is tuned (all)." in text
    assert text.count("no yardstick is tuned") == 1


# ── bad records ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "should hold a record"),
        ("[]", "should hold a record"),
        ('{"data": "latent2"}', "no `fingerprint`"),
        ('{"format": 99}', "another version of equivox"),
    ],
)
def test_a_bad_record_is_named(out: Path, content: str, said: str) -> None:
    path = out / "runs" / "latent2" / "lfm" / "seed-1" / "record.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=said) as caught:
        boards(out)
    assert str(path) in str(caught.value)


def test_lost_predictions_are_named(out: Path) -> None:
    (out / "runs" / "latent2" / "lfm" / "seed-1" / "predictions.safetensors").unlink()
    with pytest.raises(ValueError, match="lfm/seed-1` should hold"):
        boards(out)


def test_reading_keeps_the_order_of_the_folders(out: Path) -> None:
    fail(out, "mla", 0)
    assert [one["folder"] for one in failures(out)] == ["runs/latent2/mla/seed-0"]
    folders = [one["folder"] for one in records(out)]
    assert folders == sorted(folders) and len(folders) == 20
