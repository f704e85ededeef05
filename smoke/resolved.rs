//! A host whose names systemd-resolved resolves.

use crate::container::{Host, world_of};
use crate::world::World;

/// What it is told of the bridge, and that it finds VMs both ways, until nobody answers any more.
pub fn finds_vms(world: &World) {
    let world = &world_of(world);
    let host = Host::boot(world);
    host.run("systemctl", &["start", "systemd-resolved"]).output().ok();
    let before = status(&host);
    host.banger(&["vm", "create", "--name", "box"]).limit(60).output().ok();
    let address = host.vm("box").address;
    is_found(&host, &address);
    println!("| resolved | `resolvectl query box.vm` | {address} |");
    let link = host.run("resolvectl", &["status", "br-banger"]).output().ok().text();
    for told in ["~vm", "in-addr.arpa", "-DefaultRoute"] {
        assert!(link.contains(told), "{told} is not told: {link}");
    }
    refuses(&host, "nobody.vm");
    host.run("systemctl", &["restart", "bangerd"]).output().ok();
    host.wait_for_sockets();
    host.banger(&["vm", "egress", "box"]).output().ok();
    is_found(&host, &address);
    println!("| resolved | after a restart of the daemon | {address} |");
    host.banger(&["daemon", "stop"]).output().ok();
    let link = host.run("resolvectl", &["status", "br-banger"]).output().ok().text();
    assert!(!link.contains("~vm"), "it is still pointed at nobody: {link}");
    host.run("systemctl", &["start", "bangerd-root", "bangerd"]).output().ok();
    host.wait_for_sockets();
    host.banger(&["vm", "egress", "box"]).output().ok();
    is_found(&host, &address);
    host.banger(&["vm", "delete", "box"]).output().ok();
    assert_eq!(status(&host), before, "it is not as it was");
    println!("| resolved | after the last VM | as before |");
}

fn status(host: &Host<'_>) -> String {
    host.run("resolvectl", &["status"]).output().ok().text()
}

/// A daemon that has just started tells it a moment later.
fn is_found(host: &Host<'_>, address: &str) {
    let query = |what: &str| host.run("resolvectl", &["query", what]).output();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let found = query("box.vm");
        if found.text().contains(address) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "box.vm is not found: {}{}", found.text(), found.stderr);
        // Another process's progress: no event tells.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let named = query(address).ok().text();
    assert!(named.contains("box.vm"), "{named}");
}

fn refuses(host: &Host<'_>, name: &str) {
    let asked = host.run("resolvectl", &["query", name]).output();
    assert!(asked.code != 0 && asked.stderr.contains("not found"), "{}{}", asked.text(), asked.stderr);
}
