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

NAMES = (
    "mosei_raw.pkl",
    "mosei_senti_data.pkl",
    "aligned_50.pkl",
    "mosei_senti_data_noalign.pkl",
    "unaligned_50.pkl",
)

QUICK: dict[str, object] = {}

read = sentiment.reader(NAMES)


def fake(out: Path, seed: int = 0) -> None:
    """24 samples in MMSA's form, 6 steps of text, 9 of audio and 7 of vision."""
    fakes.new_folder(out)
    sentiment_files.write_fake(out / "unaligned_50.pkl", (768, 74, 35), (6, 9, 7), seed, mmsa=True)
