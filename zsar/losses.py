"""What an adaptation minimises, and what its attack maximises.

Notation, the same everywhere: x a clean image, x_a the attacked one, F the image tower being adapted, F0 the original
one, ``z = F(x)/|F(x)|`` and ``z_a = F(x_a)/|F(x_a)|``, u_k the unit text embedding of class k of K, s the logit scale,
y the label. A new loss is a subclass of ``Loss`` with one method, ``per_image``, and a line in ``LOSSES`` (or the
class itself, handed to ``zsar.adapt.adapt``).
"""

import hashlib
from collections.abc import Callable
from functools import partial
from types import CodeType, FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsar.attacks import Objective
from zsar.clip import Clip
from zsar.errors import AdaptationError, unknown_name

OURS = "named in Mao et al. (2023) without a formula or code; this definition is this project's own"
#: Learning rates with which a fresh head fits its classes within a few hundred steps.
FAST_HEAD_RATE = {"adamw": 1e-2, "sgd": 1e-1}


class Loss(nn.Module):
    """Base of all losses; its own parameters, if it has any, are trained along and dropped at test time.

    original: the CLIP before the adaptation, frozen. text: unit text embeddings of the source's classes [K, D].
    ``attack_maximises``, ``training_minimises`` and ``source`` say in words and symbols what a loss is.
    """

    attack_maximises = training_minimises = source = ""
    attacked = True  # False: trains on clean images
    fitted = False  # True: ``fit`` is called before the first step
    #: In one forward pass, below which the loss says nothing. More than 1: it compares images of a batch with each
    #: other, so that ``prepare`` is shown all of a batch even where several ranks share it.
    least_images = 1

    def __init__(self, original: Clip, text: Tensor, seed: int = 0):
        super().__init__()
        self._original = (original,)  # in a tuple: its weights are not this module's
        self.register_buffer("text", text, persistent=False)
        self.scale, self.seed = original.logit_scale, seed

    @property
    def original(self) -> Clip:
        """The CLIP before the adaptation."""
        return self._original[0]

    def prepare(self, student: Clip, images: Tensor, labels: Tensor) -> Any:
        """What the embeddings of a batch are compared with, computed once before its attack, without gradients.

        images [B, 3, H, W] clean, labels int64 [B]. By default the labels.
        """
        return labels

    def per_image(self, embeddings: Tensor, targets: Any, rows: Tensor) -> Tensor:
        """The loss of each image [b] from embeddings [b, D], not normalised, of rows ``rows`` [b] of the batch."""
        raise NotImplementedError

    def objective(self, student: Clip, targets: Any) -> Objective:
        """What the attack maximises, for ``zsar.attacks.pgd``."""
        return lambda images, rows: self.per_image(student.embed(images), targets, rows)

    def forward(self, student: Clip, images: Tensor, adversarial: Tensor, targets: Any,
                rows: Tensor | None = None) -> Tensor:
        """What training minimises: the mean over the batch, a scalar. By default that of what the attack maximises.

        rows: int64 [B], given where ``prepare`` was shown more images than these B: which of them these are.
        """
        rows = torch.arange(len(images), device=images.device) if rows is None else rows
        return self.per_image(student.embed(adversarial), targets, rows).mean()

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Called once before the first step, if ``fitted``, with the original's unit features [N, D] of images."""

    def head_rate(self, optimizer: str) -> float | None:
        """The learning rate of the loss's own parameters; None: that of the image tower."""
        return FAST_HEAD_RATE[optimizer]


def contrast(embeddings: Tensor, vectors: Tensor, scale: float, targets: Tensor) -> Tensor:
    """Cross-entropy [b] over the cosines, times ``scale``, of embeddings [b, D] with unit vectors [K, D].

    targets: the right vector's number, int64 [b], or weights of several [b, K]. In float32 even under autocast: at
    s = 100 the eight bits of a bf16 logit are too few.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        return F.cross_entropy(scale * F.normalize(embeddings, dim=-1) @ vectors.T, targets, reduction="none")


class TeCoA(Loss):
    """Text-guided contrastive adversarial training: mean over images of

        CE(s <z_a, u_k>_k, y) = -log( exp(s <z_a, u_y>) / sum_k exp(s <z_a, u_k>) )

    over the texts of all K classes, image to text only. Source: Mao et al. (2023) and their code.
    """

    attack_maximises = training_minimises = "CE(s <z_a, u_k>, y)"
    source = "Mao et al. (2023)"

    def per_image(self, embeddings: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """The cross-entropy against the texts."""
        return contrast(embeddings, self.text, self.scale, targets[rows])


class Clean(TeCoA):
    """The control: CE(s <z, u_k>_k, y) on clean images, with no attack."""

    attacked = False
    attack_maximises, training_minimises, source = "nothing", "CE(s <z, u_k>, y)", "the control"


class UnlabelledTeCoA(TeCoA):
    """TeCoA with the pseudo-label y' = argmax_k <F0(x), u_k>, the answer of the original CLIP to the clean image.

    Source: Mao et al. (2023), who report it without labels; the choice of the pseudo-label is followers'.
    """

    attack_maximises = training_minimises = "CE(s <z_a, u_k>, y')"
    source = "Mao et al. (2023) and followers"

    def prepare(self, student: Clip, images: Tensor, labels: Tensor) -> Tensor:
        """The pseudo-labels [B]; ``labels`` is not looked at."""
        with torch.autocast(images.device.type, enabled=False):  # of many near texts bf16 would name another
            return (self.original.features(images) @ self.text.T).argmax(1)


class Adv(Loss):
    """Adversarial training without text: mean of CE(W z_a + b, y), W a linear head [K, D] that is dropped at test time.

    ``head``: ``"fast"`` learns with ``FAST_HEAD_RATE``; ``"slow"`` with the image tower's rate; ``"prefit"`` is fitted
    to the original's clean features first and then learns with that rate. Source: named in Mao et al. (2023) without a
    formula; this definition, and the three heads, are this project's own.
    """

    attack_maximises = training_minimises = "CE(W z_a + b, y)"
    source = OURS

    def __init__(self, original: Clip, text: Tensor, seed: int = 0, *, head: str = "fast"):
        super().__init__(original, text, seed)
        if head not in ("fast", "slow", "prefit"):
            raise unknown_name("head", head, ("fast", "slow", "prefit"))
        self.kind, self.fitted = head, head == "prefit"
        classes, width = text.shape
        generator = torch.Generator().manual_seed(seed)
        weights = (2 * torch.rand(classes, width, generator=generator) - 1) * width**-0.5  # as nn.Linear begins
        self.weight, self.bias = nn.Parameter(weights.to(text.device)), nn.Parameter(text.new_zeros(classes))

    def per_image(self, embeddings: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """The cross-entropy against the head."""
        with torch.autocast(embeddings.device.type, enabled=False):
            logits = F.linear(F.normalize(embeddings.float(), dim=-1), self.weight, self.bias)
            return F.cross_entropy(logits, targets[rows], reduction="none")

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """A pre-fitted head: multinomial logistic regression by L-BFGS, lightly decayed."""
        optimizer = torch.optim.LBFGS(self.parameters(), max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(F.linear(features, self.weight, self.bias), labels)
            loss = loss + 1e-5 * self.weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)  # with gradients, whatever the mode outside
        self.zero_grad()

    def head_rate(self, optimizer: str) -> float | None:
        """Fast, or None: the image tower's."""
        return FAST_HEAD_RATE[optimizer] if self.kind == "fast" else None


class AdvFixed(Loss):
    """Adv without a head to learn: CE(s <z_a, v_k>_k, y) against fixed class vectors that know nothing of language.

    ``vectors``: ``"random"`` unit vectors, or ``"one-hot"``, the basis vectors e_k (needs K <= D).
    Source: this project's own. Raises AdaptationError where one-hot vectors do not fit.
    """

    attack_maximises = training_minimises = "CE(s <z_a, v_k>, y), v_k fixed"
    source = OURS

    def __init__(self, original: Clip, text: Tensor, seed: int = 0, *, vectors: str = "random"):
        super().__init__(original, text, seed)
        if vectors not in ("random", "one-hot"):
            raise unknown_name("vectors", vectors, ("random", "one-hot"))
        classes, width = text.shape
        if vectors == "one-hot":
            if classes > width:
                raise AdaptationError(f"one-hot class vectors: {classes} classes do not fit into {width} dimensions; "
                                      "use adv-random")
            fixed = torch.eye(width)[:classes]
        else:
            fixed = random_directions(classes, width, seed)
        self.register_buffer("vectors", fixed.to(text.device), persistent=False)

    def per_image(self, embeddings: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """The cross-entropy against the fixed vectors."""
        return contrast(embeddings, self.vectors, self.scale, targets[rows])


class CoAdv(Loss):
    """TeCoA's form without text: ``CE(s <z_a, w_k/|w_k|>_k, y)``, K learned class embeddings w_k in place of the texts.

    They start in random directions and learn with ``FAST_HEAD_RATE``. Source: named in Mao et al. (2023) without a
    formula; this definition is this project's own.
    """

    attack_maximises = training_minimises = "CE(s <z_a, w_k>, y), w_k learned"
    source = OURS

    def __init__(self, original: Clip, text: Tensor, seed: int = 0):
        super().__init__(original, text, seed)
        self.classes = nn.Parameter(random_directions(*text.shape, seed).to(text.device))

    def per_image(self, embeddings: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """The cross-entropy against the learned class embeddings."""
        return contrast(embeddings, F.normalize(self.classes, dim=-1), self.scale, targets[rows])


class ImgCoAdv(Loss):
    """Contrast between images only: z_a against the clean embeddings z_j of its batch,

        -mean_{j in P} log( exp(s <z_a, z_j>) / sum_i exp(s <z_a, z_i>) ),

    P the images of the same class, itself among them. The z_j are those of the model as it is at this step, held
    constant; where a batch is split to save memory, those of its part. Source: named in Mao et al. (2023) without a
    formula; this definition is this project's own, and has the form of the supervised contrastive loss of Khosla et
    al. (2020).
    """

    attack_maximises = training_minimises = "-mean over same-class j of log softmax(s <z_a, z_j>)"
    source = OURS
    least_images = 2

    def prepare(self, student: Clip, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Clean unit embeddings [B, D], and which of them are positives of which: weights [B, B], rows sum to 1."""
        same = (labels[:, None] == labels[None]).float()
        return student.features(images), same / same.sum(1, keepdim=True)

    def per_image(self, embeddings: Tensor, targets: tuple[Tensor, Tensor], rows: Tensor) -> Tensor:
        """The contrastive loss against the batch."""
        keys, positives = targets
        return contrast(embeddings, keys, self.scale, positives[rows])


class FARE(Loss):
    """Keep every embedding where the original had it: ``|F(x_a) - F0(x)|^2``, not normalised; no labels, no text.

    Source: Schlarmann et al. (ICML 2024) and their code.
    """

    attack_maximises = training_minimises = "|F(x_a) - F0(x)|^2"
    source = "Schlarmann et al. (2024)"

    def prepare(self, student: Clip, images: Tensor, labels: Tensor) -> Tensor:
        """The original's embeddings of the clean images [B, D]."""
        return self.original.embed(images)

    def per_image(self, embeddings: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """The squared distance."""
        return (embeddings - targets[rows]).square().sum(1)


#: The name on the command line and in tables -> ``loss(original, text, seed)``. One line adds a loss.
LOSSES: dict[str, Callable[..., Loss]] = {
    "clean": Clean,
    "adv": Adv,
    "adv-slow": partial(Adv, head="slow"),
    "adv-prefit": partial(Adv, head="prefit"),
    "adv-random": partial(AdvFixed, vectors="random"),
    "adv-onehot": partial(AdvFixed, vectors="one-hot"),
    "coadv": CoAdv,
    "imgcoadv": ImgCoAdv,
    "tecoa": TeCoA,
    "tecoa-unlabelled": UnlabelledTeCoA,
    "fare": FARE,
}


def get_loss(name: str) -> Callable[..., Loss]:
    """The loss called ``name`` in ``LOSSES``. Raises UnknownNameError with the nearest names."""
    if name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    return LOSSES[name]


def code_digest(make: Callable) -> str:
    """What tells a loss of one's own from another of the same name: its functions' bytecode and its plain values.

    What lies outside, as functions of a module that it calls, is not looked at.
    """
    return hashlib.sha256(repr(_told(make)).encode()).hexdigest()[:12]


def _told(value: object) -> object:
    """What ``code_digest`` knows of a class, a function or a value, the same in every process."""
    if isinstance(value, partial):
        return _told(value.func), _told(value.args), _told(value.keywords)
    if isinstance(value, type):
        own = [kind for kind in value.__mro__[:-1] if not kind.__module__.startswith(("zsar.", "torch."))]
        return [(name, _told(member)) for kind in own for name, member in sorted(vars(kind).items())
                if name == "__init__" or not (name.startswith("__") and name.endswith("__"))]
    value = getattr(value, "fget", getattr(value, "__func__", value))  # of a property, a static method
    if isinstance(value, FunctionType):
        around = [_told(cell.cell_contents) for cell in value.__closure__ or () if cell.cell_contents is not value
                  and not isinstance(cell.cell_contents, type)]  # decorated functions; not the class, for super()
        return _told(value.__code__), _told(value.__defaults__), _told(value.__kwdefaults__), around
    if isinstance(value, CodeType):
        return value.co_code, value.co_names, value.co_varnames, [_told(constant) for constant in value.co_consts]
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    if isinstance(value, dict):
        return sorted((str(key), repr(_told(member))) for key, member in value.items())
    if isinstance(value, (list, tuple)):
        return [_told(member) for member in value]
    if isinstance(value, Tensor):
        return value.tolist()
    return value if isinstance(value, (bool, int, float, str, bytes, type(None))) else type(value).__name__


def loss_name(loss: str | Callable) -> str:
    """What a loss is called in records: its name in ``LOSSES``, or that of its class, with what was chosen of it."""
    if isinstance(loss, partial):
        chosen = [f"{key}={value!r}" for key, value in loss.keywords.items() if isinstance(value, (int, float, str))]
        return f"{loss_name(loss.func)}({', '.join(chosen)})"
    return loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)


def random_directions(n: int, width: int, seed: int) -> Tensor:
    """n random unit vectors [n, width], the same for a seed on every device."""
    return F.normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=-1)
