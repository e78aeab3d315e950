"""CREMA-D: 7,442 clips of 91 actors who say one of 12 sentences in one of 6 emotions.

Audio and frames of the face. Layout:

    AudioWAV/<clip>.wav
    Image-01-FPS/<clip>/00001.jpg …     frames, here one a second; `Image-{fps:02d}-FPS`
    my_train.csv val.csv test.csv       rows `clip,EMO`, without a header: 5,954 + 744 + 744

A clip is named `<actor>_<sentence>_<EMO>_<level>`. Where `my_train.csv` and `val.csv` are missing
and `train.csv` (6,698) is there, its every ninth clip of each class, in order of names, is held out
for validation. The lists divide by clip: every actor is in all splits. `split="actors"` divides the
same clips by actor instead: of the sorted actors every tenth is tested on, and the one after it
validated on.

Open Database License. Source: Cao et al., IEEE Transactions on Affective Computing 2014.
Traps: the first releases of reference code draw random frames and then read the first ones; the
lists may start with a byte-order mark.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from equivox.arguments import choice, number
from equivox.data import architectures, fakes, held_out, tables
from equivox.data.decoders import FilterBank, Frames, LogSTFT
from equivox.data.field import Contents, Entry

CLASSES = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")

AUDIO = {
    "stft": LogSTFT(rate=22_050, seconds=3.0, n_fft=512, hop=353),  # OGM-GE: 257 x 188
    "fbank": FilterBank(rate=16_000, frames=300, mels=128),  # BalanceMM
}

QUICK = {"size": 32, "encoder": "small"}

FAKE_ACTORS = range(1001, 1021)


def read(
    root: Path,
    *,
    split: str = "clips",
    audio: str = "stft",
    fps: int = 1,
    frames: int = 1,
    size: int = 224,
    encoder: str = "resnet18",
) -> Contents:
    """CREMA-D under `root`.

    :param split: "clips", the published lists, or "actors", which share no actor.
    :param audio: "stft" (OGM-GE: 257 x 188) or "fbank" (300 x 128).
    :param fps: Which folder of frames: 1, 2 or 3 a second.
    :param frames: How many are taken of a clip.
    :param size: Side of a frame.
    :param encoder: "resnet18", or "small" for a quick look on a CPU.
    """
    choice("split", split, ("clips", "actors"))
    choice("audio", audio, tuple(AUDIO))
    encoders = architectures.of_clip(encoder)
    number("fps", fps, least=1, most=99)
    number("frames", frames, least=1)
    entries = _entries(root, root / f"Image-{fps:02d}-FPS")
    if split == "actors":
        entries = _by_actor(entry for part in entries.values() for entry in part)
    return Contents(
        entries=entries,
        decoders={"audio": AUDIO[audio], "visual": Frames(size=size, count=frames)},
        architectures=encoders,
        classes=CLASSES,
    )


def _entries(root: Path, visual: Path) -> dict[str, list[Entry]]:
    """The clips of each split."""

    def listed(name: str) -> list[Entry]:
        return [
            Entry(
                clip,
                tables.class_number(emotion, CLASSES, f"the row of `{clip}`"),
                {"audio": root / "AudioWAV" / f"{clip}.wav", "visual": visual / clip},
            )
            for clip, emotion in tables.rows(root / name, fields=2)
        ]

    test = listed("test.csv")
    if (root / "my_train.csv").is_file() or not (root / "train.csv").is_file():
        return {"train": listed("my_train.csv"), "validation": listed("val.csv"), "test": test}
    return {**held_out.by_class(listed("train.csv"), every=9), "test": test}


def _by_actor(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """All clips, divided so that no actor is in two splits."""
    clips = sorted(entries, key=lambda entry: entry.id)
    actors = sorted({_actor(clip.id) for clip in clips})
    places = {actor: i % 10 for i, actor in enumerate(actors)}
    parts = {"test": {0}, "validation": {1}, "train": set(range(2, 10))}
    return {
        name: [clip for clip in clips if places[_actor(clip.id)] in parts[name]]
        for name in ("train", "validation", "test")
    }


def _actor(clip: str) -> str:
    actor, separator, _ = clip.partition("_")
    if not separator:
        raise ValueError(
            "A clip should be named `<actor>_<sentence>_<EMO>_<level>`. "
            f"Found `{clip}`. Take `split=clips`, or correct the lists."
        )
    return actor


def fake(out: Path, seed: int = 0) -> None:
    """20 clips of 20 actors: one second of a tone and three frames of 32 x 32 each."""
    fakes.new_folder(out)
    rows = []
    for i, actor in enumerate(FAKE_ACTORS):
        place = i % len(CLASSES)
        clip = f"{actor}_IEO_{CLASSES[place]}_HI"
        rows.append((clip, CLASSES[place]))
        pitch = 200.0 * (place + 1)
        fakes.write_tone(out / "AudioWAV" / f"{clip}.wav", pitch, seed=seed + i)
        fakes.write_frames(out / "Image-01-FPS" / clip, place, seed=seed + i)
    for name, part in (("my_train", rows[:12]), ("val", rows[12:16]), ("test", rows[16:])):
        tables.written(out / f"{name}.csv", part)
    marked = "\ufeff" + (out / "my_train.csv").read_text(encoding="utf-8")
    (out / "my_train.csv").write_text(marked, encoding="utf-8")
