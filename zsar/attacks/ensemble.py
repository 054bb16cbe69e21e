"""Several attacks in turn, each on what those before it left: what is still right is right under all of them."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from zsar.attacks.apgd import apgd
from zsar.attacks.balls import check_seeds, check_settings
from zsar.attacks.search import in_turn, misclassified
from zsar.attacks.square import check_queries, square
from zsar.clip import check_images


def ensemble(classifier: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, eps: float, steps: int = 100,
             queries: int = 5000, seeds: Tensor | None = None, micro_batch: int | None = None) -> Tensor:
    """APGD on the cross-entropy, targeted APGD on DLR, and Square: AutoAttack without FAB, the worst of them per image.

    Square is there for what gradients hide. Arguments, shapes and errors as in ``apgd`` and ``square``. Returns images
    [N, 3, H, W] in [0, 1] inside the ball.
    """
    check_images(images)
    check_settings(eps=eps, alpha=eps, steps=steps)
    check_queries(queries)
    seeds, labels = check_seeds(seeds, images), labels.to(images.device)

    def attempt(attack: Callable, rows: Tensor) -> tuple[Tensor, Tensor]:
        found = attack(classifier, images[rows], labels[rows], eps=eps, seeds=seeds[rows], micro_batch=micro_batch)
        return found, misclassified(classifier, found, labels[rows], micro_batch)

    attacks = (partial(apgd, steps=steps), partial(apgd, steps=steps, loss="targeted-dlr"),
               partial(square, queries=queries))
    return in_turn(images, [partial(attempt, attack) for attack in attacks])
