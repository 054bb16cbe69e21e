"""Every error a user can cause. Each message is one line: what, what was found, what was expected, how to mend it."""

import difflib
from collections.abc import Iterable


class ZsarError(ValueError):
    """Base of all errors raised on bad input; the command line turns it into one line and exit status 2.

    ``report``: what there is to say all the same, which the command line prints before.
    """

    report = ""


class UnknownNameError(ZsarError):
    """A dataset, model, profile, attack or method that does not exist."""


class ClassNamesError(ZsarError):
    """A list of class names that cannot be classified with (empty, single, duplicate, blank, unknown target)."""


class VocabularyError(ZsarError):
    """A text holds words that a closed-vocabulary tokenizer does not know."""


class PixelRangeError(ZsarError):
    """Images of the wrong shape, dtype or range; the package takes float [B, 3, H, W] in [0, 1] everywhere."""


class AttackSettingsError(ZsarError):
    """An eps, step size, step count or norm that makes no sense."""


class PrecisionError(ZsarError):
    """A precision that a device lacks."""


class PromptError(ZsarError):
    """A visual prompt that does not fit the image or the tower it is meant for."""


class AdaptationError(ZsarError):
    """An adaptation that cannot begin: its data, recipe or checkpoint do not fit together."""


class DivergenceError(ZsarError):
    """A training whose loss became NaN, infinite or a hundred times what it was."""


class CheckpointError(ZsarError):
    """A weights file that is missing, truncated, foreign, or built for another architecture."""


class DatasetError(ZsarError):
    """Files of a dataset that are missing, incomplete, of another dataset, or do not fit its manifest."""


class MissingDatasetError(DatasetError):
    """Nothing of a dataset is where it is looked for."""


class UnreadableImageError(ZsarError):
    """An image of a dataset that cannot be decoded: truncated, or no image at all."""


class PhotoError(ZsarError):
    """A photograph that is missing, unreadable, or not safe to open."""


class StoreError(ZsarError):
    """A store of results, or a cell in it, that is missing, damaged, of another release, or lacks what is asked."""


class DisagreementError(ZsarError):
    """Two programs that should come to the same, and do not."""


class FigureError(ZsarError):
    """An interactive figure that has nothing to show at one of its settings, or a state that belongs to none."""


class OutputError(ZsarError):
    """A result that cannot be written where it was asked for."""


class CourseError(ZsarError):
    """An assignment that cannot be released or graded by, or submissions that are not there."""


class ChecksFailedError(Exception):
    """A report in which a check failed, as its text: the command line prints it and ends with exit status 1."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for ``name`` not being among ``known``, naming the nearest ones."""
    known = sorted(known)
    if len(known) <= 4:
        return UnknownNameError(f"unknown {kind} {name!r}: expected one of {', '.join(known)}")
    near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=3, cutoff=0.4)
    if nearest := [k for k in known if k.lower() in near]:
        return UnknownNameError(f"unknown {kind} {name!r}: did you mean {', '.join(nearest)}?")
    return UnknownNameError(f"unknown {kind} {name!r}: expected one of {', '.join(known)}")


def first_line(error: Exception, limit: int = 200) -> str:
    """What an exception of another library says, cut to one line."""
    return " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split())[:limit]
