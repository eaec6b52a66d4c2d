"""An environment of their own for the programs that Tandem is measured against."""

import os
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).resolve().parent.parent / ".tandem" / "peers"


def enter(name, packages):
    """Installs the packages into .tandem/peers/<name> the first time, and runs this script in there."""
    home = PEERS / name
    if Path(sys.prefix).resolve() == home.resolve():
        return home
    python, done = home / "bin" / "python", home / "done"
    if not done.exists() or done.read_text() != "\n".join(packages):
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        done.write_text("\n".join(packages))
    os.execv(python, [str(python), *sys.argv])
