"""Adopting a network: its own `forward`, with the encoders standing for their features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from equivox.errors import nearest
from equivox.features import Feature, Features, leaves, map_tensors, map_values, values
from equivox.fusion import Fused
from equivox.model import Multimodal, check_feature, check_names, evaluating, same

Call = Callable[[nn.Module, Mapping[str, Any]], Any]
Slots = list[tuple[nn.Module, str]]


class _Row(nn.Module):
    """The first row of a tree of tensors, for any number of rows; follows `.to(device)`."""

    def __init__(self, tree: Any) -> None:
        super().__init__()
        self.tree = map_tensors(lambda x: x.new_empty(0), tree)
        for number, leaf in enumerate(leaves(tree)):
            self.register_buffer(f"leaf{number}", leaf[:1].detach().clone(), persistent=False)

    def forward(self, rows: int) -> Any:
        stored = self.buffers()

        def repeated(_: Tensor) -> Tensor:
            leaf = next(stored)
            return leaf.expand(rows, *leaf.shape[1:])

        return map_tensors(repeated, self.tree)


class _StandIn(nn.Module):
    """Takes an encoder's place: is called instead of it, and otherwise answers like it."""

    def __init__(self, encoder: nn.Module, answer: Callable[..., Any]) -> None:
        super().__init__()
        self.__dict__.update(encoder=encoder, answer=answer)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self.__dict__["answer"](*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["encoder"], name)


class _Returned(BaseException):
    """The encoder has returned. Not an `Exception`, which the network's own code may catch."""

    def __init__(self, feature: Feature) -> None:
        super().__init__()
        self.feature = feature


@contextmanager
def _serving(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Eval mode for these modules alone, not for their children."""
    modes = [(part, part.training) for part in parts]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


class Replayed(nn.Module):
    """The fusion of an adopted network: its `forward` on features instead of inputs.

    Every encoder inside `net` is replaced by its cached feature while `call(net, inputs)` runs. The
    inputs are the example's first row for every sample, so that the batch size may be read there.

    Arguments:
        net: the whole network, encoders included.
        encoders: the encoder modules inside it, by modality.
        example: a batch of inputs by modality.
        features: the encoders' features of the example.
        call: how `net` is called with a dictionary of inputs.
        pool: False where features and logits are maps of one size (dense prediction).
    """

    stackable = False

    def __init__(
        self,
        net: nn.Module,
        encoders: Mapping[str, nn.Module],
        example: Mapping[str, Any],
        features: Features,
        call: Call,
        pool: bool = True,
    ) -> None:
        super().__init__()
        self.net = net
        self.pool = pool
        self.inputs = nn.ModuleDict({m: _Row(example[m]) for m in encoders})
        self.features = nn.ModuleDict({m: _Row(features[m]) for m in encoders})
        self.slots = {m: _slots(net, encoder) for m, encoder in encoders.items()}
        self.outside = _outside(net, encoders.values())
        self.call = call

    def forward(self, features: Features) -> Tensor | Fused:
        rows = len(leaves(next(iter(features.values())))[0])
        with ExitStack() as stack:
            for name, feature in features.items():
                stack.enter_context(self._returning(name, feature))
            return self.call(self.net, {m: row(rows) for m, row in self.inputs.items()})

    def encode(self, name: str, x: Any, training: bool) -> Feature:
        """The feature of one modality: the network up to the return of its encoder.

        The others are constants. What lies outside the encoders and keeps statistics serves in
        eval mode meanwhile, for constants must not enter them.
        """

        def stop(*arguments: Any, **options: Any) -> None:
            raise _Returned(encoder(*arguments, **options))

        parent, key = self.slots[name][0]
        encoder: Any = parent._modules[key]
        rows = len(leaves(x)[0])
        inputs = {m: row(rows) for m, row in self.inputs.items()} | {name: x}
        still = [part for part in self.outside if part._buffers or not training]
        with ExitStack() as stack:
            stack.enter_context(_serving(still))
            for other in (m for m in self.slots if m != name):
                stack.enter_context(self._returning(other, self.features[other](rows)))
            stack.enter_context(self._replaced(name, stop))
            try:
                self.call(self.net, inputs)
            except _Returned as returned:
                return returned.feature
        raise ValueError(_RUNS.format(name=name, runs="0 times in a batch"))

    def _returning(self, name: str, feature: Feature) -> Any:
        # A copy: layers that act in place must not change what other passes read.
        return self._replaced(name, lambda *_, **__: map_values(Tensor.clone, feature))

    @contextmanager
    def _replaced(self, name: str, answer: Callable[..., Any]) -> Iterator[None]:
        slots = self.slots[name]
        encoder: Any = slots[0][0]._modules[slots[0][1]]
        for parent, key in slots:
            parent._modules[key] = _StandIn(encoder, answer)
        try:
            yield
        finally:
            for parent, key in slots:
                parent._modules[key] = encoder

    def compile(self, *arguments: Any, **options: Any) -> None:
        """Compile what lies outside the encoders, part by part: the replay itself stays eager."""
        encoders = {id(parent._modules[key]) for s in self.slots.values() for parent, key in s}

        def visit(module: nn.Module) -> None:
            for child in module.children():
                if id(child) in encoders:
                    continue
                if any(id(part) in encoders for part in child.modules()):
                    visit(child)
                else:
                    child.compile(*arguments, **options)

        visit(self.net)


class Adopted(nn.Module):
    """An encoder inside a network: inputs of one modality in, the feature out.

    Arguments: `name` of the modality, the `encoder` module, and the network's `replayed` fusion,
    which is not a child: its parameters are the fusion's.
    """

    def __init__(self, name: str, encoder: nn.Module, replayed: Replayed) -> None:
        super().__init__()
        self.name = name
        self.encoder = encoder
        self.__dict__["replayed"] = replayed  # copied along by `deepcopy`, but not registered

    def forward(self, x: Any) -> Feature:
        return self.__dict__["replayed"].encode(self.name, x, self.training)

    def compile(self, *arguments: Any, **options: Any) -> None:
        """Compile the encoder itself."""
        self.encoder.compile(*arguments, **options)


def adopt(
    net: nn.Module,
    encoders: Mapping[str, str],
    example: Mapping[str, Any],
    call: Call | None = None,
) -> Multimodal:
    """A `Multimodal` of an existing network; see `Multimodal.from_model`.

    Arguments:
        net: any network whose `forward` returns logits (batch, outputs).
        encoders: the dotted path of each modality's encoder inside `net`.
        example: a batch of inputs by modality, two different samples or more.
        call: how `net` is called with the inputs; default `net(inputs)`.

    Raises ValueError where the network is not a fusion of independent encoders, each run once:
    tried on the example, in eval mode.

    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.audio, self.video = nn.Linear(3, 4), nn.Linear(5, 4)
    ...         self.last = nn.Linear(4, 2)
    ...     def forward(self, inputs):
    ...         return self.last(self.audio(inputs["audio"]) * self.video(inputs["video"]))
    >>> inputs = {"audio": torch.randn(6, 3), "video": torch.randn(6, 5)}
    >>> model = adopt(Net(), {"audio": "audio", "video": "video"}, inputs)
    >>> model(inputs).logits.shape
    torch.Size([6, 2])
    """
    check_names(encoders)
    modules = _found(net, encoders)
    _check_example(encoders, example)
    call = _plain if call is None else call
    with torch.no_grad(), evaluating(net):
        features, logits = _recorded(net, modules, example, call)
    maps = logits.ndim > 2 and all(
        values(z).shape[2:] == logits.shape[2:] for z in features.values()
    )
    fusion = Replayed(net, modules, example, features, call, pool=not maps)
    adopted = {name: Adopted(name, module, fusion) for name, module in modules.items()}
    model = Multimodal(adopted, fusion)
    _check_replay(model, example, features, logits)
    _check_stems(model, fusion, example, encoders)
    return Multimodal(adopted, fusion, example=example)


def _plain(net: nn.Module, inputs: Mapping[str, Any]) -> Any:
    return net(inputs)


def _slots(net: nn.Module, module: nn.Module) -> Slots:
    """Every place in the network where the module is registered."""
    return [(p, key) for p in net.modules() for key, child in p._modules.items() if child is module]


def _outside(net: nn.Module, encoders: Iterable[nn.Module]) -> list[nn.Module]:
    inside = {id(part) for encoder in encoders for part in encoder.modules()}
    return [part for part in net.modules() if id(part) not in inside]


def _found(net: nn.Module, encoders: Mapping[str, str]) -> dict[str, nn.Module]:
    known = [name for name, _ in net.named_modules() if name]
    modules: dict[str, nn.Module] = {}
    for modality, path in encoders.items():
        if not isinstance(path, str):
            raise TypeError(
                "Encoders are named by their dotted paths in the network. Found "
                f"`{type(path).__name__}` for `{modality}`. Write, for instance, "
                f'`{{"{modality}": "encoders.{modality}"}}`.'
            )
        try:
            modules[modality] = net.get_submodule(path or "(nothing)")
        except AttributeError as error:
            raise ValueError(
                f"An encoder should be a submodule of the network. Found `{path}` for "
                f"`{modality}`. " + nearest(path, known)
            ) from error
    for one, module in modules.items():
        for other in (m for m in modules if m != one):
            if any(part is modules[other] for part in module.modules()):
                raise ValueError(
                    "Every modality should have an encoder of its own. Found that "
                    f"`{encoders[one]}` (`{one}`) holds `{encoders[other]}` (`{other}`). Name "
                    "submodules that are apart; for a shared encoder build "
                    "`Multimodal(encoders, fusion)` yourself."
                )
    return modules


def _check_example(encoders: Mapping[str, str], example: Mapping[str, Any]) -> None:
    rows = {m: len(leaves(example[m])[0]) for m in encoders if m in example and leaves(example[m])}
    if set(rows) != set(encoders) or len(set(rows.values())) > 1 or min(rows.values()) < 2:
        raise ValueError(
            "An `example` should hold tensors of every modality, the same two samples or more. "
            f"Found the samples {rows} for the modalities {list(encoders)}."
        )


def _recorded(
    net: nn.Module, modules: Mapping[str, nn.Module], example: Mapping[str, Any], call: Call
) -> tuple[Features, Tensor]:
    """What the encoders return and what the network answers, read by hooks."""
    seen: dict[str, list[Feature]] = {name: [] for name in modules}
    with ExitStack() as stack:
        for name, module in modules.items():
            # A copy: a layer behind the encoder may act in place.
            hook = module.register_forward_hook(
                lambda *a, to=seen[name]: to.append(map_values(Tensor.clone, a[2]))
            )
            stack.callback(hook.remove)
        answer = call(net, example)
    for name, returned in seen.items():
        if len(returned) != 1:
            raise ValueError(_RUNS.format(name=name, runs=f"{len(returned)} times"))
        check_feature(name, returned[0], len(leaves(example[name])[0]))
    logits = answer.logits if isinstance(answer, Fused) else answer
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"A network should return its logits, a tensor. Found `{type(answer).__name__}`. "
            'Say how to get them: `call=lambda net, inputs: net(inputs)["logits"]`.'
        )
    return {name: returned[0] for name, returned in seen.items()}, logits


_RUNS = (
    "An encoder should run exactly once in a forward. Found that the encoder of `{name}` runs "
    "{runs}. Name the module that returns the whole feature and is called as a function; if it "
    "must run several times, wrap that loop in a module of its own."
)


def _check_replay(
    model: Multimodal, example: Mapping[str, Any], features: Features, logits: Tensor
) -> None:
    with torch.no_grad(), evaluating(model):
        encoded = model.encode(example)
        replayed = model.fused(features).logits
    for name, feature in features.items():
        if not same(feature, encoded[name]):
            raise ValueError(
                "An encoder should depend on its own modality alone. Found that the feature of "
                f"`{name}` changes when the other inputs do. End the encoders before they meet; "
                "what comes after is fusion."
            )
    if not same(logits, replayed):
        raise ValueError(
            "Everything that a network makes of its inputs should pass through the encoders. Found "
            "other logits when the inputs are replaced and the features are not: some input (a "
            "mask, a skip connection) is read outside. Let an encoder return it beside its "
            "feature, as a tuple."
        )


def _check_stems(
    model: Multimodal,
    fusion: Replayed,
    example: Mapping[str, Any],
    encoders: Mapping[str, str],
) -> None:
    """Refuse layers that act on an input before its encoder: they would count as fusion."""
    outside = {n: p for n, p in fusion.net.named_parameters() if p.requires_grad}
    inside = {id(p) for p in model.encoders.parameters()}
    stems = {n: p for n, p in outside.items() if id(p) not in inside}
    with torch.enable_grad(), evaluating(model):
        features = model.encode(example)
    for name, feature in features.items():
        floating = [x for x in leaves(feature) if x.requires_grad]
        if not stems or not floating:
            continue
        total = torch.stack([x.float().sum() for x in floating]).sum()
        found = torch.autograd.grad(total, list(stems.values()), allow_unused=True)
        bad = [n for n, gradient in zip(stems, found, strict=True) if gradient is not None]
        if bad:
            raise ValueError(
                f"An encoder should hold every layer from the input on. Found `{bad[0]}` before "
                f"`{encoders[name]}`. Put both into one module, for instance an `nn.Sequential`."
            )
