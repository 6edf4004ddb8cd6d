#!/usr/bin/env python3
"""Builds the Dockerfiles of tests/corpus and writes down what they made.

    tests/clients/builds.py docker HOST BASE SCRATCH DOCKER      # a dockerd, with its client
    tests/clients/builds.py longshore ROOT BASE SCRATCH CLIENT   # ours, in the client's own process

For each case: the image's config, its history without times, and what its files are, as far as they differ from those of the
base image: type, mode, owner, and content or target; files that are one another's hard links name the first. Times are left out:
ours are always the same. `LONGSHORE_CORPUS=copy/glob` takes the cases whose name has that in it.

A case is `==== NAME`, lines `#! options: …` (for the build), `#! dockerignore: …` (a pattern per word) and `#! fails`, and a
Dockerfile. @BASE@ is the base image, @CONTEXT@ the context, @URL@ where its files are served, @SHA@ the digest of a.txt there.
"""

import bz2, gzip, hashlib, http.server, io, json, lzma, os, re, shutil, subprocess, sys, tarfile, tempfile, threading
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
CORPUS = os.path.join(HERE, "..", "corpus")
PATIENCE = 120
# The same for both: it is in the history. The network namespace is ours alone.
PORT = 8099


def entry(name, content=None, kind=tarfile.REGTYPE, mode=0o644, owner=(0, 0), target=""):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.uid, info.gid, info.linkname = kind, mode, *owner, target
    info.mtime = 1600000000
    info.size = len(content or b"")
    return info, io.BytesIO(content or b"")


def tar(*entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in entries:
            archive.addfile(info, content)
    return out.getvalue()


def plain_tar():
    return tar(
        entry("file", b"of the archive\n"),
        entry("sub", kind=tarfile.DIRTYPE, mode=0o755),
        entry("sub/inner", b"inner\n", mode=0o600),
        entry("sub/link", kind=tarfile.SYMTYPE, target="inner"),
    )


def archives():
    plain = plain_tar()
    directory, hard, soft = tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE
    zst = subprocess.run(["zstd", "-q", "-c"], input=plain, stdout=subprocess.PIPE, check=True).stdout
    return {
        "plain.tar": plain,
        "t.tar.gz": gzip.compress(plain, mtime=0),
        "t.tar.bz2": bz2.compress(plain),
        "t.tar.xz": lzma.compress(plain),
        "t.tar.zst": zst,
        "archive.dat": plain,
        "text.tar": b"no archive at all\n",
        "text.gz": gzip.compress(b"only text\n", mtime=0),
        "cut.tar.gz": gzip.compress(plain * 50, mtime=0)[:-40],
        "above.tar": tar(entry("../above", b"x"), entry("a/../../b", b"y")),
        "links.tar": tar(
            entry("one", b"one\n"),
            entry("two", kind=hard, target="one"),
            entry("soft", kind=soft, target="one"),
            entry("absolute", kind=soft, target="/etc/passwd"),
            entry("broken", kind=soft, target="no/where"),
        ),
        "owners.tar": tar(
            entry("d", kind=directory, mode=0o750, owner=(5, 6)), entry("d/f", b"f", mode=0o640, owner=(7, 8))
        ),
        "modes.tar": tar(
            entry("suid", b"s", mode=0o4755), entry("sticky", kind=directory, mode=0o1777), entry("none", b"n", mode=0)
        ),
    }


def make_context(place):
    def write(name, content=b"", mode=0o644):
        path = os.path.join(place, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, mode)

    for name in ("a.txt", "b.txt", "c.md", "with space.txt", "dir/one", "dir/two", "dir/.hidden", "dir/deep/three",
                 "dir/sub/three", "special/[x].txt", "special/-dash", "special/ünï.txt", "special/a*b", "special/$x",
                 "special/quote'd", "special/UPPER"):
        write(name, f"this is {name}\n".encode())
    write("zero")
    write("big/large", b"0123456789abcdef" * 100_000)
    write("/".join(["deep"] + [str(n) for n in range(30)] + ["bottom"]), b"bottom\n")
    for name, mode in (("plain", 0o644), ("private", 0o600), ("run", 0o755), ("suid", 0o4755), ("nobody", 0o000),
                       ("everybody", 0o666)):
        write("modes/" + name, name.encode(), mode)
    for name, mode in (("sticky", 0o1777), ("setgid", 0o2755), ("closed", 0o700)):
        os.mkdir(os.path.join(place, "modes", name))
        os.chmod(os.path.join(place, "modes", name), mode)
    os.mkdir(os.path.join(place, "empty"))
    os.mkdir(os.path.join(place, "links"))
    for name, target in (("to-file", "../a.txt"), ("to-dir", "../dir"), ("broken", "nothing"), ("absolute", "/a.txt"),
                         ("above", "../../../../../etc/hostname")):
        os.symlink(target, os.path.join(place, "links", name))
    write("hard/one", b"linked\n")
    os.link(os.path.join(place, "hard/one"), os.path.join(place, "hard/two"))
    for name, content in archives().items():
        write("tars/" + name, content)


def cases():
    wanted = os.environ.get("LONGSHORE_CORPUS", "")
    for topic in sorted(os.listdir(CORPUS)):
        if not topic.endswith(".txt"):
            continue
        text = open(os.path.join(CORPUS, topic), encoding="utf-8").read()
        for part in text.split("==== ")[1:]:
            name, body = part.split("\n", 1)
            name = f"{topic[:-4]}/{name}"
            if wanted in name:
                yield name, *settings(body)


def settings(body):
    found = {}
    while match := re.match(r"#! (\w+)(?:: (.*))?\n", body):
        found[match[1]] = match[2] or ""
        body = body[match.end():]
    return found, body


class Layers:
    """Files of an image: its layers, one upon the other."""

    def __init__(self):
        self.files = {}

    def apply(self, archive):
        fresh = set()
        for info in archive:
            path = os.path.normpath("/" + info.name)
            directory, name = os.path.split(path)
            if name == ".wh..wh..opq":
                self.remove(directory, but=fresh, itself=False)
            elif name.startswith(".wh."):
                self.remove(os.path.join(directory, name[4:]))
            else:
                if not info.isdir():
                    self.remove(path, but=fresh)
                self.files[path] = self.node(archive, info)
                fresh.add(path)

    def remove(self, path, but=(), itself=True):
        below = path.rstrip("/") + "/"
        for known in [known for known in self.files if known.startswith(below) or (itself and known == path)]:
            if known not in but:
                del self.files[known]

    def node(self, archive, info):
        if info.islnk():
            return self.files.get(os.path.normpath("/" + info.linkname), ("?", info.linkname))
        kind = {tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.FIFOTYPE: "p", tarfile.CHRTYPE: "c"}.get(info.type, "f")
        what = info.linkname
        if kind == "f":
            content = archive.extractfile(info).read()
            what = hashlib.sha256(content).hexdigest()[:16]
            if len(content) <= 200 and content.isascii():
                what = repr(content.decode())
        # A list, not a tuple: links to one file are one object.
        return [kind, f"{info.mode:o}", f"{info.uid}:{info.gid}", what]


def read_image(path):
    with tarfile.open(path) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))[0]
        config = json.load(archive.extractfile(manifest["Config"]))
        layers = Layers()
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=archive.extractfile(name)) as layer:
                layers.apply(layer)
        return config, layers.files


def show(config, files, base):
    for key in ("architecture", "os", "variant", "author"):
        if key in config:
            yield f"{key} {config[key]}"
    for key, value in sorted(config.get("config", {}).items()):
        if key == "Healthcheck":
            value = {field: held for field, held in value.items() if held}
        # What is nothing may be there or not.
        if value not in (None, "", [], {}, False):
            yield f"config {key} {json.dumps(value, sort_keys=True, ensure_ascii=False)}"
    for step in config.get("history", []):
        empty = " (empty)" if step.get("empty_layer") else ""
        yield f"history {json.dumps(step.get('created_by', ''), ensure_ascii=False)} {step.get('comment', '')}{empty}"
    names = {}
    for path in sorted(files):
        names.setdefault(id(files[path]), path)
    for path in sorted(files):
        node = list(files[path])
        first = names[id(files[path])]
        if base.get(path) is not None and list(base[path]) == node and first == path:
            continue
        yield " ".join(["file", path, *node] + ([f"= {first}"] if first != path else []))
    for path in sorted(set(base) - set(files)):
        if base:
            yield f"gone {path}"


class Docker:
    def __init__(self, host, _root, client, scratch):
        self.words = [client, "--host", host]
        self.environment = {**os.environ, "DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}

    def build(self, number, options, dockerfile, context, archive):
        name = f"corpus:{number}"
        run([*self.words, "build", "-q", "-t", name, "-f", dockerfile, "--network=none", *options, context], self.environment)
        run([*self.words, "save", "-o", archive, name], self.environment)

    def base(self, base, archive):
        run([*self.words, "pull", "-q", base], self.environment)
        run([*self.words, "save", "-o", archive, base], self.environment)


class Longshore:
    def __init__(self, root, _host, client, scratch):
        self.words = [client, "--root", root]
        self.scratch = scratch

    def build(self, number, options, dockerfile, context, archive):
        output = f"type=docker,dest={archive}"
        run([*self.words, "build", "-q", "-o", output, "-f", dockerfile, "--network=none", *options, context])

    def base(self, base, archive):
        run([*self.words, "pull", base])
        run([*self.words, "save", "-o", archive, base])


def run(words, environment=None):
    done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, timeout=PATIENCE)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().split("\n")[-1] or f"code {done.returncode}"
        raise RuntimeError(re.sub(r"\S*/buildkit-mount\d+|\S+::\w+", "PLACE", said))


def one(builder, number, case, places, base_files):
    name, settings, text = case
    directory = os.path.join(places["scratch"], str(number))
    os.mkdir(directory)
    for mark, value in places["marks"].items():
        text = text.replace(mark, value)
        settings = {key: found.replace(mark, value) for key, found in settings.items()}
    if text.startswith("@CRLF@"):
        text = text[6:].replace("\n", "\r\n")
    if text.startswith("@CHOMP@"):
        text = text[7:].rstrip("\n")
    text = text.replace("@BOM@", "\ufeff")
    dockerfile = os.path.join(directory, "Dockerfile")
    with open(dockerfile, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    if "dockerignore" in settings:
        with open(dockerfile + ".dockerignore", "w", encoding="utf-8") as file:
            file.write(settings["dockerignore"].replace(" ", "\n") + "\n")
    archive = os.path.join(directory, "image.tar")
    try:
        builder.build(number, settings.get("options", "").split(), dockerfile, places["context"], archive)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return [f"## {name}", "fails" if "fails" in settings else f"FAILS: {error}"]
    lines = list(show(*read_image(archive), base_files))
    shutil.rmtree(directory)
    return [f"## {name}", *(["does not fail"] if "fails" in settings else []), *lines]


def serve(directory):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=directory)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main():
    kind, where, base, scratch, client = sys.argv[1:6]
    os.umask(0o022)
    scratch = tempfile.mkdtemp(dir=scratch)
    # The name of the context is in no image, but the same all the same.
    context = os.path.join(scratch, "context")
    os.mkdir(context)
    make_context(context)
    serve(context)
    builder = {"docker": Docker, "longshore": Longshore}[kind](where, where, client, scratch)
    archive = os.path.join(scratch, "base.tar")
    builder.base(base, archive)
    digest = hashlib.sha256(open(os.path.join(context, "a.txt"), "rb").read()).hexdigest()
    marks = {"@BASE@": base, "@CONTEXT@": context, "@URL@": f"http://127.0.0.1:{PORT}", "@SHA@": f"sha256:{digest}"}
    places = {"scratch": scratch, "context": context, "marks": marks}
    base_files = read_image(archive)[1]
    all_cases = list(cases())

    def build(numbered):
        number, case = numbered
        stands_on_base = "@BASE@" in case[2] and not case[2].rstrip().rpartition("FROM ")[2].startswith("scratch")
        return one(builder, number, case, places, base_files if stands_on_base else {})

    with ThreadPoolExecutor(2) as pool:
        for lines in pool.map(build, enumerate(all_cases)):
            print("\n".join(lines), flush=True)


main()
