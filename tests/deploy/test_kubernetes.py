"""The manifests as kustomize renders them: against the schemas of Kubernetes, against our settings, and shut in. Needs no cluster."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
from ruamel.yaml import YAML

from service.settings.declared import KNOWN_NAMES
from service.settings.load import load
from tests.deploy.command_line_tools import needed, run
from tests.deploy.docker_files import ROOT, environment_of, final_stage
from tests.deploy.test_compose import FINISHING_S

MANIFESTS = ROOT / "deploy" / "kubernetes"

#: Those of Kubernetes 1.37, of the kinds that are used, without descriptions. Unknown fields are refused.
SCHEMAS = Path(__file__).with_name("kubernetes_schemas")

OVERLAYS = ("stream", "backfill", "ward-3", "no-ward", "workers")

Document = dict[str, Any]


@cache
def rendered(overlay: str) -> str:
    """Return what `kubectl apply -k` would send."""
    if shutil.which("kustomize"):
        command = ["kustomize", "build"]
    else:
        command = [needed("kubectl", install_with="the package manager of your system"), "kustomize"]
    verdict = run([*command, str(MANIFESTS / overlay)])
    assert verdict.returncode == 0, verdict.stderr
    return verdict.stdout


def documents(overlay: str, *kinds: str) -> list[Document]:
    every = list(YAML(typ="safe").load_all(rendered(overlay)))
    return [one for one in every if not kinds or one["kind"] in kinds]


def pods(overlay: str) -> list[Document]:
    """Return the pod of each workload."""
    return [one["spec"]["template"] for one in documents(overlay, "StatefulSet", "Job", "Deployment")]


def settings_of(overlay: str) -> dict[str, str]:
    (one,) = documents(overlay, "ConfigMap")
    return {name: text or "" for name, text in one["data"].items()}


def schema_of(document: Document) -> Document:
    """Return the schema of a document's kind, by the name that kubeconform asks for."""
    group, _, version = document["apiVersion"].rpartition("/")
    name = "-".join(filter(None, (document["kind"].lower(), group.partition(".")[0], version)))
    loaded: Document = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def definitions() -> referencing.Registry[Any]:
    """Return what the schemas refer to."""
    content = json.loads((SCHEMAS / "_definitions.json").read_text(encoding="utf-8"))
    resource = referencing.Resource.from_contents(content, default_specification=referencing.jsonschema.DRAFT202012)
    registry: referencing.Registry[Any] = referencing.Registry()
    found: referencing.Registry[Any] = registry.with_resource("_definitions.json", resource)
    return found


def faults(document: Document) -> Iterator[str]:
    checker = jsonschema.Draft202012Validator(schema_of(document), registry=definitions())
    yield from (f"{document['kind']} {error.json_path}: {error.message}" for error in checker.iter_errors(document))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_document_follows_the_schema_of_kubernetes(overlay: str) -> None:
    assert [fault for document in documents(overlay) for fault in faults(document)] == []


def test_a_field_that_kubernetes_does_not_know_would_be_found() -> None:
    (document,) = documents("stream", "StatefulSet")
    document["spec"]["template"]["spec"]["securityContext"]["runAsNonRooot"] = True

    (fault,) = faults(document)
    assert "runAsNonRooot" in fault


def test_kubeconform_finds_nothing() -> None:
    checker = needed("kubeconform", install_with="go install github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0")
    location = f"{SCHEMAS}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"

    verdict = run([checker, "-strict", "-summary", "-schema-location", location], said="---\n".join(map(rendered, OVERLAYS)))

    assert verdict.returncode == 0, verdict.stdout
    assert "Invalid: 0, Errors: 0, Skipped: 0" in verdict.stdout


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_kubernetes_manifests_run_without_privilege_and_with_secrets_as_files(overlay: str) -> None:
    for pod in pods(overlay):
        spec = pod["spec"]
        context = spec["securityContext"]
        (container,) = spec["containers"]
        assert (context["runAsNonRoot"], context["runAsUser"], context["fsGroup"]) == (True, 10001, 10001)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        # A variable can be read by everybody who may see the pod; a secret is a file, and files are not the world's.
        assert "secretKeyRef" not in json.dumps(container)
        assert all("secretRef" not in source for source in container.get("envFrom", []))
        assert [one["secret"]["defaultMode"] for one in spec["volumes"] if "secret" in one] == [0o440]
        assert any(mount["mountPath"] == "/tmp" for mount in container["volumeMounts"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_policy_of_the_network_holds_for_every_pod_and_lets_nobody_in_to_the_service(overlay: str) -> None:
    policies = documents(overlay, "NetworkPolicy")

    for pod in pods(overlay):
        holding = [one["spec"] for one in policies if selects(one["spec"]["podSelector"], pod["metadata"]["labels"])]
        assert {kind for policy in holding for kind in policy["policyTypes"]} == {"Ingress", "Egress"}
        if overlay != "workers":
            assert [policy.get("ingress") or [] for policy in holding] == [[]]
        for policy in holding:
            assert all(rule.get("from") for rule in policy.get("ingress") or [])
            assert all(rule.get("ports") or rule.get("to") for rule in policy["egress"])


def selects(selector: Document, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", []))


@pytest.mark.parametrize("overlay", ["stream", "backfill", "ward-3", "no-ward"])
def test_the_settings_are_ones_the_program_accepts_in_the_image(overlay: str, tmp_path: Path) -> None:
    settings = settings_of(overlay)
    image = environment_of(final_stage((ROOT / "Dockerfile").read_text(encoding="utf-8")))
    assert set(settings) <= KNOWN_NAMES
    for name, path in settings.items():
        if name.endswith("_FILE"):
            mounted = tmp_path / Path(path).name
            mounted.write_text(f"8f41c09be7d2a6530f9e8b7c6d5a4e31{name}", encoding="utf-8")
            mounted.chmod(0o400)
            settings[name] = str(mounted)
            (pod,) = pods(overlay)
            mounts = {mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
            assert str(Path(path).parent) in mounts

    loaded = load(Path("no.env"), image | settings).settings

    cohort = {"ward-3": ("ward", "3"), "no-ward": ("ward", "")}.get(overlay, ("", ""))
    assert (loaded.cohort_tag, loaded.cohort or "") == cohort
    assert loaded.streaming_mode is (overlay != "backfill")
    assert loaded.pseudonymize_source_id


@pytest.mark.parametrize("overlay", ["stream", "ward-3", "no-ward"])
def test_a_service_is_one_pod_with_its_own_volume_asked_whether_it_lives_and_whether_data_flow(overlay: str) -> None:
    (one,) = documents(overlay, "StatefulSet")
    pod = one["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert one["spec"]["replicas"] == 1
    assert [claim["metadata"]["name"] for claim in one["spec"]["volumeClaimTemplates"]] == ["data"]
    assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
    assert container["readinessProbe"]["exec"]["command"][-1] == "--health"
    assert "/livez" in container["livenessProbe"]["exec"]["command"][-1]
    assert pod["terminationGracePeriodSeconds"] > FINISHING_S


def test_a_backfill_uses_the_streams_state_once_and_deleting_it_deletes_nothing_of_the_streams() -> None:
    (job,) = documents("backfill", "Job")
    (stream,) = documents("stream", "StatefulSet")
    (ours, streams) = (job["spec"]["template"]["spec"], stream["spec"]["template"]["spec"])
    claims = [one["persistentVolumeClaim"]["claimName"] for one in ours["volumes"] if "persistentVolumeClaim" in one]

    assert (job["spec"]["backoffLimit"], ours["restartPolicy"]) == (0, "Never")
    assert claims == [f"data-{stream['metadata']['name']}-0"]
    for name in ("securityContext", "terminationGracePeriodSeconds", "automountServiceAccountToken"):
        assert ours[name] == streams[name]
    same = ("image", "securityContext", "resources", "volumeMounts")
    assert {name: ours["containers"][0][name] for name in same} == {name: streams["containers"][0][name] for name in same}
    names = [{(one["kind"], one["metadata"]["name"]) for one in documents(overlay)} for overlay in ("stream", "backfill")]
    assert not names[0] & names[1]
    assert not documents("backfill", "StatefulSet", "PersistentVolumeClaim")


def test_no_cohort_has_a_name_of_another_and_their_pods_are_told_apart() -> None:
    wards = [
        {(one["kind"], one["metadata"]["name"]) for one in documents(overlay)} for overlay in ("stream", "ward-3", "no-ward")
    ]
    labels = [documents(overlay, "StatefulSet")[0]["spec"]["selector"]["matchLabels"] for overlay in ("ward-3", "no-ward")]

    assert len(set.union(*wards)) == sum(map(len, wards))
    assert labels[0] != labels[1]
