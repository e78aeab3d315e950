"""The model: encoding, blanks, subsets, ownership, and the batches and arguments it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivox.features import Features, values, vector
from equivox.fusion import (
    Attention,
    Concat,
    FiLM,
    Fused,
    Fusion,
    Gated,
    SharedHead,
    Sum,
    sum_of,
)
from equivox.model import Multimodal, evaluating

WIDTHS = {"a": 4, "b": 6, "c": 3}
FUSIONS: list[Callable[..., Fusion]] = [Concat, Sum, SharedHead, Gated, FiLM, Attention]


class Late(nn.Module):
    """A fusion that declares nothing and has statistics and dropout."""

    def __init__(self, width: int = 13, outputs: int = 2) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(width, outputs)

    def forward(self, features: Features) -> Tensor:
        x = torch.cat([vector(z) for z in features.values()], -1)
        return self.linear(self.dropout(self.norm(x)))


def batch(rows: int = 6, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {m: torch.randn(rows, 5, generator=generator) for m in WIDTHS}


def encoders() -> dict[str, nn.Module]:
    return {m: nn.Sequential(nn.Linear(5, w), nn.BatchNorm1d(w)) for m, w in WIDTHS.items()}


def build(fusion: Any = None, **options: Any) -> Multimodal:
    torch.manual_seed(0)
    return Multimodal(encoders(), fusion or Concat(WIDTHS, 2), **options)


def late(**options: Any) -> Multimodal:
    """A model with a fusion that only an example explains."""
    return build(Late(), example=batch(), **options)


def state(model: nn.Module) -> list[Tensor]:
    return [torch.get_rng_state(), *(x.clone() for x in model.state_dict().values())]


def unchanged(model: nn.Module, before: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(state(model), before, strict=True))


# ── a sample's way ──────────────────────────────────────────────────────────────────────────────


def test_forward_is_the_fusion_of_the_encoders() -> None:
    model, inputs = build().eval(), batch()
    output = model(inputs)
    z = {m: model.encoders[m](inputs[m]) for m in WIDTHS}
    assert torch.equal(output.logits, model.fusion(z))
    assert all(torch.equal(output.features[m], z[m]) for m in WIDTHS)
    assert output.extra is None


def test_a_fusion_may_answer_with_more() -> None:
    class Certain(Concat):
        def forward(self, features: Features) -> Fused:  # type: ignore[override]
            logits = super().forward(features)
            return Fused(logits, logits.softmax(-1))

    model = build(Certain(WIDTHS, 2), example=batch()).eval()
    output = model(batch())
    assert torch.equal(output.extra, output.logits.softmax(-1))
    assert torch.equal(model.fuse(output.features, set(WIDTHS)), output.logits)
    subsets = model.fuse_subsets(output.features, [{"a"}, set(WIDTHS)])
    torch.testing.assert_close(subsets[frozenset(WIDTHS)], output.logits)


def test_the_columns_of_concat_are_what_each_modality_says() -> None:
    output = build()(batch())
    torch.testing.assert_close(sum_of(output.unimodal.values()), output.logits)
    assert output.split is output.unimodal


def test_own_heads_speak_and_the_split_stays() -> None:
    model, inputs = build(), batch()
    share = model.eval()(inputs).unimodal
    model.add_heads()
    output = model(inputs)
    assert model.heads is not None
    for m in WIDTHS:
        expected = model.heads[m](output.features[m])
        assert torch.equal(output.unimodal[m], expected)
        assert torch.equal(output.split[m], share[m])
    heads = model.heads
    model.add_heads()
    assert model.heads is heads
    assert model.head_parameters() == list(heads.parameters())


def test_logits_first_read_without_a_graph_keep_theirs() -> None:
    output = late()(batch())
    with torch.no_grad():
        assert output.unimodal["a"].requires_grad
    with torch.no_grad():
        output = late()(batch())
    assert not output.unimodal["a"].requires_grad


def test_encoders_that_serve() -> None:
    model = build()
    model.encoders["c"].eval()
    statistics = model.encoders["a"][1].running_mean.clone()  # type: ignore[index]
    features = model.encode(batch(), learn={"b"})
    assert {m: z.requires_grad for m, z in features.items()} == {"a": False, "b": True, "c": False}
    assert torch.equal(model.encoders["a"][1].running_mean, statistics)  # type: ignore[index]
    assert [model.encoders[m][1].training for m in WIDTHS] == [True, True, False]  # type: ignore[index]


def test_eval_mode_for_a_while_restores_every_part() -> None:
    model = build()
    model.encoders["a"].eval()
    before = [part.training for part in model.modules()]
    with pytest.raises(KeyError), evaluating(model):
        assert not any(part.training for part in model.modules())
        raise KeyError
    assert [part.training for part in model.modules()] == before


# ── blanks and subsets ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", FUSIONS)
def test_blanking_equals_zeros_by_hand(kind: Callable[..., Fusion]) -> None:
    model = build(kind(WIDTHS, 2)).eval()
    features = model.encode(batch())
    by_hand = features | {"b": torch.zeros_like(features["b"])}
    assert torch.equal(model.fuse(features, {"a", "c"}), model.fusion(by_hand))
    assert torch.equal(model.fuse(features, ["a", "c"]), model.fusion(by_hand))
    assert torch.equal(model.fused(features).logits, model.fusion(features))


@pytest.mark.parametrize("kind", FUSIONS)
def test_a_mask_blanks_sample_by_sample(kind: Callable[..., Fusion]) -> None:
    model = build(kind(WIDTHS, 2)).eval()
    features = model.encode(batch(3))
    keep = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0]], dtype=torch.bool)
    found = model.fuse(features, keep)
    for row, kept in enumerate([{"a", "b", "c"}, {"a", "c"}, {"b"}]):
        torch.testing.assert_close(found[row], model.fuse(features, kept)[row])


def test_the_mean_and_a_given_blank() -> None:
    model = build(blank="mean").eval()
    features = model.encode(batch())
    by_hand = features | {"b": features["b"].mean(0).expand(6, -1)}
    torch.testing.assert_close(model.fuse(features, {"a", "c"}), model.fusion(by_hand))
    given = {m: torch.full((w,), 2.0) for m, w in WIDTHS.items()}
    by_hand = features | {"b": torch.full((6, 6), 2.0)}
    blanked = model.blanked(features, {"a", "c"}, given)
    torch.testing.assert_close(model.fusion(blanked), model.fusion(by_hand))


def test_tokens_are_learned() -> None:
    model = build(blank="token")
    with torch.no_grad():
        model.tokens["b"].fill_(3.0)
    features = model.encode(batch())
    found = model.fuse(features, {"a", "c"})
    torch.testing.assert_close(found, model.fusion(features | {"b": torch.full((6, 6), 3.0)}))
    found.sum().backward()
    assert model.tokens["b"].grad is not None
    assert model.tokens["a"].grad is None
    assert {id(p) for p in model.tokens.values()} <= {id(p) for p in model.fusion_parameters()}


@pytest.mark.parametrize("blank", ["zero", "mean", "token"])
@pytest.mark.parametrize("kind", [Late, *FUSIONS])
def test_stacked_subsets_equal_one_by_one(kind: Callable[..., Any], blank: str) -> None:
    fusion = Late() if kind is Late else kind(WIDTHS, 2)
    model = build(fusion, blank=blank, example=batch())
    features = model.encode(batch())
    subsets = [set(), {"a"}, {"a", "c"}, set(WIDTHS)]
    found = model.fuse_subsets(features, subsets)
    assert list(found) == [frozenset(s) for s in subsets]
    for subset in subsets:
        torch.testing.assert_close(found[frozenset(subset)], model.fuse(features, subset))


def test_encoders_run_once_for_any_number_of_subsets() -> None:
    model, runs = build(), []
    model.encoders["a"].register_forward_hook(lambda *_: runs.append(1))
    output = model(batch())
    model.fuse_subsets(output.features, [{"a"}, {"b"}, {"a", "b"}])
    assert output.unimodal
    assert len(runs) == 1


@pytest.mark.parametrize("stackable", [True, False])
def test_side_looks_leave_no_trace(stackable: bool) -> None:
    model = late()
    model.fusion.stackable = stackable  # type: ignore[assignment]
    features = model.encode(batch())
    before = state(model)
    model.fuse(features, {"a"})
    model.fuse_subsets(features, [{"a"}, {"b", "c"}])
    model.unimodal(features)
    assert unchanged(model, before)
    assert all(part.training for part in model.modules())
    model.fused(features)
    assert not unchanged(model, before)


def test_building_with_an_example_leaves_no_trace() -> None:
    torch.manual_seed(0)
    parts, fusion = encoders(), Late()
    before = [state(parts["a"]), state(fusion)]
    Multimodal(parts, fusion, example=batch())
    assert unchanged(parts["a"], before[0])
    assert unchanged(fusion, before[1])


def test_unimodal_logits_of_any_fusion_are_those_of_the_others_blanked() -> None:
    model = late().eval()
    output = model(batch())
    for m in WIDTHS:
        assert torch.equal(output.unimodal[m], model.fuse(output.features, {m}))


# ── missing modalities ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [Late, Concat, Gated, FiLM])
def test_a_batch_without_a_modality_is_blank_there(kind: Callable[..., Any]) -> None:
    fusion = Late() if kind is Late else kind(WIDTHS, 2)
    model, inputs = build(fusion, example=batch()).eval(), batch()
    ran = []
    model.encoders["b"].register_forward_hook(lambda *_: ran.append(1))
    expected = model.fuse(model.encode({m: inputs[m] for m in WIDTHS}), {"a", "c"})
    ran.clear()
    lacking = {"a": inputs["a"], "c": inputs["c"], "present": {"b": False}}
    output = model(lacking)
    assert torch.equal(output.logits, expected)
    assert set(output.features) == {"a", "c"} == set(output.unimodal)
    assert torch.equal(model(inputs | {"present": {"b": False}}).logits, expected)
    assert not ran


@pytest.mark.parametrize("kind", [Sum, SharedHead, Attention])
def test_a_partial_fusion_reads_only_what_is_there(kind: Callable[..., Fusion]) -> None:
    model, inputs = build(kind(WIDTHS, 2)).eval(), batch()
    lacking = {"a": inputs["a"], "c": inputs["c"], "present": {"b": False}}
    features = {m: model.encoders[m](inputs[m]) for m in "ac"}
    assert torch.equal(model(lacking).logits, model.fusion(features))


def test_a_token_stands_for_a_modality_that_a_batch_lacks() -> None:
    model = build(blank="token").eval()
    with torch.no_grad():
        model.tokens["b"].fill_(3.0)
    inputs = batch()
    lacking = {"a": inputs["a"], "c": inputs["c"], "present": {"b": False}}
    features = model.encode(inputs) | {"b": torch.full((6, 6), 3.0)}
    torch.testing.assert_close(model(lacking).logits, model.fusion(features))


@pytest.mark.parametrize("blank", ["zero", "mean", "token"])
def test_samples_without_a_modality_are_blank_whatever_they_hold(blank: str) -> None:
    model, inputs = build(blank=blank).eval(), batch()
    there = torch.tensor([True, True, False, True, False, True])
    z = model.encode(inputs)["b"]
    broken = inputs["b"].masked_fill(~there.unsqueeze(1), torch.inf)
    found = model.encode(inputs | {"b": broken, "present": {"b": there, "a": True}})
    filler = z[there].mean(0) if blank == "mean" else torch.zeros(6)
    torch.testing.assert_close(found["b"], torch.where(there.unsqueeze(1), z, filler))


def test_nothing_flows_into_absent_samples() -> None:
    model, inputs = build().eval(), batch()
    inputs["b"].requires_grad_()
    there = torch.tensor([True, False, True, True, True, True])
    model(inputs | {"present": {"b": there}}).logits.square().sum().backward()
    assert ((inputs["b"].grad != 0).any(1) == there).all()


# ── sequences and dense features ────────────────────────────────────────────────────────────────


class Tokens(nn.Module):
    def __init__(self, attention_mask: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 4)
        self.attention_mask = attention_mask

    def forward(self, x: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        mask = x["padding"]
        return self.linear(x["tokens"]), (~mask).long() if self.attention_mask else mask


def sequences(rows: int = 3) -> dict[str, Any]:
    torch.manual_seed(1)
    padding = torch.arange(6) >= torch.arange(2, 2 + rows).unsqueeze(1)
    return {"a": {"tokens": torch.randn(rows, 6, 5), "padding": padding}, "b": torch.randn(rows, 5)}


@pytest.mark.parametrize("attention_mask", [True, False])
@pytest.mark.parametrize("blank", ["zero", "mean", "token"])
@pytest.mark.parametrize("kind", [Concat, Attention])
def test_a_blanked_sequence_keeps_its_mask(
    kind: Callable[..., Fusion], blank: str, attention_mask: bool
) -> None:
    torch.manual_seed(0)
    parts = {"a": Tokens(attention_mask), "b": nn.Linear(5, 6)}
    inputs = sequences()
    model = Multimodal(parts, kind({"a": 4, "b": 6}, 2), blank=blank, example=inputs).eval()
    output = model(inputs)
    found = model.blanked(output.features, {"b"})["a"]
    assert torch.equal(found[1], output.features["a"][1])
    assert not torch.equal(found[0], output.features["a"][0])
    there = torch.tensor([True, False, True])
    for logits in (
        *output.unimodal.values(),
        model.fuse(output.features, {"b"}),
        model(inputs | {"present": {"a": there}}).logits,
        model({"b": inputs["b"], "present": {"a": False}}).logits,
    ):
        assert logits.shape == (3, 2)
        assert logits.isfinite().all()


@pytest.mark.parametrize("attention_mask", [True, False])
def test_a_missing_sequence_is_no_padding_alone(attention_mask: bool) -> None:
    parts = {"a": Tokens(attention_mask), "b": nn.Linear(5, 6)}
    model = Multimodal(parts, Attention({"a": 4, "b": 6}, 2), example=sequences()).eval()
    model.fusion.partial = False  # type: ignore[assignment]
    lacking = {"b": torch.ones(5, 5), "present": {"a": False}}
    assert model(lacking).logits.isfinite().all()


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("blank", ["zero", "mean", "token"])
@pytest.mark.parametrize("kind", [Concat, Sum])
def test_dense_features(kind: Any, blank: str, pool: bool) -> None:
    torch.manual_seed(0)
    parts = {"a": nn.Conv2d(1, 4, 3, padding=1), "b": nn.Conv2d(2, 6, 3, padding=1)}
    widths = {"a": 4, "b": 6}
    inputs = {"a": torch.randn(3, 1, 6, 7), "b": torch.randn(3, 2, 6, 7)}
    model = Multimodal(parts, kind(widths, 2, pool=pool), blank=blank, example=inputs).eval()
    model.add_heads()
    if blank == "token":
        nn.init.normal_(model.tokens["a"])
    output = model(inputs)
    shape = (3, 2) if pool else (3, 2, 6, 7)
    assert {x.shape for x in (output.logits, *output.unimodal.values())} == {shape}
    filler = {"mean": output.features["a"].mean(0), "zero": torch.zeros(())}.get(blank)
    if filler is None:
        filler = model.tokens["a"].view(4, 1, 1)
    by_hand = output.features | {"a": filler.expand(3, 4, 6, 7)}
    torch.testing.assert_close(model.fuse(output.features, {"b"}), model.fusion(by_hand))
    lacking = model({"b": inputs["b"], "present": {"a": False}})
    assert lacking.logits.shape == shape


def test_a_dense_modality_may_be_missing_without_an_example() -> None:
    parts = {"a": nn.Conv2d(1, 4, 3, padding=1), "b": nn.Conv2d(2, 6, 3, padding=1)}
    model = Multimodal(parts, Concat({"a": 4, "b": 6}, 2, pool=False)).eval()
    inputs = {"a": torch.randn(3, 1, 6, 7), "b": torch.randn(3, 2, 6, 7)}
    expected = model.fuse(model.encode(inputs), {"b"})
    found = model({"b": inputs["b"], "present": {"a": False}}).logits
    torch.testing.assert_close(found, expected)


def test_an_example_gives_widths_and_outputs() -> None:
    model = late()
    assert model.widths == WIDTHS
    assert model.outputs == 2
    model.add_heads()
    assert model(batch()).unimodal["c"].shape == (6, 2)


def test_absent_features_follow_device_and_dtype() -> None:
    model = late().double().eval()
    lacking = {m: x.double() for m, x in batch().items() if m != "b"}
    assert model(lacking | {"present": {"b": False}}).logits.dtype == torch.float64


# ── whose parameters are whose ──────────────────────────────────────────────────────────────────


def test_every_parameter_has_one_owner() -> None:
    model = build(Attention(WIDTHS, 2), blank="token")
    model.add_heads()
    groups = [model.encoder_parameters(m) for m in WIDTHS]
    groups += [model.shared_parameters(), model.head_parameters(), model.fusion_parameters()]
    found = [id(p) for group in groups for p in group]
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in model.parameters()}
    assert model.branch_parameters("a") == model.fusion.branch("a")  # type: ignore[operator]
    assert late().branch_parameters("a") == []


def test_an_encoder_of_two_modalities_is_nobodys() -> None:
    shared, own, trunk = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(4, 4)
    parts = {"a": shared, "b": shared, "c": nn.Sequential(own, trunk), "d": nn.Sequential(trunk)}
    model = Multimodal(parts, Concat(dict.fromkeys(parts, 4), 2))
    assert model.encoder_parameters("a") == model.encoder_parameters("b") == []
    assert model.encoder_parameters("c") == list(own.parameters())
    assert model.encoder_parameters("d") == []
    expected = {id(p) for p in (*shared.parameters(), *trunk.parameters())}
    assert {id(p) for p in model.shared_parameters()} == expected


def test_what_fusion_and_encoder_share_is_the_encoders() -> None:
    model = build()
    model.fusion.tied = model.encoders["a"]
    assert model.fusion_parameters() == list(model.fusion.linear.parameters())  # type: ignore[union-attr]


def test_a_deep_copy_and_the_state() -> None:
    model = late(blank="token").eval()
    model.add_heads()
    twin, fresh = copy.deepcopy(model), late(blank="token").eval()
    fresh.add_heads()
    fresh.load_state_dict(model.state_dict())
    expected = model(batch()).logits
    assert torch.equal(twin(batch()).logits, expected)
    assert torch.equal(fresh(batch()).logits, expected)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in model.parameters()}


# ── what is refused ─────────────────────────────────────────────────────────────────────────────


class Gossip(nn.Module):
    """An encoder that hears what another one was given."""

    def __init__(self, heard: list[Tensor], speaks: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 4)
        self.heard = heard
        self.speaks = speaks

    def forward(self, x: Tensor) -> Tensor:
        if self.speaks:
            self.heard[:] = [x]
            return self.linear(x)
        return self.linear(x + self.heard[0])


def test_encoders_that_hear_each_other() -> None:
    heard: list[Tensor] = []
    parts = {"a": Gossip(heard, True), "b": Gossip(heard, False)}
    inputs = {"a": torch.randn(4, 5), "b": torch.randn(4, 5)}
    with pytest.raises(ValueError, match="shuffling `a` changes the feature of `b`"):
        Multimodal(parts, Concat({"a": 4, "b": 4}, 2), example=inputs)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"blank": "noise"}, r'"zero", "mean" or "token"\. Found `\'noise\'`'),
        ({"heads": {"a": nn.Linear(4, 2)}}, r"one head a modality\. Found \['a'\]"),
        ({"example": batch(1)}, r"two samples or more of every modality\. Found .*'a': 1"),
        ({"example": {"a": torch.ones(2, 5), "present": {"b": False, "c": False}}}, "two samples"),
        ({"fusion": Concat({"a": 4, "b": 6}, 2)}, "same modalities"),
        ({"fusion": Late(), "blank": "token"}, r"`widths` should be known here.*example=inputs"),
    ],
)
def test_arguments(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build(**options)


def test_widths_that_are_not_those_of_the_features() -> None:
    class Summed(Fusion):
        def forward(self, features: Features) -> Tensor:
            return sum_of(values(z)[:, :2] for z in features.values())

    with pytest.raises(ValueError, match="widths should be those of the features"):
        build(Summed(WIDTHS | {"a": 5}, 2), example=batch())


@pytest.mark.parametrize("name", ["present", "joint", "shared", "a.b", "", "keys"])
def test_names_that_cannot_be_modalities(name: str) -> None:
    with pytest.raises(ValueError, match=r"should be a plain word"):
        Multimodal({name: nn.Linear(5, 4)}, Concat({name: 4}, 2))


def test_a_model_needs_an_encoder() -> None:
    with pytest.raises(ValueError, match="at least one encoder"):
        Multimodal({}, Late())


def test_heads_and_absent_modalities_need_widths() -> None:
    model = build(Late())
    with pytest.raises(ValueError, match=r"`widths` should be known here.*example=inputs"):
        model.add_heads()
    inputs = batch()
    with pytest.raises(ValueError, match="`widths` should be known here"):
        model({"a": inputs["a"], "b": inputs["b"], "present": {"c": False}})


def test_an_encoder_whose_feature_does_not_have_the_batch_first() -> None:
    parts = {"a": nn.GRU(5, 4, batch_first=True), "b": nn.Linear(5, 4)}
    inputs = {"a": torch.randn(3, 7, 5), "b": torch.randn(3, 5)}
    with pytest.raises(ValueError, match=r"have the batch first\. Found `a`"):
        Multimodal(parts, Concat({"a": 4, "b": 4}, 2), example=inputs)


X = torch.ones(6, 5)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"aa": X}, ValueError, r"Found `aa`\. Did you mean `a`\?|Found `aa`\. Known are"),
        ({"b": None}, ValueError, r'Found no `b` .* `inputs\["present"\] = \{"b": False\}`'),
        ({"b": torch.ones(5, 5)}, ValueError, r"same number of samples\. Found \{'a': 6, 'b': 5"),
        ({"b": "text"}, TypeError, r"tensors with the batch first\. Found `b` of type `str`"),
        ({"b": torch.ones(())}, TypeError, "tensors with the batch first"),
        ({"present": {"d": True}}, ValueError, "Found `d`"),
        ({"present": torch.ones(6)}, TypeError, "should be a dictionary by modality"),
        ({"present": {"a": torch.ones(6)}}, TypeError, r"Found `torch\.float32 \(6,\)`"),
        ({"present": {"a": 1}}, TypeError, "should be True, False or"),
        ({"present": {"a": torch.ones(5).bool()}}, ValueError, r"'present\[\"a\"\]': 5"),
        ({"present": dict.fromkeys(WIDTHS, False)}, ValueError, "at least one modality"),
    ],
)
def test_batches(change: dict[str, Any], error: type[Exception], match: str) -> None:
    inputs = {m: x for m, x in (batch() | change).items() if x is not None}
    with pytest.raises(error, match=match):
        build()(inputs)


def test_inputs_that_are_no_dictionary() -> None:
    with pytest.raises(TypeError, match=r"dictionary by modality\. Found `Tensor`"):
        build()(X)


def test_what_to_keep() -> None:
    model = build().eval()
    features = model.encode(batch())
    with pytest.raises(ValueError, match=r"Found `bb`\. "):
        model.fuse(features, {"a", "bb"})
    with pytest.raises(TypeError, match=r"Found the string 'a'\. Write `\{'a'\}`"):
        model.fuse(features, "a")
    with pytest.raises(ValueError, match=r"\(batch, modalities\) = \(6, 3\)\. Found \(6, 2\)"):
        model.fuse(features, torch.ones(6, 2, dtype=torch.bool))


@pytest.mark.parametrize("name", ["copy", "keys", "training", "present", "a.b", ""])
def test_names_that_cannot_be_those_of_modalities(name: str) -> None:
    encoders = {name: nn.Linear(2, 2), "b": nn.Linear(2, 2)}
    with pytest.raises(ValueError, match="should be a plain word"):
        Multimodal(encoders, lambda features: features[name])
