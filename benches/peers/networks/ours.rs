//! What the crate does in the jobs about networks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use longshore::networks::NetworkSpec;
use longshore::types::{EndpointSpec, Port};
use longshore::{Container, ContainerSpec, Engine, NetworkMode, Pull};

use super::load::PORT;
use super::{Place, SERVED};
use crate::ours::{have, number};

/// A line that is told to the worker; `None` for one that is not about networks.
pub async fn deed(engine: &Engine, words: &[&str]) -> longshore::Result<Option<Duration>> {
    Ok(Some(match words {
        ["served", name, image, file] => served(engine, name, image, file).await?,
        ["start-published", image] => {
            have(engine, image).await?;
            start(engine, published(image)).await?
        }
        ["parallel-bridged", count, image] => {
            have(engine, image).await?;
            let begin = Instant::now();
            let starts = (0..number(count)).map(|_| start(engine, bridged(image)));
            futures_util::future::try_join_all(starts).await?;
            begin.elapsed()
        }
        ["networks", count] => networks(engine, number(count)).await?,
        ["networks-used", name, count] => used(engine, name, number(count)).await?,
        _ => return Ok(None),
    }))
}

fn bridged(image: &str) -> ContainerSpec {
    let spec = ContainerSpec::image(image).command(["true"]);
    spec.network(NetworkMode::Named("bridge".to_owned()))
}

fn published(image: &str) -> ContainerSpec {
    bridged(image).publish(Port::tcp(80), 0)
}

async fn start(engine: &Engine, spec: ContainerSpec) -> longshore::Result<Duration> {
    let begin = Instant::now();
    let output = engine.run(spec).pull(Pull::Never).output().await?;
    let time = begin.elapsed();
    match output.status.success() {
        true => Ok(time),
        false => Err(longshore::Error::internal("true is not true")),
    }
}

/// A container that lives on a network of users', with a published port; where it is goes into a file.
async fn served(engine: &Engine, name: &str, image: &str, file: &str) -> longshore::Result<Duration> {
    have(engine, image).await?;
    if engine.networks().inspect(SERVED).await.is_err() {
        engine.networks().create(NetworkSpec::bridge(SERVED)).await?;
    }
    let spec = ContainerSpec::image(image).name(name).command(["sleep", "100000"]);
    let spec = spec.network(NetworkMode::Named(SERVED.to_owned()));
    let container = engine.run(spec.publish(Port::tcp(PORT), 0)).pull(Pull::Never).await?;
    let place = place(&container).await?;
    std::fs::write(file, place.line()).map_err(|error| longshore::Error::os("write where a container is", error))?;
    Ok(Duration::ZERO)
}

async fn place(container: &Container) -> longshore::Result<Place> {
    let info = container.inspect().await?;
    let missing = || longshore::Error::internal("the container is in no network");
    let address = info.endpoints.first().and_then(|endpoint| endpoint.ipv4);
    let port = info.ports.iter().find(|port| port.host_ip.is_ipv4());
    Ok(Place {
        pid: info.pid.ok_or_else(missing)?,
        inside: SocketAddr::new(IpAddr::V4(address.ok_or_else(missing)?.0), PORT),
        published: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port.ok_or_else(missing)?.host_port),
    })
}

/// Made, and removed again.
async fn networks(engine: &Engine, count: usize) -> longshore::Result<Duration> {
    let begin = Instant::now();
    make(engine, count).await?;
    remove(engine, count).await?;
    Ok(begin.elapsed() / count.max(1) as u32)
}

/// With a container that was on each of them: its bridge comes with the first.
async fn used(engine: &Engine, name: &str, count: usize) -> longshore::Result<Duration> {
    let begin = Instant::now();
    make(engine, count).await?;
    for number in 0..count {
        let network = many(number);
        engine
            .containers()
            .connect(name, &network, EndpointSpec::default())
            .await?;
        engine.containers().disconnect(name, &network).await?;
    }
    remove(engine, count).await?;
    Ok(begin.elapsed() / count.max(1) as u32)
}

async fn make(engine: &Engine, count: usize) -> longshore::Result<()> {
    for number in 0..count {
        engine.networks().create(NetworkSpec::bridge(many(number))).await?;
    }
    Ok(())
}

async fn remove(engine: &Engine, count: usize) -> longshore::Result<()> {
    for number in 0..count {
        engine.networks().remove(&many(number)).await?;
    }
    Ok(())
}

fn many(number: usize) -> String {
    format!("many-{number}")
}
