"""Twitter-2017: 5,972 tweets with an image, each with the sentiment towards one target in it.

Layout:

    train.tsv dev.tsv test.tsv          with a header: index, label, image, tweet, target
    twitter2017_images/<image>          or `images/`

3,562 + 1,176 + 1,234 samples as published. The form is described in `equivox.data.tweets`.

For research; tweets. Source: Yu and Jiang, IJCAI 2019. Traps: a tweet of two targets is listed
twice, so that text and image alone do not tell the label: the target is put first by default; the
tables hold single quotation marks, which a reader of comma-separated values takes for quoting.
"""

from __future__ import annotations

from pathlib import Path

from equivox.data import tweets

CLASSES = tweets.CLASSES

QUICK = {"size": 32, "encoder": "small"}

read = tweets.reader("twitter2017_images")


def fake(out: Path, seed: int = 0) -> None:
    """21 tweets with images of 32 x 40; in each list one tweet has two targets."""
    tweets.write_fake(out, "twitter2017_images", seed)
