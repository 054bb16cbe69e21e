"""Whether a robust accuracy can be trusted: fifteen checks of a classifier and of the attack that it was measured with.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from torch import Tensor

from zsar.attacks import Attack, attack_settings, describe_attack
from zsar.attacks.balls import check_seeds
from zsar.errors import AttackSettingsError
from zsar.evaluate.audit import Audit, Finding
from zsar.evaluate.checks import CHECKS

#: From the best to the worst; a report is as good as its worst finding.
VERDICTS = ("not run", "pass", "warning", "failure")


@dataclass(frozen=True)
class TrustReport:
    """What the checks found about ``attack``, in words, with ``eps_255`` grey levels, on so many ``images``."""

    findings: tuple[Finding, ...]
    images: int
    eps_255: float
    attack: str
    robust: float | None  # accuracy in percent under the audited attack; None where it could not be run

    @property
    def verdict(self) -> str:
        """The worst of the findings."""
        return max((finding.verdict for finding in self.findings), key=VERDICTS.index)

    def __getitem__(self, check: str) -> Finding:
        """The finding of the check of that name."""
        return {finding.check: finding for finding in self.findings}[check]

    def rows(self) -> list[dict]:
        """The findings for JSON."""
        return [asdict(finding) for finding in self.findings]

    def to_text(self) -> str:
        """A table for a terminal, what to do below it, and the verdict last."""
        robust = "could not be run" if self.robust is None else f"robust accuracy {self.robust:.1f} %"
        lines = [f"{self.attack}, {self.images} images: {robust}"]
        lines += [f"{finding.verdict:8} {finding.check:11} {finding.says}" for finding in self.findings]
        lines += [f"{finding.check}: {finding.todo}" for finding in self.findings if finding.todo]
        count = {verdict: sum(finding.verdict == verdict for finding in self.findings) for verdict in VERDICTS}
        lines += [f"verdict: {self.verdict} ({count['pass']} passed, {count['warning']} with a warning, "
                  f"{count['failure']} failed, {count['not run']} not run)"]
        return "\n".join(lines)


def trust(classifier: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, eps: float,
          attack: Attack | None = None, control: Callable[[Tensor], Tensor] | None = None,
          source: Callable[[Tensor], Tensor] | None = None, steps: int = 20, queries: int = 500,
          seeds: Tensor | None = None, micro_batch: int | None = None, words: str | None = None) -> TrustReport:
    """Audit a classifier and the L_inf attack that its robust accuracy is measured with.

    Args:
        classifier: images [B, 3, H, W] in [0, 1] to logits [B, K], a ``FastClassifier`` too.
        images: float32 [N, 3, H, W] in [0, 1]; ``labels``: int64 [N]. Forty tell gross errors, more tell small ones.
        eps: radius of the ball, in units of [0, 1].
        attack: what is audited, ``attack(classifier, images, labels, seeds=..., micro_batch=...)``; by default any
            iterate of PGD, ``steps`` of eps / 4.
        control: an undefended classifier of the same images, which the attack has to break.
        source: the classifier on which images are made that are transferred to ``classifier``; by default ``control``.
        steps: those of our own white-box attacks, five times as many where they take their time; ``queries`` of Square.
        seeds, micro_batch: as in ``zsar.attacks.pgd``.
        words: the attack in words, for the report.

    What cannot be checked, for want of a control or of a gradient, is ``not run``, and says why. Raises PixelRangeError
    and AttackSettingsError for what cannot be audited.
    """
    labels, source = labels.to(images.device), source or control
    audit = Audit(classifier, images, labels, eps, attack, control, source, steps, queries, check_seeds(seeds, images),
                  micro_batch)
    findings = tuple(_ask(check, audit) for check in CHECKS)
    if words is None:
        own = describe_attack(attack_settings("pgd", 255 * eps, steps=steps, iterate="worst"))
        words = "the attack that was given" if attack else own
    robust = 100 * audit.left.float().mean().item() if "left" in vars(audit) else None
    return TrustReport(findings, len(images), 255 * eps, words, robust)


def _ask(check: Callable[[Audit], Finding], audit: Audit) -> Finding:
    """The check's finding; where it fell for want of a gradient, that it was not run."""
    try:
        return check(audit)
    except AttackSettingsError:
        if audit.differentiable and audit.gradient.isfinite().all():
            raise
        name = check.__name__.removeprefix("check_").replace("_", " ")
        return Finding(name, "not run", None, "there is no gradient to climb")
