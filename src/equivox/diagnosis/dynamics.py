"""Dynamics: what happens to each modality during training, recorded epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from equivox.arguments import names
from equivox.diagnosis.onset import Number, Onset, at, collapse, onset


@dataclass(frozen=True)
class Dynamics:
    """Curves over the recorded epochs.

    What cannot be measured is absent: a curve as a whole, or None in its place for an epoch.

    Attributes: `modalities`; `epochs`, the numbers of the recorded ones; `onset` by modality, where
    `with_onset` was asked; `curves`, by name and modality one number an epoch:

    - `metric_train`, `loss_train`, `metric_validation`, `loss_validation`: of its own logits,
      those of its own head where there is one and else its share of the fused logits;
    - `probe`: the metric on validation of a linear model of its features, fitted on train, of at
      most 1,000 samples each: a little less than a head that learned from all may reach;
    - `alone`, where `with_onset` was asked: the metric on validation of the modality's own model,
      trained alone on all samples, after as many epochs as there were then;
    - `gradient_norm`, `update_ratio` (|step| / |weights|): of its encoder, means over the updates
      in which it had a gradient; the gradient is the one that the optimizer used;
    - `discrepancy_train`, `discrepancy_validation`: rho_m of OGM-GE (CVPR 2022), above 1 where its
      share is more confident of the truth than the others', by `ratio_to_others`;
    - `utilisation_train`, `utilisation_validation`: (A(all) - A(others)) / A(all) of the metric A,
      with this modality blanked for "others" (Wu et al., ICML 2022, who blank it inside MMTM);
    - `learning_speed`: |gradient|² / |weights|² of its encoder and its branch of the fusion, mean
      over the updates;
    - `conditional_speed`: log10 of the ratio of its bypass's to its own summed learning speed
      (Wu et al., ICML 2022), since the first update that was seen; for networks with `MMTMBlock`s;
    - `overfitting_ratio`: see `overfitting_ratio`, against the epoch `window` epochs earlier;
    - `fisher_trace`: squared gradients averaged within each weight of its encoder, summed over
      weights and the epoch's updates (InfoReg, CVPR 2025); only relative changes have a meaning,
      and the gradient is the one that the optimizer used: after the method's changes and clipping;
    - `purity_train`, `purity_validation`: of K-means clusters of its features, as many as classes
      (Diagnosing and Re-learning, ECCV 2024); for classes and labels.
    """

    modalities: tuple[str, ...]
    epochs: tuple[int, ...]
    curves: Mapping[str, Mapping[str, Sequence[Number]]]
    onset: Mapping[str, Onset] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The dynamics in plain values."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Dynamics:
        """The dynamics that `to_json` wrote."""
        onset = {m: Onset(**x) for m, x in plain.get("onset", {}).items()}
        return Dynamics(tuple(plain["modalities"]), tuple(plain["epochs"]), plain["curves"], onset)

    @staticmethod
    def of_records(records: Iterable[Mapping[str, Any]], modalities: Sequence[str]) -> Dynamics:
        """The dynamics in the records of a run's epochs, where a `Recording` left its numbers."""
        rows = {record["epoch"]: _numbers(record, modalities) for record in records}
        rows = {epoch: row for epoch, row in rows.items() if row}
        found = dict.fromkeys(key for row in rows.values() for key in row)
        curves: dict[str, dict[str, tuple[Number, ...]]] = {}
        for name, m in sorted(found, key=lambda key: modalities.index(key[1])):
            curves.setdefault(name, {})[m] = tuple(row.get((name, m)) for row in rows.values())
        return Dynamics(tuple(modalities), tuple(rows), curves)

    def with_onset(self, references: Mapping[str, Sequence[Number]]) -> Dynamics:
        """The same, with the `Onset` of every modality.

        :param references: The usual metric on the validation data of modalities trained alone,
            after every epoch; what is unknown of the others is None.
        """
        known = {m: x for m, x in references.items() if x and "probe" in self.curves}
        behind = self.onsets(known) if known else {}
        alone = {m: tuple(at(x, epoch) for epoch in self.epochs) for m, x in known.items()}
        fallen = {name: self._fallen(name) for name in ("gradient_norm", "update_ratio")}
        return replace(
            self,
            curves={**self.curves, "alone": alone} if alone else self.curves,
            onset={
                m: Onset(behind.get(m), *(by.get(m) for by in fallen.values()))
                for m in self.modalities
            },
        )

    def _fallen(self, name: str) -> dict[str, int]:
        """The epochs from which on some encoders' numbers are low, where others' are not."""
        curves = self.curves.get(name, {})
        first = {m: collapse(x) for m, x in curves.items()}
        low = {m: self.epochs[place] for m, place in first.items() if place is not None}
        return low if len(low) < len(curves) else {}

    def onsets(
        self,
        references: Mapping[str, Sequence[Number]],
        curve: str = "probe",
        margin: float = 0.02,
        steady: int = 2,
    ) -> dict[str, int | None]:
        """The epoch from which on each modality stays behind its reference; see `onset`.

        :param references: The same curve of modalities trained alone, by modality, from epoch 0.
        :raises ValueError: For a curve that was not recorded, or modalities that are unknown.
        """
        names("references", references, self.modalities)
        if curve not in self.curves:
            raise ValueError(
                f"`curve` should be one that was recorded: {', '.join(self.curves)}. Found "
                f"`{curve}`. Give the recorder the loaders that it needs."
            )
        found = {}
        for modality, reference in references.items():
            aligned = [at(reference, epoch) for epoch in self.epochs]
            first = onset(self.curves[curve].get(modality, ()), aligned, margin, steady)
            found[modality] = None if first is None else self.epochs[first]
        return found


def overfitting_ratio(before: tuple[Number, Number], after: tuple[Number, Number]) -> Number:
    """OGR = |change of (L^V - L^T) / change of L^V|, from (L^T, L^V) at two epochs.

    How much a modality overfitted for what it came to generalise; None where L^V stayed the same.

    Source: What Makes Training Multi-modal Classification Networks Hard? (CVPR 2020).

    >>> round(overfitting_ratio((1.2, 1.3), (0.4, 1.0)), 4)
    1.6667
    """
    (t0, v0), (t1, v1) = before, after
    if t0 is None or v0 is None or t1 is None or v1 is None or v0 == v1:
        return None
    return abs(((v1 - t1) - (v0 - t0)) / (v0 - v1))


def _numbers(record: Mapping[str, Any], modalities: Sequence[str]) -> dict[tuple[str, str], float]:
    """The numbers of a record that are named "curve/modality"."""
    parts = ((key.partition("/"), x) for key, x in record.items())
    return {(name, m): x for (name, _, m), x in parts if m in modalities}
