"""Images by digest, and never by tag."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from tools import release
from tools.kustomize import Object, images_of, render

from deploy.rendered import DEPLOY, RELEASE

DIGEST = "sha256:" + "0123456789abcdef" * 4
NAMES = (
    "registry.example:5000/team/flow-exporter",
    "registry.example:5000/team/flow-aggregator",
    "clickhouse/clickhouse-server",
)
REFERENCES = [f"{name}@{DIGEST}" for name in NAMES]


@pytest.fixture
def deploy(tmp_path: Path) -> Path:
    shutil.copytree(DEPLOY, tmp_path / "deploy", ignore=shutil.ignore_patterns("digests"))
    return tmp_path / "deploy"


def test_every_image_is_named_by_its_digest(deploy: Path) -> None:
    assert release.main(REFERENCES, deploy) == 0
    objects = render(deploy / RELEASE)
    assert {name for item in objects for name in images_of(item)} == set(NAMES)
    text = yaml.safe_dump(objects)
    assert text.count("image: ") == text.count(f"@{DIGEST}\n") == 5
    assert len(objects) == len(render(deploy / "overlays/clickhouse"))
    if kubectl := shutil.which("kubectl"):
        done = subprocess.run(
            [kubectl, "kustomize", deploy / RELEASE], capture_output=True, check=True
        )
        theirs = list(yaml.safe_load_all(done.stdout))
        assert sorted(map(in_order, theirs)) == sorted(map(in_order, objects))


def test_without_digests_there_is_nothing_to_apply(deploy: Path) -> None:
    with pytest.raises(FileNotFoundError, match="release/digests"):
        render(deploy / RELEASE)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (["a/flow-exporter:0.1.0"], "a/flow-exporter:0.1.0: write NAME@sha256:DIGEST"),
        ([f"a/flow-exporter:0.1.0@{DIGEST}"], "without a tag"),
        ([f"a/flow-exporter:latest@{DIGEST}"], "without a tag"),
        (["a/flow-exporter@sha256:abc"], "64 hexadecimal digits"),
        ([f"a/flow-exporter@{DIGEST.upper()}"], "write NAME@sha256:DIGEST"),
        (
            [f"a/flow-exporter@{DIGEST}", f"b/flow-exporter@{DIGEST}"],
            "exporter is named twice",
        ),
        ([f"a/nginx@{DIGEST}"], "nginx is no image of the overlay: clickhouse-server, flow-"),
        ([], "flowvis/flow-exporter: is not named"),
    ],
)
def test_what_is_not_so_is_refused(
    deploy: Path, changed: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert release.main([*changed, *REFERENCES[1:]], deploy) == 1
    assert problem in capsys.readouterr().err
    assert not (deploy / RELEASE / "digests").exists()


def in_order(item: Object) -> str:
    return json.dumps(item, sort_keys=True)
