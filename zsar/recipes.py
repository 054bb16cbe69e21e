"""How an adaptation is trained: the settings, and sets of them by name."""

import math
from dataclasses import dataclass, fields, replace

from zsar.attacks import check_settings, from_grey_levels
from zsar.errors import AdaptationError, unknown_name
from zsar.methods import parts


@dataclass(frozen=True)
class Recipe:
    """Everything that decides an adaptation but the model, the source images and the loss.

    eps and alpha are in grey levels (4 = 4/255). A batch is split into ``accumulate`` equal parts, whose gradients
    add up. ``lr`` is the image tower's rate, ``prompt_lr`` that of pad and token prompts.
    """

    optimizer: str = "adamw"
    lr: float = 1e-3
    prompt_lr: float = 1e-1
    weight_decay: float = 1e-4
    momentum: float = 0.9  # of SGD
    batch: int = 64
    steps: int = 300
    warmup: int = 30
    eps_255: float = 4
    alpha_255: float = 4
    attack_steps: int = 2
    attack_momentum: float = 0.0
    pad: int = 9
    tokens: int = 144
    precision: str = "fp32"
    accumulate: int = 1
    held_out: int = 200  # source images that are never trained on: they choose among checkpoints and rates
    validate_every: int = 100
    keep: str = "best"  # the checkpoint that is best on them, or the last
    seed: int = 0

    def __post_init__(self):
        for field in fields(self):  # numpy's numbers become Python's, which a checkpoint can hold
            if hasattr(value := getattr(self, field.name), "item"):
                object.__setattr__(self, field.name, value.item())

    def check(self) -> None:
        """Raise AdaptationError, AttackSettingsError or UnknownNameError for what cannot be meant."""
        for field in fields(self):
            value, kind = getattr(self, field.name), field.type
            if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
                raise AdaptationError(f"{field.name} = {value!r}: expected " + {
                    int: "a whole number", float: "a number", str: "a name"}[kind])
        for name, known in (("optimizer", ("adamw", "sgd")), ("precision", ("fp32", "bf16")),
                            ("keep", ("best", "last"))):
            if getattr(self, name) not in known:
                raise unknown_name(name, str(getattr(self, name)), known)
        for name in ("batch", "steps", "accumulate", "held_out", "validate_every", "attack_steps"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise AdaptationError(f"{name} = {getattr(self, name)}: expected a whole number of at least 1")
        for name in ("lr", "prompt_lr", "weight_decay"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise AdaptationError(f"{name} = {getattr(self, name)}: expected a number of at least 0")
        for name in ("momentum", "attack_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise AdaptationError(f"{name} = {getattr(self, name)}: expected a number from 0 to below 1")
        if not isinstance(self.warmup, int) or not 0 <= self.warmup < self.steps:
            raise AdaptationError(f"warmup = {self.warmup}: expected a whole number of steps, fewer than all "
                                  f"{self.steps}")
        if self.batch % self.accumulate:
            raise AdaptationError(f"a batch of {self.batch} does not divide into accumulate = {self.accumulate} parts")
        if not (isinstance(self.seed, int) and 0 <= self.seed < 2**23):  # its images' seeds have 63 bits
            raise AdaptationError(f"seed {self.seed}: expected a whole number from 0 to {2**23 - 1}")
        check_settings(eps=from_grey_levels(self.eps_255), alpha=from_grey_levels(self.alpha_255, "alpha"),
                       steps=self.attack_steps)

    def rate(self, method: str) -> float:
        """The rate by which a search over ``method`` goes: that of the tower where it is trained, else the prompts'."""
        return getattr(self, _rate_of(method))

    def at_rate(self, method: str, rate: float) -> "Recipe":
        """The same recipe with another ``rate(method)``."""
        return replace(self, **{_rate_of(method): rate})


def _rate_of(method: str) -> str:
    return "prompt_lr" if {"pad", "token"}.issuperset(parts(method)) else "lr"


#: ``drawn``: for the drawn CLIP. ``paper``: Mao et al. (2023), 10 epochs of ImageNet at eps 1/255; the rates are those
#: that followers found it to have been trained with. ``fare``: Schlarmann et al. (2024), 2 epochs; it names no rate
#: for prompts, the one here is the drawn recipe's; the momentum of its attack acts on signs that are taken again after
#: every step, which in L_inf changes nothing. ``colab``: its optimizer with the paper's cheap attack, for minutes, in
#: fp32, for a T4 has no bfloat16.
RECIPES = {
    "drawn": Recipe(),
    "paper": Recipe(optimizer="sgd", lr=1e-5, prompt_lr=40, weight_decay=0, batch=256, steps=50_000, warmup=1000,
                    eps_255=1, alpha_255=1, pad=40, tokens=200, precision="bf16", held_out=1000, validate_every=1000),
    "fare": Recipe(lr=1e-5, weight_decay=1e-4, batch=128, steps=20_000, warmup=1400, eps_255=1, alpha_255=1,
                   attack_steps=10, pad=40, tokens=200, precision="bf16", held_out=1000,
                   validate_every=1000),
    "colab": Recipe(lr=1e-5, batch=128, steps=500, warmup=50, eps_255=1, alpha_255=1, pad=40, tokens=200,
                    validate_every=250),
}


def get_recipe(name: str, **changes) -> Recipe:
    """The recipe called ``name`` with some settings changed (those that are None stay), checked.

    Unless they are given too, the warm-up is never more than a tenth of changed ``steps``, and alpha keeps its ratio to
    a changed eps. Raises UnknownNameError and what ``check`` raises.
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    changes = {key: value for key, value in changes.items() if value is not None}
    if unknown := changes.keys() - {field.name for field in fields(Recipe)}:
        raise unknown_name("setting of a recipe", min(unknown), [field.name for field in fields(Recipe)])
    steps = changes.get("steps")
    if "warmup" not in changes and isinstance(steps, int) and steps < 10 * RECIPES[name].warmup:
        changes["warmup"] = changes["steps"] // 10
    if "alpha_255" not in changes and isinstance(eps := changes.get("eps_255"), (int, float)) and eps > 0:
        changes["alpha_255"] = eps * RECIPES[name].alpha_255 / RECIPES[name].eps_255
    recipe = replace(RECIPES[name], **changes)
    recipe.check()
    return recipe
