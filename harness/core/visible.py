"""Which parts of the machine a sandbox shows: what an interpreter, a compiler and torch need, and little text.

Left out on purpose are manuals, licences and word lists (/usr/share), whatever programs keep beside their libraries
(/usr/lib/NAME), the packages of an interpreter that an environment does not use, and the interpreter's own tests.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Iterable
from functools import cache
from pathlib import Path

FOLDERS = ("/usr/bin", "/usr/sbin", "/usr/lib64", "/usr/libexec/gcc", "/usr/include", "/bin", "/sbin", "/lib64")
FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/sys/devices/system/cpu")
# Of these only shared libraries and the folders of compilers, multi-architecture libraries and locales.
LIBRARY_FOLDERS = ("/usr/lib", "/lib", "/usr/local/lib")
LIBRARY = re.compile(r".*\.so[.\d]*|.*\.o|.*-linux-gnu.*|gcc.*|llvm.*|clang.*|locale|nvidia|wsl")
GPU_NODE = re.compile(r"/dev/nvidia(\d+)")
GPU_PATHS = ("/usr/local/cuda", "/usr/local/nvidia", "/sys", "/etc/OpenCL")
GPU_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
DRIVER = Path("/usr/local/nvidia/lib64")  # where some hosts of containers put the driver's libraries


def first_gpus(nodes: Iterable[str], count: int) -> list[str]:
    """Of the driver's device nodes those of the first `count` GPUs, by number, and those that belong to none."""
    numbered = {node: int(match[1]) for node in nodes if (match := GPU_NODE.fullmatch(node))}
    kept = sorted(numbered, key=lambda node: numbered[node])[:count]
    return sorted(node for node in nodes if node not in numbered or node in kept)


def gpu_environment() -> dict[str, str]:
    """What lets a process find the driver, and number the GPUs as the judge does."""
    return GPU_ORDER | ({"LD_LIBRARY_PATH": str(DRIVER)} if DRIVER.is_dir() else {})


@cache
def system_paths(gpus: bool) -> list[str]:
    """Programs, libraries and headers of the system; links such as /lib stay links."""
    paths = [*FOLDERS, *FILES, *(GPU_PATHS if gpus else ())]
    for name in LIBRARY_FOLDERS:
        folder = Path(name)
        if folder.is_symlink():
            paths.append(name)
        elif folder.is_dir():
            paths += [str(entry) for entry in sorted(folder.iterdir()) if LIBRARY.fullmatch(entry.name)]
    return paths


@cache
def python_paths() -> list[str]:
    """The interpreter, its standard library and the environment's packages, wherever they lie."""
    paths = [str(Path(home) / "bin") for home in dict.fromkeys([sys.prefix, sys.base_prefix])]
    paths += [str(Path(sys.prefix) / "pyvenv.cfg"), *_packages()]
    paths += [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "include")]
    paths += [str(file) for file in sorted(Path(sys.base_prefix, "lib").glob("libpython*"))]
    # A Python installed by copying keeps further libraries of its own, such as OpenSSL, beside its binaries.
    paths += [str(file) for file in sorted(Path(sys.base_prefix, "lib").glob("*.so*"))]
    return [path for path in dict.fromkeys(paths) if Path(path).exists() and path not in FOLDERS]


@cache
def hidden() -> list[str]:
    """Folders inside what is shown that are not: packages outside of the environment, tests of the interpreter."""
    standard = Path(sysconfig.get_path("stdlib"))
    unused = [standard / name for name in ("site-packages", "dist-packages") if str(standard / name) not in _packages()]
    return [str(folder) for folder in (*unused, standard / "test") if folder.is_dir()]


def without_hidden(paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """For rules that can only allow: `paths` with a folder around something hidden replaced by its other entries.

    Second are those folders, whose names may be listed. Links are left out, since a rule would follow them.
    """
    secret = set(map(Path, hidden()))
    allowed: list[str] = []
    around: list[str] = []
    for path in map(Path, paths):
        if path.is_symlink():
            continue
        inside = {place for place in secret if path in place.parents}
        if not inside:
            allowed.append(str(path))
            continue
        around.append(str(path))
        allowed += [str(entry) for entry in sorted(path.iterdir()) if entry not in inside]
    return allowed, around


@cache
def _packages() -> list[str]:
    """The folders of installed packages that the interpreter searches."""
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
