"""Sound: reading, resampling, and the two spectrograms of the field."""

from __future__ import annotations

import math
import wave
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from equivox.data.field import Damaged

if TYPE_CHECKING:
    from jaxtyping import Float

FLOOR = 1.1920928955078125e-07
"""The smallest energy of a filter: Kaldi's, the distance from 1 to the next float32."""

PIPED = 0x7FFF_0000

RATES = (1_000, 1_000_000)
"""What a sampling rate may be."""

TABLE = 20_000_000
"""The most numbers that the filters of all phases may have; beyond it they are not kept."""


def read_audio(path: Path, rate: int | None = None) -> tuple[Float[Tensor, " samples"], int]:
    """The mean of a file's channels in [-1, 1], and its sampling rate.

    With soundfile whatever it reads; without it, wav files of 8, 16, 24 or 32-bit integers.

    :param rate: Resample to so many samples a second.
    :raises Damaged: Where the file is no sound, is cut off, has no samples or an impossible rate.
        That an MP3 was cut off cannot be seen: its frames stand for themselves.
    :raises ImportError: Where soundfile is missing and the file is no plain wav.
    """
    try:
        import soundfile
    except ImportError:
        sound, found = _read_wav(path)
    else:
        if not path.is_file():
            raise FileNotFoundError(f"`{path}` should be a sound file. Found none.")
        _check_length(path)
        try:
            array, found = soundfile.read(path, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
            raise _damaged(path, error) from error
        sound = torch.from_numpy(array).mean(1)
    if len(sound) == 0:
        raise _damaged(path, "no samples")
    if not bool(sound.isfinite().all()):
        raise _damaged(path, "samples that are not finite")
    if not RATES[0] <= found <= RATES[1]:
        raise _damaged(path, f"{found} samples a second")
    return (sound, found) if rate is None else (resampled(sound, found, rate), rate)


def _check_length(path: Path) -> None:
    """Refuse a wav or aiff file that was cut off, of which soundfile reads what is left."""
    with path.open("rb") as file:
        declared = _declared(file.read(28))
    found = path.stat().st_size
    # Some files forget that lengths are even.
    if found + 1 < declared:
        raise _damaged(path, f"{found} of {declared} bytes")


def _declared(head: bytes) -> int:
    """The length that a file says of itself, or 0."""
    kind, form = head[:4], head[8:12]
    if kind == b"RIFF" and form == b"WAVE":
        length = int.from_bytes(head[4:8], "little")
        return 8 + length if 8 + length < PIPED else 0  # through a pipe it declares gigabytes
    if kind == b"RF64" and form == b"WAVE" and head[12:16] == b"ds64":
        return 8 + int.from_bytes(head[20:28], "little")
    if kind == b"FORM" and form in (b"AIFF", b"AIFC"):
        return 8 + int.from_bytes(head[4:8], "big")
    return 0


def _damaged(path: Path, found: object) -> Damaged:
    return Damaged(f"`{path}` should be a whole sound file. Found: {found}. Copy the file again.")


def _read_wav(path: Path) -> tuple[Tensor, int]:
    """A wav file of integers, by the standard library."""
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, count = file.getsampwidth(), file.getnchannels(), file.getnframes()
            data, rate = file.readframes(count), file.getframerate()
    except FileNotFoundError:
        raise
    except (wave.Error, EOFError, OSError) as error:
        if path.suffix.lower() != ".wav" or "unknown format" in str(error):
            raise ImportError(
                f"`{path.name}` is read with soundfile. Found none. Run `pip install "
                "equivox[audio]`."
            ) from error
        raise _damaged(path, error) from error
    if len(data) != width * channels * count:
        raise _damaged(path, f"{len(data)} of {width * channels * count} bytes")
    raw = torch.frombuffer(bytearray(data or b""), dtype=torch.uint8) if data else torch.zeros(0)
    return _integers(raw.to(torch.uint8).view(-1, width), width).view(-1, channels).mean(1), rate


def _integers(raw: Tensor, width: int) -> Tensor:
    """Little-endian integers of 1 (unsigned) to 4 bytes as numbers in [-1, 1]."""
    if width == 1:
        return (raw[:, 0].float() - 128) / 128
    powers = 256 ** torch.arange(width)
    whole = (raw.long() * powers).sum(1)
    half = 256**width // 2
    return (torch.where(whole >= half, whole - 2 * half, whole).double() / half).float()


# ── resampling ──────────────────────────────────────────────────────────────────────────────────


def resampled(
    sound: Float[Tensor, " samples"], old: int, new: int, zeros: int = 16, rolloff: float = 0.95
) -> Float[Tensor, " resampled"]:
    """The sound at another sampling rate: ceil(samples * new / old) samples.

    Interpolation by a sinc at `rolloff` of the lower Nyquist frequency, under a Hann window of
    `zeros` zero crossings to either side; as a convolution with one filter a phase, where there are
    not too many of them.
    """
    if old == new:
        return sound
    common = math.gcd(old, new)
    length = -(-len(sound) * new // old)
    if (old // common) * (new // common) > TABLE:
        return _interpolated(sound, old, new, length, zeros, rolloff)
    filters, reach = _phases(old // common, new // common, zeros, rolloff)
    step = old // common
    padded = F.pad(sound, (reach, reach + step))
    phases = F.conv1d(padded[None, None], filters, stride=step)[0]  # phases, steps
    return phases.T.flatten()[:length]


@lru_cache(maxsize=8)
def _phases(old: int, new: int, zeros: int, rolloff: float) -> tuple[Tensor, int]:
    """One filter for each of `new` output samples within `old` input samples; taps to each side."""
    cutoff = min(old, new) * rolloff
    reach = math.ceil(zeros * old / cutoff)
    taps = torch.arange(-reach, reach + old, dtype=torch.float64) / old
    moments = torch.arange(new, dtype=torch.float64)[:, None] / new
    filters = _kernel((taps - moments) * cutoff, zeros) * cutoff / old
    return filters[:, None].float(), reach


def _kernel(t: Tensor, zeros: int) -> Tensor:
    """A sinc under its window."""
    return torch.sinc(t) * torch.where(
        t.abs() < zeros, torch.cos(t * math.pi / zeros / 2) ** 2, 0.0
    )


def _interpolated(
    sound: Tensor, old: int, new: int, length: int, zeros: int, rolloff: float
) -> Tensor:
    """The same with a filter for each sample, some millions of numbers at a time."""
    cutoff = min(old, new) * rolloff
    reach = math.ceil(zeros * old / cutoff)
    padded = F.pad(sound, (reach, reach + 1))
    taps = torch.arange(2 * reach + 2)
    found = []
    for places in torch.arange(length).split(max(1, TABLE // 8 // len(taps))):
        whole, rest = places * old // new, places * old % new
        t = (taps - reach - rest[:, None].double() / new) * cutoff / old
        filters = (_kernel(t, zeros) * cutoff / old).float()
        found.append((padded[whole[:, None] + taps] * filters).sum(1))
    return torch.cat(found)


# ── lengths ─────────────────────────────────────────────────────────────────────────────────────


def tiled(sound: Float[Tensor, " samples"], least: int) -> Float[Tensor, " tiled"]:
    """The sound, repeated until it has `least` samples or more."""
    return sound.repeat(-(-least // len(sound))) if len(sound) < least else sound


# ── spectrograms ────────────────────────────────────────────────────────────────────────────────


def log_stft(
    sound: Float[Tensor, " samples"], n_fft: int = 512, hop: int = 353
) -> Float[Tensor, "frequencies frames"]:
    """log(|S| + 1e-7) of the short-time Fourier transform, after clipping to [-1, 1].

    Periodic Hann window of `n_fft` samples, centred frames, the ends mirrored: `n_fft / 2 + 1`
    frequencies and `samples // hop + 1` frames. OGM-GE's code takes 512 and 353.
    """
    window = torch.hann_window(n_fft)
    sound = sound.clamp(-1, 1)
    spectrum = torch.stft(sound, n_fft, hop, window=window, center=True, return_complex=True)
    return (spectrum.abs() + 1e-7).log()


def filter_bank(
    sound: Float[Tensor, " samples"],
    rate: int = 16_000,
    mels: int = 128,
    window: str = "hanning",
    length: float = 25.0,
    shift: float = 10.0,
    low: float = 20.0,
    high: float = 0.0,
) -> Float[Tensor, "frames mels"]:
    """Kaldi's log mel filter bank, as `htk_compat`, without energy and without dither.

    Frames of `length` ms every `shift` ms, as many as fit whole. From each its mean is taken, then
    pre-emphasised (x_t - 0.97 x_(t-1); the first sample stands for the one before it), windowed,
    filled with zeros to a power of two; the power spectrum goes through `mels` triangles that are
    equally wide in mel = 1127 ln(1 + f / 700) from `low` to `high` Hz. Last comes the logarithm,
    of at least `FLOOR`.

    :param window: "hanning", which the field uses, or "povey" (hanning to the power 0.85).
    :param high: Where not positive, so far below the Nyquist frequency.
    :raises ValueError: Where the sound is shorter than a frame, or the window is another.
    """
    size, step = int(rate * length * 0.001), int(rate * shift * 0.001)
    if len(sound) < size:
        raise ValueError(
            f"A filter bank needs a sound of {size} samples or more. Found {len(sound)}."
        )
    frames = sound.unfold(0, size, step)
    frames = frames - frames.mean(1, keepdim=True)
    frames = frames - 0.97 * torch.cat([frames[:, :1], frames[:, :-1]], 1)
    frames = frames * _window(window, size)
    padded = 1 << (size - 1).bit_length()
    power = torch.fft.rfft(frames, n=padded).abs().square()
    energies = power[:, :-1] @ mel_filters(mels, padded, rate, low, high).T
    return energies.clamp(min=FLOOR).log()


def _window(name: str, size: int) -> Tensor:
    if name not in ("hanning", "povey"):
        raise ValueError(f'`window` should be "hanning" or "povey". Found `{name!r}`.')
    hanning = torch.hann_window(size, periodic=False)
    return hanning if name == "hanning" else hanning.pow(0.85)


def _mel(frequency: Tensor) -> Tensor:
    return 1127 * torch.log1p(frequency / 700)


@lru_cache(maxsize=8)
def mel_filters(
    mels: int, n_fft: int, rate: int, low: float = 20.0, high: float = 0.0
) -> Float[Tensor, "mels bins"]:
    """Triangles in mel over the bins 0 … n_fft / 2 - 1 of a spectrum; the last bin has none.

    :raises ValueError: Where `low` and `high` are no frequencies below the Nyquist frequency.
    """
    nyquist = rate / 2
    top = high if high > 0 else nyquist + high
    if not 0 <= low < top <= nyquist:
        raise ValueError(
            f"Filters should lie between 0 and {nyquist} Hz. Found them from {low} to {top} Hz."
        )
    ends = _mel(torch.tensor([low, top], dtype=torch.float64))
    edges = torch.linspace(float(ends[0]), float(ends[1]), mels + 2, dtype=torch.float64)
    left, centre, right = (edges[i : i + mels, None] for i in range(3))
    bins = _mel(torch.arange(n_fft // 2, dtype=torch.float64) * rate / n_fft)
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0).float()
