"""The shop: what runs, what calls what, and how it is brought up.

Every application is given two or three URLs of localhost and nothing else; that those lead to
sidecars is said here and in each `sidecar.yaml` alone.
"""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from . import http, tools
from .processes import Failure, Port, Process, Processes, together, until

REPLICAS = ("inventory-1", "inventory-2", "inventory-3")
# Those that are called, and how many replicas of each; the gateway and the notifier only call.
CALLED = {"inventory": len(REPLICAS), "nats": 1, "orders": 1}
STOCK = "wool=500,linen=300,cotton=200"


@dataclass(frozen=True)
class Sidecar:
    """A running sidecar."""

    workload: str
    process: Process
    inbound: str | None
    outbound: str
    telemetry: str

    @property
    def service(self) -> str:
        """The service that its workload is a replica of."""
        return self.workload.rpartition("-")[0]

    async def metrics(self) -> str:
        """What it says of itself."""
        answer = await http.get(f"http://{self.telemetry}/metrics")
        if answer.status != 200:
            raise Failure(f"the sidecar of {self.workload} has no metrics: {answer.text}")
        return answer.text


class Shop:
    """All of it, below one folder."""

    def __init__(self, folder: Path, processes: Processes, port: int) -> None:
        self.folder = folder
        self.processes = processes
        self.applications: dict[str, Process] = {}
        self.sidecars: dict[str, Sidecar] = {}
        self.control_plane = ""
        self._grpc = ""
        self._binaries = tools.binaries()
        self._python = tools.python()
        self._ports: list[Port] = []
        self._gateway = self._port(port)
        self.url = f"http://127.0.0.1:{self._gateway}"
        (folder / "logs").mkdir()

    def _port(self, number: int = 0) -> Port:
        # Kept as long as the shop is.
        self._ports.append(Port(number))
        return self._ports[-1]

    async def start(self) -> None:
        """Brings it up: what others need comes first."""
        await together(self._start_control_plane(), self._start_servers())
        await together(self._start_nats(), *map(self._start_inventory, REPLICAS))
        await together(self._start_orders(), self._start_gateway(), self._start_notifier())
        await until("health of all workloads", self._is_healthy)

    def describe(self) -> dict[str, Any]:
        """Where everything is, for programs."""
        return {
            "gateway": self.url,
            "operator": {
                "url": f"http://{self.control_plane}",
                "tokenFile": str(self._data / "operator.token"),
            },
            "applications": {name: one.pid for name, one in self.applications.items()},
            "sidecars": [
                {
                    "workload": one.workload,
                    "pid": one.process.pid,
                    "inbound": one.inbound,
                    "outbound": one.outbound,
                    "telemetry": one.telemetry,
                    "log": str(one.process.log),
                }
                for _, one in sorted(self.sidecars.items())
            ],
        }

    async def break_replica(self, name: str, how: str) -> None:
        """Makes a replica of inventory fail: `unavailable` (it answers 503) or `down`."""
        replica = self._replica(name)
        if how == "unavailable":
            if not replica.runs:
                raise Failure(f"{name} is down: heal it first")
            said = replica.said
            replica.send(signal.SIGUSR1)
            await replica.line("^broken$", since=said)
        else:
            await replica.stop(signal.SIGKILL)

    async def heal_replica(self, name: str) -> None:
        """Makes a replica of inventory work again, whichever way it failed."""
        replica = self._replica(name)
        said = replica.said
        if replica.runs:
            replica.send(signal.SIGUSR2)
            await replica.line("^healed$", since=said)
        else:
            await replica.start()
            await replica.line("^listening", since=said)

    def _replica(self, name: str) -> Process:
        if name not in REPLICAS:
            raise Failure(f"{name} cannot be broken; {', '.join(REPLICAS)} can")
        return self.applications[name]

    # The control plane, and the servers that services keep their data in.

    @property
    def _data(self) -> Path:
        return self.folder / "control-plane"

    async def _start_control_plane(self) -> None:
        addresses = ["--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"]
        command = [self._selvage, "control-plane", "--data-dir", str(self._data), *addresses]
        plane = await self.processes.start(self._process("control-plane", command))
        self._grpc = await plane.listening("grpc")
        self.control_plane = await plane.listening("http")

        async def ready() -> bool:
            return (await http.get(f"http://{self.control_plane}/ready")).status == 200

        await until("readiness of the control plane", ready)
        await self._operate("apply", "-f", str(tools.SHOP / "policy.yaml"))

    async def _start_servers(self) -> None:
        await together(self._start_postgres(), self._start_redis())

    async def _start_postgres(self) -> None:
        folder = self.folder / "postgres"
        folder.mkdir()
        privileges: tuple[str, ...] = ()
        if os.geteuid() == 0:
            # PostgreSQL refuses to be root; Debian's package made this user.
            shutil.chown(folder, "postgres", "postgres")
            privileges = ("--reuid=postgres", "--regid=postgres", "--clear-groups")
        data = str(folder / "data")
        init = [tools.server("initdb"), "--auth=trust", "--username=shop", "--no-sync"]
        init += ["--no-locale", "--encoding=UTF8", data]
        prepare = self._process("initdb", init, folder, privileges=privileges)
        await prepare.run()
        settings = ["listen_addresses=", f"unix_socket_directories={folder}", "fsync=off"]
        command = [tools.server("postgres"), "-D", data]
        for setting in settings:
            command += ["-c", setting]
        # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for its clients.
        server = self._process(
            "postgres", command, folder, privileges=privileges, farewell=signal.SIGINT
        )
        await self.processes.start(server)
        await server.line("ready to accept connections")

    async def _start_redis(self) -> None:
        listen = ["--port", "0", "--unixsocket", str(self._redis)]
        command = [tools.server("redis-server"), *listen, "--save", "", "--appendonly", "no"]
        server = await self.processes.start(self._process("redis", command))
        await server.line("eady to accept connections")

    @property
    def _redis(self) -> Path:
        return self.folder / "redis.sock"

    # The services, each with its sidecar.

    async def _start_nats(self) -> None:
        port = self._port()
        command = [tools.server("nats-server"), "-a", "127.0.0.1", "-p", str(port)]
        await self._start_application("nats-1", command, {}, "Server is ready")
        await self._start_sidecar("nats-1", "nats", port=port)

    async def _start_inventory(self, name: str) -> None:
        port = self._port()
        environment = {
            "LISTEN": f"127.0.0.1:{port}",
            "REDIS_URL": f"unix://{self._redis}",
            "STOCK": STOCK,
        }
        command = [str(self._binaries / "shop-inventory")]
        await self._start_application(name, command, environment, "^listening")
        await self._start_sidecar(name, "inventory", workload=name, port=port)

    async def _start_orders(self) -> None:
        port, inventory, nats = self._port(), self._port(), self._port()
        await self._start_sidecar("orders-1", "orders", port=port, inventory=inventory, nats=nats)
        environment = {
            "DATABASE_URL": f"host={self.folder / 'postgres'} user=shop dbname=postgres",
            "INVENTORY_URL": f"http://127.0.0.1:{inventory}",
            "NATS_URL": f"nats://127.0.0.1:{nats}",
        }
        serve = ["-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", str(port)]
        # Longer than a connection of the sidecar lies idle for most of the time.
        keep = ["--timeout-keep-alive", "75", "--app-dir", str(tools.SHOP / "orders")]
        command = [str(self._python), *serve, *keep]
        await self._start_application("orders-1", command, environment, "Uvicorn running")

    async def _start_gateway(self) -> None:
        orders, inventory = self._port(), self._port()
        await self._start_sidecar("gateway-1", "gateway", orders=orders, inventory=inventory)
        environment = {
            "ORDERS_URL": f"http://127.0.0.1:{orders}",
            "INVENTORY_URL": f"http://127.0.0.1:{inventory}",
        }
        serve = ["-m", "gunicorn", "wsgi:application", "--bind", f"127.0.0.1:{self._gateway}"]
        place = ["--chdir", str(tools.SHOP / "gateway"), "--threads", "8"]
        command = [str(self._python), *serve, *place]
        await self._start_application("gateway-1", command, environment, "Booting worker")

    async def _start_notifier(self) -> None:
        nats = self._port()
        await self._start_sidecar("notifier-1", "notifier", nats=nats)
        environment = {"NATS_URL": f"nats://127.0.0.1:{nats}"}
        command = [str(self._python), str(tools.SHOP / "notifier" / "app.py")]
        await self._start_application("notifier-1", command, environment, "^listening")

    async def _start_application(
        self, name: str, command: list[str], environment: dict[str, str], ready: str
    ) -> None:
        process = self._process(name, command, environment=environment)
        self.applications[name] = process
        await self.processes.start(process)
        await process.line(ready)

    async def _start_sidecar(self, name: str, service: str, **values: Any) -> None:
        folder = self.folder / name
        folder.mkdir()
        text = Template((tools.SHOP / service / "sidecar.yaml").read_text())
        values["control_plane"] = self._grpc
        (folder / "sidecar.yaml").write_text(text.substitute(values))
        token = await self._operate("token", "create", "--workload", f"shop/{service}")
        (folder / "token").touch(0o600)
        (folder / "token").write_text(token)
        command = [self._selvage, "proxy", "--config", "sidecar.yaml"]
        process = self._process(f"{name}-sidecar", command, folder)
        await self.processes.start(process)
        sidecar = Sidecar(
            workload=name,
            process=process,
            inbound=await process.listening("inbound") if "port" in values else None,
            outbound=await process.listening("outbound"),
            telemetry=await process.listening("telemetry"),
        )

        async def ready() -> bool:
            return (await http.get(f"http://{sidecar.telemetry}/ready")).status == 200

        await until(f"readiness of the sidecar of {name}", ready)
        self.sidecars[name] = sidecar

    # What all of them need.

    @property
    def _selvage(self) -> str:
        return str(self._binaries / "selvage")

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def _process(
        self, name: str, command: list[str], folder: Path | None = None, **more: Any
    ) -> Process:
        return Process(name, command, folder or self.folder, self._log(name), **more)

    async def _operate(self, *arguments: str) -> str:
        """Runs `selvage` as its operator, and returns what it prints."""
        environment = {
            "SELVAGE_SERVER": f"http://{self.control_plane}",
            "SELVAGE_DATA_DIR": str(self._data),
        }
        name = f"selvage-{arguments[0]}"
        process = self._process(name, [self._selvage, *arguments], environment=environment)
        return await process.run()

    async def _is_healthy(self) -> bool:
        """Whether the registry knows every workload with an inbound side as healthy."""
        token = (self._data / "operator.token").read_text().strip()
        url = f"http://{self.control_plane}/api/v1/services"
        answer = await http.get(url, {"authorization": f"Bearer {token}"})
        said = answer.json() if answer.status == 200 else {"items": []}
        healthy = {
            item["name"]: sum(one["healthy"] for one in item["workloads"])
            for item in said["items"]
        }
        return all(healthy.get(name) == count for name, count in CALLED.items())
