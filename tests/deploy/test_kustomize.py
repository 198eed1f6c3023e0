import base64
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from tools.kustomize import Object, dump, images_of, render

from flowvis.errors import SettingsError

DEPLOY = Path(__file__).parents[2] / "deploy"
KUSTOMIZATIONS = sorted(
    path.parent
    for path in DEPLOY.rglob("kustomization.yaml")
    if yaml.safe_load(path.read_text())["kind"] == "Kustomization"  # a component is part of others
    and path.parent.name != "release"  # whole with digests only
)

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: n}
spec:
  containers:
    - name: c
      image: some/image
      envFrom: [{configMapRef: {name: a}}, {secretRef: {name: s}}]
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: other}
spec:
  volumes: [{name: v, configMap: {name: a}}]
---
apiVersion: v1
kind: Namespace
metadata: {name: n}
"""


PATCHED = """\
resources: [../base]
patches: [{{target: {{kind: Pod, name: p}}, patch: "- {}"}}]
"""


def kustomization(directory: Path, text: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "kustomization.yaml").write_text(text)
    return directory


def names(directory: Path) -> dict[str, str]:
    return {
        item["kind"]: item["metadata"]["name"]
        for item in render(directory)
        if item["kind"] in {"ConfigMap", "Secret"}
    }


@pytest.fixture
def base(tmp_path: Path) -> Path:
    text = """\
resources: [pod.yaml]
configMapGenerator: [{name: a, namespace: n, files: [k]}]
secretGenerator: [{name: s, namespace: n, envs: [s.env]}]
images: [{name: some/image, newTag: "1"}]
"""
    directory = kustomization(tmp_path / "base", text)
    (directory / "pod.yaml").write_text(POD)
    (directory / "k").write_text("v")
    (directory / "s.env").write_text("# a comment\nk=v\n")
    return directory


def test_hashes_are_those_of_kustomize(base: Path) -> None:
    assert names(base) == {"ConfigMap": "a-bdg947hgcc", "Secret": "s-ftgtgc4t9f"}


def test_references_follow_in_the_same_namespace(base: Path) -> None:
    pods = {i["metadata"]["namespace"]: i["spec"] for i in render(base) if i["kind"] == "Pod"}
    container = pods["n"]["containers"][0]
    assert container["envFrom"][0]["configMapRef"]["name"] == "a-bdg947hgcc"
    assert container["envFrom"][1]["secretRef"]["name"] == "s-ftgtgc4t9f"
    assert container["image"] == "some/image:1"
    assert pods["other"]["volumes"][0]["configMap"]["name"] == "a"


def test_a_name_without_a_hash(base: Path) -> None:
    text = (base / "kustomization.yaml").read_text()
    option = "files: [k], options: {disableNameSuffixHash: true}"
    kustomization(base, text.replace("files: [k]", option))
    assert names(base) == {"ConfigMap": "a", "Secret": "s-ftgtgc4t9f"}
    pods = {i["metadata"]["namespace"]: i["spec"] for i in render(base) if i["kind"] == "Pod"}
    assert pods["n"]["containers"][0]["envFrom"][0]["configMapRef"]["name"] == "a"


def test_an_image_has_the_tag_of_the_outermost(base: Path, tmp_path: Path) -> None:
    text = 'resources: [../base]\nimages: [{name: some/image, newTag: "2"}]'
    pods = [i for i in render(kustomization(tmp_path / "overlay", text)) if i["kind"] == "Pod"]
    assert pods[0]["spec"]["containers"][0]["image"] == "some/image:2"


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ("some/image:1", "newName: host:5000/i", "host:5000/i:1"),
        ("some/image", "newName: other", "other"),
        ("some/image:1", "digest: sha256:ab", "some/image@sha256:ab"),
        ("some/image@sha256:cd", "newName: i, digest: sha256:ab", "i@sha256:ab"),
        ("some/image@sha256:cd", 'newTag: "3"', "some/image:3"),
        ("some/image2:1", 'newTag: "3"', "some/image2:1"),
        ("host:5000/some/image:1", 'newTag: "3"', "host:5000/some/image:1"),
    ],
)
def test_an_image_has_another_name_tag_or_digest(
    tmp_path: Path, before: str, change: str, after: str
) -> None:
    text = f"resources: [pod.yaml]\nimages: [{{name: some/image, {change}}}]"
    (kustomization(tmp_path, text) / "pod.yaml").write_text(POD.replace("some/image", before))
    found = [
        i["spec"] for i in render(tmp_path) if i["kind"] == "Pod" and "containers" in i["spec"]
    ]
    assert found[0]["containers"][0]["image"] == after
    if kubectl := shutil.which("kubectl"):
        done = subprocess.run([kubectl, "kustomize", tmp_path], capture_output=True, check=True)
        assert _by_name(yaml.safe_load_all(done.stdout)) == _by_name(render(tmp_path))


def test_a_component_changes_what_is_there_and_adds_to_it(base: Path, tmp_path: Path) -> None:
    component = kustomization(
        tmp_path / "component",
        """\
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
resources: [more.yaml]
images: [{name: some/image, newTag: "7"}]
patches: [{target: {kind: Pod, name: p}, patch: "- {op: add, path: /spec/hostname, value: h}"}]
""",
    )
    (component / "more.yaml").write_text(
        "{apiVersion: v1, kind: Pod, metadata: {name: q, namespace: n}, "
        "spec: {containers: [{name: c, image: some/image}]}}"
    )
    overlay = kustomization(
        tmp_path / "overlay", "resources: [../base]\ncomponents: [../component]"
    )
    pods = {
        (i["metadata"]["namespace"], i["metadata"]["name"]): i["spec"]
        for i in render(overlay)
        if i["kind"] == "Pod"
    }
    assert pods["n", "p"]["hostname"] == pods["other", "p"]["hostname"] == "h"
    assert "hostname" not in pods["n", "q"]
    assert {pods["n", name]["containers"][0]["image"] for name in "pq"} == {"some/image:7"}


def test_a_patch_of_one_namespace(tmp_path: Path) -> None:
    base = kustomization(
        tmp_path / "base",
        """\
resources: [all.yaml]
patches:
  - target: {kind: Pod, name: p, namespace: n}
    patch: "- {op: add, path: /spec, value: patched}"
""",
    )
    (base / "all.yaml").write_text(
        """\
{kind: Pod, metadata: {name: p, namespace: n}}
---
{kind: Pod, metadata: {name: p, namespace: other}}
"""
    )
    assert {i["metadata"]["namespace"] for i in render(base) if "spec" in i} == {"n"}


def test_labels_of_what_is_generated(base: Path) -> None:
    text = (base / "kustomization.yaml").read_text()
    kustomization(base, text.replace("files: [k]", "files: [k], options: {labels: {l: v}}"))
    (made,) = (i for i in render(base) if i["kind"] == "ConfigMap")
    assert made["metadata"] == {"name": "a-bdg947hgcc", "namespace": "n", "labels": {"l": "v"}}


@pytest.mark.parametrize(
    "value", ["a&b<c>", 'it\'s "quoted"', "$X %s \\n", "ends in a blank ", "="]
)
def test_passwords_are_taken_as_they_are(tmp_path: Path, value: str) -> None:
    text = "secretGenerator: [{name: s, namespace: shop, envs: [s.env]}]"
    (kustomization(tmp_path, text) / "s.env").write_text(f"k={value}\n")
    (made,) = render(tmp_path)
    assert base64.b64decode(made["data"]["k"]).decode() == value
    if kubectl := shutil.which("kubectl"):
        done = subprocess.run([kubectl, "kustomize", tmp_path], capture_output=True, check=True)
        assert yaml.safe_load(done.stdout) == made


def test_what_others_need_comes_first(base: Path) -> None:
    assert [i["kind"] for i in render(base)] == ["Namespace", "ConfigMap", "Secret", "Pod", "Pod"]


def test_an_overlay_replaces_a_configuration(base: Path, tmp_path: Path) -> None:
    text = """\
resources: [../base]
configMapGenerator: [{name: a, namespace: n, behavior: replace, files: [k]}]
"""
    overlay = kustomization(tmp_path / "overlay", text)
    (overlay / "k").write_text("another")
    found = [item for item in render(overlay) if item["kind"] == "ConfigMap"]
    assert [item["data"] for item in found] == [{"k": "another"}]
    assert found[0]["metadata"]["name"] != "a-bdg947hgcc"


def test_patches_and_another_namespace(tmp_path: Path) -> None:
    base = kustomization(tmp_path / "base", "resources: [all.yaml]")
    (base / "all.yaml").write_text(
        """\
{kind: ServiceAccount, metadata: {name: s, namespace: n}}
---
kind: ClusterRoleBinding
metadata: {name: b}
subjects:
  - {kind: ServiceAccount, name: s, namespace: n}
  - {kind: ServiceAccount, name: other, namespace: n}
---
{kind: Pod, metadata: {name: p, namespace: n}, spec: {volumes: [{name: v}, {name: w}]}}
"""
    )
    text = """\
resources: [../base]
namespace: m
patches:
  - target: {kind: Pod, name: p}
    patch: |
      - {op: test, path: /spec/volumes/0/name, value: v}
      - {op: remove, path: /spec/volumes/0}
      - {op: add, path: /spec/volumes/-, value: {name: x}}
      - {op: add, path: /spec/volumes/0, value: {name: u}}
      - {op: add, path: /spec/hostname, value: h}
      - {op: replace, path: /spec/hostname, value: i}
"""
    account, binding, pod = render(kustomization(tmp_path / "overlay", text))
    assert account["metadata"]["namespace"] == pod["metadata"]["namespace"] == "m"
    assert binding["metadata"] == {"name": "b"}
    assert [subject["namespace"] for subject in binding["subjects"]] == ["m", "n"]
    assert pod["spec"] == {
        "volumes": [{"name": "u"}, {"name": "w"}, {"name": "x"}],
        "hostname": "i",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("namePrefix: x-", "namePrefix: only"),
        ("resources: [../base]\nimages: [{name: i, tagSuffix: d}]", "tagSuffix: only"),
        ("resources: [../base, ../base/pod.yaml]", "Pod n p is there already"),
        (
            "configMapGenerator: [{name: a, namespace: n, behavior: replace, files: []}]",
            "a: behavior is replace",
        ),
        (
            "resources: [../base]\nsecretGenerator: [{name: s, namespace: n, envs: []}]",
            "s: behavior is replace",
        ),
        ("secretGenerator: [{name: s, namespace: n, files: [x]}]", "files: only"),
        (
            "configMapGenerator: [{name: b, namespace: n, files: [], options: {immutable: true}}]",
            "immutable: only",
        ),
        (
            (
                "resources: [../base]\nconfigMapGenerator: [{name: a, namespace: n, "
                "behavior: replace, files: [], options: {disableNameSuffixHash: true}}]"
            ),
            "a: options are those of what is replaced",
        ),
        (PATCHED.format("{op: test, path: /metadata/name, value: q}"), "no step that is known"),
        (PATCHED.format("{op: replace, path: /metadata/nam, value: q}"), "no step that is known"),
        (PATCHED.format("{op: move, path: /metadata/name, value: q}"), "no step that is known"),
        (PATCHED.format("{op: copy, from: /spec, path: /status}"), "from: only"),
    ],
)
def test_what_would_be_left_out_is_an_error(
    base: Path, tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(SettingsError, match=problem):
        render(kustomization(tmp_path / "overlay", text))


def test_documents_read_back(base: Path) -> None:
    objects = render(base)
    objects[1]["data"]["k"] = "first\n  second: |\n\nlast\n"
    text = dump(objects)
    assert list(yaml.safe_load_all(text)) == objects
    assert "  k: |\n" in text


@pytest.mark.parametrize("directory", KUSTOMIZATIONS, ids=lambda p: str(p.relative_to(DEPLOY)))
def test_it_renders_what_is_deployed(directory: Path) -> None:
    """By kustomize itself where this machine has it, which is what users run."""
    objects = render(directory)
    assert objects
    if kubectl := shutil.which("kubectl"):
        done = subprocess.run(
            [kubectl, "kustomize", directory], capture_output=True, text=True, check=True
        )
        assert _by_name(yaml.safe_load_all(done.stdout)) == _by_name(objects)


COMPOSED = [
    *((overlay, ("prometheus",)) for overlay in (
        "../base", "clickhouse-operator", "collector", "embedded", "kafka", "openvswitch", "udp",
    )),
    *((overlay, ("prometheus", "grafana")) for overlay in ("clickhouse", "clickhouse-operator")),
]  # fmt: skip


@pytest.mark.parametrize(("overlay", "components"), COMPOSED, ids=str)
def test_what_is_added_to_an_overlay_goes_with_others(
    overlay: str, components: tuple[str, ...], tmp_path: Path
) -> None:
    shutil.copytree(DEPLOY, tmp_path, dirs_exist_ok=True)
    named = ", ".join(f"../../components/{name}" for name in components)
    text = f"resources: [../{overlay}]\ncomponents: [{named}]\n"
    objects = render(kustomization(tmp_path / "overlays/own", text))
    before = _by_name(render(tmp_path / "overlays" / overlay))
    added = {kind for kind, _, _ in _by_name(objects).keys() - before.keys()}
    assert {"PodMonitor", "ServiceMonitor", "PrometheusRule"} <= added
    assert ("Deployment" in added) is ("grafana" in components)
    (exporters,) = (item for item in objects if item["kind"] == "DaemonSet")
    run = [container["name"] for container in exporters["spec"]["template"]["spec"]["containers"]]
    assert run == ["flow-exporter", "kube-rbac-proxy"]
    if kubectl := shutil.which("kubectl"):
        done = subprocess.run(
            [kubectl, "kustomize", tmp_path / "overlays/own"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert _by_name(yaml.safe_load_all(done.stdout)) == _by_name(objects)


SHOWN = [
    (page.name, textwrap.dedent(text))
    for page in sorted((DEPLOY.parent / "docs").glob("*.md"))
    for text in re.findall(
        r"^    apiVersion: kustomize\S+\n(?:    .+\n)+", page.read_text(), re.MULTILINE
    )
]


def test_there_are_kustomizations_on_the_pages() -> None:
    assert [name for name, _ in SHOWN] == ["alerts.md", "deploying.md", "deploying.md"]


@pytest.mark.parametrize(("page", "text"), SHOWN)
def test_what_pages_show_is_rendered(page: str, text: str, tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path, dirs_exist_ok=True)
    objects = render(kustomization(tmp_path / "overlays/own", text))
    images = {image for item in objects for image in images_of(item)}
    named = {each["newName"] for each in yaml.safe_load(text).get("images", ())}
    assert named <= images, page
    assert not {each["name"] for each in yaml.safe_load(text).get("images", ())} & images
    if kubectl := shutil.which("kubectl"):
        done = subprocess.run(
            [kubectl, "kustomize", tmp_path / "overlays/own"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert _by_name(yaml.safe_load_all(done.stdout)) == _by_name(objects)


@pytest.mark.parametrize("page", ["README.md", "docs/deploying.md"])
def test_what_no_registry_has_is_built_before_it_is_applied(page: str) -> None:
    text = (DEPLOY.parent / page).read_text()
    before = text[: text.index("kubectl apply -k deploy/\n")]
    images = {image for item in render(DEPLOY) for image in images_of(item)}
    ours = {image for image in images if image.startswith("flowvis/")}
    built = re.findall(r"docker build -f (\S+) -t (\S+)", before)
    assert {name.partition(":")[0] for _, name in built} == ours
    assert all((DEPLOY.parent / file).is_file() for file, _ in built)


def test_who_applies_the_proxy_is_told_to_name_it() -> None:
    images = {image for item in render(DEPLOY / "overlays/prometheus") for image in images_of(item)}
    assert "kube-rbac-proxy" in images
    (text,) = (text for page, text in SHOWN if page == "alerts.md")
    assert "kube-rbac-proxy" in {each["name"] for each in yaml.safe_load(text)["images"]}


def _by_name(objects: Iterable[Object]) -> dict[tuple[str, str, str], Object]:
    """Their order differs."""
    return {
        (item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]): item
        for item in objects
    }
