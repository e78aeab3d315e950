"""Texts: cleaning, hashed words, tokenizers of a folder, lists in files."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
import torch

from equivox.data import tables, text
from equivox.data.decoders import Text


def test_cleaning_takes_marks_of_tweets_away() -> None:
    assert text.cleaned("  RT see https://a.b/c?d=1 #pie  now") == "see pie now"
    assert text.cleaned("ART of www.pies.com RT") == "ART of RT"


def test_hashed_words_are_the_same_everywhere() -> None:
    found = text.hashed_tokens("Apple pie, apple!", 6, 1000)
    assert found.dtype == torch.int64
    assert found[0] == found[3] and found[5] == 0
    assert len(set(found[:5].tolist())) == 4  # apple pie , !
    assert text.hashed_tokens("a b c d", 2, 10).shape == (2,)
    assert text.hashed_tokens("", 3, 10).tolist() == [0, 0, 0]
    many = text.hashed_tokens(" ".join(map(str, range(500))), 500, 5)
    assert set(many.tolist()) == {1, 2, 3, 4}  # 0 stays padding


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer as BERT's is distributed."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "apple", "pie", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return tmp_path


def test_a_tokenizer_of_a_folder_is_used(folder: Path) -> None:
    pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    decoder = Text.of(str(folder), length=7)
    assert decoder.finish("Apple pies", None, decoder.load).tolist() == [2, 5, 6, 7, 3, 0, 0]
    assert decoder.finish("apple " * 9, None, decoder.load).tolist() == [2, 5, 5, 5, 5, 5, 3]


def test_the_files_of_a_tokenizer_are_a_part_of_the_id_and_its_place_is_not(folder: Path) -> None:
    first = repr(Text.of(str(folder)))
    assert str(folder) not in first
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]")
    assert repr(Text.of(str(folder))) != first
    with pytest.raises(FileNotFoundError, match="folder with a tokenizer"):
        Text.of(str(folder / "nowhere"))


def test_a_tokenizer_needs_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    decoder = Text.of(str(folder))
    with pytest.raises(ImportError, match=r"equivox\[hf\]"):
        decoder.finish("pie", None, decoder.load)


# ── lists ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "content",
    [
        b"a,1\nb,2\n",
        b"\xef\xbb\xbfa,1\r\nb,2\r\n",
        b"a;1\nb;2",
        b"a\t1\n\nb\t2\n",
        b"a&1\nb&2",
        b' a , 1\n"b",2\n',
        b"a|1\nb|2\n",
    ],
)
def test_rows_are_read_whatever_separates_them(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert tables.rows(tmp_path / "a.csv", fields=2) == [["a", "1"], ["b", "2"]]


def test_quoted_fields_keep_their_commas(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('x,3,"playing, loudly",train\ny,4,singing,test\n')
    assert tables.rows(tmp_path / "a.csv")[0] == ["x", "3", "playing, loudly", "train"]


def test_quoted_fields_may_hold_ends_of_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('x,"two\nlines"\ny,with a "word"\nz,a\u2028b\n', "utf-8")
    found = [["x", "two\nlines"], ["y", 'with a "word"'], ["z", "a\u2028b"]]
    assert tables.rows(tmp_path / "a.csv", fields=2) == found


def test_a_field_may_be_as_long_as_the_file(tmp_path: Path) -> None:
    limit, long = csv.field_size_limit(), "b" * 140_000
    (tmp_path / "a.csv").write_text(f'a,"{long}"\n')
    assert tables.rows(tmp_path / "a.csv", fields=2) == [["a", long]]
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("text", ['a,"b\nc,d\n', 'a,"b\nc,"d\n', 'a\t"b\nc\td\n'])
def test_a_single_quotation_mark_swallows_no_rows(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=r"Quotation marks of `.*a\.csv` .* in line 2"):
        tables.rows(tmp_path / "a.csv")


def test_malformed_lists_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,1\nb\n")
    with pytest.raises(ValueError, match=r"2 fields\. Found 1 in line 2"):
        tables.rows(path, fields=2)
    path.write_text("\n \n")
    with pytest.raises(ValueError, match="should have rows"):
        tables.rows(path)
    with pytest.raises(ValueError, match="should have lines"):
        tables.lines(path)
    path.write_bytes(b"caf\xe9,1\n")
    with pytest.raises(ValueError, match="text in UTF-8"):
        tables.rows(path)
    with pytest.raises(FileNotFoundError, match=r"Found only `a\.csv` in"):
        tables.rows(tmp_path / "b.csv")
    with pytest.raises(FileNotFoundError, match="Found no folder"):
        tables.rows(tmp_path / "nowhere" / "b.csv")


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("label;Name\n1;a\n2;b\n")
    assert tables.records(path, ("Name",)) == [
        {"label": "1", "Name": "a"},
        {"label": "2", "Name": "b"},
    ]
    with pytest.raises(ValueError, match=r"Found no `Nome` .* Did you mean `Name`"):
        tables.records(path, ("Nome",))
    path.write_text("label;Name\n1;a\n2\n")
    with pytest.raises(ValueError, match=r"2 fields\. Found 1 in row 3"):
        tables.records(path, ("Name",), separator=";")
    path.write_text("label;Name\n")
    with pytest.raises(ValueError, match="below its header"):
        tables.records(path, ("Name",))


def test_lines_and_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": 1}\n\n{"id": 2}\n')
    assert tables.json_lines(path) == [{"id": 1}, {"id": 2}]
    assert tables.lines(path)[1] == '{"id": 2}'
    with pytest.raises(ValueError, match="should be JSON"):
        tables.read_json(path)
    path.write_text('{"id": 1}\n{"id"')
    with pytest.raises(ValueError, match="in line 2"):
        tables.json_lines(path)
    path.write_text('{"text": "a\u2028b"}\n', "utf-8")
    assert tables.json_lines(path) == [{"text": "a\u2028b"}]


def test_a_key_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"database": {"clip": {"label": "a"}, "clip": {"label": "b"}}}')
    for read in (tables.read_json, tables.json_lines):
        with pytest.raises(ValueError, match="more than once, such as `clip`"):
            read(path)
