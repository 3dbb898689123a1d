//! The types and calls that `wit/` defines, generated.
//!
//! Arguments borrow from the host's own types, so that a call copies every string once only:
//! into the guest.

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "policy",
    ownership: Borrowing { duplicate_if_necessary: false },
});
