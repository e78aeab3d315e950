"""The demonstration's cases, and what runs for them in a worker: trainings and a diagnosis."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from equivox.bench.labels import JOINT
from equivox.demo.comparison import ALONE, Run
from equivox.demo.seeds import Job

if TYPE_CHECKING:
    from equivox.balancer import Balancer
    from equivox.bench.experiment import Experiment
    from equivox.bench.training import Result
    from equivox.data import MultimodalData
    from equivox.diagnosis import Diagnosis

ENSEMBLE, SIMPLEST = "ensemble", "unimodal_losses"
YARDSTICKS = (ENSEMBLE, SIMPLEST)
METHODS = ("ogm_ge", "mmpareto", "mmcosine")

DIAGNOSED = 0
"""The seed whose joint network is diagnosed."""

EVERY = 3
"""Epochs between the records of probes and clusters, which take longer than the training."""


@dataclass(frozen=True)
class Case:
    """A data set of the demonstration, what is shown on it, and the methods that run there."""

    data: str
    modalities: tuple[str, ...]
    about: str
    methods: tuple[str, ...] = (*YARDSTICKS, *METHODS)
    epochs: int | None = None

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows of its table: each modality alone, joint training, the methods."""
        return (*(ALONE + m for m in self.modalities), JOINT, *self.methods)


CASES = (
    Case(
        "latent2",
        ("easy", "hard"),
        "Made data with exactly known ceilings: `easy` can reach 0.95 alone, `hard` 0.90 but takes "
        "longer to learn, both together 0.993.",
    ),
    Case(
        "digits",
        ("gray", "colour"),
        "1,797 real images of handwritten digits, gray and coloured. The colour gives the class "
        "away in 98 % of the training images and in only half of the test images: a shortcut.",
    ),
    Case(
        "balanced",
        ("first", "second"),
        "The control: two equally informative modalities that are learned equally fast.",
        YARDSTICKS,
        epochs=8,  # both are learned in three
    ),
)

JOBS = tuple((case.data, method) for case in CASES for method in (JOINT, *case.methods))


def run(job: Job, epochs: int | None = None, **options: Any) -> list[Run]:
    """Train a method on a case with one seed, and measure it; diagnose one joint network.

    Of an ensemble, which is every modality trained alone, each of them is a run as well.

    :param epochs: The case's own where not given; `options` are further ones of the data.
    """
    from equivox.bench.experiment import Experiment
    from equivox.bench.training import train

    case = next(case for case in CASES if case.data == job.data)
    chosen = Experiment(job.data, job.method, job.seed, epochs or case.epochs, data_options=options)
    data = chosen.load()
    watched = Watched(job.method == ENSEMBLE, probed=job.method in (JOINT, ENSEMBLE))
    result = train(chosen, measure=watched, watch=watched.time)
    best, balancer = result.best, watched.restored(result, data)
    found = [_run(job, job.method, watched, best["epoch"], watched.best[""], balancer, data)]
    if watched.apart:
        for m in data.modalities:
            epoch, alone = watched.restored_alone(m, balancer)
            worth, view = watched.best[m], only(data, m)
            found.append(_run(job, ALONE + m, watched, epoch, worth, alone, view))
    if (job.method, job.seed) == (JOINT, DIAGNOSED):
        found[0] = replace(found[0], diagnosis=diagnosed(chosen))
    return found


def diagnosed(experiment: Experiment) -> Diagnosis:
    """The diagnosis of a network that is trained once more, under a recorder, which takes time."""
    from equivox.bench.training import train
    from equivox.diagnosis import Recording, diagnose
    from equivox.diagnosis.command import of_folder

    with TemporaryDirectory() as folder:
        path = Path(folder, "run")
        train(experiment, out=path, measure=Recording(every=EVERY))
        given = of_folder(path)
    return diagnose(**given | {"receipt": {"run": experiment.to_json()}})


def _run(
    job: Job,
    row: str,
    watched: Watched,
    epoch: int,
    validation: float,
    balancer: Balancer,
    data: MultimodalData,
) -> Run:
    from equivox.bench.measure import measure

    seconds = None if row.startswith(ALONE) else statistics.median(watched.seconds)
    curves = {m: watched.curves[m] for m in data.modalities}
    probe = {m: watched.probe[m] for m in data.modalities if m in watched.probe}
    test = measure(balancer, _whole(data, "train"), _whole(data, "test"))
    return Run(job.data, row, job.seed, epoch, validation, seconds, curves, probe, test)


class Watched:
    """Follows a training: probes and time of every epoch, and the weights of the best so far.

    :param apart: Follow each modality's encoder and head as well, each with its own best epoch.
    :param probed: Probe the encoders at the end on the test data.
    """

    def __init__(self, apart: bool = False, probed: bool = True) -> None:
        self.apart = apart
        self.probed = probed
        self.curves: dict[str, list[float]] = {}
        self.seconds: list[float] = []
        self.probe: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self._states: dict[str, tuple[int, Any]] = {}
        self._epochs = 0

    def __call__(self, balancer: Balancer, data: MultimodalData) -> Mapping[str, float]:
        """Probe every encoder on the validation data; keep the weights that are the best."""
        from equivox.bench.measure import metric, probes, unimodal

        validation = _whole(data, "validation")
        found = probes(balancer, _whole(data, "train"), validation)
        for modality, probe in found.items():
            self.curves.setdefault(modality, []).append(probe)
        self._keep("", metric(balancer, validation), balancer)
        if self.apart:
            for modality, worth in unimodal(balancer, validation).items():
                self._keep(modality, worth, balancer)
        self._epochs += 1
        return {f"probe {modality}": probe for modality, probe in found.items()}

    def _keep(self, what: str, worth: float, balancer: Balancer) -> None:
        if worth >= self.best.get(what, -math.inf):  # the latest of equals, as `train` chooses
            self.best[what] = worth
            self._states[what] = self._epochs, copy.deepcopy(balancer.state_dict())

    def time(self, record: Mapping[str, Any]) -> None:
        """Note how long the epoch took, without measuring."""
        self.seconds.append(record["seconds"])

    def restored(self, result: Result, data: MultimodalData) -> Balancer:
        """Probe the encoders at the end of training; then the balancer as of its best epoch."""
        from equivox.bench.measure import probes

        balancer, (epoch, state) = result.balancer, self._states[""]
        if balancer is None or epoch != result.best["epoch"]:
            raise RuntimeError(
                f"The chosen epoch should be the one that was kept, {epoch}. Found "
                f"{result.best['epoch']}."
            )
        if self.probed:
            fit, test = _whole(data, "train"), _whole(data, "test")
            self.probe = probes(balancer, fit, test, logistic=True)
        balancer.load_state_dict(state)
        return balancer

    def restored_alone(self, modality: str, balancer: Balancer) -> tuple[int, Balancer]:
        """One modality's encoder and head as a network by itself, and their best epoch.

        The weights of `balancer` are then those of that epoch.
        """
        from equivox.balancer import Balancer
        from equivox.fusion import Concat
        from equivox.model import Multimodal

        epoch, state = self._states[modality]
        balancer.load_state_dict(state)
        model = balancer.model
        fusion = Concat({modality: model.widths[modality]}, model.outputs or 1)
        fusion.linear.load_state_dict(model.get_submodule(f"heads.{modality}").state_dict())
        alone = Multimodal({modality: copy.deepcopy(model.encoders[modality])}, fusion)
        return epoch, Balancer(alone, task=balancer.task)


def only(data: MultimodalData, modality: str) -> MultimodalData:
    """The same data with one modality alone."""
    return replace(
        data,
        train=data.train.only(modality),
        validation=data.validation.only(modality),
        test=data.test.only(modality),
        architectures={modality: data.architectures[modality]},
    )


def _whole(data: MultimodalData, split: str) -> Any:
    return data.loader(split, batch_size=4096, shuffle=False)
