"""Adopted networks: exact logits and gradients, ownership, state, and what is refused."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivox.fusion import Concat
from equivox.model import Multimodal

Inputs = dict[str, Any]


class Late(nn.Module):
    """Two encoders, the second nested; normalisation and dropout in what is fusion."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.audio = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh())
        self.backbone = nn.ModuleDict({"video": nn.Linear(5, 4)})
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(dropout)
        self.activation = nn.ReLU(inplace=True)
        self.last = nn.Linear(8, 2)

    def forward(self, audio: Tensor, video: Tensor) -> Tensor:
        a = self.norm(self.audio(audio))
        v = self.activation(self.backbone["video"](video))
        return self.last(self.dropout(torch.cat([a, v], -1)))


def batch(rows: int = 6, seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    return {
        "audio": torch.randn(rows, 3, generator=generator),
        "video": torch.randn(rows, 5, generator=generator),
    }


PATHS = {"audio": "audio", "video": "backbone.video"}


def two(net: nn.Module, inputs: Mapping[str, Any]) -> Any:
    return net(inputs["audio"], inputs["video"])


def late(**options: Any) -> tuple[Late, Multimodal]:
    torch.manual_seed(0)
    net = Late(**options)
    return net, Multimodal.from_model(net, PATHS, batch(), call=two)


class Pair(nn.Module):
    """A network on the dictionary of inputs, of a `join` that tests choose."""

    def __init__(self, join: Callable[[Pair, Inputs], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.audio = parts.pop("audio", nn.Linear(3, 4))
        self.video = parts.pop("video", nn.Linear(5, 4))
        for name, part in parts.items():
            setattr(self, name, part)
        self.last = nn.Linear(4, 2)
        self.join = join

    def forward(self, inputs: Inputs) -> Any:
        return self.join(self, inputs)


SAME_NAMES = {"audio": "audio", "video": "video"}


def adopted(join: Callable[[Any, Inputs], Any], **parts: nn.Module) -> Multimodal:
    torch.manual_seed(0)
    return Multimodal.from_model(Pair(join, **parts), SAME_NAMES, batch())


def plain(net: Any, x: Inputs) -> Tensor:
    return net.last(net.audio(x["audio"]) * net.video(x["video"]))


# ── exactness ───────────────────────────────────────────────────────────────────────────────────


def test_logits_in_eval_mode_are_those_of_the_network() -> None:
    net, model = late(dropout=0.5)
    model.eval()
    assert not net.training
    for rows in (1, 7):
        inputs = batch(rows, seed=rows)
        assert torch.equal(model(inputs).logits, two(net, inputs))


def test_training_equals_the_networks_own() -> None:
    net, model = late()
    other = copy.deepcopy(net)
    inputs, target = batch(8, seed=3), torch.arange(8) % 2
    F.cross_entropy(two(other, inputs), target).backward()
    F.cross_entropy(model(inputs).logits, target).backward()
    for (name, ours), theirs in zip(net.named_parameters(), other.parameters(), strict=True):
        assert ours.grad is not None, name
        torch.testing.assert_close(ours.grad, theirs.grad)
    for ours, theirs in zip(net.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_features_are_not_changed_by_a_layer_that_acts_in_place() -> None:
    net, model = late()
    model.eval()
    inputs = batch()
    output = model(inputs)
    assert torch.equal(output.features["video"], net.backbone["video"](inputs["video"]))
    assert (output.features["video"] < 0).any()


def test_adopting_leaves_everything_as_it_was() -> None:
    torch.manual_seed(0)
    net = Late(dropout=0.5)
    net.norm.eval()
    before = copy.deepcopy(net)
    modules, state = dict(net.named_modules()), torch.get_rng_state()
    Multimodal.from_model(net, PATHS, batch(), call=two)
    assert torch.equal(torch.get_rng_state(), state)
    assert dict(net.named_modules()) == modules
    assert [m.training for m in net.modules()] == [m.training for m in before.modules()]
    for ours, theirs in zip(net.state_dict().values(), before.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())


def test_an_interrupted_forward_puts_the_encoders_back() -> None:
    def join(net: Any, x: Inputs) -> Tensor:
        if len(x["audio"]) == 5:
            raise RuntimeError("in the network")
        return plain(net, x)

    model = adopted(join)
    encoders = [model.fusion.net.audio, model.fusion.net.video]
    with pytest.raises(RuntimeError, match="in the network"):
        model(batch(5))
    assert [model.fusion.net.audio, model.fusion.net.video] == encoders
    assert model(batch(4)).logits.shape == (4, 2)


def test_the_networks_own_handlers_do_not_swallow_the_stop() -> None:
    def join(net: Any, x: Inputs) -> Tensor:
        try:
            return plain(net, x)
        except Exception:
            return torch.zeros(len(x["audio"]), 2)

    model = adopted(join).eval()
    inputs = batch()
    assert torch.equal(model(inputs).logits, model.fusion.net(inputs))


def test_an_encoder_registered_twice_is_swapped_everywhere() -> None:
    video = nn.Linear(5, 4)
    model = adopted(
        lambda net, x: net.last(net.audio(x["audio"]) * net.alias(x["video"])),
        video=video,
        alias=video,
    ).eval()
    inputs = batch()
    assert torch.equal(model(inputs).logits, model.fusion.net(inputs))


def test_a_forward_may_read_attributes_of_its_encoders() -> None:
    def join(net: Any, x: Inputs) -> Tensor:
        return plain(net, x) * net.audio.out_features

    model = adopted(join).eval()
    inputs = batch()
    assert torch.equal(model(inputs).logits, model.fusion.net(inputs))


# ── structured features ─────────────────────────────────────────────────────────────────────────


class Read(nn.Module):
    """A recurrent encoder of padded sequences: tokens and the padding mask."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 4, batch_first=True)

    def forward(self, video: Inputs) -> tuple[Tensor, Tensor]:
        return self.gru(video["frames"])[0], video["padding"]


def sequences(rows: int = 6) -> Inputs:
    inputs = batch(rows)
    padding = torch.arange(7) >= torch.arange(3, 3 + rows).unsqueeze(1)
    frames = torch.randn(rows, 7, 5, generator=torch.Generator().manual_seed(1))
    return inputs | {"video": {"frames": frames, "padding": padding}}


def masked_mean(net: Any, x: Inputs) -> Tensor:
    tokens, padding = net.video(x["video"])
    kept = (~padding).unsqueeze(-1)
    mean = (tokens * kept).sum(1) / kept.sum(1)
    return net.last(net.audio(x["audio"]) * mean)


def test_a_recurrent_encoder_with_its_padding_mask() -> None:
    torch.manual_seed(0)
    net = Pair(masked_mean, video=Read())
    model = Multimodal.from_model(net, SAME_NAMES, sequences())
    assert model.widths == {"audio": 4, "video": 4}
    inputs = sequences(4)
    other = copy.deepcopy(net)
    other(inputs).square().sum().backward()
    output = model(inputs)
    output.logits.square().sum().backward()
    assert torch.equal(output.features["video"][1], inputs["video"]["padding"])
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    model.eval()
    tokens, padding = net.video(inputs["video"])
    blank = (torch.zeros_like(tokens), padding)
    expected = model.fused(output.features | {"video": blank}).logits
    assert torch.equal(model.fuse(output.features, {"audio"}), expected)
    assert expected.isfinite().all()


class Seen(NamedTuple):
    tokens: Tensor
    scale: Tensor


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Seen:
        return Seen(self.linear(x), x.mean(-1, keepdim=True).sigmoid())


def test_named_tuples_keep_their_type_when_blanked() -> None:
    def join(net: Any, x: Inputs) -> Tensor:
        seen = net.video(x["video"])
        return net.last(net.audio(x["audio"]) + seen.tokens * seen.scale)

    model = adopted(join, video=Named()).eval()
    inputs = batch()
    output = model(inputs)
    assert torch.equal(output.logits, model.fusion.net(inputs))
    alone = model.fusion.net.last(model.fusion.net.audio(inputs["audio"]))
    torch.testing.assert_close(output.unimodal["audio"], alone)


def test_a_whole_modality_may_be_missing() -> None:
    _, model = late()
    model.eval()
    inputs = batch()
    lacking = {"audio": inputs["audio"], "present": {"video": False}}
    expected = model.fuse(model.encode(inputs), {"audio"})
    torch.testing.assert_close(model(lacking).logits, expected)


def test_samples_may_lack_a_modality() -> None:
    _, model = late()
    model.eval()
    inputs = batch()
    there = torch.tensor([True, False, True, True, False, True])
    keep = torch.stack([torch.ones(6, dtype=torch.bool), there], 1)
    broken = inputs["video"].masked_fill(~there.unsqueeze(1), torch.nan)
    found = model(inputs | {"video": broken, "present": {"video": there}}).logits
    torch.testing.assert_close(found, model.fuse(model.encode(inputs), keep))


# ── what methods need ───────────────────────────────────────────────────────────────────────────


def test_ownership() -> None:
    net, model = late()
    assert model.encoder_parameters("audio") == list(net.audio.parameters())
    assert model.encoder_parameters("video") == list(net.backbone["video"].parameters())
    fusion = [*net.norm.parameters(), *net.last.parameters()]
    assert {id(p) for p in model.fusion_parameters()} == {id(p) for p in fusion}
    assert model.shared_parameters() == []
    assert {id(p) for p in model.parameters()} == {id(p) for p in net.parameters()}


def test_the_example_is_no_state_but_follows_the_model() -> None:
    net, model = late()
    saved = {name.split(".")[-1] for name in model.state_dict()}
    assert saved == {name.split(".")[-1] for name in net.state_dict()}
    model.double()
    assert {b.dtype for b in model.fusion.inputs.buffers()} == {torch.float64}
    doubled = {m: x.double() for m, x in batch().items()}
    assert model(doubled).logits.dtype == torch.float64


def test_the_state_makes_a_round_trip() -> None:
    _, model = late()
    torch.manual_seed(9)
    other = Multimodal.from_model(Late(), PATHS, batch(seed=4), call=two)
    other.load_state_dict(model.state_dict())
    inputs = batch(seed=5)
    assert torch.equal(other.eval()(inputs).logits, model.eval()(inputs).logits)


def test_a_deep_copy_is_independent() -> None:
    _, model = late()
    model.eval()
    inputs = batch(seed=2)
    before = model(inputs).logits.detach()
    twin = copy.deepcopy(model)
    assert torch.equal(twin(inputs).logits, before)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in model.parameters()}
    assert len(list(twin.parameters())) == len(list(model.parameters()))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert torch.equal(model(inputs).logits, before)
    assert torch.equal(twin(inputs).logits, two(twin.fusion.net, inputs))
    assert not torch.equal(twin(inputs).logits, before)


def test_encoders_that_serve_have_no_graph_and_keep_their_statistics() -> None:
    net, model = late(dropout=0.5)
    norm: Any = net.audio[1]
    before = norm.running_mean.clone()
    features = model.encode(batch(), learn={"video"})
    assert not features["audio"].requires_grad
    assert features["video"].requires_grad
    assert torch.equal(norm.running_mean, before)
    assert net.audio.training
    assert norm.training


def test_reading_features_leaves_the_fusions_statistics_alone() -> None:
    net, model = late()
    before = [b.clone() for b in net.norm.buffers()]
    model.encode(batch())
    assert all(torch.equal(a, b) for a, b in zip(net.norm.buffers(), before, strict=True))
    assert net.norm.training
    model(batch())
    assert net.norm.num_batches_tracked == 1


def test_unimodal_logits_are_those_with_the_others_blanked() -> None:
    net, model = late(dropout=0.5)
    buffers = [b.clone() for b in net.norm.buffers()]
    features = model.encode(batch())
    state = torch.get_rng_state()
    alone = model.unimodal(features)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(net.norm.buffers(), buffers, strict=True))
    model.eval()
    blank = features | {"video": torch.zeros(6, 4)}
    torch.testing.assert_close(alone["audio"], model.fused(blank).logits)
    assert alone["audio"].requires_grad


def test_own_heads_and_another_fusion_can_be_put_in() -> None:
    _, model = late()
    model.add_heads()
    assert model(batch()).unimodal["video"].shape == (6, 2)
    model.fusion = Concat({"audio": 4, "video": 4}, 2)
    model.eval()
    twin = copy.deepcopy(model)
    assert torch.equal(twin(batch()).logits, model(batch()).logits)


def test_compiling_compiles_the_parts() -> None:
    net, model = late()
    model.fusion.compile(backend="eager")
    model.encoders["audio"].compile(backend="eager")
    compiled = {n for n, m in net.named_modules() if m._compiled_call_impl is not None}
    assert compiled == {"audio", "norm", "dropout", "activation", "last"}


# ── what is refused ─────────────────────────────────────────────────────────────────────────────


def test_an_unknown_path_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"Found `audoi` for `audio`\. Did you mean `audio`\?"):
        Multimodal.from_model(Late(), {"audio": "audoi", "video": "backbone.video"}, batch())


@pytest.mark.parametrize("path", ["audio", "audio.0"])
def test_encoders_should_be_apart(path: str) -> None:
    with pytest.raises(ValueError, match="an encoder of its own"):
        Multimodal.from_model(Late(), {"audio": path, "video": "audio"}, batch(), call=two)


def test_an_encoder_that_runs_twice() -> None:
    with pytest.raises(ValueError, match="encoder of `audio` runs 2 times"):
        adopted(lambda net, x: plain(net, x) + plain(net, x))


def test_an_encoder_that_never_runs() -> None:
    with pytest.raises(ValueError, match="encoder of `video` runs 0 times"):
        adopted(lambda net, x: net.last(net.audio(x["audio"]) * net.video.forward(x["video"])))


def test_an_encoder_that_stops_running() -> None:
    model = adopted(lambda net, x: plain(net, x) if len(x["audio"]) > 2 else x["audio"])
    with pytest.raises(ValueError, match="runs 0 times in a batch"):
        model(batch(2))


def test_inputs_read_outside_the_encoders() -> None:
    with pytest.raises(ValueError, match=r"some input .* is read outside"):
        adopted(lambda net, x: plain(net, x) + x["audio"][:, :2])


def test_encoders_that_meet() -> None:
    def join(net: Any, x: Inputs) -> Tensor:
        a = net.audio(x["audio"])
        return net.last(net.video(x["video"] + a.mean(-1, keepdim=True)) * a)

    with pytest.raises(ValueError, match="feature of `video` changes when the other inputs do"):
        adopted(join)


def test_layers_before_an_encoder() -> None:
    def join(net: Any, x: Inputs) -> Tensor:
        return net.last(net.audio(net.stem(x["audio"])) * net.video(x["video"]))

    with pytest.raises(ValueError, match=r"Found `stem\.weight` before `audio`"):
        adopted(join, stem=nn.Linear(3, 3))


def test_frozen_layers_before_an_encoder_are_welcome() -> None:
    stem = nn.Linear(3, 3).requires_grad_(False)
    model = adopted(
        lambda net, x: net.last(net.audio(net.stem(x["audio"])) * net.video(x["video"])), stem=stem
    ).eval()
    inputs = batch()
    assert torch.equal(model(inputs).logits, model.fusion.net(inputs))


@pytest.mark.parametrize("example", [batch(1), {"audio": torch.ones(4, 3)}])
def test_an_example_has_two_samples_of_everything(example: Inputs) -> None:
    with pytest.raises(ValueError, match="An `example` should hold tensors of every modality"):
        Multimodal.from_model(Late(), PATHS, example, call=two)


def test_an_answer_that_is_no_tensor() -> None:
    def join(net: Any, x: Inputs) -> dict[str, Tensor]:
        return {"logits": plain(net, x)}

    with pytest.raises(ValueError, match=r"return its logits, a tensor\. Found `dict`"):
        adopted(join)
    model = Multimodal.from_model(
        Pair(join), SAME_NAMES, batch(), call=lambda net, x: net(x)["logits"]
    )
    assert model(batch()).logits.shape == (6, 2)


def test_features_without_the_batch_in_front() -> None:
    gru = nn.GRU(5, 4, batch_first=True)

    def join(net: Any, x: Inputs) -> Tensor:
        return net.last(net.audio(x["audio"]) * net.video(x["video"].unsqueeze(1))[1][0])

    with pytest.raises(ValueError, match=r"have the batch first\. Found `video`"):
        adopted(join, video=gru)


def test_names_that_are_reserved() -> None:
    with pytest.raises(ValueError, match="plain word"):
        Multimodal.from_model(Late(), {"keys": "audio"}, batch())


def test_nothing_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        late()


class Mapped(nn.Module):
    """Dense prediction: maps of one size all the way, or features of half the size."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1, stride=stride)
        self.b = nn.Conv2d(3, 4, 3, padding=1, stride=stride)
        self.up = nn.Upsample(scale_factor=stride)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, inputs: Inputs) -> Tensor:
        return self.last(self.up(torch.cat([self.a(inputs["a"]), self.b(inputs["b"])], 1)))


def test_heads_of_a_dense_network_answer_at_every_position() -> None:
    inputs = {m: torch.randn(4, 3, 6, 6) for m in ("a", "b")}
    model = Multimodal.from_model(Mapped(stride=1), {"a": "a", "b": "b"}, inputs)
    model.add_heads()
    assert model(inputs).unimodal["a"].shape == (4, 2, 6, 6)
    model = Multimodal.from_model(Mapped(stride=2), {"a": "a", "b": "b"}, inputs)
    with pytest.raises(ValueError, match="features of another size"):
        model.add_heads()
