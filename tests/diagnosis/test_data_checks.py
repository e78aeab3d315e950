from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivox.balancer import Balancer
from equivox.diagnosis.data_checks import CHECKS, data_checks
from equivox.diagnosis.findings import LISTED, Finding
from equivox.diagnosis.metric import Estimate
from equivox.diagnosis.tables import MOST_COLUMNS, read
from equivox.fusion import Concat
from equivox.model import Multimodal
from equivox.task import Classification, Dense, MultiLabel, Regression

CLASSES = 3
SIZES = {"train": 300, "validation": 60, "test": 120}


def data(seed: int = 0, classes: int = CLASSES) -> dict[str, tuple[dict[str, Any], Tensor]]:
    """Two modalities, of which each says something and none all, in three splits."""
    g = torch.Generator().manual_seed(seed)
    splits = {}
    for name, n in SIZES.items():
        label = torch.randperm(n, generator=g) % classes
        signal = F.one_hot(label, 8).float()
        inputs = {m: signal + torch.randn(n, 8, generator=g) for m in ("audio", "video")}
        splits[name] = (inputs, label)
    return splits


def loader(inputs: Mapping[str, Any], target: Tensor, size: int = 32) -> list[Any]:
    def part(x: Any, i: int) -> Any:
        if isinstance(x, Mapping):
            return {k: part(v, i) for k, v in x.items()}
        if isinstance(x, tuple):
            return tuple(part(v, i) for v in x)
        return x[i : i + size]

    index = torch.arange(len(target)) + 1000
    return [
        tuple(part(x, i) for x in (dict(inputs), target, index))
        for i in range(0, len(target), size)
    ]


def model(*names: str) -> Multimodal:
    names = names or ("audio", "video")
    encoders = {m: nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.ReLU()) for m in names}
    return Multimodal(encoders, Concat(dict.fromkeys(names, 4), CLASSES))


def checked(splits: Any, subject: Any = None, **options: Any) -> list[Finding]:
    options.setdefault("task", Classification(CLASSES))
    names = splits["train"][0].keys() - {"present"}
    subject = subject or model(*sorted(names))
    return data_checks(subject, *(loader(*splits[s]) for s in SIZES), **options)


def of(findings: list[Finding], code: str) -> list[Finding]:
    return [f for f in findings if f.code == code]


def only(findings: list[Finding], code: str) -> Finding:
    """The one finding of a check, where no other check found anything."""
    (found,) = [f for f in findings if f.severity != "fine"]
    assert found.code == code
    assert found.cure
    return found


def test_good_data_are_fine() -> None:
    found = checked(data())
    assert [f.severity for f in found] == ["fine"] * len(CHECKS)
    assert {f.code for f in found} == set(CHECKS)
    left = {f.code for f in found if not f.made}
    assert left == {f.code for f in found if "Not looked at" in f.what} == {"chance", "optimizer"}


def test_nan_is_named_and_counted() -> None:
    splits = data()
    for row in range(5, 20):
        splits["train"][0]["audio"][row, 3] = torch.nan
    splits["test"][0]["video"][7, 0] = -torch.inf
    train, test = of(checked(splits), "nonfinite")
    assert (train.modality, train.severity, train.count) == ("audio", "fault", 15)
    assert train.samples == tuple(range(1005, 1005 + LISTED))
    assert "15 of 300 training samples: 1005, 1006," in train.what and "…" in train.what
    assert (test.modality, test.samples) == ("video", (1007,))
    assert test.severity == "warning"  # one is left out, and says nothing of the others


@pytest.mark.parametrize(("count", "severity"), [(14, "warning"), (15, "fault")])
def test_a_few_samples_with_nan_are_no_fault(count: int, severity: str) -> None:
    splits = data()
    splits["train"][0]["audio"][:count, 3] = torch.nan  # of 300
    assert only(checked(splits), "nonfinite").severity == severity


def test_nan_in_the_target() -> None:
    splits = data()
    splits = {s: (x, y.float()) for s, (x, y) in splits.items()}
    splits["train"][1][4] = torch.nan
    found = only(checked(splits, task=Regression()), "nonfinite")
    assert found.modality is None and found.samples == (1004,)


def test_constant_modality_and_constant_columns() -> None:
    splits = data()
    for inputs, _ in splits.values():
        inputs["audio"][:, [1, 4]] = 0.1
    found = only(checked(splits), "constant")
    assert (found.severity, found.modality, found.count) == ("warning", "audio", 2)
    assert "2 of 8 features of `audio`" in found.what and "1, 4" in found.what
    for inputs, _ in splits.values():
        inputs["audio"][:] = 0.1
    assert only(checked(splits), "constant").severity == "fault"


def test_borders_of_images_may_be_constant() -> None:
    splits = data()
    for inputs, _ in splits.values():
        image = F.pad(inputs["audio"].view(-1, 1, 2, 4), (0, 1))
        inputs["audio"] = image
    assert not [f for f in checked(splits) if f.severity != "fine"]


@pytest.mark.parametrize("change", [lambda x: x.clone(), lambda x: 3 - 2 * x.flip(1)])
def test_a_copied_modality(change: Any) -> None:
    splits = data()
    for inputs, _ in splits.values():
        inputs["video"] = change(inputs["audio"])
    found = only(checked(splits), "duplicated")
    assert (found.severity, found.modality) == ("fault", "video") and "`audio`" in found.what


def test_a_shared_column() -> None:
    splits = data()
    for inputs, _ in splits.values():
        inputs["video"][:, 6] = 5 * inputs["audio"][:, 2]
    found = only(checked(splits), "duplicated")
    assert (found.severity, found.count) == ("warning", 1)
    assert "2 of `audio` and 6 of `video`" in found.what


def test_rare_values_that_coincide_are_no_copy() -> None:
    splits = data()
    for inputs, _ in splits.values():
        for x in inputs.values():
            x[:, 0] = 0
            x[3, 0] = 1.0
    assert not [f for f in checked(splits) if f.severity != "fine"]


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_label_among_the_inputs(classes: int) -> None:
    splits = data(classes=classes)
    for inputs, label in splits.values():
        inputs["video"][:, 5] = label
    found = only(checked(splits, task=Classification(classes)), "leak")
    assert (found.severity, found.modality) == ("fault", "video")
    assert "the target itself, column 5" in found.what


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_a_column_that_tells_the_class(classes: int) -> None:
    splits = data(classes=classes)
    g = torch.Generator().manual_seed(1)
    order = torch.randperm(classes, generator=g)
    for inputs, label in splits.values():
        inputs["audio"][:, 1] = order[label].float() + 0.4 * torch.rand(len(label), generator=g)
    found = only(checked(splits, task=Classification(classes)), "leak")
    assert found.modality == "audio" and "column 1," in found.what and found.count == 1


def test_two_intervals_of_a_class() -> None:
    splits = data(classes=2)
    for inputs, label in splits.values():
        inputs["audio"][:, 1] = inputs["audio"][:, 1].sign() * label
    found = only(checked(splits, task=Classification(2)), "leak")
    assert "intervals of one column" in found.what


def test_an_indicator_of_one_class() -> None:
    splits = data()
    for inputs, label in splits.values():
        inputs["audio"][:, 1] = 4 * (label == 2)
    assert "correlates" in only(checked(splits), "leak").what


def test_a_leak_in_the_training_data_alone_is_none() -> None:
    splits = data()
    inputs, label = splits["train"]
    inputs["audio"][:, 1] = label
    assert not [f for f in checked(splits) if f.severity != "fine"]


def test_sorted_data_with_ties_are_no_leak() -> None:
    splits = data()
    for s, (inputs, label) in splits.items():
        order = label.argsort(stable=True)
        rows = {m: x[order] for m, x in inputs.items()}
        rows["audio"][:, 1] = (torch.arange(len(label)) % 2).float()
        splits[s] = (rows, label[order])
    assert not [f for f in checked(splits) if f.severity != "fine"]


def test_a_leak_of_numbers_and_of_labels() -> None:
    splits = data()
    numbers = {s: (x, x["audio"][:, :1] + x["video"][:, :1]) for s, (x, _) in splits.items()}
    assert not of(checked(numbers, task=Regression()), "leak")[0].count
    labels = {s: (x, F.one_hot(y, 3)) for s, (x, y) in splits.items()}
    assert not of(checked(labels, task=MultiLabel(3)), "leak")[0].count
    for s in SIZES:
        numbers[s][0]["video"][:, 7] = 2 - 3 * numbers[s][1][:, 0]
    assert only(checked(numbers, task=Regression()), "leak").modality == "video"
    for s in SIZES:
        labels[s][0]["video"][:, 7] = labels[s][1][:, 1]
    assert only(checked(labels, task=MultiLabel(3)), "leak").modality == "video"


def test_unequal_scales() -> None:
    splits = data()
    for inputs, _ in splits.values():
        inputs["video"] *= 500
    found = only(checked(splits), "scales")
    assert (found.severity, found.modality) == ("warning", "video") and "`audio`" in found.what


def test_duplicates_between_splits() -> None:
    splits = data()
    for m in ("audio", "video"):
        splits["test"][0][m][10:14] = splits["train"][0][m][[40, 41, 42, 200]]
    found = only(checked(splits), "duplicates")
    assert (found.severity, found.count, found.modality) == ("warning", 4, None)  # of 120
    assert found.pairs == ((1040, 1010), (1041, 1011), (1042, 1012), (1200, 1013))
    for m in ("audio", "video"):
        splits["test"][0][m][50:52] = splits["train"][0][m][50:52]
    found = only(checked(splits), "duplicates")
    assert (found.severity, found.count) == ("fault", 6) and "repeat" not in found.what


def test_inputs_that_repeat_by_nature_are_no_fault() -> None:
    splits, g = data(), torch.Generator().manual_seed(1)
    for inputs, label in splits.values():
        for m in inputs:
            inputs[m] = (torch.rand(len(label), 3, generator=g) > 0.5).float()
    net = Multimodal(
        {m: nn.Linear(3, 4) for m in ("audio", "video")}, Concat({"audio": 4, "video": 4}, CLASSES)
    )
    found = of(checked(splits, net), "duplicates")
    assert {f.severity for f in found} == {"warning"}
    assert "Inputs repeat within the training data as well." in found[0].what


def test_one_modality_of_a_sample_in_two_splits() -> None:
    splits = data()
    splits["validation"][0]["audio"][3] = splits["train"][0]["audio"][8]
    found = only(checked(splits), "duplicates")
    assert (found.severity, found.modality, found.pairs) == ("warning", "audio", ((1008, 1003),))


def test_samples_of_zeros_are_no_duplicates() -> None:
    splits = data()
    for s in SIZES:
        for x in splits[s][0].values():
            x[0] = 0
    assert not [f for f in checked(splits) if f.severity != "fine"]


def test_a_single_class_and_an_unseen_one() -> None:
    splits = data()
    splits["test"][1][:] = 1
    found = only(checked(splits), "classes")
    assert found.severity == "fault" and "single target value: [1]" in found.what
    splits = data()
    splits["train"][1].clamp_(max=1)
    assert "2" in only(checked(splits), "classes").what


def test_outputs_that_never_vary() -> None:
    splits = {s: (x, x["audio"][:, :2] + x["video"][:, :2]) for s, (x, _) in data().items()}
    splits["test"][1][:, 1] = 0.1
    found = only(checked(splits, task=Regression(2)), "classes")
    assert (found.severity, found.count) == ("warning", 1)
    assert "1 of 2 outputs of the target are the same in all test samples: outputs 1." in found.what
    splits["test"][1][:, 0] = 0.5
    found = of(checked(splits, task=Regression(2)), "classes")[0]
    assert found.severity == "fault" and "test data have a single target value" in found.what


def test_imbalance_of_classes() -> None:
    splits = data()
    splits["train"][1][(splits["train"][1] == 2).nonzero().flatten()[4:]] = 0
    found = only(checked(splits), "classes")
    assert (found.severity, found.count) == ("warning", 4) and "49 times fewer" in found.what


def test_labels_that_never_vary() -> None:
    splits = {s: (x, F.one_hot(y, 4)) for s, (x, y) in data().items()}
    found = of(checked(splits, task=MultiLabel(4)), "classes")
    assert [f.severity for f in found] == ["fault", "warning"]


def test_dense_targets() -> None:
    splits = {s: (x, y[:, None].expand(-1, 4).clone()) for s, (x, y) in data().items()}
    splits["test"][1][:, 1:] = 255
    found = checked(splits, task=Dense(CLASSES))
    assert not [f for f in found if f.severity != "fine"]


def test_at_chance() -> None:
    alone = {"audio": Estimate(0.4, 0.31, 0.5), "video": Estimate(0.6, 0.5, 0.7)}
    found = only(checked(data(), alone=alone), "chance")
    assert (found.modality, found.severity) == ("audio", "warning")
    assert "0.400 (0.310 to 0.500), and chance is 0.333" in found.what
    assert not of(checked(data(), alone=alone, chance=0.3), "chance")[0].modality


def test_frozen_and_forgotten_parameters() -> None:
    net = model()
    balancer = Balancer(net, task=Classification(CLASSES))
    parts = [*net.encoders["audio"].parameters(), *net.fusion.parameters()]
    optimizer = torch.optim.SGD(parts, lr=0.1)
    found = only(checked(data(), balancer, optimizer=optimizer), "optimizer")
    assert (found.severity, found.modality, found.count) == ("fault", "video", 4)
    assert "`0.weight`" in found.what
    balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.1))
    assert "No parameter" in of(checked(data(), balancer), "optimizer")[0].what
    net.encoders["video"].requires_grad_(False)
    found = only(checked(data(), balancer), "frozen")
    assert (found.modality, found.count) == ("video", 4) and "4 of 4" in found.what


def test_batch_norm_in_eval() -> None:
    net = model()
    net.encoders["audio"].eval()
    found = only(checked(data(), net), "batchnorm")
    assert (found.modality, found.count) == ("audio", 1) and "`1`" in found.what
    net.eval()
    assert "Not looked at" in of(checked(data(), net), "batchnorm")[0].what
    assert not any(m.training for m in net.modules())


def test_padding_does_not_count() -> None:
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 50, (64, 6), generator=g)
    mask = torch.ones(64, 6, dtype=torch.long)
    ids[:, 4:], mask[:, 4:] = torch.randint(1, 50, (64, 2), generator=g), 0
    net = Multimodal({"text": nn.Identity()}, Concat({"text": 6}, 2))
    target = torch.arange(64) % 2
    long = read(net, loader({"text": {"input_ids": ids, "attention_mask": mask}}, target), "a")
    short = {"text": {"input_ids": ids[:, :4], "attention_mask": mask[:, :4]}}
    short_ = read(net, loader(short, target), "b")
    flags = read(net, loader({"text": (ids.float(), mask == 0)}, target), "c")
    assert torch.equal(long.tables["text"].hashes, short_.tables["text"].hashes)
    assert bool((long.tables["text"].columns[:, 4:] == 0).all())
    assert torch.equal(flags.tables["text"].columns, long.tables["text"].columns)
    seen = ids[:, :4].double()
    assert flags.tables["text"].deviation == pytest.approx(float(seen.std(correction=0)))
    assert long.tables["text"].deviation == 0  # numbers of words have no scale


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.bool]
)
def test_any_type_and_shape(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    x = (torch.rand(40, 3, 5, 7, generator=g) * 2.0).floor().to(dtype)
    net = Multimodal({"a": nn.Identity()}, Concat({"a": 6}, 2))
    table = read(net, loader({"a": x}, torch.arange(40) % 2), "a").tables["a"]
    assert table.columns.shape == (40, 105) and len(table.hashes.unique()) == 40


def test_long_inputs_are_pooled() -> None:
    x = torch.arange(20.0)[:, None].expand(20, 4 * MOST_COLUMNS)
    net = Multimodal({"a": nn.Identity()}, Concat({"a": 6}, 2))
    table = read(net, loader({"a": x}, torch.arange(20) % 2), "a").tables["a"]
    assert table.columns.shape == (20, MOST_COLUMNS)
    assert torch.allclose(table.columns, x[:, :MOST_COLUMNS])


def test_absent_samples_do_not_count() -> None:
    splits = data()
    for s, (inputs, label) in splits.items():
        there = torch.arange(len(label)) % 2 == 0
        inputs["audio"][~there] = torch.nan
        splits[s] = ({**inputs, "present": {"audio": there}}, label)
    assert not [f for f in checked(splits) if f.severity != "fine"]


def test_equal_hashes_mean_equal_inputs() -> None:
    numbers = torch.cartesian_prod(*[torch.tensor([0.0, 1.0, 2.0, -4.0])] * 6)
    net = Multimodal({"a": nn.Identity()}, Concat({"a": 6}, 2))
    large = F.pad(numbers, (0, 300)).flip(1).half()
    for x in (numbers, numbers.double(), numbers.long(), numbers * 1024, large, numbers > 1):
        x = x.unique(dim=0)
        table = read(net, loader({"a": x}, torch.zeros(len(x)), 4096), "a").tables["a"]
        assert len(table.hashes.unique()) == len(x)


def test_bad_arguments() -> None:
    splits = data()
    with pytest.raises(ValueError, match=r"should come with its task"):
        data_checks(model(), *(loader(*splits[s]) for s in SIZES))
    with pytest.raises(ValueError, match=r"The test loader should yield a batch"):
        data_checks(model(), loader(*splits["train"]), None, [], task=Classification())
    with pytest.raises(ValueError, match=r"Every modality should be in the batch"):
        checked(splits, model("audio", "video", "depth"))


def test_without_validation_and_json() -> None:
    splits = data()
    train, test = (loader(*splits[s]) for s in ("train", "test"))
    found = data_checks(model(), train, None, test, task=Classification(CLASSES))
    assert json.loads(json.dumps([f.to_json() for f in found]))[0]["severity"] == "fine"


def test_of_many_samples_a_part_is_compared_and_all_are_hashed() -> None:
    class Sized(list[Any]):
        dataset = range(20_000)

    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(20_000, 8, generator=g), torch.arange(20_000) % 4
    net = Multimodal({"a": nn.Identity()}, Concat({"a": 8}, 2))
    split = read(net, Sized(loader({"a": x}, y, 1000)), "a")
    assert 4000 < len(split.rows) < 6000 and len(split.index) == 20_000
    assert torch.equal(split.tables["a"].columns, x[split.rows])
    assert len(split.tables["a"].hashes) == 20_000
    # The part is no pattern: the classes, which alternate, are all in it.
    assert split.seen.bincount().min() > 800
