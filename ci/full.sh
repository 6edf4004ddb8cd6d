# What `ci/test --full` adds. To be sourced by ci/test.

feature_check() {
    check "features: ${1:-none}" cargo check --quiet --locked --lib --no-default-features --features "$1"
}

feature_check ""
for feature in engine registry network conformance cgroups-rs; do
    feature_check "$feature"
done

# pulls_in_not FEATURES CRATE: the feature set must not bring the crate along.
pulls_in_not() {
    ! cargo tree --locked --quiet --edges normal --no-default-features --features "$1" --prefix none --package longshore |
        grep -q "^$2 v"
}
for crate in reqwest rustls ring hyper; do
    check "without registry no $crate" pulls_in_not engine,network "$crate"
done
for crate in rusqlite libsqlite3-sys zstd-sys; do
    check "without engine no $crate" pulls_in_not "" "$crate"
done
for crate in aws-lc-sys openssl-sys native-tls; do
    check "never $crate" pulls_in_not engine,registry,network,conformance,cgroups-rs "$crate"
done

check "the library adds at most 8 MB" ci/size

check "beside sqlx and diesel: builds and runs" cargo test --quiet --locked --manifest-path tests/embed/Cargo.toml --target-dir target/embed

if have cargo-deny || cargo install --quiet --locked cargo-deny; then
    check "licences and bans" cargo deny --all-features check licenses bans sources
else
    skip_part "licences and bans" "cargo-deny cannot be installed"
fi

# Linux 6.1 and nothing but cgroup version 2, as root and as an ordinary user with a delegated cgroup.
part "a machine with cgroup version 2" ci/vm "$LIB_TESTS" "$IT_TESTS"

check "the helper links with cc" env LONGSHORE_HELPER_LINKER=cc cargo test --quiet --locked --all-features --target-dir target/cc \
    --lib -- runtime::native::tests::echo_in_all_namespaces

# The library and its helper, which is linked too.
if rustup target add aarch64-unknown-linux-gnu >/dev/null 2>&1; then
    need_packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    check "aarch64: library and helper" env CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc \
        cargo check --quiet --locked --all-features --lib --target aarch64-unknown-linux-gnu
else
    skip_part "aarch64: library and helper" "no rustup to add the target with"
fi
