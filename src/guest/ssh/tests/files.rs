//! scp and sftp.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use super::{Pair, text};

#[test]
fn scp_copies_both_ways() {
    let Some(pair) = Pair::start() else { return };
    let bytes: Vec<u8> = (0..5_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
    let (near, far, back) = (pair.path("near"), pair.path("far"), pair.path("back"));
    std::fs::create_dir_all(near.join("folder/inner")).expect("made");
    std::fs::write(near.join("folder/inner/file"), &bytes).expect("written");
    std::fs::write(near.join("folder/a name with blanks"), b"x").expect("written");
    std::fs::set_permissions(near.join("folder/inner/file"), std::fs::Permissions::from_mode(0o750)).expect("set");
    std::fs::create_dir(&far).expect("made");
    let there = format!("{}:{}", pair.address(), far.display());
    let near = near.join("folder").display().to_string();
    let copied = pair.command("scp").args(["-rp", &near, &there]).output().expect("scp runs");
    assert!(copied.status.success(), "{}", text(&copied.stderr));
    let copied = pair.command("scp").args(["-rp", &format!("{there}/folder")]).arg(&back).output();
    let copied = copied.expect("scp runs");
    assert!(copied.status.success(), "{}", text(&copied.stderr));
    assert_eq!(std::fs::read(back.join("inner/file")).expect("there"), bytes);
    assert_eq!(std::fs::read(far.join("folder/a name with blanks")).expect("there"), b"x");
    let mode = std::fs::metadata(back.join("inner/file")).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o750);
    let missing = pair.command("scp").args(["-q", &format!("{there}/no-such"), "/dev/null"]).output();
    let missing = missing.expect("scp runs");
    assert!(!missing.status.success() && text(&missing.stderr).contains("No such file"), "{}", text(&missing.stderr));
}

#[test]
fn sftp_does_what_people_type() {
    let Some(pair) = Pair::start() else { return };
    let folder = pair.path("there");
    std::fs::create_dir(&folder).expect("made");
    std::fs::write(pair.path("local"), "content").expect("written");
    let said = batch(
        &pair,
        &format!(
            "cd {there}\npwd\nmkdir sub\nput {local} sub/one\nrename sub/one sub/two\nln -s two sub/link\n\
             ln sub/two sub/hard\nchmod 600 sub/two\nls -l sub\nget sub/link {there}/got\nrm sub/hard\nrm sub/link\n\
             -mkdir sub\n-rm no-such\n",
            there = folder.display(),
            local = pair.path("local").display()
        ),
    );
    assert!(said.contains(&format!("Remote working directory: {}", folder.display())), "{said}");
    assert!(said.contains("-rw-------") && said.contains("lrwxrwxrwx"), "{said}");
    assert_eq!(std::fs::read(folder.join("got")).expect("there"), b"content");
    assert_eq!(std::fs::read_dir(folder.join("sub")).expect("there").count(), 1);
    let many = folder.join("many");
    std::fs::create_dir(&many).expect("made");
    for number in 0..350 {
        std::fs::write(many.join(format!("file-{number}")), "").expect("written");
    }
    assert_eq!(batch(&pair, &format!("ls -1 {}\n", many.display())).matches("/file-").count(), 350);
}

fn batch(pair: &Pair, lines: &str) -> String {
    let mut command = pair.command("sftp");
    command.args(["-b", "-", &pair.address()]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("sftp runs");
    child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("ended");
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout).to_owned()
}
