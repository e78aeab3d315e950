"""The model: one encoder a modality, one fusion, and what the methods need to know of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from equivox.errors import nearest
from equivox.features import (
    Feature,
    Features,
    blanked,
    leaves,
    map_tensors,
    map_values,
    project,
    values,
    vector,
)
from equivox.fusion import Fused

RESERVED = ("present", "joint", "shared")
Keep = Set[str] | Sequence[str] | Tensor


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside, every submodule's own mode again outside."""
    modes = [(part, part.training) for part in module.modules() if part.training]
    recurrent = any(isinstance(part, nn.RNNBase) for part in module.modules())
    # cuDNN differentiates recurrent layers in train mode alone.
    native = recurrent and torch.is_grad_enabled()
    module.eval()
    try:
        with torch.backends.cudnn.flags(enabled=False) if native else nullcontext():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


class Output:
    """What the model says of a batch: `logits`, `features`, `extra`, and each modality alone."""

    def __init__(self, model: Multimodal, features: Features) -> None:
        self.model = model
        self.features = features
        self.logits: Tensor
        self.extra: Any = None
        self._grad = torch.is_grad_enabled()
        self._said: dict[bool, dict[str, Tensor]] = {}

    @property
    def unimodal(self) -> dict[str, Tensor]:
        """Each modality's own logits: of its own head where there is one, else its share."""
        return self._unimodal(split=False)

    @property
    def split(self) -> dict[str, Tensor]:
        """Each modality's share of the fused logits, whether or not there are own heads."""
        return self._unimodal(split=self.model.heads is not None)

    def _unimodal(self, split: bool) -> dict[str, Tensor]:
        if split not in self._said:
            # With the grad mode of the forward: a stage that reads them first under `no_grad`
            # must not cut the graph for the others.
            with torch.set_grad_enabled(self._grad):
                self._said[split] = self.model.unimodal(self.features, split)
        return self._said[split]


class Multimodal(nn.Module):
    """A network of one encoder a modality and one fusion.

    Arguments:
        encoders: a module for each modality's name. An encoder ends where another modality enters.
        fusion: maps the dictionary of features to logits (batch, outputs); see `equivox.fusion`.
        heads: a module (batch, width) → (batch, outputs) for each modality, or None.
        example: a small batch of inputs (two samples or more). Gives the features' widths and the
            number of outputs where the fusion does not declare them, and proves that no encoder
            depends on another modality's input.
        blank: what stands for a modality that is taken away: "zero", the batch "mean" (zero where
            the whole batch lacks it), or a learned "token".

    Raises ValueError for encoders that are not independent, and for names that are reserved.

    >>> net = {"a": nn.Linear(3, 4), "b": nn.Linear(5, 4)}
    >>> from equivox.fusion import Concat
    >>> model = Multimodal(net, Concat({"a": 4, "b": 4}, 2))
    >>> model({"a": torch.ones(6, 3), "b": torch.ones(6, 5)}).logits.shape
    torch.Size([6, 2])
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        fusion: nn.Module,
        heads: Mapping[str, nn.Module] | None = None,
        example: Mapping[str, Any] | None = None,
        blank: str = "zero",
    ) -> None:
        super().__init__()
        check_names(encoders, heads)
        if blank not in ("zero", "mean", "token"):
            raise ValueError(f'`blank` should be "zero", "mean" or "token". Found `{blank!r}`.')
        self.encoders = nn.ModuleDict(dict(encoders))
        self.fusion = fusion
        self.heads = None if heads is None else nn.ModuleDict(dict(heads))
        self.modalities = tuple(encoders)
        self.blank = blank
        self.widths: dict[str, int] = dict(getattr(fusion, "widths", {}))
        self.outputs: int | None = getattr(fusion, "outputs", None)
        self._template: dict[str, Feature] = {}
        self._space: tuple[int, ...] = ()  # of the example's logits
        if example is not None:
            self._examine(example)
        self._check_widths()
        self.tokens = nn.ParameterDict()
        if blank == "token":
            self.require("widths")
            self.tokens.update({m: nn.Parameter(torch.zeros(self.widths[m])) for m in encoders})

    @staticmethod
    def from_model(
        net: nn.Module,
        encoders: Mapping[str, str],
        example: Mapping[str, Any],
        call: Callable[[nn.Module, Mapping[str, Any]], Any] | None = None,
    ) -> Multimodal:
        """Adopt an existing network without rewriting it.

        Arguments:
            net: any network; its `forward` returns the logits.
            encoders: the dotted path of each modality's encoder inside `net`.
            example: a small batch of inputs by modality.
            call: how `net` is called with a dictionary of inputs; default `net(inputs)`. For
                instance `lambda net, x: net(x["audio"], x["video"])`.

        Everything outside the encoders is the fusion: it is replayed with the encoders standing
        for their cached features. Raises ValueError for an encoder that runs twice, or never.
        """
        from equivox.adopted import adopt

        return adopt(net, encoders, example, call)

    # ── a sample's way ──────────────────────────────────────────────────────────────────────────

    def forward(self, inputs: Mapping[str, Any]) -> Output:
        self.check(inputs)
        output = Output(self, self.encode(inputs))
        output.logits, output.extra = self.fused(output.features)
        return output

    def encode(self, inputs: Mapping[str, Any], learn: Set[str] | None = None) -> Features:
        """The features of the modalities in `inputs`.

        Encoders outside `learn` serve only: eval mode, no graph. Rows that `inputs["present"]`
        declares absent are blank, whatever the inputs hold there.
        """
        present = inputs.get("present", {})
        features = {}
        for name in self.modalities:
            there = present.get(name, True)
            if name not in inputs or there is False:
                continue
            x = blanked(inputs[name], there)
            z = self._encoded(name, x, learn is None or name in learn)
            filler = None if there is True else self._filler(name, z, there)
            features[name] = blanked(z, there, filler)
        return features

    def _encoded(self, name: str, x: Any, learns: bool) -> Feature:
        if learns:
            return self.encoders[name](x)
        with torch.no_grad(), evaluating(self.encoders[name]):
            return self.encoders[name](x)

    def fused(self, features: Features) -> Fused:
        """The fusion's answer in its present mode: the one pass that counts as the forward."""
        partial = getattr(self.fusion, "partial", False)
        answer = self.fusion(features if partial else self.completed(features))
        if isinstance(answer, Fused):
            return answer
        if not isinstance(answer, Tensor):
            raise TypeError(
                "A fusion should return logits, or `Fused(logits, extra)`. Found "
                f"`{type(answer).__name__}`."
            )
        return Fused(answer)

    def fuse(self, features: Features, keep: Keep) -> Tensor:
        """The logits, with the modalities outside `keep` blanked.

        `keep` is a set of names or a (batch, modalities) mask. A side look, in eval mode: BatchNorm
        and the random state stay untouched.
        """
        with evaluating(self.fusion):
            return self.fused(self.blanked(features, keep)).logits

    def fuse_subsets(
        self, features: Features, subsets: Sequence[Set[str]]
    ) -> dict[frozenset[str], Tensor]:
        """The logits of every subset, in eval mode; encoders are not run again.

        Copies of the batch are stacked into one call where the fusion allows it.
        """
        blanks = [self.blanked(features, subset) for subset in subsets]
        keys = [frozenset(subset) for subset in subsets]
        with evaluating(self.fusion):
            if not getattr(self.fusion, "stackable", False) or len(blanks) < 2:
                return {k: self.fused(b).logits for k, b in zip(keys, blanks, strict=True)}
            logits = self.fused(_stacked(blanks)).logits
        return dict(zip(keys, logits.chunk(len(keys)), strict=True))

    def unimodal(self, features: Features, split: bool = False) -> dict[str, Tensor]:
        """What each modality alone says: own heads, the fusion's split, or the others blanked."""
        if self.heads is not None and not split:
            pool = getattr(self.fusion, "pool", True)
            return {m: project(self.heads[m], z, pool) for m, z in features.items()}
        own = getattr(self.fusion, "unimodal", None)
        if own is not None:
            return own(features)
        alone = self.fuse_subsets(features, [{name} for name in features])
        return {name: alone[frozenset({name})] for name in features}

    def blanked(
        self, features: Features, keep: Keep, by: Mapping[str, Tensor] | None = None
    ) -> Features:
        """The features with everything outside `keep` replaced by blanks."""
        _check_keep(keep, features, self.modalities)
        result = {}
        for name, feature in features.items():
            if isinstance(keep, Tensor):
                kept: bool | Tensor = keep[:, self.modalities.index(name)]
            else:
                kept = name in keep
            filler = by[name] if by is not None else self._filler(name, feature)
            result[name] = blanked(feature, kept, filler)
        return result

    def _filler(self, name: str, feature: Feature, there: Tensor | None = None) -> Tensor | None:
        """What a blank row of this feature is; the mean is over the rows that are `there`."""
        if self.blank == "zero":
            return None
        x = values(feature)
        if self.blank == "token":
            maps = x.ndim > 3 or not getattr(self.fusion, "pool", True)
            return self.tokens[name].view(-1, *[1] * (x.ndim - 2 if maps else 0))
        if there is None:
            return x.detach().mean(0, keepdim=True)
        total: Tensor = blanked(x.detach(), there).sum(0, keepdim=True)
        return total / there.sum().clamp(min=1)

    def completed(self, features: Features) -> Features:
        """The features, with blanks for the modalities whose encoders did not run."""
        missing = [name for name in self.modalities if name not in features]
        if not missing:
            return features
        some = values(next(iter(features.values())))
        filled = features | {m: self._absent(m, some) for m in missing}
        return {name: filled[name] for name in self.modalities}

    def _absent(self, name: str, like: Tensor) -> Feature:
        """The blank feature of a modality whose encoder did not run."""
        rows = like.shape[0]
        if name in self._template:
            one = map_values(lambda x: x.to(like.dtype), self._template[name])
            feature = map_tensors(lambda x: x.to(like.device).expand(rows, *x.shape[1:]), one)
        else:
            self.require("widths")
            space = () if getattr(self.fusion, "pool", True) else like.shape[2:]
            feature = like.new_zeros(rows, self.widths[name], *space)
        by = self._filler(name, feature)
        return feature if by is None else blanked(feature, False, by)

    # ── whose parameters are whose: by declaration, never by name ───────────────────────────────

    def encoder_parameters(self, modality: str) -> list[nn.Parameter]:
        """The parameters that this modality's encoder alone owns."""
        others = {id(p) for m in self.modalities if m != modality for p in self._encoder(m)}
        return [p for p in self._encoder(modality) if id(p) not in others]

    def shared_parameters(self) -> list[nn.Parameter]:
        """The parameters of several encoders. No method modulates them."""
        owned = {id(p) for m in self.modalities for p in self.encoder_parameters(m)}
        every = {id(p): p for m in self.modalities for p in self._encoder(m)}
        return [p for key, p in every.items() if key not in owned]

    def branch_parameters(self, modality: str) -> list[nn.Parameter]:
        """The parameters of the fusion that serve one modality alone, as the fusion declares."""
        branch = getattr(self.fusion, "branch", None)
        return [] if branch is None else branch(modality)

    def head_parameters(self) -> list[nn.Parameter]:
        return [] if self.heads is None else list(self.heads.parameters())

    def fusion_parameters(self) -> list[nn.Parameter]:
        """The parameters of the fusion and the learned blanks, but for what is in an encoder."""
        inside = {id(p) for p in self.encoders.parameters()}
        outside = (*self.fusion.parameters(), *self.tokens.parameters())
        return [p for p in outside if id(p) not in inside]

    def _encoder(self, modality: str) -> list[nn.Parameter]:
        return list(self.encoders[modality].parameters())

    def add_heads(self) -> None:
        """Give every modality a linear head of its own, unless there are heads already."""
        if self.heads is not None:
            return
        widths, outputs = self.sizes()
        if self._space and getattr(self.fusion, "pool", True):
            raise ValueError(
                "A head of a modality answers where its features are. Found logits with the space "
                f"{self._space}, and features of another size. Let the encoders end in maps of the "
                "logits' size, or pass `Multimodal(..., heads=…)`."
            )
        self.heads = nn.ModuleDict({m: nn.Linear(widths[m], outputs) for m in self.modalities})

    # ── checks ──────────────────────────────────────────────────────────────────────────────────

    def check(self, inputs: Mapping[str, Any], expected: Sequence[str] | None = None) -> None:
        """Refuse a batch with missing or unknown modalities, or of unequal lengths."""
        if self._is_plain(inputs):
            return
        present = _checked_present(inputs)
        for name in (*inputs, *present):
            if name not in self.encoders and name != "present":
                raise ValueError(
                    f"Inputs should be of the modalities {list(self.modalities)}. Found `{name}`. "
                    + nearest(name, self.modalities)
                )
        for name in self.modalities if expected is None else expected:
            if name not in inputs and present.get(name) is not False:
                raise ValueError(
                    f"Every modality should be in the batch. Found no `{name}` beside "
                    f"{[n for n in inputs if n != 'present']}. If the batch lacks it on purpose, "
                    f'say so: `inputs["present"] = {{"{name}": False}}`.'
                )
        lengths = {name: _length(name, inputs[name]) for name in inputs if name != "present"}
        if all(present.get(name) is False for name in lengths):
            raise ValueError("A batch should hold at least one modality. Found none.")
        masks = {f'present["{m}"]': len(x) for m, x in present.items() if isinstance(x, Tensor)}
        if len({*lengths.values(), *masks.values()}) > 1:
            raise ValueError(
                "All modalities of a batch should have the same number of samples. Found "
                f"{lengths | masks}."
            )

    def _is_plain(self, inputs: Mapping[str, Any]) -> bool:
        """The usual batch, recognised quickly: a tensor a modality, all of one length."""
        if type(inputs) is not dict or inputs.keys() != set(self.modalities):
            return False
        tensors = all(isinstance(x, Tensor) and x.ndim for x in inputs.values())
        return tensors and len({x.shape[0] for x in inputs.values()}) == 1

    def _examine(self, example: Mapping[str, Any]) -> None:
        """Learn widths and outputs from a small batch, and that the encoders are independent."""
        self.check(example)
        rows = {name: len(leaves(example[name])[0]) for name in self.modalities if name in example}
        if len(rows) < len(self.modalities) or min(rows.values()) < 2:
            raise ValueError(
                "An `example` should hold two samples or more of every modality. Found the samples "
                f"{rows}."
            )
        with torch.no_grad(), evaluating(self):
            features = self.encode(example)
            logits = self.fused(features).logits
            self._check_independence(example, features)
        self._template = {
            m: map_values(torch.zeros_like, map_tensors(lambda x: x[:1].clone(), z))
            for m, z in features.items()
        }
        self.outputs = self.outputs or (logits.shape[1] if logits.ndim > 1 else 1)
        self._space = tuple(logits.shape[2:])
        dense = not getattr(self.fusion, "pool", True)
        found = {
            m: values(z).shape[1] if dense else vector(z).shape[1] for m, z in features.items()
        }
        self.widths = self.widths or found
        if self.widths != found:
            raise ValueError(
                f"The fusion's widths should be those of the features. Found {self.widths} in the "
                f"fusion and {found} in the features of the example."
            )

    def _check_independence(self, example: Mapping[str, Any], features: Features) -> None:
        for name in self.modalities:
            check_feature(name, features[name], len(leaves(example[name])[0]))
            shuffled = map_tensors(lambda x: x.roll(1, 0), example[name])
            after = self.encode({**example, name: shuffled})
            for other in (m for m in features if m != name):
                if not same(features[other], after[other]):
                    raise ValueError(
                        "An encoder should depend on its own modality alone. Found that shuffling "
                        f"`{name}` changes the feature of `{other}`. End the encoders before they "
                        "meet; what comes after is fusion."
                    )

    def _check_widths(self) -> None:
        if self.widths and set(self.widths) != set(self.modalities):
            raise ValueError(
                "Encoders and fusion should have the same modalities. Found "
                f"{sorted(self.modalities)} and {sorted(self.widths)}."
            )

    def sizes(self) -> tuple[dict[str, int], int]:
        """The features' widths and the number of outputs; ValueError where they are not known."""
        self.require("widths", "outputs")
        return self.widths, self.outputs or 1

    def require(self, *facts: str) -> None:
        """Raise ValueError where the model does not know its "widths" or "outputs"."""
        for what in facts:
            if not getattr(self, what):
                raise ValueError(
                    f"The model's `{what}` should be known here. Found a fusion that does not "
                    "declare them. Pass `Multimodal(..., example=inputs)` with a small batch."
                )


def check_names(encoders: Mapping[str, Any], heads: Mapping[str, Any] | None = None) -> None:
    """Refuse names that cannot be those of modalities."""
    if not encoders:
        raise ValueError("A model needs at least one encoder. Found none.")
    for name in encoders:
        if name in RESERVED or "." in name or not name or _is_taken(name):
            raise ValueError(
                f"A modality's name should be a plain word other than {RESERVED} and the "
                f"attributes of `nn.ModuleDict` and `nn.ParameterDict`. Found `{name}`."
            )
    if heads is not None and set(heads) != set(encoders):
        raise ValueError(
            f"There should be one head a modality. Found {sorted(heads)} for {sorted(encoders)}."
        )


def _is_taken(name: str) -> bool:
    """Whether a dictionary of modules or parameters has an attribute of this name."""
    return any(hasattr(kind(), name) for kind in (nn.ModuleDict, nn.ParameterDict))


def _checked_present(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(inputs, Mapping):
        raise TypeError(
            f"`inputs` should be a dictionary by modality. Found `{type(inputs).__name__}`."
        )
    present = inputs.get("present", {})
    if not isinstance(present, Mapping):
        raise TypeError(
            '`inputs["present"]` should be a dictionary by modality. Found '
            f"`{type(present).__name__}`."
        )
    for name, there in present.items():
        mask = isinstance(there, Tensor) and there.dtype == torch.bool and there.ndim == 1
        if not mask and not isinstance(there, bool):
            found = f"{there.dtype} {tuple(there.shape)}" if isinstance(there, Tensor) else there
            raise TypeError(
                f"`present[{name!r}]` should be True, False or a (batch,) boolean tensor. Found "
                f"`{found}`."
            )
    return present


def _length(name: str, x: Any) -> int:
    tensors = leaves(x)
    if not tensors or not tensors[0].ndim:
        raise TypeError(
            f"The inputs of a modality should be tensors with the batch first. Found `{name}` of "
            f"type `{type(x).__name__}`. Give the loader a `collate_fn`."
        )
    return len(tensors[0])


def _check_keep(keep: Keep, features: Features, modalities: Sequence[str]) -> None:
    if isinstance(keep, str):
        raise TypeError(
            f"`keep` should be a set of names or a mask. Found the string {keep!r}. Write "
            f"`{{{keep!r}}}`."
        )
    if isinstance(keep, Tensor):
        wanted = (len(leaves(next(iter(features.values())))[0]), len(modalities))
        if keep.shape != wanted:
            raise ValueError(
                f"A mask `keep` should be of shape (batch, modalities) = {wanted}. Found "
                f"{tuple(keep.shape)}."
            )
        return
    for name in keep:
        if name not in modalities:
            raise ValueError(
                f"`keep` should name modalities of {list(modalities)}. Found `{name}`. "
                + nearest(name, modalities)
            )


def check_feature(name: str, feature: Feature, rows: int) -> None:
    """Refuse a feature whose tensors do not have one row a sample."""
    shapes = [tuple(x.shape) for x in leaves(feature)]
    if not shapes or any(shape[:1] != (rows,) for shape in shapes):
        raise ValueError(
            f"Every tensor of a feature should have the batch first. Found `{name}` of shapes "
            f"{shapes} for {rows} samples. Return from the encoder only what has a row a sample."
        )


def same(one: Feature, other: Feature) -> bool:
    """Whether two features hold the same numbers, up to the rounding of a kernel."""
    pairs = list(zip(leaves(one), leaves(other), strict=True))
    if any(a.shape != b.shape for a, b in pairs):
        return False
    return all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)
        if a.is_floating_point()
        else torch.equal(a, b)
        for a, b in pairs
    )


def _stacked(blanks: Sequence[Features]) -> Features:
    rows = iter(list(zip(*(leaves(blank) for blank in blanks), strict=True)))
    stacked: Features = map_tensors(lambda _: torch.cat(next(rows)), blanks[0])
    return stacked
