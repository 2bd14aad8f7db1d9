"""Containers without an engine: namespaces, a read-only root and no rights, as compose.yml asks for.

Each has a network of its own on one bridge, which nothing outside reaches. Needs root, util-linux and iproute2.
"""

from __future__ import annotations

import json
import os
import pwd
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit import processes
from kit.waiting import LIMIT_S, wait_until

__all__ = ["Container", "Image", "Network", "built_image", "network"]

IMAGES = Path(__file__).parents[2] / "scripts" / "images.sh"


@dataclass(frozen=True)
class Image:
    """A built image, unpacked."""

    root: Path
    user: int
    folder: str
    entrypoint: tuple[str, ...]
    environment: Mapping[str, str]


def buildah(*words: str) -> str:
    done = processes.run([str(IMAGES), "buildah", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return str(done.stdout).strip()


@contextmanager
def built_image(name: str = "localhost/smartlink") -> Iterator[Image]:
    """The image that scripts/images.sh has built."""
    config = json.loads(buildah("inspect", "--type", "image", name))["OCIv1"]["config"]
    unpacked = buildah("from", "--pull-never", name)
    try:
        yield Image(
            root=Path(buildah("mount", unpacked)),
            user=int(config["User"].partition(":")[0]),
            folder=config["WorkingDir"],
            entrypoint=tuple(config["Entrypoint"]),
            environment=dict(each.split("=", 1) for each in config["Env"]),
        )
    finally:
        buildah("rm", unpacked)


class Network:
    """A bridge in a namespace of its own, and the names of what is on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts = folder / "hosts"
        self.hosts.write_text("127.0.0.1 localhost\n")
        self._count = 1
        self._holder = processes.popen(["unshare", "--net", "sleep", "infinity"])
        own, here = Path(f"/proc/{self._holder.pid}/ns/net"), Path("/proc/self/ns/net")
        wait_until(lambda: own.readlink() != here.readlink(), what="a network namespace")
        self.ip("link", "add", "bridge", "type", "bridge")
        self.ip("addr", "add", "10.77.0.1/24", "dev", "bridge")
        self.ip("link", "set", "bridge", "up")

    def ip(self, *words: str) -> None:
        done = processes.run(["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "ip", *words], capture_output=True)
        assert done.returncode == 0, done.stderr

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """A command of this machine, beside the containers; it knows their names."""
        script = f'mount --bind {self.hosts} /etc/hosts && exec "$@"'
        inside = ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "unshare", "--mount"]
        return processes.run([*inside, "bash", "-c", script, "bash", *command], **options)

    def address(self, *names: str) -> str:
        """A new one, under these names, which others may have too."""
        self._count += 1
        with self.hosts.open("a") as hosts:
            hosts.write(f"10.77.0.{self._count} {' '.join(names)}\n")
        return f"10.77.0.{self._count}"

    def plug(self, pid: int, address: str) -> None:
        link = f"v{address.rpartition('.')[2]}"
        self.ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        self.ip("link", "set", link, "master", "bridge", "up")

    def end(self) -> None:
        self._holder.kill()
        self._holder.wait(LIMIT_S)


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    made = Network(folder)
    try:
        yield made
    finally:
        made.end()


@dataclass
class Container:
    """One service. Without an image it runs from this machine's own files, as `user`."""

    name: str
    network: Network
    address: str
    command: Sequence[str]
    environment: Mapping[str, str]
    image: Image | None = None
    user: str = ""
    tmpfs: Sequence[str] = ()
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.network.folder / f"{self.name}-{self.address}.log"
        # A service that opens /dev/stdout opens this file.
        self.log.touch()
        self.log.chmod(0o666)

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def pid(self) -> int:
        """Of its first process, as this machine counts."""
        parent = self._process.pid
        return int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def start(self) -> None:
        flags = ["--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
        with self.log.open("wb") as log:
            self._process = processes.popen(
                ["unshare", *flags, "bash", "-c", self._script()], stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        pid = self._process.pid
        wait_until(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text(), what="the container's first process")
        self.network.plug(self.pid, self.address)
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.close()

    def _script(self) -> str:
        lines = [
            "set -e",
            "read -r _",
            f"ip link set lo up; ip addr add {self.address}/24 dev eth0; ip link set eth0 up",
            "mount --make-rprivate /",
        ]
        root = "/"
        if self.image is not None:
            root = str(self.image.root)
            lines += [
                f"mount --rbind {root} {root}",
                f"mount -o remount,bind,ro {root}",
                f"mount -t proc proc {root}/proc",
                f"mount -t tmpfs -o mode=755 tmpfs {root}/dev",
                f"for each in null zero full random urandom; do touch {root}/dev/$each; mount --bind /dev/$each {root}/dev/$each; done",
            ]
        else:
            lines.append("mount -t proc proc /proc")
        for each in self.tmpfs:
            path, _, options = each.partition(":")
            lines.append(f"mount -t tmpfs -o {options or 'mode=1777'},nosuid,nodev tmpfs {root}{path}")
        lines += [
            f"mount --bind {self.network.hosts} {root}/etc/hosts",
            "exec " + shlex.join(["chroot", root, *self._restricted([*self._entrypoint, *self.command])]),
        ]
        return "\n".join(lines)

    @property
    def _entrypoint(self) -> tuple[str, ...]:
        return () if self.image is None else self.image.entrypoint

    def _restricted(self, command: Sequence[str]) -> list[str]:
        """`cap_drop: [ALL]`, `no-new-privileges`, the image's user, and nothing of this machine's environment."""
        user = self.user if self.image is None else str(self.image.user)
        base = {"PATH": os.environ["PATH"]} if self.image is None else self.image.environment
        group = int(user) if self.image is not None else pwd.getpwnam(user).pw_gid
        return [
            "setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", f"--reuid={user}", f"--regid={group}",
            "--clear-groups", "env", "-i", "-C", "/tmp" if self.image is None else self.image.folder,
            *(f"{name}={value}" for name, value in {**base, **self.environment}.items()), *command,
        ]  # fmt: skip

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """As `docker compose exec`."""
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--ipc", "--uts", "--root"]
        return processes.run([*inside, *self._restricted(command)], capture_output=True, text=True, **options)

    def wait(self, timeout_s: float = LIMIT_S) -> int:
        """The exit code of its command."""
        return self._process.wait(timeout_s)

    def stop(self, how: int, timeout_s: float) -> int:
        """As `docker stop`: its first process is told; the exit code. Raises TimeoutExpired."""
        os.kill(self.pid, how)
        return self.wait(timeout_s)

    def end(self) -> None:
        if self.is_running:
            self._process.kill()
            self._process.wait(LIMIT_S)
