"""The examples for clusters: their scripts run here with stand-ins for the cluster's commands."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from siamese_keras.train import main
from siamese_keras.training.distribution import connect_workers

EXAMPLES = Path(__file__).parents[1] / "examples"
PRINT = '#!/bin/bash\nprintf "%s\\n" "$TF_CONFIG" "$@" > "$OUT-$(date +%N)"\n'


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder in front of PATH, in which `python` notes TF_CONFIG and its arguments."""

    def command(name, script):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)

    command("python", PRINT)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    monkeypatch.chdir(tmp_path)
    return command


def noted(folder):
    """Return TF_CONFIG and the arguments of each call of `python`, in order of the tasks."""
    calls = []
    for path in folder.glob("out-*"):
        config, *arguments = path.read_text().splitlines()
        calls.append((json.loads(config), arguments))
    return sorted(calls, key=lambda call: call[0]["task"]["index"])


def check(calls, monkeypatch):
    """Check that TF_CONFIG is one, but for the other machine, and that the options are known."""
    assert [config["task"]["index"] for config, _ in calls] == [0, 1]
    assert calls[0][0]["cluster"] == calls[1][0]["cluster"]
    assert len(calls[0][0]["cluster"]["worker"]) == 2
    for config, arguments in calls:
        module, *options = arguments[1:]
        assert (arguments[0], module) == ("-m", "siamese_keras.train")
        monkeypatch.setenv("TF_CONFIG", json.dumps({**config, "task": {}}))
        connect_workers.cache_clear()
        assert main(options) == 1  # and not 2, an option that is not known
    connect_workers.cache_clear()


def test_the_kubernetes_job_starts_two_workers(cluster, tmp_path, monkeypatch, capsys):
    service, job = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["metadata"]["name"] == pod["subdomain"] == job["metadata"]["name"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    (container,) = pod["containers"]
    for index in range(2):
        subprocess.run(
            [*container["command"], *container["args"]],
            env={**os.environ, "JOB_COMPLETION_INDEX": str(index)},
            check=True,
        )
    calls = noted(tmp_path)
    hosts = [address.rpartition(":")[0] for address in calls[0][0]["cluster"]["worker"]]
    assert hosts == [f"{job['metadata']['name']}-{i}.{pod['subdomain']}" for i in range(2)]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    check(calls, monkeypatch)
    assert "TF_CONFIG must be like" in capsys.readouterr().err


@pytest.mark.parametrize("started", [False, True])
def test_the_slurm_script_starts_two_workers_and_resumes(cluster, tmp_path, monkeypatch, started):
    cluster("scontrol", "#!/bin/bash\nprintf 'node7\\nnode9\\n'\n")
    cluster("srun", '#!/bin/bash\nfor SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@"; done\n')
    if started:
        (tmp_path / "runs" / "photos" / "checkpoints").mkdir(parents=True)
    environment = {"SLURM_JOB_ID": "123", "SLURM_JOB_NODELIST": "node[7,9]"}
    subprocess.run(["bash", EXAMPLES / "slurm.sh"], env={**os.environ, **environment}, check=True)
    calls = noted(tmp_path)
    assert calls[0][0]["cluster"]["worker"] == ["node7:20123", "node9:20123"]
    assert ("--resume" in calls[0][1]) is started
    check(calls, monkeypatch)
