"""``segtool models``: what comes with the package, and engines that were built of models."""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segtool.errors import UsageError, printable

if TYPE_CHECKING:
    from segtool.backends.engine_cache import Entry


def models(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME | verify [MODEL...] | sign MODEL...]",
            help="Print the card of this model; or verify models against the checksums that come with segtool or, "
            "with --key, against their maker's signature; or sign them. [default: list all]",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: the list, or one model's whole spec.")] = False,
    cache: Annotated[bool, typer.Option("--cache", help="List the TensorRT engines that were built here.")] = False,
    clear: Annotated[bool, typer.Option("--clear", help="With --cache: delete them.")] = False,
    key: Annotated[
        Path | None, typer.Option(metavar="KEY.pem", help="Of Ed25519: public for verify, private for sign.")
    ] = None,
) -> None:
    """List the bundled models, print the card of one (data, measurements, limits, licence), or verify model files."""
    from segtool.bundled import bundled_models, find_model, model_card

    action, *rest = words or [""]
    if action in ("verify", "sign"):
        from segtool.commands.model_trust import sign_models, verify_models

        (verify_models if action == "verify" else sign_models)(rest, key)
        return
    if rest or key is not None:
        raise UsageError(
            f"{' '.join(rest) or '--key'}: only for verify and sign",
            "Run: segtool models verify MODEL... --key PUBLIC.pem",
        )
    name = action or None
    if (cache and name is not None) or (clear and not cache):
        raise UsageError(
            "--clear deletes engines, no models" if clear else f"--cache is of all models, not of {name}",
            f"Run: segtool models --cache{' --clear' if clear else ''}",
        )
    if cache:
        _engines(json, clear)
    elif name is None:
        _list({each: _row(path) for each, path in bundled_models().items()}, json)
    elif json:
        from segtool.commands.model_facts import describe_model
        from segtool.commands.show import to_json

        typer.echo(to_json(describe_model(find_model(name))))
    else:
        typer.echo(model_card(find_model(name).stem).rstrip())


def _engines(as_json: bool, clear: bool) -> None:
    from segtool.backends.engine_cache import EngineCache
    from segtool.commands.show import print_columns, to_json

    store = EngineCache()
    entries = store.entries()
    if clear:
        freed = store.clear()
        answer = {"deleted": len(entries), "bytes": freed, "folder": str(store.folder)}
        typer.echo(to_json(answer) if as_json else f"freed   {_summary(entries)} in {store.folder}")
    elif as_json:
        typer.echo(to_json([{"path": str(entry.path), "bytes": entry.bytes, **entry.facts} for entry in entries]))
    else:
        rows = [_engine_row(entry) for entry in entries if entry.facts]
        if rows:
            shapes = "smallest, usual, largest input"
            print_columns([("model", "engine", "GPU", "precision", shapes, "MB", "built", "model's sha256"), *rows])
        clearing = "; delete with: segtool models --cache --clear" if entries else ""
        typer.echo(f"{_summary(entries)} in {store.folder}{clearing}")


def _engine_row(entry: "Entry") -> tuple[str, ...]:
    return (
        *(printable(str(entry.facts[name])) for name in ("model", "engine", "gpu", "precision", "profile")),
        f"{entry.bytes / 1e6:.1f}",
        date.fromtimestamp(entry.built).isoformat(),
        printable(str(entry.facts["onnx_sha256"])[:12]),
    )


def _summary(entries: "list[Entry]") -> str:
    """Such as ``2 engines, 1 other file, 8.1 MB``."""
    engines = sum(bool(entry.facts) for entry in entries)
    others = len(entries) - engines
    also = f", {others} other file{'s' * (others != 1)}" if others else ""
    return f"{engines} engine{'s' * (engines != 1)}{also}, {sum(entry.bytes for entry in entries) / 1e6:.1f} MB"


def _row(path: Path) -> dict[str, Any]:
    from segtool.commands.model_facts import input_text, test_dice
    from segtool.model_file import read_spec

    spec = read_spec(path)
    return {
        "version": spec.version,
        "description": spec.description,
        "bytes": path.stat().st_size,
        "input": input_text(spec),
        "labels": [label.name for label in spec.labels],
        "test_dice": test_dice(spec),
        "path": str(path),
    }


def _list(rows: dict[str, dict[str, Any]], as_json: bool) -> None:
    from segtool.commands.show import print_columns, to_json

    if as_json:
        typer.echo(to_json([{"name": name, **row} for name, row in rows.items()]))
        return
    if not rows:
        typer.echo("no model comes with this installation; pass one to `segtool predict` with --model")
        return
    heading = ("name", "version", "MB", "input", "labels", "test Dice")
    lines = [
        (
            name,
            row["version"],
            f"{row['bytes'] / 1e6:.1f}",
            row["input"],
            " ".join(row["labels"]),
            "-" if row["test_dice"] is None else f"{row['test_dice']:.3f}",
        )
        for name, row in rows.items()
    ]
    print_columns([heading, *lines])
    typer.echo("The card of one: segtool models NAME")
