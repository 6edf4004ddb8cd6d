#!/bin/bash
# What the docker CLI lets its user see: one step after the other, each with its exit code and its output, ids and times
# made alike, so that the transcripts of two servers can be compared.
#
#   tests/clients/cli.sh DOCKER HOST IMAGE SCRATCH OTHER
#
# DOCKER is the client's program, HOST the server (unix:///…), IMAGE the name of a busybox image in a registry that the
# server can pull from and push to, SCRATCH a directory of the caller's, OTHER another server that takes images over.
set -u
DOCKER=$1 HOST=$2 IMAGE=$3 SCRATCH=$4 OTHER=$5
REPOSITORY=${IMAGE%:*}
export DOCKER_CONFIG=$SCRATCH/config DOCKER_CLI_HINTS=false
mkdir -p "$DOCKER_CONFIG"

d() { timeout --foreground ${STEP_LIMIT:-60} "$DOCKER" --host "$HOST" "$@"; }

# What differs from run to run and from server to server, and means nothing. Debian's client gives up its wait or hears of the
# failed start first, whichever of its two connections is faster.
alike() {
    sed -E \
        -e 's/\b[0-9a-f]{64}\b/ID/g' -e 's/\b[0-9a-f]{12}\b/SHORT/g' \
        -e "s#$REPOSITORY#REPO#g" -e "s#$SCRATCH#SCRATCH#g" \
        -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9:]+)/TIME/g' \
        -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8} [+-][0-9]{4} [A-Z]+/TIME/g' \
        -e 's/(Less than a|About an?|[0-9]+) (second|minute|hour|day|week|month|year)s?( ago)?/AGE\3/g' \
        -e 's/\b[0-9.]+ ?[kKMGT]i?B\b/SIZE/g' -e 's/\b0B\b/SIZE/g' \
        -e 's/\r/<CR>/g' -e 's/[ \t]+$//' \
        -e '/level=error msg="error waiting for container: context canceled"$/d' | awk 1
}

# step NAME COMMAND…: runs it and writes down what came of it.
step() {
    local name=$1 code=0
    shift
    "$@" >"$SCRATCH/out" 2>"$SCRATCH/err" </dev/null || code=$?
    printf '## %s\nexit %s\n' "$name" "$code"
    alike <"$SCRATCH/out" | sed 's/^/out: /'
    alike <"$SCRATCH/err" | sed 's/^/err: /'
}

# A step whose lines come in no particular order. Of a pipe, `head` would read more than its lines, now and then.
unordered() {
    local lines
    lines=$(step "$@")
    head -n 2 <<<"$lines"
    tail -n +3 <<<"$lines" | sort
}

sh_() { bash -c "$1" sh "$DOCKER" "$HOST" "$IMAGE" "$SCRATCH"; }
DD='d() { timeout --foreground ${STEP_LIMIT:-60} "$1" --host "$2" "${@:3}"; }; docker() { d "'$DOCKER'" "'$HOST'" "$@"; };'

b() { d run --rm --network none "$@"; }

### the server itself
step version d version --format '{{.Server.Os}} {{.Server.Arch}}'
step "version, whole" sh_ "$DD docker version >/dev/null"
step info d info --format '{{.OSType}} {{.ID | len | lt 0}} {{.Swarm.LocalNodeState}}'
step "info, whole" sh_ "$DD docker info 2>/dev/null | grep -c '^ Containers:\|^ Images:\|^ Server Version:'"

### images
step "pull of an unknown tag" d pull "$REPOSITORY:nothere"
step "pull, quietly" d pull -q "$IMAGE"
step "pull again" sh_ "$DD docker pull $IMAGE | tail -n 2"
step "pull of a bad name" d pull 'UPPER/case'
step images d images --format '{{.Repository}}:{{.Tag}} {{.ID}}'
step "images, quiet" d images -q --no-trunc
step "images by reference" d images --filter "reference=*/busy*" --format '{{.Repository}}'
step "images by unknown filter" d images --filter colour=red
step "image inspect" d image inspect --format '{{.Os}} {{.Architecture}} {{json .Config.Cmd}} {{json .RepoTags}} {{.RootFS.Type}} {{len .RootFS.Layers}}' "$IMAGE"
step "inspect of no image" d image inspect nothere
step tag d tag "$IMAGE" "$REPOSITORY:second"
step "tag with a bad name" d tag "$IMAGE" 'Bad Name'
step "tag of no image" d tag nothere else
step history d history --format '{{.CreatedBy}}' "$IMAGE"
step "remove a tag" d rmi "$REPOSITORY:second"
step "remove no image" d rmi nothere

### run
step "run" b "$IMAGE" echo hello
step "both streams" b "$IMAGE" sh -c 'echo out; echo err >&2'
step "exit code" b "$IMAGE" sh -c 'exit 42'
step "signal" b "$IMAGE" sh -c 'kill -9 $$'
step "no such command" b "$IMAGE" /no/such/thing
step "no such command in the path" b "$IMAGE" nosuchthing
step "not executable" b "$IMAGE" /etc
step "no such image" d run --rm --pull never nothere true
step "bad option" b --no-such-option "$IMAGE" true
step "bad memory" b --memory 1k "$IMAGE" true
step "bad name" b --name '?' "$IMAGE" true
step "unknown user" b --user nobodyhere "$IMAGE" true
step "environment" b -e A=1 -e B "$IMAGE" sh -c 'echo $A:$B:$HOME:$PATH'
step "directory" b -w /tmp "$IMAGE" pwd
step "user" b -u 1000:1001 "$IMAGE" sh -c 'id -u; id -g'
step "entrypoint" b --entrypoint echo "$IMAGE" a b
step "host name" b --hostname box "$IMAGE" hostname
step "stdin" sh_ "$DD printf 'a line' | docker run --rm -i --network none $IMAGE cat"
step "10 MiB through stdin" sh_ "$DD head -c 10485760 /dev/zero | tr '\\0' 'x' | docker run --rm -i --network none $IMAGE cat | md5sum"
step "10 MiB out, a slow reader" sh_ "$DD docker run --rm --network none $IMAGE sh -c 'head -c 10485760 /dev/zero' | { sleep 1; wc -c; }"
step "stdin closed before the end" sh_ "$DD printf x | docker run --rm -i --network none $IMAGE sh -c 'cat; sleep 0.3; echo after'"
step "terminal" sh_ "$DD script -qec \"$DOCKER --host $HOST run --rm -t --network none $IMAGE sh -c 'tty; echo done'\" /dev/null </dev/null"
step "terminal with input" sh_ "$DD (sleep 1; printf 'echo in\$((1+1))\\n'; sleep 0.5; printf 'exit 3\\n') | script -qec \"$DOCKER --host $HOST run --rm -it --network none $IMAGE sh\" /dev/null | grep -c in2"
step "read-only" b --read-only "$IMAGE" touch /x
step "tmpfs" b --tmpfs /scratch "$IMAGE" sh -c 'mount | grep -c " /scratch type tmpfs"'
step "capabilities" b --cap-drop ALL "$IMAGE" sh -c 'grep CapEff /proc/self/status'
step "ulimit" b --ulimit nofile=64:64 "$IMAGE" sh -c 'ulimit -n'
step "init" b --init "$IMAGE" sh -c 'echo $$ | grep -vc "^1$"'
step "memory limit" b -m 64m "$IMAGE" true
step "bind" sh_ "$DD mkdir -p $SCRATCH/bound; echo inside > $SCRATCH/bound/file; docker run --rm --network none -v $SCRATCH/bound:/data:ro $IMAGE cat /data/file"
step "sigint goes through" sh_ "$DD timeout -s INT 2 $DOCKER --host $HOST run --rm --network none $IMAGE sh -c 'trap \"echo caught; exit 7\" INT; while :; do sleep 0.1; done'; echo \$?"

### a container in the background
step "run -d" d run -d --name web --network none --label color=red -e KEY=value "$IMAGE" sh -c 'echo started; trap "echo bye; exit 5" TERM; while :; do sleep 0.1; done'
step "name in use" d run -d --name web --network none "$IMAGE" true
sleep 0.5
step ps d ps --format '{{.Names}} {{.Image}} {{.Command}} {{.Status}} {{.State}}'
step "ps by label" d ps -q --filter label=color=red --filter status=running
step "ps by another label" d ps -q --filter label=color=blue
step "ps by unknown filter" d ps --filter colour=red
step "inspect" d inspect --format '{{.State.Status}} {{.State.Running}} {{.Name}} {{.Config.Image}} {{.HostConfig.NetworkMode}} {{json .Config.Env}} {{.RestartCount}}' web
step "inspect of nothing" d inspect nothere
step "logs" d logs web
step "logs, last none" d logs --tail 0 web
step "logs with times" sh_ "$DD docker logs -t web | cut -c1-4,31-"
step "logs of nothing" d logs nothere
step "logs with details" sh_ "$DD id=\$(docker run -d --network none --log-driver json-file --log-opt labels=tier,nothere --log-opt env=COLOUR --label tier='<a b>' -e COLOUR=x=1 $IMAGE sh -c 'echo one; echo two'); docker wait \$id; docker logs --details \$id; docker logs -t --details --tail 1 \$id | cut -c1-4,31-; docker rm \$id >/dev/null"
step "logs with no details" sh_ "$DD docker logs --details --tail 1 web | sed 's/^/|/'"
step "exec" d exec web echo inside
step "exec with input" sh_ "$DD printf abc | docker exec -i web cat"
step "exec, 10 MiB" sh_ "$DD head -c 10485760 /dev/zero | docker exec -i web cat | wc -c"
step "exec's exit code" d exec web sh -c 'exit 9'
step "exec of no command" d exec web nosuchthing
step "exec's user, directory, environment" d exec -u 12 -w /tmp -e X=y web sh -c 'id -u; pwd; echo $X $KEY'
step "exec in a terminal" sh_ "$DD script -qec \"$DOCKER --host $HOST exec -t web tty\" /dev/null </dev/null"
step "exec -d" d exec -d web sh -c 'echo side > /tmp/side'
sleep 0.5
step "what exec -d did" d exec web cat /tmp/side
step "exec in nothing" d exec nothere true
# The first line alone: which of its processes comes next depends on their pids, which wrap.
step "top" sh_ "$DD docker top web -o comm | head -n 1"
step "pause" d pause web
step "ps, paused" d ps --format '{{.Names}} {{.State}}'
step "exec while paused" d exec web true
step "unpause" d unpause web
step "unpause again" d unpause web
step "rename" d rename web site
step "port" d port site
step "stats" d stats --no-stream --format '{{.Name}}' site
step "restart" d restart -t 5 site
sleep 0.3
step "logs of both runs" d logs site
step "rm of a running container" d rm site
step "update" d update --memory 128m --memory-swap 128m site
step "stop" d stop -t 5 site
step "stop again" d stop site
step "wait" d wait site
step "inspect, stopped" d inspect --format '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}' site
step "exec in a stopped container" d exec site true
step "kill of a stopped container" d kill site
step "start" d start site
step "kill with a signal" d kill -s TERM site
step "wait for the kill" d wait site
step "start again" d start site
step "kill" d kill site
step "ps -a" d ps -a --format '{{.Names}} {{.State}}' --filter name=site
step "exited filter" d ps -aq --filter exited=137
step "rm" d rm site
step "rm again" d rm site
step "rm -f of nothing" d rm -f site

step "create" d create --name made --network none -i "$IMAGE" cat
step "start -ai" sh_ "$DD printf 'through' | docker start -ai made"
step "start -a again" sh_ "$DD printf 'more' | docker start -ai made"
step "logs of it" d logs made
step "rm made" d rm made
step "wait for removal" sh_ "$DD id=\$(docker run -d --rm --network none $IMAGE sh -c 'sleep 1; exit 4'); docker wait \$id; sleep 0.5; docker inspect \$id >/dev/null 2>&1 || echo gone"
step "logs -f" sh_ "$DD id=\$(docker run -d --network none $IMAGE sh -c 'for i in 1 2 3; do echo \$i; sleep 0.2; done'); docker logs -f \$id; docker rm \$id >/dev/null"
step "attach" sh_ "$DD id=\$(docker run -d --network none $IMAGE sh -c 'sleep 1; echo late; exit 6'); docker attach \$id; echo \$?; docker rm \$id >/dev/null"
step "many at once" sh_ "$DD for i in 1 2 3 4 5 6 7 8; do docker run --rm --network none $IMAGE echo \$i & done | sort; wait"
step "container prune" sh_ "$DD docker run --network none --name old $IMAGE true; docker container prune -f --filter label=none; docker container prune -f | grep -c 'Deleted\\|Total'; docker ps -aq"

### what a container changed
d run --network none --name changed -e KEY=value -w /tmp "$IMAGE" sh -c 'echo new > /etc/new; echo changed >> /etc/passwd; rm /etc/group
    rm -r /root; mkdir -p /d/e/f; echo deep > /d/e/f/g; ln -s new /etc/link; mkfifo /d/fifo; chmod 700 /tmp; ln /etc/new /d/second
    chown 12:34 /d/e; chmod 4711 /d/e; echo head > /sparse; truncate -s 5M /sparse; echo tail >> /sparse' >/dev/null 2>&1
unordered "diff" d diff changed
step "diff of nothing" d diff nothere
step "diff of what was only created" sh_ "$DD id=\$(docker create --network none $IMAGE); docker diff \$id; docker rm \$id >/dev/null"
step "export" sh_ "$DD docker export changed | tar -tv --numeric-owner | sed -E 's/ +/ /g' | cut -d' ' -f1,2,6- | grep -E ' (d/|etc/(new|link|group|passwd)|root|tmp)' | grep -v ' etc/passwd-' | sort -k3"
step "export into a file" sh_ "$DD docker export -o $SCRATCH/exported.tar changed && tar -xOf $SCRATCH/exported.tar d/e/f/g && tar -xOf $SCRATCH/exported.tar sparse | md5sum"
step "export of nothing" d export -o "$SCRATCH/none.tar" nothere
step "commit" d commit -a 'Ann <ann@example.org>' -m 'a remark' -c 'ENV MORE=1' -c 'CMD ["cat","/d/e/f/g"]' changed changed:1
step "the committed image" d inspect --format '{{.Author}}|{{.Comment}}|{{json .Config.Cmd}}|{{json .Config.Env}}|{{.Config.WorkingDir}}|{{json .Config.Entrypoint}}|{{len .RootFS.Layers}}' changed:1
step "history of the committed image" d history --no-trunc --format '{{.CreatedBy}}|{{.Comment}}' changed:1
step "the committed image runs" b changed:1
step "what is in it" b changed:1 sh -c 'ls -ldn /d/e /d/fifo /etc/link | cut -c1-10; stat -c "%a %u %g %h %n" /d/e /d/second /etc/new; ls /etc/group /root; tail -n 1 /etc/passwd; md5sum /sparse'
step "import of the export" sh_ "$DD docker import -c 'CMD [\"cat\",\"/etc/new\"]' $SCRATCH/exported.tar flat:1 >/dev/null && docker run --rm --network none flat:1"
step "the other engine runs it" sh_ "$DD docker save -o $SCRATCH/committed.tar changed:1 && $DOCKER --host $OTHER load -q -i $SCRATCH/committed.tar && $DOCKER --host $OTHER run --rm --network none changed:1; $DOCKER --host $OTHER run --rm --network none changed:1 md5sum /sparse; $DOCKER --host $OTHER rmi changed:1 >/dev/null"
step "commit of nothing" d commit nothere
step "commit with a change that is none" d commit -c 'RUN make' changed
step "commit with a name that is none" d commit changed UPPER:case
step "commit of a container that runs" sh_ "$DD id=\$(docker run -d --network none $IMAGE sh -c 'echo x > /x; sleep 60'); sleep 0.5; docker commit \$id running:1; docker inspect --format '{{.State.Status}}' \$id; docker run --rm --network none running:1 cat /x; docker rm -f \$id >/dev/null; docker rmi running:1 >/dev/null"
step "commit without a name" sh_ "$DD id=\$(docker commit changed); docker inspect --format '{{json .RepoTags}}' \$id; docker rmi \$id | grep -c Deleted"
step "events of it" sh_ "$DD since=\$(date +%s.%N); docker export -o $SCRATCH/again.tar changed; docker commit -m said changed changed:2 >/dev/null; sleep 1; docker events --since \$since --until \$(date +%s.%N) --filter type=container --filter container=changed --format '{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.comment}} {{.Actor.Attributes.imageRef}}'"
step "rm of it" sh_ "$DD docker rm changed && docker rmi changed:1 changed:2 flat:1 >/dev/null"

### events
step "events" sh_ "$DD since=\$(date +%s.%N); docker run --rm --network none --name ev $IMAGE true; sleep 1; docker events --since \$since --until \$(date +%s.%N) --filter type=container --format '{{.Action}} {{.Actor.Attributes.name}}'"
step "event of an exit" sh_ "$DD since=\$(date +%s.%N); docker run --rm --network none $IMAGE sh -c 'exit 3'; sleep 1; docker events --since \$since --until \$(date +%s.%N) --filter event=die --format '{{.Actor.Attributes.exitCode}}'"

### between stores
step "push" sh_ "$DD docker tag $IMAGE $REPOSITORY:pushed; docker push $REPOSITORY:pushed | tail -n 1 | sed 's/size: [0-9]*/size: N/'"
step "push again" sh_ "$DD docker push -q $REPOSITORY:pushed"
step "push of nothing" d push "$REPOSITORY:never"
step "save and load" sh_ "$DD docker save -o $SCRATCH/saved.tar $IMAGE && docker rmi $IMAGE $REPOSITORY:pushed >/dev/null && docker load -i $SCRATCH/saved.tar"
step "save in a pipe" sh_ "$DD docker save $IMAGE | tar -t | grep -c '^manifest.json\$'"
step "the loaded image runs" b --pull never "$IMAGE" echo loaded
step "load of rubbish" sh_ "$DD printf rubbish | docker load"
step "save of nothing" d save -o "$SCRATCH/none.tar" nothere
step "import" sh_ "$DD mkdir -p $SCRATCH/tree/bin && cp /bin/busybox $SCRATCH/tree/bin/sh && tar -C $SCRATCH/tree -c . | docker import -c 'CMD [\"/bin/sh\",\"-c\",\"echo imported\"]' - imported:1 && docker run --rm --network none imported:1"
step "image in use" sh_ "$DD docker create --name user --network none imported:1 >/dev/null; docker rmi imported:1; docker rm user >/dev/null"
step "rmi" d rmi imported:1
step "image prune" d image prune -f

### the rest
step "network ls" d network ls --filter name=none --filter name=host --format '{{.Name}} {{.Driver}} {{.Scope}}'

### networks
step "network create" d network create --label a=b net1
step "network create again" d network create net1
step "network of a bad name" sh_ "$DD docker network create 'a b' || exit 1; docker network rm 'a b'"
step "network of the engine's name" d network create bridge
step "network with a subnet" d network create --subnet 10.213.60.0/24 --gateway 10.213.60.254 --ip-range 10.213.60.128/25 --internal net2
step "an overlapping subnet" d network create --subnet 10.213.60.0/25 net3
step "a subnet that is none" d network create --subnet 10.213.60 net3
step "an unknown driver" d network create -d nodriver net3
step "network ls by label" d network ls --filter label=a=b --format '{{.Name}} {{.Driver}} {{.Internal}} {{.Labels}}'
step "network ls by kind" sh_ "$DD docker network ls --filter type=custom --filter driver=bridge --format '{{.Name}}' | sort"
step "network ls, dangling" sh_ "$DD docker network ls --filter dangling=true --format '{{.Name}}' | sort"
step "network ls by unknown filter" d network ls --filter colour=red
step "network inspect" d network inspect --format '{{.Name}} {{.Driver}} {{.Internal}} {{.EnableIPv6}} {{json .IPAM.Config}} {{json .Options}} {{json .Labels}}' net2
step "network inspect of nothing" d network inspect nothere
step "on a network" d run -d --name on1 --network net1 --network-alias one "$IMAGE" sh -c 'sleep 60 & trap "exit 3" TERM; wait'
step "reached by name" d run --rm --network net1 "$IMAGE" sh -c 'for name in on1 one; do ping -c 1 -w 5 $name >/dev/null && echo $name; done'
step "reached by a link" d run --rm --network net1 --link on1:store "$IMAGE" sh -c 'ping -c 1 -w 5 store >/dev/null && echo reached'
step "not reached from another" d run --rm --network net2 "$IMAGE" sh -c 'timeout 2 nslookup on1 >/dev/null 2>&1 && echo found || echo none'
step "on nothing" d run --rm --network nothere "$IMAGE" true
step "an address on a network without" sh_ "$DD docker run --rm --network net1 --ip 10.213.60.9 $IMAGE true 2>&1 | sed '/^See/d; s#has [0-9./]*#has SUBNET#' >&2; exit \${PIPESTATUS[0]}"
step "an address that is another's" sh_ "$DD docker run --rm --network net2 --ip 10.9.9.9 $IMAGE true 2>&1 | grep '^docker:'"
step "network connect" d network connect --ip 10.213.60.200 --alias two net2 on1
step "what it has then" d exec on1 sh -c 'ip -o -4 addr show eth1 | grep -o "inet [0-9./]*"; ip -o link | grep -c eth'
step "its places" d inspect --format '{{range $name, $place := .NetworkSettings.Networks}}{{$name}} {{$place.IPAMConfig}} {{json $place.Aliases}} {{len $place.MacAddress}}{{println}}{{end}}' on1
step "network connect again" d network connect net2 on1
step "network connect of nobody" d network connect net2 nobody
step "network connect to nothing" d network connect nothere on1
step "another on it" d run --rm --network net2 "$IMAGE" sh -c 'ping -c 1 -w 5 two >/dev/null && echo reached'
step "network rm in use" d network rm net2
step "network disconnect" d network disconnect net2 on1
step "network disconnect again" d network disconnect net2 on1
step "rename on a network" d rename on1 on2
step "reached by its new name" d run --rm --network net1 "$IMAGE" sh -c 'ping -c 1 -w 5 on2 >/dev/null && echo reached; timeout 2 nslookup on1 >/dev/null 2>&1 && echo found || echo none'
step "events of networks" sh_ "$DD since=\$(date +%s.%N); docker network connect net2 on2; docker network disconnect net2 on2; docker network create net4 >/dev/null; docker network rm net4 >/dev/null; sleep 1; docker events --since \$since --until \$(date +%s.%N) --filter type=network --format '{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}}'"
step "rm on a network" d rm -f on2
step "network rm" d network rm net2 nothere
step "network rm of the engine's" d network rm bridge
step "network prune" sh_ "$DD docker network prune -f --filter label=none; docker network prune -f"
step "a published port" d run -d --name pub --network bridge -p 127.0.0.1:18090:80 -p 127.0.0.1::81/udp "$IMAGE" sh -c 'sleep 60 & trap "exit 3" TERM; wait'
step "its ports" sh_ "$DD docker port pub | sed 's/\\(81.*:\\).*/\\1PORT/' | sort; docker port pub 80; docker ps --filter name=pub --format '{{.Ports}}' | grep -c '127.0.0.1:18090->80/tcp'"
step "a port that is taken" d run --rm --name late --network bridge -p 127.0.0.1:18090:80 "$IMAGE" true
step "a port that is none" d run --rm --network bridge -p 70000:80 "$IMAGE" true
step "rm of what is published" d rm -f pub
step "volume ls" d volume ls -q

### volumes and files
step "volume create" d volume create --label a=b --opt type=tmpfs --opt device=tmpfs --opt o=size=1m memory
step "volume create again" d volume create memory
step "volume inspect" d volume inspect --format '{{.Name}} {{.Driver}} {{.Scope}} {{json .Labels}} {{json .Options}}' memory
step "volume of a bad name" d volume create a/b
step "volume inspect of nothing" d volume inspect nothere
step "a volume begins with the image's files" b -v etc:/etc "$IMAGE" sh -c 'stat -c "%a %u %g" /etc && tail -n 1 /etc/group && echo mine > /etc/mine'
step "a volume keeps" b -v etc:/mnt "$IMAGE" cat /mnt/mine
step "nocopy" b -v empty:/etc:nocopy "$IMAGE" ls /etc/group
step "a read-only volume" b --mount type=volume,src=etc,dst=/mnt,readonly "$IMAGE" touch /mnt/x
step "a subpath" sh_ "$DD docker run --rm --network none -v tree:/t $IMAGE sh -c 'mkdir -p /t/a && echo deep > /t/a/file'; docker run --rm --network none -v tree:/t $IMAGE cat /t/a/file"
step "volume in use" sh_ "$DD id=\$(docker create --network none -v etc:/x $IMAGE); docker volume rm etc; docker inspect --format '{{json .HostConfig.Binds}} {{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}' \$id; docker volume ls -q --filter dangling=false; docker rm \$id >/dev/null"
step "volumes of another" sh_ "$DD docker create --name holder --network none -v tree:/t $IMAGE >/dev/null; docker run --rm --network none --volumes-from holder:ro $IMAGE sh -c 'cat /t/a/file; touch /t/x'; docker rm holder >/dev/null"
step "memory" b --tmpfs /m:size=1m,mode=700 "$IMAGE" stat -c %a /m
step "a bind" sh_ "$DD mkdir -p $SCRATCH/shown && echo shown > $SCRATCH/shown/file; docker run --rm --network none -v $SCRATCH/shown:/s:ro $IMAGE sh -c 'cat /s/file; touch /s/x'"
step "volume prune" sh_ "$DD docker volume rm etc empty tree memory; docker volume create >/dev/null; docker volume prune -f | grep -c 'Deleted\|Total'"
step "volume rm of nothing" d volume rm nothere
step "cp" sh_ "$DD id=\$(docker create --network none $IMAGE sh -c 'cat /tmp/in/file'); mkdir -p $SCRATCH/in && echo copied > $SCRATCH/in/file && ln -sf file $SCRATCH/in/link; docker cp $SCRATCH/in \$id:/tmp; docker start -a \$id; docker cp \$id:/tmp/in $SCRATCH/out-in && cat $SCRATCH/out-in/link; docker cp \$id:/etc/group - | tar -t; docker cp \$id:/nothere $SCRATCH; docker cp $SCRATCH/in/file \$id:/nodir/x; docker rm \$id >/dev/null"
step "cp of a running one" sh_ "$DD id=\$(docker run -d --network none --tmpfs /m $IMAGE sleep 60); docker cp $SCRATCH/in/file \$id:/m/file; docker exec \$id cat /m/file; docker cp \$id:/m/file - | tar -xO; docker rm -f \$id >/dev/null"
step "system prune" sh_ "$DD docker volume create >/dev/null; docker network create net9 >/dev/null; docker create --network none $IMAGE true >/dev/null; docker system prune -f --volumes | grep -c 'Deleted\|Total'; docker ps -aq; docker network ls -q --filter type=custom; docker volume ls -q; docker images -q | sort -u | wc -l"
step "system prune by label" sh_ "$DD docker create --network none --label keep=1 $IMAGE true >/dev/null; docker system prune -f --filter 'label!=keep' | grep -c 'Deleted\|Total'; docker ps -aq | wc -l; docker rm \$(docker ps -aq) >/dev/null"
step "system df" sh_ "$DD docker system df --format '{{.Type}}'"
step "swarm" d node ls
step "login to nowhere" d login -u a -p b 127.0.0.1:1
