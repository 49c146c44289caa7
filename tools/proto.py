"""Write the Python code of the API from its .proto files, or prove that the committed code is current.

    python tools/proto.py generate
    python tools/proto.py check

The .proto files lie at the path of the Python package that they become, so protoc's imports work unedited.
"""

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
SOURCE = ROOT / "src"
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def generate(target: Path) -> set[Path]:
    """Run protoc over every .proto file into `target`; returns what it wrote, relative to `target`."""
    protos = sorted(path.relative_to(PROTO).as_posix() for path in PROTO.rglob("*.proto"))
    if not protos:
        sys.exit(f"no .proto file under {PROTO}")
    scripts = sysconfig.get_path("scripts")
    command = [
        sys.executable,
        *("-m", "grpc_tools.protoc"),
        f"-I{PROTO}",
        f"-I{sysconfig.get_path('purelib')}",  # google/rpc/*.proto come with googleapis-common-protos
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        f"--mypy_out={target}",
        f"--mypy_grpc_out={target}",
        *protos,
    ]
    # protoc finds its plug-ins (protoc-gen-mypy, ...) on PATH.
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    done = subprocess.run(command, env=environment, check=False, stderr=subprocess.PIPE, text=True)
    told = [line for line in done.stderr.splitlines() if not line.startswith("Writing mypy to ")]
    if told:
        print(*told, sep="\n", file=sys.stderr)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return find_generated(target)


def find_generated(base: Path) -> set[Path]:
    """What protoc has written under `base`, relative to it."""
    return {path.relative_to(base) for pattern in GENERATED for path in base.rglob(pattern)}


def replace() -> None:
    """Bring src/ up to date, and remove the code of .proto files that are gone."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted = generate(Path(scratch))
        for path in sorted(find_generated(SOURCE) - wanted):
            (SOURCE / path).unlink()
            print(f"removed {path}: its .proto file is gone")
        for path in sorted(wanted):
            shutil.copyfile(Path(scratch) / path, SOURCE / path)
    print(f"{len(wanted)} files generated")


def check() -> None:
    """Exit with 1 and the names of the files that differ from what protoc would write now."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted = generate(Path(scratch))
        present = find_generated(SOURCE)
        problems = [f"missing: {path}" for path in sorted(wanted - present)]
        problems += [f"has no .proto file: {path}" for path in sorted(present - wanted)]
        problems += [
            f"outdated: {path}"
            for path in sorted(wanted & present)
            if not filecmp.cmp(Path(scratch) / path, SOURCE / path, shallow=False)
        ]
    if problems:
        sys.exit("\n".join([*problems, "the generated code is not current: run `make proto` and commit the result"]))
    print(f"{len(wanted)} generated files are current")


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("generate", "check"))
    {"generate": replace, "check": check}[parser.parse_args().action]()


if __name__ == "__main__":
    main()
