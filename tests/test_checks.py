"""One voice for errors: the rule, what was received, the way out."""

import math
from typing import Annotated, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msam import checks
from msam.checks import Range, Search

finite = st.floats(allow_nan=False, allow_infinity=False)


class TestRange:
    @settings(deadline=None)
    @given(finite, finite)
    def test_ge_and_le_hold_their_bounds_and_gt_and_lt_do_not(self, bound, value):
        assert Range(ge=bound).holds(value) == (value >= bound)
        assert Range(gt=bound).holds(value) == (value > bound)
        assert Range(le=bound).holds(value) == (value <= bound)
        assert Range(lt=bound).holds(value) == (value < bound)

    @settings(deadline=None)
    @given(finite)
    def test_without_bounds_every_number_is_inside(self, value):
        assert Range().holds(value)

    @pytest.mark.parametrize("allowed", [Range(), Range(ge=0), Range(lt=1)], ids=str)
    def test_nan_is_never_inside(self, allowed):
        assert not allowed.holds(math.nan)

    @pytest.mark.parametrize(
        ("allowed", "words"),
        [(Range(ge=0), ">= 0"), (Range(gt=0, le=1), "> 0 and <= 1"), (Range(ge=-0.5, lt=1e6), ">= -0.5 and < 1e+06")],
        ids=str,
    )
    def test_it_says_what_it_allows(self, allowed, words):
        assert allowed.describe() == words


class TestInRange:
    @pytest.mark.parametrize("value", [0, 0.0, 3, 1e300, math.inf, np.float32(2), np.int64(2)])
    def test_what_is_inside_is_returned_as_it_is(self, value):
        assert checks.in_range("rho", value, Range(ge=0)) is value

    @pytest.mark.parametrize("value", [-0.1, math.nan, "0.1", None, [0.1], True], ids=repr)
    def test_what_is_outside_or_no_number_is_refused_with_the_rule_and_what_was_received(self, value):
        with pytest.raises(ValueError, match="`rho` must be >= 0, received ") as error:
            checks.in_range("rho", value, Range(ge=0))
        assert repr(value) in str(error.value)


class TestNames:
    OPTIONS = ("joint", "ogm_ge", "agm")

    @pytest.mark.parametrize("value", OPTIONS)
    def test_a_known_name_is_returned(self, value):
        assert checks.one_of("method", value, iter(self.OPTIONS)) == value

    def test_an_unknown_name_gets_the_nearest_and_the_list_in_order(self):
        with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
            checks.one_of("method", "ogm", self.OPTIONS)
        assert str(error.value) == "Unknown method 'ogm'. Did you mean 'ogm_ge'? Known: agm, joint, ogm_ge."

    @pytest.mark.parametrize("value", ["zzzzzz", "", 3, None], ids=repr)
    def test_where_nothing_is_near_nothing_is_guessed(self, value):
        with pytest.raises(ValueError, match=r"Unknown method .*\. Known: agm, joint, ogm_ge\."):
            checks.one_of("method", value, self.OPTIONS)
        assert checks.did_you_mean(value, self.OPTIONS) == ""

    @settings(deadline=None)
    @given(st.text(), st.lists(st.text()))
    def test_a_guess_is_always_one_of_the_options(self, value, options):
        guess = checks.did_you_mean(value, options)
        assert guess == "" or any(guess == f" Did you mean {option!r}?" for option in options)


class TestArguments:
    @staticmethod
    def rule(a: Annotated[float, Range(ge=0)], b: Annotated[float | None, Range(lt=1)] = None, c: int = 0) -> None:
        """A function whose annotations carry ranges."""

    @staticmethod
    def choice(kind: Literal["late", "early"], form: Literal["paper"] | None = None, size: int = 0) -> None:
        """A function whose annotations carry words."""

    def test_words_are_read_off_an_annotation(self):
        assert checks.parameter_words(Literal["late", "early"]) == ("late", "early")
        assert checks.parameter_words(Literal["late", "early"] | None) == ("late", "early")
        assert checks.parameter_words(int | None) == checks.parameter_words(str) == ()

    @pytest.mark.parametrize("given", [{"kind": "late"}, {"kind": "early", "form": None, "size": 3}, {"other": 1}])
    def test_a_word_of_the_choice_passes_and_so_does_none_where_it_is_admitted(self, given):
        checks.arguments_among_words(self.choice, given)

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"kind": "lat"}, r"Unknown kind 'lat'\. Did you mean 'late'\? Known: early, late\."),
            ({"kind": None}, "Unknown kind None"),
            ({"kind": "late", "form": "papr"}, r"Unknown form 'papr'\. Did you mean 'paper'\?"),
        ],
    )
    def test_any_other_word_is_refused(self, given, said):
        with pytest.raises(ValueError, match=said):
            checks.arguments_among_words(self.choice, given)

    def test_a_range_is_read_off_an_annotation(self):
        assert checks.parameter_range(Annotated[float, "note", Range(ge=0)]) == Range(ge=0)
        assert checks.parameter_range(Annotated[float, "note"]) is None
        assert checks.parameter_range(float) is None

    @pytest.mark.parametrize("arguments", [{"a": 0.0}, {"a": 1, "b": None}, {"a": 1, "b": 0.5, "c": -3}, {}], ids=str)
    def test_arguments_inside_none_and_left_out_ones_are_let_through(self, arguments):
        checks.arguments_in_range(self.rule, arguments)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [({"a": -1}, "`a` must be >= 0, received -1."), ({"a": 0, "b": 1}, "`b` must be < 1, received 1.")],
        ids=str,
    )
    def test_the_first_argument_outside_is_named(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            checks.arguments_in_range(self.rule, arguments)


class TestSearch:
    @pytest.mark.parametrize(
        ("space", "inside", "outside"),
        [
            (Search(0.1, 1.0), [0.1, 0.5, 1.0, 1, np.float64(0.3)], [0.09, 1.1, math.nan, None, "0.5", True]),
            (Search(1, 8, whole=True), [1, 8, 2.0], [0, 9, 1.5, False]),
            (Search(choices=(0.0, 1e-4)), [0.0, 1e-4], [1e-5, None]),
            (Search(choices=("late", "early")), ["late"], ["lat"]),
        ],
        ids=lambda value: value.describe() if isinstance(value, Search) else "",
    )
    def test_it_holds_what_is_between_its_ends_or_among_its_choices(self, space, inside, outside):
        assert all(space.holds(value) for value in inside)
        assert not any(space.holds(value) for value in outside)

    @pytest.mark.parametrize(
        ("given", "rule"),
        [
            ({}, "low < high"),
            ({"low": 1.0}, "low < high"),
            ({"low": 1.0, "high": 1.0}, "low < high"),
            ({"low": 0.0, "high": math.inf}, "both finite"),
            ({"low": 0.0, "high": 1.0, "log": True}, "begin above 0"),
            ({"low": 0.5, "high": 2.0, "whole": True}, "whole numbers"),
            ({"choices": (1,)}, "two or more"),
            ({"choices": (1, 1)}, "all different"),
            ({"choices": (1, 2), "high": 3.0}, "no ends"),
        ],
        ids=str,
    )
    def test_what_is_no_space_is_refused(self, given, rule):
        with pytest.raises(ValueError, match=rule):
            Search(**given)

    def test_an_annotation_carries_it_and_its_type_says_whether_numbers_are_whole(self):
        found = {
            annotation: checks.parameter_search(annotation)
            for annotation in (
                Annotated[int, Range(ge=1), Search(1, 8)],
                Annotated[int | None, Search(1, 8)],
                Annotated[float, Search(1, 8)],
                Annotated[str, Search(choices=("a", "b"))],
            )
        }
        assert [space.whole for space in found.values()] == [True, True, False, False]
        assert checks.parameter_search(Annotated[int, Range(ge=1)]) is None
        assert checks.parameter_search(int) is None
