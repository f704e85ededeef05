//! banger on a real machine: one scenario per promise.
//!
//! Each scenario has a network namespace, a `BANGER_HOME` and a time limit of its own and runs in a
//! process of its own, so that a scenario that hangs or panics takes nothing with it. Everything is
//! real: daemon, helper, QEMU, kernel, image, ssh. `smoke/run` builds what is tested and calls this.

#![forbid(unsafe_code)]
// Talking to the person who runs the tests is what this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

/// Kernel and image, made once, and how a scenario gets them.
mod base;
/// Commands over both carriers, jobs, copies.
mod carriers;
/// What can leak, counted.
mod census;
/// Commands with input, output and a limit.
mod command;
/// A host that systemd runs.
mod container;
/// Frames straight to the daemon and the helper.
mod direct;
/// Random numbers from a seed.
mod noise;
/// Blocks of pages.
mod page;
/// Plays scenarios and counts.
mod runner;
/// A person who types.
mod session;
/// Many stored VMs.
mod stored;
/// What strace saw of the helper.
mod traced;
/// What one scenario lives in.
mod world;

/// A second network namespace with servers.
mod internet;
/// Shells that complete.
mod shells;
/// A site with a certificate.
mod site;
/// A terminal and what is typed into it.
mod terminal;

/// What a guest can reach.
mod apart;
/// Where guests get under each policy.
mod flows;
/// The arrows between the rooms.
mod imports;

/// Images made of VMs' disks.
mod commit;
/// What shells complete.
mod completion;
/// Starting, finding and losing daemon and helper.
mod daemons;
/// The pages, run.
mod docs_run;
/// What is wrong with a host.
mod doctor;
/// Exit codes, quoting and streams of guest commands.
mod exec;
/// The monitor of the tests.
mod fake;
/// Every step of a VM's life, failing and dying.
mod faults;
/// Real Firecracker VMs.
mod firecracker;
/// Guests that say too much.
mod floods;
/// The helper under random requests.
mod fuzz;
/// What happens inside a guest.
mod guests;
/// Every page of help and its examples.
mod help_walk;
/// What hostile and mistaken callers are told.
mod hostile;
/// VMs that nobody uses.
mod idle;
/// Kernels and images.
mod images;
/// A system install.
mod installed;
/// Random kills while VMs live.
mod kills;
/// What is left when a VM is gone.
mod leaks;
/// Restart, set, wait, stats, prune, limits, lifetimes.
mod lifecycle;
/// Language models' tools.
mod mcp;
/// Who a monitor is and what it may.
mod monitor;
/// Names of VMs.
mod names;
/// The one static file.
mod one_file;
/// The .deb on a host with systemd.
mod packaged;
/// Packages, man pages, completions.
mod packages;
/// Ports of the host that lead into a guest.
mod ports;
/// Releases: signed, verified, never twice.
mod publishing;
/// A host that restarts.
mod reboot;
/// A kernel and an image of our own.
mod recipes;
/// Paths of the caller's folder.
mod relative;
/// Another machine's daemon.
mod remote;
/// A host whose names systemd-resolved resolves.
mod resolved;
/// The rules among those of others.
mod rules;
/// Secrets that stay out of the guest.
mod secrets;
/// Tasks of a scheduler.
mod slurm;
/// Images with next to nothing in them.
mod small_images;
/// Disks in a guest whose kernel has device-mapper.
mod snapshots;
/// Hostile bytes at both sockets.
mod sockets;
/// `ssh NAME.vm` and who else goes by ssh's configuration.
mod ssh_config;
/// The store and its compatibility check.
mod store;
/// Scopes that systemd makes.
mod systemd;
/// Updates of a system install.
mod updated;

/// Patches that harm.
mod hostile_patches;
/// Repositories on their way.
mod interrupted;
/// How fast a repository gets in.
mod speaks;
mod speed;
/// What comes along with a repository.
mod tools;
/// Repositories in, patches out.
mod workspaces;

/// What can be pulled by name.
mod catalogue;
/// Interrupted pulls, and how fast they are.
mod pulls;
/// A real registry.
mod registry;
/// Trees as text.
mod tree;
/// Images that are hard to get right.
mod tricky;

use runner::Scenario;

/// In the order they are played, in each lane: what is quick and basic first.
const SCENARIOS: &[Scenario] = &[
    Scenario::bare("imports", 20, imports::arrows_point_one_way),
    Scenario::bare("static_binary", 30, one_file::is_static_and_small),
    Scenario::bare("personalities", 60, one_file::starts_under_each_name),
    Scenario::bare("papers", 120, packages::papers_are_right),
    Scenario::bare("packages", 600, packages::are_made),
    Scenario::bare("publishing", 600, publishing::publishes_what_is_right),
    Scenario::bare("autostart_race", 60, daemons::ten_starters_make_one_pair),
    Scenario::bare("daemon_stop_start", 60, daemons::stop_and_start),
    Scenario::bare("doctor", 60, doctor::says_what_is_wrong),
    Scenario::bare("base", 900, base::make),
    Scenario::new("quick_commands", 120, help_walk::is_quick),
    Scenario::new("image_is_clean", 60, images::is_clean_and_journalled),
    Scenario::beside("help_walk", 600, help_walk::every_page),
    Scenario::beside("docs_run", 600, docs_run::every_page),
    Scenario::new("store_check", 60, store::check_answers_0_1_2),
    Scenario::new("bad_input", 90, hostile::bad_input_leaves_no_row),
    Scenario::new("bad_frames", 90, hostile::bad_frames_are_refused),
    Scenario::bare("sockets_under_attack", 240, sockets::are_answered_or_closed),
    Scenario::bare("one_peer_among_others", 60, sockets::one_peer_does_not_starve_another),
    Scenario::bare("helper_fuzzed", 1200, fuzz::helper_fuzzed),
    Scenario::new("fake_vmm_fast", 180, fake::life_and_failures),
    Scenario::new("completion", 240, completion::in_real_shells),
    Scenario::new("silent_guest", 60, fake::silent_guest_is_kept),
    Scenario::new("lifecycle", 240, lifecycle::walk),
    Scenario::new("no_room", 60, lifecycle::without_room),
    Scenario::new("killed_midway", 180, leaks::killed_midway_leaves_nothing),
    Scenario::new("fault_table", 600, faults::every_step_may_fail_or_die),
    Scenario::new("fault_table_jailed", 180, faults::a_jail_may_fail_or_die),
    Scenario::new("faults_without_cgroups", 90, faults::without_cgroups_nothing_is_lost),
    Scenario::new("systemd_scopes", 300, systemd::systemd_scopes),
    Scenario::new("resolved", 300, resolved::finds_vms),
    Scenario::new("installed", 600, installed::from_install_to_purge),
    Scenario::new("updated", 1500, updated::with_a_vm_through_all_of_them),
    Scenario::new("packaged", 600, packaged::lives_and_goes),
    Scenario::new("main_job", 120, exec::main_job),
    Scenario::new("kvm", 60, exec::on_the_cpu_itself),
    Scenario::new("exit_codes", 180, exec::exit_codes),
    Scenario::new("json", 240, speaks::json_is_as_its_schema_says),
    Scenario::new("looks", 120, speaks::looks_as_agreed),
    Scenario::new("streams", 420, exec::streams),
    Scenario::new("carrier_exit_codes", 420, carriers::exit_codes),
    Scenario::new("carrier_agent", 240, carriers::agent),
    Scenario::new("carrier_jobs", 240, carriers::jobs),
    Scenario::new("carrier_copies", 240, carriers::copies),
    Scenario::new("two_at_once_leave_nothing", 180, leaks::two_at_once_leave_nothing),
    Scenario::new("ten_at_once", 240, leaks::ten_at_once),
    Scenario::new("ctrl_c_cleans_up", 120, leaks::ctrl_c_cleans_up),
    Scenario::new("keeper_killed", 120, leaks::killed_keeper_leaves_nothing),
    Scenario::beside("slurm_array", 500, slurm::tasks_end_as_their_commands),
    Scenario::new("vmm_confinement", 180, monitor::is_confined),
    Scenario::new("guests_are_apart", 500, apart::guests_are_apart),
    Scenario::bare("hundred_guests_rules", 60, rules::hundred_guests_cost_the_same),
    Scenario::new("rules_come_back", 60, rules::flushed_or_killed_they_come_back),
    Scenario::new("names", 180, names::are_answered),
    Scenario::new("published_ports", 240, ports::lead_into_the_guest),
    Scenario::new("docker_rules", 180, rules::docker_is_at_home),
    Scenario::new("flows", 600, flows::are_as_granted),
    Scenario::new("secrets", 300, secrets::stay_out_of_the_guest),
    Scenario::beside("workspaces", 600, workspaces::go_in_and_come_out),
    Scenario::new("workspace_tools", 240, tools::come_along),
    Scenario::new("workspace_hostile", 400, hostile_patches::are_refused),
    Scenario::beside("workspace_ctrl_c", 400, interrupted::by_ctrl_c),
    Scenario::beside("workspace_dead_daemon", 400, interrupted::by_a_dead_daemon),
    Scenario::measurement("workspace_speed", 600, speed::beside_rsync_and_tar),
    Scenario::new("ssh_config", 300, ssh_config::has_ssh_find_vms),
    Scenario::new("mcp", 900, mcp::serves_models),
    Scenario::new("remote", 400, remote::does_what_is_done_here),
    Scenario::new("image_registered", 120, images::registered_and_promoted),
    Scenario::new("image_committed", 300, commit::of_a_running_and_a_stopped_vm),
    Scenario::new("image_commit_cut_short", 400, commit::cut_short),
    Scenario::new("image_catalogue", 180, catalogue::sources_are_tried_in_order),
    Scenario::beside("image_trees", 900, tricky::are_as_umoci_unpacks_them),
    Scenario::new("image_pulls_interrupted", 400, pulls::survive_cuts_and_kills),
    Scenario::measurement("image_pull_speed", 600, pulls::beside_skopeo_umoci_and_mkfs),
    Scenario::new("tmp_survives_systemd", 240, guests::tmp_survives_systemd),
    Scenario::new("life_of_a_vm", 240, guests::stop_start_delete),
    Scenario::new("minimal_init", 180, guests::minimal_init),
    Scenario::new("image_of_busybox", 180, small_images::busybox_only),
    Scenario::new("image_of_one_program", 180, small_images::one_program_only),
    Scenario::beside("grows_for_real", 300, lifecycle::grows_for_real),
    Scenario::new("logs_bounded", 240, guests::serial_log_is_bounded),
    Scenario::new("idle_stop", 180, idle::is_stopped),
    Scenario::new("relative_paths", 180, relative::paths_are_of_the_callers_folder),
    Scenario::new("guest_floods", 400, floods::are_bounded),
    Scenario::new("survives_daemon_restart", 240, daemons::vms_survive_a_killed_daemon),
    Scenario::new("survives_host_reboot", 240, reboot::vms_survive_a_reboot),
    Scenario::beside("random_kills", 600, kills::thirty_random_kills),
    Scenario::new("kernel_import_files", 300, images::kernel_from_files_boots),
    Scenario::beside("recipe_kernel", 600, recipes::kernel),
    Scenario::beside("recipe_image", 900, recipes::image),
    Scenario::new("owner_uid_1000", 240, daemons::owner_is_an_ordinary_user),
    Scenario::beside("snapshots", 900, snapshots::in_a_guest),
    Scenario::new("firecracker_main_job", 240, firecracker::main_job),
    Scenario::new("firecracker_life", 600, firecracker::life),
    Scenario::new("firecracker_network", 300, firecracker::network),
    Scenario::new("firecracker_survives", 300, firecracker::survives),
    Scenario::new("firecracker_death", 300, firecracker::death_is_told),
    Scenario::new("jailer_traps", 600, firecracker::traps),
];

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--one") => runner::play_here(SCENARIOS, arguments.get(1).map_or("", String::as_str)),
        Some(tree::FLAG) => tree::print(std::path::Path::new(arguments.get(1).map_or("/", String::as_str))),
        Some(registry::CUTTER) => registry::cut_after(&arguments[1..]),
        Some("--list") => runner::list(SCENARIOS),
        Some(_) | None => runner::run(SCENARIOS, &arguments),
    }
}
