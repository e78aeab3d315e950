"""Recipes: those that are kept here train, and a wrong one is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from equivox import data
from equivox.bench import recipe
from equivox.bench.experiment import Experiment
from equivox.cli import main
from equivox.console import FAILED, REFUSED
from equivox.data import loading

RECIPES = sorted(Path(__file__).parents[2].glob("recipes/*.yaml"))

FAKED: dict[str, dict[str, Any]] = {
    "crema_d": {"fps": 1},
    "vggsound": {"audio": "wav"},
}
"""Where a fake set holds another form than the recipe reads."""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains_an_epoch(path: Path, tmp_path: Path) -> None:
    name = recipe.read(path)["data"]
    try:
        data.fake(name, tmp_path / "set")
    except ImportError as error:
        pytest.skip(str(error))
    options = loading.module(name).QUICK | FAKED.get(name, {}) | {"root": str(tmp_path / "set")}
    words = [word for k, v in options.items() for word in ("--option", f"{k}={v}")]
    small = ["--epochs", "1", "--batch-size", "4", "--quiet", "--out", str(tmp_path / "run")]
    assert main(["train", "--config", str(path), *words, *small]) == 0


def test_the_seven_sets_of_the_benchmark_have_one_protocol() -> None:
    found = [recipe.read(path) for path in RECIPES if "BalanceBenchmark" in path.read_text()]
    assert {r.pop("data") for r in found} == {
        *("balanced_av", "crema_d", "food101", "kinetics_sounds", "mosei", "ucf101", "vggsound")
    }
    settings = [{k: v for k, v in r.items() if k != "data_options"} for r in found]
    assert settings == [settings[0]] * 7


def _written(folder: Path, text: str) -> Path:
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return folder / "recipe.yaml"


def test_options_override_a_recipe(tmp_path: Path) -> None:
    path = _written(
        tmp_path,
        "data: latent2\nmethod: ogm_ge\nlr: 1e-2\nepochs: 9\narguments: {alpha: 0.5}\n"
        "data_options: {samples: 600, seed: 2}\n",
    )
    out = tmp_path / "run"
    words = ["--epochs", "1", "--option", "seed=1", "--out", str(out), "--quiet"]
    assert main(["train", "--config", str(path), *words]) == 0
    from equivox.bench.folder import read_experiment

    expected = Experiment(
        "latent2",
        "ogm_ge",
        lr=0.01,
        epochs=1,
        arguments={"alpha": 0.5},
        data_options={"samples": 600, "seed": 1},
    )
    assert not read_experiment(out).differences(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: latent2\nepoch: 3\n", "Found `epoch`. Did you mean `epochs`?"),
        ("data: latent2\narguments: 0.3\n", "`arguments` of .* should be values by name"),
        ("- data\n", "should hold values by name"),
        ("", "should hold values by name"),
        ("data: [\n", "should be YAML"),
        ("data: !!python/object/apply:os.getcwd []\n", "should be YAML of plain values"),
        ("lr: 0.1\nlr: 0.2\n", "`lr` more than once"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe.read(_written(tmp_path, text))


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--out", str(tmp_path / "run"), "--config"]
    assert main([*words, str(tmp_path / "nowhere.yaml")]) == FAILED
    assert "should be a recipe" in capsys.readouterr().err
    assert main([*words, str(_written(tmp_path, "lr: 0.1\n"))]) == REFUSED
    assert "A run needs `--data`" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_mark_and_numbers_are_read_as_people_write_them(tmp_path: Path) -> None:
    found = recipe.read(_written(tmp_path, "\ufefflr: 1e-3\nweight_decay: 1.5E-4\nepochs: 3\n"))
    assert found == {"lr": 0.001, "weight_decay": 0.00015, "epochs": 3}
