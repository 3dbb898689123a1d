//! Property tests: a page file of any content, and a page with anything on it.
//!
//! A daemon that was killed half-way through, another version's program or a bad memory chip must not
//! take the guard along: it is the one that has to act then.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

use conclave_core::SessionId;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::clock::Reading;
use crate::heartbeat::Rhythm;
use crate::lanes::Lanes;
use crate::page::tests::page;
use crate::page::{Page, PageFile};
use crate::session::SessionWriter;
use crate::slot::Kind;

/// Mappings live as long as the process, so there are not many cases.
fn few() -> ProptestConfig {
    ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() }
}

/// One changed byte of a good page's head, or the file's length.
#[derive(Clone, Debug)]
enum Spoilt {
    Byte(usize, u8),
    Length(usize),
    Everything(Vec<u8>),
}

fn spoilt() -> impl Strategy<Value = Spoilt> {
    prop_oneof![
        4 => (0..40_usize, 1..=255_u8).prop_map(|(at, change)| Spoilt::Byte(at, change)),
        1 => (0..40_000_usize).prop_map(Spoilt::Length),
        1 => vec(any::<u8>(), 0..6_000).prop_map(Spoilt::Everything),
    ]
}

/// What stands in one slot: any words, and paths of one letter in a directory.
type Words = ([u64; 7], Option<u8>, Option<u8>);

fn words() -> impl Strategy<Value = Words> {
    let word = || prop_oneof![0..8_u64, any::<u64>()];
    let words = [word(), word(), word(), word(), word(), word(), word()];
    (words, proptest::option::of(b'a'..=b'f'), proptest::option::of(b'a'..=b'f'))
}

fn fill(page: Page, directory: &Path, slots: &[Words], session: Vec<u64>) {
    let header = page.header();
    let fields = [
        &header.session_state,
        &header.session_id,
        &header.margin_ns,
        &header.deadline_boot_ns,
        &header.deadline_raw_ns,
    ];
    fields.into_iter().zip(session).for_each(|(field, word)| field.store(word, SeqCst));
    for (index, (slot, (words, dest, staged))) in page.slots().iter().zip(slots).enumerate() {
        let fields = [
            &slot.state,
            &slot.kind,
            &slot.session_id,
            &slot.token,
            &slot.directory,
            &slot.reset_inode,
            &slot.failure,
        ];
        fields.into_iter().zip(words).for_each(|(field, word)| field.store(*word, SeqCst));
        let path = |letter: &Option<u8>| match letter {
            Some(letter) => directory.join(char::from(*letter).to_string()),
            None => Path::new("").to_owned(),
        };
        page.paths(index).dest.store(path(dest).as_os_str().as_bytes());
        page.paths(index).staged.store(path(staged).as_os_str().as_bytes());
    }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn a_file_that_no_guard_made_is_refused_and_replaced(spoilt in spoilt()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("page");
        let file = PageFile::open_or_create(&path, 2).unwrap();
        file.page.take_over(7, Rhythm::default(), Path::new("/"));
        let mut bytes = fs::read(&path).unwrap();
        file.remove().unwrap();
        match spoilt {
            Spoilt::Byte(at, change) => bytes[at] ^= change,
            Spoilt::Length(length) => {
                prop_assume!(length != bytes.len());
                bytes.resize(length, 0);
            }
            Spoilt::Everything(garbage) => bytes = garbage,
        }
        fs::write(&path, &bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let new = PageFile::open_or_create(&path, 2).unwrap().page;
        prop_assert_eq!((new.header().guard_nonce.load(SeqCst), new.claimed(), new.session()), (0, 0, None));
    }

    #[test]
    fn whatever_stands_on_a_page_is_withdrawn_and_put_in_order(
        slots in vec(words(), 4),
        session in vec(prop_oneof![0..4_u64, any::<u64>()], 5),
    ) {
        let directory = tempfile::tempdir().unwrap();
        for letter in 'a'..='g' {
            fs::write(directory.path().join(letter.to_string()), "in place").unwrap();
        }
        let (_file, page) = page(slots.len());
        fill(page, directory.path(), &slots, session);
        let mut lanes = Lanes::start(page, &[directory.path().to_owned()]).unwrap();

        // What a guard does that finds a page whose daemon is dead.
        page.free_unfinished();
        page.unpin_all();
        let claimed = page.claims();
        page.failures().into_iter().for_each(drop);
        page.expire(Reading::now(), true);
        lanes.order(true);
        while !lanes.are_finished() {
            thread::yield_now();
        }

        prop_assert_eq!(page.claims(), []);
        prop_assert!(directory.path().join("g").is_file(), "nobody named it");
        // Resetting a role file puts another file in its place, which may be any of these.
        if claimed.iter().all(|claim| claim.kind == Kind::Manifest) {
            prop_assert!(claimed.iter().all(|claim| !claim.dest.is_file()), "{:?}", claimed);
        }
        page.forget_session();
        let deadline = Reading::now().after(Duration::from_secs(60));
        SessionWriter::new(page, None).begin(SessionId(9), deadline, Duration::ZERO).unwrap();
    }
}
