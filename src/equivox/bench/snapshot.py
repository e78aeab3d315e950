"""All that going on with a training needs, as its checkpoints hold it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from equivox.bench import checkpoint, parallel, rates
from equivox.bench.files import NUMBERS, shaped
from equivox.bench.folder import CONFIG, LAST, Folder, check_best, versions
from equivox.distributed import rank

if TYPE_CHECKING:
    from equivox.bench.loop import Training

_RECORD = {"epoch": int, "loss": float, "validation": NUMBERS}


def taken(training: Training) -> dict[str, Any]:
    """The state after an update; weights, and what all ranks share, are those of the first."""
    scheduler = training.scheduler
    own = {"progress": training.balancer.get_extra_state(), "loss": training.loss}
    return {
        "balancer": training.balancer.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "records": training.records,
        "best": None if training.best is None else training.best["epoch"],
        "seconds": training.seconds,
        "loss": training.loss,
        "rows": training.rows,
        "scheduler": None if scheduler is None else scheduler.state_dict(),
        "scaler": training.scaler.state_dict(),
        "other_ranks": parallel.everywhere(own)[1:],
        "experiment": training.experiment.to_json(),
        "versions": versions(),
    }


def keep_best(training: Training, folder: Folder) -> None:
    """Write the selected weights; after the state, which says of which epoch they are."""
    if training.best is not None:
        kept = {"epoch": training.best["epoch"], "balancer": training.best_state}
        folder.keep(folder.best, kept, weights(training))


def restore(training: Training, found: Any, folder: Folder) -> None:
    """Put a training of the same experiment into the state that `taken` described.

    Other versions than those that wrote it are warned of.

    Raises ValueError for a state that is of another experiment or network, or a best checkpoint
    that is damaged or of another epoch, FileNotFoundError where that is gone.
    """
    try:
        _check_experiment(training, found)
        _restore(training, found)
        others = _other_versions(found)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            "A run goes on from a checkpoint of its own experiment. Found in "
            f"`{folder.last}`: {error} Read it with the version and the settings that wrote it, "
            f"see `{CONFIG}`."
        ) from error
    if training.best is not None:
        _restore_best(training, folder, training.best["epoch"])
    folder.restore_metrics(training.records)
    if others and not rank():
        warnings.warn(
            "A run goes on bit for bit only with the versions that wrote its checkpoint. Found "
            f"{', '.join(others)} in `{folder.last}`. It goes on with those that are here: its "
            "numbers may differ.",
            stacklevel=2,
        )


def _check_experiment(training: Training, found: Any) -> None:
    here = training.experiment.to_json()
    for name, there in found.get("experiment", {}).items():  # of older versions there is none
        if there != (asked := here.get(name)):
            raise ValueError(f"`{name} = {there!r}`, and `{name} = {asked!r}` is asked for.")


def _other_versions(found: Any) -> list[str]:
    """What else wrote the checkpoint than what is here, in words."""
    here = versions()
    told: Mapping[str, Any] = found.get("versions", here)
    return [
        f"{name} {told.get(name, 'none')} instead of {here.get(name, 'none')}"
        for name in {**here, **told}
        if told.get(name) != here.get(name)
    ]


def _restore(training: Training, found: Any) -> None:
    own = found
    if rank():
        own = found["other_ranks"][rank() - 1]
        found["balancer"]["_extra_state"] = own["progress"]
    training.balancer.load_state_dict(found["balancer"])
    training.optimizer.load_state_dict(found["optimizer"])
    if training.scheduler is not None:
        rates.restore(training.scheduler, found["scheduler"])
    if training.scaler.is_enabled():
        training.scaler.load_state_dict(found["scaler"])
    training.records = [shaped(record, _RECORD) for record in found["records"]]
    training.best = None if found["best"] is None else training.records[found["best"]]
    training.seconds = found["seconds"]
    training.loss, training.rows = own["loss"].to(training.device), found["rows"]


def _restore_best(training: Training, folder: Folder, epoch: int) -> None:
    epochs = len(training.records)
    fresh = epoch == epochs - 1 and not training.rows  # these very weights were selected
    lacks = fresh and not checkpoint.exists(folder.best)
    kept = {"epoch": -1} if lacks else checkpoint.load(folder.best)
    # The run was cut between its two checkpoints. All ranks have looked before the first writes.
    (behind,) = parallel.anywhere(fresh and kept["epoch"] < epoch)
    if behind:
        training.best_state = copy.deepcopy(training.balancer.state_dict())
        keep_best(training, folder)
        return
    # Older versions wrote the better one first: they have it already, and make it again.
    check_best(kept, (epoch, epochs), folder.path, LAST)
    training.best_state = kept["balancer"]


def weights(training: Training) -> dict[str, Tensor]:
    """What is learnt, by names for messages."""
    return {name: p for name, p in training.balancer.named_parameters() if p.requires_grad}


def finite(training: Training) -> dict[str, Tensor]:
    """What must be finite: the weights and the optimizer's tensors."""
    moments = {
        f"optimizer.{number}.{name}": value
        for number, state in enumerate(training.optimizer.state.values())
        for name, value in state.items()
        if isinstance(value, Tensor)
    }
    return weights(training) | moments
