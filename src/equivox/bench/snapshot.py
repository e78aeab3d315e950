"""All that going on with a training needs, as its checkpoints hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from equivox.bench import checkpoint, parallel, rates
from equivox.bench.folder import CONFIG, Folder
from equivox.distributed import rank

if TYPE_CHECKING:
    from equivox.bench.loop import Training


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
    }


def restore(training: Training, found: Any, folder: Folder) -> None:
    """Put a training of the same experiment into the state that `taken` described.

    Raises ValueError for a state that is of another method or network, FileNotFoundError where the
    best checkpoint is gone.
    """
    try:
        _restore(training, found)
        if found["best"] is not None:
            _restore_best(training, folder, found["best"])
        folder.restore_metrics(training.records)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            "A run goes on from a checkpoint of its own network and optimizer. Found in "
            f"`{folder.last}`: {error} Read it with the version that wrote it, see `{CONFIG}`."
        ) from error


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
    training.records, training.seconds = found["records"], found["seconds"]
    training.loss, training.rows = own["loss"].to(training.device), found["rows"]


def _restore_best(training: Training, folder: Folder, epoch: int) -> None:
    training.best = training.records[epoch]
    kept = checkpoint.load(folder.best)
    # A run cut between its two checkpoints has the better one already, and makes it again.
    if kept["epoch"] not in (epoch, len(training.records)):
        raise ValueError(
            f"The best checkpoint should be of epoch {epoch}. Found one of epoch "
            f"{kept['epoch']} in `{folder.best}`. Its folder was mixed with another one: train "
            "anew."
        )
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
