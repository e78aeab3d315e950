"""MELD: 13,708 utterances of 1,432 dialogues of the series Friends, each with an emotion.

Text, audio and face as features, one vector an utterance. Layout, one pickle:

    meld.pkl         trainVid, testVid (and valVid or devVid), label, text, audio, visual by
                     dialogue; text 768, audio 300, visual 342 in the copy of ADA2I

9,989 + 1,109 + 2,610 utterances as published. Where the pickle lists no validation, every tenth
training dialogue, in order of names, is held out.

The raw form (`train_sent_emo.csv` and `dia<D>_utt<U>.mp4`) is not read: it needs a video decoder.

GPL-3 for the annotations; the footage is that of a television series. Source: Poria et al., ACL
2019. Traps: neutral is 47 %, so look at the weighted F1; the six leading actors are in all splits.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from equivox.data import dialogues, fakes, held_out
from equivox.data.field import Contents

CLASSES = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")

QUICK: dict[str, object] = {}


def read(root: Path, *, standardise: bool = True, file: str = "meld.pkl") -> Contents:
    """MELD under `root`.

    :param standardise: By the training samples.
    :param file: The name of the pickle.
    """
    labels: dict[object, str] = {**dict(enumerate(CLASSES)), **{name: name for name in CLASSES}}
    held = partial(held_out.by_group, group=dialogues.dialogue)
    return dialogues.contents(root / file, labels, CLASSES, held, standardise)


def fake(out: Path, seed: int = 0) -> None:
    """14 dialogues, which are numbered, of six utterances each."""
    fakes.new_folder(out)
    train, test = range(12), range(12, 14)
    dialogues.write_fake(out / "meld.pkl", train, test, len(CLASSES), (768, 300, 342), seed)
