"""What a machine would have to offer for the isolation layers that are not in force. Knows settings, lays no fence."""

from __future__ import annotations

import platform
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mathlete.sandbox.isolation import LAYERS

_NAMESPACES = ("userns", "pidns", "netns", "ipcns", "mntns")


@dataclass(frozen=True, slots=True)
class KernelSettings:
    """What of a kernel decides which layers can be had.

    Attributes:
        release: its version, as `uname -r` gives it.
        processor: as `uname -m` gives it.
        userns_clone: kernel.unprivileged_userns_clone (Debian), or "" where there is no such setting.
        apparmor_userns: kernel.apparmor_restrict_unprivileged_userns (Ubuntu), or "".
        max_user_namespaces: user.max_user_namespaces, or "".
        security_modules: those that are switched on, with commas, or "" where that cannot be read.
    """

    release: str
    processor: str
    userns_clone: str
    apparmor_userns: str
    max_user_namespaces: str
    security_modules: str


def read_kernel_settings(root: Path = Path("/")) -> KernelSettings:
    """The running kernel's settings."""
    return KernelSettings(
        release=platform.release(),
        processor=platform.machine(),
        userns_clone=_read(root / "proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_userns=_read(root / "proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        max_user_namespaces=_read(root / "proc/sys/user/max_user_namespaces"),
        security_modules=_read(root / "sys/kernel/security/lsm"),
    )


def missing_layers(in_force: Collection[str], settings: KernelSettings) -> dict[str, str]:
    """Layers that are not in force, in the order of `LAYERS`, each with what it would need; namespaces together."""
    missing = [layer for layer in LAYERS if layer not in in_force]
    namespaces = [layer for layer in missing if layer in _NAMESPACES]
    found = {", ".join(namespaces): _needs_of_namespaces(namespaces, settings)} if namespaces else {}
    for layer in missing:
        if layer in _NEEDS_OF_MOUNTS and "mntns" not in missing:
            found[layer] = _NEEDS_OF_MOUNTS[layer]
        elif layer == "gate" and "seccomp" not in missing:
            found[layer] = _NEEDS_OF_THE_GATE
        elif layer == "landlock":
            found[layer] = _needs_of_landlock(settings)
        elif layer == "seccomp":
            found[layer] = _needs_of_seccomp(settings)
    return found


_NEEDS_OF_MOUNTS = {
    "readonly": "Linux 5.12 or newer (mount_setattr)",
    "tmpfs": "the right to mount a tmpfs in a mount namespace of one's own",
    "newroot": "the right to bind mounts and to change the root in a mount namespace of one's own",
}
_NEEDS_OF_THE_GATE = (
    "Linux 5.5 or newer, and no other listener on system calls around this process; without it a program that times "
    "out or crashes takes its session with it"
)


def _needs_of_namespaces(missing: Collection[str], settings: KernelSettings) -> str:
    if settings.max_user_namespaces == "0":
        return "user namespaces are switched off: sysctl user.max_user_namespaces=10000, as root"
    if settings.userns_clone == "0":
        return "user namespaces are for root only: sysctl kernel.unprivileged_userns_clone=1, as root"
    if settings.apparmor_userns == "1":
        return (
            "AppArmor keeps programs from using user namespaces: sysctl "
            "kernel.apparmor_restrict_unprivileged_userns=0, as root, or an AppArmor profile for this Python"
        )
    if set(missing) == {"mntns"}:
        return "the right to mount in a mount namespace of one's own, which a container's profile may deny"
    return (
        "the system refuses `unshare`, as the default profile of Docker does: in a container, allow it by "
        "--security-opt seccomp=PROFILE with a profile that permits unshare and mount"
    )


def _needs_of_landlock(settings: KernelSettings) -> str:
    modules = settings.security_modules
    if modules and "landlock" not in modules.split(","):
        return f"Landlock is not switched on: add it to the kernel's command line, lsm=landlock,{modules}"
    return f"Linux 5.13 or newer (this is {settings.release}) with CONFIG_SECURITY_LANDLOCK, and calls to it permitted"


def _needs_of_seccomp(settings: KernelSettings) -> str:
    if settings.processor not in ("x86_64", "aarch64"):
        return f"a filter is known for x86_64 and aarch64 only; this is {settings.processor}"
    return "a kernel with seccomp filters (CONFIG_SECCOMP_FILTER)"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):  # no such setting here
        return ""
