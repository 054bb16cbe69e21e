"""The trust report: every seeded fault is caught by the checks that are there for it, and sound models pass them all.

A fault that hides gradients shows on the undefended CLIP: its robust accuracy should be next to nothing, and is not.
"""

import json
from functools import partial

import pytest
import torch

from zsar import __main__ as cli
from zsar import evaluate
from zsar.attacks import image_seeds, pgd_until_fooled
from zsar.clip import ZeroShotClassifier, load_clip
from zsar.datasets import load_dataset
from zsar.errors import AttackSettingsError, PixelRangeError
from zsar.evaluate import Finding, TrustReport, checks, faults
from zsar.evaluate.audit import Audit
from zsar.fast import FastClassifier
from zsar.methods import load_adapted
from zsar.paths import data_path

EPS = 4 / 255
SHORT = {"eps": EPS, "steps": 6, "queries": 100, "micro_batch": 8}  # of few images, batches of few


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("DrawnImageNet").subset(12)


@pytest.fixture(scope="module")
def given(dataset):
    return dataset.stack()


@pytest.fixture(scope="module")
def classifier_of(dataset):
    """The drawn CLIP, or an adapted one by the name of its file, as a classifier."""
    original = load_clip("drawn", device="cpu")

    def make(name: str | None = None) -> ZeroShotClassifier:
        path = data_path("drawn", "adapted", f"{name}_seed-0.safetensors")
        return ZeroShotClassifier(load_adapted(path, original) if name else original, dataset.classnames,
                                  dataset.templates)

    return make


@pytest.fixture(scope="module")
def plain(classifier_of):
    return classifier_of()


@pytest.fixture(scope="module")
def trusted(dataset, given, plain):
    """The report on a classifier, with the undefended CLIP beside it."""
    return lambda classifier, **changes: evaluate.trust(classifier, *given, **{
        "control": plain, "seeds": image_seeds(dataset.ids), **SHORT, **changes})


def failed(report: TrustReport) -> set[str]:
    return {finding.check for finding in report.findings if finding.verdict == "failure"}


def audit(classifier, images, labels, kind=Audit, **changes) -> Audit:
    return kind(**{"classifier": classifier, "images": images, "labels": labels, "eps": EPS, "attack": None,
                    "control": None, "source": None, "steps": 5, "queries": 20, "seeds": torch.arange(len(images)),
                    "micro_batch": None} | changes)


# sound models

# the finetuned one is also looked at by the chapter on evaluation, each time
@pytest.mark.parametrize("name", [None, "tecoa_pad", pytest.param("tecoa_finetune", marks=pytest.mark.long)])
def test_a_sound_model_does_not_fail(name, classifier_of, trusted):
    report = trusted(classifier_of(name), control=classifier_of() if name else None, steps=20)
    assert not failed(report), report.to_text()
    assert all(report[check].verdict == "pass" for check in ("labels fit", "repeatable", "gradients", "truth", "ball",
                                                             "batches")), report.to_text()
    assert report["truth"].number == pytest.approx(1, abs=.002)
    assert {report[check].verdict == "not run" for check in ("control", "transfer")} == {name is None}


def test_a_fast_classifier_is_held_to_the_exact_one(plain, trusted):
    report = trusted(FastClassifier(plain), steps=20)
    assert report["signs"].verdict == "pass" and report["signs"].number == 100 and not failed(report)


# seeded faults

def test_a_saturated_softmax(plain, trusted):
    report = trusted(faults.SaturatedSoftmax(plain))
    assert failed(report) == {"gradients", "losses", "big eps"} and report.robust > 90


def test_half_precision(plain, trusted):
    report = trusted(faults.HalfGradient(plain))
    assert {"gradients", "signs"} <= failed(report)
    assert report["signs"].number < 95 and report["gradients"].number > 5


def test_a_randomised_model(plain, trusted):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        report = trusted(faults.Randomised(plain))
    assert {"repeatable", "truth", "restarts"} <= failed(report)


def test_eight_bits(plain, trusted):
    report = trusted(faults.Rounded(plain))
    assert failed(report) == {"gradients", "square", "transfer", "big eps"}
    assert report["gradients"].number == 100 and report["truth"].verdict == "not run"


def test_a_straight_through_estimator(plain, given):
    found = checks.check_truth(audit(faults.Rounded(plain, straight_through=True), *given))
    assert found.verdict == "failure" and found.number == 0


def test_jpeg(plain, trusted):
    report = trusted(faults.Jpeg(plain))
    assert failed(report) == {"gradients"} and report.robust is None
    assert {report[check].verdict for check in ("truth", "steps", "losses", "square", "transfer")} == {"not run"}
    assert report["control"].verdict != "not run"
    assert "could not be run" in report.to_text() and "no gradient to climb" in report.to_text()


@pytest.mark.parametrize("name", [None, "tecoa_finetune"])
def test_a_detached_defence(name, classifier_of, given):
    defence = faults.DetachedDefence(classifier_of(name))
    assert defence.counterattack(given[0]).abs().max() <= EPS + 1e-6
    assert checks.check_truth(audit(defence, *given)).verdict == "failure"
    assert checks.check_truth(audit(defence.classifier, *given)).verdict == "pass"


def test_dropout_in_train_mode(plain, given):
    model = faults.TrainModeDropout(plain)
    found = checks.check_repeatable(audit(model, *given))
    assert found.verdict == "failure" and "in train mode: dropout (Dropout)" in found.says and "eval()" in found.todo
    assert checks.check_repeatable(audit(model.eval(), *given)).verdict == "pass"
    model.train().dropout.p = 0
    assert checks.check_repeatable(audit(model, *given)).verdict == "warning"
    model.eval()


def test_an_attack_in_normalised_space(classifier_of, trusted):
    report = trusted(classifier_of("tecoa_finetune"), attack=faults.attack_in_normalised_space(EPS, steps=6))
    assert {"ball", "control", "own attack"} <= failed(report)
    assert report["ball"].number == pytest.approx(4 * .27, abs=.05)


def test_an_attack_that_is_not_through_the_prompt(classifier_of, plain, trusted):
    small = {"eps": 1 / 255, "alpha": 1 / 1020, "steps": 6}
    attack = faults.attack_without_prompt(partial(pgd_until_fooled, **small), plain)
    report = trusted(classifier_of("tecoa_pad"), attack=attack, eps=small["eps"])
    assert "own attack" in failed(report) and "prompt" in report["own attack"].todo


def test_wrong_labels(plain, given, dataset):
    images, labels = given
    wrong = faults.wrong_labels(labels, len(dataset.classnames))
    assert checks.check_labels_fit(audit(plain, images, wrong)).verdict == "failure"
    assert checks.check_labels_fit(audit(plain, images, labels)).verdict == "pass"


# what the checks measure, on models of which it is known

def linear(images):
    """Two classes, by the mean of the first channel: a step of h moves the lead by 2 h times the scale."""
    return 10 * torch.stack([images[:, 0].mean((1, 2)), 1 - images[:, 0].mean((1, 2))], 1)


@pytest.fixture(scope="module")
def halves():
    """Eight grey pictures, dark and light, and the labels that ``linear`` gives them."""
    images = torch.linspace(.2, .8, 8).view(8, 1, 1, 1).expand(8, 3, 8, 8).contiguous()
    return images, linear(images).argmax(1)


def test_a_linear_model_rises_as_its_gradient_says(halves):
    found = checks.check_truth(audit(linear, *halves))
    assert found.verdict == "pass" and found.number == pytest.approx(1, abs=1e-3)
    gradients = checks.check_gradients(audit(linear, *halves))  # two of three channels are never looked at
    assert gradients.verdict == "pass" and "66.7 % of all pixel values, and on 0.0 %" in gradients.says


def test_an_attack_out_of_its_ball_fails(halves):
    def beyond(by):
        return lambda classifier, images, labels, seeds, micro_batch: images + by

    for by, verdict in ((EPS, "pass"), (EPS / 2, "failure"), (2 * EPS, "failure"), (0, "failure")):
        assert checks.check_ball(audit(linear, *halves, attack=beyond(by))).verdict == verdict
    outside = checks.check_ball(audit(linear, halves[0] / .8, halves[1], attack=beyond(EPS)))
    assert outside.verdict == "failure" and "outside [0, 1]" in outside.says


def test_a_model_that_sees_its_batch_fails(halves):
    found = checks.check_batches(audit(lambda images: linear(images) - linear(images).mean(0), *halves))
    assert found.verdict == "failure" and found.number > 0
    assert checks.check_batches(audit(linear, *halves)).verdict == "pass"


@pytest.mark.parametrize(("spared", "verdict"), [(0, "pass"), (2, "warning"), (3, "failure")])
def test_an_attack_that_sees_its_batch_fails(spared, verdict, halves):
    """Alone, the darkest images are left as they are."""
    def attack(classifier, images, labels, seeds, micro_batch):
        alone_and_dark = len(images) == 1 and images.mean() < halves[0][spared].mean()
        return images if alone_and_dark else 1 - images

    found = checks.check_batches(audit(linear, *halves, attack=attack))
    assert (found.verdict, found.number) == (verdict, 100 * spared / 8)


def test_one_image_is_chance_and_many_are_not(halves):
    images, labels = halves[0].repeat(8, 1, 1, 1), halves[1].repeat(8)

    class Weak(Audit):
        own = property(lambda self: torch.arange(64) < count)
        left = torch.ones(64, dtype=torch.bool)

    for count, verdict in ((0, "pass"), (1, "warning"), (3, "warning"), (4, "failure")):
        found = checks.check_own_attack(audit(linear, images, labels, Weak, attack=print))
        assert (found.verdict, found.number) == (verdict, 100 * count / 64) and bool(found.todo) == bool(count)


# the report

def test_the_report_is_as_good_as_its_worst_finding():
    findings = [Finding("a", "pass", 1.0, "says a"), Finding("b", "not run", None, "says b")]
    report = TrustReport(tuple(findings), 5, 4.0, "PGD", 40.0)
    assert report.verdict == "pass" and report["b"].says == "says b"
    report = TrustReport((*findings, Finding("c", "warning", 2.0, "says c", "do c")), 5, 4.0, "PGD", 40.0)
    assert report.verdict == "warning" and json.loads(json.dumps(report.rows()))[2]["todo"] == "do c"
    assert report.to_text().splitlines() == [
        "PGD, 5 images: robust accuracy 40.0 %", "pass     a           says a", "not run  b           says b",
        "warning  c           says c", "c: do c",
        "verdict: warning (1 passed, 1 with a warning, 0 failed, 1 not run)"]


@pytest.mark.filterwarnings("ignore:dlr needs 3 classes")
def test_findings_are_named_as_their_checks(halves):
    report = evaluate.trust(linear, *halves, **SHORT)
    names = [check.__name__.removeprefix("check_").replace("_", " ") for check in checks.CHECKS]
    assert [finding.check for finding in report.findings] == names and len(names) == 15
    assert all(bool(finding.todo) == (finding.verdict in ("warning", "failure")) for finding in report.findings)
    assert report.attack == "PGD-6, L_inf, eps 4/255, alpha 1/255, worst iterate" and report.eps_255 == pytest.approx(4)


def test_what_cannot_be_audited_is_told_first(halves):
    images, labels = halves
    for changes, error, message in (({"eps": 0}, AttackSettingsError, "eps = 0"), ({"eps": 4}, AttackSettingsError,
                                    "above 1"), ({"queries": 0}, AttackSettingsError, "steps = 0")):
        with pytest.raises(error, match=message):
            evaluate.trust(linear, images, labels, **SHORT | changes)
    with pytest.raises(AttackSettingsError, match="expected one an image"):
        evaluate.trust(linear, images, labels[:3], **SHORT)
    with pytest.raises(PixelRangeError):
        evaluate.trust(linear, 255 * images, labels, **SHORT)
    with pytest.raises(AttackSettingsError, match="logits are NaN"):
        evaluate.trust(lambda pictures: linear(pictures) * torch.nan, images, labels, **SHORT)


# the command line

def test_the_command_audits_its_attack(tmp_path, capsys):
    out = tmp_path / "out.json"
    words = ["evaluate", "--trust", "--profile", "drawn", "--images", "8", "--json", str(out)]
    assert cli.main([*words, "--adapted", str(data_path("drawn", "adapted", "tecoa_finetune_seed-0.safetensors"))]) == 0
    text, record = capsys.readouterr().out, json.loads(out.read_text())
    assert text.startswith("DrawnImageNet: PGD-20, L_inf, eps 4/255, alpha 1/255, worst iterate, 8 images: robust")
    assert len(record["rows"]) == 15 and record["complete"] and record["settings"]["iterate"] == "worst"
    assert {row["check"]: row["verdict"] for row in record["rows"]}["control"] != "not run"
    assert record["rows"][0].items() >= {"dataset": "DrawnImageNet", "images": 8, "check": "labels fit"}.items()


def test_a_failure_is_exit_status_one(drawn_weights, tmp_path, capsys):
    """Random weights answer by chance."""
    out = tmp_path / "out.json"
    assert cli.main(["evaluate", "--trust", "--profile", "drawn", "--pretrained", str(drawn_weights), "--images", "4",
                     "--attack", "fgsm", "--datasets", "DrawnPCAM,DrawnDTD", "--json", str(out)]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("failure  labels fit") == 2 and captured.err.count("error") == 0
    assert len(json.loads(out.read_text())["rows"]) == 30


@pytest.mark.parametrize(("words", "message"), [
    (["--attack", "none"], "--trust audits an attack, and --attack none is none"),
    (["--eps", "0"], "--trust audits an attack, and --attack pgd --eps 0 is none"),
    (["--images", "0"], "--images 0"), (["--attack", "pdg"], "unknown attack")])
def test_bad_combinations_are_one_line(words, message, capsys):
    assert cli.main(["evaluate", "--trust", "--profile", "drawn", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err and captured.err.count("\n") == 1
