# The parts of a test run: each adds to the counts and to the list that is printed at the end. To be sourced by ci/test.

# How long a part may take, in seconds.
PATIENCE=${LONGSHORE_CI_SECONDS:-900}
LANES=()

# begin NAME: what is counted next begins here.
begin() {
    say "$1"
    BEGUN=$SECONDS
}

# count NAME PASSED FAILED SKIPPED: a line in RESULTS. Lanes have files of their own until they are joined.
count() {
    printf '%d %d %d %s\n' "$2" "$3" "$4" \
        "$(printf '%-42s %5d passed %3d failed %3d skipped %5d s' "$1" "$2" "$3" "$4" $((SECONDS - BEGUN)))" >>"$RESULTS"
}

# Runs a command for as long as a part may take, then ends it with all that it started. Functions are short and run as they are.
bounded() (
    if [ "$(type -t "$1")" != file ]; then
        "$@"
        exit
    fi
    code=0
    timeout --kill-after 10 "$PATIENCE" "$@" </dev/null &
    trap 'kill "$!"' INT TERM
    wait "$!" || code=$?
    if [ "$code" = 124 ] || [ "$code" = 137 ]; then printf 'ended: it took more than %d seconds, or was killed\n' "$PATIENCE"; fi
    exit "$code"
)

# Runs a command that is one check: it passes or it fails.
check() {
    local name=$1
    shift
    begin "$name"
    if bounded "$@"; then count "$name" 1 0 0; else count "$name" 0 1 0; fi
}

# A check that needs a component of the Rust toolchain.
check_component() {
    local component=$1 name=$2
    shift 2
    if have "cargo-${component/rustfmt/fmt}" || bounded rustup component add "$component" >/dev/null 2>&1; then
        check "$name" "$@"
    else
        skip_part "$name" "the toolchain has no $component"
    fi
}

skip_part() {
    begin "$1"
    printf 'skipped: %s\n' "$2"
    count "$1" 0 0 1
}

# Runs a command that prints `test result:` lines, and adds them up. Not one test, or a bad exit with no failure in the counts,
# is a failure of its own, and so are fewer that passed than AT_LEAST says.
part() {
    local name=$1 log code=0 passed failed skipped
    shift
    begin "$name"
    log=$(mktemp "$LOGS/part-XXXXXX")
    bounded "$@" 2>&1 | tee "$log" | quiet || code=${PIPESTATUS[0]}
    read -r passed failed skipped < <(add_up "$log")
    if [ "$code" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi
    if [ "$((passed + failed + skipped))" = 0 ]; then failed=1; fi
    if [ "$passed" -lt "${AT_LEAST:-0}" ]; then
        printf '%d passed, and at least %d can\n' "$passed" "$AT_LEAST" | tee -a "$log"
        failed=$((failed + 1))
    fi
    [ "$failed" = 0 ] || failures_of "$name" "$log" >>"$LOGS/failures"
    count "$name" "$passed" "$failed" "$skipped"
}

# What the failed tests of a part said, which is told once more at the end: suites run beside each other and print a lot.
failures_of() {
    printf '\n== failed in %s\n' "$1"
    grep -q '^failures:$' "$2" || { tail -n 40 "$2"; return; }
    awk '/^failures:$/ { found = 1 } found && ++lines <= 200' "$2"
}

# Leaves out the lines of tests that passed.
quiet() {
    grep --line-buffered -vE '^test .* \.\.\. ok$|^$|^running [0-9]+ tests?$' || true
}

add_up() {
    sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored.*/\1 \2 \3/p' "$1" |
        awk '{ p += $1; f += $2; s += $3 } END { print p + 0, f + 0, s + 0 }'
}

# Runs parts beside the others. What they print comes when the lane is joined.
lane() {
    local number=${#LANES[@]}
    # A process group of its own, to be ended as a whole.
    set -m
    (
        set +m
        RESULTS=$LOGS/lane-$number.results
        : >"$RESULTS"
        "$@"
    ) >"$LOGS/lane-$number.output" 2>&1 </dev/null &
    set +m
    LANES+=("$!")
}

end_lanes() {
    local leader
    for leader in "${LANES[@]}"; do kill -- "-$leader" 2>/dev/null || true; done
}

join_lanes() {
    local number
    for number in "${!LANES[@]}"; do
        if ! wait "${LANES[$number]}"; then
            begin "lane $number ended early"
            count "lane $number ended early" 0 1 0
        fi
        cat "$LOGS/lane-$number.output"
        cat "$LOGS/lane-$number.results" >>"$RESULTS"
    done
    LANES=()
}

# One build for all: tests, and the programs that tests start. Asked for together they share what they depend on; apart, the
# dependencies of tests change the features of what both need, and much of it is built twice.
build_tests() {
    begin "building"
    local messages=$LOGS/build.json
    if ! bounded cargo build --locked --workspace --all-features --lib --bins --tests --examples --message-format=json >"$messages"; then
        grep -o '"rendered":"[^}]*"' "$messages" | sed 's/^"rendered":"//; s/"$//' | while IFS= read -r text; do printf '%b\n' "$text"; done
        count "build" 0 1 0
        report
    fi
    LIB_TESTS=$(test_binary "$messages" longshore lib)
    IT_TESTS=$(test_binary "$messages" it test)
    # Cargo puts it beside the directory of the tests, which is where they look for it.
    LONGSHORED=$(dirname "$(dirname "$IT_TESTS")")/longshored
    QUICKSTART=$(dirname "$LONGSHORED")/examples/quickstart
    mapfile -t OTHER_TESTS < <(test_binaries "$messages" | grep -vxF -e "$LIB_TESTS" -e "$IT_TESTS" || true)
    count "build" 1 0 0
}

# The executables of all test profiles among cargo's messages.
test_binaries() {
    grep '"test":true}' "$1" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | sort -u
}

# test_binary MESSAGES NAME KIND
test_binary() {
    grep '"test":true}' "$1" | grep "\"kind\":\[\"$3\"\]" | grep "\"name\":\"$2\"" |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | head -n 1
}

# Suites have process and mount namespaces of their own: what the leak check of one sees is not another's, and what hangs ends
# with its suite. A shell is the first process there, since it reaps orphans. Without root's rights suites run as they are,
# one after another.
set_apart() {
    APART=(unshare --mount --pid --fork --kill-child --mount-proc sh -c '"$@"; exit "$?"' sh)
    "${APART[@]}" true 2>/dev/null || APART=()
}

# Root's suite has the disk for itself. Those beside it work in memory, where there is enough: all of them wait for disks most
# of the time, and a file system more is seen.
stage_in_memory() {
    local free
    free=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
    [ "$free" -ge 8000 ] || return 0
    mount -t tmpfs -o size=60%,mode=755 tmpfs "$STAGE" 2>/dev/null || return 0
}

stage_away() {
    ! mountpoint -q "$STAGE" || umount -l "$STAGE"
}

# A run that was killed leaves cgroups behind, in which every audit of the next would find nobody. They are taken away while no
# process of tests or of the library lives, whose they could be.
clear_remains() {
    ! readlink /proc/[0-9]*/exe 2>/dev/null | grep -qE '/(it-|memfd:longshore|longshore)[^/]*$' || return 0
    find /sys/fs/cgroup -depth -type d '(' -path '*/longshore-*' -o -name 'it-unit-*' ')' -exec rmdir {} + 2>/dev/null || true
}

suite() {
    part "$1" "${APART[@]}" "${@:2}"
}

# A copy of a program where every user can read it. Suites begin at the same time: each finds a whole one, whoever made it.
stage() {
    local copy=$STAGE/${1##*/}
    [ ! -e "$copy" ] || return 0
    command install -m 755 "$1" "$copy.$BASHPID"
    mv -f "$copy.$BASHPID" "$copy"
}

# suite_as USER NAME BINARY [FILTER…]: through setpriv, with a home and a temporary directory of the user's own, and a copy
# of the binary where he can read it.
suite_as() {
    local user=$1 name=$2 binary=$3 copy tmp
    shift 3
    copy=$STAGE/${binary##*/}
    tmp=$STAGE/tmp-$user
    stage "$binary"
    # The integration tests look for the daemon and the client beside themselves.
    stage "$LONGSHORED"
    stage "${LONGSHORED%d}"
    command install -d -m 700 -o "$user" "$tmp"
    part "$name" "${APART[@]}" setpriv --reuid "$user" --regid "$user" --init-groups --reset-env \
        env TMPDIR="$tmp" LONGSHORE_KILL_LOOPS="${LONGSHORE_KILL_LOOPS:-}" \
        ${LONGSHORE_IT_COMPANY:+LONGSHORE_IT_COMPANY=1} \
        ${LONGSHORE_IT_RUNTIME:+LONGSHORE_IT_RUNTIME="$LONGSHORE_IT_RUNTIME"} \
        ${LONGSHORE_TEST_SHARED_HOST:+LONGSHORE_TEST_SHARED_HOST=1} sh -c 'cd; exec "$@"' sh "$copy" "$@"
    if [ -n "$(ls -A "$tmp")" ]; then
        printf 'left in the temporary directory of %s:\n' "$user"
        ls -A "$tmp"
        count "$name: files left" 0 1 0
    fi
    rm -rf "$tmp"
}

# As udev has it, which a machine without one lacks: FUSE is for every user, who can mount in a namespace of his own alone.
open_fuse() {
    [ ! -e /dev/fuse ] || chmod 666 /dev/fuse
}

make_user() {
    getent passwd "$1" >/dev/null || useradd --create-home --shell /bin/sh "$1"
}

give_subordinate_ids() {
    touch /etc/subuid /etc/subgid
    grep -q "^$1:" /etc/subuid || usermod --add-subuids "$(free_range /etc/subuid)" "$1"
    grep -q "^$1:" /etc/subgid || usermod --add-subgids "$(free_range /etc/subgid)" "$1"
}

# 65536 ids above all that are given away.
free_range() {
    awk -F: 'BEGIN { top = 100000 } { end = $2 + $3; if (end > top) top = end } END { print top "-" top + 65535 }' "$1"
}

take_subordinate_ids() {
    local file
    for file in /etc/subuid /etc/subgid; do
        [ ! -e "$file" ] || sed -i "/^$1:/d" "$file"
    done
}

# need_space DIRECTORY MEGABYTES: what a clean build takes, asked before it fails half-way in a way of its own.
need_space() {
    local free
    free=$(df --output=avail -BM "$1" | tail -n 1 | tr -dc 0-9)
    [ "$free" -ge "$2" ] || die "$1 has $free MB free, and $2 MB are needed"
}

# Prints the counts and ends the run.
report() {
    [ ! -e "$LOGS/failures" ] || cat "$LOGS/failures"
    say "result"
    cut -d ' ' -f 4- "$RESULTS"
    awk '{ p += $1; f += $2; s += $3 } END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 }' "$RESULTS"
    exit
}
