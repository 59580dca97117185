"""The attacks of all kinds."""

from __future__ import annotations

from attacks_on_files import READING, WRITING
from attacks_on_kernel import KERNEL
from attacks_on_network import NETWORK
from attacks_on_processes import PROCESSES
from attacks_on_python import PYTHON
from attacks_on_resources import RESOURCES

ATTACKS = (*READING, *WRITING, *NETWORK, *PROCESSES, *KERNEL, *RESOURCES, *PYTHON)
