"""Names the images of deploy/overlays/release: `python -m tools.release IMAGE@sha256:DIGEST ...`.

Each image is known by the last part of its name, as in `registry.example/team/flow-exporter`. All
that the overlay runs have to be named; a tag is refused, as it may be another image tomorrow.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from flowvis.errors import FlowvisError, SettingsError
from tools.kustomize import Object, images_of, render

DEPLOY = Path(__file__).parents[1] / "deploy"
RELEASE, DIGESTS = Path("overlays/release"), "digests"

HEAD = "# Written by `python -m tools.release`.\n"
_REFERENCE = re.compile(r"(?P<name>[^@]+)@(?P<digest>sha256:[0-9a-f]{64})")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*")
USAGE = "write NAME@sha256:DIGEST, with 64 hexadecimal digits and without a tag"


def component(references: Sequence[str], directory: Path = DEPLOY) -> str:
    """Return the component that gives each image its digest; SettingsError names what is wrong."""
    about = yaml.safe_load((directory / RELEASE / "kustomization.yaml").read_text())
    run = {
        name
        for resource in about["resources"]
        for item in render(directory / RELEASE / resource)
        for name in images_of(item)
    }
    problems: list[str] = []
    images: dict[str, Object] = {}
    for reference in references:
        try:
            name, new_name, digest = _parsed(reference, run)
        except ValueError as error:
            problems.append(f"{reference}: {error}")
            continue
        if name in images:
            problems.append(f"{reference}: {name} is named twice")
        images[name] = {"name": name, "newName": new_name, "digest": digest}
    problems += [f"{name}: is not named: {USAGE}" for name in sorted(run - set(images))]
    if problems:
        raise SettingsError(problems)
    about = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "images": [images[name] for name in sorted(images)],
    }
    return HEAD + yaml.safe_dump(about, sort_keys=False, width=1000)


def _parsed(reference: str, known: Iterable[str]) -> tuple[str, str, str]:
    """Return which image of the manifests a reference is, its name and its digest."""
    match = _REFERENCE.fullmatch(reference)
    if match is None or not _NAME.fullmatch(match["name"]):
        raise ValueError(USAGE)
    last = match["name"].rpartition("/")[2]
    found = [name for name in known if name.rpartition("/")[2] == last]
    if not found:
        ours = ", ".join(sorted(name.rpartition("/")[2] for name in known))
        raise ValueError(f"{last} is no image of the overlay: {ours}")
    return found[0], match["name"], match["digest"]


def main(arguments: Sequence[str], directory: Path = DEPLOY) -> int:
    """Write the component."""
    try:
        text = component(arguments, directory)
    except FlowvisError as error:
        print(error, file=sys.stderr)
        return 1
    path = directory / RELEASE / DIGESTS / "kustomization.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
