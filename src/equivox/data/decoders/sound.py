"""Sounds as spectrograms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.data import audio
from equivox.data.decoders.base import FileDecoder
from equivox.data.field import Damaged, Draw, Load


@dataclass(frozen=True)
class LogSTFT(FileDecoder):
    """A sound as log(|STFT| + 1e-7): (1, n_fft / 2 + 1, frames). The source is its path.

    The sound is resampled, repeated until it is long enough and cut to `seconds`.

    :param rate: Samples a second: 22,050 in OGM-GE's form of CREMA-D, 16,000 for VGGSound.
    :param seconds: How much of it is taken: 3; 5 for VGGSound.
    :param least: Repeat it to this many seconds before a part is taken; `seconds` where not given.
    :param n_fft: 512; 256 for VGGSound.
    :param hop: 353; 128 for VGGSound.
    :param moment: "start", or "random": any part in training, the middle elsewhere.
    """

    rate: int = 22_050
    seconds: float = 3.0
    least: float | None = None
    n_fft: int = 512
    hop: int = 353
    moment: str = "start"

    @property
    def samples(self) -> int:
        """How many samples are taken."""
        return round(self.seconds * self.rate)

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.n_fft // 2 + 1, self.samples // self.hop + 1)

    def load(self, part: Path) -> Tensor:
        """The spectrogram; the sound where a part of it is still to be drawn."""
        sound, _ = audio.read_audio(part, self.rate)
        sound = audio.tiled(sound, round((self.least or self.seconds) * self.rate))
        return sound if self.moment == "random" else self._spectrogram(sound[: self.samples])

    def remark(self, loaded: Tensor) -> str:
        return "silent" if bool((loaded == loaded.flatten()[0]).all()) else ""

    def finish(self, source: Any, draw: Draw | None, load: Load) -> Tensor:
        loaded = load(source)
        if self.moment != "random":
            return loaded
        room = len(loaded) - self.samples
        start = room // 2
        if draw is not None:
            start = int(torch.randint(room + 1, (), generator=draw.generator("moment")))
        return self._spectrogram(loaded[start : start + self.samples])

    def _spectrogram(self, sound: Tensor) -> Tensor:
        return audio.log_stft(sound, self.n_fft, self.hop)[None]


@dataclass(frozen=True)
class FilterBank(FileDecoder):
    """A sound as Kaldi's log mel filter bank: (1, frames, mels). The source is its path.

    The mean of the sound is taken off; too few frames are filled with zeros, too many cut; then
    (x - mean) / (2 std).

    :param rate: Samples a second, 16,000.
    :param frames: 1,024 for ten seconds.
    :param mels: 128.
    :param mean: -4.503877 for Kinetics-Sounds, -5.081 for IEMOCAP; 0 leaves them as they are.
    :param std: 5.141276 for Kinetics-Sounds, 4.4849 for IEMOCAP; 0.5 leaves them as they are.
    """

    rate: int = 16_000
    frames: int = 1024
    mels: int = 128
    mean: float = 0.0
    std: float = 0.5

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.frames, self.mels)

    def load(self, part: Path) -> Tensor:
        sound, _ = audio.read_audio(part, self.rate)
        try:
            bank = audio.filter_bank(sound - sound.mean(), self.rate, self.mels)
        except ValueError as error:
            raise Damaged(f"`{part}` is too short. {error}") from error
        bank = F.pad(bank, (0, 0, 0, max(0, self.frames - len(bank))))[: self.frames]
        return ((bank - self.mean) / (2 * self.std))[None]

    def remark(self, loaded: Tensor) -> str:
        return "silent" if bool((loaded[:, 0] == loaded[:, 0, :1]).all()) else ""
