# What `ci/test --full` adds. To be sourced by ci/test.

OLDEST_RUST=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

# The library with these features and no others, without a warning.
feature_check() {
    check "features: ${1:-none}" cargo rustc --quiet --locked --package longshore --lib --profile check \
        --no-default-features --features "$1" -- -D warnings
}

for features in "" engine registry network conformance cgroups-rs api engine,network conformance,registry api,registry \
    api,network,cgroups-rs registry,network,cgroups-rs,api registry,network,conformance,cgroups-rs; do
    feature_check "$features"
done

# pulls_in FEATURES CRATE: whether the feature set brings the crate along, or a feature of it ('NAME feature "FEATURE"').
# Where cargo fails, neither this nor its contrary holds.
pulls_in() {
    local tree
    tree=$(cargo tree --locked --quiet --edges normal,features --no-default-features --features "$1" --prefix none --package longshore) || return 2
    grep -qE "^$2( |$)" <<<"$tree"
}
pulls_in_not() {
    local code=0
    pulls_in "$@" || code=$?
    [ "$code" = 1 ]
}

for crate in reqwest rustls ring hyper; do
    check "without registry no $crate" pulls_in_not engine,network "$crate"
done
for crate in rusqlite libsqlite3-sys zstd-sys; do
    check "without engine no $crate" pulls_in_not cgroups-rs "$crate"
done
check "without api no server of hyper" pulls_in_not engine,registry,network,conformance,cgroups-rs 'hyper feature "server"'
check "with api a server of hyper" pulls_in api 'hyper feature "server"'
check "never axum" pulls_in_not engine,registry,network,conformance,cgroups-rs,api axum
for crate in aws-lc-sys openssl-sys native-tls; do
    check "never $crate" pulls_in_not engine,registry,network,conformance,cgroups-rs,api "$crate"
done

check "the library adds at most 8 MB" ci/size

# A program of its own, built like an embedder's: root's first, then an ordinary user's.
say "beside sqlx and diesel: build"
if cargo test --locked --manifest-path tests/embed/Cargo.toml --target-dir target/embed --no-run --message-format=json >"$LOGS/embed.json"; then
    EMBED_TEST=$(test_binary "$LOGS/embed.json" one_sqlite test)
    suite "beside sqlx and diesel, as root" "$EMBED_TEST"
    suite_as longshore-test "beside sqlx and diesel, as a user" "$EMBED_TEST"
else
    count "beside sqlx and diesel: build" 0 1 0
fi

suite_as_company() {
    local LONGSHORE_IT_COMPANY=1
    suite_as longshore-test "integration beside others, as a user" "$IT_TESTS"
}
suite_as_company

if rustup run "$OLDEST_RUST" cargo --version >/dev/null 2>&1 || rustup toolchain install --profile minimal "$OLDEST_RUST" >/dev/null 2>&1; then
    check "the lowest supported Rust: $OLDEST_RUST" rustup run "$OLDEST_RUST" cargo check --quiet --locked --lib --all-features --target-dir target/oldest
else
    skip_part "the lowest supported Rust: $OLDEST_RUST" "no rustup to install the toolchain with"
fi

# Real clients against Docker's daemon and against ours.
need_packages docker.io docker-registry iproute2 python3-venv
say "real clients: build"
if cargo build --quiet --locked --package longshored; then
    part "real clients" tests/clients/run "${CARGO_TARGET_DIR:-target}/debug/longshored"
else
    count "real clients: build" 0 1 0
fi

if have cargo-deny || cargo install --quiet --locked cargo-deny; then
    check "licences and bans" cargo deny --all-features check licenses bans sources
else
    skip_part "licences and bans" "cargo-deny cannot be installed"
fi

# Linux 6.1 and nothing but cgroup version 2, as root and as an ordinary user with a delegated cgroup.
part "a machine with cgroup version 2" ci/vm "$LIB_TESTS" "$IT_TESTS"

check "the helper links with cc" env LONGSHORE_HELPER_LINKER=cc cargo test --quiet --locked --all-features --target-dir target/cc \
    --lib -- runtime::native::tests::process::echo_in_all_namespaces

# The library and its helper, which is linked too.
if rustup target add aarch64-unknown-linux-gnu >/dev/null 2>&1; then
    need_packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    check "aarch64: library and helper" env CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc \
        cargo check --quiet --locked --all-features --lib --target aarch64-unknown-linux-gnu
else
    skip_part "aarch64: library and helper" "no rustup to add the target with"
fi
