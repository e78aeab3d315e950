"""Sound against the definitions: resampling, the STFT and the filter bank."""

from __future__ import annotations

import math
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equivox.data import audio, fakes
from equivox.data.decoders import FilterBank, LogSTFT
from equivox.data.field import Damaged, Draw

RATE = 16_000


def _noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def _dft(frames: Any, n: int) -> Any:
    """The spectrum of each row by the matrix of the transform, in float64."""
    t, k = np.arange(frames.shape[1]), np.arange(n // 2 + 1)
    return frames @ np.exp(-2j * np.pi * np.outer(t, k) / n)


# ── spectrograms ────────────────────────────────────────────────────────────────────────────────


def test_the_log_stft_is_that_of_its_definition() -> None:
    sound, n_fft, hop = _noise(2000), 256, 128
    sound[100] = 3.0  # is clipped
    padded = np.pad(sound.clamp(-1, 1).double().numpy(), n_fft // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    starts = range(0, len(padded) - n_fft + 1, hop)
    frames = np.stack([padded[s : s + n_fft] * window for s in starts])
    expected = np.log(np.abs(_dft(frames, n_fft)) + 1e-7).T
    found = audio.log_stft(sound, n_fft, hop)
    assert found.shape == expected.shape == (129, 16)
    assert np.allclose(found.exp(), np.exp(expected), atol=1e-4)


@pytest.mark.parametrize(
    ("decoder", "shape"),
    [
        (LogSTFT(rate=22_050, seconds=3.0, n_fft=512, hop=353), (1, 257, 188)),
        (LogSTFT(16_000, 5.0, least=10.0, n_fft=256, hop=128, moment="random"), (1, 129, 626)),
        (FilterBank(), (1, 1024, 128)),
    ],
)
def test_the_shapes_are_those_of_the_field(decoder: Any, shape: Any, tmp_path: Path) -> None:
    fakes.write_tone(tmp_path / "a.wav", 300, seconds=1.3)
    for draw in (None, Draw(0, 0)):
        x = decoder.finish(tmp_path / "a.wav", draw, decoder.load)
        assert tuple(x.shape) == decoder.shape == shape
        assert x.isfinite().all()


def _definition(
    sound: Any, rate: int, mels: int, power: float, low: float = 20.0, high: float = 0.0
) -> Any:
    """Kaldi's filter bank, filter by filter and bin by bin, in float64."""
    size, step, n = rate * 25 // 1000, rate * 10 // 1000, 1
    while n < size:
        n *= 2
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / (size - 1))) ** power
    rows = []
    for start in range(0, len(sound) - size + 1, step):
        frame = sound[start : start + size] - sound[start : start + size].mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        rows.append(np.pad(frame * window, (0, n - size)))
    energy = np.abs(_dft(np.stack(rows), n)) ** 2

    def mel(f: float) -> float:
        return 1127.0 * math.log(1.0 + f / 700.0)

    top = rate / 2 + high if high <= 0 else high
    width = (mel(top) - mel(low)) / (mels + 1)
    out = np.zeros((len(rows), mels))
    for m in range(mels):
        left, centre, right = (mel(low) + (m + i) * width for i in range(3))
        for k in range(n // 2):
            place = mel(k * rate / n)
            if left < place < right:
                rising = (place - left) / (centre - left)
                weight = rising if place <= centre else (right - place) / (right - centre)
                out[:, m] += weight * energy[:, k]
    return np.log(np.maximum(out, np.finfo(np.float32).eps))


@pytest.mark.parametrize(("window", "power"), [("hanning", 1.0), ("povey", 0.85)])
@pytest.mark.parametrize(("rate", "mels"), [(16_000, 128), (22_050, 40)])
def test_the_filter_bank_is_that_of_its_definition(
    window: str, power: float, rate: int, mels: int
) -> None:
    sound = _noise(rate // 5) + 0.1
    found = audio.filter_bank(sound, rate, mels, window)
    expected = _definition(sound.double().numpy(), rate, mels, power)
    assert found.shape == expected.shape
    # Some narrow filters hold no bin: they are at the floor in both.
    assert np.allclose(found, expected, atol=2e-3)


def test_the_filter_bank_of_silence_is_its_floor() -> None:
    bank = audio.filter_bank(torch.zeros(800))
    assert torch.allclose(bank, torch.full_like(bank, math.log(audio.FLOOR)))


def test_a_filter_bank_refuses_what_it_cannot_use() -> None:
    with pytest.raises(ValueError, match=r"400 samples or more\. Found 399"):
        audio.filter_bank(torch.zeros(399))
    with pytest.raises(ValueError, match='"hanning" or "povey"'):
        audio.filter_bank(torch.zeros(800), window="hann")
    with pytest.raises(ValueError, match="between 0 and 8000"):
        audio.mel_filters(8, 512, 16_000, high=9000.0)


# ── resampling ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("old", "new"), [(16_000, 22_050), (44_100, 16_000), (8_000, 16_000)])
def test_a_tone_stays_a_tone(old: int, new: int) -> None:
    def tone(rate: int) -> torch.Tensor:
        return torch.sin(2 * math.pi * 440 * torch.arange(rate // 2).double() / rate).float()

    found = audio.resampled(tone(old), old, new)
    assert len(found) == new // 2
    inside = slice(new // 20, -new // 20)  # silence lies beyond the ends
    assert (found - tone(new))[inside].abs().max() < 2e-3


def test_what_is_too_high_for_the_new_rate_is_taken_out() -> None:
    high = torch.sin(2 * math.pi * 7000 * torch.arange(8000).double() / 16_000).float()
    assert audio.resampled(high, 16_000, 8_000)[200:-200].abs().max() < 1e-2


def test_resampling_agrees_with_its_definition() -> None:
    sound, old, new, zeros, rolloff = _noise(60), 3, 2, 16, 0.95
    cutoff = min(old, new) * rolloff / old  # in units of old samples
    expected = []
    for k in range(40):
        t = (np.arange(60) - k * old / new) * cutoff
        window = np.where(np.abs(t) < zeros, np.cos(np.pi * t / zeros / 2) ** 2, 0)
        expected.append((sound.numpy() * np.sinc(t) * window * cutoff).sum())
    assert np.allclose(audio.resampled(sound, old, new), expected, atol=1e-5)


def test_the_same_rate_and_lengths() -> None:
    sound = _noise(100)
    assert audio.resampled(sound, 8000, 8000) is sound
    assert len(audio.resampled(sound, 3, 7)) == math.ceil(100 * 7 / 3)
    assert torch.equal(audio.tiled(sound, 250)[100:200], sound)
    assert len(audio.tiled(sound, 250)) == 300
    assert len(audio.tiled(sound, 100)) == 100


# ── files ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["soundfile", "standard library"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to read a wav file."""
    if request.param == "soundfile":
        pytest.importorskip("soundfile", reason="the extra `audio` is not installed")
    else:
        monkeypatch.setitem(sys.modules, "soundfile", None)
    return str(request.param)


def _write(path: Path, values: Any, width: int, channels: int = 1) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(RATE)
        raw = b"".join(int(v).to_bytes(width, "little", signed=width > 1) for v in values)
        file.writeframes(raw)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.usefixtures("reader")
def test_integers_of_any_width_are_read(width: int, tmp_path: Path) -> None:
    half = 256**width // 2
    middle = half if width == 1 else 0
    _write(tmp_path / "a.wav", [middle, middle + half // 2, middle - half], width)
    sound, rate = audio.read_audio(tmp_path / "a.wav")
    assert rate == RATE
    assert torch.allclose(sound, torch.tensor([0.0, 0.5, -1.0]))


@pytest.mark.usefixtures("reader")
def test_channels_are_averaged(tmp_path: Path) -> None:
    _write(tmp_path / "a.wav", [16384, 0, -16384, -16384], 2, channels=2)
    sound, _ = audio.read_audio(tmp_path / "a.wav")
    assert torch.allclose(sound, torch.tensor([0.25, -0.5]))
    again, rate = audio.read_audio(tmp_path / "a.wav", 8000)
    assert (len(again), rate) == (1, 8000)


@pytest.mark.usefixtures("reader")
def test_a_damaged_sound_is_named(tmp_path: Path) -> None:
    for name, content in {"noise": b"not a sound at all" * 9, "empty": b""}.items():
        path = tmp_path / f"{name}.wav"
        path.write_bytes(content)
        with pytest.raises(Damaged, match=rf"{name}\.wav` should be a whole sound file"):
            audio.read_audio(path)
    _write(tmp_path / "none.wav", [], 2)
    with pytest.raises(Damaged, match=r"none\.wav` .* no samples"):
        audio.read_audio(tmp_path / "none.wav")
    with pytest.raises(FileNotFoundError):
        audio.read_audio(tmp_path / "nowhere.wav")


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("share", [0.001, 0.5, 0.99])
def test_a_sound_that_was_cut_off_is_damaged(tmp_path: Path, share: float) -> None:
    fakes.write_tone(tmp_path / "a.wav", 300)
    whole = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(Damaged, match="Copy the file again"):
        audio.read_audio(tmp_path / "a.wav")


def test_a_sound_from_a_pipe_is_whole(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    fakes.write_tone(tmp_path / "a.wav", 300)
    whole, endless = (tmp_path / "a.wav").read_bytes(), b"\xff" * 4
    piped = whole[:4] + endless + whole[8:40] + endless + whole[44:]
    (tmp_path / "b.wav").write_bytes(piped)
    sounds = [audio.read_audio(tmp_path / name)[0] for name in ("a.wav", "b.wav")]
    assert torch.equal(*sounds)


@pytest.mark.parametrize("kind", ["RF64", "AIFF"])
def test_other_sounds_that_were_cut_off_are_damaged(tmp_path: Path, kind: str) -> None:
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise(999).numpy(), RATE, format=kind, subtype="PCM_16")
    assert len(audio.read_audio(path)[0]) == 999
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Damaged, match=r"a\.wav` .* bytes. Copy the file again"):
        audio.read_audio(path)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("rate", [1, 4_000_000])
def test_an_impossible_rate_is_damage(tmp_path: Path, rate: int) -> None:
    _write(tmp_path / "a.wav", [1] * 100, 2)
    whole = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(whole[:24] + rate.to_bytes(4, "little") + whole[28:])
    with pytest.raises(Damaged, match=rf"a\.wav` .* {rate} samples a second"):
        audio.read_audio(tmp_path / "a.wav", RATE)


@pytest.mark.parametrize("rates", [(8003, 22_050), (22_050, 8003), (44_100, 16_000)])
def test_rates_of_many_phases_need_no_table(
    rates: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, (old, new) = _noise(300), rates
    with monkeypatch.context() as patch:
        patch.setattr(audio, "TABLE", 10_000)
        patch.setattr(audio, "_phases", None)
        found = audio.resampled(sound, old, new)
    assert len(found) == -(-300 * new // old)
    # The definition at each sample, in float64.
    cutoff = min(old, new) * 0.95
    t = torch.arange(len(found)).double()[:, None] / new - torch.arange(300).double() / old
    t = t * cutoff
    window = torch.where(t.abs() < 16, torch.cos(t * math.pi / 32) ** 2, 0.0)
    expected = (torch.sinc(t) * window * cutoff / old * sound.double()).sum(1)
    assert torch.allclose(found.double(), expected, atol=1e-5)


def test_other_formats_need_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    with pytest.raises(ImportError, match=r"equivox\[audio\]"):
        audio.read_audio(tmp_path / "a.flac")


def test_a_part_of_the_sound_is_drawn_in_training_alone(tmp_path: Path) -> None:
    fakes.write_tone(tmp_path / "a.wav", 300, seconds=3.0)
    decoder = LogSTFT(16_000, 1.0, n_fft=256, hop=128, moment="random")
    sound = decoder.load(tmp_path / "a.wav")
    still = [decoder.finish("a", None, lambda _: sound) for _ in range(2)]
    assert torch.equal(still[0], still[1])
    assert torch.equal(still[0][0], audio.log_stft(sound[16_000:32_000], 256, 128))
    drawn = [decoder.finish("a", Draw(i, 0), lambda _: sound) for i in range(3)]
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[1], drawn[2])


def test_silence_is_remarked(tmp_path: Path) -> None:
    _write(tmp_path / "a.wav", [0] * RATE, 2)
    for decoder in (LogSTFT(), FilterBank(frames=98), LogSTFT(moment="random")):
        loaded = decoder.load(tmp_path / "a.wav")
        assert loaded.isfinite().all()
        assert decoder.remark(loaded) == "silent"
    fakes.write_tone(tmp_path / "b.wav", 300)
    assert LogSTFT().remark(LogSTFT().load(tmp_path / "b.wav")) == ""


def test_a_filter_bank_is_standardised_and_padded(tmp_path: Path) -> None:
    fakes.write_tone(tmp_path / "a.wav", 300)
    plain = FilterBank(frames=98)
    kinetics = FilterBank(frames=120, mean=-4.503877, std=5.141276)
    bank, found = plain.load(tmp_path / "a.wav"), kinetics.load(tmp_path / "a.wav")
    assert torch.allclose(found[:, :98], (bank + 4.503877) / (2 * 5.141276))
    assert torch.allclose(found[:, 98:], torch.tensor(4.503877 / (2 * 5.141276)))
    (tmp_path / "short.wav").write_bytes((tmp_path / "a.wav").read_bytes())
    _write(tmp_path / "short.wav", [1] * 100, 2)
    with pytest.raises(Damaged, match="too short"):
        plain.load(tmp_path / "short.wav")
