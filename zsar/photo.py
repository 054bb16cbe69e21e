"""An attack on a photograph of one's own: ``python -m zsar attack PHOTO --classes "cat,dog,..."``."""

import argparse
import io
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from torch import Tensor

from zsar.attacks import check_settings, cross_entropy, from_grey_levels, pgd, quantize_inside
from zsar.clip import (
    TEMPLATES,
    Clip,
    ZeroShotClassifier,
    check_classnames,
    check_templates,
    load_clip,
    normalize_classname,
)
from zsar.errors import AttackSettingsError, ClassNamesError, PhotoError, first_line, unknown_name
from zsar.figures import BLUE, ORANGE, encode
from zsar.outputs import writable_folder, write_atomically, write_json
from zsar.results import provenance

OWN_PIXELS = 12_000_000  # attacked at the picture's own resolution up to here (4000 x 3000), reduced to it above
BOMB_PIXELS = 89_478_485  # Pillow's own limit: more is refused before a pixel is decoded
SHORTEST_SIDE, LONGEST_ASPECT = 8, 32
DRAWN_CAVEAT = ("the drawn CLIP has only ever seen drawings and does not know photographs: this shows how the attack "
                "works, not what a photograph holds; with --model ViT-B-32-quickgelu --pretrained openai "
                "the same command is the real thing")


def read_photo(path: str | Path) -> tuple[Tensor, tuple[int, int]]:
    """Any picture that Pillow reads -> float32 [1, 3, H, W] on the 8-bit grid in [0, 1], and its size in the file.

    The first frame, turned as EXIF says, grey and CMYK as RGB, 16 bits rounded to 8, transparency on white; above
    ``OWN_PIXELS`` pixels reduced to them. Raises PhotoError.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise PhotoError(f"no photograph at {path}: expected the path of a picture file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below, with a better message
            image = Image.open(path)
        width, height = image.size
        _check_size(path, width, height)
        image.seek(0)
        image = _to_rgb(ImageOps.exif_transpose(image))
    except PhotoError:
        raise
    except Image.DecompressionBombError as error:
        raise _bomb(path) from error
    except Exception as error:  # Pillow's decoders raise errors of many kinds on broken files
        raise PhotoError(f"cannot read {path} as a picture ({first_line(error, 120)}): "
                         "expected a whole JPEG, PNG, WebP, TIFF, GIF, ...") from error
    size = image.size
    if size[0] * size[1] > OWN_PIXELS:
        image.thumbnail([int(side * (OWN_PIXELS / (size[0] * size[1])) ** 0.5) for side in size])
    pixels = torch.from_numpy(np.asarray(image).copy())
    return pixels.permute(2, 0, 1)[None].float() / 255, size


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > BOMB_PIXELS:
        raise _bomb(path)
    if min(width, height) < SHORTEST_SIDE:
        raise PhotoError(f"{path} is {width} x {height} pixels: expected at least {SHORTEST_SIDE} on each side")
    if max(width, height) > LONGEST_ASPECT * min(width, height):
        raise PhotoError(f"{path} is {width} x {height} pixels: the model sees a square in its middle; "
                         f"crop it until the sides differ by less than a factor {LONGEST_ASPECT}")


def _bomb(path: Path) -> PhotoError:
    return PhotoError(f"{path} holds more than {BOMB_PIXELS / 1e6:.0f} million pixels, which may be a decompression "
                      "bomb: it was not opened; reduce it first")


def _to_rgb(image: Image.Image) -> Image.Image:
    """One frame of any mode as 8-bit RGB."""
    if image.mode.startswith(("I", "F")):  # 16 or 32 bits of grey, which Pillow would clip instead of scale
        levels = np.nan_to_num(np.asarray(image, dtype=np.float64))
        white = next((top for top in (1.0, 255.0) if image.mode == "F" and levels.max() <= top), 65535.0)
        image = Image.fromarray((levels / white * 255).round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def attack_photo(path: str | Path, classnames: Sequence[str], *, clip: Clip, out: str | Path = ".",
                 eps_255: float = 4, alpha_255: float | None = None, steps: int = 20, target: str | None = None,
                 templates: Sequence[str] = TEMPLATES) -> dict:
    """Attack a photograph at its own resolution and write three files to ``out``.

    ``NAME-adversarial.png``, the figure ``NAME-attack.png`` and ``NAME-attack.json``, which is also returned. The
    attack (PGD in L_inf from the picture itself) runs on the 8-bit grid, ``eps_255`` and ``alpha_255`` being grey
    levels, away from the class that the model sees or towards ``target``. ``success`` speaks of the PNG as read back.

    Raises PhotoError, ClassNamesError, VocabularyError, AttackSettingsError and OutputError, before the attack.
    """
    alpha_255 = default_alpha(eps_255) if alpha_255 is None else alpha_255
    check_request(classnames, eps_255=eps_255, alpha_255=alpha_255, steps=steps, target=target)
    begin, out, name = time.perf_counter(), writable_folder(out), Path(path).stem
    clean, size = read_photo(path)
    classifier = ZeroShotClassifier(clip, classnames, templates)
    before = _probabilities(classifier, clean)
    seen = int(before.argmax())
    goal = seen if target is None else classifier.classnames.index(normalize_classname(target))
    if target is not None and goal == seen:
        raise ClassNamesError(f"the model already sees {target!r} in {path}: choose another target")
    settings = {"attack": "pgd", "norm": "linf", "eps_255": eps_255, "alpha_255": alpha_255, "steps": steps,
                "random_start": False, "iterate": "last", "resolution": "the picture's own"}
    adversarial = _attack_on_the_grid(classifier, clean, goal, target is not None, settings)
    png = out / f"{name}-adversarial.png"
    write_atomically(png, _png(adversarial))
    adversarial, _ = read_photo(png)
    after = _probabilities(classifier, adversarial)
    called = int(after.argmax())
    record = {
        "photo": Path(path).name, "size": list(size), "attacked_size": list(clean.shape[:1:-1]),
        "classes": classifier.classnames, "templates": classifier.templates, "target": target,
        "before": dict(zip(classifier.classnames, before.tolist(), strict=True)),
        "after": dict(zip(classifier.classnames, after.tolist(), strict=True)),
        "label_before": classifier.classnames[seen], "label_after": classifier.classnames[called],
        "success": called == goal if target is not None else called != seen,
        "largest_change_255": round((adversarial - clean).abs().max().item() * 255),
        "settings": settings, "digest": clip.digest, "provenance": provenance(clip),
        "caveat": DRAWN_CAVEAT if clip.name == "drawn" else None,
        "files": {"adversarial": png.name, "figure": f"{name}-attack.png", "record": f"{name}-attack.json"},
    }
    write_atomically(out / record["files"]["figure"], encode(_figure(clean, adversarial, record), dpi=110))
    record["seconds"] = round(time.perf_counter() - begin, 2)
    write_json(out / record["files"]["record"], record)
    return record


def _attack_on_the_grid(classifier: ZeroShotClassifier, clean: Tensor, goal: int, targeted: bool,
                        settings: dict) -> Tensor:
    """PGD from the picture itself in whole grey levels, and, where the steps are not whole, rounded inward."""
    device = classifier.clip.device
    adversarial = pgd(cross_entropy(classifier, torch.tensor([goal], device=device), targeted), clean.to(device),
                      eps=from_grey_levels(settings["eps_255"]), alpha=from_grey_levels(settings["alpha_255"], "alpha"),
                      steps=settings["steps"], random_start=False, micro_batch=1)
    return quantize_inside(adversarial.cpu(), clean, settings["eps_255"])


def default_alpha(eps_255: float) -> float:
    """A quarter of eps in whole grey levels, so that the attack stays on the 8-bit grid."""
    return max(1, round(255 * from_grey_levels(eps_255) / 4))


def check_request(classnames: Sequence[str], *, eps_255: float, alpha_255: float, steps: int,
                  target: str | None) -> None:
    """What can be checked before a model is loaded. Raises ClassNamesError and AttackSettingsError."""
    names = check_classnames(classnames)
    check_settings(eps=from_grey_levels(eps_255), alpha=from_grey_levels(alpha_255, "alpha"), steps=steps)
    if 0 < eps_255 < 1:
        raise AttackSettingsError(f"eps = {eps_255:g} grey levels: an 8-bit picture cannot hold a change below 1")
    if target is not None and normalize_classname(target) not in names:
        raise ClassNamesError(str(unknown_name("target", target, names)))


@torch.no_grad()
def _probabilities(classifier: ZeroShotClassifier, image: Tensor) -> Tensor:
    return classifier(image).softmax(1)[0].cpu()


def _pixels(image: Tensor) -> np.ndarray:
    """[1, 3, H, W] in [0, 1] -> uint8 [H, W, 3]."""
    return (image[0].permute(1, 2, 0) * 255).round().byte().numpy()


def _png(image: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(_pixels(image)).save(file, "PNG")
    return file.getvalue()


@matplotlib.rc_context({"text.parse_math": False})  # a class may be called "$5 note"
def _figure(clean: Tensor, adversarial: Tensor, record: dict, bars: int = 6) -> Figure:
    """The original, the perturbation, the adversarial picture, and the probabilities of the likeliest classes."""
    eps = max(record["settings"]["eps_255"], 1) / 255
    pictures = {f"original:\n{record['label_before']}": clean,
                f"perturbation, {127.5 / (255 * eps):.3g} times\n(grey: unchanged)":
                    (0.5 + (adversarial - clean) / (2 * eps)).clamp(0, 1),
                f"adversarial:\n{record['label_after']}": adversarial}
    figure = Figure(figsize=(13, 3.9), facecolor="white", layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.1))
    stride = max(1, max(clean.shape[-2:]) // 700)  # a stride keeps the noise that an average would remove
    for axis, (title, image) in zip(axes, pictures.items(), strict=False):
        axis.imshow(_pixels(image[..., ::stride, ::stride]), interpolation="nearest")
        axis.set_title(title, fontsize=11)
        axis.axis("off")
    before, after = record["before"], record["after"]
    names = sorted(before, key=lambda name: -max(before[name], after[name]))[:bars]
    rows = np.arange(len(names))
    axes[3].barh(rows - 0.2, [100 * before[name] for name in names], 0.4, label="original", color=BLUE)
    axes[3].barh(rows + 0.2, [100 * after[name] for name in names], 0.4, label="adversarial", color=ORANGE,
                 hatch="//", edgecolor="white")
    axes[3].set(yticks=rows, xlim=(0, 100), xlabel="probability, %")
    axes[3].set_yticklabels(names)
    axes[3].invert_yaxis()
    axes[3].spines[["top", "right"]].set_visible(False)
    axes[3].legend(frameon=False, loc="lower right", fontsize=9)
    settings = record["settings"]
    figure.supxlabel(f"PGD-{settings['steps']}, L\u221e, eps {settings['eps_255']:g}/255 at "
                     f"{record['attacked_size'][0]} x {record['attacked_size'][1]} px; {record['provenance']['model']}"
                     + ("; " + "the drawn CLIP does not know photographs" if record["caveat"] else ""), fontsize=9)
    figure.set_label(f"A picture that the model calls {record['label_before']}, the perturbation, magnified, the "
                     f"picture with it, called {record['label_after']}, and the probabilities before and after.")
    return figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m zsar attack``."""
    parser.add_argument("photo", metavar="PHOTO", help="any picture that Pillow reads")
    parser.add_argument("--classes", required=True, metavar="NAME,NAME,...", help="what to choose between")
    parser.add_argument("--model", default="drawn",
                        help="drawn (default), a model of open_clip, a folder, or hf-hub:OWNER/NAME")
    parser.add_argument("--pretrained", help="tag, file, TAG+FILE (an image tower in other weights), or random")
    parser.add_argument("--template", default=TEMPLATES[0], help=f"default: {TEMPLATES[0]!r}")
    parser.add_argument("--eps", type=float, default=4, help="largest change of a pixel in grey levels (default: 4)")
    parser.add_argument("--alpha", type=float, help="step in grey levels (default: eps / 4, rounded, at least 1)")
    parser.add_argument("--steps", type=int, default=20, help="default: 20")
    parser.add_argument("--target", help="the class to be mistaken for (default: any other)")
    parser.add_argument("--out", default=".", metavar="DIR", help="folder for the three files (default: here)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: an accelerator where there is one)")


def run(args: argparse.Namespace) -> str:
    """Attack as the command line says; returns what happened, in words. What can be checked early is."""
    classnames = args.classes.split(",")
    alpha = default_alpha(args.eps) if args.alpha is None else args.alpha
    check_request(classnames, eps_255=args.eps, alpha_255=alpha, steps=args.steps, target=args.target)
    check_templates([args.template])
    writable_folder(args.out)
    read_photo(args.photo)
    clip = load_clip(args.model, pretrained=args.pretrained, device=args.device)
    record = attack_photo(args.photo, classnames, clip=clip, out=args.out, eps_255=args.eps, alpha_255=alpha,
                          steps=args.steps, target=args.target, templates=[args.template])
    return describe(record, Path(args.out))


def describe(record: dict, out: Path) -> str:
    """A record of ``attack_photo`` in words."""
    before, after, size = record["label_before"], record["label_after"], record["size"]
    reduced = record["attacked_size"] != size
    lines = [
        f"photo   {record['photo']}, {size[0]} x {size[1]} pixels, attacked at "
        + ("{} x {} (the limit is {:.0f} million pixels)".format(*record["attacked_size"], OWN_PIXELS / 1e6)
           if reduced else "its own resolution"),
        f"model   {record['provenance']['model']}",
        f"attack  PGD-{record['settings']['steps']}, L_inf, eps {record['settings']['eps_255']:g}/255, step "
        f"{record['settings']['alpha_255']:g}/255; largest change {record['largest_change_255']} grey levels",
        f"before  {before} {100 * record['before'][before]:.1f} %",
        f"after   {after} {100 * record['after'][after]:.1f} %, as read back from "
        f"{out / record['files']['adversarial']}",
        f"figure  {out / record['files']['figure']}",
    ]
    if record["success"]:
        lines.append(f"success: the saved picture is called {after!r} instead of {before!r}")
    elif before == after:
        lines.append(f"no success: the attack did not change the label {before!r}; try a larger --eps or more --steps")
    else:
        lines.append(f"no success: the label changed to {after!r}, not to the target {record['target']!r}; "
                     "try a larger --eps or more --steps")
    return "\n".join(lines + ([f"note: {record['caveat']}"] if record["caveat"] else []))
