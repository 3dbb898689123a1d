//! What podmaster got wrong, each as a test that fails on podmaster, and what it got right.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use conclave_tests::etcd::{self, Etcd, Version};
use conclave_tests::gateway::Gateway;
use conclave_tests::observer::Observer;
use conclave_tests::podmaster::{FILE, Place};
use conclave_tests::process::{Process, Signal, processor_time};
use conclave_tests::proxy::{Mode, Proxy};
use conclave_tests::timeline::Timeline;
use conclave_tests::v2_server::V2Server;
use conclave_tests::{Outcome, PATIENCE, binary, eventually, holds_for, pod, scratch};

const POD: &[&str] = &[FILE];
const TTL: Duration = Duration::from_secs(2);
const SHORT: &[&str] = &["--ttl-secs=2", "--sleep=500ms"];
/// A TTL that outlasts the test: whatever happens did not happen because a session ran out.
const LONG: &[&str] = &["--ttl-secs=600", "--sleep=500ms"];

/// Some nodes that share a key, and what is seen of them.
struct Group {
    key: String,
    /// Processes first: they end before their directories go.
    nodes: Vec<(Option<Process>, Place)>,
    observer: Observer,
}

impl Group {
    fn new(key: &str, names: &[&str]) -> Result<Self> {
        let places = names.iter().map(|name| Place::new(name)).collect::<Result<Vec<_>>>()?;
        let seen: Vec<(&str, PathBuf)> =
            places.iter().map(|place| (place.whoami(), place.destination_dir())).collect();
        let observer = Observer::start(seen.iter().map(|(name, path)| (*name, path.as_path())))?;
        let nodes = places.into_iter().map(|place| (None, place)).collect();
        Ok(Group { key: key.to_owned(), nodes, observer })
    }

    /// A group whose nodes all run against this server, one of them with the manifest.
    fn running(etcd: &Etcd, key: &str, names: &[&str], flags: &[&str]) -> Result<Self> {
        let mut group = Group::new(key, names)?;
        names.iter().try_for_each(|name| group.start(name, &etcd.url(), flags))?;
        group.wait_for_sessions(etcd, names.len())?;
        group.leader()?;
        Ok(group)
    }

    fn start(&mut self, name: &str, servers: &str, flags: &[&str]) -> Result<()> {
        let key = self.key.clone();
        let (process, place) = self.node(name);
        *process = Some(place.start(servers, &key, flags)?);
        Ok(())
    }

    fn node(&mut self, name: &str) -> (&mut Option<Process>, &Place) {
        let node = self.nodes.iter_mut().find(|(_, place)| place.whoami() == name);
        let (process, place) = node.expect("a node of the group");
        (process, place)
    }

    fn place(&mut self, name: &str) -> &Place {
        self.node(name).1
    }

    fn process(&mut self, name: &str) -> &mut Process {
        self.node(name).0.as_mut().expect("a node that was started")
    }

    /// Waits until one node has the manifest, and returns its name.
    fn leader(&self) -> Result<String> {
        self.observer.wait_for_holder(POD)
    }

    /// Waits until the store knows this many nodes of the group as alive.
    fn wait_for_sessions(&self, etcd: &Etcd, count: usize) -> Result<()> {
        eventually(&format!("{count} sessions of {}", self.key), PATIENCE, || {
            let prefix = format!("/conclave/{}/sessions/", self.key);
            let sessions = Gateway::connect(etcd.address()).ok()?.list(&prefix).ok()?;
            (sessions.len() == count).then_some(())
        })
    }

    /// Ends the observation; no two ever had the manifest at once.
    fn finish(self) -> Result<Timeline> {
        let Group { nodes, observer, .. } = self;
        let story = observer.finish()?;
        story.at_most_one_holder(POD)?;
        story.only_renamed(POD)?;
        drop(nodes);
        Ok(story)
    }
}

/// Three nodes race for a vacant key, again and again.
fn races(etcd: &Etcd, key: &str, count: usize) -> Outcome {
    let names = ["a", "b", "c"];
    let mut group = Group::new(key, &names)?;
    for _ in 0..count {
        names.iter().try_for_each(|name| group.start(name, &etcd.url(), SHORT))?;
        group.wait_for_sessions(etcd, names.len())?;
        group.leader()?;
        let holders = || group.observer.holders(POD).len();
        holds_for("one holder", Duration::from_millis(200), || holders() == 1)?;
        names.iter().try_for_each(|name| group.process(name).signal(Signal::TERM))?;
        for name in names {
            let status = group.process(name).wait(PATIENCE)?;
            assert!(status.success(), "{name}: {status}");
        }
        assert!(group.observer.holders(POD).is_empty(), "all have stopped");
    }
    group.finish()?;
    Ok(())
}

#[test]
fn three_started_together_give_one_holder_100_times() -> Outcome {
    let etcd = Etcd::start(Version::V3_4)?;
    std::thread::scope(|scope| {
        let etcd = &etcd;
        let race = |number| scope.spawn(move || races(etcd, &format!("race{number}"), 25));
        let threads: Vec<_> = (0..4).map(race).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a race panicked"))
    })
}

#[test]
fn an_edited_source_is_carried_over_while_leading() -> Outcome {
    let mut group = Group::running(etcd::shared(), "edit", &["a"], LONG)?;
    let place = group.place("a");
    let edited = pod::manifest("edited");
    fs::write(place.source(), &edited)?;
    eventually("the edit at the destination", PATIENCE, || {
        (place.placed().as_ref() == Some(&edited)).then_some(())
    })?;
    group.finish()?;
    Ok(())
}

#[test]
fn an_edit_by_rename_is_carried_over_while_leading() -> Outcome {
    let mut group = Group::running(etcd::shared(), "rename", &["a"], LONG)?;
    let place = group.place("a");
    let edited = pod::manifest("renamed");
    let staged = place.root().join("staged.yaml");
    fs::write(&staged, &edited)?;
    fs::rename(&staged, place.source())?;
    eventually("the edit at the destination", PATIENCE, || {
        (place.placed().as_ref() == Some(&edited)).then_some(())
    })?;
    group.finish()?;
    Ok(())
}

#[test]
fn bytes_and_mode_are_those_of_the_source() -> Outcome {
    let mut group = Group::new("mode", &["a"])?;
    let source = group.place("a").source();
    let text = format!("# caf\u{e9} \u{2713}\r\n{}\n\n", pod::manifest("exact"));
    fs::write(&source, &text)?;
    fs::set_permissions(&source, fs::Permissions::from_mode(0o640))?;
    group.start("a", &etcd::shared().url(), LONG)?;
    group.leader()?;
    let place = group.place("a");
    assert_eq!(place.placed(), Some(text));
    assert_eq!(fs::metadata(place.destination())?.permissions().mode() & 0o777, 0o640);
    group.finish()?;
    Ok(())
}

#[test]
fn an_invalid_edit_is_refused_and_the_good_copy_stays() -> Outcome {
    let mut group = Group::running(etcd::shared(), "invalid", &["a"], LONG)?;
    let place = group.place("a");
    let good = place.placed();
    fs::write(place.source(), "apiVersion: v1\nkind: [")?;
    holds_for("the good copy", TTL, || place.placed() == good)?;
    let mended = pod::manifest("mended");
    fs::write(place.source(), &mended)?;
    eventually("the mended manifest", PATIENCE, || {
        (place.placed().as_ref() == Some(&mended)).then_some(())
    })?;
    group.finish()?;
    Ok(())
}

#[test]
fn a_damaged_destination_is_repaired() -> Outcome {
    let mut group = Group::running(etcd::shared(), "damage", &["a"], LONG)?;
    let place = group.place("a");
    let good = place.placed();
    let repaired = || (place.placed() == good).then_some(());
    let destination = place.destination();
    fs::write(&destination, "scribbled over")?;
    eventually("the scribble to go", PATIENCE, repaired)?;
    fs::remove_file(&destination)?;
    eventually("the deleted file to return", PATIENCE, repaired)?;
    let foreign = place.root().join("foreign.yaml");
    fs::write(&foreign, pod::manifest("foreign"))?;
    fs::rename(&foreign, &destination)?;
    eventually("the replaced file to return", PATIENCE, repaired)?;
    Ok(())
}

#[test]
fn a_stale_file_is_removed_on_a_standby_and_replaced_on_the_leader() -> Outcome {
    let mut group = Group::new("stale", &["a", "b"])?;
    let stale = pod::manifest("stale");
    for name in ["a", "b"] {
        fs::write(group.place(name).destination(), &stale)?;
    }
    group.start("a", &etcd::shared().url(), LONG)?;
    let place = group.place("a");
    let fresh = fs::read_to_string(place.source())?;
    eventually("the leader's own manifest", PATIENCE, || {
        (place.placed().as_ref() == Some(&fresh)).then_some(())
    })?;
    group.start("b", &etcd::shared().url(), LONG)?;
    let place = group.place("b");
    eventually("the stale file to go", PATIENCE, || place.placed().is_none().then_some(()))?;
    assert_eq!(group.leader()?, "a");
    Ok(())
}

#[test]
fn sigterm_hands_over_at_once() -> Outcome {
    let etcd = etcd::shared();
    let mut group = Group::running(etcd, "sigterm", &["a", "b", "c"], LONG)?;
    let first = group.leader()?;
    group.process(&first).signal(Signal::TERM)?;
    // The TTL is ten minutes: this ends in time only if the term was handed over.
    let second = group.observer.wait_for_new_holder(POD, &first)?;
    assert_eq!(group.process(&first).wait(PATIENCE)?.code(), Some(0));
    group.wait_for_sessions(etcd, 2)?;
    group.process(&second).signal(Signal::INT)?;
    let third = group.observer.wait_for_new_holder(POD, &second)?;
    assert_eq!(group.process(&second).wait(PATIENCE)?.code(), Some(0));
    group.process(&third).signal(Signal::TERM)?;
    group.observer.wait_for_nobody(POD)?;
    assert_eq!(group.process(&third).wait(PATIENCE)?.code(), Some(0));
    let story = group.finish()?;
    assert_eq!(story.holdings(POD).len(), 3, "each held it once\n{story}");
    Ok(())
}

#[test]
fn a_killed_leader_is_followed_after_its_ttl() -> Outcome {
    let etcd = etcd::shared();
    let mut group = Group::running(etcd, "killed", &["a", "b"], SHORT)?;
    let first = group.leader()?;
    let other = if first == "a" { "b" } else { "a" };
    group.process(&first).kill_family()?;
    // A killed pair cannot remove its file (a power cut would have taken the pod along), so the
    // other's is what shows.
    let place = group.place(other);
    eventually("the other's manifest", PATIENCE, || place.placed().map(drop))?;
    assert!(group.place(&first).placed().is_some());
    // Its next start cleans up first, and then is a standby.
    group.start(&first, &etcd.url(), SHORT)?;
    eventually("the old manifest to go", PATIENCE, || {
        group
            .nodes
            .iter()
            .all(|(_, place)| place.whoami() == other || place.placed().is_none())
            .then_some(())
    })?;
    group.wait_for_sessions(etcd, 2)?;
    assert_eq!(group.leader()?, other);
    Ok(())
}

/// Whatever happens to its etcd, the group's leader has no manifest from a TTL after `cut` on,
/// until `healed`: its last confirmed beat was sent before.
fn gone_by_expiry(story: &Timeline, leader: &str, cut: Instant, healed: Instant) -> Result<()> {
    ensure!(healed > cut + TTL, "the outage outlasts the TTL");
    story.absent(leader, POD, cut + TTL, healed)
}

#[test]
fn a_hung_etcd_leaves_no_manifest_past_the_expiry() -> Outcome {
    let etcd = Etcd::start(Version::V3_4)?;
    let group = Group::running(&etcd, "hung", &["a", "b", "c"], SHORT)?;
    let leader = group.leader()?;
    etcd.pause()?;
    let cut = Instant::now();
    group.observer.wait_for_nobody(POD)?;
    let others = || group.observer.holders(POD).is_empty();
    holds_for("nobody leads without a store", TTL * 2, others)?;
    let healed = Instant::now();
    etcd.resume()?;
    group.leader()?;
    gone_by_expiry(&group.finish()?, &leader, cut, healed)?;
    Ok(())
}

#[test]
fn a_dead_etcd_leaves_no_manifest_past_the_expiry() -> Outcome {
    let mut etcd = Etcd::start(Version::V3_5)?;
    let group = Group::running(&etcd, "dead", &["a", "b", "c"], SHORT)?;
    let leader = group.leader()?;
    etcd.kill()?;
    let cut = Instant::now();
    group.observer.wait_for_nobody(POD)?;
    holds_for("nobody leads", TTL * 2, || group.observer.holders(POD).is_empty())?;
    let healed = Instant::now();
    etcd.restart()?;
    group.leader()?;
    gone_by_expiry(&group.finish()?, &leader, cut, healed)?;
    Ok(())
}

/// Only the leader's own link fails, so that another takes over while the old leader lives.
fn only_the_leader_loses_etcd(key: &str, mode: Mode) -> Result<()> {
    let etcd = etcd::shared();
    let names = ["a", "b", "c"];
    let mut group = Group::new(key, &names)?;
    let mut links = Vec::new();
    for name in names {
        let link = Proxy::start(etcd.address())?;
        group.start(name, &link.url(), SHORT)?;
        links.push((name, link));
    }
    group.wait_for_sessions(etcd, 3)?;
    let first = group.leader()?;
    let link = &links.iter().find(|(name, _)| *name == first).expect("its link").1;
    link.set(mode)?;
    let cut = Instant::now();
    let second = group.observer.wait_for_new_holder(POD, &first)?;
    // Long enough for a leader that renews by reading, or never gives up, to come back.
    holds_for("the second leads alone", TTL * 2, || group.observer.holders(POD) == [&*second])?;
    let healed = Instant::now();
    link.set(Mode::Pass)?;
    group.wait_for_sessions(etcd, 3)?;
    let story = group.finish()?;
    gone_by_expiry(&story, &first, cut, healed)
}

#[test]
fn a_leader_that_is_refused_gives_way() -> Outcome {
    only_the_leader_loses_etcd("refused", Mode::Refuse)?;
    Ok(())
}

#[test]
fn a_leader_in_a_black_hole_gives_way() -> Outcome {
    only_the_leader_loses_etcd("blackhole", Mode::BlackHole)?;
    Ok(())
}

#[test]
fn a_leader_that_hears_no_replies_gives_way() -> Outcome {
    // Its beats still arrive: nobody can take over until it stops sending them, which it does at
    // its own deadline.
    only_the_leader_loses_etcd("deaf", Mode::LoseReplies)?;
    Ok(())
}

#[test]
fn a_leader_whose_requests_are_lost_gives_way() -> Outcome {
    only_the_leader_loses_etcd("mute", Mode::LoseRequests)?;
    Ok(())
}

#[test]
fn an_outage_costs_neither_processor_nor_log() -> Outcome {
    for mode in [Mode::Refuse, Mode::BlackHole] {
        let link = Proxy::start(etcd::shared().address())?;
        let mut group = Group::new(&format!("calm{mode:?}"), &["a"])?;
        group.start("a", &link.url(), SHORT)?;
        group.leader()?;
        link.set(mode)?;
        group.observer.wait_for_nobody(POD)?;
        let process = group.process("a");
        let costs = |process: &Process| -> Result<(Duration, u64)> {
            let family = process.family().into_iter();
            let times = family.map(processor_time).collect::<Result<Vec<_>>>()?;
            Ok((times.into_iter().sum(), process.output_bytes()?))
        };
        let (time_before, bytes_before) = costs(process)?;
        // The outage itself is what is measured.
        std::thread::sleep(Duration::from_secs(10));
        let (time, bytes) = costs(process)?;
        // podmaster's final version used 8.8 s and wrote 100 MB.
        let (time, bytes) = (time.saturating_sub(time_before), bytes - bytes_before);
        assert!(time < Duration::from_secs(1), "{mode:?}: {time:?} of processor time in 10 s");
        assert!(bytes < 50_000, "{mode:?}: {bytes} bytes of log in 10 s");
    }
    Ok(())
}

#[test]
fn a_second_live_process_of_the_same_name_and_key_is_refused() -> Outcome {
    let etcd = etcd::shared();
    // Two machines whose operator gave both the same name: nothing on disk is shared.
    let (first, second) = (Place::new("twin")?, Place::new("twin")?);
    let observer = Observer::start([
        ("first", first.destination_dir().as_path()),
        ("second", second.destination_dir().as_path()),
    ])?;
    let running = first.start(&etcd.url(), "twins", SHORT)?;
    observer.wait_for_holder(POD)?;
    let mut refused = second.start(&etcd.url(), "twins", SHORT)?;
    let status = refused.wait(PATIENCE)?;
    assert!(!status.success(), "{status}");
    let said = refused.output()?;
    assert!(said.contains("twin"), "the message names the node: {said}");
    assert_eq!(observer.holders(POD), ["first"]);
    let story = observer.finish()?;
    assert_eq!(story.holdings(POD).len(), 1, "the first was never disturbed\n{story}");
    drop(running);
    Ok(())
}

#[test]
fn a_second_process_on_the_same_files_is_refused() -> Outcome {
    let etcd = etcd::shared();
    let mut group = Group::running(etcd, "samefiles", &["a"], SHORT)?;
    let mut second = group.place("a").start(&etcd.url(), "samefiles", SHORT)?;
    let status = second.wait(PATIENCE)?;
    assert!(!status.success(), "{status}");
    holds_for("the first leads", TTL, || group.observer.holders(POD) == ["a"])?;
    let story = group.finish()?;
    assert_eq!(story.holdings(POD).len(), 1, "the first was never disturbed\n{story}");
    Ok(())
}

#[test]
fn one_name_may_hold_different_keys() -> Outcome {
    let etcd = etcd::shared();
    let (scheduler, manager) = (Place::new("node")?, Place::new("node")?);
    let _one = scheduler.start(&etcd.url(), "two-scheduler", LONG)?;
    let _other = manager.start(&etcd.url(), "two-manager", LONG)?;
    eventually("both manifests", PATIENCE, || {
        (scheduler.placed().is_some() && manager.placed().is_some()).then_some(())
    })?;
    Ok(())
}

#[test]
fn two_keys_share_one_destination_directory() -> Outcome {
    // As in the pod that podmaster came in: one directory, two files, two processes.
    let etcd = etcd::shared();
    let place = Place::new("node")?;
    let other = place.destination_dir().join("other.yaml");
    let flag = format!("--dest-file={}", other.display());
    let _one = place.start(&etcd.url(), "shared-one", LONG)?;
    let mut second = place.start(&etcd.url(), "shared-two", &[LONG, &[&flag]].concat())?;
    eventually("both manifests", PATIENCE, || {
        (place.placed().is_some() && other.exists()).then_some(())
    })?;
    second.signal(Signal::TERM)?;
    assert_eq!(second.wait(PATIENCE)?.code(), Some(0));
    assert!(!other.exists() && place.placed().is_some());
    Ok(())
}

#[test]
fn sibling_keys_do_not_see_each_other() -> Outcome {
    let etcd = etcd::shared();
    let (short, long) = (Place::new("one")?, Place::new("other")?);
    let _short = short.start(&etcd.url(), "xy", LONG)?;
    let _long = long.start(&etcd.url(), "xyz", LONG)?;
    eventually("both manifests", PATIENCE, || {
        (short.placed().is_some() && long.placed().is_some()).then_some(())
    })?;
    Ok(())
}

#[test]
fn a_node_without_a_source_never_keeps_others_out() -> Outcome {
    let etcd = etcd::shared();
    let mut group = Group::new("sourceless", &["a", "b"])?;
    let source = group.place("a").source();
    let text = fs::read_to_string(&source)?;
    fs::remove_file(&source)?;
    group.start("a", &etcd.url(), LONG)?;
    group.wait_for_sessions(etcd, 1)?;
    group.start("b", &etcd.url(), LONG)?;
    assert_eq!(group.leader()?, "b");
    // Once it has a source it is a candidate like any other.
    fs::write(&source, text)?;
    group.process("b").signal(Signal::TERM)?;
    assert_eq!(group.observer.wait_for_new_holder(POD, "b")?, "a");
    group.finish()?;
    Ok(())
}

#[test]
fn a_node_with_an_invalid_source_never_keeps_others_out() -> Outcome {
    let etcd = etcd::shared();
    let mut group = Group::new("unparsable", &["a", "b"])?;
    fs::write(group.place("a").source(), "kind: Pod\n")?;
    group.start("a", &etcd.url(), LONG)?;
    group.wait_for_sessions(etcd, 1)?;
    group.start("b", &etcd.url(), LONG)?;
    assert_eq!(group.leader()?, "b");
    group.finish()?;
    Ok(())
}

#[test]
fn a_leader_that_loses_its_source_keeps_the_good_copy() -> Outcome {
    let mut group = Group::running(etcd::shared(), "vanished", &["a"], LONG)?;
    fs::remove_file(group.place("a").source())?;
    holds_for("the good copy", TTL, || group.observer.holders(POD) == ["a"])?;
    group.finish()?;
    Ok(())
}

#[test]
fn garbage_under_our_keys_stalls_nobody() -> Outcome {
    let etcd = etcd::shared();
    let mut group = Group::running(etcd, "garbage", &["a", "b"], LONG)?;
    let first = group.leader()?;
    for key in etcd.keys("/conclave/")?.iter().filter(|key| key.contains("/garbage")) {
        if key.contains("/sessions/") || key.contains("/candidates/") {
            let (parent, _) = key.rsplit_once('/').context("a key has a parent")?;
            etcd.ctl(&["put", &format!("{parent}/stranger"), "\u{fffd}{not json"])?;
        }
    }
    group.process(&first).signal(Signal::TERM)?;
    group.observer.wait_for_new_holder(POD, &first)?;
    assert_eq!(group.process(&first).wait(PATIENCE)?.code(), Some(0));
    group.finish()?;
    Ok(())
}

#[test]
fn several_servers_may_include_a_dead_one() -> Outcome {
    let etcd = etcd::shared();
    let mut group = Group::new("several", &["a"])?;
    let dead = Proxy::start(etcd.address())?;
    dead.set(Mode::Refuse)?;
    let servers = format!("{},{}", dead.url(), etcd.url());
    group.start("a", &servers, LONG)?;
    group.leader()?;
    group.finish()?;
    Ok(())
}

/// Runs the binary under a name, to its end.
fn run(program: &Path, arguments: &[&str]) -> Result<Output> {
    Command::new(program).args(arguments).output().context("run the binary")
}

fn refusal(program: &Path, arguments: &[&str]) -> Result<String> {
    let output = run(program, arguments)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(2), "{:?}: {said}", output.status);
    ensure!(output.stdout.is_empty(), "words belong on the error stream");
    Ok(said)
}

#[test]
fn the_command_line_is_podmasters() -> Outcome {
    let etcd = etcd::shared();
    let place = Place::new("flags")?;
    let (source, destination) = (place.source(), place.destination());
    let url = etcd.url();
    // Under its old name, as in a container whose image alone was changed.
    let program = place.root().join("podmaster");
    symlink(binary::conclave(), &program)?;
    let mut command = Command::new(&program);
    command
        .args(["-etcd-servers", &url, "--key", "flags", "-ttl-secs=600", "--sleep", "1m30s"])
        .args(["--whoami=flags", "--v=2", "--logtostderr", "-alsologtostderr=true"])
        .arg("-source-file")
        .arg(&source)
        .arg("--dest-file")
        .arg(&destination);
    let mut process = Process::start("podmaster", place.root(), command)?;
    eventually("the manifest", PATIENCE, || place.placed().map(drop))?;
    process.signal(Signal::TERM)?;
    assert_eq!(process.wait(PATIENCE)?.code(), Some(0));
    assert_eq!(place.placed(), None);
    Ok(())
}

#[test]
fn the_name_defaults_to_the_host_name() -> Outcome {
    let etcd = etcd::shared();
    let place = Place::new("hostname")?;
    let mut command = Command::new(binary::conclave());
    command
        .args(["podmaster", "--key=hostname", &format!("--etcd-servers={}", etcd.url())])
        .arg(format!("--source-file={}", place.source().display()))
        .arg(format!("--dest-file={}", place.destination().display()));
    let _process = Process::start("podmaster", place.root(), command)?;
    eventually("the manifest", PATIENCE, || place.placed().map(drop))?;
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let keys = etcd.keys("/conclave/")?;
    let ours: Vec<_> = keys.iter().filter(|key| key.contains("hostname/sessions/")).collect();
    assert!(ours.iter().any(|key| key.contains(host.trim())), "{ours:?} on {host}");
    Ok(())
}

#[test]
fn mistakes_in_the_command_line_are_explained() -> Outcome {
    let dir = scratch::directory("flags")?;
    let (source, destination) = (dir.path().join(FILE), dir.path().join("dst").join(FILE));
    fs::write(&source, pod::manifest("pod"))?;
    fs::create_dir(dir.path().join("dst"))?;
    let source = format!("--source-file={}", source.display());
    let destination = format!("--dest-file={}", destination.display());
    let good = ["podmaster", "--etcd-servers=http://127.0.0.1:1", "--key=k", &source, &destination];
    let without = |flag: &str| -> Vec<&str> {
        good.into_iter().filter(|argument| !argument.starts_with(flag)).collect()
    };
    for flag in ["--etcd-servers", "--key", "--source-file", "--dest-file"] {
        let said = refusal(binary::conclave(), &without(flag))?;
        assert!(said.contains(flag), "{flag}: {said}");
    }
    let mistakes = [
        ("--ttl-secs=soon", "soon"),
        ("--sleep=5", "5"),
        ("--sleep=-1s", "-1s"),
        ("--kye=k", "kye"),
    ];
    for (flag, named) in mistakes {
        let said = refusal(binary::conclave(), &[&good[..], &[flag]].concat())?;
        assert!(said.contains(named), "{flag}: {said}");
    }
    Ok(())
}

#[test]
fn a_server_of_the_old_api_is_named_as_such() -> Outcome {
    let server = V2Server::start()?;
    let mut group = Group::new("old", &["a"])?;
    group.start("a", &format!("http://{}", server.address()), SHORT)?;
    let process = group.process("a");
    let status = process.wait(PATIENCE)?;
    let said = process.output()?;
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("v3") && said.contains("2.3.8"), "{said}");
    Ok(())
}
