"""The checks of a trust report: each asks one question of an ``Audit`` and answers with a ``Finding``.

After what Athalye et al. (2018, "Obfuscated gradients give a false sense of security"), Carlini et al. (2019, "On
evaluating adversarial robustness") and Croce et al. (2022, "Evaluating the adversarial robustness of adaptive test-time
defenses") ask of an evaluation.
"""

import torch
from torch import Tensor, nn

from zsar.attacks import all_logits, cross_entropy_loss, exact_of, misclassified
from zsar.attacks.objectives import lead
from zsar.evaluate.audit import BIG_EPS, LONGER, RATIO_STEPS, STARTS, Audit, Finding
from zsar.results import interval

#: Points of robust accuracy by which another attack may be ahead, image by image. From the first on it is told; it is a
#: failure where it is surely more than the second, the lower end of a 95 % interval: of 64 images four. Two are not:
#: of 64 images of the drawn CLIP with a TeCoA pad 100 steps break two more than 20 do, of others none.
WARN_POINTS, FAIL_POINTS = 1.0, 2.0
#: One image is chance, even where none is allowed.
FAIL_IMAGES = 2
#: What the logits may differ by between two looks, as a share of the largest: float32 sums in another order differ by
#: 1e-6 of it, whatever is random on purpose by 1e-2.
SAME_LOGITS = 1e-4
#: Percent of images without any gradient. A sound model has none: a single one is told, and more are no accident.
FAIL_ZERO = 2.0
#: Percent of pixel values without one, of those that have one on some image: a centre crop's margins have none on any.
#: Of the drawn models none are zero; clamping leaves a few; half precision leaves many.
WARN_PIXELS, FAIL_PIXELS = 1.0, 5.0
#: The step of ``check_truth`` in units of [0, 1], see there.
TRUTH_STEP = 0.05 / 255
#: Between which shares of the promised rise a gradient tells the truth, and beyond which it does not. Medians of 40
#: images: 0.999 to 1.001 on the drawn CLIP, adapted or not, in bfloat16 too, and on a random ViT-B/32 at 224 pixels;
#: with a detached counterattack in front 1.5 on the drawn CLIP, and 1.07 behind TeCoA, which it moves but little.
TRUE_RISE, FALSE_RISE = (0.98, 1.02), (0.95, 1.05)
#: Percent of the signs of fp32's gradient that a fast path must share: bfloat16 has 99.4 or more of ViT-B/32's.
PASS_SIGNS, WARN_SIGNS = 99.0, 95.0
#: Share of eps that an attack must have used where it failed; float32 may be above eps by ``SLACK``.
USED_EPS, SLACK = 0.9, 1e-6
#: Percent robust accuracy of an undefended model under the audited attack: what is meant to be nothing.
WARN_CONTROL, FAIL_CONTROL = 10.0, 20.0
#: Percent robust accuracy in a ball where no picture is what it was.
FAIL_BIG = 5.0
#: The sizes of batches whose results are compared with those of the audit's own, the images that are attacked for it
#: (few, for an image alone takes longer than among others), and the share of images that may differ, for a processor
#: may sum in another order; of few images one may.
BATCHES, BATCHED_ATTACKS, BATCH_SHARE = (1, 7), 8, 1e-3
#: Share of attacked images that may: their paths are many steps of signs, some of which are those of rounding.
DRIFT_SHARE = 0.25


def check_labels_fit(audit: Audit) -> Finding:
    """Clean accuracy above that of whoever always names one class: else labels and class names are in two orders."""
    hits = int((audit.clean_logits.argmax(1) == audit.labels.cpu()).sum())
    low, accuracy = interval(hits, audit.n)[0], 100 * hits / audit.n
    chance = 100 * max(1 / audit.clean_logits.shape[1], int(audit.labels.bincount().max()) / audit.n)
    verdict = "pass" if low > chance else "warning" if accuracy > chance else "failure"
    return Finding("labels fit", verdict, accuracy,
                   f"clean accuracy {accuracy:.1f} % of {audit.n} images (interval from {low:.1f} %), one answer "
                   f"to all {chance:.1f} %",
                   "" if verdict == "pass" else "See that labels count the class names in their order and that "
                   "images are in [0, 1]; if so, the model cannot do this task, or there are too few images to tell.")


def check_repeatable(audit: Audit) -> Finding:
    """The same images twice, the same logits: else a robust accuracy is that of a throw of dice."""
    again = all_logits(audit.classifier, audit.images, audit.micro_batch).cpu()
    change = ((again - audit.clean_logits).abs().max() / audit.clean_logits.abs().max().clamp_min(1e-30)).item()
    training = _in_train_mode(audit.classifier)
    named = f"; in train mode: {', '.join(training[:3])}" if training else ""
    verdict = "failure" if change > SAME_LOGITS else "warning" if training else "pass"
    todo = {"pass": "", "warning": "Call eval() before anything is measured.",
            "failure": "Call eval() before anything is measured." if training else
            "Find what draws random numbers; if it is the defence, attack the mean over many draws."}[verdict]
    return Finding("repeatable", verdict, change, f"logits of {audit.n} images looked at twice differ by {change:.1g} "
                   f"of the largest{named}", todo)


def _in_train_mode(classifier: object) -> list[str]:
    """The innermost modules that would behave as in training: their names where they have one, else their classes."""
    modules = classifier.named_modules() if isinstance(classifier, nn.Module) else ()
    return [f"{name or 'the model'} ({type(module).__name__})" for name, module in modules
            if module.training and not any(True for _ in module.children())]


def check_gradients(audit: Audit) -> Finding:
    """A gradient that exists, is finite, and is not zero wherever one looks."""
    name, todo = "gradients", ("Attack through a differentiable stand-in of what stops them (rounding, a file format, "
                               "a saturated softmax, half precision), or with the margin, in float32, and with Square.")
    if not audit.differentiable:
        return Finding(name, "failure", 100.0, f"the logits of {audit.n} images do not depend on the pixels in torch's "
                       "graph: nothing can be climbed", todo)
    gradient = audit.gradient.flatten(1)
    if not gradient.isfinite().all():
        return Finding(name, "failure", None, f"NaN or infinite for some of {audit.n} images", "Compute the gradients "
                       "in float32, and look for a logarithm or a root of 0.")
    none, seen = gradient == 0, (gradient != 0).any(0)
    zero, pixels = int(none.all(1).sum()), 100 * none[:, seen].float().mean().item() if seen.any() else 100.0
    share = 100 * zero / audit.n
    verdict = ("failure" if share > FAIL_ZERO and zero >= FAIL_IMAGES or pixels > FAIL_PIXELS else
               "warning" if zero or pixels > WARN_PIXELS else "pass")
    return Finding(name, verdict, pixels, f"zero on {zero} of {audit.n} images, on {100 * none.float().mean():.1f} % "
                   f"of all pixel values, and on {pixels:.1f} % of those that the model looks at",
                   "" if verdict == "pass" else todo)


def check_truth(audit: Audit) -> Finding:
    """The rise along the gradient's signs, over what the gradient promises: 1 for the gradient of what is evaluated.

    What rises is the other classes' lead, which no softmax flattens, from a step before the clean image to a step
    behind it: a central difference, so that curvature cancels. The step is a twentieth of a grey level. It has to be
    small beside what the model bends on, and large beside float32: a lead of 10 logits is known to 1e-5, and its rise
    over two such steps was at least 0.03 on every image of six drawn models. It is also smaller than what rounding to
    8 bits forgives: a straight-through estimator, which promises a rise where there is none, is seen. So is a defence
    that answers the image, but was taken for a constant.
    """
    gradient = audit.gradient_of(audit.classifier, lambda logits, index: lead(logits, audit.labels[index]))
    inside = (audit.images >= TRUTH_STEP) & (audit.images <= 1 - TRUTH_STEP)  # so that both steps stay in [0, 1]
    step = TRUTH_STEP * gradient.sign() * inside
    promised = 2 * (step * gradient).flatten(1).sum(1).cpu()
    risen = _lead(audit, audit.images + step) - _lead(audit, audit.images - step)
    known = promised > 0
    if not known.any():
        return Finding("truth", "not run", None, f"none of {audit.n} images has a gradient of its logits to follow")
    ratio = (risen[known] / promised[known]).median().item()
    verdict = ("pass" if TRUE_RISE[0] <= ratio <= TRUE_RISE[1] else
               "warning" if FALSE_RISE[0] <= ratio <= FALSE_RISE[1] else "failure")
    return Finding("truth", verdict, ratio, f"the lead of other classes rises by {ratio:.2f} of what the gradient "
                   f"promises (median of {int(known.sum())} images, step {255 * TRUTH_STEP:g}/255)",
                   "" if verdict == "pass" else "Differentiate the whole classifier: no detach() in a test-time "
                   "defence, no straight-through estimator, nothing random.")


def _lead(audit: Audit, images: Tensor) -> Tensor:
    logits = all_logits(audit.classifier, images, audit.micro_batch)
    return lead(logits, audit.labels.to(logits.device)).cpu()


def check_signs(audit: Audit) -> Finding:
    """The fast path's gradient points where fp32's does, sign by sign."""
    if (exact := exact_of(audit.classifier)) is None:
        return Finding("signs", "not run", None, "the gradients are the exact classifier's own")
    wanted = audit.gradient_of(exact, cross_entropy_loss(audit.labels))
    some = wanted != 0
    share = 100 * (audit.gradient.sign() == wanted.sign())[some].float().mean().item() if some.any() else 0.0
    verdict = "pass" if share >= PASS_SIGNS else "warning" if share >= WARN_SIGNS else "failure"
    return Finding("signs", verdict, share, f"{share:.2f} % of the signs of fp32's gradient are the fast path's too "
                   f"({audit.n} images)", "" if verdict == "pass" else "Attack with gradients in bfloat16 or float32 "
                   "of a loss summed over the batch.")


def check_ball(audit: Audit) -> Finding:
    """The attack stays in its ball and in [0, 1], and goes to the ball's border where it fails."""
    change = (audit.attacked - audit.images).abs().flatten(1).amax(1)
    outside = float((audit.attacked - audit.attacked.clamp(0, 1)).abs().max())
    most = change.max().item()
    if most > audit.eps + SLACK or outside > SLACK:
        over = f"and by {255 * outside:.2f} outside [0, 1], " if outside > SLACK else ""
        return Finding("ball", "failure", 255 * most, f"{audit.n} images are changed by up to {255 * most:.2f} grey "
                       f"levels, {over}eps is {255 * audit.eps:.2f}", "Project onto the ball and clamp to [0, 1], both "
                       "in pixels.")
    if not audit.left.any():
        return Finding("ball", "pass", 255 * most, f"{audit.n} images are changed by up to {255 * most:.2f} grey "
                       f"levels, eps is {255 * audit.eps:.2f}, and none of them stands")
    used = change[audit.left].max().item()
    if used == 0 < most:  # as the reference AutoAttack has it, and then the others show how far it went
        return Finding("ball", "pass" if most >= USED_EPS * audit.eps else "failure", 255 * most, f"{audit.n} images "
                       f"are changed by up to {255 * most:.2f} grey levels, eps is {255 * audit.eps:.2f}; those that "
                       "stand are handed back clean", "" if most >= USED_EPS * audit.eps else "Take eps in pixels.")
    verdict = "pass" if used >= USED_EPS * audit.eps else "failure"
    return Finding("ball", verdict, 255 * used, f"the {int(audit.left.sum())} images that stand are changed by up to "
                   f"{255 * used:.2f} grey levels, eps is {255 * audit.eps:.2f}", "" if verdict == "pass" else
                   "Take eps and steps in pixels, not in normalised units, and steps that reach the border.")


def check_own_attack(audit: Audit) -> Finding:
    """Our own white-box PGD finds no more than the audited attack."""
    if audit.attack is None:
        return Finding("own attack", "not run", None, "the audited attack is our own")
    return _drop(audit, "own attack", audit.own, f"PGD of {audit.steps} steps, any iterate",
                 "The audited attack misses something: is it through the prompt and the whole model, in pixels, with "
                 "the right labels, and are its steps long enough?")


def check_steps(audit: Audit) -> Finding:
    """More steps find no more."""
    return _drop(audit, "steps", audit.longer, f"PGD of {LONGER * audit.steps} steps",
                 "Take more steps, until more do not help.")


def check_restarts(audit: Audit) -> Finding:
    """Other random starts find no more."""
    return _drop(audit, "restarts", audit.restarted, f"the worst of {STARTS} random starts",
                 "Take several random starts, and count an image right if it is under all of them.")


def check_losses(audit: Audit) -> Finding:
    """A loss that no softmax saturates finds no more than the cross-entropy."""
    return _drop(audit, "losses", audit.by_ratio, f"APGD on DLR, {RATIO_STEPS * audit.steps} steps, where these fail",
                 "The cross-entropy's gradient is masked: attack the margin or DLR, and report the worst.")


def check_square(audit: Audit) -> Finding:
    """A search without gradients finds nothing that they missed."""
    return _hidden(audit, "square", audit.by_square, f"Square, {audit.queries} queries",
                   "Gradients are masked: what needs none must not be ahead. Find what hides them, attack through it.")


def check_transfer(audit: Audit) -> Finding:
    """Images made on another model fool no more."""
    if audit.source is None:
        return Finding("transfer", "not run", None, "no other classifier was given to make images on")
    return _hidden(audit, "transfer", audit.by_transfer, "PGD on the other classifier",
                   "Gradients are masked: an attack that never saw the model must not be ahead. Find what hides them.")


def check_control(audit: Audit) -> Finding:
    """The audited attack brings an undefended model to nothing."""
    if audit.control is None:
        return Finding("control", "not run", None, "no undefended classifier was given")
    attack, given = audit.attack or audit.own_attack, (audit.control, audit.images, audit.labels)
    found = attack(*given, seeds=audit.seeds, micro_batch=audit.micro_batch)
    stand = int((~misclassified(audit.control, found, audit.labels, audit.micro_batch)).sum())
    share = 100 * stand / audit.n
    verdict = ("failure" if share > FAIL_CONTROL and stand >= FAIL_IMAGES else "warning" if share > WARN_CONTROL
               else "pass")
    return Finding("control", verdict, share, f"{stand} of {audit.n} images of the undefended classifier stand",
                   "" if verdict == "pass" else "An attack that does not break what nobody defended tells nothing of "
                   "a defence: more eps, more steps, or an error in it.")


def check_big_eps(audit: Audit) -> Finding:
    """In a ball where nothing can stand, nothing does."""
    stand = int((audit.left & ~audit.by_big_eps).sum())
    share = 100 * stand / audit.n
    verdict = "failure" if share > FAIL_BIG and stand >= FAIL_IMAGES else "warning" if stand else "pass"
    return Finding("big eps", verdict, share, f"{stand} of {audit.n} images stand with eps "
                   f"{255 * max(BIG_EPS, audit.eps):g}/255", "" if verdict == "pass" else
                   "The attack is not looking where the images are: masked gradients, or a model that says one thing.")


def check_batches(audit: Audit) -> Finding:
    """An image's result does not depend on those beside it."""
    answers = [torch.cat([all_logits(audit.classifier, audit.images[rows], size).argmax(1).cpu()
                          for rows in torch.arange(audit.n).split(size)]) for size in BATCHES]
    differ = torch.stack([answer != audit.clean_logits.argmax(1) for answer in answers]).any(0)
    first = min(audit.n, BATCHED_ATTACKS)
    robust = torch.stack([_left_in_batches(audit, first, size) for size in BATCHES])
    moved = (robust != audit.left[:first].cpu()).any(0)
    answers_fail = (wrong := int(differ.sum())) >= FAIL_IMAGES and wrong > BATCH_SHARE * audit.n
    differ[:first] |= moved
    count = int(differ.sum())
    verdict = "failure" if answers_fail or moved.float().mean() > DRIFT_SHARE else "warning" if count else "pass"
    return Finding("batches", verdict, 100 * count / audit.n, f"{count} of {audit.n} images answer otherwise in "
                   f"batches of {' or '.join(map(str, BATCHES))} than in the audit's own (attacked: the first {first})",
                   "" if verdict == "pass" else "Sum the attack's loss over the batch, seed each image by itself, and "
                   "let no layer see the batch (eval()).")


def _left_in_batches(audit: Audit, n: int, size: int) -> Tensor:
    """Which of the first n images stand where the audited attack is given so many at a time: bool [n], on the CPU."""
    left = []
    for rows in torch.arange(n, device=audit.images.device).split(size):
        labels = audit.labels[rows]
        found = (audit.attack or audit.own_attack)(audit.classifier, audit.images[rows], labels,
                                                   seeds=audit.seeds[rows], micro_batch=size)
        left.append(~misclassified(audit.classifier, found, labels, size).cpu())
    return torch.cat(left)


def _drop(audit: Audit, check: str, broken: Tensor, who: str, todo: str) -> Finding:
    """The verdict on an attack that may be ahead by chance."""
    count = int(broken.sum())
    points, stood = 100 * count / audit.n, int(audit.left.sum())
    surely = interval(count, audit.n)[0] > FAIL_POINTS and count >= FAIL_IMAGES
    verdict = "failure" if surely else "warning" if points >= WARN_POINTS else "pass"
    return Finding(check, verdict, points, f"{count} of {audit.n} images, of {stood} that the audited attack left, are "
                   f"broken by {who}: {points:.1f} points", "" if verdict == "pass" else todo)


def _hidden(audit: Audit, check: str, broken: Tensor, who: str, todo: str) -> Finding:
    """The verdict on an attack that knows less than those before it, and must not be ahead at all."""
    count, stood = int(broken.sum()), int(audit.hard.sum())
    verdict = "failure" if count >= FAIL_IMAGES else "warning" if count else "pass"
    return Finding(check, verdict, 100 * count / audit.n, f"{count} of {audit.n} images, of {stood} that white-box "
                   f"attacks left, are broken by {who}", "" if verdict == "pass" else todo)


#: In the order of a report: what is evaluated, its gradients, the attack, and what other attacks find.
CHECKS = (check_labels_fit, check_repeatable, check_gradients, check_truth, check_signs, check_ball, check_control,
          check_own_attack, check_steps, check_restarts, check_losses, check_square, check_transfer, check_big_eps,
          check_batches)
