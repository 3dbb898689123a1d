//! The first-party policies' own cases hold.

use std::path::Path;

fn hold(policy: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins").join(policy);
    conclave_policy_test::assert_cases(directory);
}

#[test]
fn those_of_cold_standby() {
    hold("cold-standby");
}

#[test]
fn those_of_hot_standby() {
    hold("hot-standby");
}
