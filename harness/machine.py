"""The machine a run is timed on: its fingerprint, the hardware classes it can run, what else it is doing.

Nothing here imports torch, fails for want of a GPU, or needs more rights than reading /proc and /sys.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

from harness.core.cgroup import containing_groups
from harness.core.task import HardwareClass
from harness.errors import UserError

PACKAGES = ("torch", "triton", "numpy", "tiktoken", "tokenizers", "safetensors")
MIB = 1024 * 1024
# Without its persistence daemon, nvidia-smi first wakes every GPU: about 1 s each on an eight-GPU node.
NVIDIA_SMI_SECONDS = 20
DRIVER_PROGRAMS = "/usr/local/nvidia/bin"  # where some hosts of containers put them, not always on the path
CGROUPS = Path("/sys/fs/cgroup")
CPUFREQ = Path("/sys/devices/system/cpu")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
VECTOR_UNITS = ("avx", "amx", "fma", "asimd", "sve", "bf16")


@dataclass(frozen=True)
class Gpu:
    """One GPU as nvidia-smi names it. `split` is True where it is cut into MIG slices."""

    name: str
    memory_bytes: int | None
    driver: str
    split: bool


@dataclass(frozen=True)
class Machine:
    """Where a run took place. What cannot be read is None.

    `affinity_cores` are those this process may be scheduled on, `quota_cores` the CPU time its cgroup grants
    in cores, `memory_bytes` the smaller of the physical memory and its cgroup's limit. `cuda_build` is the
    CUDA version torch was built for, `governor` the kernel's CPU frequency policy, `huge_pages` its choice of large
    pages for memory. `instructions` are the vector units a virtual machine lets us see. `boot` is new at every boot.
    """

    platform: str
    kernel: str
    cpu: str
    logical_cores: int
    affinity_cores: int
    quota_cores: float | None
    memory_bytes: int
    gpus: tuple[Gpu, ...]
    python: str
    packages: dict[str, str]
    cuda_build: str | None
    governor: str | None
    virtual: bool | None
    instructions: tuple[str, ...] = ()
    huge_pages: str | None = None
    boot: str | None = None

    @property
    def allowed_cores(self) -> int:
        """Whole cores this process can keep busy, at least 1."""
        quota = self.affinity_cores if self.quota_cores is None else int(self.quota_cores)
        return max(1, min(self.affinity_cores, quota))

    @property
    def digest(self) -> str:
        """sha256 of what must agree before seconds are compared; nothing that changes from day to day."""
        parts = {
            "platform": self.platform,
            "cpu": self.cpu,
            "logical_cores": self.logical_cores,
            "gpus": [[gpu.name, gpu.driver, gpu.split] for gpu in self.gpus],
            "python": ".".join(self.python.split(".")[:2]),
            "torch": [self.packages.get("torch"), self.cuda_build],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Every field, and the digest and allowed cores with them."""
        return {**asdict(self), "allowed_cores": self.allowed_cores, "digest": self.digest}


def fingerprint() -> Machine:
    """Reads this machine: milliseconds without a GPU, one call of nvidia-smi with one."""
    import psutil

    cores = os.cpu_count() or 1
    cpuinfo = _text(Path("/proc/cpuinfo"))
    membership = _text(Path("/proc/self/cgroup"))
    return Machine(
        platform=f"{platform.system()}-{platform.machine()}",
        kernel=platform.release(),
        cpu=cpu_model(cpuinfo),
        logical_cores=cores,
        affinity_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores,
        quota_cores=cpu_quota(CGROUPS, membership),
        memory_bytes=min([psutil.virtual_memory().total, *memory_limits(CGROUPS, membership)]),
        gpus=parse_gpus(_nvidia_smi("--query-gpu=name,memory.total,driver_version,mig.mode.current")),
        python=platform.python_version(),
        packages=_package_versions(),
        cuda_build=_cuda_build(),
        governor=_governor(),
        virtual=("hypervisor" in cpuinfo.split()) if re.search(r"^flags\s*:", cpuinfo, re.M) else None,
        instructions=vector_instructions(cpuinfo),
        huge_pages=_chosen(_text(HUGE_PAGES)),
        boot=_text(BOOT_ID).strip() or None,
    )


def hardware_classes(machine: Machine) -> list[str]:
    """Names of the hardware classes this machine can run, smallest first: `cpu-1thread`, `1xH200`, `2xH200`.

    GPUs count in powers of two and all together; none without a torch built for CUDA, nor when cut in slices.
    """
    classes = ["cpu-1thread"]
    if machine.cuda_build is None:
        return classes
    for name, count in gpu_counts(machine).items():
        powers = {power for power in (1, 2, 4, 8, 16) if power < count}
        classes += [f"{devices}x{name}" for devices in sorted(powers | {count})]
    return classes


def gpu_counts(machine: Machine) -> Counter[str]:
    """How many whole GPUs there are of each class name."""
    return Counter(name for gpu in machine.gpus if not gpu.split and (name := gpu_class(gpu.name)))


def require_gpus(hardware: HardwareClass, machine: Machine, nodes: int = 1) -> None:
    """Seconds count by hardware class, so its GPUs must be this machine's; raises UserError where they are not."""
    if hardware.device == "cpu":
        return
    count, kind = hardware.devices // nodes, hardware.name.partition("x")[2]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.split(",")[:count] != [str(number) for number in range(count)]:
        message = f"CUDA_VISIBLE_DEVICES={visible}: a run takes the machine's first {count} GPU(s)"
        raise UserError(message, "unset it; to use other GPUs, start a container that has only those")
    if (counts := gpu_counts(machine))[kind] < count:
        has = ", ".join(f"{number} {name}" for name, number in counts.items()) or "none"
        raise UserError(
            f"{hardware.name}: a run takes {count} {kind} of this machine, and of whole GPUs it has: {has}",
            "name a class of this machine with --class; speedrun doctor lists them, from what nvidia-smi says",
        )


# Words that do not change how fast the product trains at a size that fits: maker, line, memory, socket.
_SAME_SPEED = re.compile(r"NVIDIA|Tesla|GeForce|Quadro|Generation|GPU|\d+GB|HBM\w*|SXM\d*", re.I)


def gpu_class(product: str) -> str | None:
    """The short name in a hardware class: "NVIDIA H100 80GB HBM3" is H100, "NVIDIA H100 PCIe" is H100PCIe."""
    words = [word for word in re.split(r"[\s-]+", product) if word and not _SAME_SPEED.fullmatch(word)]
    name = "".join(words)
    return name if re.fullmatch(r"[A-Z][A-Za-z0-9]+", name) else None


def cpu_model(cpuinfo: str) -> str:
    """The processor's name from the text of /proc/cpuinfo; ARM kernels give only its part number."""
    fields: dict[str, str] = {}
    for row in cpuinfo.splitlines():
        key, _, value = row.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    if fields.get("model name"):
        return fields["model name"]
    if "cpu part" in fields:
        return f"ARM implementer {fields.get('cpu implementer', '?')} part {fields['cpu part']}"
    return platform.processor() or platform.machine()


def vector_instructions(cpuinfo: str) -> tuple[str, ...]:
    """The flags of /proc/cpuinfo, `Features` on ARM, that name vector and matrix units."""
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.M)
    return tuple(sorted(flag for flag in set(match[1].split()) if flag.startswith(VECTOR_UNITS))) if match else ()


def _chosen(text: str) -> str | None:
    """The one in brackets of a list such as "always [madvise] never"."""
    match = re.search(r"\[(\w+)\]", text)
    return match[1] if match else None


def cpu_quota(root: Path, membership: str) -> float | None:
    """Cores' worth of CPU time granted by the tightest cgroup, version 2 or 1, or None without a limit.

    `root` is where cgroups are mounted, `membership` the text of /proc/self/cgroup.
    """
    limits = []
    for folder in containing_groups("cpu", root, membership):
        quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
        if not quota:
            quota = _text(folder / "cpu.cfs_quota_us").strip()
            period = _text(folder / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(period):
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def memory_limits(root: Path, membership: str) -> list[int]:
    """Memory limits in bytes of the cgroups this process is in; empty without any."""
    folders = containing_groups("memory", root, membership)
    texts = [_text(folder / name) for folder in folders for name in ("memory.max", "memory.limit_in_bytes")]
    return [int(text) for text in texts if text.strip().isdigit()]


def parse_gpus(rows: Iterable[list[str]]) -> tuple[Gpu, ...]:
    """GPUs from nvidia-smi's name, memory in MiB, driver and MIG mode; "[N/A]" is unknown."""
    return tuple(
        Gpu(row[0], int(row[1]) * MIB if row[1].isdigit() else None, row[2], row[3] == "Enabled")
        for row in rows
        if len(row) == 4
    )


def _nvidia_smi(query: str) -> list[list[str]]:
    """The rows nvidia-smi answers, cells stripped; empty where there is no GPU, no tool or no answer."""
    tool = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=DRIVER_PROGRAMS)
    if tool is None:
        return []
    command = [tool, query, "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.check_output(
            command, stderr=subprocess.DEVNULL, text=True, errors="replace", timeout=NVIDIA_SMI_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [[cell.strip() for cell in row.split(",")] for row in answer.splitlines() if row.strip()]


def _package_versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _cuda_build() -> str | None:
    """The CUDA version in torch/version.py, read as text because importing torch takes seconds."""
    spec = util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    match = re.search(r"^cuda\b.*=\s*'([^']+)'", _text(Path(spec.origin).with_name("version.py")), re.M)
    return match[1] if match else None


def _governor() -> str | None:
    """The frequency governor of the cores, all names where they differ."""
    texts = {_text(path).strip() for path in CPUFREQ.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return ", ".join(sorted(texts - {""})) or None


def _text(path: Path) -> str:
    """A small file of /proc or /sys; empty where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


@dataclass(frozen=True)
class Process:
    """A process that is not ours and how many cores it kept busy during the sample."""

    pid: int
    name: str
    cores: float


@dataclass(frozen=True)
class Load:
    """What the machine did besides this process and its children during one short sample.

    `average` is the kernel's load over 1, 5 and 15 minutes. `other_cores` counts cores kept busy by anything
    else, also by processes we may not see; `others` are the busiest visible ones. `swapped_bytes` moved
    between memory and swap during the sample. GPU fields are per GPU and per foreign process.
    """

    average: tuple[float, float, float]
    other_cores: float
    others: tuple[Process, ...]
    free_bytes: int
    swap_used_bytes: int
    swapped_bytes: int
    gpu_used_bytes: tuple[int, ...]
    gpu_processes: tuple[str, ...]
    clock_synchronized: bool | None


def sample_load(seconds: float = 0.2, top: int = 3) -> Load:
    """Watches the machine for `seconds`; the kernel counts CPU time in steps of 10 ms."""
    import psutil

    # Outside the window, since the tool's own CPU time would count as somebody else's once it has ended.
    gpu_used = tuple(int(row[0]) * MIB for row in _nvidia_smi("--query-gpu=memory.used") if row[0].isdigit())
    gpu_rows = _nvidia_smi("--query-compute-apps=pid,process_name")
    swapped, busy, processes, started = (
        total_swapped_bytes(),
        _busy_seconds(),
        _process_seconds(),
        time.monotonic(),
    )
    time.sleep(seconds)
    elapsed = time.monotonic() - started
    ours = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    used = {
        (pid, name): max(0.0, after - processes[pid, name]) / elapsed
        for (pid, name), after in _process_seconds().items()
        if (pid, name) in processes
    }
    own_cores = sum(cores for (pid, _), cores in used.items() if pid in ours)
    others = [Process(pid, name, round(cores, 2)) for (pid, name), cores in used.items() if pid not in ours]
    others.sort(key=lambda process: -process.cores)
    return Load(
        average=os.getloadavg(),
        other_cores=round(max(0.0, (_busy_seconds() - busy) / elapsed - own_cores), 2),
        others=tuple(process for process in others[:top] if process.cores > 0),
        free_bytes=psutil.virtual_memory().available,
        swap_used_bytes=psutil.swap_memory().used,
        swapped_bytes=total_swapped_bytes() - swapped,
        gpu_used_bytes=gpu_used,
        gpu_processes=tuple(f"{row[-1]} (pid {row[0]})" for row in gpu_rows if row[0] not in map(str, ours)),
        clock_synchronized=_clock_synchronized(),
    )


def total_swapped_bytes() -> int:
    """Bytes moved between memory and swap since the machine started; take the difference of two calls."""
    import psutil

    swap = psutil.swap_memory()
    return swap.sin + swap.sout


def _busy_seconds() -> float:
    """CPU seconds, over all cores since start-up, in which a core did something."""
    import psutil

    times = psutil.cpu_times()
    # Linux counts a guest's time in user and nice as well.
    idle = ("idle", "iowait", "guest", "guest_nice")
    return sum(value for name, value in times._asdict().items() if name not in idle)


def _process_seconds() -> dict[tuple[int, str], float]:
    """CPU seconds so far by (pid, name) of every process we may look at."""
    import psutil

    seconds = {}
    for process in psutil.process_iter(["name", "cpu_times"]):
        times = process.info["cpu_times"]
        if times is not None:
            seconds[process.pid, process.info["name"] or "?"] = times.user + times.system
    return seconds


def _clock_synchronized() -> bool | None:
    """What the kernel says of the system clock. See adjtimex(2): state 5 is TIME_ERROR, not synchronized."""
    try:
        # struct timex is 208 bytes on 64-bit Linux; zeros mean "change nothing".
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != 5
