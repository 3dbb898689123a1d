//! Write a Conclave policy in Rust: implement [`Policy`], export it, build a component.
//!
//! ```
//! use conclave_policy_sdk::{Info, Policy, Ranking, Refusal, View, export_policy, ranking};
//!
//! struct RackFirst;
//!
//! impl Policy for RackFirst {
//!     type Config = ();
//!
//!     fn introduce() -> Info {
//!         Info { name: "rack-first".into(), summary: "Rack a leads.".into(), ..Info::default() }
//!     }
//!
//!     fn rank(view: &View, _: &()) -> Result<Ranking, Refusal> {
//!         Ok(ranking::by_key(view, |candidate| {
//!             let in_a = candidate.label("rack") == Some("a");
//!             (!in_a, if in_a { "stands in rack a" } else { "stands elsewhere" }.into())
//!         }))
//!     }
//! }
//!
//! export_policy!(RackFirst);
//! # fn main() {}
//! ```
//!
//! What is not implemented does what the host does for an absent interface. The types and their
//! meaning come from the WIT package `conclave:policy`; its comments are the reference.
//!
//! Everything here also works natively, so that a policy's logic has ordinary unit tests;
//! [`export_policy!`] acts only when compiling to WebAssembly.

mod config;
pub mod log;
#[cfg(all(target_arch = "wasm32", feature = "bump"))]
mod memory;
pub mod placement;
mod policy;
pub mod ranking;

/// The code that `wit-bindgen` generates from the WIT package: raw, and re-exported below.
#[doc(hidden)]
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "policy",
        pub_export_macro: true,
        export_macro_name: "export_component",
        default_bindings_module: "conclave_policy_sdk::bindings",
        additional_derives: [PartialEq, Eq],
    });
}

/// Every call gets a fresh instance, so memory need not be given back: what frees does nothing.
/// A policy that allocates more than 64 MB within one call turns the feature `bump` off.
#[cfg(all(target_arch = "wasm32", feature = "bump"))]
#[global_allocator]
static ALLOCATOR: memory::Bump = memory::Bump;

pub use bindings::conclave::policy::types::{
    Attributes, Candidate, Fitness, Incumbent, Manifest, Node, Previous, Refusal, Role, Transfer,
    View,
};
pub use bindings::exports::conclave::policy::about::{Info, Problem};
pub use bindings::exports::conclave::policy::leadership::{Ranked, Ranking};
pub use bindings::exports::conclave::policy::placement::Placement;
pub use config::Config;
#[doc(hidden)]
pub use policy::Component;
pub use policy::Policy;

/// The value of `key` in a list of labels, facts or variables.
pub fn get<'a>(attributes: &'a Attributes, key: &str) -> Option<&'a str> {
    attributes.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
}

impl Candidate {
    /// The value of one of its labels.
    pub fn label(&self, key: &str) -> Option<&str> {
        get(&self.labels, key)
    }

    /// The value of one of its facts.
    pub fn fact(&self, key: &str) -> Option<&str> {
        get(&self.facts, key)
    }
}

impl Node {
    /// The value of one of its labels.
    pub fn label(&self, key: &str) -> Option<&str> {
        get(&self.labels, key)
    }

    /// The value of one of its variables.
    pub fn variable(&self, key: &str) -> Option<&str> {
        get(&self.variables, key)
    }
}

/// Everything empty.
impl Default for Info {
    fn default() -> Self {
        let empty = String::new;
        Info { name: empty(), version: empty(), summary: empty(), config_schema: empty() }
    }
}

/// Makes a type that implements [`Policy`] the component's policy. Once in a crate.
#[macro_export]
macro_rules! export_policy {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)]
        const _: () = {
            type Exported = $crate::Component<$policy>;
    $crate::bindings::export_component!(Exported with_types_in $crate::bindings);
        };
        const _: fn() = || {
            fn is_a_policy<T: $crate::Policy>() {}
            is_a_policy::<$policy>();
        };
    };
}
