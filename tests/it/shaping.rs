//! Links that are slow or lose packets on purpose, and containers that are kept apart.

use std::time::{Duration, Instant};

use longshore::networks::NetworkSpec;
use longshore::types::{EndpointSpec, LinkShape, Shaping};
use longshore::{Container, ContainerSpec, ErrorKind, ExecSpec, NetworkMode, Signal, StopOptions};

use crate::frame::{Check, Stop, fail, skip};
use crate::support::world::{FORCE, World, text};
use crate::tests;

tests! { "shaping":
    kernel_async [
        i15_a_rate_holds_in_both_directions,
        i15_a_shape_outlives_a_restart,
        i15_delays_and_losses,
        i15_what_cannot_be_changes_nothing,
        m11_containers_are_kept_apart,
        m11_a_partition_meets_those_who_come_later,
    ]
}

const NETWORK: &str = "shaped";
/// `sleep` does not end by itself when it is asked to.
const AT_ONCE: StopOptions = StopOptions {
    signal: None,
    timeout: Some(Duration::ZERO),
};

fn sleeper(world: &World) -> ContainerSpec {
    let network = NetworkMode::Named(NETWORK.to_owned());
    world.spec().command(["sleep", "1000"]).network(network)
}

async fn world() -> Result<World, Stop> {
    let world = World::new().await?;
    world.engine.networks().create(NetworkSpec::bridge(NETWORK)).await?;
    Ok(world)
}

async fn sh(container: &Container, script: &str) -> Result<String, Stop> {
    let output = container.exec(ExecSpec::new(["sh", "-c", script])).output().await?;
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => fail(format!("{script}: {output:?}")),
    }
}

async fn address(container: &Container, network: &str) -> Result<String, Stop> {
    let info = container.inspect().await?;
    let place = info.endpoints.iter().find(|endpoint| endpoint.network == network);
    Ok(place
        .and_then(|place| place.ipv4)
        .expect("it has an address")
        .0
        .to_string())
}

/// Whether one reaches the other, and the other way round, with one of some packets.
async fn pings(one: &Container, other: &Container, network: &str, packets: u32) -> Result<[bool; 2], Stop> {
    let mut answers = [false; 2];
    for ((from, to), answer) in [(one, other), (other, one)].into_iter().zip(&mut answers) {
        let ping = format!("ping -A -c {packets} -W {packets} {}", address(to, network).await?);
        let output = from.exec(ExecSpec::new(["sh", "-c", &ping])).output().await?;
        *answer = output.status.success();
    }
    Ok(answers)
}

async fn assert_apart(one: &Container, other: &Container, network: &str) -> Check {
    assert_eq!(
        pings(one, other, network, 1).await?,
        [false, false],
        "they reach each other"
    );
    Ok(())
}

async fn assert_together(one: &Container, other: &Container, network: &str) -> Check {
    assert_eq!(
        pings(one, other, network, 20).await?,
        [true, true],
        "they do not reach each other"
    );
    Ok(())
}

/// Sends bytes from one container to another: how long that took.
async fn sent(from: &Container, to: &Container, bytes: usize) -> Result<Duration, Stop> {
    let address = address(to, NETWORK).await?;
    sh(
        to,
        "rm -f /tmp/got; nc -l -p 7000 -e sh -c 'cat > /tmp/got; touch /tmp/done' >/dev/null 2>&1 &",
    )
    .await?;
    sh(
        to,
        "for i in $(seq 100); do grep -q 1B58 /proc/net/tcp /proc/net/tcp6 && exit; sleep 0.05; done; exit 1",
    )
    .await?;
    let begun = Instant::now();
    sh(from, &format!("head -c {bytes} /dev/zero | nc {address} 7000")).await?;
    let got = sh(
        to,
        "for i in $(seq 600); do [ -e /tmp/done ] && break; sleep 0.05; done; rm /tmp/done; wc -c < /tmp/got",
    )
    .await?;
    let took = begun.elapsed();
    assert_eq!(got.trim(), bytes.to_string());
    Ok(took)
}

async fn i15_a_rate_holds_in_both_directions() -> Check {
    let world = world().await?;
    let one = world.started(sleeper(&world)).await?;
    let other = world.started(sleeper(&world)).await?;
    // 100,000 bytes per second: 300,000 of them take three seconds, but for what a bucket holds.
    let thin = LinkShape::default().rate_bits(800_000);
    let least = Duration::from_millis(2400);
    one.shape(NETWORK, Shaping::default().outgoing(thin)).await?;
    let took = sent(&one, &other, 300_000).await?;
    assert!(took >= least, "it sent in {took:?}");
    one.shape(NETWORK, Shaping::default().incoming(thin)).await?;
    let took = sent(&other, &one, 300_000).await?;
    assert!(took >= least, "it received in {took:?}");
    // What is lifted is gone: else this would take far longer than anybody waits for it.
    one.shape(NETWORK, Shaping::default()).await?;
    sent(&one, &other, 20_000_000).await?;
    sent(&other, &one, 20_000_000).await?;
    for container in [one, other] {
        container.remove(FORCE).await?;
    }
    Ok(())
}

async fn i15_a_shape_outlives_a_restart() -> Check {
    let world = world().await?;
    let thin = Shaping::default().outgoing(LinkShape::default().rate_bits(80_000_000));
    let place = EndpointSpec {
        shaping: thin,
        ..EndpointSpec::default()
    };
    let container = world.started(sleeper(&world).endpoint(NETWORK, place)).await?;
    let link = || sh(&container, "ip link show eth0");
    assert!(link().await?.contains("qdisc tbf"), "from the start on");
    container.shape(NETWORK, Shaping::default()).await?;
    assert!(!link().await?.contains("tbf"), "lifted");
    container.restart(AT_ONCE).await?;
    assert!(!link().await?.contains("tbf"), "lifted for good");
    container.shape(NETWORK, thin).await?;
    container.restart(AT_ONCE).await?;
    assert!(link().await?.contains("qdisc tbf"), "after a restart");
    assert_eq!(container.inspect().await?.spec.endpoints[NETWORK].shaping, thin);
    // One that does not run has it from its next start on.
    container.kill(Signal::KILL).await?;
    container.wait().await?;
    container.shape(NETWORK, Shaping::default()).await?;
    container.start().await?;
    assert!(!link().await?.contains("tbf"), "lifted while it did not run");
    container.remove(FORCE).await?;
    Ok(())
}

/// The shortest way there and back of several, in milliseconds.
async fn round_trip(from: &Container, to: &str) -> Result<f64, Stop> {
    let said = sh(from, &format!("ping -c 20 -A -W 5 {to}")).await?;
    let times = said.lines().filter_map(|line| line.split_once("time="));
    let times = times.filter_map(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
    match times.reduce(f64::min) {
        Some(least) => Ok(least),
        None => fail(format!("nobody answered: {said}")),
    }
}

async fn i15_delays_and_losses() -> Check {
    let world = world().await?;
    let one = world.started(sleeper(&world)).await?;
    let other = world.started(sleeper(&world)).await?;
    let to = address(&other, NETWORK).await?;
    let before = round_trip(&one, &to).await?;
    let late = LinkShape::default().delay(Duration::from_millis(50));
    match one.shape(NETWORK, Shaping::default().outgoing(late)).await {
        Ok(()) => {}
        Err(error) if error.is_unsupported() => {
            assert!(error.report().contains("modprobe sch_netem"), "{}", error.report());
            assert!(!sh(&one, "ip link show eth0").await?.contains("netem"));
            assert_eq!(
                one.inspect()
                    .await?
                    .spec
                    .endpoints
                    .get(NETWORK)
                    .map(|place| place.shaping),
                Some(Shaping::default())
            );
            return skip(error.report());
        }
        Err(error) => return fail(error.report()),
    }
    let raised = round_trip(&one, &to).await? - before;
    assert!((50.0..60.0).contains(&raised), "{raised} ms");
    // In both directions twice as much, and with a rate: what was said before is not added.
    one.shape(NETWORK, Shaping::both(late.rate_bits(100_000_000))).await?;
    let raised = round_trip(&one, &to).await? - before;
    assert!((100.0..115.0).contains(&raised), "{raised} ms");
    // Of a thousand packets half are lost: 16 is what that varies by.
    let half = LinkShape::default().loss_per_million(500_000);
    one.shape(NETWORK, Shaping::default().incoming(half)).await?;
    let said = sh(&one, &format!("ping -c 1000 -i 0.002 -W 1 {to} | tail -2")).await?;
    let lost = said
        .split(", ")
        .find_map(|part| part.strip_suffix("% packet loss")?.parse::<u32>().ok());
    let Some(lost) = lost.or_else(|| loss_of(&said)) else {
        return fail(said);
    };
    assert!((40..=60).contains(&lost), "{said}");
    one.shape(NETWORK, Shaping::default()).await?;
    let raised = round_trip(&one, &to).await? - before;
    assert!(raised < 10.0, "{raised} ms");
    for container in [one, other] {
        container.remove(FORCE).await?;
    }
    Ok(())
}

fn loss_of(said: &str) -> Option<u32> {
    let (before, _) = said.split_once("% packet loss")?;
    before.rsplit(' ').next()?.parse().ok()
}

async fn i15_what_cannot_be_changes_nothing() -> Check {
    let world = world().await?;
    let container = world.started(sleeper(&world)).await?;
    let thin = LinkShape::default().rate_bits(1_000_000);
    container.shape(NETWORK, Shaping::both(thin)).await?;
    let refused = async |network: &str, shape: LinkShape| {
        let refused = container.shape(network, Shaping::both(shape)).await;
        refused.expect_err("it cannot be").kind().clone()
    };
    let slow = LinkShape::default().rate_bits(1);
    assert_eq!(refused(NETWORK, slow).await, ErrorKind::InvalidArgument);
    assert_eq!(refused("no-such-network", thin).await, ErrorKind::NotFound);
    assert_eq!(refused("bridge", thin).await, ErrorKind::NotFound, "not on it");
    assert_eq!(
        container.inspect().await?.spec.endpoints[NETWORK].shaping,
        Shaping::both(thin)
    );
    assert!(sh(&container, "ip link show eth0").await?.contains("qdisc tbf"));
    // At create, too.
    let place = EndpointSpec {
        shaping: Shaping::both(slow),
        ..EndpointSpec::default()
    };
    let refused = world.engine.create(sleeper(&world).endpoint(NETWORK, place)).await;
    assert_eq!(refused.expect_err("too slow").kind(), &ErrorKind::InvalidArgument);
    // A container without a network of its own.
    let alone = world.started(world.spec().command(["sleep", "1000"])).await?;
    let refused = alone.shape("none", Shaping::both(thin)).await.expect_err("no network");
    assert_eq!(refused.kind(), &ErrorKind::Conflict, "{}", refused.report());
    for container in [container, alone] {
        container.remove(FORCE).await?;
    }
    Ok(())
}

async fn m11_containers_are_kept_apart() -> Check {
    let world = world().await?;
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(world.started(sleeper(&world)).await?);
    }
    let [a, b, c] = &all[..] else { return fail("three") };
    // A connection that is open gets through no more either.
    sh(b, "nc -l -p 7000 -e sh -c 'cat > /tmp/got' >/dev/null 2>&1 &").await?;
    sh(
        b,
        "for i in $(seq 100); do grep -q 1B58 /proc/net/tcp /proc/net/tcp6 && exit; sleep 0.05; done; exit 1",
    )
    .await?;
    let to = address(b, NETWORK).await?;
    sh(a, &format!("mkfifo /tmp/pipe; (nc {to} 7000 < /tmp/pipe) >/dev/null 2>&1 & (exec 3> /tmp/pipe; echo before >&3; while [ ! -e /tmp/more ]; do sleep 0.05; done; echo after >&3; sleep 1000) >/dev/null 2>&1 &")).await?;
    sh(
        b,
        "for i in $(seq 200); do grep -q before /tmp/got && exit; sleep 0.05; done; exit 1",
    )
    .await?;
    a.partition_from(b).await?;
    a.partition_from(b).await?;
    assert_apart(a, b, NETWORK).await?;
    // The third reaches both.
    assert_together(a, c, NETWORK).await?;
    assert_together(b, c, NETWORK).await?;
    sh(a, "touch /tmp/more; sleep 1").await?;
    assert_eq!(sh(b, "cat /tmp/got").await?, "before");
    assert!(world.engine.audit().await?.is_clean());
    // Whichever is named first.
    b.heal_from(a).await?;
    assert_together(a, b, NETWORK).await?;
    sh(
        b,
        "for i in $(seq 400); do grep -q after /tmp/got && exit; sleep 0.05; done; exit 1",
    )
    .await?;
    b.heal_from(a).await?;
    let refused = a.partition_from(a).await.expect_err("from itself");
    assert_eq!(refused.kind(), &ErrorKind::InvalidArgument);
    for container in all {
        container.remove(FORCE).await?;
    }
    Ok(())
}

async fn m11_a_partition_meets_those_who_come_later() -> Check {
    let world = world().await?;
    let a = world.started(sleeper(&world)).await?;
    // Before the other has ever run.
    let b = world.engine.create(sleeper(&world)).await?;
    a.partition_from(&b).await?;
    b.start().await?;
    assert_apart(&a, &b, NETWORK).await?;
    b.restart(AT_ONCE).await?;
    assert_apart(&a, &b, NETWORK).await?;
    world.engine.networks().create(NetworkSpec::bridge("second")).await?;
    for container in [&a, &b] {
        let containers = world.engine.containers();
        let place = EndpointSpec::default();
        containers.connect(container.id().as_str(), "second", place).await?;
    }
    assert_apart(&a, &b, "second").await?;
    a.heal_from(&b).await?;
    assert_together(&a, &b, NETWORK).await?;
    assert_together(&a, &b, "second").await?;
    a.partition_from(&b).await?;
    // Of one that is gone nothing is kept.
    let gone = b.id().clone();
    b.remove(FORCE).await?;
    let missing = world.engine.containers().heal(a.id().as_str(), gone.as_str()).await;
    assert!(missing.expect_err("it is gone").is_not_found());
    let c = world.started(sleeper(&world)).await?;
    assert_together(&a, &c, NETWORK).await?;
    assert!(world.engine.audit().await?.is_clean());
    for container in [a, c] {
        container.remove(FORCE).await?;
    }
    Ok(())
}
