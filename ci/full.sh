# What `ci/test --full` adds. To be sourced by ci/test.

# What goes wrong in one part is counted there, and keeps none of the others from running.
set +e

OLDEST_RUST=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
FEATURES=$(sed -n '/^\[features\]/,/^\[/s/^\([a-z][a-z0-9_-]*\) = .*/\1/p' Cargo.toml | grep -vx default)

# The library with these features and no others, without a warning.
feature_check() {
    check "features: ${1:-none}" cargo rustc --quiet --locked --package longshore --lib --profile check \
        --no-default-features --features "$1" -- -D warnings
}

feature_checks() {
    local features
    # Each alone, as it comes with what it asks for, then what people combine.
    for features in "" $FEATURES engine,network conformance,registry api,registry api,network,cgroups-rs \
        registry,network,cgroups-rs,api remote,network remote,api registry,network,conformance,cgroups-rs; do
        feature_check "$features"
    done
}

# pulls_in FEATURES CRATE [FEATURE]: whether the feature set brings the crate along, and with that feature of the crate's.
# Where cargo fails, neither this nor its contrary holds.
pulls_in() {
    local tree
    tree=$(cargo tree --locked --quiet --edges normal --no-default-features --features "$1" --prefix none --format '{p}|{f},' --package longshore) || return 2
    grep -qE "^$2 [^|]*\|(.*,)?${3:+$3,}" <<<"$tree"
}
pulls_in_not() {
    local code=0
    pulls_in "$@" || code=$?
    [ "$code" = 1 ]
}

dependency_checks() {
    local crate all
    all=$(paste -sd , <<<"$FEATURES")
    for crate in reqwest rustls ring hyper; do
        check "without registry no $crate" pulls_in_not engine,network "$crate"
    done
    for crate in rusqlite libsqlite3-sys zstd-sys; do
        check "without engine no $crate" pulls_in_not cgroups-rs "$crate"
        check "remote alone without $crate" pulls_in_not remote "$crate"
    done
    check "without api no server of hyper" pulls_in_not engine,registry,network,conformance,cgroups-rs,remote hyper server
    check "with api a server of hyper" pulls_in api hyper server
    for crate in axum aws-lc-sys openssl-sys native-tls; do
        check "never $crate" pulls_in_not "$all" "$crate"
    done
}

# A program of its own, built like an embedder's: root's first, then an ordinary user's.
beside_others_of_sqlite() {
    local test
    begin "beside sqlx and diesel: build"
    if bounded cargo test --locked --manifest-path tests/embed/Cargo.toml --target-dir target/embed --no-run \
        --message-format=json >"$LOGS/embed.json" &&
        test=$(test_binary "$LOGS/embed.json" one_sqlite test) && [ -n "$test" ]; then
        suite "beside sqlx and diesel, as root" "$test"
        suite_as longshore-test "beside sqlx and diesel, as a user" "$test"
    else
        count "beside sqlx and diesel: build" 0 1 0
    fi
}

# The name by which rustup knows a toolchain: `1.89` may be there as `1.89.0`.
installed_rust() {
    rustup toolchain list 2>/dev/null | sed -n "s/^\(${1//./\\.}\(\.[0-9]*\)\{0,1\}-[^ ]*\).*/\1/p" | head -n 1
}

oldest_rust() {
    local name="the lowest supported Rust: $OLDEST_RUST" toolchain
    toolchain=$(installed_rust "$OLDEST_RUST")
    if [ -z "$toolchain" ] && PATIENCE=300 bounded rustup toolchain install --profile minimal "$OLDEST_RUST" >/dev/null 2>&1; then
        toolchain=$OLDEST_RUST
    fi
    if [ -n "$toolchain" ]; then
        check "$name" rustup run "$toolchain" cargo check --quiet --locked --lib --all-features --target-dir target/oldest
    else
        skip_part "$name" "it is not installed, and rustup cannot install it"
    fi
}

# Real clients against Docker's daemon and against ours.
real_clients() {
    if ! (need_packages docker.io docker-compose docker-registry iptables iproute2 python3-venv zstd); then
        skip_part "real clients" "Docker cannot be installed"
        return
    fi
    part "real clients" tests/clients/run "$LONGSHORED"
}

# The tests as the root of a container that Docker starts with no option: no namespaces are to be had there.
within_docker() {
    local name="within a container of Docker's"
    if (need_packages docker.io); then
        part "$name" ci/docker "$LIB_TESTS" "$IT_TESTS" "$QUICKSTART"
    else
        skip_part "$name" "Docker cannot be installed"
    fi
}

# The client as a static program: built without the C library of this machine, and run as the one file of an image.
static_program() {
    local name="a static program for musl" target=x86_64-unknown-linux-musl program
    [ "$(uname -m)" = x86_64 ] || { skip_part "$name" "the target is x86_64's"; return; }
    if ! PATIENCE=300 bounded rustup target add $target >/dev/null 2>&1 || ! (need_packages musl-tools binutils); then
        skip_part "$name" "neither rustup nor apt has what it takes"
        return
    fi
    check "$name: build" cargo build --quiet --locked --package longshore-cli --target $target
    program=${CARGO_TARGET_DIR:-target}/$target/debug/longshore
    check "$name: no interpreter" no_interpreter "$program"
    AT_LEAST=1 LONGSHORE_IT_STATIC=$(realpath "$program") suite "$name: in an empty image" "$IT_TESTS" k6_a_static
}

no_interpreter() {
    local headers
    headers=$(readelf --wide --program-headers "$1") || return
    grep -q LOAD <<<"$headers" && ! grep -q INTERP <<<"$headers"
}

licences() {
    if have cargo-deny || bounded cargo install --quiet --locked cargo-deny; then
        check "licences and bans" cargo deny --all-features check licenses bans sources
    else
        skip_part "licences and bans" "cargo-deny cannot be installed"
    fi
}

# The library and its helper, which is linked too.
other_processor() {
    if PATIENCE=300 bounded rustup target add aarch64-unknown-linux-gnu >/dev/null 2>&1 &&
        (need_packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross); then
        check "aarch64: library and helper" env CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc \
            cargo check --quiet --locked --all-features --lib --target aarch64-unknown-linux-gnu
    else
        skip_part "aarch64: library and helper" "neither rustup nor apt has what it takes"
    fi
}

# The other way to link the helper. Last, since it replaces the tests that were built.
linked_with_cc() {
    part "the helper links with cc" env LONGSHORE_HELPER_LINKER=cc cargo test --quiet --locked --workspace --all-features --lib -- \
        echo_in_all_namespaces
}

beside_others_of_sqlite
real_clients
within_docker
static_program
# Linux 6.1 and nothing but cgroup version 2, as root and as an ordinary user with a delegated cgroup.
part "a machine with cgroup version 2" ci/vm "$LIB_TESTS" "$IT_TESTS"
check "the library adds at most 8 MB" ci/size
check "README's first command" ci/quickstart
dependency_checks
licences
feature_checks
oldest_rust
other_processor
linked_with_cc
