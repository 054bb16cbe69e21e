"""Attacks in a word: read, spelled, and refused where the word means nothing."""

import pytest

from zsar.attacks import attack_from_settings, attack_settings, most_steps, parse_attack, spell_attack
from zsar.errors import AttackSettingsError, UnknownNameError


@pytest.mark.parametrize(("word", "whole", "some"), [
    ("none", "none", {}),
    ("fgsm", "fgsm@4", {"alpha_255": 4, "steps": 1, "random_start": False}),
    ("fgsm@2", "fgsm@2", {"eps_255": 2}),
    ("pgd", "pgd-10@4:1", {"iterate": "last", "random_start": True}),
    ("pgd-20", "pgd-20@4:1", {"steps": 20}),
    ("pgd-20-worst", "pgd-20-worst@4:1", {"iterate": "worst"}),
    ("pgd-20-last", "pgd-20@4:1", {"iterate": "last"}),
    ("pgd-100@1:1", "pgd-100@1:1", {"eps_255": 1, "alpha_255": 1}),
    ("pgd-7@0.5", "pgd-7@0.5:0.125", {"alpha_255": .125}),
    ("pgd-worst@8", "pgd-10-worst@8:2", {"eps_255": 8}),
])
def test_words_and_settings(word, whole, some):
    settings = parse_attack(word, 4)
    assert spell_attack(settings) == whole and some.items() <= settings.items()
    assert parse_attack(whole, 99) == settings  # everything stands in it
    assert (attack_from_settings(settings) is None) == (word == "none")


def test_numbers_survive_their_spelling():
    settings = attack_settings("pgd", 1 / 3, steps=5)
    assert parse_attack(spell_attack(settings), 1) == settings


@pytest.mark.parametrize(("word", "steps"), [
    ("none", 1), ("fgsm", 1), ("pgd-20", 20), ("apgd-ce-7", 7), ("apgd-t-5", 45), ("square-30", 30),
    ("ensemble", 100 + 900 + 5000), ("autoattack", 100 + 900 + 900 + 5000)])
def test_the_most_steps_of_an_attack(word, steps):
    assert most_steps(parse_attack(word, 4)) == steps


@pytest.mark.parametrize(("word", "error", "message"), [
    ("pgdd-20", UnknownNameError, "unknown attack 'pgdd'"),
    ("pgd 20", AttackSettingsError, "expected NAME"),
    ("pgd-20-best", AttackSettingsError, "expected NAME"),
    ("pgd-0", AttackSettingsError, "steps = 0"),
    ("pgd-20@300", AttackSettingsError, "grey levels from 0 to 255"),
    ("pgd-20@4:0", AttackSettingsError, "alpha = 0"),
    ("pgd-20@1.2.3", AttackSettingsError, "expected numbers"),
    ("none-20", AttackSettingsError, "none has no steps"),
    ("none@4", AttackSettingsError, "none has no eps"),
    ("fgsm-20", AttackSettingsError, "fgsm has no steps"),
    ("fgsm-worst", AttackSettingsError, "fgsm has no iterate"),
    ("", AttackSettingsError, "expected NAME"),
])
def test_what_means_nothing(word, error, message):
    with pytest.raises(error, match=message):
        parse_attack(word, 4)
