"""`equivox runs`: SQL over a comparison's folder."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from equivox import cli
from equivox.bench.query import query


def record(method: str, seed: int, accuracy: float) -> dict[str, Any]:
    return {
        "data": "some",
        "method": method,
        "seed": seed,
        "tuned": 0,
        "trial": None,
        "test": {"accuracy": accuracy, "loss": 1 - accuracy},
        "last": {"branches": {"audio": 0.5, "video": 0.25}},
        "arguments": {},
    }


def write(folder: Path, name: str, plain: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = plain if isinstance(plain, str) else json.dumps(plain, indent=1)
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture
def out(tmp_path: Path) -> Path:
    out = tmp_path / "a [comparison]"
    for method, start in (("joint", 0.5), ("ogm_ge", 0.75)):
        for seed in (0, 1):
            folder = out / "runs" / "some" / method / f"seed-{seed}"
            write(folder, "record.json", record(method, seed, start + seed / 8))
            lines = "".join(f'{{"epoch": {n}, "validation": {{"loss": {n}.5}}}}\n' for n in (0, 1))
            write(folder, "metrics.jsonl", lines + '{"epoch": 2, "valid')  # the run goes on
    broken = record("mmcosine", 0, 0.0) | {"error": "refused", "kind": "ValueError"}
    write(out / "runs" / "some" / "mmcosine" / "seed-0", "failed.json", broken)
    write(out / "search" / "some" / "ogm_ge" / "trial-0", "record.json", {"validation": 0.25})
    return out


def test_nested_values_are_columns(out: Path) -> None:
    found = query(out, "SELECT method, avg(test_accuracy) AS a FROM runs GROUP BY 1 ORDER BY 2")
    assert found.columns == ["method", "a"]
    assert found.rows == [("joint", 0.5625), ("ogm_ge", 0.8125)]
    assert query(out, "SELECT last_branches_video FROM runs LIMIT 1").rows == [(0.25,)]


def test_every_table_is_there(out: Path) -> None:
    epochs = "SELECT method, max(validation_loss) FROM epochs JOIN runs USING (folder) GROUP BY 1"
    assert sorted(query(out, epochs).rows) == [("joint", 1.5), ("ogm_ge", 1.5)]
    assert query(out, "SELECT method, error FROM failures").rows == [("mmcosine", "refused")]
    assert query(out, "SELECT validation, folder FROM trials").rows == [
        (0.25, "search/some/ogm_ge/trial-0")
    ]
    (out / "runs" / "some" / "mmcosine" / "seed-0" / "failed.json").unlink()
    assert query(out, "SELECT error FROM failures").rows == []


def test_many_runs_take_little(out: Path) -> None:
    """Three thousand files in one table, each with columns of its own."""
    for seed in range(3000):
        more = record("lfm", seed, 0.5) | {"probe": {f"m{seed % 7}": 1.0}}
        write(out / "runs" / "many" / "lfm" / f"seed-{seed}", "record.json", more)
    assert query(out, "SELECT count(*), count(probe_m6) FROM runs").rows == [(3004, 428)]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("SELECT test_acuracy FROM runs", '"test_accuracy"'),
        ("SELECT * FROM runz", "runz does not exist!\nDid you mean `runs`?\n"),
        ("SELECT * FROM runs JOIN epohcs USING (folder)", "Did you mean `epochs`?"),
        ("SELECT * FROM x", "Known are: epochs, failures, runs, trials."),
        ("SELEC 1", "syntax error"),
        ("", "Found nothing"),
        ("DROP TABLE runs", "Found DROP"),
        ("SELECT 1; SELECT 2", "Found SELECT and SELECT"),
        ("COPY runs TO 'x.csv'", "Found COPY"),
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled"),
    ],
)
def test_what_cannot_be_answered_says_why(
    out: Path, text: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["runs", text, "--in", str(out)]) == 2
    assert hint in capsys.readouterr().err


def test_a_folder_without_runs_and_a_damaged_record_are_named(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["runs", "--in", str(out / "nowhere")]) == 1
    assert "Found none in" in capsys.readouterr().err
    path = out / "runs" / "some" / "joint" / "seed-0" / "record.json"
    path.write_text("{")
    assert cli.main(["runs", "SELECT 1 FROM runs", "--in", str(out)]) == 2
    assert str(path) in capsys.readouterr().err


def test_answers_are_tables_csv_and_json(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "SELECT method, seed, test_accuracy FROM runs ORDER BY ALL LIMIT 2"

    def said(*options: str) -> str:
        assert cli.main(["runs", text, "--in", str(out), *options]) == 0
        return capsys.readouterr().out

    assert said().splitlines()[1].split() == ["joint", "0", "0.5"]
    rows = list(csv.DictReader(io.StringIO(said("--csv"))))
    assert rows[1] == {"method": "joint", "seed": "1", "test_accuracy": "0.625"}
    assert json.loads(said("--json"))[1] == {"method": "joint", "seed": 1, "test_accuracy": 0.625}


def test_json_has_null_where_a_number_is_none(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = out / "runs" / "some" / "joint" / "seed-0"
    write(folder, "record.json", record("joint", 0, float("nan")))
    text = "SELECT test_accuracy AS a, ['inf'::DOUBLE, 1.0::DOUBLE] AS b FROM runs WHERE seed = 0"
    assert cli.main(["runs", f"{text} AND method = 'joint'", "--in", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == [
        {"a": None, "b": [None, 1.0]}
    ]


def test_without_a_query_the_columns_are_listed(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["runs", "--in", str(out)]) == 0
    said = capsys.readouterr().out
    assert ["runs", "test_accuracy", "DOUBLE"] in [line.split() for line in said.splitlines()]
    assert "SELECT method" in said
