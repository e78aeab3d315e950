"""CMU-MOSEI: 22,856 sentences of 1,000 speakers, each with a sentiment from -3 to 3.

Text, audio and vision as features. Layout, one pickle, the first of these that is there:

    mosei_raw.pkl mosei_senti_data.pkl         aligned, 50 steps: text 300, audio 74, vision 35
    mosei_senti_data_noalign.pkl               its own number of steps for each modality
    aligned_50.pkl unaligned_50.pkl            of MMSA: text 768 of BERT

16,326 + 1,871 + 4,659 samples; some copies have a little less. Their forms are told apart by their
keys, see `equivox.data.sentiment_files`. Copies in HDF5 are not read: convert them to one of these.

The SDK is MIT; the data carry no clear licence, and the videos may not be passed on. Source: Zadeh
et al., ACL 2018. Traps: `-inf` in the audio features (set to 0 and counted); whether zero, a large
share, counts as positive; a reference loader reads the audio file for video too; text dominates.
"""

from __future__ import annotations

from pathlib import Path

from equivox.data import fakes, sentiment, sentiment_files
from equivox.data.field import Contents

NAMES = (
    "mosei_raw.pkl",
    "mosei_senti_data.pkl",
    "aligned_50.pkl",
    "mosei_senti_data_noalign.pkl",
    "unaligned_50.pkl",
)

QUICK: dict[str, object] = {}


def read(
    root: Path,
    *,
    target: str = "regression",
    time: str = "sequence",
    standardise: bool = True,
    file: str | None = None,
) -> Contents:
    """CMU-MOSEI under `root`.

    :param target: "regression": the score; "acc2": negative or not (BalanceMM); "acc2_nonzero":
        negative or positive, zeros left out; "three": below -0.5, above 0.5, between; "acc7":
        rounded.
    :param time: "sequence", or "mean" of audio and vision over time (ReconBoost).
    :param standardise: By the training samples; published code takes the features as they are.
    :param file: The name of the pickle.
    """
    return sentiment.contents(root, NAMES, file, target, time, standardise)


def fake(out: Path, seed: int = 0) -> None:
    """24 samples in MMSA's form, 6 steps of text, 9 of audio and 7 of vision."""
    fakes.new_folder(out)
    sentiment_files.write_fake(out / "unaligned_50.pkl", (768, 74, 35), (6, 9, 7), seed, mmsa=True)
