#!/usr/bin/env python3
"""What docker-py lets its user see: the same steps as cli.sh, as transcripts of two servers can be compared.

    tests/clients/sdk.py HOST IMAGE [STEP…]

HOST is the server (unix:///…), IMAGE the name of a busybox image in a registry that it can pull from and push to.
"""

import io
import re
import sys
import tarfile
import threading
import time

import docker

HOST, IMAGE = sys.argv[1:3]
REPOSITORY, TAG = IMAGE.rsplit(":", 1)
client = docker.DockerClient(base_url=HOST, version="auto", timeout=60)
NONE = {"network_mode": "none"}


def alike(text):
    """Leaves out what differs from run to run and means nothing."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "ID", str(text))
    text = re.sub(r"\b[0-9a-f]{12}\b", "SHORT", text)
    return text.replace(REPOSITORY, "REPO")


def step(name):
    """Runs a function and writes down what it gives, or how it fails."""

    def run(body):
        print(f"## {name}")
        try:
            print("gives:", alike(body()))
        except docker.errors.APIError as error:
            print("fails:", type(error).__name__, error.status_code, alike(error.explanation))
        except docker.errors.DockerException as error:
            print("fails:", type(error).__name__, alike(error))
        sys.stdout.flush()

    return run


def started(*command, **options):
    return client.containers.run(IMAGE, list(command), detach=True, **NONE, **options)


def read_exactly(sock, count):
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            break
        data += part
    return data


@step("ping")
def _():
    return client.ping()


@step("version")
def _():
    version = client.version()
    return sorted(key for key in ("ApiVersion", "MinAPIVersion", "Version", "Os", "Arch", "KernelVersion") if version[key])


@step("info")
def _():
    info = client.info()
    return [type(info[key]).__name__ for key in ("Containers", "Images", "Driver", "NCPU", "MemTotal", "Name", "ID", "Swarm")]


@step("pull")
def _():
    return client.images.pull(REPOSITORY, tag=TAG).tags


@step("pull with progress")
def _():
    lines = list(client.api.pull(REPOSITORY, tag=TAG, stream=True, decode=True))
    return [line["status"] for line in lines if "Digest" in line.get("status", "") or "Status" in line.get("status", "")]


@step("pull of nothing")
def _():
    return client.images.pull(REPOSITORY, tag="nothere")


@step("images")
def _():
    return [image.tags for image in client.images.list(name=REPOSITORY)]


@step("image")
def _():
    image = client.images.get(IMAGE)
    return [image.id, image.attrs["Os"], image.attrs["Config"]["Cmd"], len(image.history()), type(image.attrs["Size"]).__name__]


@step("tag, and untag")
def _():
    client.images.get(IMAGE).tag(REPOSITORY, "py")
    tags = sorted(client.images.get(IMAGE).tags)
    client.images.remove(f"{REPOSITORY}:py")
    return tags, client.images.get(IMAGE).tags


@step("run")
def _():
    return client.containers.run(IMAGE, ["echo", "hello"], remove=True, **NONE)


@step("run that fails")
def _():
    return client.containers.run(IMAGE, ["sh", "-c", "echo broken >&2; exit 3"], remove=True, stderr=True, **NONE)


@step("run of an image that is not here")
def _():
    return client.api.create_container("nothere:1", ["true"])


@step("what a container changed")
def _():
    container = client.containers.create(IMAGE, ["sh", "-c", "echo x > /new; rm /etc/group; mkdir /d"], **NONE)
    before = container.diff()
    container.start()
    container.wait()
    changes = sorted((change["Path"], change["Kind"]) for change in container.diff())
    archive = tarfile.open(fileobj=io.BytesIO(b"".join(container.export())))
    there = [name.lstrip("./") in {entry.name.lstrip("./") for entry in archive} for name in ("new", "d", "etc/group")]
    image = container.commit("committed", "py", message="said", author="Ann", changes="ENV A=b", conf={"Cmd": ["cat", "/new"]})
    config = image.attrs["Config"]
    seen = [image.tags, image.attrs["Author"], image.attrs["Comment"], config["Cmd"], "A=b" in config["Env"], len(image.attrs["RootFS"]["Layers"])]
    out = client.containers.run("committed:py", remove=True, **NONE)
    container.remove()
    client.images.remove("committed:py")
    return before, changes, there, seen, out


@step("a container's life")
def _():
    seen = []
    container = started("sh", "-c", "echo one; echo two >&2; trap 'exit 7' TERM; while :; do sleep 0.1; done", name="py", labels={"a": "b"})
    time.sleep(0.5)
    container.reload()
    seen.append((container.name, container.status, container.labels))
    seen.append((container.logs(stdout=True, stderr=False), container.logs(stdout=False, stderr=True)))
    seen.append(container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True))
    seen.append(container.exec_run("id -u", user="5").output)
    container.pause()
    container.reload()
    seen.append(container.status)
    container.unpause()
    container.rename("python")
    container.restart(timeout=5)
    seen.append(sorted(client.api.inspect_container("python")["State"].keys() & {"Running", "Paused", "Pid", "ExitCode", "StartedAt"}))
    seen.append(sorted(container.stats(stream=False).keys() & {"cpu_stats", "memory_stats", "pids_stats", "read", "precpu_stats"}))
    seen.append([c.name for c in client.containers.list(filters={"label": "a=b"})])
    container.stop(timeout=5)
    seen.append(container.wait()["StatusCode"])
    seen.append([c.name for c in client.containers.list(all=True, filters={"status": "exited", "name": "python"})])
    container.remove()
    return seen


@step("remove while it runs")
def _():
    container = started("sleep", "60", name="busy")
    try:
        container.remove()
    finally:
        container.remove(force=True)


@step("an unknown container")
def _():
    return client.containers.get("nothere")


@step("a name twice")
def _():
    first = client.containers.create(IMAGE, ["true"], name="twice", **NONE)
    try:
        client.containers.create(IMAGE, ["true"], name="twice", **NONE)
    finally:
        first.remove()


@step("attach before start")
def _():
    container = client.containers.create(IMAGE, ["sh", "-c", "echo first; echo last"], **NONE)
    stream = container.attach(stream=True, logs=False)
    container.start()
    output = b"".join(stream)
    container.remove()
    return output


@step("stdin with half-close")
def _():
    container = client.containers.create(IMAGE, ["cat"], stdin_open=True, **NONE)
    socket = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    container.start()
    raw = socket._sock
    payload = b"x" * (1 << 20)

    def send():
        raw.sendall(payload)
        raw.shutdown(1)

    sender = threading.Thread(target=send)
    sender.start()
    size = 0
    while True:
        header = read_exactly(raw, 8)
        if len(header) < 8:
            break
        size += len(read_exactly(raw, int.from_bytes(header[4:], "big")))
    sender.join()
    code = container.wait()["StatusCode"]
    container.remove()
    return size, code


@step("follow logs")
def _():
    container = started("sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done")
    lines = list(container.logs(stream=True, follow=True))
    container.remove()
    return b"".join(lines)


@step("wait conditions")
def _():
    container = client.containers.create(IMAGE, ["sh", "-c", "exit 6"], **NONE)
    codes = []
    waiter = threading.Thread(target=lambda: codes.append(container.wait(condition="next-exit")["StatusCode"]))
    waiter.start()
    time.sleep(0.3)
    container.start()
    waiter.join()
    codes.append(container.wait()["StatusCode"])
    container.remove()
    return codes


@step("events")
def _():
    since = time.time()
    client.containers.run(IMAGE, ["true"], remove=True, **NONE)
    time.sleep(1)
    events = client.events(since=since, until=time.time(), filters={"type": "container"}, decode=True)
    return [event["Action"] for event in events]


@step("save and load")
def _():
    data = b"".join(client.images.get(IMAGE).save(named=True))
    names = tarfile.open(fileobj=io.BytesIO(data)).getnames()
    client.images.remove(IMAGE)
    loaded = client.images.load(data)
    return "manifest.json" in names, [image.tags for image in loaded]


@step("push")
def _():
    client.images.get(IMAGE).tag(REPOSITORY, "pypushed")
    lines = list(client.api.push(REPOSITORY, tag="pypushed", stream=True, decode=True))
    client.images.remove(f"{REPOSITORY}:pypushed")
    return [line["error"] for line in lines if "error" in line], any("aux" in line for line in lines)


@step("top")
def _():
    container = started("sleep", "60")
    titles = container.top(ps_args="-o pid,comm")["Titles"]
    container.remove(force=True)
    return titles


@step("prune")
def _():
    client.containers.run(IMAGE, ["true"], **NONE)
    return len(client.containers.prune()["ContainersDeleted"])


@step("networks and volumes")
def _():
    return sorted(n.name for n in client.networks.list(names=["none", "host"])), client.volumes.list()


@step("networks")
def networks():
    pool = docker.types.IPAMPool(subnet="10.213.61.0/24", gateway="10.213.61.9")
    ipam = docker.types.IPAMConfig(pool_configs=[pool])
    made = client.networks.create("sdk", driver="bridge", ipam=ipam, labels={"a": "b"}, internal=True)
    other = client.networks.create("sdk2", internal=True)
    container = client.containers.run(IMAGE, ["sleep", "60"], detach=True, network="sdk", name="onsdk")
    other.connect(container, aliases=["alias"])
    ping = ["sh", "-c", "ping -c 1 -w 5 alias >/dev/null && ping -c 1 -w 5 onsdk >/dev/null && echo reached"]
    said = client.containers.run(IMAGE, ping, remove=True, network="sdk2")
    made.reload()
    container.reload()
    members = [member.name for member in made.containers]
    pools = [sorted(pool.items()) for pool in made.attrs["IPAM"]["Config"]]
    seen = made.attrs["Internal"], pools, members, sorted(container.attrs["NetworkSettings"]["Networks"])
    other.disconnect(container)
    container.reload()
    left = sorted(container.attrs["NetworkSettings"]["Networks"])
    listed = [network.name for network in client.networks.list(filters={"label": "a=b"})]
    container.remove(force=True)
    other.remove()
    return said, seen, left, listed, client.networks.prune()["NetworksDeleted"]


@step("a network that is not there")
def no_network():
    return client.networks.get("nothere")


@step("a network twice")
def network_twice():
    client.networks.create("twice")
    try:
        return client.networks.create("twice")
    finally:
        for network in client.networks.list(names=["twice"]):
            network.remove()


@step("a published port")
def published():
    ports = {"80/tcp": ("127.0.0.1", 18095), "81/udp": None}
    container = client.containers.run(IMAGE, ["sleep", "60"], detach=True, network="bridge", ports=ports)
    container.reload()
    seen = container.ports["80/tcp"], len(container.ports["81/udp"][0]["HostPort"]) > 1
    container.remove(force=True)
    return seen


@step("disk usage")
def _():
    return sorted(client.df().keys() & {"Images", "Containers", "Volumes", "LayersSize"})

@step("volumes")
def volumes():
    made = client.volumes.create("sdk", labels={"a": "b"})
    client.containers.run(IMAGE, ["sh", "-c", "echo kept > /v/file"], remove=True, volumes={"sdk": {"bind": "/v"}}, **NONE)
    mount = docker.types.Mount("/v", "sdk", read_only=True)
    said = client.containers.run(IMAGE, ["cat", "/v/file"], remove=True, mounts=[mount], **NONE)
    listed = [volume.name for volume in client.volumes.list(filters={"label": "a=b"})]
    made.remove()
    return said, listed, made.attrs["Driver"], made.attrs["Labels"]


@step("a volume that is not there")
def no_volume():
    return client.volumes.get("nothere")


@step("archives in and out")
def archives():
    container = client.containers.create(IMAGE, ["true"], **NONE)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("file")
        member.size, member.mode, member.uid, member.gid, member.mtime = 7, 0o640, 12, 34, 1600000000
        archive.addfile(member, io.BytesIO(b"content"))
    put = container.put_archive("/tmp", packed.getvalue())
    pieces, stat = container.get_archive("/tmp/file")
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        found = [(m.name, m.mode, m.uid, m.gid, m.mtime, archive.extractfile(m).read()) for m in archive]
    container.remove()
    return put, found, stat["name"], stat["size"], stat["mode"], stat["linkTarget"]
