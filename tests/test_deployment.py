"""The files that others read: a RayJob, a compose file, Dockerfiles. Neither Kubernetes nor Docker runs here."""

import os
import re
import shlex
import subprocess
import tomllib

import pytest
from ruamel.yaml import YAML

from mis.tune.__main__ import main
from tests.conftest import ROOT

# The fields of ray.io/v1, from KubeRay's CRD reference (1.6).
FIELDS = {
    "RayJobSpec": {
        "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint",
        "entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata",
        "rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes", "submissionMode", "submitterConfig",
        "submitterPodTemplate", "suspend", "ttlSecondsAfterFinished",
    },
    "RayClusterSpec": {
        "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec",
        "headServiceAnnotations", "managedBy", "rayVersion", "suspend", "upgradeStrategy", "workerGroupSpecs",
    },
    "HeadGroupSpec": {
        "enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType", "template",
    },
    "WorkerGroupSpec": {
        "groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams",
        "replicas", "resources", "scaleStrategy", "suspend", "template",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def job():
    return YAML(typ="safe").load((ROOT / "pipelines" / "k8s" / "rayjob.yaml").read_text(encoding="utf-8"))


def test_the_job_has_only_fields_that_kuberay_knows(job):
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    assert set(spec) <= FIELDS["RayJobSpec"]
    assert set(cluster) <= FIELDS["RayClusterSpec"]
    assert set(cluster["headGroupSpec"]) <= FIELDS["HeadGroupSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= FIELDS["WorkerGroupSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounted) == {volume["name"] for volume in pod["volumes"]}
        assert mounted["project"] == "/project"  # the same on every pod: all nodes see the study
        assert mounted["shared-memory"] == "/dev/shm"  # noqa: S108 - a pod has 64 MB otherwise


def test_versions_are_those_that_are_installed(job):
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == re.search(r"^ray==(.*)$", locked, re.MULTILINE)[1]


def test_the_image_can_be_given_jobs_and_its_user_may_write_to_the_claim(job):
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "k8s" in re.search(r"^ARG EXTRAS=(.*)$", image, re.MULTILINE)[1].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (submitting,) = project["optional-dependencies"]["k8s"]
    assert submitting.replace("[default]", "[tune]") in project["dependencies"]
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    names = {line.partition("==")[0] for line in locked}
    assert {"aiohttp-cors", "colorful", "opencensus", "py-spy", "prometheus-client"} <= names
    user = int(re.search(r"--uid (\d+)", image)[1])
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["template"]["spec"]["securityContext"] == {"fsGroup": user}


def test_the_job_begins_a_study_and_goes_on_with_it_in_its_next_turn(job, tmp_path):
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:2] == ["sh", "-c"]
    script = words[2].replace("/project", str(tmp_path)).replace("exec python", "echo")
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert said == ["-m", "mis.tune", "--name", "k8s", "--or-resume"]
    with pytest.raises(SystemExit) as end:  # the command has such options
        main([*said[2:], "--help"])
    assert end.value.code == 0


@pytest.mark.parametrize("name", ["Dockerfile", "pipelines/server/Dockerfile"])
def test_what_an_image_copies_is_there(name):
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY "):
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source


def test_the_compose_file_names_what_is_there_and_no_password():
    path = ROOT / "pipelines" / "server" / "compose.yaml"
    services = YAML(typ="safe").load(path.read_text(encoding="utf-8"))["services"]
    build = services["mlflow"]["build"]
    context = (path.parent / build["context"]).resolve()
    assert context == ROOT
    assert (context / build["dockerfile"]).is_file()
    script = (path.parent / "mlflow-server").read_text(encoding="utf-8")
    for name in services["mlflow"]["environment"]:
        assert name in script
    for service in services.values():
        for name, value in service["environment"].items():
            if "PASSWORD" in name or "STORE_URI" in name:
                assert "${" in value, f"{name} is in the file itself"


def test_the_compose_file_publishes_on_the_loopback_address_and_hands_on_tls():
    text = (ROOT / "pipelines" / "server" / "compose.yaml").read_text(encoding="utf-8")
    service = YAML(typ="safe").load(text)["services"]["mlflow"]

    def with_values(value, **given):
        """Replace variables as Compose does: ${NAME:-where it is not set} and ${NAME:+where it is}."""

        def replaced(found):
            name, sign, other = found.groups()
            is_set = bool(given.get(name))
            return (other if is_set else "") if sign == "+" else (given[name] if is_set else other)

        return re.sub(r"\$\{(\w+):([-+])([^}]*)\}", replaced, value)

    (ports,), tls = service["ports"], {"MLFLOW_TLS_KEY": "/a/key", "MLFLOW_TLS_CERTIFICATE": "/a/certificate"}
    assert with_values(ports) == "127.0.0.1:5000:5000"
    assert with_values(ports, MLFLOW_PUBLISHED="0.0.0.0:443") == "0.0.0.0:443:5000"
    mounted = {with_values(volume, **tls).split(":")[0]: volume.split(":")[-2] for volume in service["volumes"][1:]}
    for name, file in tls.items():
        inside = service["environment"][name]
        assert with_values(inside) == ""
        assert with_values(inside, **tls) == mounted[file]


SERVER = """#!/bin/sh
test -s "$MLFLOW_AUTH_CONFIG_PATH" && echo begun
test -e wait && exec sleep 60
exit 3
"""


@pytest.fixture
def server(tmp_path):
    """Return what starts pipelines/server/mlflow-server with a server of the test's own."""
    (tmp_path / "mlflow").write_text(SERVER)
    (tmp_path / "mlflow").chmod(0o755)
    (tmp_path / "tmp").mkdir()

    def start(**env):
        wanted = {"MLFLOW_BACKEND_STORE_URI": "sqlite://", "MLFLOW_ARTIFACTS": "a", "MLFLOW_ADMIN_PASSWORD": "secret"}
        return subprocess.Popen(
            [ROOT / "pipelines" / "server" / "mlflow-server"],
            cwd=tmp_path,
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path / "tmp")} | wanted | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.mark.parametrize("is_ended", [False, True])
def test_passwords_leave_the_disk_with_the_server(server, tmp_path, is_ended):
    if is_ended:
        (tmp_path / "wait").touch()
    started = server()
    assert started.stdout.readline() == "begun\n"
    if is_ended:
        assert "secret" in next((tmp_path / "tmp").glob("*/auth.ini")).read_text()
        started.terminate()
    assert started.communicate(timeout=60) == ("", "")
    assert started.returncode == (143 if is_ended else 3)
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(
    ("host", "has_tls", "is_said"),
    [("127.0.0.1", False, False), ("10.0.0.5", False, True), ("0.0.0.0", False, True), ("10.0.0.5", True, False)],  # noqa: S104
)
def test_passwords_in_plain_text_are_told(server, host, has_tls, is_said):
    tls = {"MLFLOW_TLS_KEY": "k", "MLFLOW_TLS_CERTIFICATE": "c"} if has_tls else {}
    _, said = server(MLFLOW_HOST=host, **tls).communicate(timeout=60)
    assert ("passwords go over the network in plain text" in said) == is_said


@pytest.mark.parametrize("is_allowed", [False, True])
def test_tests_on_a_cluster_that_did_not_run_are_a_failure_unless_that_is_allowed(tmp_path, is_allowed):
    for name in ("slurmctld", "munged", "openssl", "apt-get", "make"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/called\n")
    (tmp_path / "ip").write_text("#!/bin/sh\nexit 1\n")  # networks cannot be made
    for program in tmp_path.iterdir():
        program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | ({"MIS_ALLOW_NO_CLUSTER": "1"} if is_allowed else {})
    done = subprocess.run([ROOT / ".ci" / "cluster"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == (0 if is_allowed else 1)
    assert "NOT RUN" in done.stderr
    called = tmp_path / "called"
    assert not called.exists() or "make" not in called.read_text()
