"""``segtool models``: what comes with the package."""

from pathlib import Path
from typing import Annotated, Any

import typer


def models(
    name: Annotated[str | None, typer.Argument(help="Print the card of this model.", show_default=False)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: the list, or one model's whole spec.")] = False,
) -> None:
    """List the bundled models, or print the card of one: data, measurements, limits, licence."""
    from segtool.bundled import bundled_models, find_model, model_card

    if name is None:
        _list({each: _row(path) for each, path in bundled_models().items()}, json)
    elif json:
        from segtool.commands.model_facts import describe_model
        from segtool.commands.show import to_json

        typer.echo(to_json(describe_model(find_model(name))))
    else:
        typer.echo(model_card(find_model(name).stem).rstrip())


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
