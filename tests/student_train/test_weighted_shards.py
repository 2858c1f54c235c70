"""Tests of the values of `--shards`."""

from __future__ import annotations

from fractions import Fraction

import pytest

from student_train.config import Config, from_dict
from student_train.errors import TrainError
from student_train.weighted_shards import parse_sources, shares_of


@pytest.mark.parametrize(
    ("value", "path", "weight"),
    [
        ("shards/", "shards/", None),
        ("shards/=0.7", "shards/", Fraction(7, 10)),
        ("s3://bucket/a=2", "s3://bucket/a", Fraction(2)),
        ("a=.5", "a", Fraction(1, 2)),
        ("a=1e-3", "a", Fraction(1, 1000)),
        ("s3://bucket/day=7/", "s3://bucket/day=7/", None),
        ("s3://bucket/day=7/=3", "s3://bucket/day=7/", Fraction(3)),
        ("a=b", "a=b", None),
        ("a=nan", "a=nan", None),
    ],
)
def test_a_value_is_a_path_with_or_without_a_weight(value: str, path: str, weight: Fraction | None) -> None:
    (source,) = parse_sources([value])
    assert (source.path, source.weight) == (path, weight)


def test_shares_are_weights_divided_by_their_sum() -> None:
    assert shares_of(parse_sources(["a=7", "b=3"])) == (Fraction(7, 10), Fraction(3, 10))
    assert shares_of(parse_sources(["a=0.1", "b=0.2"])) == (Fraction(1, 3), Fraction(2, 3))
    assert shares_of(parse_sources(["a", "b"])) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "shards: found none, expected at least one"),
        (["a=0.5", "b"], "found no weight for b and weights for 1 others.*write b=WEIGHT"),
        (["a=0", "b=1"], "found weight 0 for a, expected a number above 0"),
        (["a=-1", "b=1"], "found weight -1 for a"),
    ],
)
def test_weights_that_make_no_shares_are_refused(values: list[str], message: str) -> None:
    with pytest.raises(TrainError, match=message):
        parse_sources(values)


def test_a_growing_cache_beside_others_needs_weights() -> None:
    for caches in (("a",), ("a=1", "b=1")):
        Config(shards=caches, follow=True, max_steps=5)
    with pytest.raises(TrainError, match=r"follow with 2 caches: found no weights, .* write a=WEIGHT"):
        Config(shards=("a", "b"), follow=True, max_steps=5)


def test_the_record_of_one_cache_is_text_and_of_several_a_list() -> None:
    for shards, stored in ((("a",), "a"), (("a=1",), "a=1"), (("a", "b"), ["a", "b"])):
        settings = Config(shards=shards).to_dict()
        assert settings["shards"] == stored
        assert from_dict(settings).shards == shards
