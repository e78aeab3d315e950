"""Field sets: what is drawn, what is missing, which options there are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from equivox import data
from equivox.bench.experiment import Experiment
from equivox.bench.training import train
from equivox.data import loading
from equivox.data.base import MultimodalData
from equivox.data.field import Draw, Order
from equivox.data.planned import planned_loader

QUICK = {"size": 16, "encoder": "small"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a fake Food-101, which no test changes."""
    pytest.importorskip("PIL", reason="images need Pillow")
    root = tmp_path_factory.mktemp("food") / "food101"
    data.fake("food101", root)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "food101"))


def _load(root: Path, **options: Any) -> MultimodalData:
    return data.load("food101", root=root, **(QUICK | options))


def _epochs(loaded: MultimodalData, workers: int, count: int = 2) -> list[dict[int, Tensor]]:
    """The images of some epochs, by sample."""
    order = torch.Generator().manual_seed(5)
    loader = loaded.loader("train", 3, generator=order, num_workers=workers)
    return [
        {int(i): x for inputs, _, index in loader for i, x in zip(index, inputs["image"])}  # noqa: B905
        for _ in range(count)
    ]


def test_what_is_drawn_depends_on_seed_sample_and_stream_alone() -> None:
    def draw(place: int, seed: int, stream: str) -> float:
        return float(torch.rand((), generator=Draw(place, seed).generator(stream)))

    base = draw(1, 2, "view")
    assert base == draw(1, 2, "view")
    others = [draw(2, 2, "view"), draw(1, 3, "view"), draw(1, 2, "moment"), draw(12, 0, "view")]
    assert len({base, *others}) == 5


def test_workers_change_nothing(made: Path) -> None:
    loaded = _load(made)
    alone = _epochs(loaded, 0)
    for workers in (1, 2):
        for mine, other in zip(alone, _epochs(loaded, workers), strict=True):
            assert list(mine) == list(other)
            assert all(torch.equal(mine[i], other[i]) for i in mine)


def test_training_is_drawn_anew_every_epoch_and_evaluation_never(made: Path) -> None:
    loaded = _load(made)
    first, second = _epochs(loaded, 0)
    assert list(first) != list(second)
    assert not any(torch.equal(first[i], second[i]) for i in first)
    for inputs, _, index in loaded.loader("test", 3):
        for i, image in zip(index.tolist(), inputs["image"], strict=True):
            assert torch.equal(image, loaded.test[i][0]["image"])


def test_other_samplers_draw_from_the_random_state(made: Path) -> None:
    loaded = _load(made)
    torch.manual_seed(0)
    first, second = (loaded.train[0][0]["image"] for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(first, loaded.train[0][0]["image"])
    assert not torch.equal(first, second)
    assert torch.equal(loaded.train[-1][2], torch.tensor(7))
    with pytest.raises(IndexError, match=r"below 8\. Found 8"):
        loaded.train[8]


def test_order_is_a_permutation_with_one_seed_a_pass() -> None:
    order = Order(10, True, torch.Generator().manual_seed(0))
    first, second = list(order), list(order)
    assert sorted(draw.place for draw in first) == list(range(10))
    assert len({draw.seed for draw in first}) == 1
    assert first[0].seed != second[0].seed
    still = list(Order(3, False, torch.Generator().manual_seed(0)))
    assert [draw.place for draw in still] == [0, 1, 2]


def test_planned_batches_are_drawn_like_any(made: Path) -> None:
    loader = _load(made).loader("train", 2, generator=torch.Generator().manual_seed(0))
    planned = planned_loader(loader, [torch.tensor([0, 1]), torch.tensor([1, 5])])
    (first, _, index), (second, _, _) = list(planned)
    assert index.tolist() == [0, 1]
    assert torch.equal(first["image"][1], second["image"][0])  # of one pass
    again, _, _ = next(iter(planned))
    assert not torch.equal(first["image"], again["image"])


def test_a_resampling_method_trains(made: Path) -> None:
    options = QUICK | {"root": str(made)}
    result = train(Experiment("food101", "smv", epochs=2, batch_size=4, data_options=options))
    assert result.epochs == 2


def test_one_modality_alone(made: Path) -> None:
    loaded = _load(made)
    alone = loaded.test.only("text")
    assert alone.modalities == ("text",)
    assert torch.equal(alone[1][0]["text"], loaded.test[1][0]["text"])
    held = data.load("latent2", samples=20).test
    assert torch.equal(held.only("hard")[0][0]["hard"], held[0][0]["hard"])


# ── missing files and bad lists ─────────────────────────────────────────────────────────────────


def test_missing_files_are_an_error_above_the_stated_share(root: Path) -> None:
    (root / "images/test/sushi/sushi_0.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 8 samples of test: `.*sushi_0\.jpg`"):
        _load(root)
    with pytest.warns(UserWarning, match=r"sushi_0\.jpg`\. They are left out"):
        loaded = _load(root, tolerance=0.2)
    assert loaded.facts["missing"] == {
        "train": [],
        "validation": [],
        "test": ["test/sushi_0.jpg"],
    }
    assert len(loaded.test) == 7 and loaded.options["tolerance"] == 0.2


def test_excluded_samples_are_left_out_by_name(root: Path) -> None:
    loaded = _load(root, exclude=["test/sushi_0.jpg"])
    assert len(loaded.test) == 7
    assert loaded.facts["left_out"] == {"excluded": ["test/sushi_0.jpg"]}
    with pytest.raises(ValueError, match=r"Did you mean `test/sushi_0\.jpg`"):
        _load(root, exclude=["test/suhsi_0.jpg"])


def test_ids_are_given_in_one_text_too(root: Path) -> None:
    ids = ["test/sushi_0.jpg", "test/sushi_1.jpg"]
    loaded = _load(root, exclude=", ".join(ids))
    assert loaded.facts["left_out"] == {"excluded": ids}
    assert loaded.options["exclude"] == ids
    assert loading.named("a,b", {"a,b"}) == ["a,b"]
    assert loading.named((5, 7), {"5"}) == ["5", "7"] and loading.named(5, {"5"}) == ["5"]


def test_a_damaged_file_is_named_when_it_is_read(root: Path) -> None:
    path = root / "images/test/sushi/sushi_0.jpg"
    path.write_bytes(path.read_bytes()[:200])
    loaded = _load(root)
    with pytest.raises(ValueError, match=r"sushi_0\.jpg` should be a whole image"):
        list(loaded.loader("test"))


def test_a_sample_listed_twice_is_refused(root: Path) -> None:
    path = root / "texts/test_titles.csv"
    text = path.read_text()
    path.write_text(text + text.splitlines()[1] + "\n")
    with pytest.raises(ValueError, match=r"`test/apple_pie_0\.jpg` \(2 times\)"):
        _load(root)


def test_an_unknown_class_is_refused(root: Path) -> None:
    path = root / "texts/test_titles.csv"
    path.write_text(path.read_text().replace(",sushi\n", ",sushii\n", 1))
    with pytest.raises(ValueError, match=r"Found `sushii` in .* Did you mean `sushi`"):
        _load(root)


def test_an_empty_split_is_refused(root: Path) -> None:
    path = root / "texts/test_titles.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="rows below its header"):
        _load(root)


def test_a_split_that_is_empty_after_exclusion_is_refused(made: Path) -> None:
    every = [entry.id for entry in _load(made).test.entries]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"should have samples\. Found none in test"):
        _load(made, exclude=every)


def test_a_mark_and_other_line_ends_change_nothing(root: Path) -> None:
    path = root / "texts/train_titles.csv"
    text = path.read_bytes().decode()
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\r\n", "\n").encode())
    assert len(_load(root).train) == 8


# ── options ─────────────────────────────────────────────────────────────────────────────────────


def test_the_folder_may_come_from_the_environment(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EQUIVOX_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="`root`"):
        data.load("food101")
    monkeypatch.setenv("EQUIVOX_DATA", str(made.parent))
    assert "root" not in data.load("food101", **QUICK).options


def test_unknown_names_and_options_are_refused(made: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean `food101`"):
        data.load("food10")
    with pytest.raises(ValueError, match="Did you mean `tokenizer`"):
        _load(made, tokeniser="bert")
    with pytest.raises(ValueError, match=r"one that lies in files\. Found `latent2`"):
        data.fake("latent2", made)
    with pytest.raises(ValueError, match="`encoder` should be"):
        _load(made, encoder="vgg")


def test_the_preprocessing_id_stands_for_what_decodes(made: Path) -> None:
    first = _load(made).facts["preprocessing"]
    assert first == _load(made, workers=1).facts["preprocessing"]
    assert first != _load(made, size=20).facts["preprocessing"]
    assert first != _load(made, length=7).facts["preprocessing"]
    with pytest.raises(ValueError, match=f"`v0-0`. Found `{first}`"):
        _load(made, preprocessing="v0-0")


def test_a_new_version_of_the_code_is_another_preprocessing(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _load(made).facts["preprocessing"]
    monkeypatch.setattr(loading, "VERSION", 99)
    assert _load(made).facts["preprocessing"].startswith("v99-")
    with pytest.raises(ValueError, match="should be preprocessed as"):
        _load(made, preprocessing=first)


def test_validation_is_held_out_of_training(made: Path) -> None:
    loaded = _load(made)
    ids = [{entry.id for entry in part.entries} for part in (loaded.train, loaded.validation)]  # type: ignore[attr-defined]
    assert not ids[0] & ids[1] and len(ids[1]) == 4  # one of each class


def test_actors_are_disjoint_and_an_old_list_gives_a_validation_split(tmp_path: Path) -> None:
    root = tmp_path / "crema_d"
    data.fake("crema_d", root)
    quick = {"root": root, "size": 16, "encoder": "small"}
    loaded = data.load("crema_d", split="actors", **quick)
    actors = [
        {entry.id.split("_")[0] for entry in part.entries}  # type: ignore[attr-defined]
        for part in (loaded.train, loaded.validation, loaded.test)
    ]
    assert [len(part) for part in actors] == [16, 2, 2]
    assert len(set.union(*actors)) == 20
    text = (root / "my_train.csv").read_text() + (root / "val.csv").read_text()
    (root / "my_train.csv").unlink()
    (root / "train.csv").write_text(text)
    loaded = data.load("crema_d", **quick)
    assert (len(loaded.train), len(loaded.validation)) == (10, 6)
    fbank = data.load("crema_d", audio="fbank", **quick)
    assert fbank.train[0][0]["audio"].shape == (1, 300, 128)
