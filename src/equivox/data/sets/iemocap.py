"""IEMOCAP: 151 acted dialogues in five sessions, each utterance with an emotion.

Text, audio and face as features, one vector an utterance. Layout, one pickle:

    iemocap.pkl      trainVid (120 dialogues), testVid (31: session 5), label, text, audio, visual
                     by dialogue; text 768, audio 512, visual 1,024 in the copy of ADA2I

Labels of the file, in order: happy, sad, neutral, angry, excited, frustrated. The usual four
classes count excited as happy and leave frustrated out. There is no published validation split:
every tenth training dialogue, in order of names, is held out, or all of session 4.

The form of MMIN and CGGM, ten folds in HDF5, is not read.

On request from USC; not to be passed on. Source: Busso et al., Language Resources and Evaluation
2008. Traps: some papers divide by utterance, so that dialogues and speakers are in both; a copy
with four labels numbers them in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from equivox.arguments import choice
from equivox.data import dialogues, fakes, held_out
from equivox.data.field import Contents, Entry

CLASSES = ("neutral", "angry", "sad", "happy")
SIX = ("happy", "sad", "neutral", "angry", "excited", "frustrated")

QUICK: dict[str, object] = {}


def read(
    root: Path,
    *,
    classes: int = 4,
    hold_out: str = "dialogues",
    standardise: bool = True,
    file: str = "iemocap.pkl",
) -> Contents:
    """IEMOCAP under `root`.

    :param classes: 4, or 6 as in the file.
    :param hold_out: "dialogues", or "session": the last of training, which shares no speaker with
        the others.
    :param standardise: By the training samples.
    :param file: The name of the pickle.
    """
    choice("classes", classes, (4, 6))
    choice("hold_out", hold_out, ("dialogues", "session"))
    names = CLASSES if classes == 4 else SIX
    merged = {name: "happy" if (name, classes) == ("excited", 4) else name for name in SIX}
    labels: dict[object, str] = {key: merged[name] for key, name in enumerate(SIX)}
    labels.update(merged)
    labels.update({name[:3]: merged[name] for name in SIX})
    held = partial(held_out.by_group, group=dialogues.dialogue)
    return dialogues.contents(
        root / file,
        labels,
        names,
        held if hold_out == "dialogues" else _last_session,
        standardise,
        reason="frustrated, which is none of the four classes",
    )


def _session(entry: Entry) -> str:
    """`Ses01` of `Ses01F_impro01/3`."""
    name = entry.id[:5]
    if not (name.startswith("Ses") and name[3:].isdigit()):
        raise ValueError(
            f"Dialogues should be named as `Ses01F_impro01`. Found `{entry.id}`. Take "
            "`hold_out=dialogues`."
        )
    return name


def _last_session(entries: Sequence[Entry]) -> Mapping[str, Sequence[Entry]]:
    last = max(map(_session, entries), default="")
    return {
        "train": [entry for entry in entries if _session(entry) != last],
        "validation": [entry for entry in entries if _session(entry) == last],
    }


def fake(out: Path, seed: int = 0) -> None:
    """Dialogues of five sessions, six utterances each."""
    fakes.new_folder(out)
    train = [f"Ses0{i}F_impro0{j}" for i in range(1, 5) for j in (1, 2)]
    test = ["Ses05F_impro01", "Ses05M_script01"]
    dialogues.write_fake(out / "iemocap.pkl", train, test, len(SIX), (768, 512, 1024), seed)
