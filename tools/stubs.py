"""Writes the Python stubs of the protos, or with --check tells which of them differ from the protos."""

import argparse
import filecmp
import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent.parent / "protos"
STUBS = PROTOS / "gen"
PACKAGE = "twinline"


def generate(out: Path) -> None:
    """Write the package of stubs into the folder `out`, which must not have it yet."""
    # protoc finds the mypy plugins on the PATH; they are next to this Python.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    files = sorted(path.relative_to(PROTOS).as_posix() for path in (PROTOS / PACKAGE).rglob("*.proto"))
    outputs = [f"--{kind}_out={out}" for kind in ("python", "grpc_python")]
    outputs += [f"--{kind}_out=quiet:{out}" for kind in ("mypy", "mypy_grpc")]
    status = protoc.main(["protoc", f"-I{PROTOS}", f"-I{well_known}", *outputs, *files])
    if status != 0:
        raise SystemExit(f"protoc failed with status {status}")
    make_packages(out / PACKAGE)


def make_packages(root: Path) -> None:
    """Make every folder below `root` a typed, regular package."""
    for folder in [root, *sorted(path for path in root.rglob("*") if path.is_dir())]:
        name = ".".join(folder.relative_to(root.parent).parts)
        (folder / "__init__.py").write_text(f'"""Generated stubs of the protos in {name}."""\n')
        (folder / "py.typed").touch()


def contents(root: Path) -> set[str]:
    """The files of a package, by their path below it, without what Python caches."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def differences(fresh: Path, committed: Path) -> list[str]:
    """The paths that are in one package alone, or in both with different bytes."""
    ours, theirs = contents(fresh), contents(committed)
    _, changed, unreadable = filecmp.cmpfiles(fresh, committed, sorted(ours & theirs), shallow=False)
    return sorted((ours ^ theirs) | set(changed) | set(unreadable))


def replace(changed: list[str], fresh: Path, committed: Path) -> None:
    """Make the changed paths of `committed` those of `fresh`; what is no longer generated goes."""
    for path in changed:
        if (fresh / path).exists():
            (committed / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fresh / path, committed / path)
        else:
            (committed / path).unlink()


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the stubs differ")
    check: bool = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        changed = differences(Path(folder) / PACKAGE, STUBS / PACKAGE)
        if not check:
            replace(changed, Path(folder) / PACKAGE, STUBS / PACKAGE)
    for path in changed:
        print(f"{'differs' if check else 'written'}: protos/gen/{PACKAGE}/{path}")
    if check and changed:
        print("the stubs are not those of the protos: run `make protos`", file=sys.stderr)
        return 1
    print(f"stubs are up to date (grpcio-tools {version('grpcio-tools')})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
