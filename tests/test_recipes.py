"""Recipes: the paper's numbers, the shorter warm-up, one rate a method, and what cannot be meant."""

import math
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsar.adapt import OPTIONS
from zsar.errors import AdaptationError, AttackSettingsError, UnknownNameError
from zsar.methods import METHODS
from zsar.profiles import PROFILES
from zsar.recipes import RECIPES, Recipe, get_recipe


def test_the_papers_protocol_is_the_default_of_the_full_profile():
    paper = get_recipe(PROFILES["full"].recipe)
    assert paper is not None and paper == RECIPES["paper"]
    assert (paper.optimizer, paper.momentum, paper.weight_decay) == ("sgd", .9, 0)
    assert (paper.lr, paper.prompt_lr, paper.batch, paper.warmup) == (1e-5, 40, 256, 1000)
    assert (paper.eps_255, paper.alpha_255, paper.attack_steps, paper.attack_momentum) == (1, 1, 2, 0)
    assert (paper.pad, paper.tokens) == (40, 200)
    epochs = paper.steps * paper.batch / 1_281_167
    assert epochs == pytest.approx(10, rel=.01)


def test_the_recipe_of_fare():
    fare = get_recipe("fare")
    assert (fare.optimizer, fare.lr, fare.weight_decay, fare.batch) == ("adamw", 1e-5, 1e-4, 128)
    assert (fare.attack_steps, fare.attack_momentum, fare.steps, fare.warmup) == (10, 0, 20_000, 1400)
    assert fare.steps * fare.batch / 1_281_167 == pytest.approx(2, rel=.01)


def test_the_drawn_sizes_are_the_papers_in_proportion():
    drawn = get_recipe(PROFILES["drawn"].recipe)
    assert drawn.pad == round(48 * 40 / 224) and drawn.tokens == 4 * (48 // 8)**2  # four a patch token, as 200 of 49


def test_alpha_goes_with_eps():
    assert get_recipe("paper", eps_255=4).alpha_255 == 4 and get_recipe("drawn", eps_255=2).alpha_255 == 2
    assert get_recipe("drawn", eps_255=0).alpha_255 == 4  # an attack of no radius: its step does not matter
    assert get_recipe("drawn", eps_255=8, alpha_255=1).alpha_255 == 1


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_makes_sense(name):
    recipe = get_recipe(name)
    assert recipe == RECIPES[name] and recipe.warmup <= recipe.steps / 10


@settings(deadline=None)
@given(steps=st.integers(8, 100_000), name=st.sampled_from(sorted(RECIPES)))
def test_a_shorter_training_warms_up_for_a_tenth(steps, name):
    found = get_recipe(name, steps=steps)
    assert found.warmup == min(RECIPES[name].warmup, steps // 10) and found.steps == steps
    assert get_recipe(name, steps=steps, warmup=7).warmup == 7


def test_none_changes_nothing():
    assert get_recipe("paper", lr=None, steps=None) == RECIPES["paper"]


@pytest.mark.parametrize("method", METHODS)
def test_the_rate_of_a_method_is_the_towers_where_it_is_trained(method):
    recipe = Recipe(lr=.5, prompt_lr=.25)
    prompts_only = not ("finetune" in method or "blocks" in method)
    assert recipe.rate(method) == (.25 if prompts_only else .5)
    moved = recipe.at_rate(method, .125)
    assert moved.rate(method) == .125
    assert moved == replace(recipe, **{"prompt_lr" if prompts_only else "lr": .125})


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"optimizer": "adam"}, UnknownNameError, "optimizer 'adam': expected one of adamw, sgd"),
    ({"precision": "fp16"}, UnknownNameError, "precision 'fp16': expected one of bf16, fp32"),
    ({"keep": "first"}, UnknownNameError, "keep 'first': expected one of best, last"),
    ({"optimiser": "sgd"}, UnknownNameError, "setting of a recipe 'optimiser': did you mean optimizer"),
    ({"lr": -1}, AdaptationError, "lr = -1: expected a number of at least 0"),
    ({"prompt_lr": math.nan}, AdaptationError, "prompt_lr = nan"),
    ({"weight_decay": math.inf}, AdaptationError, "weight_decay = inf"),
    ({"warmup": -1}, AdaptationError, "warmup = -1"), ({"batch": 0}, AdaptationError, "batch = 0"),
    ({"steps": 0}, AdaptationError, "steps = 0: expected a whole number"), ({"steps": 2.5}, AdaptationError, "2.5"),
    ({"batch": math.nan}, AdaptationError, "batch = nan"), ({"held_out": 0}, AdaptationError, "held_out = 0"),
    ({"validate_every": 0}, AdaptationError, "validate_every = 0"),
    ({"batch": 10, "accumulate": 4}, AdaptationError, "a batch of 10 does not divide into accumulate = 4 parts"),
    ({"seed": -1}, AdaptationError, "seed -1"), ({"seed": 2**23}, AdaptationError, "0 to 8388607"),
    ({"seed": .5}, AdaptationError, "seed = 0.5: expected a whole number"),
    ({"eps_255": 256}, AttackSettingsError, "eps = 256"),
    ({"alpha_255": 0}, AttackSettingsError, "alpha = 0"), ({"attack_steps": 0}, AdaptationError, "attack_steps = 0"),
    ({"attack_momentum": -1}, AdaptationError, "attack_momentum = -1"),
    ({"steps": "4"}, AdaptationError, "steps = '4': expected a whole number"),
    ({"lr": "1e-3"}, AdaptationError, "lr = '1e-3': expected a number"),
    ({"batch": True}, AdaptationError, "batch = True"),
    ({"momentum": 1.5}, AdaptationError, "momentum = 1.5: expected a number from 0 to below 1"),
    ({"warmup": 300}, AdaptationError, "warmup = 300: expected a whole number of steps, fewer than all 300")])
def test_what_cannot_be_meant(changes, error, message):
    with pytest.raises(error, match=message):
        get_recipe("drawn", **changes)


def test_an_unknown_recipe_names_its_neighbours():
    with pytest.raises(UnknownNameError, match="unknown recipe 'papers': expected one of colab, drawn, fare, paper"):
        get_recipe("papers")


def test_numbers_of_numpy_become_pythons():
    recipe = Recipe(lr=np.logspace(-4, -2, 3)[1], steps=np.int64(20))
    assert {type(value) for value in asdict(recipe).values()} == {int, float, str}


def test_every_setting_is_an_option_of_the_command_line():
    assert list(OPTIONS) == [field.name for field in fields(Recipe)]
