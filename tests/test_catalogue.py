"""The catalogue: the papers, and what the registry says of them."""

from __future__ import annotations

import pytest

from equivox import methods
from equivox.catalogue import entries, papers


def test_papers_have_unique_keys_and_known_categories() -> None:
    keys = [paper["key"] for paper in papers()]
    assert len(set(keys)) == len(keys)
    known = {"data", "feed-forward", "objective", "optimization", "target", "analysis"}
    assert {paper["category"] for paper in papers()} == known


def test_the_whole_catalogue_and_the_whole_registry() -> None:
    found = {entry["key"]: entry for entry in entries()}
    assert set(found) == {paper["key"] for paper in papers()} | set(methods.names())
    for key, entry in found.items():
        fields = {"key", "name", "title", "venue", "url", "category", "implemented", "fidelity"}
        assert set(entry) == fields
        assert entry["implemented"] == (key in methods.names())
        assert entry["fidelity"] == (methods.get(key).fidelity if entry["implemented"] else None)


def test_methods_and_papers_agree_on_the_category() -> None:
    for entry in entries():
        if entry["implemented"]:
            assert methods.get(entry["key"]).category == entry["category"], entry["key"]


def test_one_category_alone() -> None:
    assert "joint" in {entry["key"] for entry in entries("yardstick")}
    assert {entry["category"] for entry in entries("objective")} == {"objective"}
    with pytest.raises(ValueError, match="Did you mean `optimization`"):
        entries("optimisation")
