"""``python -m segtool_train``: the train command alone."""

import typer

from segtool_train.cli import train

if __name__ == "__main__":
    typer.run(train)
