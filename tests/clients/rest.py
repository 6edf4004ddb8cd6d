#!/usr/bin/env python3
"""What a server's own JSON looks like: the names and types of every field that it answers with, down to the last, and the
codes and words of its refusals.

    tests/clients/rest.py shapes|refusals HOST IMAGE VERSION

HOST is the server (unix:///…), IMAGE the name of a busybox image in a registry that it can pull from and push to, VERSION the
version of the API to speak (1.41). Values are left out, but for the words of events, progress and refusals. A list is its
elements together; a map by names of somebody's choice is `{}`.
"""

import http.client
import json
import re
import socket
import sys
import time
import urllib.parse

WHAT, HOST, IMAGE, VERSION = sys.argv[1:5]
REPOSITORY, TAG = IMAGE.rsplit(":", 1)
JSON = {"Content-Type": "application/json"}

# Maps whose names are somebody's choice, or the host's.
NAMED = {
    "Annotations", "Config.ExposedPorts", "Config.Volumes", "Containers", "Data", "ExposedPorts", "IndexConfigs", "Labels",
    "LogConfig.Config", "Networks", "Options", "Ports", "Runtimes", "Sysctls", "Tmpfs", "Volumes", "memory_stats.stats",
    "org.opencontainers", "features",
}


class Unix(http.client.HTTPConnection):
    def __init__(self):
        super().__init__("localhost", timeout=60)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(HOST.removeprefix("unix://"))


def ask(method, path, body=None, headers=None, version=VERSION):
    """The code, the head and the body of an answer."""
    connection = Unix()
    if isinstance(body, (dict, list)):
        body, headers = json.dumps(body), {**JSON, **(headers or {})}
    prefix = f"/v{version}" if version else ""
    connection.request(method, prefix + path, body=body, headers=headers or {})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, answer.headers, data.decode(errors="replace")


def values(text):
    """The JSON values of a body of one or more lines."""
    decoder, at, found = json.JSONDecoder(), 0, []
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        value, at = decoder.raw_decode(text, at)
        found.append(value)
    return found


def is_map(path):
    parts = path.replace("[]", "").split(".") if not path.endswith(("[]", "{}")) else [""]
    return parts[-1] in NAMED or ".".join(parts[-2:]) in NAMED


def collect(value, path, out):
    kind = {type(None): "null", bool: "bool", int: "number", float: "number", str: "text"}.get(type(value))
    if isinstance(value, dict):
        if is_map(path):
            out.setdefault(path, set()).add("map" if value else "empty map")
            for inner in value.values():
                collect(inner, path + "{}", out)
            return
        out.setdefault(path, set()).add("object" if value else "empty object")
        for name, inner in value.items():
            collect(inner, f"{path}.{name}" if path else name, out)
    elif isinstance(value, list):
        out.setdefault(path, set()).add("list" if value else "empty list")
        for inner in value:
            collect(inner, path + "[]", out)
    else:
        out.setdefault(path, set()).add(kind)


def show(name, code, text, each=None):
    """Writes down the shape of an answer. `each` names what sets lines apart; lines of one name are shown together."""
    print(f"## {VERSION} {name}")
    print("code", code)
    try:
        found = values(text)
    except ValueError:
        print("body", alike(text))
        return
    groups = {}
    for value in found:
        group = each(value) if each else ""
        if group is not None:
            groups.setdefault(group, []).append(value)
    for group, members in sorted(groups.items()):
        out = {}
        for member in members:
            collect(member, "", out)
        for path, kinds in sorted(out.items()):
            if path:
                print(f"{group + ': ' if group else ''}{path}: {' or '.join(sorted(kinds))}")
            elif "empty list" in kinds or "null" in kinds:
                print(f"{group}{' or '.join(sorted(kinds))}")
    sys.stdout.flush()


def alike(text):
    """Leaves out what differs from run to run and means nothing."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "ID", str(text))
    text = re.sub(r"\b[0-9a-f]{12}\b", "SHORT", text)
    return text.replace(REPOSITORY, "REPO").strip()


def shape(name, method, path, body=None, headers=None, each=None):
    code, _, text = ask(method, path, body, headers)
    show(name, code, text, each)
    return text


def pull():
    query = urllib.parse.urlencode({"fromImage": REPOSITORY, "tag": TAG})
    return ask("POST", f"/images/create?{query}")[2]


def clean():
    everything = urllib.parse.quote('{"all":["true"]}')
    ask("POST", "/containers/prune", "")
    ask("POST", f"/volumes/prune?filters={everything}" if int(VERSION.split(".")[1]) >= 42 else "/volumes/prune", "")


def shapes():
    began = int(time.time())
    clean()

    def step(line):
        """What a line of progress is. Lines of layers come and go with the speed of the machine."""
        return None if "id" in line and "from" not in line["status"] else alike(line.get("status", "aux")).split(" ")[0]

    show("pull", 200, pull(), each=step)
    code, head, body = ask("GET", "/_ping")
    print(f"## {VERSION} ping\ncode {code}\nbody {body}")
    for name in sorted(head.keys()):
        if name.lower() not in ("date", "content-length", "connection"):
            told = name.lower() in ("api-version", "server", "transfer-encoding")
            print(f"head {name.lower()}" + ("" if told else f": {head[name]}"))
    for name in ("version", "info", "volumes", "networks/none", "networks/host", "plugins"):
        shape(name, "GET", f"/{name}")
    # One of the two has a bridge.
    shape("networks", "GET", "/networks?filters=" + urllib.parse.quote('{"name":["none","host"]}'))
    image = urllib.parse.quote(IMAGE, safe="/:")
    shape("images", "GET", "/images/json")
    shape("images, counted", "GET", "/images/json?all=1&digests=1&shared-size=1")
    shape("images, manifests", "GET", "/images/json?manifests=1")
    shape("image", "GET", f"/images/{image}/json")
    shape("image, manifests", "GET", f"/images/{image}/json?manifests=1")
    shape("history", "GET", f"/images/{image}/history")
    containers(began)
    ask("POST", f"/images/{image}/tag?repo={REPOSITORY}&tag=copy")
    push = {"X-Registry-Auth": "e30="}
    shape("push", "POST", f"/images/{urllib.parse.quote(REPOSITORY, safe='/:')}/push?tag=copy", "", push, each=step)
    shape("remove a tag", "DELETE", f"/images/{image.rsplit(':', 1)[0]}:copy")
    shape("remove an image", "DELETE", f"/images/{image}?force=1")
    shape("image prune", "POST", "/images/prune", "")
    shape("network prune", "POST", "/networks/prune", "")
    shape("volume prune", "POST", "/volumes/prune", "")
    until = int(time.time()) + 1
    named = lambda event: f"{event['Type']} {event['Action']}"
    shape("events", "GET", f"/events?since={began}&until={until}", each=named)
    # Of the newer ones there is no record: what was recorded had no network of its own.
    if VERSION == "1.41":
        networks()


def networks():
    began = int(time.time())
    pool = {"Subnet": "10.213.62.0/24", "Gateway": "10.213.62.9", "IPRange": "10.213.62.64/26"}
    options = {"com.docker.network.driver.mtu": "1400"}
    asked = {"Name": "shaped", "Labels": {"l": "m"}, "Options": options, "Internal": True, "IPAM": {"Config": [pool]}}
    shape("network create", "POST", "/networks/create", asked)
    shape("network without a container", "GET", "/networks/shaped")
    ask("POST", "/networks/create", {"Name": "second"})
    pull()
    place = {"Aliases": ["alias"], "IPAMConfig": {"IPv4Address": "10.213.62.70"}}
    ports = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    body = {
        "Image": IMAGE, "Cmd": ["sleep", "60"], "ExposedPorts": {"80/tcp": {}, "81/udp": {}},
        "HostConfig": {"NetworkMode": "shaped", "PortBindings": ports, "Dns": ["192.0.2.1"], "ExtraHosts": ["fixed:192.0.2.7"]},
        "NetworkingConfig": {"EndpointsConfig": {"shaped": place}},
    }
    shape("create on a network", "POST", "/containers/create?name=member", body)
    shape("inspect on a network, created", "GET", "/containers/member/json")
    ask("POST", "/networks/second/connect", {"Container": "member", "EndpointConfig": {"Aliases": ["other"]}})
    shape("start on a network", "POST", "/containers/member/start", "")
    shape("inspect on two networks", "GET", "/containers/member/json")
    named = urllib.parse.quote('{"name":["member"]}')
    shape("list of one on two networks", "GET", f"/containers/json?filters={named}")
    shape("network with a container", "GET", "/networks/shaped")
    shape("networks of users", "GET", "/networks?filters=" + urllib.parse.quote('{"label":["l=m"]}'))
    shape("disconnect", "POST", "/networks/second/disconnect", {"Container": "member"})
    shape("remove of a network in use", "DELETE", "/networks/shaped")
    ask("DELETE", "/containers/member?force=1")
    shape("remove of a network", "DELETE", "/networks/second")
    shape("prune of networks", "POST", "/networks/prune", "")
    until = int(time.time()) + 1
    kind = urllib.parse.quote('{"type":["network"]}')
    shape("events of networks", "GET", f"/events?since={began}&until={until}&filters={kind}", each=lambda event: event["Action"])


def containers(began):
    asked = {
        "Image": IMAGE,
        "Cmd": ["sh", "-c", "trap 'exit 3' TERM; echo out; while :; do sleep 0.1; done"],
        "Env": ["A=b"], "Labels": {"l": "m"}, "WorkingDir": "/tmp", "StopTimeout": 5, "StopSignal": "SIGTERM",
        "HostConfig": {
            "NetworkMode": "none", "PidsLimit": 100, "Memory": 64 << 20, "CapAdd": ["NET_ADMIN"],
            "Ulimits": [{"Name": "nofile", "Soft": 64, "Hard": 64}], "Tmpfs": {"/scratch": "size=1m"},
            "Binds": ["/etc:/data:ro"], "SecurityOpt": ["no-new-privileges"],
            "Mounts": [{"Type": "tmpfs", "Target": "/second"}, {"Type": "bind", "Source": "/etc", "Target": "/third"}],
        },
    }
    shape("create", "POST", "/containers/create?name=shaped", asked)
    shape("inspect, created", "GET", "/containers/shaped/json")
    shape("start", "POST", "/containers/shaped/start", "")
    time.sleep(0.5)
    shape("inspect, running", "GET", "/containers/shaped/json")
    shape("inspect with sizes", "GET", "/containers/shaped/json?size=1")
    shape("list", "GET", "/containers/json?all=1")
    shape("list with sizes", "GET", "/containers/json?all=1&size=1")
    shape("top", "GET", "/containers/shaped/top")
    shape("stats", "GET", "/containers/shaped/stats?stream=0")
    shape("stats, one shot", "GET", "/containers/shaped/stats?stream=0&one-shot=1")
    exec_ = json.loads(shape("exec create", "POST", "/containers/shaped/exec", {"Cmd": ["sleep", "30"], "AttachStdout": True}))
    shape("exec, not started", "GET", f"/exec/{exec_['Id']}/json")
    ask("POST", f"/exec/{exec_['Id']}/start", {"Detach": True})
    shape("exec, running", "GET", f"/exec/{exec_['Id']}/json")
    shape("inspect with an exec", "GET", "/containers/shaped/json")
    shape("system df", "GET", "/system/df")
    shape("system df, verbose", "GET", "/system/df?verbose=1")
    shape("system df, one type", "GET", "/system/df?type=volume")
    shape("update", "POST", "/containers/shaped/update", {"PidsLimit": 90})
    ask("POST", "/containers/shaped/pause")
    ask("POST", "/containers/shaped/unpause")
    ask("POST", "/containers/shaped/rename?name=formed")
    ask("POST", "/containers/formed/restart?t=5", "")
    ask("POST", "/containers/formed/stop?t=5", "")
    shape("wait", "POST", "/containers/formed/wait", "")
    shape("inspect, exited", "GET", "/containers/formed/json")
    shape("exec of a stopped container", "GET", f"/exec/{exec_['Id']}/json")
    ask("DELETE", "/containers/formed")
    ask("POST", "/containers/create?name=bare", {"Image": IMAGE, "HostConfig": {"NetworkMode": "none"}})
    shape("inspect of what nothing was asked of", "GET", "/containers/bare/json")
    shape("container prune", "POST", "/containers/prune", "")


def refusals():
    """Requests that cannot work, each with the code and the words of the refusal."""
    clean()
    pull()
    image = {"Image": IMAGE, "HostConfig": {"NetworkMode": "none"}, "Cmd": ["sleep", "60"]}
    ask("POST", "/containers/create?name=there", image)
    ask("POST", "/containers/create?name=running", image)
    ask("POST", "/containers/running/start", "")
    ask("POST", "/containers/create?name=over", {**image, "Cmd": ["true"]})
    ask("POST", "/containers/over/start", "")
    ask("POST", "/containers/over/wait", "")
    running = json.loads(ask("GET", "/containers/running/json")[2])["Id"]

    def host(**options):
        return {"Image": IMAGE, "HostConfig": {"NetworkMode": "none", **options}}

    bad_filter = urllib.parse.quote('{"colour":["red"]}')
    platform = urllib.parse.quote('{"os":"linux","architecture":"s390x"}')
    create = "/containers/create"
    plain = {"Content-Type": "text/plain"}
    table = [
        # paths and versions
        ("an unknown route", "GET", "/nowhere"),
        ("a method that a route has not", "PUT", "/containers/json"),
        ("no such verb of a container", "POST", "/containers/there/dance", ""),
        # bodies
        ("malformed JSON", "POST", create, "{", JSON),
        ("JSON with something behind it", "POST", create, '{"Image":"x"} {"Image":"y"}', JSON),
        ("an array for an object", "POST", create, "[]", JSON),
        ("no body", "POST", create, "", JSON),
        ("no type", "POST", create, "{}"),
        ("a wrong type", "POST", create, "{}", plain),
        ("a number for a text", "POST", create, {"Image": 1}),
        ("a text for a number", "POST", create, host(Memory="64m")),
        ("a text for a flag", "POST", create, {"Image": IMAGE, "Tty": "yes"}),
        ("a number for a list", "POST", create, {"Image": IMAGE, "Env": 1}),
        ("a fraction for a number", "POST", create, host(Memory=1.5)),
        # create
        ("an unknown image", "POST", create, {"Image": "nothere"}),
        ("an image that cannot be", "POST", create, {"Image": "BAD NAME"}),
        ("a name that cannot be", "POST", create + "?name=%3F", image),
        ("a name that is taken", "POST", create + "?name=there", image),
        ("too little memory", "POST", create, host(Memory=1024)),
        ("negative memory", "POST", create, host(Memory=-1024)),
        ("swap below memory", "POST", create, host(Memory=64 << 20, MemorySwap=32 << 20)),
        ("swap without memory", "POST", create, host(MemorySwap=64 << 20)),
        ("a reservation above memory", "POST", create, host(Memory=64 << 20, MemoryReservation=128 << 20)),
        ("CPUs and a quota", "POST", create, host(NanoCpus=10**9, CpuQuota=50000)),
        ("negative CPUs", "POST", create, host(NanoCpus=-1)),
        ("more CPUs than there are", "POST", create, host(NanoCpus=10**15)),
        ("CPUs by number that are not there", "POST", create, host(CpusetCpus="4000")),
        ("CPUs by number that are none", "POST", create, host(CpusetCpus="a-b")),
        ("a bind that is none", "POST", create, host(Binds=["/a"])),
        ("a bind of two to one place", "POST", create, host(Binds=["/etc:/x", "/usr:/x"])),
        ("a bind to a relative place", "POST", create, host(Binds=["/etc:x"])),
        ("a bind with a wrong mode", "POST", create, host(Binds=["/etc:/x:nope"])),
        ("a mount of an unknown type", "POST", create, host(Mounts=[{"Type": "x", "Target": "/x"}])),
        ("a mount to nowhere", "POST", create, host(Mounts=[{"Type": "tmpfs"}])),
        ("a mount of what is not there", "POST", create, host(Mounts=[{"Type": "bind", "Source": "/not/there", "Target": "/x"}])),
        ("a tmpfs option that is none", "POST", create, host(Tmpfs={"/x": "colour=red"})),
        ("an unknown capability", "POST", create, host(CapAdd=["NO_SUCH"])),
        ("an unknown security option", "POST", create, host(SecurityOpt=["nope=1"])),
        ("an unknown runtime", "POST", create, host(Runtime="nope")),
        ("an unknown log driver", "POST", create, host(LogConfig={"Type": "nope"})),
        ("an unknown restart policy", "POST", create, host(RestartPolicy={"Name": "sometimes"})),
        ("an unknown ulimit", "POST", create, host(Ulimits=[{"Name": "nope", "Soft": 1, "Hard": 1}])),
        ("a soft ulimit above the hard one", "POST", create, host(Ulimits=[{"Name": "nofile", "Soft": 9, "Hard": 1}])),
        ("a bad signal", "POST", create, {**image, "StopSignal": "NOPE"}),
        ("a bad score", "POST", create, host(OomScoreAdj=5000)),
        ("a relative directory", "POST", create, {**image, "WorkingDir": "a/b"}),
        ("a bad host name", "POST", create, {**image, "Hostname": "a b"}),
        ("a variable without a name", "POST", create, {**image, "Env": ["=x"]}),
        ("a namespace of a container that is not there", "POST", create, host(PidMode="container:nothere")),
        ("negative shared memory", "POST", create, host(ShmSize=-1)),
        # verbs of containers
        ("inspect of nothing", "GET", "/containers/nothere/json"),
        ("start of nothing", "POST", "/containers/nothere/start", ""),
        ("start of one that runs", "POST", "/containers/running/start", ""),
        ("stop of one that does not run", "POST", "/containers/there/stop", ""),
        ("stop with a bad time", "POST", "/containers/running/stop?t=soon", ""),
        ("kill with a bad signal", "POST", "/containers/running/kill?signal=NOPE", ""),
        ("kill with signal 0", "POST", "/containers/running/kill?signal=0", ""),
        ("kill with signal 65", "POST", "/containers/running/kill?signal=65", ""),
        ("kill of one that does not run", "POST", "/containers/there/kill", ""),
        ("pause of one that does not run", "POST", "/containers/there/pause", ""),
        ("unpause of one that is not paused", "POST", "/containers/running/unpause", ""),
        ("rename to nothing", "POST", "/containers/there/rename", ""),
        ("rename to a name that is taken", "POST", "/containers/there/rename?name=running", ""),
        ("rename to its own name", "POST", "/containers/there/rename?name=there", ""),
        ("rename to a name that cannot be", "POST", "/containers/there/rename?name=%3F", ""),
        ("resize without a size", "POST", "/containers/running/resize", ""),
        ("resize to no number", "POST", "/containers/running/resize?h=a&w=1", ""),
        ("resize to a negative number", "POST", "/containers/running/resize?h=-1&w=1", ""),
        ("resize of one that does not run", "POST", "/containers/there/resize?h=1&w=1", ""),
        ("wait for an unknown condition", "POST", "/containers/there/wait?condition=nope", ""),
        ("wait for nothing", "POST", "/containers/nothere/wait", ""),
        ("remove of one that runs", "DELETE", "/containers/running"),
        ("remove of nothing", "DELETE", "/containers/nothere"),
        ("remove of a link that is none", "DELETE", "/containers/there?link=1"),
        ("logs of no stream", "GET", "/containers/there/logs"),
        ("logs since no time", "GET", "/containers/there/logs?stdout=1&since=yesterday"),
        ("logs of nothing", "GET", "/containers/nothere/logs?stdout=1"),
        ("attach to nothing", "POST", "/containers/nothere/attach?stream=1", ""),
        ("top of one that does not run", "GET", "/containers/there/top"),
        ("stats of nothing", "GET", "/containers/nothere/stats?stream=0"),
        ("update to too little", "POST", "/containers/running/update", {"Memory": 1}),
        ("update of nothing", "POST", "/containers/nothere/update", {}),
        ("update of swap below memory", "POST", "/containers/there/update", {"Memory": 64 << 20, "MemorySwap": 32 << 20}),
        ("list with a bad limit", "GET", "/containers/json?limit=many"),
        ("list with a filter that is no JSON", "GET", "/containers/json?filters=%5B"),
        ("list by an unknown key", "GET", f"/containers/json?filters={bad_filter}"),
        ("list by an unknown status", "GET", "/containers/json?filters=" + urllib.parse.quote('{"status":["nope"]}')),
        ("list by a bad exit code", "GET", "/containers/json?filters=" + urllib.parse.quote('{"exited":["x"]}')),
        ("list before nothing", "GET", "/containers/json?filters=" + urllib.parse.quote('{"before":["nothere"]}')),
        ("prune by an unknown key", "POST", f"/containers/prune?filters={bad_filter}", ""),
        ("prune until no time", "POST", "/containers/prune?filters=" + urllib.parse.quote('{"until":["x"]}'), ""),
        # execs
        ("exec of nothing", "POST", "/containers/running/exec", {}),
        ("exec in nothing", "POST", "/containers/nothere/exec", {"Cmd": ["true"]}),
        ("exec in one that does not run", "POST", "/containers/there/exec", {"Cmd": ["true"]}),
        ("exec of malformed JSON", "POST", "/containers/running/exec", "{", JSON),
        ("start of an exec that is not there", "POST", "/exec/nothere/start", {}),
        ("inspect of an exec that is not there", "GET", "/exec/nothere/json"),
        ("resize of an exec that is not there", "POST", "/exec/nothere/resize?h=1&w=1", ""),
        # images
        ("inspect of no image", "GET", "/images/nothere/json"),
        ("inspect of an image that cannot be", "GET", "/images/BAD%20NAME/json"),
        ("history of no image", "GET", "/images/nothere/history"),
        ("remove of no image", "DELETE", "/images/nothere"),
        ("remove of an image in use", "DELETE", f"/images/{IMAGE}"),
        ("tag of no image", "POST", "/images/nothere/tag?repo=x", ""),
        ("tag with a bad name", "POST", f"/images/{IMAGE}/tag?repo=BAD%20NAME", ""),
        ("tag with a bad tag", "POST", f"/images/{IMAGE}/tag?repo=x&tag=bad%20tag", ""),
        ("tag without a name", "POST", f"/images/{IMAGE}/tag", ""),
        ("pull of a bad name", "POST", "/images/create?fromImage=a%20b", ""),
        ("pull of a bad tag", "POST", "/images/create?fromImage=a&tag=b%20c", ""),
        ("pull of an unknown tag", "POST", "/images/create?fromImage=" + REPOSITORY + "&tag=nothere", ""),
        ("pull for a bad platform", "POST", f"/images/create?fromImage={REPOSITORY}&tag={TAG}&platform=a/b/c/d", ""),
        ("push of no image", "POST", f"/images/{REPOSITORY}/push?tag=nothere", "", {"X-Registry-Auth": "e30="}),
        ("images by an unknown key", "GET", f"/images/json?filters={bad_filter}"),
        ("images that dangle perhaps", "GET", "/images/json?filters=" + urllib.parse.quote('{"dangling":["perhaps"]}')),
        ("images before nothing", "GET", "/images/json?filters=" + urllib.parse.quote('{"before":["nothere"]}')),
        ("image prune until no time", "POST", "/images/prune?filters=" + urllib.parse.quote('{"until":["x"]}'), ""),
        ("save of nothing", "GET", "/images/nothere/get"),
        # networks, volumes, the rest
        ("a network that is not there", "GET", "/networks/nothere"),
        ("networks by an unknown key", "GET", f"/networks?filters={bad_filter}"),
        ("remove of a network that is not there", "DELETE", "/networks/nothere"),
        ("remove of a network of the engine's", "DELETE", "/networks/none"),
        ("a volume that is not there", "GET", "/volumes/nothere"),
        ("volumes by an unknown key", "GET", f"/volumes?filters={bad_filter}"),
        ("remove of a volume that is not there", "DELETE", "/volumes/nothere"),
        ("events since no time", "GET", "/events?since=yesterday&until=1"),
        ("events until before since", "GET", "/events?since=20&until=10"),
        ("disk usage of an unknown type", "GET", "/system/df?type=colour"),
        ("images with an identity and no manifests", "GET", "/images/json?identity=1"),
        ("an image's manifests and one platform", "GET", f"/images/{IMAGE}/json?manifests=1&platform=" + platform),
        ("an image's other platform", "GET", f"/images/{IMAGE}/json?platform=" + platform),
        ("events of a filter that is no JSON", "GET", "/events?until=1&filters=x"),
        ("swarm", "GET", "/swarm"),
        ("nodes", "GET", "/nodes"),
        ("services", "GET", "/services"),
        ("one service", "GET", "/services/x"),
        ("tasks", "GET", "/tasks"),
        ("secrets", "GET", "/secrets"),
        ("configs", "GET", "/configs"),
        ("leaving the swarm", "POST", "/swarm/leave", ""),
        ("the swarm's key", "GET", "/swarm/unlockkey"),
        ("a plugin that is not there", "GET", "/plugins/nothere/json"),
        ("enabling a plugin that is not there", "POST", "/plugins/nothere/enable?timeout=0", ""),
        ("removing a plugin that is not there", "DELETE", "/plugins/nothere"),
    ]
    for name, *request in table:
        code, _, text = ask(*request)
        refused(name, code, text, running)
    # What one of the two does not refuse ends the container.
    code, _, text = ask("POST", "/containers/running/stop?signal=NOPE", "")
    refused("stop with a bad signal", code, text, running)
    for version in ("1.99", "1.10", "1.23", "2.0", "0.1", "1", "1.x", "1.41.1"):
        code, _, text = ask("GET", "/containers/json", version=version)
        refused(f"version {version}", code, text, running)
    for name in ("there", "running", "over"):
        ask("DELETE", f"/containers/{name}?force=1")
    clean()
    ask("DELETE", f"/images/{IMAGE}?force=1")


def refused(name, code, text, running):
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text if code >= 400 else "(not refused)"
    message = alike(message).replace(running, "ID")
    message = re.sub(r"to \d+\.00, as there are only \d+ CPUs", "to N, as there are only N CPUs", message)
    message = re.sub(r"available: [-,\d]+$", "available: N", message)
    print(f"## {VERSION} {name}\ncode {code}\nsays {message}")
    sys.stdout.flush()


{"shapes": shapes, "refusals": refusals}[WHAT]()
