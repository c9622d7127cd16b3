"""The sidecar as an operator confines it: installed from its wheel, on a read-only system, as another user.

There is neither Docker nor systemd in most places where tests run. But the limits that they set are the
kernel's, and the kernel is there: a mount namespace, `setpriv`, MDWE, and the unit's filter of system calls.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
UID, APP_UID, GROUP = 10_001, 10_002, 10_100

_MOUNTS = """
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs /opt
mkdir /opt/python /opt/token-keeper /opt/tests
mount --bind "$CONFINED_PYTHON" /opt/python
mount --bind "$CONFINED_TREE" /opt/token-keeper
mount --bind "$CONFINED_TESTS" /opt/tests
mount --bind "$CONFINED_WRITABLE" "$CONFINED_WRITABLE"
for place in /opt/python /opt/token-keeper /opt/tests /opt /; do mount -o remount,bind,ro "$place"; done
[ -z "$CONFINED_READ_ONLY" ] || mount -o remount,bind,ro "$CONFINED_WRITABLE"
exec setpriv --reuid "$CONFINED_UID" --regid "$CONFINED_UID" $CONFINED_SUPPLEMENTARY \\
    --inh-caps=-all --ambient-caps=-all --bounding-set=-all --no-new-privs -- \\
    /opt/python/bin/python3 -I /opt/tests/confine.py "$@"
"""


PR_GET_MDWE = 66
"""Of prctl(2): whether writable code is forbidden."""


def why_not() -> str:
    """Return why nothing can be confined here, or nothing."""
    if os.geteuid() != 0:
        return "only root can become another user"
    missing = [tool for tool in ("unshare", "setpriv", "mount") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/opt"], capture_output=True, check=False
    )
    if tried.returncode != 0:
        return "nothing can be mounted here"
    if ctypes.CDLL(None).prctl(PR_GET_MDWE, 0, 0, 0, 0) < 0:
        return "this kernel cannot forbid writable code (before 6.3)"
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return "libseccomp is not installed"
    return ""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a program gets.

    Args:
        tree: What is at /opt/token-keeper.
        writable: The only directory that can be written.
        uid: Its user, and its group.
        groups: More groups.
        calls: System calls that it may make; empty is all.
        families: Families of sockets that it may open.
        is_read_only: Not even *writable* can be written.
    """

    tree: Path
    writable: Path
    uid: int = UID
    groups: tuple[int, ...] = ()
    calls: tuple[str, ...] = ()
    families: tuple[str, ...] = ("AF_UNIX", "AF_INET", "AF_INET6")
    is_read_only: bool = False

    def environ(self, more: Mapping[str, str]) -> dict[str, str]:
        """Return the environment: what a container has, and what the confinement needs to know."""
        groups = ",".join(map(str, self.groups))
        return {
            "PATH": "/opt/token-keeper/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            # A Python that was built as a shared library looks for it where it was installed.
            "LD_LIBRARY_PATH": "/opt/python/lib",
            "CONFINED_PYTHON": sys.base_prefix,
            "CONFINED_TREE": str(self.tree),
            "CONFINED_TESTS": str(ROOT / "tests"),
            "CONFINED_WRITABLE": str(self.writable),
            "CONFINED_READ_ONLY": "1" if self.is_read_only else "",
            "CONFINED_UID": str(self.uid),
            "CONFINED_SUPPLEMENTARY": f"--groups {groups}" if groups else "--clear-groups",
            "CONFINED_GROUPS": json.dumps(list(self.groups)),
            "CONFINED_CALLS": json.dumps(self.calls),
            "CONFINED_FAMILIES": json.dumps(self.families),
            **more,
        }

    @contextmanager
    def running(self, *command: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
        """Run *command* in it; it is ended at the end. What it says goes to `log` beside the tree."""
        with (
            (self.tree.parent / "log").open("a") as log,
            subprocess.Popen(
                self._line(command), env=self.environ(environ), stdout=log, stderr=log, text=True, cwd="/"
            ) as process,
        ):
            try:
                yield process
            finally:
                process.terminate()

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run *command* in it to its end."""
        return subprocess.run(
            self._line(command),
            env=self.environ(environ),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            cwd="/",
        )

    @staticmethod
    def _line(command: Sequence[str]) -> list[str]:
        return ["unshare", "--mount", "sh", "-c", _MOUNTS, "confined", *command]


def install(wheel: Path, tree: Path) -> None:
    """Make *tree* what the image has at /opt/token-keeper: an environment with the wheel.

    The packages that it needs are those of our own environment: nothing is fetched.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = tree / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (tree / "bin").mkdir()
    (tree / "bin" / "python").symlink_to("/opt/python/bin/python3")
    (tree / "pyvenv.cfg").write_text("home = /opt/python/bin\ninclude-system-site-packages = false\n")
    command = tree / "bin" / "token-keeper"
    command.write_text(
        "#!/opt/token-keeper/bin/python\nimport sys\nfrom token_keeper.cli import main\nsys.exit(main())\n"
    )
    command.chmod(0o755)


@cache
def calls_of(name: str) -> frozenset[str]:
    """Return the system calls of systemd's set *name*."""
    said = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    ).stdout
    found: set[str] = set()
    for line in said.splitlines()[1:]:
        entry = line.strip()
        if entry.startswith("@"):
            found |= calls_of(entry)
        elif entry and not entry.startswith("#"):
            found.add(entry)
    return frozenset(found)


def calls_allowed_by(lines: Sequence[str]) -> tuple[str, ...]:
    """Return what `SystemCallFilter=` *lines* allow together, the first of which is an allow-list."""
    allowed: set[str] = set(calls_of("@default"))
    for line in lines:
        listed = {call for one in line.lstrip("~").split() for call in _calls(one)}
        allowed = allowed - listed if line.startswith("~") else allowed | listed
    return tuple(sorted(allowed))


def _calls(entry: str) -> frozenset[str]:
    return calls_of(entry) if entry.startswith("@") else frozenset({entry})
