"""Writes ``requirements.lock``: ``python -m benchmarks.lock``, with the package index at hand.

The lock has what inference needs (``segtool[cpu,dicom]``) in the versions of ``constraints.txt``, and of each version
the checksums of all its wheels as the index gives them. Packages from source are not in it: building one runs its code.
"""

import json
import re
import subprocess
import sys
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

from packaging.utils import canonicalize_name

from segtool.atomic import write_text

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
EXTRAS = "cpu,dicom"
INDEX = "https://pypi.org/simple"
_HEAD = f"""\
# What `segtool[{EXTRAS}]` runs on, with the checksums of every wheel. Written by: python -m benchmarks.lock
# Install with: pip install --require-hashes -r requirements.lock && pip install --no-deps segtool
# Known faults of these versions, where the internet is at hand: pip-audit --disable-pip -r requirements.lock
--only-binary :all:
"""


def pins(text: str) -> dict[str, tuple[str, set[str]]]:
    """Version and checksums by canonical name, from a lock or from constraints."""
    found: dict[str, tuple[str, set[str]]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        match = re.match(r"([\w.-]+)==(\S+)(.*)", line)
        if match:
            name, version, rest = match.groups()
            found[canonicalize_name(name)] = version, set(re.findall(r"--hash=sha256:([0-9a-f]{64})", rest))
    return found


def resolved() -> dict[str, str]:
    """What pip would install: version by name."""
    command = [sys.executable, "-m", "pip", "install", "-qqq", "--dry-run", "--ignore-installed", "--report", "-"]
    constraints = ["-c", str(ROOT / "constraints.txt")]
    report = json.loads(subprocess.check_output([*command, *constraints, f"{ROOT}[{EXTRAS}]"]))
    rows = (item["metadata"] for item in report["install"])
    return {canonicalize_name(row["name"]): row["version"] for row in rows if row["name"] != "segtool"}


class _Links(HTMLParser):
    """Addresses on a page of an index, see PEP 503."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep those of links."""
        if tag == "a":
            self.found += [value for key, value in attrs if key == "href" and value]


def wheels(name: str, version: str) -> dict[str, str]:
    """Checksum by file name of all wheels of one version."""
    with urllib.request.urlopen(f"{INDEX}/{name}/") as answer:  # noqa: S310 - always https
        page = _Links()
        page.feed(answer.read().decode())
    files = dict(re.findall(r"([^/]+\.whl)#sha256=([0-9a-f]{64})$", link)[0] for link in page.found if ".whl#" in link)
    return {file: digest for file, digest in files.items() if file.split("-")[1] == version}


def lock() -> str:
    """The whole file."""
    blocks = []
    for name, version in sorted(resolved().items()):
        digests = sorted(set(wheels(name, version).values()))
        if not digests:
            raise SystemExit(f"{name} {version}: no wheel in {INDEX}")
        blocks.append(" \\\n    ".join([f"{name}=={version}", *(f"--hash=sha256:{digest}" for digest in digests)]))
    return _HEAD + "\n".join(blocks) + "\n"


if __name__ == "__main__":
    write_text(LOCK, lock())
    print(LOCK)
