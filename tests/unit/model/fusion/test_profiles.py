"""Attributes are given as codes or in words; a wrong one is answered with those that exist."""

from __future__ import annotations

import pytest

from model.fusion.profiles import AGE_CODES, AGES, JOBS, Profile, ProfileError, parse_age, parse_gender, parse_job


@pytest.mark.parametrize("position", range(len(AGES)))
def test_an_age_is_given_as_code_or_in_words(position: int) -> None:
    assert parse_age(str(AGE_CODES[position])) == parse_age(AGES[position]) == parse_age(AGES[position].upper())
    assert parse_age(AGES[position]) == position


def test_published_numbers_of_ages_are_known_where_movielens_has_no_such_code() -> None:
    assert [parse_age(str(number)) for number in (0, 2, 3, 4, 5, 6)] == [0, 2, 3, 4, 5, 6]
    assert parse_age("1") == 0  # MovieLens' code


@pytest.mark.parametrize("position", range(len(JOBS)))
def test_an_occupation_is_given_as_code_in_words_or_by_one_side_of_the_slash(position: int) -> None:
    assert parse_job(str(position)) == parse_job(f" {JOBS[position].upper()} ") == position
    assert all(parse_job(side) == position for side in JOBS[position].split("/"))


@pytest.mark.parametrize(("texts", "position"), [(("M", "male", "0", "m"), 0), (("F", "Female", "1", "f"), 1)])
def test_a_gender_is_given_as_code_in_words_or_by_its_published_number(texts: tuple[str, ...], position: int) -> None:
    assert [parse_gender(text) for text in texts] == [position] * 4


def test_a_wrong_attribute_lists_those_that_exist() -> None:
    with pytest.raises(ProfileError, match=r"no age '33'; allowed.*: 1 \(under 18\), 18 \(18-24\), .*56 \(56\+\)"):
        parse_age("33")
    with pytest.raises(ProfileError, match=r"no job 'astronaut'; allowed.*12 \(programmer\).*20 \(writer\)"):
        parse_job("astronaut")
    with pytest.raises(ProfileError, match=r"no gender 'x'; allowed.*: M \(male\), F \(female\)"):
        parse_gender("x")


def test_a_profile_is_shown_in_words() -> None:
    assert str(Profile(1, 2, 12)) == "female, 25-34, programmer"
