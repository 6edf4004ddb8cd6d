/// Says how much memory is resident. The kernel counts what it says in `/proc/self/status` per processor, some hundred
/// kilobytes off; this counts each page. Source: proc_pid_smaps(5).
fn resident() {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    println!("resident {}", line.unwrap_or("unknown").trim().trim_end_matches(" kB"));
}
