//! The store and its compatibility check.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::command::Run;
use crate::world::World;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// 0 compatible, 1 will migrate, 2 incompatible; a newer store is refused and not changed.
pub fn check_answers_0_1_2(world: &World) {
    let state = world.home().join("state");
    let mirror = state.join("schema.json");
    check(world).output().ends(0);
    world.start();
    check(world).output().ends(0);
    world.banger(&["daemon", "stop"]).output().ok();

    let ours = std::fs::read_to_string(&mirror).expect("schema.json");
    std::fs::write(&mirror, "{\"migrations\": []}").expect("an older mirror");
    check(world).output().ends(1);
    let newer = with_a_migration_more(&ours);
    std::fs::write(&mirror, &newer).expect("a newer mirror");
    check(world).output().ends(2);
    refuses_and_changes_nothing(world, &state);

    // The mirror lost, the store itself newer: the store's word counts.
    add_to_store(&state.join("banger.redb"));
    std::fs::remove_file(&mirror).expect("the mirror is lost");
    let before = migrations(&state.join("banger.redb"));
    world.banger(&["daemon", "start"]).output().refuses(&["0999"]);
    assert_eq!(migrations(&state.join("banger.redb")), before);
}

fn check(world: &World) -> Run {
    world.banger(&["--as", "bangerd", "--check-migrations"])
}

fn refuses_and_changes_nothing(world: &World, state: &Path) {
    let content = |name: &str| std::fs::read(state.join(name)).expect("a file of the store");
    let before = (content("banger.redb"), content("schema.json"));
    world.banger(&["daemon", "start"]).output().refuses(&["0999"]);
    assert!(before == (content("banger.redb"), content("schema.json")), "a newer store was changed");
}

fn with_a_migration_more(mirror: &str) -> String {
    let mut value: serde_json::Value = serde_json::from_str(mirror).expect("schema.json is JSON");
    let applied = value["migrations"].as_array_mut().expect("a list of migrations");
    applied.push("0999-of-tomorrow".into());
    value.to_string()
}

fn add_to_store(path: &Path) {
    let database = Database::open(path).expect("nobody has it open");
    let transaction = database.begin_write().expect("a transaction");
    {
        let mut meta = transaction.open_table(META).expect("the meta table");
        let mut applied = decoded(meta.get("migrations").expect("readable").expect("there").value());
        applied.push("0999-of-tomorrow".into());
        let row = bincode::encode_to_vec(&applied, bincode::config::standard()).expect("encodes");
        meta.insert("migrations", row.as_slice()).expect("written");
    }
    transaction.commit().expect("committed");
}

fn migrations(path: &Path) -> Vec<String> {
    let database = Database::open(path).expect("nobody has it open");
    let meta = database.begin_read().expect("a transaction").open_table(META).expect("the meta table");
    decoded(meta.get("migrations").expect("readable").expect("there").value())
}

fn decoded(row: &[u8]) -> Vec<String> {
    bincode::decode_from_slice(row, bincode::config::standard()).expect("a list of names").0
}
