//! `doctor` on this host.

use crate::world::World;

/// One line where all is well; what is wrong with what to type; nothing is started by asking.
pub fn says_what_is_wrong(world: &World) {
    let without = world.banger(&["doctor"]).output().ok().text();
    assert!(without.contains("warn  daemon") && without.contains("banger daemon start"), "{without}");
    world.banger(&["daemon", "status"]).output().ends(6);
    world.start();
    let healthy = world.banger(&["doctor"]).output().ok().text();
    println!("| {healthy}");
    assert!(healthy.starts_with("healthy: ") && healthy.lines().count() == 1, "{healthy}");
    let all = world.banger(&["doctor", "-v"]).output().ok().text();
    for check in ["monitor", "kvm", "firecracker", "tun", "nft", "room", "helper", "snapshots"] {
        assert!(all.contains(&format!("ok    {check}")), "{check} is not in:\n{all}");
    }
    // One that is asked for and not there: which folder, and what to do.
    let asked = world.with("BANGER_VMM", "firecracker");
    if std::path::Path::new("/usr/local/bin/firecracker").exists() {
        return;
    }
    let rows = asked.banger(&["doctor", "--json"]).output().ends(1).json();
    let failed: Vec<&serde_json::Value> =
        rows.as_array().expect("an array").iter().filter(|row| row["verdict"] == "failed").collect();
    assert_eq!(failed.len(), 2, "{rows}");
    for row in failed {
        let seen = row["seen"].as_str().expect("text");
        assert!(seen.contains("firecracker is not in /usr/local/bin") && row["hint"].is_string(), "{row}");
    }
}
