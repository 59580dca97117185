"""The Hugging Face hub as a source, through its own client in a child process.

The child is what makes "never hang" true: a name resolution or a connection that ignores time-outs dies with it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

from mathlete.model_store.child import largest_file_bytes, run_child
from mathlete.model_store.disk import disk_full, require_room
from mathlete.model_store.progress import Progress, Report
from mathlete.model_store.registry import ModelSpec
from mathlete.model_store.sources import Fetched, SourceUnavailable

PROBE_S = 8.0
STALL_S = 60.0
CLIENT = (sys.executable, "-m", "mathlete.model_store.hub_client")
ENVIRONMENT = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
PARTIAL = "model.gguf.partial"


class HubSource:
    """Fetches a model's file from its repository on the hub."""

    name = "hub"

    def __init__(self, probe_s: float = PROBE_S, stall_s: float = STALL_S) -> None:
        """Give the hub `probe_s` seconds to answer at all, and `stall_s` without a new byte."""
        self._probe_s = probe_s
        self._stall_s = stall_s

    def num_bytes_kept(self, folder: Path) -> int:
        """Size of the unfinished download."""
        return largest_file_bytes(folder)

    def fetch(self, spec: ModelSpec, folder: Path, report: Report) -> Fetched:
        """See `Source.fetch`."""
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise SourceUnavailable("HF_HUB_OFFLINE is set")
        if importlib.util.find_spec("huggingface_hub") is None:
            raise SourceUnavailable("the package huggingface_hub is not installed")
        report(Progress("Asking the Hugging Face hub", 0, spec.num_bytes))
        self._require_same_file(spec)
        kept = self.num_bytes_kept(folder)
        if kept > spec.num_bytes:
            (folder / PARTIAL).unlink()
            kept = 0
        require_room(folder, needed=spec.num_bytes - kept, kept=kept)
        self._download(spec, folder, report)
        return Fetched(folder / PARTIAL, f"Hugging Face hub, {spec.hub_repo}")

    def _require_same_file(self, spec: ModelSpec) -> None:
        """Look before a gigabyte moves: the hub names size and checksum of a file beforehand."""
        try:
            result = run_child(
                [*CLIENT, "probe", spec.hub_repo, spec.hub_file], environment=ENVIRONMENT, stall_s=self._probe_s
            )
        except TimeoutError as error:
            raise SourceUnavailable(f"no answer within {self._probe_s:g} s") from error
        if result.returncode != 0:
            raise SourceUnavailable(result.last_words())
        offered = json.loads(result.stdout)
        if (offered["num_bytes"], offered["sha256"]) != (spec.num_bytes, spec.sha256):
            raise SourceUnavailable(
                f"it offers another file ({offered['num_bytes']} bytes, checksum {offered['sha256']}; "
                f"expected {spec.num_bytes} bytes, {spec.sha256})"
            )

    def _download(self, spec: ModelSpec, folder: Path, report: Report) -> None:
        what = f"Fetching {spec.name} from the Hugging Face hub"
        try:
            result = run_child(
                [*CLIENT, "fetch", spec.hub_repo, spec.hub_file, str(spec.num_bytes), str(folder / PARTIAL)],
                environment=ENVIRONMENT,
                measure=lambda: largest_file_bytes(folder),
                on_bytes=lambda num_bytes: report(Progress(what, min(num_bytes, spec.num_bytes), spec.num_bytes)),
                stall_s=self._stall_s,
            )
        except TimeoutError as error:
            raise SourceUnavailable(f"the download stopped: {error}") from error
        if result.ran_out_of_disk():
            kept = self.num_bytes_kept(folder)
            raise disk_full(folder, needed=spec.num_bytes - kept, kept=kept)
        if result.returncode != 0:
            raise SourceUnavailable(result.last_words())
