# The parts of a test run: each adds to the counts and to the list that is printed at the end. To be sourced by ci/test.

PASSED=0 FAILED=0 SKIPPED=0
LINES=()

# count NAME PASSED FAILED SKIPPED
count() {
    PASSED=$((PASSED + $2)) FAILED=$((FAILED + $3)) SKIPPED=$((SKIPPED + $4))
    LINES+=("$(printf '%-40s %5d passed %3d failed %3d skipped' "$1" "$2" "$3" "$4")")
}

# Runs a command that is one check: it passes or it fails.
check() {
    local name=$1
    shift
    say "$name"
    if "$@"; then count "$name" 1 0 0; else count "$name" 0 1 0; fi
}

# A check that needs a component of the Rust toolchain.
check_component() {
    local component=$1 name=$2
    shift 2
    if have "cargo-${component/rustfmt/fmt}" || rustup component add "$component" >/dev/null 2>&1; then
        check "$name" "$@"
    else
        skip_part "$name" "the toolchain has no $component"
    fi
}

skip_part() {
    say "$1"
    printf 'skipped: %s\n' "$2"
    count "$1" 0 0 1
}

# Runs a command that prints `test result:` lines, and adds them up. No such line, or a bad exit with no failure in the
# counts, is a failure of its own.
part() {
    local name=$1 log code=0 passed failed skipped
    shift
    say "$name"
    log=$LOGS/$((${#LINES[@]} + 1))
    "$@" 2>&1 | tee "$log" | quiet || code=${PIPESTATUS[0]}
    read -r passed failed skipped < <(add_up "$log")
    if [ "$code" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi
    if [ "$((passed + failed + skipped))" = 0 ] && ! grep -q '^test result:' "$log"; then failed=1; fi
    count "$name" "$passed" "$failed" "$skipped"
}

# Leaves out the lines of tests that passed.
quiet() {
    grep -vE '^test .* \.\.\. ok$|^$|^running [0-9]+ tests?$' || true
}

add_up() {
    sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored.*/\1 \2 \3/p' "$1" |
        awk '{ p += $1; f += $2; s += $3 } END { print p + 0, f + 0, s + 0 }'
}

# One build for all suites; finds the binaries in cargo's own messages.
build_tests() {
    say "building"
    local messages=$LOGS/build.json
    if ! cargo test --locked --workspace --all-features --no-run --message-format=json >"$messages"; then
        grep -o '"rendered":"[^}]*"' "$messages" | sed 's/^"rendered":"//; s/"$//' | while IFS= read -r text; do printf '%b\n' "$text"; done
        count "build" 0 1 0
        report
    fi
    LIB_TESTS=$(test_binary "$messages" longshore lib)
    IT_TESTS=$(test_binary "$messages" it test)
    mapfile -t OTHER_TESTS < <(test_binaries "$messages" | grep -vxF -e "$LIB_TESTS" -e "$IT_TESTS" || true)
    HELPERS=$(grep '"kind":\["bin"\]' "$messages" | grep '"test":false' | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' || true)
    # Its tests are in the integration binary, which cargo does not know: it would not build the program for them.
    cargo build --quiet --locked --all-features --package longshored
    LONGSHORED=$(dirname "$(dirname "$IT_TESTS")")/longshored
    count "build" 1 0 0
}

# The executables of all test profiles among cargo's messages.
test_binaries() {
    grep '"test":true}' "$1" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | sort -u
}

# test_binary MESSAGES NAME KIND
test_binary() {
    grep "\"kind\":\[\"$3\"\]" "$1" | grep "\"name\":\"$2\"" | grep '"executable":"' | head -n 1 |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
}

suite() {
    part "$1" "$2" "${@:3}"
}

# suite_as USER NAME BINARY [FILTER…]: through setpriv, with a home and a temporary directory of the user's own, and a copy
# of the binary where he can read it.
suite_as() {
    local user=$1 name=$2 binary=$3 copy tmp
    shift 3
    copy=$STAGE/${binary##*/}
    tmp=$STAGE/tmp-$user
    [ -e "$copy" ] || command install -m 755 "$binary" "$copy"
    # The integration tests look for the daemon beside themselves.
    [ -e "$STAGE/longshored" ] || command install -m 755 "$LONGSHORED" "$STAGE/longshored"
    command install -d -m 700 -o "$user" "$tmp"
    part "$name" setpriv --reuid "$user" --regid "$user" --init-groups --reset-env \
        env TMPDIR="$tmp" LONGSHORE_KILL_LOOPS="${LONGSHORE_KILL_LOOPS:-}" \
        ${LONGSHORE_IT_COMPANY:+LONGSHORE_IT_COMPANY=1} \
        ${LONGSHORE_TEST_SHARED_HOST:+LONGSHORE_TEST_SHARED_HOST=1} sh -c 'cd; exec "$@"' sh "$copy" "$@"
    if [ -n "$(ls -A "$tmp")" ]; then
        printf 'left in the temporary directory of %s:\n' "$user"
        ls -A "$tmp"
        count "$name: files left" 0 1 0
    fi
    rm -rf "$tmp"
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

# Prints the counts and ends the run.
report() {
    say "result"
    printf '%s\n' "${LINES[@]}"
    printf '%d passed, %d failed, %d skipped\n' "$PASSED" "$FAILED" "$SKIPPED"
    [ "$FAILED" = 0 ] && exit 0
    exit 1
}
