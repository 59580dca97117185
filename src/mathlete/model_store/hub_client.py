"""The program that talks to the Hugging Face hub, run as a child by `hub`.

    hub_client probe REPO FILE                     print size and checksum
    hub_client fetch REPO FILE NUM_BYTES TARGET    append to TARGET what it lacks

Knows the hub's client library, nothing of our models. It downloads through the library's `http_get`, not its
`hf_hub_download`, because the latter (as of huggingface_hub 2) throws an unfinished download away.
"""

from __future__ import annotations

import fcntl
import json
import sys

import huggingface_hub
from huggingface_hub.file_download import http_get

TIMEOUT_S = 5.0


def probe(repo: str, file: str) -> None:
    """Print size and checksum of a file on the hub as JSON."""
    metadata = huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repo, file), timeout=TIMEOUT_S)
    print(json.dumps({"num_bytes": metadata.size, "sha256": metadata.etag}))


def fetch(repo: str, file: str, num_bytes: int, target: str) -> None:
    """Append to `target` what it lacks of a file of `num_bytes` bytes."""
    with open(target, "ab") as partial:
        # A killed pull may leave a client like this one alive; wait for it instead of writing between its bytes.
        fcntl.flock(partial, fcntl.LOCK_EX)
        url = huggingface_hub.hf_hub_url(repo, file)
        http_get(url, partial, resume_size=partial.tell(), expected_size=num_bytes)


def main(arguments: list[str]) -> None:
    """Do what the command line says; errors end as one line on stderr and status 1."""
    command, repo, file, *rest = arguments
    try:
        if command == "probe":
            probe(repo, file)
        else:
            num_bytes, target = rest
            fetch(repo, file, int(num_bytes), target)
    except Exception as error:  # a child's boundary: every failure becomes one line for the parent
        sys.exit(f"ERROR: {type(error).__name__}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main(sys.argv[1:])
