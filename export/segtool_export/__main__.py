"""``python -m segtool_export``: the export command alone."""

import typer

from segtool_export.cli import export

if __name__ == "__main__":
    typer.run(export)
