"""Having Chromium draw a page, for the pictures of these documents. Nothing is touched up."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTH = 1180
TIMEOUT_S = 120
FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --hide-scrollbars".split()


def shoot(address: str, picture: Path, height: int) -> None:
    """Write the picture of the top of a page; ends the program when there is no Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("Chromium is not on the path; it draws the page")
    with tempfile.TemporaryDirectory() as profile:
        flags = [f"--user-data-dir={profile}", f"--window-size={WIDTH},{height}", f"--screenshot={picture}"]
        subprocess.run([chromium, *FLAGS, *flags, address], check=True, capture_output=True, timeout=TIMEOUT_S)
    print(f"{picture}: {picture.stat().st_size / 1_000:.0f} kB")
