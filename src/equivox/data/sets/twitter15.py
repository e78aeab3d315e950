"""Twitter-2015: 5,338 tweets with an image, each with the sentiment towards one target in it.

Layout:

    train.tsv dev.tsv test.tsv          with a header: index, label, image, tweet, target
    twitter2015_images/<image>          or `images/`

3,179 + 1,122 + 1,037 samples as published. The form is described in `equivox.data.tweets`.

For research; tweets. Source: Yu and Jiang, IJCAI 2019. Traps: a tweet of two targets is listed
twice, so that text and image alone do not tell the label: the target is put first by default; the
tables hold single quotation marks, which a reader of comma-separated values takes for quoting.
"""

from __future__ import annotations

from pathlib import Path

from equivox.data import tweets
from equivox.data.field import Contents

CLASSES = tweets.CLASSES

QUICK = {"size": 32, "encoder": "small"}


def read(
    root: Path,
    *,
    target: str = "first",
    length: int = 64,
    tokenizer: str | None = None,
    size: int = 224,
    keep: int | None = None,
    encoder: str = "resnet18",
) -> Contents:
    """Twitter-2015 under `root`.

    :param target: "first": the target stands before the tweet too; "in place": in it alone (AMSS).
    :param length: Tokens of a text.
    :param tokenizer: A folder with a model of `transformers` and its tokenizer, such as BERT's: it
        reads the texts. Without one, words are hashed and their embeddings averaged.
    :param size: Side of an image.
    :param keep: Reduce images to this shorter side before anything is cut from them.
    :param encoder: "resnet18", or "small" for a quick look on a CPU.
    """
    folders = ("twitter2015_images", "images")
    return tweets.contents(root, folders, target, length, tokenizer, size, keep, encoder)


def fake(out: Path, seed: int = 0) -> None:
    """21 tweets with images of 32 x 40; in each list one tweet has two targets."""
    tweets.write_fake(out, "twitter2015_images", seed)
