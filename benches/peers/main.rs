//! The jobs that users wait for: ours, the same job of each installed peer, and the bare-kernel program, in turn and for
//! several rounds. `docs/measuring.md` tells how to read what comes out.
//!
//!     cargo bench --bench peers -- [--rounds N] [JOB…]
#![allow(
    unsafe_code,
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::print_stdout,
    clippy::print_stderr
)]

#[path = "../../tests/it/frame.rs"]
mod frame;
#[path = "../limits/mod.rs"]
mod limits;
#[path = "../../tests/it/support/mod.rs"]
mod support;

mod api;
mod building;
mod changed;
mod host;
mod images;
mod jobs;
mod keeping;
mod living;
mod measure;
mod networks;
mod ours;
mod page;
mod peers;
mod pull;
mod transfer;
mod worker;

use measure::{Job, Row};

fn main() {
    if let Some(code) = worker::run_role() {
        std::process::exit(code);
    }
    let arguments = Arguments::parse(std::env::args().skip(1));
    let mut host = match host::Host::prepare() {
        Ok(host) => host,
        Err(reason) => {
            eprintln!("cannot measure here: {reason}");
            std::process::exit(2);
        }
    };
    let mut done = Vec::new();
    for name in &arguments.jobs {
        let Some(job) = jobs::by_name(name) else {
            eprintln!("no job {name}; there are: {}", jobs::NAMES.join(", "));
            std::process::exit(2);
        };
        done.push(run(name, job, &mut host, arguments.rounds));
    }
    drop(host);
    page::write(&done);
}

fn run(name: &str, job: jobs::Prepare, host: &mut host::Host, rounds: Option<usize>) -> (String, Vec<Row>) {
    println!("\n{name}");
    let Job {
        about,
        rounds: usual,
        pause,
        contestants,
        mut between,
    } = job(host);
    println!("  {about}");
    let rows = measure::in_turn(contestants, rounds.unwrap_or(usual), pause, &mut between);
    measure::print(&rows);
    (format!("{name}: {about}"), rows)
}

struct Arguments {
    jobs: Vec<String>,
    rounds: Option<usize>,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Self {
        let mut parsed = Self {
            jobs: Vec::new(),
            rounds: None,
        };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--rounds" => parsed.rounds = arguments.next().and_then(|number| number.parse().ok()),
                flag if flag.starts_with('-') => {} // `--bench`, from cargo.
                job => parsed.jobs.push(job.to_owned()),
            }
        }
        if parsed.jobs.is_empty() {
            parsed.jobs = jobs::NAMES.iter().map(|name| (*name).to_owned()).collect();
        }
        parsed
    }
}
