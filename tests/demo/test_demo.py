"""The demonstration: its schedule, its rule, its words, and what is left when it is cut short."""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.report.diagnoses import balanced, example

from equivox.bench.labels import JOINT
from equivox.bench.measure import Measurement, metric
from equivox.bench.processes import workers
from equivox.demo import cases, command
from equivox.demo.cases import CASES, DIAGNOSED, JOBS, METHODS, YARDSTICKS
from equivox.demo.comparison import ALONE, Comparison, Run
from equivox.demo.findings import cells, diagnosis, outcome, verdict
from equivox.demo.seeds import Job, Schedule

ROWS = sum(len(case.rows) for case in CASES)


def fabricated(data: str, row: str, seed: int, gap: float = 0.05, gain: float = 0.03) -> Run:
    """A run with known numbers: joint training lacks `gap` of the second encoder and `gain`."""
    alone = row.startswith(ALONE)
    case = next(case for case in CASES if case.data == data)
    modalities = (row.removeprefix(ALONE),) if alone else case.modalities
    short = 0.0 if row != JOINT or data == "balanced" else 1.0
    noise = 0.001 * seed * (1 + case.rows.index(row) % 3)
    probe = {m: 0.9 - (gap * short if m == case.modalities[-1] else 0) + noise for m in modalities}
    metric = 0.8 + noise if alone else 0.95 - gain * short + noise
    curves = {m: [0.5, 0.7, x] for m, x in probe.items()}
    phi = {m: metric / len(modalities) for m in modalities}
    test = Measurement(metric, probe, probe, phi, 0.0)
    seconds = None if alone else 1.0 if row == JOINT else 1.5
    found = (balanced if data == "balanced" else example)(case.modalities)
    diagnosis = found if (row, seed) == (JOINT, DIAGNOSED) else None
    return Run(data, row, seed, 2, metric, seconds, curves, probe, test, diagnosis)


def made(job: Job) -> list[Run]:
    """What a worker returns for a job: of the ensemble also each modality alone."""
    case = next(case for case in CASES if case.data == job.data)
    alone = [ALONE + m for m in case.modalities] if job.method == "ensemble" else []
    return [fabricated(job.data, row, job.seed) for row in (job.method, *alone)]


def runs_of(seeds: int, **options: float) -> list[Run]:
    return [
        fabricated(case.data, row, seed, **options)
        for seed in range(seeds)
        for case in CASES
        for row in case.rows
    ]


def comparison(data: str, seeds: int = 3, **options: float) -> Comparison:
    return Comparison([r for r in runs_of(seeds, **options) if r.data == data], YARDSTICKS)


class Here(Executor):
    """Does the work in this process at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def here(_: int) -> Iterator[Here]:
    yield Here()


# ── the schedule ────────────────────────────────────────────────────────────────────────────────


def test_every_seed_is_a_full_set_and_they_come_one_after_another() -> None:
    schedule = Schedule(JOBS, seeds=2, budget=1e6)
    order = [runs[0].seed for runs in schedule.work(Here(), made)]
    assert sorted(order[: len(JOBS)]) == [0] * len(JOBS)
    finished = schedule.finished()
    assert (finished.seeds, len(finished.runs), finished.shortened) == (2, 2 * ROWS, "")


def test_time_used_up_means_fewer_seeds_and_it_is_said() -> None:
    schedule = Schedule(JOBS, seeds=5, budget=1e-9)
    assert {runs[0].seed for runs in schedule.work(Here(), made)} == {0}
    assert schedule.finished().shortened.startswith("1 of 5 seeds, for the budget of 0 s")


def test_a_seed_that_would_not_end_in_time_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = Schedule(JOBS, seeds=5, budget=100)
    monkeypatch.setattr(Schedule, "elapsed", 45.0)
    assert schedule.affords(1)
    schedule.begun = [0.0, 45.0]
    monkeypatch.setattr(Schedule, "elapsed", 72.0)  # 27 a seed, once the workers are there
    assert schedule.affords(2)
    monkeypatch.setattr(Schedule, "elapsed", 73.0)
    assert not schedule.affords(2)


def test_unfinished_seeds_are_left_out() -> None:
    schedule = Schedule(JOBS, seeds=2, budget=1e6)
    work = schedule.work(Here(), made)
    for _ in range(len(JOBS) + 3):
        next(work)
    finished = schedule.finished("it was interrupted")
    assert {run.seed for run in finished.runs} == {0}
    assert finished.shortened == "1 of 2 seeds, for it was interrupted."


@pytest.mark.xdist_group("distributed")
def test_no_worker_outlives_the_work() -> None:
    start, before = time.monotonic(), set(multiprocessing.active_children())
    with workers(1) as executor:
        executor.submit(time.sleep, 300)
        executor.submit(time.sleep, 300)
    assert set(multiprocessing.active_children()) <= before
    assert time.monotonic() - start < 200  # it does not wait for what was running


# ── the rule ────────────────────────────────────────────────────────────────────────────────────


def test_a_neglected_encoder_is_found_and_named() -> None:
    found = comparison("latent2")
    assert [encoder.modality for encoder in found.neglected] == ["hard"]
    assert not found.nothing_to_cure
    assert "neglects `hard`" in verdict(found)
    easy, hard = diagnosis(found)
    assert easy.endswith("not neglected.") and hard.endswith("accuracy: neglected.")


def test_the_control_has_nothing_to_cure() -> None:
    assert comparison("balanced").nothing_to_cure
    assert verdict(comparison("balanced")).startswith("Nothing to cure here")


def test_a_difference_below_the_margin_is_none_however_sure() -> None:
    found = comparison("latent2", gap=0.008, gain=0.002)
    assert found.encoders[1].gap.clear
    assert found.nothing_to_cure


def test_a_better_yardstick_is_something_to_cure_even_with_sound_encoders() -> None:
    found = comparison("latent2", gap=0.0, gain=0.03)
    assert not found.neglected and found.helps and not found.nothing_to_cure
    assert "simple baseline is better" in verdict(found)


def test_the_best_yardstick_is_chosen_on_validation_never_on_test() -> None:
    runs = [r for r in runs_of(3) if r.data == "latent2"]
    flipped = [
        Run(**{**vars(r), "validation": 0.99}) if r.row == "unimodal_losses" else r for r in runs
    ]
    lucky = [
        Run(
            **{
                **vars(r),
                "test": Measurement(0.999, r.test.branch, r.test.probe, r.test.contribution, 0),
            }
        )
        if r.row == "ensemble"
        else r
        for r in flipped
    ]
    assert Comparison(lucky, YARDSTICKS).best == "unimodal_losses"
    assert not set(METHODS) & set(Comparison(lucky, YARDSTICKS).yardsticks)


def test_one_seed_gives_no_interval_and_no_claim() -> None:
    found = comparison("latent2", seeds=1)
    assert "±" not in "".join(cells(found, "ogm_ge")) and cells(found, "ogm_ge")[3] == ""
    assert "One seed does not tell" in outcome(found, METHODS)
    assert math.isnan(found.row("ogm_ge").over_joint.p)


def test_rows_need_joint_training_and_the_same_seeds() -> None:
    runs = [r for r in runs_of(2) if r.data == "latent2"]
    with pytest.raises(ValueError, match="needs joint training"):
        Comparison([r for r in runs if r.row != JOINT], YARDSTICKS)
    with pytest.raises(ValueError, match="the same seeds"):
        Comparison(runs[:-1], YARDSTICKS)


# ── a training ──────────────────────────────────────────────────────────────────────────────────


def test_a_run_measures_the_weights_of_the_chosen_epoch() -> None:
    (found,) = cases.run(Job("latent2", JOINT, 1), epochs=3, samples=600)
    assert {m: len(curve) for m, curve in found.curves.items()} == {"easy": 3, "hard": 3}
    assert 0 <= found.epoch < 3 and 0 < found.test.metric <= 1 and found.seconds
    assert json.loads(json.dumps(found.to_json()))["probe"] == found.probe
    assert found.diagnosis is None  # of the first seed alone


def test_the_joint_network_of_one_seed_is_diagnosed_at_the_chosen_epoch() -> None:
    (found,) = cases.run(Job("latent2", JOINT, DIAGNOSED), epochs=3, samples=600)
    assert found.diagnosis is not None
    assert found.diagnosis.headroom.joint.value == pytest.approx(found.test.metric)
    assert found.diagnosis.dynamics.epochs == (0, 1, 2)
    assert "diagnosis" not in found.to_json()


def test_the_networks_of_the_ensemble_are_the_modalities_alone() -> None:
    whole, easy, hard = cases.run(Job("latent2", "ensemble", 0), epochs=2, samples=600)
    assert [run.row for run in (whole, easy, hard)] == ["ensemble", "alone: easy", "alone: hard"]
    assert set(hard.curves) == set(hard.probe) == set(hard.test.probe) == {"hard"}
    # A network of one modality is its own share of the logits, whatever the ensemble's weights.
    assert hard.test.metric == hard.test.branch["hard"]


def test_what_is_measured_alone_is_the_head_at_its_own_best_epoch() -> None:
    from equivox.bench.experiment import Experiment
    from equivox.bench.training import train

    _, easy, _ = cases.run(Job("latent2", "ensemble", 0), epochs=2, samples=600)
    watched = cases.Watched(apart=True)
    chosen = Experiment("latent2", "ensemble", epochs=2, data_options={"samples": 600})
    result = train(chosen, measure=watched)
    assert result.balancer is not None
    epoch, alone = watched.restored_alone("easy", result.balancer)
    view = cases.only(chosen.load(), "easy")
    assert metric(alone, view.loader("test")) == pytest.approx(easy.test.metric)
    assert metric(alone, view.loader("validation")) == pytest.approx(easy.validation)
    assert epoch == easy.epoch


# ── from end to end ─────────────────────────────────────────────────────────────────────────────


def given(out: Path, seeds: int = 2) -> argparse.Namespace:
    return argparse.Namespace(seeds=seeds, budget=1e6, out=out)


def test_it_leaves_a_page_the_runs_and_the_lines_to_paste(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "workers", here)
    monkeypatch.setattr(command, "run", made)
    assert command.main(given(tmp_path / "out")) == 0
    printed = capsys.readouterr().out
    for said in ("joint training neglects", "nothing to cure", "balancer.epoch(loader)"):
        assert said in printed.lower()
    assert str(tmp_path / "out" / "index.html") in printed
    page = (tmp_path / "out" / "index.html").read_text()
    for said in ("Joint training neglects", "Nothing to cure", "equivox demo --seeds 2"):
        assert said in page
    for case in CASES:
        assert f'href="{case.data}.html"' in page
        diagnosed = (tmp_path / "out" / f"{case.data}.html").read_text()
        assert "Methods compared" in diagnosed and "equivox demo --seeds 2" in diagnosed
        twin = json.loads((tmp_path / "out" / f"{case.data}.json").read_text())
        assert twin["modalities"] == list(case.modalities)
    assert len(json.loads((tmp_path / "out" / "runs.json").read_text())) == 2 * ROWS


def test_interrupting_leaves_the_finished_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cut(job: Job) -> list[Run]:
        if job.seed == 2:
            raise KeyboardInterrupt
        return made(job)

    monkeypatch.setattr(command, "workers", here)
    monkeypatch.setattr(command, "run", cut)
    assert command.main(given(tmp_path, seeds=4)) == 130
    assert "2 of 4 seeds, for it was interrupted" in capsys.readouterr().out
    assert "2 of 4 seeds" in (tmp_path / "index.html").read_text()


def test_interrupting_the_first_seed_leaves_nothing_to_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cut(job: Job) -> list[Run]:
        raise KeyboardInterrupt(job)

    monkeypatch.setattr(command, "workers", here)
    monkeypatch.setattr(command, "run", cut)
    assert command.main(given(tmp_path)) == 130
    assert "0 of 2 seeds" in capsys.readouterr().out
    assert not (tmp_path / "index.html").exists()


def test_a_failing_run_keeps_the_seeds_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(job: Job) -> list[Run]:
        if job.seed == 1:
            raise FloatingPointError("The loss is not finite.")
        return made(job)

    monkeypatch.setattr(command, "workers", here)
    monkeypatch.setattr(command, "run", failing)
    assert command.main(given(tmp_path)) == 1
    assert "a run failed: FloatingPointError: The loss is not finite." in capsys.readouterr().out
    assert (tmp_path / "index.html").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert command.main(given(tmp_path / "file")) == 1
    assert "Choose another with `--out`" in capsys.readouterr().err


def test_the_loop_begins_with_the_simplest_cure_unless_a_method_is_better() -> None:
    comparisons = [comparison(case.data) for case in CASES]
    assert "ev.UnimodalLosses()" in command.loop(comparisons)
    better = [
        Run(**{**vars(r), "validation": 1.0}) if r.row == "mmpareto" else r for r in runs_of(3)
    ]
    comparisons = [
        Comparison([r for r in better if r.data == case.data], YARDSTICKS) for case in CASES
    ]
    assert "ev.MMPareto()" in command.loop(comparisons)


def test_no_yardstick_beats_joint_training_where_that_is_the_best() -> None:
    found = comparison("balanced")
    found.best = JOINT
    assert verdict(found).endswith("no yardstick beats joint training.")
    found.best = "ensemble"
    assert "ensemble, does not beat joint training (" in verdict(found)
