//! From the limits of the OCI runtime specification to the files of both versions. Pure.
//!
//! Sources: the kernel's `Documentation/admin-guide/cgroup-v1/` and `cgroup-v2.rst`, and the conversions that runc uses, so
//! that the same numbers mean the same thing here.

use std::borrow::Cow;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources, LinuxThrottleDevice,
};

use crate::error::{Error, Result};
use crate::sys::order;

/// One file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The controller whose hierarchy holds the file.
    pub(crate) controller: Cow<'static, str>,
    /// The file's name.
    pub(crate) file: Cow<'static, str>,
    /// What to write.
    pub(crate) value: String,
    /// The limit in the user's words.
    pub(crate) what: &'static str,
    /// The value is what a new cgroup has anyway, so no hierarchy is needed for it.
    pub(crate) lifts: bool,
    /// The warning that takes the limit's place where the kernel has no such file. Without it, that is an error.
    pub(crate) optional: Option<&'static str>,
}

/// A limit that this version has no file for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The controller that it would belong to.
    pub(crate) controller: Cow<'static, str>,
    /// The limit in the user's words.
    pub(crate) what: &'static str,
    /// What would be needed.
    pub(crate) needs: &'static str,
}

/// What to write, in order, and what cannot be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) settings: Vec<Setting>,
    pub(crate) refusals: Vec<Refusal>,
    /// Limits that Docker, too, leaves out with a warning.
    pub(crate) warnings: Vec<String>,
}

const NO_SWAP: &str = "the kernel does not account swap, or the cgroup lacks it: memory is limited without swap";
const NO_SWAPPINESS: &str = "the kernel has no swappiness per cgroup: memory swappiness is left out";
const NO_OOM_CONTROL: &str = "the kernel cannot switch the OOM killer off for a cgroup: that is left out";
const NO_RESERVATION: &str = "the kernel has no soft memory limit: the memory reservation is left out";

const NO_WEIGHT: &str = "the kernel has no block I/O weight per cgroup (its BFQ scheduler): the weight is left out";
const NO_RATE: &str =
    "the kernel does not limit block I/O per cgroup, or the controller is missing: the rate is left out";
const NO_HUGE_PAGES: &str =
    "the kernel has no huge pages of that size, or does not count them per cgroup: the limit is left out";

impl Plan {
    fn set(
        &mut self,
        controller: &'static str,
        file: &'static str,
        value: impl ToString,
        what: &'static str,
    ) -> &mut Setting {
        self.settings.push(Setting {
            controller: controller.into(),
            file: file.into(),
            value: value.to_string(),
            what,
            lifts: false,
            optional: None,
        });
        let last = self.settings.len() - 1;
        &mut self.settings[last]
    }

    pub(crate) fn refuse(&mut self, controller: &'static str, what: &'static str, needs: &'static str) {
        self.refusals.push(Refusal {
            controller: controller.into(),
            what,
            needs,
        });
    }
}

/// Plans for a hierarchy of version 2. `current_limit` is the memory limit in force, which `swap` without `limit` refers to.
pub(crate) fn plan_v2(resources: &LinuxResources, current_limit: Option<i64>) -> Result<Plan> {
    let mut plan = Plan::default();
    if let Some(memory) = resources.memory() {
        memory_v2(&mut plan, memory, current_limit)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_v2(&mut plan, cpu);
        cpuset(&mut plan, cpu);
    }
    pids(&mut plan, resources);
    // Device rules have no file: see `devices`.
    if let Some(block_io) = resources.block_io() {
        block_io_v2(&mut plan, block_io);
    }
    huge_pages(&mut plan, resources, "max");
    refuse_unknown(&mut plan, resources);
    unified(&mut plan, resources)?;
    Ok(plan)
}

/// Plans for hierarchies of version 1.
pub(crate) fn plan_v1(resources: &LinuxResources) -> Result<Plan> {
    let mut plan = Plan::default();
    if let Some(memory) = resources.memory() {
        memory_v1(&mut plan, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_v1(&mut plan, cpu);
        cpuset(&mut plan, cpu);
    }
    pids(&mut plan, resources);
    for rule in resources.devices().iter().flatten() {
        device_v1(&mut plan, rule);
    }
    if let Some(block_io) = resources.block_io() {
        block_io_v1(&mut plan, block_io);
    }
    huge_pages(&mut plan, resources, "limit_in_bytes");
    refuse_unknown(&mut plan, resources);
    if resources.unified().as_ref().is_some_and(|files| !files.is_empty()) {
        plan.refuse("unified", "files of cgroup version 2", "a host with cgroup version 2");
    }
    Ok(plan)
}

/// Shares of version 1 (2 to 262144, 1024 by default) as a weight of version 2 (1 to 10000, 100 by default).
///
/// A quadratic fit in the logarithm through minimum, default and maximum. The linear formula of old turned the default of
/// 1024 into 39, less than a neighbour without any setting. 0 means unset.
pub(crate) fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            // A hair below, so that a rounding error does not lift an exact power to the next number.
            (10f64.powf(exponent) - 1e-9).ceil() as u64
        }
    }
}

/// The sum of memory and swap, as the specification has it, as swap alone, as version 2 has it. `None`: unset.
pub(crate) fn swap_alone(swap: i64, limit: Option<i64>) -> Result<Option<i64>> {
    match (swap, limit) {
        (0, _) => Ok(None),
        (-1, _) => Ok(Some(-1)),
        (..=-2, _) => Err(Error::invalid(format!("invalid memory and swap limit: {swap}"))),
        (_, None | Some(..=0)) => Err(Error::invalid("a swap limit needs a memory limit")),
        (_, Some(limit)) if swap < limit => Err(Error::invalid(format!(
            "memory and swap together ({swap}) cannot be less than memory ({limit})"
        ))),
        (_, Some(limit)) => Ok(Some(swap - limit)),
    }
}

fn memory_v2(plan: &mut Plan, memory: &LinuxMemory, current_limit: Option<i64>) -> Result<()> {
    let limit = checked(memory.limit(), "memory limit")?;
    if let Some(limit) = limit {
        plan.set("memory", "memory.max", max_or(limit), "memory limit").lifts = limit < 0;
    }
    if let Some(low) = checked(memory.reservation(), "memory reservation")? {
        let setting = plan.set("memory", "memory.low", max_or(low), "memory reservation");
        setting.optional = Some(NO_RESERVATION);
        setting.lifts = low < 0;
    }
    // Without a limit for memory there is none for swap either, unless it is said.
    let asked = memory
        .swap()
        .filter(|swap| *swap != 0)
        .or(limit.filter(|limit| *limit < 0));
    if let Some(swap) = asked.map_or(Ok(None), |swap| swap_alone(swap, limit.or(current_limit)))? {
        let setting = plan.set("memory", "memory.swap.max", max_or(swap), "swap limit");
        setting.optional = Some(NO_SWAP);
        setting.lifts = swap < 0;
    }
    if memory.swappiness().is_some() {
        plan.warnings.push(NO_SWAPPINESS.to_owned());
    }
    if memory.disable_oom_killer() == Some(true) {
        plan.warnings.push(NO_OOM_CONTROL.to_owned());
    }
    refuse_memory(plan, memory);
    Ok(())
}

fn memory_v1(plan: &mut Plan, memory: &LinuxMemory) -> Result<()> {
    let limit = checked(memory.limit(), "memory limit")?;
    if let Some(limit) = limit {
        plan.set("memory", "memory.limit_in_bytes", limit, "memory limit").lifts = limit < 0;
    }
    if let Some(low) = checked(memory.reservation(), "memory reservation")? {
        let setting = plan.set("memory", "memory.soft_limit_in_bytes", low, "memory reservation");
        setting.optional = Some(NO_RESERVATION);
        setting.lifts = low < 0;
    }
    let swap = memory
        .swap()
        .filter(|swap| *swap != 0)
        .or(limit.filter(|limit| *limit < 0));
    if let Some(swap) = swap {
        if let Some(limit) = limit {
            swap_alone(swap, Some(limit))?;
        }
        let setting = plan.set("memory", "memory.memsw.limit_in_bytes", swap, "swap limit");
        setting.optional = Some(NO_SWAP);
        setting.lifts = swap < 0;
    }
    if let Some(swappiness) = memory.swappiness() {
        if swappiness > 100 {
            return Err(Error::invalid(format!(
                "memory swappiness {swappiness} is not between 0 and 100"
            )));
        }
        plan.set("memory", "memory.swappiness", swappiness, "memory swappiness")
            .optional = Some(NO_SWAPPINESS);
    }
    if memory.disable_oom_killer() == Some(true) {
        plan.set("memory", "memory.oom_control", 1, "switching the OOM killer off")
            .optional = Some(NO_OOM_CONTROL);
    }
    refuse_memory(plan, memory);
    Ok(())
}

/// What has been withdrawn from kernels.
fn refuse_memory(plan: &mut Plan, memory: &LinuxMemory) {
    if memory.kernel().is_some_and(|limit| limit > 0) {
        plan.refuse(
            "memory",
            "kernel memory limit",
            "nothing: kernels have withdrawn it (5.16), use the memory limit",
        );
    }
    if memory.kernel_tcp().is_some_and(|limit| limit > 0) {
        plan.refuse(
            "memory",
            "TCP memory limit",
            "nothing: it is not implemented, use the memory limit",
        );
    }
}

fn cpu_v2(plan: &mut Plan, cpu: &LinuxCpu) {
    if let Some(weight) = cpu.shares().map(cpu_weight).filter(|weight| *weight != 0) {
        plan.set("cpu", "cpu.weight", weight, "CPU shares");
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.map_or_else(|| "max".to_owned(), max_or);
        let lifts = quota == "max" && period.is_none();
        let value = period.map_or_else(|| quota.clone(), |period| format!("{quota} {period}"));
        plan.set("cpu", "cpu.max", value, "CPU quota").lifts = lifts;
    }
    if let Some(burst) = cpu.burst() {
        plan.set("cpu", "cpu.max.burst", burst, "CPU burst");
    }
    if let Some(idle) = cpu.idle() {
        plan.set("cpu", "cpu.idle", idle, "CPU idle");
    }
    if cpu.realtime_runtime().is_some_and(|runtime| runtime != 0) || cpu.realtime_period().is_some_and(|p| p != 0) {
        plan.refuse("cpu", "realtime CPU limits", "the cpu controller of cgroup version 1");
    }
}

fn cpu_v1(plan: &mut Plan, cpu: &LinuxCpu) {
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        plan.set("cpu", "cpu.shares", shares, "CPU shares");
    }
    if let Some(period) = cpu.period().filter(|period| *period != 0) {
        plan.set("cpu", "cpu.cfs_period_us", period, "CPU period");
    }
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        plan.set("cpu", "cpu.cfs_quota_us", quota.max(-1), "CPU quota").lifts = quota < 0;
    }
    if let Some(burst) = cpu.burst() {
        plan.set("cpu", "cpu.cfs_burst_us", burst, "CPU burst");
    }
    if let Some(idle) = cpu.idle() {
        plan.set("cpu", "cpu.idle", idle, "CPU idle");
    }
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        plan.set("cpu", "cpu.rt_period_us", period, "realtime CPU period");
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        plan.set("cpu", "cpu.rt_runtime_us", runtime, "realtime CPU time");
    }
}

fn cpuset(plan: &mut Plan, cpu: &LinuxCpu) {
    if let Some(cpus) = cpu.cpus().as_deref().filter(|cpus| !cpus.is_empty()) {
        plan.set("cpuset", "cpuset.cpus", cpus, "CPU set");
    }
    if let Some(mems) = cpu.mems().as_deref().filter(|mems| !mems.is_empty()) {
        plan.set("cpuset", "cpuset.mems", mems, "memory node set");
    }
}

/// Both versions agree on this one. Zero and less mean no limit, as Docker has it.
fn pids(plan: &mut Plan, resources: &LinuxResources) {
    if let Some(pids) = resources.pids() {
        let limit = pids.limit();
        let value = if limit <= 0 {
            "max".to_owned()
        } else {
            limit.to_string()
        };
        plan.set("pids", "pids.max", value, "pids limit").lifts = limit <= 0;
    }
}

fn device_v1(plan: &mut Plan, rule: &LinuxDeviceCgroup) {
    let letter = match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::B => 'b',
        LinuxDeviceType::C | LinuxDeviceType::U => 'c',
        _ => 'a',
    };
    let number = |value: Option<i64>| {
        value
            .filter(|n| *n >= 0)
            .map_or_else(|| "*".to_owned(), |n| n.to_string())
    };
    let access = rule
        .access()
        .as_deref()
        .filter(|access| !access.is_empty())
        .unwrap_or("rwm");
    let value = format!("{letter} {}:{} {access}", number(rule.major()), number(rule.minor()));
    let file = if rule.allow() { "devices.allow" } else { "devices.deny" };
    plan.set("devices", file, value, "device rules");
}

/// Weights of version 1 are 10 to 1000, those of version 2 are 1 to 10000. 0 means unset.
pub(crate) fn io_weight(weight: u16) -> u64 {
    match u64::from(weight) {
        0 => 0,
        weight => 1 + (weight.clamp(10, 1000) - 10) * 9999 / 990,
    }
}

fn block_io_v2(plan: &mut Plan, limits: &LinuxBlockIo) {
    let what = "block I/O weight";
    if let Some(weight) = limits.weight().map(io_weight).filter(|weight| *weight != 0) {
        plan.set("io", "io.weight", format!("default {weight}"), what).optional = Some(NO_WEIGHT);
    }
    for device in limits.weight_device().iter().flatten() {
        if let Some(weight) = device.weight().map(io_weight).filter(|weight| *weight != 0) {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            plan.set("io", "io.weight", value, what).optional = Some(NO_WEIGHT);
        }
    }
    for (word, what, devices) in throttles(limits) {
        for device in devices {
            let value = format!("{}:{} {word}={}", device.major(), device.minor(), device.rate());
            plan.set("io", "io.max", value, what).optional = Some(NO_RATE);
        }
    }
}

fn block_io_v1(plan: &mut Plan, limits: &LinuxBlockIo) {
    let what = "block I/O weight";
    if let Some(weight) = limits.weight().filter(|weight| *weight != 0) {
        plan.set("blkio", "blkio.bfq.weight", weight, what).optional = Some(NO_WEIGHT);
    }
    for device in limits.weight_device().iter().flatten() {
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            plan.set("blkio", "blkio.bfq.weight_device", value, what).optional = Some(NO_WEIGHT);
        }
    }
    for (word, what, devices) in throttles(limits) {
        let file = match word {
            "rbps" => "blkio.throttle.read_bps_device",
            "wbps" => "blkio.throttle.write_bps_device",
            "riops" => "blkio.throttle.read_iops_device",
            _ => "blkio.throttle.write_iops_device",
        };
        for device in devices {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            plan.set("blkio", file, value, what).optional = Some(NO_RATE);
        }
    }
}

/// The rates, each by its word of version 2.
fn throttles(limits: &LinuxBlockIo) -> [(&'static str, &'static str, &[LinuxThrottleDevice]); 4] {
    [
        (
            "rbps",
            "read rate",
            limits.throttle_read_bps_device().as_deref().unwrap_or(&[]),
        ),
        (
            "wbps",
            "write rate",
            limits.throttle_write_bps_device().as_deref().unwrap_or(&[]),
        ),
        (
            "riops",
            "read operations",
            limits.throttle_read_iops_device().as_deref().unwrap_or(&[]),
        ),
        (
            "wiops",
            "write operations",
            limits.throttle_write_iops_device().as_deref().unwrap_or(&[]),
        ),
    ]
}

/// A file for each size of page; the two versions differ in its last word alone.
fn huge_pages(plan: &mut Plan, resources: &LinuxResources, last: &str) {
    for limit in resources.hugepage_limits().iter().flatten() {
        let setting = plan.set("hugetlb", "", limit.limit(), "huge page limit");
        setting.file = format!("hugetlb.{}.{last}", limit.page_size()).into();
        setting.optional = Some(NO_HUGE_PAGES);
    }
}

fn refuse_unknown(plan: &mut Plan, resources: &LinuxResources) {
    const LATER: &str = "nothing: this driver does not implement it";
    if resources.network().is_some() {
        plan.refuse("net_cls", "network classes", LATER);
    }
    if resources.rdma().as_ref().is_some_and(|limits| !limits.is_empty()) {
        plan.refuse("rdma", "RDMA limits", LATER);
    }
}

/// Files of version 2 by name. The core's own files (`cgroup.*`) would let a specification move or kill processes.
fn unified(plan: &mut Plan, resources: &LinuxResources) -> Result<()> {
    let Some(files) = resources.unified() else {
        return Ok(());
    };
    let mut names: Vec<_> = files.iter().collect();
    order::sort(&mut names);
    for (name, value) in names {
        let plain = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        let controller = name.split('.').next().unwrap_or_default();
        if !plain || !name.contains('.') || controller.is_empty() || controller == "cgroup" {
            return Err(Error::invalid(format!("{name:?} is not a limit of cgroup version 2")));
        }
        plan.settings.push(Setting {
            controller: controller.to_owned().into(),
            file: name.clone().into(),
            value: value.clone(),
            what: "files of cgroup version 2",
            lifts: false,
            optional: None,
        });
    }
    Ok(())
}

/// 0 means unset, -1 unlimited; the rest below is a mistake.
fn checked(value: Option<i64>, what: &str) -> Result<Option<i64>> {
    match value {
        Some(..=-2) => Err(Error::invalid(format!("invalid {what}: {}", value.unwrap_or_default()))),
        Some(0) | None => Ok(None),
        value => Ok(value),
    }
}

fn max_or(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResourcesBuilder};

    fn memory(limit: i64, reservation: i64, swap: i64) -> LinuxResources {
        let memory = LinuxMemoryBuilder::default()
            .limit(limit)
            .reservation(reservation)
            .swap(swap)
            .build()
            .unwrap();
        LinuxResourcesBuilder::default().memory(memory).build().unwrap()
    }

    fn cpu(cpu: LinuxCpuBuilder) -> LinuxResources {
        LinuxResourcesBuilder::default()
            .cpu(cpu.build().unwrap())
            .build()
            .unwrap()
    }

    fn files(plan: Plan) -> Vec<(String, String, bool)> {
        plan.settings
            .into_iter()
            .map(|s| (s.file.into_owned(), s.value, s.lifts))
            .collect()
    }

    fn is(file: &str, value: &str, lifts: bool) -> (String, String, bool) {
        (file.to_owned(), value.to_owned(), lifts)
    }

    #[test]
    fn shares_become_the_weights_of_runc() {
        for (shares, weight) in [
            (0, 0),
            (1, 1),
            (2, 1),
            (3, 2),
            (10, 4),
            (100, 17),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (10_000, 627),
            (262_143, 10_000),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(cpu_weight(shares), weight, "{shares} shares");
        }
        let weights: Vec<_> = (2..=262_144u64).step_by(97).map(cpu_weight).collect();
        assert!(weights.is_sorted());
    }

    #[test]
    fn swap_of_version_two_excludes_memory() {
        assert_eq!(swap_alone(0, None).unwrap(), None);
        assert_eq!(swap_alone(-1, None).unwrap(), Some(-1));
        assert_eq!(swap_alone(300, Some(100)).unwrap(), Some(200));
        assert_eq!(swap_alone(100, Some(100)).unwrap(), Some(0));
        for (swap, limit) in [(100, None), (100, Some(-1)), (99, Some(100)), (-2, Some(100))] {
            assert!(swap_alone(swap, limit).is_err(), "{swap} {limit:?}");
        }
    }

    #[test]
    fn memory_in_both_versions() {
        type Files<'a> = &'a [(&'a str, &'a str, bool)];
        let table: [(LinuxResources, Files<'_>, Files<'_>); 4] = [
            (memory(0, 0, 0), &[], &[]),
            (
                memory(64, 32, 128),
                &[
                    ("memory.max", "64", false),
                    ("memory.low", "32", false),
                    ("memory.swap.max", "64", false),
                ],
                &[
                    ("memory.limit_in_bytes", "64", false),
                    ("memory.soft_limit_in_bytes", "32", false),
                    ("memory.memsw.limit_in_bytes", "128", false),
                ],
            ),
            (
                memory(64, 0, -1),
                &[("memory.max", "64", false), ("memory.swap.max", "max", true)],
                &[
                    ("memory.limit_in_bytes", "64", false),
                    ("memory.memsw.limit_in_bytes", "-1", true),
                ],
            ),
            (
                memory(-1, 0, 0),
                &[("memory.max", "max", true), ("memory.swap.max", "max", true)],
                &[
                    ("memory.limit_in_bytes", "-1", true),
                    ("memory.memsw.limit_in_bytes", "-1", true),
                ],
            ),
        ];
        for (resources, v2, v1) in table {
            let all = |list: &[(&str, &str, bool)]| list.iter().map(|(f, v, l)| is(f, v, *l)).collect::<Vec<_>>();
            assert_eq!(files(plan_v2(&resources, None).unwrap()), all(v2));
            assert_eq!(files(plan_v1(&resources).unwrap()), all(v1));
        }
        let swap_only = memory(0, 0, 128);
        assert!(plan_v2(&swap_only, None).is_err());
        assert_eq!(
            files(plan_v2(&swap_only, Some(100)).unwrap()),
            [is("memory.swap.max", "28", false)]
        );
        for bad in [memory(-2, 0, 0), memory(0, -5, 0), memory(64, 0, 32)] {
            assert!(plan_v1(&bad).is_err() && plan_v2(&bad, None).is_err());
        }
    }

    #[test]
    fn swappiness_is_of_version_one() {
        let of = |n| {
            let memory = LinuxMemoryBuilder::default().swappiness(n as u64).build().unwrap();
            LinuxResourcesBuilder::default().memory(memory).build().unwrap()
        };
        assert_eq!(files(plan_v1(&of(10)).unwrap()), [is("memory.swappiness", "10", false)]);
        assert!(plan_v1(&of(101)).is_err());
        assert_eq!(plan_v2(&of(10), None).unwrap().warnings.len(), 1);
    }

    #[test]
    fn cpu_in_both_versions() {
        let build = LinuxCpuBuilder::default;
        let both = |b: LinuxCpuBuilder| {
            let resources = cpu(b);
            (
                files(plan_v2(&resources, None).unwrap()),
                files(plan_v1(&resources).unwrap()),
            )
        };
        assert_eq!(
            both(build().shares(512u64)),
            (
                vec![is("cpu.weight", "59", false)],
                vec![is("cpu.shares", "512", false)]
            )
        );
        assert_eq!(
            both(build().quota(50_000i64).period(100_000u64)),
            (
                vec![is("cpu.max", "50000 100000", false)],
                vec![
                    is("cpu.cfs_period_us", "100000", false),
                    is("cpu.cfs_quota_us", "50000", false)
                ]
            )
        );
        assert_eq!(
            both(build().quota(-1i64)),
            (
                vec![is("cpu.max", "max", true)],
                vec![is("cpu.cfs_quota_us", "-1", true)]
            )
        );
        assert_eq!(both(build().period(5000u64)).0, [is("cpu.max", "max 5000", false)]);
        assert_eq!(both(build().quota(5000i64)).0, [is("cpu.max", "5000", false)]);
        let sets = vec![is("cpuset.cpus", "0-1", false), is("cpuset.mems", "0", false)];
        assert_eq!(both(build().cpus("0-1").mems("0")), (sets.clone(), sets));
    }

    #[test]
    fn pids_below_one_mean_no_limit() {
        for (limit, value, lifts) in [
            (-1, "max", true),
            (0, "max", true),
            (1, "1", false),
            (100, "100", false),
        ] {
            let pids = LinuxPidsBuilder::default().limit(limit as i64).build().unwrap();
            let resources = LinuxResourcesBuilder::default().pids(pids).build().unwrap();
            assert_eq!(files(plan_v1(&resources).unwrap()), [is("pids.max", value, lifts)]);
            assert_eq!(
                files(plan_v2(&resources, None).unwrap()),
                [is("pids.max", value, lifts)]
            );
        }
    }

    #[test]
    fn unified_files_cannot_leave_their_cgroup() {
        let of = |name: &str| {
            let files = std::collections::HashMap::from([(name.to_owned(), "1".to_owned())]);
            LinuxResourcesBuilder::default().unified(files).build().unwrap()
        };
        assert_eq!(
            files(plan_v2(&of("memory.high"), None).unwrap()),
            [is("memory.high", "1", false)]
        );
        for bad in ["cgroup.procs", "../memory.max", "memory", ".max", "a/b.c", ""] {
            assert!(plan_v2(&of(bad), None).is_err(), "{bad}");
        }
        assert_eq!(plan_v1(&of("memory.high")).unwrap().refusals.len(), 1);
    }

    #[test]
    fn device_rules_in_the_words_of_version_one() {
        use oci_spec::runtime::LinuxDeviceCgroupBuilder;
        let deny = LinuxDeviceCgroupBuilder::default().allow(false).build().unwrap();
        let null = LinuxDeviceCgroupBuilder::default().allow(true).typ(LinuxDeviceType::C);
        let null = null.major(1i64).minor(3i64).access("rw").build().unwrap();
        let resources = LinuxResourcesBuilder::default()
            .devices(vec![deny, null])
            .build()
            .unwrap();
        assert_eq!(
            files(plan_v1(&resources).unwrap()),
            [
                is("devices.deny", "a *:* rwm", false),
                is("devices.allow", "c 1:3 rw", false)
            ]
        );
        assert_eq!(plan_v2(&resources, None).unwrap(), Plan::default());
    }
    #[test]
    fn h17_block_io_in_the_words_of_both_versions() {
        use oci_spec::runtime::{LinuxBlockIoBuilder, LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder};
        let rate = |rate| {
            LinuxThrottleDeviceBuilder::default()
                .major(8i64)
                .minor(0i64)
                .rate(rate)
                .build()
                .unwrap()
        };
        let weight = LinuxWeightDeviceBuilder::default()
            .major(8i64)
            .minor(16i64)
            .weight(1000u16);
        let limits = LinuxBlockIoBuilder::default()
            .weight(500u16)
            .weight_device(vec![weight.build().unwrap()])
            .throttle_read_bps_device(vec![rate(1u64 << 20)])
            .throttle_write_iops_device(vec![rate(50u64)])
            .build()
            .unwrap();
        let resources = LinuxResourcesBuilder::default().block_io(limits).build().unwrap();
        assert_eq!(
            files(plan_v2(&resources, None).unwrap()),
            [
                is("io.weight", "default 4950", false),
                is("io.weight", "8:16 10000", false),
                is("io.max", "8:0 rbps=1048576", false),
                is("io.max", "8:0 wiops=50", false),
            ]
        );
        assert_eq!(
            files(plan_v1(&resources).unwrap()),
            [
                is("blkio.bfq.weight", "500", false),
                is("blkio.bfq.weight_device", "8:16 1000", false),
                is("blkio.throttle.read_bps_device", "8:0 1048576", false),
                is("blkio.throttle.write_iops_device", "8:0 50", false),
            ]
        );
        assert_eq!([0, 10, 1000].map(io_weight), [0, 1, 10_000]);
    }

    #[test]
    fn h17_huge_pages_in_the_words_of_both_versions() {
        use oci_spec::runtime::LinuxHugepageLimitBuilder;
        let limit = LinuxHugepageLimitBuilder::default().page_size("2MB").limit(4i64 << 20);
        let resources = LinuxResourcesBuilder::default().hugepage_limits(vec![limit.build().unwrap()]);
        let resources = resources.build().unwrap();
        assert_eq!(
            files(plan_v2(&resources, None).unwrap()),
            [is("hugetlb.2MB.max", "4194304", false)]
        );
        let v1 = files(plan_v1(&resources).unwrap());
        assert_eq!(v1, [is("hugetlb.2MB.limit_in_bytes", "4194304", false)]);
    }
}
