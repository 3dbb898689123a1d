//! The manifest loop's gate, over the page that the guard watches.

use std::path::Path;

use conclave_core::{ElectionName, Token};
use conclave_guard::{Kind, Page, PageError, Reading, SlotId};
use conclave_manifests::{Effect, Gate, GateError, Slot};

/// Every exclusive effect is claimed on the guard's page before it appears.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageGate {
    page: Page,
}

impl PageGate {
    pub(crate) fn new(page: Page) -> Self {
        PageGate { page }
    }
}

impl Gate for PageGate {
    fn claim(
        &self,
        _election: &ElectionName,
        token: Token,
        effect: Effect,
        destination: &Path,
        staged: &Path,
    ) -> Result<Box<dyn Slot>, GateError> {
        let page = self.page;
        if !page.session().is_some_and(|session| session.stands(Reading::now())) {
            return Err(GateError::Closed { token });
        }
        let standing = page
            .claims()
            .into_iter()
            .find(|claim| claim.token == token && claim.dest == destination);
        let slot = match standing {
            Some(claim) => claim.id,
            None => {
                let kind = match effect {
                    Effect::Manifest => Kind::Manifest,
                    Effect::RoleFile => Kind::RoleFile,
                };
                page.claim(kind, token, destination, staged).map_err(|error| match error {
                    PageError::Expired { .. } | PageError::NoSession => GateError::Closed { token },
                    other => GateError::Refused { reason: other.to_string() },
                })?
            }
        };
        Ok(Box::new(PageSlot { page, slot }))
    }
}

struct PageSlot {
    page: Page,
    slot: SlotId,
}

impl Slot for PageSlot {
    fn open(&self) -> bool {
        self.page.may_place(self.slot)
    }

    fn release(&self) -> bool {
        self.page.release(self.slot).is_ok()
    }
}
