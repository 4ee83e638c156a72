"""``segtool models verify`` and ``segtool models sign``: whether model files are what their makers wrote."""

from collections.abc import Sequence
from pathlib import Path

import typer

from segtool.errors import ModelError, UsageError, printable


def verify_models(names: Sequence[str], key: Path | None) -> None:
    """Print one line a model, and leave with exit code 1 where one of them is not proved to be what it should.

    Args:
        names: Files, or names of bundled models; none for all bundled ones.
        key: Public key whose signature is wanted; None holds them against the checksums of the bundled models.
    """
    from segtool.bundled import bundled_models, find_model, recorded_sums

    recorded = recorded_sums()
    paths = [find_model(name) for name in names] or list(bundled_models().values())
    bad = 0
    for path in paths:
        word, said = _held_against_sums(path, recorded) if key is None else _held_against_key(path, key)
        typer.echo(printable(f"{word:<8} {path.name}  {said}"))
        bad += word != "ok"
    if not names:
        for lost in sorted(recorded.keys() - {path.name for path in paths}):
            typer.echo(f"{'missing':<8} {lost}  {_AGAIN}")
            bad += 1
    if bad or not paths:
        raise typer.Exit(1)


_AGAIN = "Install again with: pip install --force-reinstall --no-deps segtool"


def _held_against_sums(path: Path, recorded: dict[str, str]) -> tuple[str, str]:
    from segtool.bundled import MODELS_FOLDER
    from segtool.model_file import sha256

    try:
        found = sha256(path)
    except OSError as error:
        return "unread", f"{error.strerror or error}. Check the path."
    if found in recorded.values():
        return "ok", f"sha256 {found}"
    if path.name in recorded and path.resolve().parent == MODELS_FOLDER:
        return "differs", f"sha256 {found}, wanted {recorded[path.name]}. {_AGAIN}"
    return "unknown", f"sha256 {found} is of no bundled model. Give its maker's public key with --key."


def _held_against_key(path: Path, key: Path) -> tuple[str, str]:
    from segtool.signatures import verify

    try:
        statement = verify(path, key)
    except ModelError as error:
        return "refused", str(error)
    return "ok", f"{statement.model} {statement.version}, signed; sha256 {statement.sha256}"


def sign_models(names: Sequence[str], key: Path | None) -> None:
    """Write the signature of each model beside it."""
    from segtool.bundled import find_model
    from segtool.signatures import sign

    if key is None or not names:
        raise UsageError(
            "sign wants model files and a private key",
            "Run: segtool models sign MODEL.onnx --key private.pem (make one: openssl genpkey -algorithm ed25519)",
        )
    for name in names:
        typer.echo(f"signed   {sign(find_model(name), key)}")
