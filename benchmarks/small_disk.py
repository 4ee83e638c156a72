"""Mounts a small disk and runs a command on it: ``python -m benchmarks.small_disk KIB FOLDER COMMAND ...``.

Runs in a name space of mounts of its own; what the command left on the disk is copied into the folder below it.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Mount, run, bring out what is there."""
    size, folder, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryDirectory() as below:
        if libc.mount(b"none", folder.encode(), b"tmpfs", 0, f"size={size}k".encode()) != 0:
            raise OSError(ctypes.get_errno(), "mount")
        code = subprocess.run(command, check=False).returncode
        kept = Path(below) / "kept"
        shutil.copytree(folder, kept)
        libc.umount(folder.encode())
        shutil.copytree(kept, folder, dirs_exist_ok=True)
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
