"""Assembles the command line. No command's module is imported before that command is called."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import typer

from segtool.errors import UserError

COMMANDS: dict[str, tuple[str, str]] = {
    "predict": (
        "segtool.commands.predict:predict",
        "Segment a folder of scans; Dice and IoU where references lie.",
    ),
    "bench": ("segtool.commands.bench:bench", "Time a model on every engine that is here, and compare their masks."),
    "evaluate": (
        "segtool.commands.evaluate:evaluate",
        "Compare label maps, whoever made them, with references.",
    ),
    "inspect": (
        "segtool.commands.inspect:inspect",
        "Say what the tool sees in a folder of scans or a model file.",
    ),
    "models": ("segtool.commands.models:models", "List the bundled models and print their cards."),
    "doctor": ("segtool.commands.doctor:doctor", "Check this installation; name what is missing."),
    "demo": ("segtool.commands.demo:demo", "Segment generated scans with the bundled model."),
}
PLUGIN_GROUP = "segtool.commands"
PLUGINS: dict[str, str] = {
    "train": "Train a network from a recipe, on a folder of scans.",
    "export": "Turn a training run into one self-describing .onnx file.",
}
"""Help of the commands that come through entry points: listing them must not load their packages."""

_INTERRUPTED = (130, 143)
"""128 and the number of SIGINT or SIGTERM."""


def _load_plugin(name: str) -> Callable[..., Any]:
    from importlib.metadata import entry_points

    for point in entry_points(group=PLUGIN_GROUP, name=name):
        function: Callable[..., Any] = point.load()
        return function
    raise UserError(f"`segtool {name}` is not installed", f"Install it with: pip install 'segtool[{name}]'")


def _load(name: str) -> Callable[..., Any]:
    if name in PLUGINS:
        return _load_plugin(name)
    module, _, attribute = COMMANDS[name][0].partition(":")
    function: Callable[..., Any] = getattr(import_module(module), attribute)
    return function


def _stand_in() -> None:
    """Stands for a command that is only listed."""


def _version(value: bool) -> None:
    if value:
        from segtool.version import __version__

        typer.echo(f"segtool {__version__}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
) -> None:
    """Brain-tumour MRI segmentation from one self-describing model file.

    Not a medical device.
    """


def build(called: str | None) -> typer.Typer:
    """The application with ``called`` loaded and every other command only listed."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.callback()(_root)
    texts = {name: text for name, (_, text) in COMMANDS.items()} | PLUGINS
    for name, text in texts.items():
        app.command(name, short_help=text)(_load(name) if name == called else _stand_in)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code.

    0 all done, 1 some cases failed, 2 wrong usage or a machine that lacks something, 130 interrupted, 143 ended by
    SIGTERM.
    """
    words = sys.argv[1:] if arguments is None else arguments
    called = words[0] if words and (words[0] in COMMANDS or words[0] in PLUGINS) else None
    try:
        build(called)(words, prog_name="segtool")
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    except SystemExit as stop:
        # Typer turns an interruption into such a code, without a word.
        if stop.code in _INTERRUPTED:
            typer.echo("interrupted", err=True)
        raise


if __name__ == "__main__":
    main()
