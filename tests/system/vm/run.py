"""Run a command as root in a throw-away VM whose kernel has every cgroup v2 controller.

    python tests/system/vm/run.py [--systemd] [--share FOLDER]... [--time-limit SECONDS] -- COMMAND [ARGUMENT]...

The VM shows the host's files at the same paths; the command has the same working directory and environment. What it
writes is thrown away, except below each shared folder. Its output and its exit status come back; 124 means that the
time limit ran out, 125 that the VM failed. There is no network but loopback. Inside:

    /sys/fs/cgroup  cgroup2 with all controllers. The command is in the root group; with --systemd, systemd is PID 1 and
                    the command in a unit with Delegate=yes
    /run/scratch    ext4 on a virtio disk, for io.max
    $TEST_IN_VM     is 1, and $TEST_DISK and $TMPDIR are /run/scratch

It needs root (for virtiofsd), no KVM, and what `make test-vm-programs` fetches. Python is 15 to 20 times slower inside.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
KERNEL = HERE.parents[2] / "build" / "vm-kernel"
BUSYBOX = Path("/bin/busybox")
VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
NEEDED = {
    KERNEL / "modules" / "modules.dep": "the kernel that `make test-vm-programs` fetches",
    BUSYBOX: "busybox-static",
    VIRTIOFSD: "qemu-system-common",
    Path("/usr/bin/qemu-system-x86_64"): "qemu-system-x86",
    Path("/sbin/mke2fs"): "e2fsprogs",
    Path("/lib/systemd/systemd"): "systemd",
    Path("/usr/bin/dbus-daemon"): "dbus",
}
MODULES = ("virtio_pci", "virtio_console", "virtio_blk", "overlay", "virtiofs", "ext4", "loop")
SOCKET_LIMIT = 10.0  # seconds until virtiofsd listens; it takes milliseconds
TIMED_OUT, FAILED = 124, 125

# virtiofsd serves a copy of the tree in a mount namespace of its own, read-only but for what is shared.
# It cannot serve / itself: its pivot_root answers EBUSY.
SERVE = """set -e
root=$1; shift
mount --rbind / "$root"
findmnt --raw --noheadings --output TARGET --submounts "$root" | tac | while read -r mounted; do
    mount -o remount,bind,ro "$(printf %b "$mounted")"
done
while [ "$1" != -- ]; do mount --bind "$1" "$root$1"; shift; done
shift
exec "$@"
"""


def why_not() -> str | None:
    """What keeps the VM from running on this machine, or `None`."""
    if os.geteuid() != 0:
        return "the VM needs root"
    missing = [name for path, name in NEEDED.items() if not path.exists()]
    return f"the VM needs {', '.join(missing)}" if missing else None


def run(command: list[str], *, systemd: bool = False, shared: tuple[Path, ...] = (), time_limit: float = 300) -> int:
    """Run a command in a VM of its own; its output goes to ours. Returns its exit status."""
    deadline = time.monotonic() + time_limit
    with tempfile.TemporaryDirectory(prefix="jobworker-vm-") as name, ExitStack() as stack:
        folder = Path(name)
        _write_initramfs(folder / "initramfs", command, systemd=systemd, shared=shared)
        _write_disk(folder / "disk")
        if not stack.enter_context(_file_server(folder, shared)):
            sys.stderr.write(f"vm: no file server\n{(folder / 'files.log').read_text()}")
            return FAILED
        vm = stack.enter_context(_vm(folder))
        try:
            vm.wait(max(1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            sys.stderr.write(f"vm: stopped after {time_limit:g} s\n")
            return TIMED_OUT
        status = (folder / "status").read_text().strip()
        if not status:
            console = (folder / "console").read_text(errors="replace")
            sys.stderr.write(f"vm: it ended before the command; the end of its console:\n{console[-3000:]}\n")
        return int(status or FAILED)


def _write_initramfs(path: Path, command: list[str], *, systemd: bool, shared: tuple[Path, ...]) -> None:
    modules = _modules()
    script = (HERE / "init.sh").read_text()
    script = script.replace("@MODULES@", " ".join(module.name for module in modules))
    script = script.replace("@SHARED@", shlex.join(map(str, shared))).replace("@SYSTEMD@", "1" if systemd else "")
    environ = {**os.environ, "TEST_IN_VM": "1", "TEST_DISK": "/run/scratch", "TMPDIR": "/run/scratch"}
    lines = [f"export {key}={shlex.quote(value)}" for key, value in environ.items() if key.isidentifier()]
    lines += [f"cd {shlex.quote(str(Path.cwd()))}", f"exec {shlex.join(command)}", ""]
    folder, program, text = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755, stat.S_IFREG | 0o644
    path.write_bytes(
        _cpio(
            [
                ("bin", folder, b""),
                ("modules", folder, b""),
                ("bin/busybox", program, BUSYBOX.read_bytes()),
                ("init", program, script.encode()),
                ("main.sh", text, (HERE / "main.sh").read_bytes()),
                ("vm.service", text, (HERE / "vm.service").read_bytes()),
                ("command", text, "\n".join(lines).encode()),
                *((f"modules/{module.name}", text, module.read_bytes()) for module in modules),
            ]
        )
    )


def _cpio(files: list[tuple[str, int, bytes]]) -> bytes:
    """An archive of (name, mode, content) in the form that the kernel unpacks ("newc")."""
    archive = bytearray()
    for name, mode, content in [*files, ("TRAILER!!!", 0, b"")]:
        raw_name = name.encode() + b"\0"
        numbers = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw_name), 0)
        archive += b"070701" + b"".join(b"%08x" % number for number in numbers)
        for part in raw_name, content:
            archive += part
            archive += b"\0" * (-len(archive) % 4)
    return bytes(archive)


def _modules() -> list[Path]:
    """The modules that are not built in, each after those that it needs."""
    needs: dict[str, list[str]] = {}
    for line in (KERNEL / "modules" / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[Path(path).name.split(".")[0].replace("-", "_")] = [path, *others.split()]
    wanted = [path for name in MODULES for path in reversed(needs.get(name, []))]
    return [KERNEL / "modules" / path for path in dict.fromkeys(wanted)]


def _write_disk(path: Path) -> None:
    options = ["-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1"]
    subprocess.run(["/sbin/mke2fs", *options, path, "4G"], check=True, stdout=subprocess.DEVNULL)  # sparse


@contextmanager
def _file_server(folder: Path, shared: tuple[Path, ...]) -> Generator[bool]:
    """Yields whether it listens."""
    (folder / "root").mkdir()
    # cache=always: a start of Python takes a third of the time. no_readdirplus: else each file of a listed folder costs
    # virtiofsd a descriptor.
    options = [f"source={folder}/root", "cache=always", "no_readdirplus", "log_level=err"]
    server = [VIRTIOFSD, "-f", f"--socket-path={folder}/files", *(word for o in options for word in ("-o", o))]
    command = ["unshare", "--mount", "sh", "-c", SERVE, "sh", folder / "root", *shared, "--", *server]
    with (folder / "files.log").open("wb") as log, _running(command, output=log) as process:
        limit = time.monotonic() + SOCKET_LIMIT
        while not (folder / "files").exists() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)  # nothing tells of a socket that is not there yet
        yield (folder / "files").exists()


@contextmanager
def _vm(folder: Path) -> Generator[subprocess.Popen[bytes]]:
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    command += ["-machine", "q35,memory-backend=memory", "-object", "memory-backend-memfd,id=memory,size=2G,share=on"]
    command += ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-smp", "2", "-m", "2G"]
    command += ["-kernel", f"{KERNEL}/vmlinuz", "-initrd", f"{folder}/initramfs", "-serial", f"file:{folder}/console"]
    # norandmaps: the emulator can use a program's translated code again, so starts take half the time.
    command += ["-append", "console=ttyS0 quiet panic=-1 nokaslr norandmaps mitigations=off psi=1"]
    command += [
        "-chardev",
        f"socket,id=files,path={folder}/files",
        "-device",
        "vhost-user-fs-pci,chardev=files,tag=root",
    ]
    command += ["-drive", f"file={folder}/disk,format=raw,if=none,id=disk,cache=unsafe"]
    command += ["-device", "virtio-blk-pci,drive=disk", "-device", "virtio-serial-pci"]
    command += ["-chardev", f"file,id=status,path={folder}/status"]
    command += ["-device", "virtserialport,chardev=status,name=status"]
    (folder / "status").touch()
    pipes = {"out": (os.pipe(), sys.stdout), "err": (os.pipe(), sys.stderr)}
    for name, ((_, end), _) in pipes.items():  # append: else QEMU truncates what it opens, an error on a pipe
        command += ["-add-fd", f"fd={end},set={end}", "-chardev", f"file,id={name},path=/dev/fdset/{end},append=on"]
        command += ["-device", f"virtserialport,chardev={name},name={name}"]
    with _running(command, pass_fds=[end for (_, end), _ in pipes.values()]) as process:
        pumps: list[threading.Thread] = []
        for (source, end), target in pipes.values():
            os.close(end)
            pumps.append(threading.Thread(target=_pump, args=(source, target.fileno())))
            pumps[-1].start()
        yield process
        process.kill()
        for pump in pumps:
            pump.join()


def _pump(source: int, target: int) -> None:
    with open(source, "rb", buffering=0) as reader, open(target, "wb", buffering=0, closefd=False) as writer:
        while data := reader.read(65536):
            writer.write(data)


@contextmanager
def _running(
    command: Sequence[str | Path], *, output: IO[bytes] | None = None, pass_fds: Sequence[int] = ()
) -> Generator[subprocess.Popen[bytes]]:
    """A process that ends with the block, and with this process however that ends."""
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=pass_fds,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _leave(number: int, _: object) -> None:
    sys.exit(128 + number)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systemd", action="store_true", help="systemd as PID 1")
    parser.add_argument(
        "--share", action="append", default=[], type=Path, metavar="FOLDER", help="keep what is written"
    )
    parser.add_argument("--time-limit", type=float, default=300, metavar="SECONDS", help="boot included; 300")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    if reason := why_not():
        sys.stderr.write(f"vm: {reason}\n")
        return FAILED
    signal.signal(signal.SIGTERM, _leave)
    shared = tuple(folder.resolve() for folder in arguments.share)
    return run(arguments.command, systemd=arguments.systemd, shared=shared, time_limit=arguments.time_limit)


if __name__ == "__main__":
    sys.exit(main())
