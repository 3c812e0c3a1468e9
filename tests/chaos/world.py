"""What an episode runs in: a disk that can be full, MLflow's server behind a proxy, warm processes, small records."""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mis.data.layouts.msd import read_msd
from mis.data.phantom.write import make_phantom
from mis.data.records.writer import write_records
from mis.params.data import PhantomParams
from mis.params.load import load_params
from mis.ports import free_port
from mis.quiet import import_tensorflow
from mis.settings import Settings
from mis.track.server import server, wait_until_ready
from tests.cluster.machines import Machines, why_not
from tests.outages import Proxy
from tests.warm import SEARCHES, WarmServer, warm_server

PARAMS = Path(__file__).parents[2] / "pipelines" / "plain.yaml"
DISK = "48m"
OURS = ("MIS_", "MLFLOW_", "DVC_", "RAY_")


@dataclass
class World:
    """What all episodes share.

    Attributes:
        base: Their folder.
        proxy: In front of MLflow's server.
        store: The settings that reach the server's own store directly.
        searches: Starts warm processes of searches.
        trainings: Starts warm processes of trainings.
        machines: Two machines with addresses of their own; None where there can be none.
    """

    base: Path
    proxy: Proxy
    store: Settings
    searches: WarmServer
    trainings: WarmServer
    machines: Machines | None

    @contextmanager
    def project(self, name):
        """Yield the folder of a project, on a disk of its own."""
        folder = self.base / name
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], check=True)
        try:
            (folder / "data").mkdir()
            (folder / "data" / "records").symlink_to(self.base / "records")
            (folder / "dvc.yaml").write_text("stages: {}\n")
            shutil.copy(PARAMS, folder / "params.yaml")
            yield folder
        except BaseException:
            kept = Path(tempfile.gettempdir()) / f"chaos-found-{name}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept, symlinks=True, ignore=shutil.ignore_patterns("hog", "leases"))
            sys.stderr.write(f"what there was is kept in {kept}\n")
            raise
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)

    def environment(self, project, **more):
        """Return the environment of a command in a project."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        own = {"MLFLOW_TRACKING_URI": self.proxy.uri, "MIS_LEASES": f"{project}/leases", "MIS_DEVICES": "2"}
        return kept | own | more


@contextmanager
def world():
    """Yield what episodes run in; it takes half a minute to begin."""
    if os.geteuid() != 0:
        sys.exit("error: chaos mounts a file system for each episode, which only root may do")
    with ExitStack() as stack:
        base = Path(stack.enter_context(TemporaryDirectory(prefix="chaos-")))
        params = load_params(PARAMS)
        phantom = PhantomParams(layout="msd", cases=8, unlabelled=1, shape=(16, 16, 16), seed=5)
        make_phantom(base / "Task01", phantom, jobs=1, progress=False)
        import_tensorflow()
        write_records(read_msd(base / "Task01"), params.data, base / "records", jobs=2, progress=False)
        (base / "store" / "mlruns").mkdir(parents=True)
        uri, port, log = f"sqlite:///{base}/store/mlruns/mlflow.db", free_port(), base / "server.log"
        process = stack.enter_context(server(uri, port, log))
        wait_until_ready(process, f"http://127.0.0.1:{port}", log)
        settings = Settings(root=base / "store", workspace=base, tracking_uri=f"http://127.0.0.1:{port}")
        proxy = Proxy(settings.tracking_uri)
        stack.callback(proxy.down)
        searches = stack.enter_context(warm_server(*SEARCHES))
        trainings = stack.enter_context(warm_server())
        machines = stack.enter_context(Machines(2, base / "machines")) if why_not() is None else None
        yield World(base, proxy, settings, searches, trainings, machines)
