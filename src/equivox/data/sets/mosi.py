"""CMU-MOSI: 2,199 opinions from 93 video reviews, each with a sentiment from -3 to 3.

Text, audio and vision as features. Layout, one pickle, the first of these that is there:

    mosi_raw.pkl mosi_data.pkl                 aligned: text 300, audio 5 or 74, vision 20 or 35
    mosi_data_noalign.pkl                      its own number of steps for each modality
    aligned_50.pkl unaligned_50.pkl            of MMSA: text 768 of BERT

1,284 + 229 + 686 samples; the splits share no video. Their forms are told apart by their keys, see
`equivox.data.sentiment_files`. Copies in HDF5 are not read: convert them to one of these.

The SDK is MIT; the data carry no clear licence, and the videos may not be passed on. Source: Zadeh
et al., IEEE Intelligent Systems 2016. Traps: `-inf` in the audio features (set to 0 and counted);
ids in bytes; whether zero counts as positive; text dominates by far.
"""

from __future__ import annotations

from pathlib import Path

from equivox.data import fakes, sentiment, sentiment_files

NAMES = (
    "mosi_raw.pkl",
    "mosi_data.pkl",
    "aligned_50.pkl",
    "mosi_data_noalign.pkl",
    "unaligned_50.pkl",
)

QUICK: dict[str, object] = {}

read = sentiment.reader(NAMES)


def fake(out: Path, seed: int = 0) -> None:
    """24 samples of 8 steps, aligned, ids in bytes, one `-inf` a split."""
    fakes.new_folder(out)
    sentiment_files.write_fake(out / "mosi_data.pkl", (300, 5, 20), (8, 8, 8), seed, mmsa=False)
