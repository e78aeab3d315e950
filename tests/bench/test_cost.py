"""What a batch costs: FLOPs and memory by hand, and files that are measured once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import nn

from equivox.bench.cost import Cost, measure
from equivox.bench.cost_records import Measuring, cost_jobs, costs, make_cost
from equivox.bench.experiment import Experiment
from equivox.bench.jobs import Choice
from equivox.bench.memory import LiveTensors

SMALL = Choice.parse("latent2:samples=600")


def of(method: str, **more: object) -> Cost:
    return measure(Experiment(SMALL.name, method, data_options=SMALL.options, epochs=2, **more))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def joint() -> Cost:
    return of("joint")


def layers() -> list[nn.Linear]:
    data = Experiment(SMALL.name).load()
    encoders = nn.ModuleDict(data.encoders())
    found = [m for m in encoders.modules() if isinstance(m, nn.Linear)]
    return [*found, nn.Linear(sum(data.widths.values()), data.outputs)]


def test_flops_of_joint_training_by_hand(joint: Cost) -> None:
    """Three products a layer; the first layers need no gradient of their inputs."""
    widths = {shape[0] for shape in Experiment(SMALL.name).load().shapes.values()}
    products = [
        (2 if layer.in_features in widths else 3) * layer.in_features * layer.out_features
        for layer in layers()
    ]
    assert joint.flops == 2 * 64 * sum(products)


def test_memory_holds_weights_gradients_and_momentum(joint: Cost) -> None:
    weights = 4 * sum(p.numel() for layer in layers() for p in layer.parameters())
    assert 3 * weights < joint.memory < 10 * weights


def test_flops_and_memory_are_the_same_again(joint: Cost) -> None:
    again = of("joint")
    assert (again.flops, again.memory) == (joint.flops, joint.memory)


def test_passes_and_pre_training_count(joint: Cost) -> None:
    assert of("agm").flops == pytest.approx(3 * joint.flops, rel=0.01)  # a pass without each
    one, two = (of("unimodal_init", arguments={"alone_epochs": n}).flops for n in (1, 2))
    assert joint.flops / 4 < two - one < joint.flops  # an epoch of two, encoders and heads alone


def test_the_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    of("modality_dropout")
    assert torch.equal(before, torch.get_rng_state())


def test_the_batches_are_those_of_the_recipe() -> None:
    """Twice the batch, twice the work; and no more rows than there are."""
    half = of("joint", batch_size=32)
    assert of("joint").flops == 2 * half.flops
    rows = len(Experiment(SMALL.name, data_options=SMALL.options).load().train)
    assert of("joint", batch_size=10_000).flops == half.flops * rows / 32


def test_live_tensors_by_hand() -> None:
    with LiveTensors() as memory:
        x = torch.zeros(100)  # 400 bytes
        view = x[:50]
        memory.reset()
        y = (view + 1) * 2  # 200 of the sum, gone when y is there, and 200 of y
        assert (memory.peak, memory.taken) == (800, 600)
        del x
        assert memory.taken == 600  # the view holds it
        del view, y
        assert memory.taken == 0


# ── files ───────────────────────────────────────────────────────────────────────────────────────


def test_a_cost_is_measured_once(tmp_path: Path) -> None:
    (job,) = cost_jobs([SMALL], [Choice("joint")], epochs=1)
    assert make_cost(job, tmp_path) == "made"
    before = (job.folder(tmp_path) / "record.json").read_bytes()
    assert make_cost(job, tmp_path) == "kept"
    assert (job.folder(tmp_path) / "record.json").read_bytes() == before
    found = costs(tmp_path)[SMALL.label]["joint"]
    assert found.flops == json.loads(before)["flops"]
    assert found.step > 0


def test_a_cost_is_measured_by_one_process_at_a_time(tmp_path: Path) -> None:
    job = Measuring(SMALL, Choice("joint"), 0)
    job.folder(tmp_path).mkdir(parents=True)
    with FileLock(job.folder(tmp_path) / ".lock"):
        assert make_cost(job, tmp_path) == "busy"


def test_what_is_refused_is_not_tried_again(tmp_path: Path) -> None:
    job = Measuring(Choice.parse("latent_regression:samples=400"), Choice("mmcosine"), 0, 1)
    assert make_cost(job, tmp_path) == "failed"
    assert "MMCosine" in json.loads((job.folder(tmp_path) / "failed.json").read_bytes())["error"]
    assert make_cost(job, tmp_path) == "kept"
    assert costs(tmp_path) == {}


def test_a_damaged_cost_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cost" / "latent2" / "joint" / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"data": "latent2", "method": "joint"}')
    with pytest.raises(ValueError, match=r"record.json` should hold a cost. Found: no `flops`"):
        costs(tmp_path)


def test_a_step_of_joint_training_is_the_unit() -> None:
    assert measure(Experiment("latent2", epochs=1)).step == 1
