"""What the kernel counts for the container of a process, in both versions of cgroups."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def seconds(pid: str) -> float:
    """Of processor time that it has taken."""
    folder, first_version = _folder(pid, "cpuacct", "cpu.stat")
    if first_version:
        return int((folder / "cpuacct.usage").read_text()) / 1e9
    return _numbers(folder / "cpu.stat")["usage_usec"] / 1e6


def memory(pid: str) -> float:
    """MiB without what the kernel gives back on demand: the page cache, files that programs are mapped from included.

    `docker stats` counts most of that for whoever was the first to read a file, which the same stack started again is not.
    """
    folder, first_version = _folder(pid, "memory", "memory.current")
    stat = _numbers(folder / "memory.stat")
    if first_version:
        used = int((folder / "memory.usage_in_bytes").read_text())
        cache = stat["total_cache"] - stat["total_shmem"]
    else:
        used = int((folder / "memory.current").read_text())
        cache = stat["file"] - stat["shmem"] + stat["slab_reclaimable"]
    return (used - cache) / 1024**2


def _folder(pid: str, controller: str, known_by: str) -> tuple[Path, bool]:
    """Where the controller counts, and whether it is one of the first version."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return _ROOT / controllers / path.lstrip("/"), True
        if not controllers and (_ROOT / path.lstrip("/") / known_by).is_file():
            return _ROOT / path.lstrip("/"), False
    raise SystemExit(f"Process {pid} is in no cgroup that counts its {controller}.")


def _numbers(file: Path) -> dict[str, int]:
    return {name: int(value) for name, value in map(str.split, file.read_text().splitlines())}
