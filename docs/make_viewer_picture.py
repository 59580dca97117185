"""Draw docs/viewer.png: the viewer's page of a run that goes on, as a browser shows it.

    python docs/make_viewer_picture.py runs/<run of examples/problems.csv> --share 0.6

The run must be of problems that may be shown (`examples/problems.csv`). Its first events, `--share` of them, are
written into a store of their own that is held open, as a run in progress holds its store; the picture is what
`mathlete view` serves of it. Needs Chromium. Nothing is touched up.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import threading
from pathlib import Path

from page_picture import shoot

from mathlete.lab.run_finding import FoundRun
from mathlete.lab.run_folder import RunFolder
from mathlete.lab.run_store import EventRow, RunStore
from mathlete.viewer.app import Viewer
from mathlete.viewer.index import Catalogue
from mathlete.viewer.server import Server, address_of, open_port, serve

PICTURE = Path(__file__).parent / "viewer.png"
HEIGHT = 1500


def main() -> None:
    """Write the beginning of the run, serve it, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--share", type=float, default=0.6, help="of its events")
    given = parser.parse_args()
    with RunStore.read(given.run / "run.sqlite") as store:
        rows = list(store.rows())
    with tempfile.TemporaryDirectory() as folder:
        draw(rows[: round(given.share * len(rows))], RunFolder.create(Path(folder), given.run.name))


def draw(rows: list[EventRow], folder: RunFolder) -> None:
    """Serve a run in progress with these events, and write the picture of its page."""
    with RunStore.create(folder.store_path) as part:
        part.append_rows(rows)
        viewer = Viewer(Catalogue(named=[FoundRun(part.path, folder.id)]))
        server, listening = Server(viewer.app(), viewer.close), open_port("127.0.0.1", 0)
        thread = threading.Thread(target=serve, args=(server, listening))
        thread.start()
        try:
            shoot(f"{address_of(listening)}runs/{folder.id}", PICTURE, HEIGHT)
        finally:
            server.handle_exit(signal.SIGTERM, None)
            thread.join()


if __name__ == "__main__":
    main()
