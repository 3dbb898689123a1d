//! The first-party policies' own cases hold.

use std::path::Path;

#[test]
fn every_built_in_policy_has_cases_and_they_hold() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    for policy in conclave_policy::BUILT_IN {
        conclave_policy_test::assert_cases(plugins.join(policy));
    }
}
